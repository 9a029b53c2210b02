"""A linear head on embeddings: fitted, and measured on groups it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # has no stubs

from omnisat_cli.learning.data.statistics import class_weights
from omnisat_cli.learning.scoring.metrics import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FOLDS = 5
STRENGTHS = (0.03, 0.3, 3.0)
"""Inverse strengths of the penalty that are tried."""

_STEPS = 500


@dataclass(frozen=True, slots=True)
class LabelledPatches:
    """Embeddings with a class.

    Attributes:
        values: (N, D) float32.
        classes: (N,) class indices, every one of 0…K-1 at least once.
        groups: (N,) what is held out together: a polygon, or a square of ground.
    """

    values: NDArray[np.float32]
    classes: NDArray[np.int64]
    groups: NDArray[np.int64]

    @property
    def count(self) -> int:
        """K."""
        return int(self.classes.max()) + 1

    def subset(self, mask: NDArray[np.bool_]) -> LabelledPatches:
        """Return some of the patches."""
        return LabelledPatches(self.values[mask], self.classes[mask], self.groups[mask])


@dataclass(frozen=True, slots=True)
class Head:
    """Logits are `values @ weight.T + bias`.

    Attributes:
        weight: (K, D).
        bias: (K,).
    """

    weight: Floats
    bias: Floats

    def logits(self, values: NDArray[np.float32]) -> Floats:
        """Return (N, K)."""
        return np.asarray(values @ self.weight.T + self.bias)


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head, and how good such a head is on what it has not seen.

    Attributes:
        head: Fitted on everything.
        scores: Of heads fitted without the groups they are measured on.
        strength: Inverse strength of the penalty that was chosen.
        unseen: Classes that are in one group only, so that no head could know them when they were
            held out.
    """

    head: Head
    scores: Scores
    strength: float
    unseen: tuple[int, ...]


def fit_head(patches: LabelledPatches, seed: int, folds: int = FOLDS) -> FittedHead:
    """Choose the penalty by held-out groups, then fit on everything.

    The figures are those of the penalty that was chosen on the same folds: a little too good.

    Args:
        patches: At least two classes.
        seed: Of the folds.
        folds: Parts that are held out in turn.
    """
    fold = deal_folds(patches, seed, folds)
    # The products are small: threads that wait for one another cost fifty times what they bring.
    with threadpool_limits(limits=1):
        measured = [(_held_out(patches, fold, strength), strength) for strength in STRENGTHS]
        scores, strength = max(measured, key=lambda found: (found[0].macro_f1, -found[1]))
        head = fit_linear(patches, strength)
    pairs = np.unique(np.stack([patches.classes, patches.groups]), axis=1)
    alone = np.bincount(pairs[0], minlength=patches.count) == 1
    unseen = tuple(int(k) for k in np.flatnonzero(alone))
    return FittedHead(head, scores, strength, unseen)


def fit_linear(patches: LabelledPatches, strength: float) -> Head:
    """Fit multinomial logistic regression on standardised embeddings.

    Classes count by the inverse square root of their patches. The standardisation is folded into
    the weights.

    Args:
        patches: At least two classes.
        strength: Inverse strength of the penalty.
    """
    values = patches.values.astype(np.float64)
    mean, spread = values.mean(0), values.std(0)
    spread[spread < 1e-9] = 1.0
    K = patches.count
    counts = np.bincount(patches.classes, minlength=K)
    weights = class_weights(counts, "inverse-sqrt")
    model = LogisticRegression(C=strength, max_iter=_STEPS, tol=1e-3)
    model.fit((values - mean) / spread, patches.classes, sample_weight=weights[patches.classes])
    weight, bias = np.zeros((K, values.shape[1])), np.full(K, -1e4)
    known = model.classes_
    if len(known) == 2:  # one logit: that of the second class against the first
        weight[known[1]], bias[known] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        weight[known], bias[known] = model.coef_, model.intercept_
    weight = weight / spread
    return Head(weight, bias - weight @ mean)


def deal_folds(patches: LabelledPatches, seed: int, folds: int) -> NDArray[np.int64]:
    """Give every group to a fold, the groups of each class evenly.

    Returns:
        (N,) fold of each patch.
    """
    rng = np.random.default_rng(seed)
    groups, place = np.unique(patches.groups, return_inverse=True)
    counts = np.zeros((len(groups), patches.count), np.int64)
    np.add.at(counts, (place, patches.classes), 1)
    main = counts.argmax(axis=1)
    fold = np.zeros(len(groups), np.int64)
    begin = 0
    for k in range(patches.count):
        mine = rng.permutation(np.flatnonzero(main == k))
        # The next class goes on where this one ended, so that rare classes fill all folds.
        fold[mine] = (begin + np.arange(len(mine))) % folds
        begin += len(mine)
    return np.asarray(fold[place])


def _held_out(patches: LabelledPatches, fold: NDArray[np.int64], strength: float) -> Scores:
    K = patches.count
    confusion = np.zeros((K, K), np.int64)
    for held in np.unique(fold):
        rest, mine = patches.subset(fold != held), patches.subset(fold == held)
        if len(np.unique(rest.classes)) < 2:
            continue
        known = np.unique(rest.classes)
        compact = LabelledPatches(rest.values, np.searchsorted(known, rest.classes), rest.groups)
        found = known[fit_linear(compact, strength).logits(mine.values).argmax(axis=1)]
        np.add.at(confusion, (mine.classes, found), 1)
    return Scores(confusion)
