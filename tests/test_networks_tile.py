"""The tile classifier: labels of windows, any modality missing."""

from __future__ import annotations

import pytest
import torch

from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.table import build_network
from omnisat_cli.networks.tile import OmniSatTile, TileConfig

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


def test_sizes_that_no_head_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        TileConfig(ENCODER, 0)
    with pytest.raises(ValueError, match="must be a table"):
        TileConfig.from_dict({"encoder": 1, "classes": 2})
