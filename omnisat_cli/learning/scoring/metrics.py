"""Confusion matrix and the figures derived from it, with their intervals.

Everything of one comparison follows from one (K, K) matrix, so a comparison can be streamed:
scikit-learn computes the figures from the cells of the matrix as weighted samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    jaccard_score,
    precision_recall_fscore_support,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from numpy.typing import NDArray

    Average = Literal["macro", "micro", "weighted"]

Z95 = 1.96
"""Standard deviations on each side of a 95 % interval, as in Olofsson et al. 2014."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Figures of each class, (K,) float64; NaN where a figure is not defined.

    Attributes:
        precision: Share of the pixels mapped as the class that are right (user's accuracy).
        recall: Share of the pixels of the class that are mapped as such (producer's accuracy).
        f1: Harmonic mean of both.
        iou: Intersection over union.
        support: Pixels of the class in the truth.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    iou: NDArray[np.float64]
    support: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one comparison.

    A class that is neither in the truth nor in the map has no figures and no part in any mean.

    Attributes:
        confusion: (K, K) pixels, rows = truth, columns = map.
    """

    confusion: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = self.confusion.shape
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"a confusion matrix is square, found {shape}")

    @property
    def pixels(self) -> int:
        """Pixels compared."""
        return int(self.confusion.sum())

    @property
    def occurring(self) -> NDArray[np.int64]:
        """Indices of the classes in the truth or in the map."""
        return np.flatnonzero(self.confusion.sum(0) + self.confusion.sum(1))

    @property
    def classes(self) -> ClassScores:
        """Figures of each class."""
        truth, mapped, weight = self._cells()
        K = len(self.confusion)
        if not len(weight):
            empty = np.full(K, np.nan)
            return ClassScores(empty, empty, empty, empty, np.zeros(K, np.int64))
        options = {"labels": np.arange(K), "sample_weight": weight}
        counts = self.confusion.sum(1), self.confusion.sum(0)
        return _class_scores((truth, mapped), counts, options)

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union; NaN for a class neither in truth nor in the map."""
        return self.classes.iou

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K,) harmonic mean of precision and recall; NaN as for `iou`."""
        return self.classes.f1

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return float(np.nanmean(self.iou)) if self.pixels else math.nan

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur."""
        return self.mean_f1("macro")

    @property
    def accuracy(self) -> float:
        """Share of pixels mapped right; 0 where nothing was compared."""
        truth, mapped, weight = self._cells()
        return float(accuracy_score(truth, mapped, sample_weight=weight)) if len(weight) else 0.0

    @property
    def kappa(self) -> float:
        """Cohen's kappa; NaN where chance alone would agree everywhere."""
        truth, mapped, weight = self._cells()
        if len(self.occurring) < 2:
            return math.nan
        return float(cohen_kappa_score(truth, mapped, sample_weight=weight))

    def mean_f1(self, average: Average) -> float:
        """Return F1 over the classes that occur: macro, micro, or weighted by support."""
        truth, mapped, weight = self._cells()
        if not len(weight):
            return math.nan
        options = {"labels": self.occurring, "sample_weight": weight, "zero_division": 0}
        return float(f1_score(truth, mapped, average=average, **options))

    def _cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the filled cells as samples: true class, mapped class, weight."""
        truth, mapped = np.nonzero(self.confusion)
        return truth, mapped, self.confusion[truth, mapped]


def _class_scores(
    samples: tuple[NDArray[np.generic], NDArray[np.generic]],
    counts: tuple[NDArray[np.int64], NDArray[np.int64]],
    options: Mapping[str, object],
) -> ClassScores:
    """Score each class; NaN where a figure is not defined.

    Args:
        samples: What is true and what was said, as scikit-learn takes them.
        counts: (K,) how often each class is true, and how often it was said.
        options: Further words for scikit-learn.
    """
    true, given = counts
    words = {"average": None, "zero_division": 0, **options}
    precision, recall, f1, _ = precision_recall_fscore_support(*samples, **words)
    iou = jaccard_score(*samples, **words)
    absent = (true == 0) & (given == 0)
    return ClassScores(
        np.where(given > 0, precision, np.nan),
        np.where(true > 0, recall, np.nan),
        np.where(absent, np.nan, f1),
        np.where(absent, np.nan, iou),
        true,
    )


@dataclass(frozen=True, slots=True)
class TagScores:
    """Figures of a multi-label comparison.

    Attributes:
        truth: (N, K) bool, what each place holds.
        found: (N, K) bool, what was said of it.
    """

    truth: NDArray[np.bool_]
    found: NDArray[np.bool_]

    @property
    def classes(self) -> ClassScores:
        """Figures of each class; `support` counts places."""
        counts = self.truth.sum(0), self.found.sum(0)
        return _class_scores((self.truth, self.found), counts, {})

    def mean_f1(self, average: Average) -> float:
        """Return F1 over the classes that occur: macro, micro, or weighted by support."""
        some = self.truth.any(0) | self.found.any(0)
        if not some.any():
            return math.nan
        truth, found = self.truth[:, some], self.found[:, some]
        return float(f1_score(truth, found, average=average, zero_division=0))


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate and half the width of its 95 % interval; arrays (K,) or a single value.

    NaN where the sample says nothing of it.
    """

    value: NDArray[np.float64]
    margin: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Area-adjusted estimates of a map from a sample stratified by the classes of the map.

    Attributes:
        share: Share of the ground that truly is of each class.
        user: User's accuracy of each class (precision).
        producer: Producer's accuracy of each class (recall).
        overall: Overall accuracy.
        covered: Share of the map in classes with at least two samples: the estimates are of it.
    """

    share: Estimate
    user: Estimate
    producer: Estimate
    overall: Estimate
    covered: float


def adjusted(confusion: NDArray[np.int64], mapped: NDArray[np.int64]) -> Adjusted:
    """Estimate true areas and accuracies from a sample and the areas of the map.

    The sample is taken to be random within each class of the map. Pixels of one field are not:
    their intervals are too narrow.

    Args:
        confusion: (K, K) samples, rows = truth, columns = map.
        mapped: (K,) pixels of each class in the whole map.

    Returns:
        The estimates; classes of the map with fewer than two samples are left out of the total.

    Source:
        Olofsson et al. 2014, "Good practices for estimating area and assessing accuracy of land
        change", Remote Sensing of Environment 148, equations 1 to 11.
    """
    counts = confusion.T.astype(float)  # as in the paper: rows = map (strata), columns = truth
    n = counts.sum(1)
    used = (n >= 2) & (mapped > 0)
    total = float(mapped[used].sum())
    K = len(mapped)
    if not total:
        nothing = Estimate(np.full(K, np.nan), np.full(K, np.nan))
        single = Estimate(np.array(np.nan), np.array(np.nan))
        return Adjusted(nothing, nothing, nothing, single, 0.0)
    W = np.where(used, mapped / total, 0.0)
    inside = np.divide(counts, n[:, None], out=np.zeros((K, K)), where=used[:, None])
    least = np.where(used, n - 1, 1.0)
    p = W[:, None] * inside  # eq. 4: estimated share of each cell
    spread = inside * (1 - inside) / least[:, None]  # variance of each n_ij / n_i
    share = p.sum(0)
    share_variance = (W[:, None] ** 2 * spread).sum(0)  # eq. 10
    hit, hit_variance = np.diag(inside), np.diag(spread)
    producer, producer_variance = _producer(p, W, spread)
    user = np.where(used, hit, np.nan)
    return Adjusted(
        share=_estimate(share, share_variance),
        user=_estimate(user, np.where(used, hit_variance, np.nan)),  # eq. 6
        producer=_estimate(producer, producer_variance),
        overall=_estimate(np.trace(p), (W**2 * hit_variance).sum()),  # eq. 5
        covered=total / float(mapped.sum()),
    )


def _producer(
    p: NDArray[np.float64], W: NDArray[np.float64], spread: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return producer's accuracies and their variances (eq. 3 and 7)."""
    share = p.sum(0)
    known = share > 0
    accuracy = np.divide(np.diag(p), share, out=np.full(len(share), np.nan), where=known)
    terms = W[:, None] ** 2 * spread
    own = np.diag(terms)
    others = terms.sum(0) - own
    variance = (1 - accuracy) ** 2 * own + accuracy**2 * others
    return accuracy, np.divide(variance, share**2, out=np.full(len(share), np.nan), where=known)


def _estimate(value: NDArray[np.float64], variance: NDArray[np.float64]) -> Estimate:
    return Estimate(np.asarray(value), Z95 * np.sqrt(np.asarray(variance)))


def confusion(
    truth: NDArray[np.uint8], mapped: NDArray[np.uint8], codes: tuple[int, ...]
) -> NDArray[np.int64]:
    """Count pixels by true and mapped class.

    Args:
        truth: Class codes; codes not listed are ignored.
        mapped: Class codes on the same pixels; pixels without a class are ignored.
        codes: Codes of the legend.

    Returns:
        (K, K) int64, rows = truth.
    """
    index = np.full(256, -1)
    index[list(codes)] = np.arange(len(codes))
    row, col = index[truth.ravel()], index[mapped.ravel()]
    both = (row >= 0) & (col >= 0)
    flat = np.bincount(row[both] * len(codes) + col[both], minlength=len(codes) ** 2)
    return flat.reshape(len(codes), len(codes))
