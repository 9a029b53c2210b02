"""Batches: aligned, repeatable, exactly padded, never empty."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_worlds import CARDS, CODES, ToyExamples
from worlds import ToyNetwork

from omnisat_cli.errors import JobError
from omnisat_cli.learning.data.batches import Batch, Batcher, BatchSpec, whole
from omnisat_cli.learning.data.windows import borders, to_patches

if TYPE_CHECKING:
    from omnisat_cli.learning.examples import Example

SPEC = BatchSpec(size=4, side=5)


def batcher(seed: int = 0, spec: BatchSpec = SPEC, **changes: object) -> Batcher:
    return Batcher(replace(ToyExamples(), **changes), CARDS, spec, seed)


def same(one: Batch, other: Batch) -> bool:
    def equal(a: object, b: object) -> bool:
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return torch.equal(a, b)
        return bool(a == b)

    return all(equal(getattr(one, n), getattr(other, n)) for n in Batch.__slots__)


def test_a_batch_has_the_shapes_it_states() -> None:
    batch = batcher().batch(0)
    assert len(batch) == 4
    assert batch.pixels["aerial"].shape == (4, 25, 1, 4, 4)
    dates = batch.days["s2"].shape[1]
    assert batch.pixels["s2"].shape == (4, 25, dates, 2, 1, 1)
    assert batch.valid["s2"].shape == (4, 25, dates)
    assert batch.truth.shape == batch.boundary.shape == (4, 20, 20)
    assert batch.truth.dtype == torch.int64
    assert batch.borders_known.all()
    assert batch.tags is None
    assert batch.to("cpu").side == 5


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(0, 50))
def test_turning_keeps_modalities_and_labels_aligned(seed: int, step: int) -> None:
    batch = batcher(seed).batch(step)
    aerial, _ = whole(batch, "aerial")
    series, real = whole(batch, "s2")
    number = aerial[:, 0, ::4, ::4].long()
    torch.testing.assert_close(batch.truth, aerial[:, 0].long() % 3)
    for b, t in np.ndindex(*real.shape[:2]):
        there = real[b, t]
        torch.testing.assert_close(series[b, t, 0][there] * 500, number[b][there].float())
    # Every patch is a parcel of its own: borders run along patches, nowhere else.
    inner = to_patches(batch.boundary, 4)[..., 1:3, 1:3]
    assert (inner == 0).all()
    assert (batch.boundary[:, 3, :] == 1).all()


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_a_step_is_the_same_whatever_was_drawn_before(seed: int, before: list[int]) -> None:
    spec = replace(SPEC, drop={"s2": 0.5}, drop_region=0.3, keep_dates={"s2": 2}, balanced=0.5)
    drawn = batcher(seed, spec)
    for step in before:
        drawn.batch(step)
    assert same(drawn.batch(7), batcher(seed, spec).batch(7))
    assert not same(drawn.batch(7), drawn.batch(8))


def test_an_epoch_shows_every_example_once() -> None:
    drawn = batcher(spec=replace(SPEC, size=3))
    assert drawn.epoch_steps == 2
    for epoch in range(3):
        shown = drawn._slots(2 * epoch) + drawn._slots(2 * epoch + 1)
        assert sorted(shown) == list(range(6))


@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_padded_dates_change_nothing(seed: int) -> None:
    batch = batcher(seed).batch(0)
    network = ToyNetwork()

    def tokens(B: int, P: int, dates: int) -> torch.Tensor:
        pixels, days = batch.pixels["s2"][B, P], batch.days["s2"][B]
        valid = batch.valid["s2"][B, P]
        return network.encode_series(
            "s2", pixels[None, :dates], days[None, :dates], valid[None, :dates]
        ).tokens

    for B, P in batch.present["s2"].nonzero().tolist():
        own = int(batch.valid["s2"][B].any(0).nonzero().max()) + 1
        longest = batch.days["s2"].shape[1]
        torch.testing.assert_close(tokens(B, P, own), tokens(B, P, longest))
        assert (batch.pixels["s2"][B, :, own:] == 0).all()


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_dropout_never_removes_everything(seed: int, drop: float, region: float) -> None:
    # One window: dropping comes last, so that the window is the same without it.
    spec = replace(SPEC, size=1, drop={"aerial": drop, "s2": drop}, drop_region=region)
    batch = batcher(seed, spec).batch(0)
    plain = batcher(seed, replace(spec, drop={}, drop_region=0.0)).batch(0)
    for b in range(len(batch)):
        intact = [
            torch.equal(batch.present[n][b], plain.present[n][b])
            and bool(plain.present[n][b].any())
            for n in batch.present
        ]
        assert any(intact)


def test_dropout_removes_about_what_was_asked() -> None:
    spec = BatchSpec(size=200, side=2, drop={"aerial": 0.4})
    present = batcher(spec=spec, clouds=0.0).batch(0).present
    gone = (~present["aerial"].any(1)).float().mean()
    # One of two modalities is always kept, so 0.4 acts every second time.
    assert 0.12 < gone < 0.28


def test_what_is_not_valid_is_exactly_zero() -> None:
    batch = batcher().batch(0)
    real = batch.real["s2"]
    assert not real.all()
    assert (batch.pixels["s2"].movedim(3, 0)[:, ~real] == 0).all()
    dropped = batcher(spec=replace(SPEC, drop={"aerial": 1.0, "s2": 1.0})).batch(0)
    for name in ("aerial", "s2"):
        pixels, valid = whole(dropped, name)
        gone = ~dropped.present[name].any(1)
        assert not valid[gone].any()
        assert (pixels[gone] == 0).all()


def test_dates_are_thinned_in_order() -> None:
    batch = batcher(spec=replace(SPEC, keep_dates={"s2": 2}), clouds=0.0).batch(0)
    days = batch.days["s2"]
    assert days.shape == (4, 2)
    assert (days.diff(dim=1) > 0).all()


def test_a_modality_no_example_has_is_an_absent_key() -> None:
    batch = batcher(only=("s2",)).batch(0)
    assert set(batch.pixels) == set(batch.present) == {"s2"}


def test_validation_shows_every_labelled_pixel_once() -> None:
    walked = list(batcher().ordered([1, 4], size=3))
    assert [len(batch) for batch in walked] == [3, 3, 2]
    counts = sum(int((batch.truth != 255).sum()) for batch in walked)
    assert counts == 2 * 32 * 32
    only = next(batcher().ordered([0], 1, names=("s2",)))
    assert set(only.pixels) == {"s2"}


def test_validation_takes_the_dates_that_prediction_takes() -> None:
    card = CARDS[1].model_copy(update={"max_dates": 2})
    drawn = Batcher(ToyExamples(clouds=0.0), (CARDS[0], card), BatchSpec(1), 0)
    batch = next(drawn.ordered([2], 1))
    days = 61 + 13 * np.arange(5)  # day of year of 2024-03-01
    np.testing.assert_array_equal(batch.days["s2"][0], days[[0, 2]])


def test_rare_classes_are_drawn_on_purpose() -> None:
    counts = np.zeros((6, 3), np.int64)
    counts[:5, 0] = 100
    counts[5, 2] = 1
    spec = BatchSpec(size=300, side=1, balanced=1.0)
    drawn = Batcher(ToyExamples(), CARDS, spec, 0, counts)
    truth = drawn.batch(0).truth[:, 0, 0]
    share = torch.bincount(truth, minlength=3) / 300
    assert 0.4 < share[2] < 0.6


def test_borders_are_unknown_where_no_parcel_is() -> None:
    parcels = np.zeros((5, 5), np.int32)
    classes = np.full((5, 5), 255, np.uint8)
    parcels[:2], classes[:2] = 4, CODES[0]
    edge = borders(parcels, classes)
    np.testing.assert_array_equal(edge[:, 0], [0, 1, 1, 255, 255])
    unknown = batcher(known_parcels=False).batch(0)
    assert not unknown.borders_known.any()
    assert (unknown.boundary == 255).all()


def test_tags_travel_with_windows() -> None:
    batch = next(batcher(task="multilabel").ordered([0, 1], 2))
    assert batch.tags is not None
    # Each example is four windows with the tags of the whole.
    np.testing.assert_array_equal(batch.tags, [[1, 0, 0], [1, 0, 0]])


def test_a_series_in_linear_power_is_turned_into_decibels_where_the_card_wants_them() -> None:
    from omnisat_cli.learning.data.windows import Cut, make_reader, series_piece
    from omnisat_cli.learning.examples import Channel
    from omnisat_cli.packs.card import ModalityCard
    from omnisat_cli.sources.values import Series

    power = np.full((1, 2, 1, 1), 0.1, np.float32)
    there = np.ones((1, 1, 1), bool)
    series = Series(power, np.array(["2024-01-01"], "datetime64[D]"), there, ~there)
    for units, expected in (("db", -10.0), ("linear", 0.1)):
        card = ModalityCard(
            name="s1",
            bands=("VV", "VH"),
            gsd=10,
            units=units,
            mean=(0, 0),
            std=(1, 1),
            dates="day-of-year",
        )
        channel = Channel("s1", ("VV", "VH"), 10.0, "linear", "day-of-year")
        reader = make_reader(channel, card, 10.0)
        piece = series_piece(reader, series, Cut(0, 0, 1), 1, lambda clear: np.arange(len(clear)))
        torch.testing.assert_close(piece.pixels, torch.full((1, 1, 2, 1, 1), expected))


def test_days_of_some_dates_count_from_the_season_of_all_of_them() -> None:
    from omnisat_cli.learning.data.windows import Cut, make_reader, series_piece
    from omnisat_cli.learning.examples import Channel
    from omnisat_cli.sources.values import Series

    days = np.array(["2023-03-01", "2023-10-01"], "datetime64[D]")
    there = np.ones((2, 1, 1), bool)
    series = Series(np.ones((2, 2, 1, 1), np.float32), days, there, ~there)
    card = CARDS[1].model_copy(update={"dates": "days-since-september"})
    reader = make_reader(Channel("s2", card.bands, 10.0, card.units, card.dates), card, 10.0)
    piece = series_piece(reader, series, Cut(0, 0, 1), 1, lambda _: np.array([1]))
    assert piece.days is not None
    assert piece.days.tolist() == [395]  # from 1 September 2022, as with both dates


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drop": {"s2": 1.5}}, "not between 0 and 1"),
        ({"size": 0}, "at least 1"),
    ],
)
def test_impossible_specs_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(JobError, match=words):
        replace(SPEC, **change)


def test_windows_larger_than_the_examples_are_refused() -> None:
    with pytest.raises(JobError, match="use at most 8"):
        batcher(spec=BatchSpec(1, side=9)).batch(0)


def test_another_pixel_than_the_models_is_refused() -> None:
    card = CARDS[0].model_copy(update={"gsd": 0.5})
    with pytest.raises(JobError, match=r"2\.5 m pixels"):
        Batcher(ToyExamples(), (card,), SPEC, 0)


def test_a_band_the_model_wants_and_no_example_has_is_refused() -> None:
    card = CARDS[1].model_copy(update={"bands": ("B02", "B11")})
    with pytest.raises(JobError, match="a band that stands for B11"):
        Batcher(ToyExamples(), (card,), SPEC, 0)


def test_imagery_without_labels_is_a_batch_too() -> None:
    class Bare(ToyExamples):
        def example(self, index: int) -> Example:
            return replace(super().example(index), classes=None, parcels=None)

    batch = Batcher(Bare(), CARDS, SPEC, 0).batch(0)
    assert batch.truth.shape == (4, 5, 5)
    assert (batch.truth == 255).all()
    assert not batch.borders_known.any()
