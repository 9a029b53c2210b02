"""Confusion matrix and the figures derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one comparison.

    Attributes:
        confusion: (K, K) pixels, rows = truth, columns = map.
    """

    confusion: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union; NaN for a class neither in truth nor in the map."""
        hit = np.diag(self.confusion).astype(float)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hit
        return _ratio(hit, union)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K,) harmonic mean of precision and recall; NaN as for `iou`."""
        hit = np.diag(self.confusion).astype(float)
        total = self.confusion.sum(0) + self.confusion.sum(1)
        return _ratio(2 * hit, total)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur."""
        return float(np.nanmean(self.iou))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur."""
        return float(np.nanmean(self.f1))

    @property
    def accuracy(self) -> float:
        """Share of pixels mapped right."""
        return float(np.trace(self.confusion) / max(self.confusion.sum(), 1))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide; NaN where there is nothing to divide by."""
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))


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
