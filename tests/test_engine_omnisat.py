"""The laws of the engine with the real network: random weights, small."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from worlds import CPU, World, card, random_world, recipe

from omnisat_cli.engine.device import Compute
from omnisat_cli.engine.encode import day_numbers, normalise
from omnisat_cli.engine.fuse import fuse_block, windows_with_data
from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Tiling, make_plan
from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.seam import Dense
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.sources.values import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnisat_cli.engine.fuse import Band

EXTENT = Window(-22, 17, 22, 19)
TILING = Tiling(block=16, window=6, stride=4, cell=4)
CARD = card(fine_m=5.0)
BOTH = recipe("aerial", "s2", toy=CARD, refine=2, boundary=True)


@cache
def network() -> OmniSatSegmenter:
    torch.manual_seed(0)
    config = OmniSatConfig(
        width=32,
        depth=2,
        heads=4,
        grid=(6, 6),
        modalities=(
            ImageConfig("aerial", 1, 4),
            SeriesConfig("s2", 2, in_norm=True, widths_in=(16, 32), widths_out=(32, 32)),
        ),
    )
    made = OmniSatSegmenter(SegmenterConfig(config, classes=3)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def tiles(world: World, how: object, tiling: Tiling = TILING) -> dict[str, np.ndarray]:
    mapper = BlockMapper(fold_for_inference(network()), how, tiling, CPU)
    fine = EXTENT.refined(how.refine)
    arrays: dict[str, np.ndarray] = {}
    for block in make_plan(Lattice("EPSG:2154", 10), EXTENT, tiling).blocks:
        core = block.core.refined(how.refine)
        sample = Sample(block.reach, world.read(block.reach))
        result = mapper.predict(block, sample, np.ones(core.shape, bool))
        for name, array in result.arrays().items():
            whole = arrays.setdefault(name, np.zeros(fine.shape, np.uint8))
            whole[core.slices_in(fine)] = array
    return arrays


@pytest.mark.parametrize("block", [4, 24])
def test_the_map_does_not_depend_on_the_blocks(block: int) -> None:
    world = random_world(3, EXTENT)
    one, two = tiles(world, BOTH), tiles(world, BOTH, replace(TILING, block=block))
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_a_modality_missing_on_disk_equals_one_never_listed() -> None:
    world = random_world(4, EXTENT)
    nothing = np.zeros_like(world.s2_valid)
    blind = replace(world, s2_valid=nothing, s2_clouded=nothing)
    one, two = tiles(blind, BOTH), tiles(replace(world, s2=None), BOTH)
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def plain_window(world: World, window: Window) -> Dense:
    """Run one window from pixels to logits with nothing shared, folded or skipped."""
    net = network()
    data = world.read(window)
    aerial, s2 = BOTH.feeds
    n = window.height * window.width
    tokens, fine, present = {}, {}, {}
    pixels = torch.from_numpy(data["aerial"].pixels)
    valid = torch.from_numpy(data["aerial"].valid)
    image = normalise(aerial, pixels, valid[None])
    image = image.view(1, window.height, 4, window.width, 4).permute(1, 3, 0, 2, 4)
    encoded = net.encode_image("aerial", image.reshape(n, 1, 4, 4))
    tokens["aerial"], fine["aerial"] = encoded.tokens[None], encoded.fine[None]
    share = valid.view(window.height, 4, window.width, 4).float().mean((1, 3))
    present["aerial"] = (share >= 0.5).view(1, n)
    series = data["s2"]
    clear = torch.from_numpy(series.valid).flatten(1).T  # (N, T)
    rows = torch.from_numpy(series.pixels).flatten(2).permute(2, 0, 1)[..., None, None]
    rows = normalise(s2, rows, clear[:, :, None, None, None])
    days = torch.from_numpy(day_numbers(series.dates, "day-of-year"))
    some = clear.any(1)
    vectors = torch.zeros(n, 32)
    vectors[some] = net.encode_series("s2", rows[some], days, clear[some]).tokens
    tokens["s2"], present["s2"] = vectors[None], some[None]
    return net.decode(net.fuse(tokens, present), fine, present, fine_output=True)


def gathered(bands: Iterable[Band]) -> torch.Tensor:
    """Class logits and boundary of a whole block: (K + 1, H, W)."""
    return torch.cat([torch.cat([b.logits, b.boundary[None]]).clone() for b in bands], dim=1)


def test_encoding_once_equals_window_by_window() -> None:
    world = random_world(5, EXTENT)
    block = make_plan(Lattice("EPSG:2154", 10), EXTENT, TILING).blocks[0]
    sample = Sample(block.reach, world.read(block.reach))
    windows = windows_with_data(TILING, block, np.ones(block.reach.shape, bool))

    def one_by_one(group: list[Window]) -> Dense:
        parts = [plain_window(world, window) for window in group]
        return Dense(torch.cat([p.logits for p in parts]), torch.cat([p.boundary for p in parts]))

    with torch.inference_mode():
        plain = gathered(fuse_block(one_by_one, BOTH, TILING, block, windows, 1))
        mapper = BlockMapper(fold_for_inference(network()), BOTH, TILING, CPU)
        once = mapper.fused(block, sample, windows, gathered)
    torch.testing.assert_close(once, plain, rtol=1e-5, atol=1e-5)


def canvas_of(compute: Compute, seed: int = 6) -> torch.Tensor:
    world = random_world(seed, EXTENT)
    block = make_plan(Lattice("EPSG:2154", 10), EXTENT, TILING).blocks[0]
    sample = Sample(block.reach, world.read(block.reach))
    windows = windows_with_data(TILING, block, np.ones(block.reach.shape, bool))
    mapper = BlockMapper(fold_for_inference(network()), BOTH, TILING, compute)
    return mapper.fused(block, sample, windows, gathered)[:-1]


def test_many_cells_and_windows_a_batch_give_the_same_logits() -> None:
    """The shapes of a GPU: cells with different dates are padded and stacked."""
    large = Compute(torch.device("cpu"), windows=8, cells=64)
    torch.testing.assert_close(canvas_of(large), canvas_of(CPU), rtol=1e-5, atol=1e-5)


def test_the_network_runs_in_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = canvas_of(CPU)
    monkeypatch.setattr(Compute, "on_gpu", property(lambda _: True))
    mixed = canvas_of(Compute(torch.device("cpu"), windows=8, cells=64))
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    assert (mixed.argmax(0) == exact.argmax(0)).float().mean() > 0.97
