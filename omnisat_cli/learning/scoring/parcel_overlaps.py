"""Which predicted and reference parcels share ground, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_AT_ONCE = 2_000
_FOUND = 0.5
"""IoU that a pair must pass: then neither can have another partner in a file without overlaps."""


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Pairs of parcels that share ground.

    Attributes:
        predicted: (K,) index of the predicted parcel.
        reference: (K,) index of the reference parcel.
        area: (K,) m² they share, above 0.
    """

    predicted: Integers
    reference: Integers
    area: Floats

    def on_predicted(self, count: int) -> Floats:
        """Return the (count,) m² of each predicted parcel that reference parcels cover."""
        covered: Floats = np.bincount(self.predicted, self.area, count).astype(np.float64)
        return covered


def overlaps(predicted: NDArray[np.object_], reference: NDArray[np.object_]) -> Overlaps:
    """Measure all shared ground; beside the result, some thousand parcels are worked on at once.

    Args:
        predicted: (P,) valid polygons.
        reference: (R,) valid polygons.
    """
    tree = shapely.STRtree(reference)
    parts: list[tuple[Integers, Integers, Floats]] = []
    for start in range(0, len(predicted), _AT_ONCE):
        some = predicted[start : start + _AT_ONCE]
        one, other = tree.query(some, predicate="intersects")
        area = shapely.area(shapely.intersection(some[one], reference[other]))
        real = area > 0
        parts.append((one[real] + start, other[real], area[real]))
    if not parts:
        return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Overlaps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs that pass the IoU, each parcel in one pair at most.

    Attributes:
        predicted: (K,) index of the predicted parcel.
        reference: (K,) index of the reference parcel.
        iou: (K,) intersection over union.
    """

    predicted: Integers
    reference: Integers
    iou: Floats


def match(found: Overlaps, predicted_m2: Floats, reference_m2: Floats, allowed: Mask) -> Matches:
    """Pair parcels, best IoU first.

    Args:
        found: Shared ground.
        predicted_m2: (P,) known ground of each predicted parcel.
        reference_m2: (R,) area of each reference parcel.
        allowed: (K,) pairs of `found` that may be made.
    """
    one, other = found.predicted[allowed], found.reference[allowed]
    shared = found.area[allowed]
    iou = shared / (predicted_m2[one] + reference_m2[other] - shared)
    order = np.flatnonzero(iou > _FOUND)
    order = order[np.lexsort((other[order], one[order], -iou[order]))]
    seen_one, seen_other, kept = set(), set(), []
    for at, p, r in zip(order.tolist(), one[order].tolist(), other[order].tolist(), strict=True):
        if p not in seen_one and r not in seen_other:
            seen_one.add(p)
            seen_other.add(r)
            kept.append(at)
    index = np.array(kept, np.int64)
    return Matches(one[index], other[index], np.minimum(iou[index], 1.0))
