"""Sen1Floods11, in tiny lists of chips of the published layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.datasets.floods import FloodExamples
from omnisat_cli.sources.values import Series

HAND = Path("v1.1/data/flood_events/HandLabeled")
PARTS = {"train": ["Ghana_7", "Sri-Lanka_12"], "valid": ["Mekong_3"], "test": [], "bolivia": []}
S2 = np.arange(13, dtype=np.int16)[:, None, None] * 100 + np.arange(512, dtype=np.int16) % 90 + 1


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = rasterio.Affine(8.98e-5, 0, 1.2, 0, -8.98e-5, 9.4)
    form = {"driver": "GTiff", "crs": "EPSG:4326", "transform": place, "compress": "zstd"}
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", **form, **size) as out:
        out.write(pixels)


def write_chip(root: Path, chip: str) -> None:
    radar = np.full((2, 512, 512), -12.5, np.float32)
    radar[:, :40, :40] = np.nan
    label = np.zeros((1, 512, 512), np.int16)
    label[0, 128:256, :100], label[0, :, 500:] = 1, -1
    write(root / HAND / "S1Hand" / f"{chip}_S1Hand.tif", radar)
    pixels = np.broadcast_to(S2, (13, 512, 512)).copy()
    write(root / HAND / "S2Hand" / f"{chip}_S2Hand.tif", pixels)
    write(root / HAND / "LabelHand" / f"{chip}_LabelHand.tif", label)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three chips listed, one of them there."""
    lists = tmp_path / "v1.1" / "splits" / "flood_handlabeled"
    lists.mkdir(parents=True)
    for part, chips in PARTS.items():
        lines = [f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in chips]
        (lists / f"flood_{part}_data.csv").write_text("".join(lines))
    rows = [
        {"location": "Ghana", "s1_date": "2018-09-18", "s2_date": "2018/09/19"},
        {"location": "Cambodia", "s1_date": "2018/08/05", "s2_date": "2018/08/04"},
        {"location": "Sri-Lanka", "s1_date": "2017/05/30", "s2_date": "2017/05/28"},
    ]
    table = {"features": [{"type": "Feature", "properties": row} for row in rows]}
    (tmp_path / "v1.1" / "Sen1Floods11_Metadata.geojson").write_text(json.dumps(table))
    write_chip(tmp_path, "Ghana_7")
    return tmp_path


def test_a_window_holds_the_stored_pixels_of_its_place(root: Path) -> None:
    examples = open_dataset("sen1floods11", root, split="train", options=Options(side=32))
    assert len(examples) == 2 * 16
    example = examples.example(4)
    s2, s1 = example.sample.data["s2"], example.sample.data["s1"]
    assert isinstance(s2, Series)
    assert isinstance(s1, Series)
    assert s2.pixels.shape == (1, 10, 128, 128)
    np.testing.assert_array_equal(s2.pixels[0, :, 0, 5], S2[[1, 2, 3, 4, 5, 6, 7, 8, 11, 12], 0, 5])
    assert [str(day) for day in (*s2.dates, *s1.dates)] == ["2018-09-19", "2018-09-18"]
    assert s1.valid.all()
    assert example.classes is not None
    assert (example.classes[:, :100] == 1).all()
    assert (example.classes[:, 100:] == 0).all()
    radar = examples.example(0).sample.data["s1"]
    assert not radar.valid[0, :40, :40].any()
    assert np.isfinite(radar.pixels).all()


def test_pixels_without_data_are_not_labelled(root: Path) -> None:
    examples = open_dataset("sen1floods11", root, split="train")
    assert isinstance(examples, FloodExamples)
    classes = examples.labels(0).classes
    assert classes is not None
    assert (classes[:, 500:] == 255).all()
    assert set(np.unique(classes[:, :500])) == {0, 1}


def test_parts_are_the_listed_ones_and_events_are_groups(root: Path) -> None:
    whole = open_dataset("sen1floods11", root / "v1.1")
    assert whole.groups.tolist() == [0, 1, 2]
    assert len(open_dataset("sen1floods11", root, split="val")) == 1
    event = open_dataset("sen1floods11", root, folds=["Ghana"])
    assert len(event) == 1
    again = pickle.loads(pickle.dumps(event)).example(0)
    np.testing.assert_array_equal(again.classes, event.example(0).classes)
    with pytest.raises(JobError, match="no event Ghana there; it has Mekong"):
        open_dataset("sen1floods11", root, split="val", folds=["Ghana"])
    with pytest.raises(JobError, match="no split dev"):
        open_dataset("sen1floods11", root, split="dev")


@pytest.mark.parametrize(
    ("kind", "pixels", "said"),
    [
        ("S2Hand", None, "S2Hand.tif is missing; expected Sen1Floods11"),
        ("S2Hand", np.ones((12, 512, 512), np.int16), "12 band"),
        ("S1Hand", np.ones((2, 500, 512), np.float32), "500 × 512"),
        ("S1Hand", np.ones((2, 512, 512), np.uint8), "uint8"),
        ("LabelHand", np.full((1, 512, 512), 7, np.int16), "holds 7"),
    ],
)
def test_files_that_do_not_fit_are_typed_errors(
    root: Path, kind: str, pixels: np.ndarray | None, said: str
) -> None:
    path = root / HAND / kind / f"Ghana_7_{kind}.tif"
    path.unlink()
    if pixels is not None:
        write(path, pixels)
    with pytest.raises(SourceError, match=said):
        open_dataset("sen1floods11", root, folds=["Ghana"]).example(0)


def test_a_file_cut_short_is_a_typed_error(root: Path) -> None:
    path = root / HAND / "S1Hand" / "Ghana_7_S1Hand.tif"
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(SourceError, match="damaged"):
        open_dataset("sen1floods11", root, folds=["Ghana"]).example(0)


def test_tables_that_do_not_fit_are_typed_errors(root: Path) -> None:
    path = root / "v1.1" / "Sen1Floods11_Metadata.geojson"
    path.write_text('{"features": []}')
    with pytest.raises(SourceError, match="no event Ghana"):
        open_dataset("sen1floods11", root)
    path.unlink()
    with pytest.raises(SourceError, match=r"Metadata\.geojson is missing"):
        open_dataset("sen1floods11", root)
    (root / "v1.1/splits/flood_handlabeled/flood_test_data.csv").write_text("chip\n")
    with pytest.raises(SourceError, match="'chip' names no file"):
        open_dataset("sen1floods11", root)
    with pytest.raises(SourceError, match="expected Sen1Floods11 as published"):
        open_dataset("sen1floods11", root / "v1.1" / "data")
