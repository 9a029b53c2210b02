"""Networks that label whole places: a logit a class and window, any modality missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from anysat_packs import anysat_config

from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.seam import PatchLocal
from omnisat_cli.networks.table import build_network, traits_of
from omnisat_cli.networks.tile import (
    AnySatTile,
    AnySatTileConfig,
    OmniSatTile,
    Tile,
    TileConfig,
)

if TYPE_CHECKING:
    from torch import nn

ENCODER = OmniSatConfig(
    width=16,
    depth=1,
    heads=2,
    grid=(2, 2),
    modalities=(
        ImageConfig("aerial", 1, 4),
        SeriesConfig("s2", 2, widths_in=(8, 16), widths_out=(16,), heads=4, key_width=4),
    ),
)
ANYSAT = AnySatTileConfig(anysat_config("aerial", "s2", "modis"), 5, 10, (2, 2))
KINDS = {
    "omnisat-tile": (TileConfig(ENCODER, 5).to_dict(), (1, 4), 2),
    "anysat-tile": (ANYSAT.to_dict(), (4, 50), 10),
}
"""Kind to a configuration, bands and side of an aerial patch, bands of Sentinel-2."""


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(kind, KINDS[kind][0]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("hidden", [None, (8,)])
def test_windows_get_a_logit_a_class_whatever_is_present(hidden: tuple[int, ...] | None) -> None:
    config = TileConfig(ENCODER, 5, hidden)
    network = build_network("omnisat-tile", config.to_dict()).eval()
    assert isinstance(network, OmniSatTile)
    assert network.config == config
    with torch.no_grad():
        aerial = network.encode_image("aerial", torch.randn(12, 1, 4, 4)).tokens.view(3, 4, 16)
        present = {"aerial": torch.ones(3, 4, dtype=torch.bool)}
        logits = network.label(network.fuse({"aerial": aerial}, present))
    assert logits.shape == (3, 5)


@torch.inference_mode()
@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_said_of_a_window_is_said_of_all_its_ground(kind: str) -> None:
    network = made(kind)
    assert isinstance(network, Tile)
    assert isinstance(network, PatchLocal)
    _, (bands, side), wide = KINDS[kind]
    tokens = {
        "aerial": network.encode_image("aerial", torch.randn(8, bands, side, side)).tokens,
        "s2": network.encode_series(
            "s2",
            torch.randn(8, 6, wide, 1, 1),
            torch.arange(6) * 20 + 1,
            torch.ones(8, 6, dtype=torch.bool),
        ).tokens,
    }
    windows = {name: value.unflatten(0, (2, 4)) for name, value in tokens.items()}
    present = {name: torch.ones(2, 4, dtype=torch.bool) for name in windows}
    fused = network.fuse(windows, present)
    spread = network.decode(fused, {}, present, fine_output=False)
    assert spread.logits.shape == (2, 5, 2, 2)
    assert spread.boundary is None
    torch.testing.assert_close(spread.logits[:, :, 1, 0], network.label(fused))
    present["aerial"][1] = False  # an image that nobody has changes what the others say of it
    only = {"s2": windows["s2"]}
    torch.testing.assert_close(
        network.label(network.fuse(windows, present))[1],
        network.label(network.fuse(only, present))[1],
    )


@torch.inference_mode()
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_inference_form_says_the_same(kind: str) -> None:
    network = made(kind)
    folded = fold_for_inference(network)
    assert isinstance(network, PatchLocal)
    assert isinstance(folded, PatchLocal)
    _, (bands, side), wide = KINDS[kind]
    image = torch.randn(8, bands, side, side)
    series = (torch.randn(8, 6, wide, 1, 1), torch.arange(6) * 20 + 1, torch.rand(8, 6) > 0.3)
    series[2][:, 0] = True
    present = {name: torch.ones(2, 4, dtype=torch.bool) for name in ("aerial", "s2")}
    said = []
    for one in (network, folded):
        tokens = {
            "aerial": one.encode_image("aerial", image).tokens.unflatten(0, (2, 4)),
            "s2": one.encode_series("s2", *series).tokens.unflatten(0, (2, 4)),
        }
        said.append(one.decode(one.fuse(tokens, present), {}, present, fine_output=False).logits)
    torch.testing.assert_close(said[1], said[0], rtol=1e-5, atol=1e-5)


def test_a_run_is_told_of_patches_and_of_nothing_finer() -> None:
    told = traits_of("omnisat-tile", KINDS["omnisat-tile"][0])
    assert told is not None
    assert (told.width, told.fine, told.pixels) == (16, {}, {"aerial": 4, "s2": 1})
    told = traits_of("anysat-tile", KINDS["anysat-tile"][0])
    assert told is not None
    assert (told.width, told.fine) == (64, {})
    assert told.pixels == {"aerial": 50, "s2": 1, "modis": 1}


def test_the_published_head_of_anysat_is_a_norm_and_a_linear_layer() -> None:
    network = made("anysat-tile")
    assert isinstance(network, AnySatTile)
    assert network.config == ANYSAT
    heads = [key for key in network.state_dict() if not key.startswith("encoder.")]
    assert heads == [f"head.mlp.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")]


def test_sizes_that_no_head_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        TileConfig(ENCODER, 0)
    with pytest.raises(ValueError, match="above 0"):
        AnySatTileConfig(ANYSAT.encoder, 2, hidden=(0,))
    for kind in (TileConfig, AnySatTileConfig):
        with pytest.raises(ValueError, match="must be a table"):
            kind.from_dict({"encoder": 1, "classes": 2})
