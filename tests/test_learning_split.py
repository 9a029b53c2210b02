"""Validation apart in space; shares of the labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_worlds import ToyExamples

from omnisat_cli.errors import JobError
from omnisat_cli.learning.data.split import Subset, split_by_space, take_share
from omnisat_cli.learning.data.statistics import class_counts


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(2, 40))
    groups = np.array(draw(st.lists(st.integers(0, 8), min_size=count, max_size=count)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return groups, rng.integers(0, 3, (count, 5)) * (rng.random((count, 5)) < 0.3)


@given(labelled_groups(), st.floats(0.05, 0.95), st.integers(0, 100))
def test_groups_are_never_split_and_nothing_is_lost(
    world: tuple[np.ndarray, np.ndarray], share: float, seed: int
) -> None:
    groups, counts = world
    if len(set(groups.tolist())) < 2:
        with pytest.raises(JobError, match="one spatial block"):
            split_by_space(groups, counts, share, seed)
        return
    split = split_by_space(groups, counts, share, seed)
    assert len(split.training)
    assert len(split.validation)
    assert not set(groups[split.training]) & set(groups[split.validation])
    both = np.sort(np.concatenate([split.training, split.validation]))
    np.testing.assert_array_equal(both, np.arange(len(groups)))
    again = split_by_space(groups, counts, share, seed)
    np.testing.assert_array_equal(split.validation, again.validation)


def test_every_class_that_can_be_is_on_both_sides() -> None:
    groups = np.arange(12)
    counts = np.zeros((12, 4), int)
    counts[:, 0] = 1
    counts[[2, 5], 1] = 1  # rare, in two groups
    counts[[2, 7], 2] = 1
    counts[9, 3] = 1  # one group alone
    for seed in range(30):
        split = split_by_space(groups, counts, 0.25, seed)
        assert split.one_sided == (3,)
        assert 9 in split.training
        assert 2 <= len(split.validation) <= 4


def test_the_share_is_kept_about() -> None:
    split = split_by_space(np.arange(400) // 4, None, 0.2, 1)
    assert 72 <= len(split.validation) <= 84
    with pytest.raises(JobError, match="between 0 and 1"):
        split_by_space(np.arange(4), None, 1.5, 0)


def test_one_block_of_ground_cannot_be_split() -> None:
    with pytest.raises(JobError, match="all 5 examples lie in one spatial block"):
        split_by_space(np.zeros(5, int), None, 0.2, 0)


@given(labelled_groups(), st.floats(0.05, 1.0), st.integers(0, 20))
def test_a_share_of_the_labels_keeps_every_class(
    world: tuple[np.ndarray, np.ndarray], share: float, seed: int
) -> None:
    _, counts = world
    chosen = take_share(counts, share, seed)
    assert len(set(chosen.tolist())) == len(chosen)
    held = counts > 0
    np.testing.assert_array_equal(held[chosen].any(0), held.any(0))
    np.testing.assert_array_equal(chosen, take_share(counts, share, seed))


def test_a_tenth_of_the_labels_is_a_tenth_of_every_class() -> None:
    rng = np.random.default_rng(0)
    counts = (rng.random((2000, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(int)
    chosen = take_share(counts, 0.1, 3)
    shares = counts[chosen].sum(0) / counts.sum(0)
    assert 0.08 < len(chosen) / 2000 < 0.13
    assert (np.abs(shares - 0.1) < 0.05).all()


def test_a_subset_is_a_set_of_examples() -> None:
    whole = ToyExamples()
    part = Subset(whole, [4, 1])
    assert (len(part), part.name) == (2, "toy (2 of 6)")
    np.testing.assert_array_equal(part.groups, [2, 0])
    np.testing.assert_array_equal(part.example(1).classes, whole.example(1).classes)
    np.testing.assert_array_equal(class_counts(part), class_counts(whole)[[4, 1]])
    assert part.channels == whole.channels
    assert (part.legend, part.patch_m, part.task) == (whole.legend, 10.0, "segmentation")
