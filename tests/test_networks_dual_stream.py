"""Two series fused late: either may be missing, and the inference form agrees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from omnisat_cli.networks.dual_stream import DualStream, DualStreamConfig
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.seam import PatchLocal, WindowBased
from omnisat_cli.networks.table import build_network
from omnisat_cli.networks.utae import UtaeConfig

STREAM = UtaeConfig(
    encoder_widths=(16, 16),
    decoder_widths=(8, 16),
    heads=4,
    attention_width=16,
    dropout=0.0,
    attention_dropout=0.0,
)
CONFIG = DualStreamConfig((STREAM, replace(STREAM, modality="s1", bands=2)), classes=3, width=8)

Windows = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


def windows(seed: int = 0, size: int = 8) -> Windows:
    made = torch.Generator().manual_seed(seed)
    pixels = {
        "s2": torch.randn(2, 3, 10, size, size, generator=made),
        "s1": torch.randn(2, 4, 2, size, size, generator=made),
    }
    days = {"s2": torch.tensor([10, 100, 200]), "s1": torch.tensor([5, 50, 150, 300])}
    valid = {
        name: torch.ones(*values.shape[:2], size, size, dtype=torch.bool)
        for name, values in pixels.items()
    }
    return pixels, days, valid


def network() -> DualStream:
    torch.manual_seed(0)
    return DualStream(CONFIG).eval()


def test_it_is_rebuilt_from_plain_values_and_sees_whole_windows() -> None:
    built = build_network("dual-stream", CONFIG.to_dict())
    assert isinstance(built, DualStream)
    assert built.config == CONFIG
    assert isinstance(built, WindowBased)
    assert not isinstance(built, PatchLocal)
    pixels, days, valid = windows()
    assert built.predict(pixels, days, valid).logits.shape == (2, 3, 8, 8)


def test_a_series_without_any_date_equals_an_absent_one() -> None:
    pixels, days, valid = windows()
    net = network()
    empty = valid | {"s1": torch.zeros_like(valid["s1"])}
    with torch.no_grad():
        absent = net.predict({"s2": pixels["s2"]}, days, {"s2": valid["s2"]}).logits
        hidden = net.predict(pixels, days, empty).logits
        both = net.predict(pixels, days, valid).logits
    torch.testing.assert_close(absent, hidden)
    assert not torch.allclose(absent, both)


def test_padded_dates_and_batch_mates_change_nothing() -> None:
    pixels, days, valid = windows()
    net = network()
    more = torch.full((2, 1, 10, 8, 8), 7.0)
    padded = pixels | {"s2": torch.cat([pixels["s2"], more], 1)}
    flags = valid | {"s2": torch.cat([valid["s2"], torch.zeros(2, 1, 8, 8, dtype=torch.bool)], 1)}
    dates = days | {"s2": torch.tensor([10, 100, 200, 0])}
    alone = tuple({k: v[:1] for k, v in part.items()} for part in (pixels, valid))
    with torch.no_grad():
        plain = net.predict(pixels, days, valid).logits
        torch.testing.assert_close(net.predict(padded, dates, flags).logits, plain)
        torch.testing.assert_close(net.predict(alone[0], days, alone[1]).logits, plain[:1])


def test_the_inference_form_agrees() -> None:
    net = network()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    folded = fold_for_inference(net)
    assert isinstance(folded, DualStream)
    with torch.no_grad():
        torch.testing.assert_close(
            folded.predict(*windows()).logits, net.predict(*windows()).logits, rtol=1e-4, atol=1e-5
        )


def test_every_stream_learns() -> None:
    net = network().train()
    net.predict(*windows()).logits.square().sum().backward()
    for name in ("s2", "s1"):
        moved = [p.grad for p in net.streams[name].parameters() if p.grad is not None]
        assert sum(float(grad.abs().sum()) for grad in moved) > 0


@pytest.mark.parametrize(
    "bad", [{"streams": (STREAM,)}, {"streams": (STREAM, STREAM)}, {"classes": 0}, {"width": True}]
)
def test_what_cannot_be_joined_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needed|must be"):
        replace(CONFIG, **bad)
    with pytest.raises(ValueError, match="must be a list"):
        DualStreamConfig.from_dict({"streams": 3, "classes": 2})
    with pytest.raises(ValueError, match="none of s2, s1"):
        network().predict({}, {}, {})
