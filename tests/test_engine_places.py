"""Whole places through the engine: the laws of maps hold, and a class is there or not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from test_engine_anysat import EXTENT, TILING, cut, recipe, world
from worlds import CPU

from omnisat_cli.engine.finish import Account, finish_block
from omnisat_cli.engine.fuse import Band, fuse_block, windows_with_data
from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.errors import BlockError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Block, Tiling, make_plan
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.seam import Dense
from omnisat_cli.networks.tile import AnySatTile, AnySatTileConfig
from omnisat_cli.packs.card import NetworkCard
from omnisat_cli.sources.values import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from omnisat_cli.engine.recipe import Recipe

HALF = replace(TILING, stride=2)


@cache
def network() -> AnySatTile:
    torch.manual_seed(0)
    encoder = recipe().card.network.config["encoder"]
    plain = {"encoder": encoder, "classes": 3, "patch_m": 20, "grid": (4, 4)}
    made = AnySatTile(AnySatTileConfig.from_dict(plain)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def places() -> Recipe:
    how = recipe()
    kind = NetworkCard(kind="anysat-tile", config=network().config.to_dict())
    card = how.card.model_copy(update={"network": kind, "coarse_m": 20.0, "fine_m": 20.0})
    return replace(how, card=card, refine=1, fine=False, probabilities=True)


def mapped(tiling: Tiling) -> dict[str, np.ndarray]:
    how = places()
    mapper = BlockMapper(fold_for_inference(network()), how, tiling, CPU)  # type: ignore[arg-type]
    arrays: dict[str, np.ndarray] = {}
    for block in make_plan(Lattice("EPSG:2154", 20), EXTENT, tiling).blocks:
        sample = Sample(block.reach, cut(world(1), block.reach))
        result = mapper.predict(block, sample, np.ones(block.core.shape, bool))
        for name, array in result.arrays().items():
            shape = (*array.shape[:-2], *EXTENT.shape)
            whole = arrays.setdefault(name, np.zeros(shape, np.uint8))
            whole[..., *block.core.slices_in(EXTENT)] = array
    return arrays


def test_the_map_of_places_does_not_depend_on_the_blocks() -> None:
    one, two = mapped(HALF), mapped(replace(HALF, block=12))
    assert set(one) >= {"classes", "confidence", "probabilities", "presence"}
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_probabilities_of_places_are_those_of_each_class_alone() -> None:
    arrays = mapped(HALF)
    share = arrays["probabilities"].astype(float) / 250
    assert np.ptp(share.sum(0)) > 0.05  # no softmax: they need not sum to 1
    best = share.max(0)
    np.testing.assert_allclose(arrays["confidence"] / 100, best, atol=0.008)
    np.testing.assert_allclose(
        np.take_along_axis(share, arrays["classes"][None].astype(int), 0)[0], best, atol=0.005
    )


def test_encoding_once_equals_window_by_window() -> None:
    how, data = places(), world(2)
    block = make_plan(Lattice("EPSG:2154", 20), EXTENT, HALF).blocks[1]
    sample = Sample(block.reach, cut(data, block.reach))
    mapper = BlockMapper(network(), how, HALF, CPU)
    somewhere = np.any(list(mapper.present(sample).values()), axis=0)
    windows = windows_with_data(HALF, block, somewhere)
    alone = BlockMapper(network(), how, replace(HALF, stride=HALF.window), CPU)

    def one_by_one(group: list[Window]) -> Dense:
        said = [
            alone.fused(Block((0, 0), w, w), Sample(w, cut(data, w)), [w], gathered) for w in group
        ]
        return Dense(torch.stack(said))

    def gathered(bands: Iterable[Band]) -> torch.Tensor:
        return torch.cat([band.logits.clone() for band in bands], dim=1)

    with torch.inference_mode():
        plain = gathered(fuse_block(one_by_one, how, HALF, block, windows, 1))
        once = mapper.fused(block, sample, windows, gathered)
    torch.testing.assert_close(once, plain, rtol=2e-5, atol=2e-5)


def test_logits_of_any_size_give_a_share() -> None:
    block = Window(0, 0, 1, 4)
    logits = torch.tensor([[-1e4, 0.0, 1e4, 3.0], [-2e4, -1.0, 9e3, 4.0], [-1e4, 0.5, -1, 4.5]])
    seen, no = np.ones(block.shape, np.uint8), np.zeros(block.shape, bool)
    bands = [Band(0, logits[:, None], None)]
    found = finish_block(places(), bands, Account(seen, seen, no), ~no, no)
    assert found.classes.tolist() == [[0, 2, 0, 2]]
    assert found.confidence.tolist() == [[0, 62, 100, 99]]
    assert found.probabilities is not None
    assert found.probabilities[:, 0].T.tolist() == [
        [0, 0, 0], [125, 67, 156], [250, 250, 67], [238, 246, 247],
    ]  # fmt: skip
    logits[1, 2] = torch.inf
    with pytest.raises(BlockError, match="not finite"):
        finish_block(places(), bands, Account(seen, seen, no), ~no, no)
