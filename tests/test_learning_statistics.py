"""Statistics of examples: moments, class frequencies, weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_worlds import CODES, ToyExamples

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.data.statistics import class_counts, class_weights, make_modality_cards


def test_cards_state_mean_and_deviation_of_the_valid_pixels() -> None:
    examples = ToyExamples(count=3)
    aerial, s2 = make_modality_cards(examples, max_dates={"s2": 20})
    series = [examples.example(n).sample.data["s2"] for n in range(3)]
    values = np.concatenate([s.pixels[:, 0][s.valid] for s in series]).astype(float)
    assert s2.mean[0] == pytest.approx(values.mean(), rel=1e-5)
    assert s2.std[0] == pytest.approx(values.std(), rel=1e-5)
    assert (s2.max_dates, s2.dates, aerial.dates) == (20, "day-of-year", None)
    images = np.concatenate([examples.example(n).sample.data["aerial"].pixels for n in range(3)])
    assert aerial.std[0] == pytest.approx(images.std(), rel=1e-5)


def test_only_the_modalities_wanted_are_measured() -> None:
    (card,) = make_modality_cards(ToyExamples(count=2), ["s2"])
    assert card.name == "s2"
    with pytest.raises(JobError, match="has aerial, s2, not spot"):
        make_modality_cards(ToyExamples(count=2), ["spot"])


def test_a_modality_without_valid_pixels_is_refused() -> None:
    with pytest.raises(SourceError, match="s2 has no valid pixel"):
        make_modality_cards(ToyExamples(count=2, clouds=1.1))


def test_classes_are_counted_in_the_order_of_the_legend() -> None:
    examples = ToyExamples(count=2)
    counts = class_counts(examples)
    classes = examples.example(1).classes
    assert counts[1].tolist() == [int((classes == code).sum()) for code in CODES]
    assert counts[1].sum() == classes.size


def test_tags_are_counted_where_no_pixel_has_a_class() -> None:
    class Tagged(ToyExamples):
        def example(self, index: int):
            return replace(super().example(index), classes=None)

    assert class_counts(Tagged(count=2, task="multilabel")).tolist() == [[1, 0, 0], [1, 0, 1]]


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20))
def test_rarer_classes_weigh_more_within_the_cap(numbers: list[int]) -> None:
    counts = np.array(numbers)
    for weighting in ("none", "inverse-sqrt", "inverse"):
        weights = class_weights(counts, weighting)
        assert ((weights >= 0.0999) & (weights <= 10.001)).all()
        assert (weights[counts == 0] == 1).all()
        some = np.flatnonzero(counts)
        ordered = weights[some[np.argsort(counts[some])]]
        assert (np.diff(ordered) <= 1e-6).all()


def test_weights_follow_their_definition() -> None:
    counts = np.array([100, 400, 0])
    np.testing.assert_allclose(class_weights(counts, "inverse"), [2.5, 0.625, 1])
    np.testing.assert_allclose(class_weights(counts, "inverse-sqrt"), [2.5**0.5, 0.625**0.5, 1])
    np.testing.assert_allclose(class_weights(counts, "none"), 1)
