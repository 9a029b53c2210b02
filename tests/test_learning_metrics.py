"""Figures of a comparison against their definitions and against published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.learning.scoring.metrics import Scores, TagScores, adjusted, confusion

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)

DEFORESTATION = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]).T
"""The worked example of Olofsson et al. 2014 (table 8), turned to rows = truth."""
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = 0.09


@given(PAIRS)
def test_scores_follow_their_definitions(pairs: list[tuple[int, int]]) -> None:
    truth, mapped = np.array(pairs, np.uint8).T
    scores = Scores(confusion(truth, mapped, (0, 1, 2, 3)))
    each = scores.classes
    for code in range(4):
        hit = ((truth == code) & (mapped == code)).sum()
        true, given_ = (truth == code).sum(), (mapped == code).sum()
        union = true + given_ - hit
        assert each.support[code] == true
        assert each.precision[code] == pytest.approx(
            hit / given_ if given_ else math.nan, nan_ok=True
        )
        assert each.recall[code] == pytest.approx(hit / true if true else math.nan, nan_ok=True)
        assert each.iou[code] == pytest.approx(hit / union if union else math.nan, nan_ok=True)
        expected = 2 * hit / (union + hit) if union else math.nan
        assert each.f1[code] == pytest.approx(expected, nan_ok=True)
    assert scores.accuracy == pytest.approx((truth == mapped).mean())
    assert scores.mean_f1("micro") == pytest.approx(scores.accuracy)
    assert scores.macro_f1 == pytest.approx(np.nanmean(each.f1))
    weight = each.support / each.support.sum()
    assert scores.mean_f1("weighted") == pytest.approx(np.nansum(each.f1 * weight))
    assert scores.miou == pytest.approx(np.nanmean(each.iou))


def test_kappa_is_that_of_the_textbook() -> None:
    # Cohen 1960: p_o = 0.7, p_e = 0.5.
    assert Scores(np.array([[20, 5], [10, 15]])).kappa == pytest.approx(0.4)
    assert math.isnan(Scores(np.array([[20, 0], [0, 0]])).kappa)


def test_a_comparison_of_nothing_has_no_figures() -> None:
    scores = Scores(np.zeros((3, 3), np.int64))
    assert scores.pixels == 0
    assert math.isnan(scores.miou)
    assert math.isnan(scores.macro_f1)
    assert np.isnan(scores.classes.precision).all()


def test_codes_outside_the_legend_are_not_counted() -> None:
    truth, mapped = np.array([0, 7, 255, 0], np.uint8), np.array([0, 0, 0, 255], np.uint8)
    np.testing.assert_array_equal(confusion(truth, mapped, (0, 1)), [[1, 0], [0, 0]])


def test_tags_are_scored_class_by_class() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    found = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    scores = TagScores(truth, found)
    each = scores.classes
    np.testing.assert_allclose(each.f1, [1.0, 0.0, np.nan])
    np.testing.assert_array_equal(each.support, [2, 2, 0])
    assert scores.mean_f1("macro") == pytest.approx(0.5)
    assert scores.mean_f1("micro") == pytest.approx(4 / 7)
    assert scores.mean_f1("weighted") == pytest.approx(0.5)


def test_adjusted_areas_are_those_of_the_published_example() -> None:
    # Olofsson et al. 2014, section 5.2: hectares ± half the 95 % interval.
    found = adjusted(DEFORESTATION, MAPPED)
    hectares = MAPPED.sum() * HECTARES
    np.testing.assert_allclose(
        (found.share.value * hectares).round(), [21_158, 11_686, 285_770, 581_386]
    )
    np.testing.assert_allclose(
        (found.share.margin * hectares).round(), [6_158, 3_756, 15_510, 16_282]
    )
    assert found.covered == 1


def test_adjusted_accuracies_are_those_of_the_published_example() -> None:
    found = adjusted(DEFORESTATION, MAPPED)
    np.testing.assert_allclose(found.user.value.round(2), [0.88, 0.73, 0.93, 0.96])
    np.testing.assert_allclose(found.user.margin.round(2), [0.07, 0.10, 0.04, 0.02])
    np.testing.assert_allclose(found.producer.value.round(2), [0.75, 0.85, 0.93, 0.96])
    np.testing.assert_allclose(found.producer.margin[[0, 2, 3]].round(2), [0.21, 0.03, 0.02])
    assert round(float(found.overall.value), 2) == 0.95
    assert round(float(found.overall.margin), 2) == 0.02


def test_classes_of_the_map_without_samples_are_left_out_and_said_to_be() -> None:
    counts = DEFORESTATION.copy()
    counts[:, 1] = 0  # nothing was sampled where the map says forest gain
    found = adjusted(counts, MAPPED)
    assert found.covered == pytest.approx(1 - 0.015)
    assert np.isnan(found.user.value[1])
    assert found.share.value.sum() == pytest.approx(1)
    assert math.isnan(adjusted(np.zeros((4, 4), np.int64), MAPPED).overall.value)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    share = np.array([[0.25, 0.03, 0.02], [0.05, 0.2, 0.05], [0.0, 0.1, 0.3]])  # map × truth
    mapped = (share.sum(1) * 10_000).astype(np.int64)
    held = []
    for _ in range(300):
        counts = np.stack([rng.multinomial(60, row / row.sum()) for row in share])
        found = adjusted(counts.T, mapped)
        held.append(np.abs(found.share.value - share.sum(0)) <= found.share.margin)
    assert 0.90 < np.mean(held) < 0.99
