"""Pretraining: the formulas by hand, and that what is absent or padded has no part in any term."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omnisat_cli.networks import contrast
from omnisat_cli.networks.configs import (
    ImageConfig,
    OmniSatConfig,
    SeriesConfig,
    flair_config,
    pastis_config,
    treesat_config,
)
from omnisat_cli.networks.contrast import clip_nce, mil_nce
from omnisat_cli.networks.image import ImageEncoder
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.pretraining import OmniSatPretraining, PretrainConfig, Windows
from omnisat_cli.networks.reconstruction import (
    ImageDecoder,
    PlainImageDecoder,
    attentive_dates,
    standardised_dates,
    standardised_patches,
)

B, P, T = 2, 6, 5


def small_config() -> OmniSatConfig:
    sizes = {"widths_in": (8, 16), "widths_out": (16, 16), "heads": 4}
    return OmniSatConfig(
        16,
        1,
        4,
        (2, 3),
        (
            ImageConfig("aerial", 4, 10),
            SeriesConfig("s2", 10, in_norm=True, **sizes),  # type: ignore[arg-type]
            SeriesConfig("s1", 2, **sizes),  # type: ignore[arg-type]
        ),
    )


def draw_windows(seed: int = 0) -> Windows:
    rng = torch.Generator().manual_seed(seed)
    pixels = {
        "aerial": torch.randn(B, P, 4, 10, 10, generator=rng),
        "s2": torch.randn(B, P, T, 10, 1, 1, generator=rng),
        "s1": torch.randn(B, P, T, 2, 1, 1, generator=rng),
    }
    days = {name: torch.randint(1, 366, (B, T), generator=rng) for name in ("s2", "s1")}
    valid = {name: torch.rand(B, P, T, generator=rng) < 0.7 for name in days}
    present = {name: torch.rand(B, P, generator=rng) < 0.8 for name in pixels}
    present["s2"][0] = False
    for name in days:
        valid[name][..., 0] = True
    return Windows(pixels, days, valid, present)


def build(**changes: object) -> OmniSatPretraining:
    torch.manual_seed(3)
    network = OmniSatPretraining(OmniSat(small_config()), PretrainConfig(**changes))  # type: ignore[arg-type]
    return network.eval()


@pytest.fixture
def windows() -> Windows:
    return draw_windows()


@pytest.fixture
def noise() -> Tensor:
    return torch.rand(B, 3 * P, generator=torch.Generator().manual_seed(1))


# --- the published networks


@pytest.mark.parametrize(
    ("dataset", "config", "trainable"),
    [
        ("treesat", treesat_config, 11_621_072),
        ("flair", flair_config, 11_255_471),
        ("pastis", pastis_config, 12_178_963),
    ],
)
def test_keys_shapes_and_sizes_are_the_published_ones(
    shared: Path, dataset: str, config: Callable[[], OmniSatConfig], trainable: int
) -> None:
    with torch.device("meta"):
        network = OmniSatPretraining(OmniSat(config()))
    table = shared / "design" / "state_dicts" / f"omnisat_{dataset}_pretraining.tsv"
    rows = [line.split("\t")[:2] for line in table.read_text().splitlines()[1:]]
    published = dict(rows)
    assert {k: str(list(v.shape)) for k, v in network.state_dict().items()} == published
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable


# --- contrast


def mil_nce_by_hand(tokens: list[Tensor], present: list[Tensor], tau: float) -> Tensor:
    flat = [
        (m, b, p, tokens[m][b, p] / tokens[m][b, p].norm())
        for m in range(len(tokens))
        for b in range(B)
        for p in range(P)
        if present[m][b, p]
    ]
    losses = []
    for m, b, p, x in flat:
        same = [y for n, c, q, y in flat if (c, q) == (b, p) and n != m]
        every = [y for n, c, _, y in flat if (n, c) != (m, b)]
        if same:
            top = torch.stack([x @ y / tau for y in same]).logsumexp(0)
            losses.append(torch.stack([x @ y / tau for y in every]).logsumexp(0) - top)
    return torch.stack(losses).mean()


@given(seed=st.integers(0, 2**20), sensors=st.integers(2, 3), share=st.sampled_from([0.4, 1.0]))
def test_contrast_equals_its_definition(seed: int, sensors: int, share: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    tokens = [torch.randn(B, P, 4, generator=rng) for _ in range(sensors)]
    present = [torch.rand(B, P, generator=rng) < share for _ in range(sensors)]
    for here in present:
        here[0, 0] = True
    found = mil_nce(tokens, present, temperature=0.2)
    torch.testing.assert_close(found, mil_nce_by_hand(tokens, present, 0.2))


def test_pairwise_contrast_is_the_mean_of_both_directions() -> None:
    one, two = torch.randn(2, B, P, 4, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity(
        one.flatten(0, 1)[:, None], two.flatten(0, 1), dim=-1
    )
    logits = cosine / 0.1
    truth = logits.diagonal()
    expected = (logits.logsumexp(1) - truth).mean() + (logits.logsumexp(0) - truth).mean()
    torch.testing.assert_close(clip_nce([one, two]), expected / 2)


def test_contrast_in_slices_gives_the_same_loss_and_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = torch.randn(3, B, P, 4, generator=torch.Generator().manual_seed(0))
    everywhere = [torch.ones(B, P, dtype=torch.bool)] * 3
    results = []
    for elements in (None, 1 << 20, 100):
        x = tokens.clone().requires_grad_()
        if elements is None:
            loss = mil_nce_by_hand(list(x), everywhere, 0.1)
        else:
            monkeypatch.setattr(contrast, "_CPU_ELEMENTS", elements)
            loss = mil_nce(list(x))
        (2 * loss).backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


@pytest.mark.parametrize("loss", [mil_nce, clip_nce])
def test_contrast_without_any_pair_teaches_nothing(loss: Callable[..., Tensor]) -> None:
    x = torch.randn(2, B, P, 4, requires_grad=True)
    left = torch.arange(P) < 3
    here = [left.expand(B, P), (~left).expand(B, P)]
    value = loss(list(x), here)
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert not x.grad.any()


# --- what is reconstructed


def test_the_date_filter_keeps_dates_strictly_above_the_third_quartile() -> None:
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.9], [0.5, 0.5, 0.1, 0.1, 0.1]])
    candidates = torch.tensor([[True, True, True, True, False], [True, False, False, False, False]])
    kept = attentive_dates(attention, candidates)  # quartile of 0.1 0.4 0.2 0.3 is 0.325
    assert kept.tolist() == [[False, True, False, False, False], [True, False, False, False, False]]


def test_dates_are_standardised_over_their_usable_patches() -> None:
    pixels = torch.randn(3, P, 2, generator=torch.Generator().manual_seed(0))
    usable = torch.tensor([[True] * P, [True, True, True, False, False, False], [False] * P])
    found = standardised_dates(pixels.masked_fill(~usable[..., None], math.nan), usable)
    for date, count in enumerate((P, 3, 0)):
        part = pixels[date, :count]
        expected = (part - part.mean()) / (part.var() + 1e-6).sqrt() if count else part
        torch.testing.assert_close(found[date, :count], expected)
        assert not found[date, count:].any()


def test_patches_are_standardised_one_by_one() -> None:
    found = standardised_patches(7 + 3 * torch.randn(4, 3, 5, 5))
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.var((1, 2, 3)), torch.ones(4))


@given(side=st.integers(1, 70), plain=st.booleans())
def test_decoders_return_patches_of_any_side(side: int, plain: bool) -> None:
    config = ImageConfig("aerial", 3, side)
    encoder = ImageEncoder(config, 4).eval()
    patches = torch.randn(2, 3, side, side)
    features, pools = encoder.encode(patches)
    torch.testing.assert_close(features.token, encoder(patches).token)
    decoder = (PlainImageDecoder if plain else ImageDecoder)(config, 4)
    assert decoder(features.token, pools).shape == patches.shape


# --- a step


def test_a_quarter_of_the_present_tokens_is_shown(windows: Windows, noise: Tensor) -> None:
    network = build()
    names = ("aerial", "s2", "s1")
    hidden = network.hide(windows, names, noise)
    for b in range(B):
        here = sum(int(windows.present[name][b].sum()) for name in names)
        gone = sum(int(hidden[name][b].sum()) for name in names)
        assert here - gone == max(here // 4, 1)
    for name in names:
        assert not (hidden[name] & ~windows.present[name]).any()


def test_hidden_tokens_do_not_reach_the_decoders(windows: Windows, noise: Tensor) -> None:
    network = build()
    with torch.no_grad():
        views = network.encode(windows)
        before = network.fuse(windows, views, noise)
        for name, gone in before.hidden.items():
            views.tokens[name][gone] = 1e3
        after = network.fuse(windows, views, noise)
    torch.testing.assert_close(after.places, before.places)


def test_what_is_absent_or_not_valid_changes_nothing(windows: Windows, noise: Tensor) -> None:
    network = build()
    spoiled = {name: value.clone() for name, value in windows.pixels.items()}
    for name, value in spoiled.items():
        value[~windows.present[name]] = math.nan
        if name in windows.valid:
            value[~windows.valid[name]] = math.nan
    clean, rough = network(windows, noise), network(replace(windows, pixels=spoiled), noise)
    torch.testing.assert_close(rough, clean)
    assert all(0 < value.item() < math.inf for value in clean.values())
    sum(rough.values()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


def test_padded_dates_change_nothing(windows: Windows, noise: Tensor) -> None:
    network = build()
    pad = torch.zeros(B, P, 3)
    longer = Windows(
        {
            name: torch.cat([value, value.new_ones(B, P, 3, *value.shape[3:])], 2)
            if name in windows.days
            else value
            for name, value in windows.pixels.items()
        },
        {
            name: torch.cat([value, value.new_zeros(B, 3)], 1)
            for name, value in windows.days.items()
        },
        {name: torch.cat([value, pad.bool()], 2) for name, value in windows.valid.items()},
        windows.present,
    )
    torch.testing.assert_close(network(longer, noise), network(windows, noise))


def test_a_modality_that_no_patch_has_equals_one_never_given(
    windows: Windows, noise: Tensor
) -> None:
    network = build()
    nothing = torch.zeros(B, P, dtype=torch.bool)
    masked = replace(windows, present={**windows.present, "s1": nothing})
    without = Windows(
        *({n: v for n, v in part.items() if n != "s1"} for part in (
            windows.pixels, windows.days, windows.valid, windows.present
        ))
    )  # fmt: skip
    found = network(masked, noise[:, : 2 * P])
    assert set(found) == {"contrast", "reconstruct aerial", "reconstruct s2"}
    torch.testing.assert_close(found, network(without, noise[:, : 2 * P]))


def test_windows_without_anything_are_refused(windows: Windows) -> None:
    nothing = {name: torch.zeros_like(here) for name, here in windows.present.items()}
    with pytest.raises(ValueError, match="no patch of these windows has any modality"):
        build()(replace(windows, present=nothing))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"contrast": "none"}, {"reconstruct aerial", "reconstruct s2", "reconstruct s1"}),
        ({"reconstruct": False}, {"contrast"}),
        ({"contrast": "clip", "reconstruct": False}, {"contrast"}),
    ],
)
def test_ablations_leave_their_terms_out(
    windows: Windows, noise: Tensor, changes: dict[str, object], names: set[str]
) -> None:
    network = build(**changes)
    losses = network(windows, noise)
    assert set(losses) == names
    assert ("masked_token" in network.state_dict()) == (names != {"contrast"})


def test_without_the_date_filter_every_valid_date_is_asked(windows: Windows, noise: Tensor) -> None:
    network = build(date_filter=False)
    views = network.encode(windows)
    for name in ("s2", "s1"):
        chosen = network.chosen_dates(name, windows, views)
        seen = (windows.valid[name] & windows.present[name][..., None]).any(1)
        assert torch.equal(chosen, seen)
        some = build().chosen_dates(name, windows, views)
        assert (some <= chosen).all()
        assert some.any(1).equal(chosen.any(1))


def test_official_positions_leave_the_last_date_out(windows: Windows) -> None:
    network = OmniSatPretraining(
        OmniSat(replace(small_config(), position="official")), PretrainConfig(date_filter=False)
    )
    days = torch.tensor([[3, 9, 12, 0, 0], [5, 6, 7, 8, 9]])
    given = replace(windows, days={**windows.days, "s2": days})
    chosen = network.chosen_dates("s2", given, network.encode(given))
    assert chosen.tolist() == [[True, True, False, False, False], [True] * 4 + [False]]


def test_a_share_of_the_image_patches_estimates_the_whole(windows: Windows, noise: Tensor) -> None:
    windows = replace(windows, present={k: torch.ones_like(v) for k, v in windows.present.items()})
    whole = build()(windows, noise)["reconstruct aerial"].detach()
    network = build(image_share=0.25)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = [network(windows, noise)["reconstruct aerial"] for _ in range(40)]
    torch.testing.assert_close(torch.stack(drawn).mean(), whole, rtol=0.03, atol=0)


def test_training_lowers_every_term(windows: Windows) -> None:
    network = build().train()
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(0)
    history = []
    for _ in range(30):
        losses = network(windows)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    for name in history[0]:
        first, last = (sum(h[name] for h in part) for part in (history[:5], history[-5:]))
        assert last < first, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrast": "none", "reconstruct": False}, "nothing is left"),
        ({"contrast": "simclr"}, "none of mil-nce"),
        ({"mask_ratio": 1.0}, "mask_ratio 1.0"),
        ({"image_share": 0.0}, "image_share 0.0"),
        ({"temperature": 0.0}, "temperature"),
        ({"speed": 3}, "unknown speed"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig.from_dict(changes)


def test_the_configuration_survives_json() -> None:
    config = PretrainConfig(contrast="clip", image_share=0.5)
    assert PretrainConfig.from_dict(config.to_dict()) == config
