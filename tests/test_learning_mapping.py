"""Examples through the engine: one window as in training, large ones as `predict` would."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from worlds import CPU, EXTENT, ToyNetwork, World, card, random_world, recipe

from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.errors import JobError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Tiling, make_plan
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.learning.scoring.evaluate import TruthRequest
from omnisat_cli.learning.scoring.evaluate_pack import (
    choose_subsets,
    evaluate_examples,
    not_measured,
    pack_scheme,
)
from omnisat_cli.learning.scoring.mapping import SampleMapper, mapper_for, on_labels
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.sources.values import Sample, Series

NAMES = ("a", "b", "c")
LEGEND = Legend(
    "toy", "1", "test", "MIT",
    tuple(LegendClass(code, n, n, "#000000") for code, n in zip((3, 7, 9), NAMES, strict=True)),
)  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Cuts of a world as examples."""

    world: World
    windows: tuple[Window, ...]
    label_refine: int = 4
    patch_m: float = 10.0
    task: Task = "segmentation"
    legend: Legend = LEGEND
    name: str = "places"
    reads: list[int] = field(default_factory=list)

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (
            Channel("aerial", ("R",), 2.5, "dn8"),
            Channel("s2", ("B02", "B03"), 10.0, "reflectance_1e4", "day-of-year"),
        )

    @property
    def groups(self) -> np.ndarray:
        return np.arange(len(self.windows))

    def __len__(self) -> int:
        return len(self.windows)

    def example(self, index: int) -> Example:
        self.reads.append(index)
        window = self.windows[index]
        shape = window.refined(self.label_refine).shape
        codes = np.random.default_rng(index).choice([3, 7, 9, 255], shape).astype(np.uint8)
        return Example(Sample(window, self.world.read(window)), classes=codes)


def mapper(examples: Places) -> SampleMapper:
    return mapper_for(ToyNetwork(), card(), LEGEND.codes, examples, CPU)


def test_a_large_example_is_mapped_as_predict_would_map_its_ground() -> None:
    world = random_world(1)
    window = Window(EXTENT.row + 3, EXTENT.col + 1, 31, 40)
    places = Places(world, (window,))
    sample = places.example(0).sample
    found = mapper(places).map(sample, mapper(places).recipe(("aerial", "s2")))
    want = np.full(window.refined(4).shape, 255, np.uint8)
    tiling = Tiling(16, 6, 4, 4)
    engine = BlockMapper(ToyNetwork(), recipe("aerial", "s2"), tiling, CPU)
    part = World(
        window,
        world._cut(world.aerial, window, 4),
        world._cut(world.aerial_valid, window, 4),
        world._cut(world.s2, window, 1),
        world._cut(world.s2_valid, window, 1),
        world._cut(world.s2_clouded, window, 1),
        world.dates,
    )
    for block in make_plan(Lattice("EPSG:2154", 10.0), window, tiling).blocks:
        core = block.core.refined(4)
        inside = np.ones(core.shape, bool)
        done = engine.predict(block, Sample(block.reach, part.read(block.reach)), inside)
        want[core.slices_in(window.refined(4))] = done.classes
    np.testing.assert_array_equal(found, want)
    assert len(np.unique(found)) > 2


def test_an_example_of_one_window_is_seen_at_once() -> None:
    world = random_world(2)
    window = Window(EXTENT.row + 5, EXTENT.col + 7, 6, 6)  # on no lattice of windows
    places = Places(world, (window,))
    own = mapper(places)
    found = own.map(places.example(0).sample, own.recipe(("s2",)))
    toy = recipe("s2")
    one = Tiling(8, 6, 6, 4)
    engine = BlockMapper(ToyNetwork(), toy, one, CPU)
    block = make_plan(Lattice("EPSG:2154", 10.0), Window(0, 0, 6, 6), one).blocks[0]
    moved = World(Window(0, 0, 6, 6), **{
        name: getattr(world, name)[..., 5:11, 7:13] for name in ("s2", "s2_valid", "s2_clouded")
    }, dates=world.dates)  # fmt: skip
    sample = Sample(block.reach, moved.read(block.reach))
    np.testing.assert_array_equal(
        found, engine.predict(block, sample, np.ones((6, 6), bool)).classes
    )


def test_every_subset_is_scored_while_each_example_is_read_once() -> None:
    places = Places(random_world(3), (Window(-30, 20, 6, 6), Window(-20, 30, 12, 12)))
    own = mapper(places)
    subsets = choose_subsets("all", [feed.name for feed in own.feeds])
    assert subsets == (("aerial", "s2"), ("aerial",), ("s2",))
    scheme = pack_scheme(LEGEND, LEGEND, TruthRequest(path=None))
    report = evaluate_examples(own, places, scheme, subsets)
    assert places.reads == [0, 1]
    assert [result.subset for result in report.results] == ["aerial+s2", "aerial", "s2"]
    codes = [places.example(k).classes for k in (0, 1)]
    labelled = sum(int((part != 255).sum()) for part in codes)
    for result in report.results:
        assert result.scores.pixels + result.unmapped == labelled
    first = on_labels(own.map(places.example(0).sample, own.recipe(("s2",))), codes[0].shape)
    assert first.shape == codes[0].shape


def test_subsets_that_make_no_map_are_left_out_and_named() -> None:
    assert choose_subsets("all", ("aerial", "s2"), ("s2",)) == (("aerial", "s2"), ("s2",))
    assert choose_subsets("each", ("s2", "s1"), ("s1",)) == (("s2", "s1"), ("s1",))
    assert "without s2 are not measured" in not_measured("all", ("s2",))[0]
    assert not_measured("s2,s1", ("s2",)) == not_measured("all", ()) == []


def test_coarse_labels_judge_a_map_no_finer_than_they_are() -> None:
    own = mapper(Places(random_world(4), (Window(-30, 20, 6, 6),)))
    assert own.recipe(("aerial", "s2"), 1).refine == 1
    assert own.recipe(("aerial", "s2"), 2).refine == 2
    assert own.recipe(("aerial", "s2"), 8).refine == 4
    assert own.recipe(("aerial", "s2"), 3).refine == 4  # 3 does not divide 4: the nearest pixel
    assert own.recipe(("s2",), 4).refine == 1


def test_linear_radar_power_reaches_the_network_as_decibels() -> None:
    own = SampleMapper(ToyNetwork(), card(), LEGEND.codes, (), CPU, frozenset({"s1"}))
    power = Series(np.full((1, 1, 1, 1), 0.01, np.float32), *(np.zeros(1) for _ in range(3)))
    assert own._canonical("s1", power).pixels.item() == pytest.approx(-20)
    assert own._canonical("s2", power) is power


def test_examples_that_do_not_fit_the_model_are_refused() -> None:
    world = random_world(5)
    with pytest.raises(JobError, match="patches of 40 m, toy of 10 m"):
        mapper(Places(world, (EXTENT,), patch_m=40.0))
    tags = Places(world, (EXTENT,), task="multilabel")
    scheme = pack_scheme(LEGEND, LEGEND, TruthRequest(path=None))
    with pytest.raises(JobError, match="labels places, not pixels"):
        evaluate_examples(mapper(tags), tags, scheme, [("s2",)])
    other = Legend("other", "1", "test", "MIT", (LegendClass(3, "z", "z", "#000000"),))
    with pytest.raises(JobError, match="say how they meet with --crosswalk"):
        pack_scheme(LEGEND, other, TruthRequest(path=None))
    with pytest.raises(JobError, match="is none of aerial, s2"):
        choose_subsets("aerial+s9", ["aerial", "s2"])
