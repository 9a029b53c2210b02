"""Places to learn from in real files: the sample area, with its labels and parcels."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from learning_worlds import ToyExamples

from omnisat_cli.errors import AlignmentError, JobError
from omnisat_cli.job import Input
from omnisat_cli.learning.data.area import AreaCut, AreaExamples, AreaInputs, open_areas
from omnisat_cli.learning.data.batches import Batcher, BatchSpec
from omnisat_cli.learning.data.joined import Joined
from omnisat_cli.learning.data.split import Subset, split_by_space
from omnisat_cli.learning.data.statistics import class_counts, make_modality_cards
from omnisat_cli.learning.labelling.labels import LabelRequest
from omnisat_cli.outputs.legend import Legend, LegendClass

SAMPLE = Path(__file__).resolve().parents[1] / "sample_aoi"
INPUTS = tuple(
    Input(name, (str(SAMPLE / file),))
    for name, file in (("aerial", "aerial.tif"), ("s2", "s2.nc"), ("s1", "s1.nc"))
)
TRUTH = LabelRequest(str(SAMPLE / "labels.tif"))
PARCELS = LabelRequest(str(SAMPLE / "parcels.gpkg"), field="class_code")
CUT = AreaCut(side=12, label_refine=10)


@pytest.fixture(scope="module")
def truth() -> AreaExamples:
    return open_areas([AreaInputs(INPUTS, TRUTH)], CUT)


@pytest.fixture(scope="module")
def fields() -> AreaExamples:
    return open_areas([AreaInputs(INPUTS, PARCELS)], CUT)


def test_the_sample_area_becomes_examples(truth: AreaExamples) -> None:
    assert [c.name for c in truth.channels] == ["aerial", "s2", "s1"]
    assert [c.gsd for c in truth.channels] == [0.5, 10.0, 10.0]
    assert len(truth.legend.classes) == 15
    example = truth.example(0)
    assert example.sample.window.shape == (12, 12)
    assert example.classes.shape == (120, 120)
    assert example.parcels is None
    assert example.sample.data["s2"].pixels.shape[1:] == (10, 12, 12)
    assert any(d.topic == "windows" for d in truth.decisions)


def test_examples_hold_what_the_sources_read_there(truth: AreaExamples) -> None:
    small = AreaExamples(
        "x", (truth.lattice, truth.sources, truth.labelled), replace(CUT, memory_bytes=1)
    )
    for index in (0, len(truth) // 2, len(truth) - 1):
        window = truth.window(index)
        one, other = truth.example(index), small.example(index)
        for name, source in truth.sources.items():
            if name not in one.sample.data:
                continue
            read = source.read(window)
            for found in (one, other):
                np.testing.assert_array_equal(found.sample.data[name].pixels, read.pixels)
                np.testing.assert_array_equal(found.sample.data[name].valid, read.valid)
        np.testing.assert_array_equal(one.classes, other.classes)


def test_groups_share_no_pixel(truth: AreaExamples) -> None:
    assert len(set(truth.groups.tolist())) >= 8
    owner: dict[tuple[int, int], int] = {}
    for index, group in enumerate(truth.groups.tolist()):
        window = truth.window(index)
        for row in range(window.row, window.row_end):
            for col in range(window.col, window.col_end):
                assert owner.setdefault((row, col), group) == group


def test_every_example_of_sparse_labels_holds_a_label(fields: AreaExamples) -> None:
    counts = class_counts(fields)
    assert (counts.sum(axis=1) > 0).all()
    example = fields.example(0)
    assert ((example.parcels > 0) == (example.classes != 255)).all()
    assert len(np.unique(example.parcels)) > 1


def test_an_area_can_be_split_learned_from_and_pickled(fields: AreaExamples) -> None:
    counts = class_counts(fields)
    split = split_by_space(fields.groups, counts, 0.25, 0)
    assert 0.1 < len(split.validation) / len(fields) < 0.4
    again = pickle.loads(pickle.dumps(fields))
    assert len(pickle.dumps(fields)) < 2_000_000
    cards = make_modality_cards(Subset(again, range(4)), ["aerial", "s2"], {"s2": 6})
    assert 500 < cards[1].mean[6] < 6000
    part = Subset(fields, range(6))
    spec = BatchSpec(size=2, side=6, keep_dates={"s2": 6}, drop={"aerial": 0.3})
    one = Batcher(part, cards, spec, 0).batch(3)
    other = Batcher(Subset(again, range(6)), cards, spec, 0).batch(3)
    assert one.pixels["s2"].shape[2] == 6
    assert (one.pixels["s2"] == other.pixels["s2"]).all()
    assert (one.truth == other.truth).all()


def test_imagery_without_labels_is_enough_for_pretraining() -> None:
    alone = open_areas([AreaInputs(INPUTS[1:])], replace(CUT, side=24))
    example = alone.example(0)
    assert example.classes is None
    assert set(example.sample.data) == {"s2", "s1"}
    with pytest.raises(JobError, match="1 of 2 areas have labels"):
        open_areas([AreaInputs(INPUTS[1:]), AreaInputs(INPUTS[1:], TRUTH)], CUT)


def test_the_legend_of_a_model_is_kept_where_the_codes_fit(truth: AreaExamples) -> None:
    fields = open_areas([AreaInputs(INPUTS[1:2], PARCELS)], CUT, legend=truth.legend)
    assert fields.legend == truth.legend


def test_several_areas_have_one_legend(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "code,class\n" + "\n".join(f"{n},{'low' if n < 7 else 'crop'}" for n in range(15))
    )
    areas = [AreaInputs(INPUTS[1:2], TRUTH), AreaInputs(INPUTS[1:2], PARCELS)]
    both = open_areas(areas, replace(CUT, label_refine=1), str(table))
    assert isinstance(both, Joined)
    assert [entry.name_en for entry in both.legend.classes] == ["low", "crop"]
    first, second = both.sets
    assert len(both) == len(first) + len(second)
    assert set(first.groups.tolist()).isdisjoint((both.groups[len(first) :]).tolist())
    np.testing.assert_array_equal(both.example(len(first) + 3).classes, second.example(3).classes)
    np.testing.assert_array_equal(both.labels(2).classes, first.example(2).classes)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("code,class\n" + "\n".join(f"{n},land" for n in range(15)))
    area = AreaInputs(INPUTS[1:2], TRUTH)
    with pytest.raises(JobError, match=r"one class only \(land, in \d+ windows\)"):
        open_areas([area], replace(CUT, label_refine=1), str(table))


def test_imagery_that_nobody_wants_is_refused() -> None:
    from omnisat_cli.sources.opening import Wanted

    cut = replace(CUT, wanted=(Wanted("s2", None, None),))
    with pytest.raises(JobError, match="s1 is not used; wanted are s2"):
        open_areas([AreaInputs(INPUTS[1:], TRUTH)], cut)


def test_labels_beside_the_imagery_are_refused(tmp_path: Path) -> None:
    place = shapely.box(700_000, 6_600_000, 700_100, 6_600_100)
    frame = geopandas.GeoDataFrame({"c": [1]}, geometry=[place], crs="EPSG:2154")
    frame.to_file(tmp_path / "a.gpkg")
    request = LabelRequest(str(tmp_path / "a.gpkg"), "c")
    with pytest.raises(AlignmentError, match=r"the labels .* lie 235 km from the imagery"):
        open_areas([AreaInputs(INPUTS[1:2], request)], CUT)


def small_image(tmp_path: Path) -> Input:
    profile = {
        "driver": "GTiff",
        "height": 60,
        "width": 60,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:2154",
        "transform": Affine(1, 0, 606_400, 0, -1, 6_816_900),
    }
    rng = np.random.default_rng(0)
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as dataset:
        dataset.write(rng.integers(1, 255, (3, 60, 60), dtype=np.uint8))
    return Input("aerial", (str(tmp_path / "a.tif"),), (("bands", "R,G,B"),))


def test_windows_lie_only_where_imagery_is(tmp_path: Path) -> None:
    found = open_areas([AreaInputs((small_image(tmp_path),), TRUTH)], replace(CUT, side=2))
    assert found.channels[0].bands == ("R", "G", "B")
    assert found.channels[0].gsd == 1.0
    for index in range(len(found)):
        valid = found.example(index).sample.data["aerial"].valid
        assert valid.any()


def test_sets_that_do_not_fit_are_not_joined() -> None:
    other = ToyExamples()

    class Coarse(ToyExamples):
        patch_m = 40.0

    class Named(ToyExamples):
        legend = Legend("o", "1", "t", "MIT", (LegendClass(1, "a", "a", "#000000"),))

    with pytest.raises(JobError, match=r"patches of 10\.0, toy 40\.0"):
        Joined((other, Coarse()))
    with pytest.raises(JobError, match="the classes"):
        Joined((other, Named()))
    both = Joined((other, ToyExamples(count=3)))
    assert both.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    with pytest.raises(IndexError):
        both.example(9)
