"""Which examples are learned from and which are kept to validate: apart in space, not at random.

Neighbouring windows show the same field; a random split would validate on what was learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError
from omnisat_cli.learning.data.statistics import labels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Channel, Example, Examples, Task
    from omnisat_cli.outputs.legend import Legend


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of examples on two sides.

    Attributes:
        training: (n,) ascending.
        validation: (m,) ascending; no group is on both sides.
        one_sided: Indices of the classes that only one side holds, because one group alone has
            them.
    """

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    one_sided: tuple[int, ...] = ()


def split_by_space(
    groups: NDArray[np.int64],
    counts: NDArray[np.int64] | None,
    share: float,
    seed: int,
) -> Split:
    """Put whole groups on either side, every class on both where that can be.

    Args:
        groups: (N,) group of each example.
        counts: (N, K) what each example holds of each class, or None without labels.
        share: Wanted share of the examples kept for validation, between 0 and 1.
        seed: Of the choice.

    Raises:
        JobError: If there are fewer than two groups, or `share` is no share.
    """
    if not 0 < share < 1:
        raise JobError(f"a validation share of {share:g} is not between 0 and 1")
    names, which = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise JobError(
            f"all {len(groups)} examples lie in one spatial block, so none can be kept apart for "
            "validation: add labels further away, or give the validation a place of its own"
        )
    sizes = np.bincount(which)
    held = np.zeros((len(names), 0), bool)
    if counts is not None:
        held = np.zeros((len(names), counts.shape[1]), bool)
        np.logical_or.at(held, which, counts > 0)
    kept = _chosen_groups(held, sizes, share * len(groups), seed)
    validation = np.isin(which, np.flatnonzero(kept))
    one_sided = held.any(axis=0) & ~(held[kept].any(axis=0) & held[~kept].any(axis=0))
    return Split(
        np.flatnonzero(~validation),
        np.flatnonzero(validation),
        tuple(np.flatnonzero(one_sided).tolist()),
    )


def _chosen_groups(
    held: NDArray[np.bool_], sizes: NDArray[np.int64], wanted: float, seed: int
) -> NDArray[np.bool_]:
    """Choose the groups kept for validation: (G,) bool.

    First a group for each class, the rarest first, then more until enough examples are kept. A
    group whose loss would leave training without a class stays.
    """
    order = np.random.default_rng(seed).permutation(len(sizes))
    kept = np.zeros(len(sizes), bool)

    def spare(group: int) -> bool:
        rest = ~kept
        rest[group] = False
        alone = held[group] & ~held[rest].any(axis=0)
        return bool(rest.any() and not kept[group] and not alone.any())

    often = held.sum(axis=0)
    for wish in sorted(np.flatnonzero(often > 1), key=lambda k: int(often[k])):
        if held[kept, wish].any():
            continue
        able = [g for g in order if held[g, wish] and spare(g)]
        if able:
            # Small groups first: a class must not cost the whole validation share.
            kept[min(able, key=lambda g: int(sizes[g]))] = True
    for group in order:
        more = sizes[kept].sum() + sizes[group] / 2
        if (more <= wanted or not kept.any()) and spare(group):
            kept[group] = True
    if not kept.any():
        # Every group alone holds some class; still nothing is validated on what was learned.
        kept[min(order, key=lambda g: int(sizes[g]))] = True
    return kept


def take_share(counts: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Choose a share of the examples that holds about that share of every class.

    Args:
        counts: (N, K) what each example holds of each class.
        share: Wanted share, above 0 and at most 1.
        seed: Of the choice.

    Returns:
        (n,) indices, ascending; every class that occurs is among them.

    Source: iterative stratification (Sechidis et al. 2011), for two parts of which one is kept.
    """
    if not 0 < share <= 1:
        raise JobError(f"a share of {share:g} of the labels is not above 0 and at most 1")
    held = counts > 0
    order = np.random.default_rng(seed).permutation(len(counts))
    wish = np.maximum(held.sum(axis=0) * share, held.any(axis=0))  # (K,) examples still wanted
    left = np.ones(len(counts), bool)
    chosen: list[int] = []
    while left.any():
        often = held[left].sum(axis=0)
        if not often.any():
            break
        rare = int(np.where(often > 0, often, len(counts) + 1).argmin())
        group = [int(n) for n in order if left[n] and held[n, rare]]
        take = group[: max(0, round(float(wish[rare])))]
        wish = wish - held[take].sum(axis=0)
        chosen += take
        left[group] = False
    rest = [int(n) for n in order if left[n]]  # without any label
    chosen += rest[: round(len(rest) * share)]
    return np.array(sorted(chosen), np.int64)


class Subset:
    """Some examples of a set."""

    def __init__(self, examples: Examples, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.examples = examples
        self.indices = np.asarray(indices, np.int64)

    @property
    def name(self) -> str:
        """Name of the whole set and how many of it these are."""
        return f"{self.examples.name} ({len(self)} of {len(self.examples)})"

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Those of the whole set."""
        return self.examples.channels

    @property
    def patch_m(self) -> float:
        """Side of a patch in metres."""
        return self.examples.patch_m

    @property
    def task(self) -> Task:
        """What the labels are."""
        return self.examples.task

    @property
    def legend(self) -> Legend:
        """The classes."""
        return self.examples.legend

    @property
    def groups(self) -> NDArray[np.int64]:
        """(n,) the groups of these examples."""
        return self.examples.groups[self.indices]

    def __len__(self) -> int:
        """Return n."""
        return len(self.indices)

    def example(self, index: int) -> Example:
        """Read one place; see `Examples.example`."""
        return self.examples.example(int(self.indices[index]))

    def labels(self, index: int) -> Example:
        """Read the labels of one place."""
        return labels_of(self.examples, int(self.indices[index]))
