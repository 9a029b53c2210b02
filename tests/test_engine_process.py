from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import CPU, EXTENT, IdentityNetwork, ToyNetwork, World, card, random_world, recipe

from omnisat_cli.engine.device import Compute
from omnisat_cli.engine.encode import day_numbers, thin_dates
from omnisat_cli.engine.fuse import fuse_block
from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.engine.recipe import Recipe, output_refine
from omnisat_cli.errors import BlockError, JobError, ResourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Tiling, make_plan
from omnisat_cli.networks.seam import Dense
from omnisat_cli.outputs.prediction import Hole, Prediction
from omnisat_cli.sources.values import Sample

TILING = Tiling(block=8, window=6, stride=4, cell=4)
BOTH = recipe("aerial", "s2", boundary=True, probabilities=True)


def mosaic(
    world: World,
    how: Recipe,
    area: Window = EXTENT,
    tiling: Tiling = TILING,
    network: object = None,
) -> dict[str, np.ndarray]:
    """Map an area block by block and paste the blocks together."""
    mapper = BlockMapper(network or ToyNetwork(), how, tiling, CPU)
    fine = area.refined(how.refine)
    arrays: dict[str, np.ndarray] = {}
    for block in make_plan(Lattice("EPSG:2154", 10), area, tiling).blocks:
        core = block.core.refined(how.refine)
        sample = Sample(block.reach, world.read(block.reach))
        result = mapper.predict(block, sample, np.ones(core.shape, bool))
        for name, array in result.arrays().items():
            whole = arrays.setdefault(name, np.zeros((*array.shape[:-2], *fine.shape), np.uint8))
            whole[(..., *core.slices_in(fine))] = array
    return arrays


def assert_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


@settings(max_examples=5)
@given(st.sampled_from([4, 12, 16, 40]), st.integers(0, 5))
def test_the_map_does_not_depend_on_the_blocks(block: int, seed: int) -> None:
    world = random_world(seed)
    assert_same(mosaic(world, BOTH), mosaic(world, BOTH, tiling=replace(TILING, block=block)))


@settings(max_examples=5)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 5))
def test_a_shifted_area_gives_the_same_pixels_where_both_are(
    down: int, right: int, seed: int
) -> None:
    world = random_world(seed)
    moved = Window(EXTENT.row + down, EXTENT.col + right, 24, 30)
    common = moved.intersection(EXTENT).refined(4)
    whole, part = mosaic(world, BOTH), mosaic(world, BOTH, area=moved)
    for name, array in whole.items():
        cut = array[(..., *common.slices_in(EXTENT.refined(4)))]
        np.testing.assert_array_equal(cut, part[name][(..., *common.slices_in(moved.refined(4)))])


def test_with_a_network_that_returns_its_input_the_mosaic_is_the_input() -> None:
    values = np.random.default_rng(0).integers(0, 3, (1, 160, 192), dtype=np.uint8)
    how = recipe("aerial", codes=(0, 1, 2))
    result = mosaic(World(EXTENT, values), how, network=IdentityNetwork())
    np.testing.assert_array_equal(result["classes"], values[0])
    assert (result["presence"] == 1).all()


def test_a_window_based_network_labels_every_real_pixel_of_a_cut_patch() -> None:
    values = np.random.default_rng(0).integers(0, 3, (1, 160, 192), dtype=np.uint8)
    valid = np.ones((160, 192), bool)
    valid[:, 189:] = False  # one column in four of the last patches is left
    how = recipe("aerial", codes=(0, 1, 2))
    result = mosaic(World(EXTENT, values, valid), how, network=IdentityNetwork())
    np.testing.assert_array_equal(result["classes"][valid], values[0][valid])
    assert (result["presence"][~valid] == Hole.NO_DATA).all()


def test_a_window_based_network_sees_no_more_dates_than_its_card_allows() -> None:
    seen: set[int] = set()

    class Dated:
        """The class of a pixel follows from its mean over the days that are shown."""

        def predict(self, pixels, days, valid):  # type: ignore[no-untyped-def]
            seen.add(pixels["s2"].shape[1])
            assert days["s2"].shape == pixels["s2"].shape[:2]
            mask = valid["s2"]
            weight = mask * days["s2"][:, :, None, None] / 100
            mean = (pixels["s2"][:, :, 0] * weight).sum(1) / mask.sum(1).clamp(min=1)
            return Dense(torch.stack([mean, -mean, 0.5 - mean.abs()], 1))

    world = random_world(3, dates=9)
    assert world.s2_valid is not None
    assert world.s2 is not None
    rng = np.random.default_rng(3)  # clear or not by ground of 8 patches: windows keep other dates
    clear = (rng.random((9, 5, 6)) < 0.7).repeat(8, 1).repeat(8, 2)
    world = replace(world, aerial=None, s2_valid=clear, s2_clouded=~clear)
    toy = card()
    short = toy.modalities[1].model_copy(update={"max_dates": 4})
    how = recipe("s2", toy=card(modalities=(toy.modalities[0], short), fine_m=10.0))
    maps = [
        mosaic(world, how, tiling=replace(TILING, block=block), network=Dated())
        for block in (8, 40)
    ]
    assert_same(*maps)
    assert max(seen) < 9  # more than 4 where a pixel would lose all of its dates
    seen.clear()
    mosaic(replace(world, s2_valid=clear | True, s2_clouded=clear & False), how, network=Dated())
    assert seen == {4}
    everything = mosaic(world, recipe("s2", toy=card(fine_m=10.0)), network=Dated())
    assert max(seen) == 9
    assert (everything["classes"] != maps[0]["classes"]).any()


def test_a_modality_missing_on_disk_equals_one_never_listed() -> None:
    world = random_world(1)
    blind = replace(world, aerial_valid=np.zeros_like(world.aerial_valid))
    assert_same(mosaic(blind, BOTH), mosaic(replace(world, aerial=None), BOTH))


def test_every_pixel_is_a_class_or_a_hole_with_a_reason() -> None:
    world = random_world(2)
    valid, clouded = world.s2_valid.copy(), world.s2_clouded.copy()
    valid[:, :, 40:], clouded[:, :, 40:44] = False, True
    valid[:, 3, 41], clouded[:, :, 44:] = False, False
    world = replace(world, s2_valid=valid, s2_clouded=clouded)
    result = mosaic(world, BOTH)
    presence = result["presence"]
    aerial_only = 4 * (48 - 11)
    assert set(np.unique(presence[:, :aerial_only])) <= {1, 3}
    assert (presence[:, 4 * 40 : 4 * 44] == Hole.CLOUDS).all()
    assert (presence[:, 4 * 44 :] == Hole.NO_DATA).all()
    assert ((result["classes"] == 255) == (presence >= Hole.FAULT)).all()
    assert (result["validity"][presence >= Hole.FAULT] == 0).all()


def test_ground_without_data_is_outside_an_implicit_area() -> None:
    world = random_world(2)
    bare = replace(world, s2=None)
    presence = mosaic(bare, replace(BOTH, implicit_area=True))["presence"]
    assert (presence[:, 4 * (48 - 11) :] == Hole.OUTSIDE).all()


def test_pixels_outside_the_area_of_interest_stay_empty() -> None:
    block = make_plan(Lattice("EPSG:2154", 10), EXTENT, TILING).blocks[0]
    inside = np.zeros((32, 32), bool)
    inside[:, 5:] = True
    sample = Sample(block.reach, random_world(0).read(block.reach))
    result = BlockMapper(ToyNetwork(), BOTH, TILING, CPU).predict(block, sample, inside)
    assert (result.classes[:, :5] == 255).all()
    assert (result.presence[:, :5] == Hole.OUTSIDE).all()
    assert (result.classes[:, 5:] != 255).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_rows_are_handed_over_in_order_and_never_more_than_a_window_of_them(batch: int) -> None:
    tiling = replace(TILING, block=40)
    block = make_plan(Lattice("EPSG:2154", 10), EXTENT, tiling).blocks[0]
    windows = list(tiling.windows_over(block.core))
    rng = np.random.default_rng(1)
    last = torch.channels_last if batch > 1 else torch.contiguous_format

    def predict(group: list[Window]) -> Dense:
        logits = torch.from_numpy(rng.random((len(group), 3, 24, 24), np.float32))
        return Dense(logits.contiguous(memory_format=last))

    row = 0
    with torch.inference_mode():
        for band in fuse_block(predict, recipe("aerial"), tiling, block, windows, batch):
            assert band.row == row
            assert band.logits.shape[1] <= 24
            assert (band.logits > 0).all()
            row += band.logits.shape[1]
    assert row == block.core.refined(4).height


def test_a_network_that_gives_nan_labels_nothing() -> None:
    class Broken(IdentityNetwork):
        def predict(self, pixels, days, valid):  # type: ignore[no-untyped-def]
            dense = super().predict(pixels, days, valid)
            return replace(dense, logits=dense.logits * float("nan"))

    world = World(EXTENT, np.ones((1, 160, 192), np.uint8))
    with pytest.raises(BlockError, match="not finite"):
        mosaic(world, recipe("aerial"), network=Broken())


def test_running_out_of_memory_halves_the_batch_and_gives_the_same_map() -> None:
    class Greedy(IdentityNetwork):
        def predict(self, pixels, days, valid):  # type: ignore[no-untyped-def]
            if len(pixels["aerial"]) > 2:
                raise torch.OutOfMemoryError("too much")
            return super().predict(pixels, days, valid)

    world = World(EXTENT, np.ones((1, 160, 192), np.uint8))
    block = make_plan(Lattice("EPSG:2154", 10), EXTENT, TILING).blocks[0]
    sample = Sample(block.reach, world.read(block.reach))
    compute = Compute(torch.device("cpu"), windows=8, cells=1)
    how = recipe("aerial")
    inside = np.ones((32, 32), bool)
    result: Prediction = BlockMapper(Greedy(), how, TILING, compute).predict(block, sample, inside)
    assert compute.windows == 2
    expected = BlockMapper(IdentityNetwork(), how, TILING, CPU).predict(block, sample, inside)
    np.testing.assert_array_equal(result.classes, expected.classes)


def test_a_window_that_never_fits_is_a_resource_error() -> None:
    def fail(_: int) -> None:
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(ResourceError, match="one window"):
        Compute(torch.device("cpu"), windows=4, cells=1).with_windows(fail)


def test_days_follow_the_encoding_of_the_card() -> None:
    dates = np.array(["2018-09-01", "2024-01-01", "2024-12-31"], dtype="datetime64[D]")
    assert day_numbers(dates, "day-of-year").tolist() == [244, 1, 366]
    assert day_numbers(dates, "days-since-2018-09-01").tolist()[0] == 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 60))
def test_thinning_keeps_dates_in_order_and_prefers_clear_ones(clear: list[int], limit: int) -> None:
    kept = thin_dates(np.array(clear), limit)
    assert len(kept) == min(limit, len(clear))
    assert (np.diff(kept) > 0).all()
    assert max(clear) in [clear[k] for k in kept]


@pytest.mark.parametrize(
    ("has_fine", "resolution", "expected"),
    [
        (True, None, (4, True)),
        (False, None, (1, False)),
        (True, 10.0, (1, False)),
        (True, 5.0, (2, True)),
    ],
)
def test_the_output_resolution_follows_the_data(
    has_fine: bool, resolution: float | None, expected: tuple[int, bool]
) -> None:
    assert output_refine(card(), has_fine, resolution) == expected


def test_of_two_outputs_of_one_pixel_the_fine_one_is_taken_where_it_is_fed() -> None:
    dense = card(patch_m=40.0, coarse_m=10.0, fine_m=10.0)
    assert output_refine(dense, True, None) == (4, True)
    assert output_refine(dense, True, 20.0) == (2, True)
    assert output_refine(dense, False, None) == (4, False)


def test_a_resolution_the_data_does_not_support_is_refused() -> None:
    with pytest.raises(JobError, match="would be invented"):
        output_refine(card(), False, 2.5)
