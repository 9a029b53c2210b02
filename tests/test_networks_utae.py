"""U-TAE: windows of any size, padded dates without influence, the same numbers once folded."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_networks_omnisat import shaken
from torch import Tensor

from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.seam import PatchLocal, WindowBased
from omnisat_cli.networks.table import build_network
from omnisat_cli.networks.utae import UTAE, UtaeConfig

SMALL = UtaeConfig(
    encoder_widths=(16, 16, 32),
    decoder_widths=(8, 16, 32),
    out_widths=(8, 5),
    attention_width=64,
)


def small(config: UtaeConfig = SMALL) -> UTAE:
    torch.manual_seed(3)
    network = shaken(UTAE(config))
    assert isinstance(network, UTAE)
    return network.eval()


def predicted(network: UTAE, x: Tensor, days: Tensor, valid: Tensor) -> Tensor:
    return network.predict({"s2": x}, {"s2": days}, {"s2": valid}).logits


def test_the_default_network_has_the_published_entries(shared: Path) -> None:
    table = (shared / "design" / "state_dicts" / "utae_default.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in table[1:]]
    published = {row[0]: json.loads(row[1]) for row in rows}
    own = {key: list(value.shape) for key, value in UTAE(UtaeConfig()).state_dict().items()}
    assert own == published


def test_the_table_builds_it_from_plain_values_as_a_window_based_network() -> None:
    network = build_network("utae", json.loads(json.dumps(SMALL.to_dict())))
    assert isinstance(network, UTAE)
    assert network.config == SMALL
    assert network.config.classes == 5
    assert isinstance(network, WindowBased)
    assert not isinstance(network, PatchLocal)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": 0}, "above 0"),
        ({"encoder_widths": (16, 32)}, "same number of levels"),
        ({"encoder_widths": (16, 24, 32)}, "width 24"),
        ({"attention_width": 40}, "width 40"),
        ({"padding": "none"}, "padding 'none'"),
        ({"heds": 4}, "unknown heds"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UtaeConfig.from_dict({**SMALL.to_dict(), **change})


@torch.inference_mode()
def test_a_date_without_valid_pixels_has_no_influence_at_all() -> None:
    network = small()
    x, days = torch.randn(2, 4, 10, 16, 16), torch.tensor([3, 40, 90, 200])
    valid = torch.ones(2, 4, 16, 16, dtype=torch.bool)
    valid[0, 1] = valid[1, 3] = False
    x[~valid.unsqueeze(2).expand_as(x)] = math.nan
    found = predicted(network, x, days, valid)
    for sample, missing in ((0, 1), (1, 3)):
        keep = [date for date in range(4) if date != missing]
        part = slice(sample, sample + 1)
        alone = predicted(network, x[part, keep], days[keep], valid[part, keep])
        torch.testing.assert_close(found[part], alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_official_padding_lets_zeros_into_the_statistics() -> None:
    x, days = torch.randn(1, 4, 10, 16, 16), torch.tensor([3, 40, 90, 200])
    x[:, 2] = 0
    exact, official = small(), small(replace(SMALL, padding="official"))
    kept = [0, 1, 3]
    torch.testing.assert_close(exact(x, days), exact(x[:, kept], days[kept]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(official(x, days), exact(x, days), atol=1e-3)
    torch.testing.assert_close(official(x[:, kept], days[kept]), exact(x[:, kept], days[kept]))


@torch.inference_mode()
def test_single_pixels_that_are_not_valid_count_as_the_mean() -> None:
    network = small()
    x, days = torch.randn(1, 3, 10, 16, 16), torch.arange(3) * 50
    valid = torch.rand(1, 3, 16, 16) > 0.3
    filled = torch.where(valid.unsqueeze(2), x, 0.0)
    x[~valid.unsqueeze(2).expand_as(x)] = math.nan
    torch.testing.assert_close(predicted(network, x, days, valid), network(filled, days))


@torch.inference_mode()
def test_a_window_without_any_valid_date_stays_finite_beside_others() -> None:
    network = small()
    x, days = torch.randn(2, 3, 10, 16, 16), torch.arange(3) * 50
    valid = torch.ones(2, 3, 16, 16, dtype=torch.bool)
    valid[1] = False
    found = predicted(network, x, days, valid)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found[:1], predicted(network, x[:1], days, valid[:1]))
    assert bool(predicted(network, x[1:], days, valid[1:]).isfinite().all())


@torch.inference_mode()
@pytest.mark.parametrize("size", [(3, 5), (16, 16), (18, 23)])
def test_windows_keep_their_size(size: tuple[int, int]) -> None:
    x = torch.randn(1, 2, 10, *size)
    valid = torch.ones(1, 2, *size, dtype=torch.bool)
    found = predicted(small(), x, torch.tensor([5, 50]), valid)
    assert found.shape == (1, 5, *size)
    assert float(found.min()) >= 0


def test_the_network_itself_refuses_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"multiples of 4 px and at least 8 px, found 18 x 16"):
        small()(torch.randn(1, 2, 10, 18, 16), torch.tensor([5, 50]))


@torch.inference_mode()
def test_folding_changes_rounding_only() -> None:
    network = small()
    folded = fold_for_inference(network)
    assert isinstance(folded, WindowBased)
    names = " ".join(type(layer).__name__ for layer in folded.modules())
    assert "BatchNorm" not in names
    x, days = torch.randn(2, 3, 10, 16, 24), torch.arange(3) * 50
    valid = torch.rand(2, 3, 16, 24) > 0.2
    valid[1, 2] = False
    found = folded.predict({"s2": x}, {"s2": days}, {"s2": valid}).logits
    torch.testing.assert_close(found, predicted(network, x, days, valid), atol=2e-5, rtol=1e-5)


def test_slices_without_autograd_give_what_one_pass_with_autograd_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = small()
    x, days = torch.randn(2, 3, 10, 16, 16), torch.arange(3) * 50
    x[0, 1] = 0
    monkeypatch.setattr("omnisat_cli.networks.utae._FRAMES_BYTES", 1)
    expected = network(x, days)
    with torch.inference_mode():
        torch.testing.assert_close(network(x, days), expected.detach(), atol=1e-5, rtol=1e-5)
    expected.sum().backward()
    missing = [name for name, value in network.named_parameters() if value.grad is None]
    assert not missing
