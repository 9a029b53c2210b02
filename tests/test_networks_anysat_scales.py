"""AnySat's dense output at several patch sizes, and where its sensor is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from anysat_packs import anysat_config
from torch import Tensor

from omnisat_cli.networks.anysat_scales import AnySatScales
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.table import build_network

ENCODER = anysat_config("spot", "s2", "s1")
DENSE = AnySatSegmenterConfig(ENCODER, 3, 40, (2, 3), coarse_side=0, fine_sensor="s2")


def network(config: AnySatSegmenterConfig) -> AnySatSegmenter:
    torch.manual_seed(0)
    made = build_network("anysat", config.to_dict())
    assert isinstance(made, AnySatSegmenter)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def patches(window: Tensor, side: int) -> Tensor:
    """Cut (…, H, W) into (P, …, side, side), row by row."""
    last = window.dim() - 2
    cut = window.unfold(last, side, side).unfold(last + 1, side, side)
    return cut.movedim((last, last + 1), (0, 1)).flatten(0, 1)


def mapped(made: AnySatSegmenter, patch_m: int, grid: tuple[int, int]) -> Tensor:
    """Map a window of 80 m × 120 m of noise with holes."""
    noise = torch.Generator().manual_seed(1)
    image = torch.randn(3, 80, 120, generator=noise)
    days = torch.arange(4) * 30 + 1
    tokens, present, fine = {}, {}, {}
    for name, bands in (("spot", 3), ("s2", 10), ("s1", 3)):
        if name == "spot":
            out = made.encode_image(name, patches(image, patch_m))
        else:
            series = torch.randn(4, bands, 8, 12, generator=noise)
            cut = patches(series, patch_m // 10)
            out = made.encode_series(name, cut, days, torch.ones(len(cut), 4, dtype=torch.bool))
        tokens[name] = out.tokens[None]
        if out.fine is not None:
            fine[name] = out.fine[None]
        there = torch.ones(8, 12, dtype=torch.bool)
        there[:4, :4] = name != "spot"  # one patch of 40 m, four of 20 m
        present[name] = patches(there, patch_m // 10).flatten(1).all(1)[None]
    return made.decode(
        made.fuse(tokens, present, grid=grid), fine, present, fine_output=True, grid=grid
    ).logits


@torch.inference_mode()
def test_logits_of_several_patch_sizes_are_averaged() -> None:
    whole = network(replace(DENSE, scales=(20, 10)))
    assert isinstance(whole, AnySatScales)
    alone = []
    for size in (40, 20, 10):
        one = network(replace(DENSE, patch_m=size))
        one.load_state_dict(whole.state_dict())
        alone.append(mapped(one, size, (80 // size, 120 // size)))
    assert alone[0].shape == (1, 3, 8, 12)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    expected = torch.stack(alone).mean(0)
    torch.testing.assert_close(mapped(whole, 40, (2, 3)), expected, atol=1e-5, rtol=1e-5)
    folded = fold_for_inference(whole)
    assert isinstance(folded, AnySatScales)
    torch.testing.assert_close(mapped(folded, 40, (2, 3)), expected, atol=1e-4, rtol=1e-4)
    assert whole.traits.width == 64 * (1 + 4 + 16)
    assert whole.traits.fine == {"s2": 64 * 16 * 3}
    assert whole.traits.needed == ("s2",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scales": (30,)}, "patches of 30 m do not divide those of 40 m"),
        ({"scales": (20,), "coarse_side": 4}, "set fine_only"),
        ({"fine_sensor": None}, "without a coarse output"),
        ({"encoder": anysat_config("s2", "modis"), "scales": (20,)}, "modis has no patches"),
    ],
)
def test_sizes_that_cannot_be_averaged_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(DENSE, **changes)
