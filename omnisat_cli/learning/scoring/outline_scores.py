"""How well the outlines of two sets of parcels agree, to a tolerance in metres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_STEPS = 2
"""Points along an outline are a tolerance divided by this apart, or closer."""

_PARCELS_A_CELL = 300
_OUTWARDS = np.array([-1, -1, 1, 1])


@dataclass(frozen=True, slots=True)
class Outlines:
    """Agreement of outlines.

    A border of two parcels counts for both. The frame of the reference, where both files may be
    cut off, does not count.

    Attributes:
        precision: Share of the predicted outlines near a reference outline; NaN without outlines.
        recall: Share of the reference outlines near a predicted outline; NaN without outlines.
        tolerance_m: What near means.
    """

    precision: float
    recall: float
    tolerance_m: float

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def outline_agreement(
    predicted: NDArray[np.object_],
    reference: NDArray[np.object_],
    tolerance_m: float,
    *,
    known_only: bool = False,
) -> Outlines:
    """Compare outlines.

    Args:
        predicted: (P,) polygons.
        reference: (R,) polygons, at least one.
        tolerance_m: Distance within which outlines agree.
        known_only: Whether to leave out predicted outlines further than that from any reference
            parcel.
    """
    frame = shapely.box(*shapely.total_bounds(reference)).exterior
    precision = _share_near(predicted, reference, tolerance_m, frame, known_only=known_only)
    recall = _share_near(reference, predicted, tolerance_m, frame)
    return Outlines(precision, recall, tolerance_m)


def _share_near(
    ones: NDArray[np.object_],
    others: NDArray[np.object_],
    tolerance: float,
    frame: shapely.LinearRing,
    *,
    known_only: bool = False,
) -> float:
    """Return which share of the length of the outlines of `ones` is near one of `others`."""
    tree = shapely.STRtree(others)
    shapely.prepare(frame)
    near = total = 0.0
    for cell in _cells(ones):
        points, metres = _sampled(ones[cell], tolerance / _STEPS)
        counts = ~shapely.dwithin(points, frame, tolerance)
        around = shapely.box(*(shapely.total_bounds(points) + tolerance * _OUTWARDS))
        beside = others[np.sort(tree.query(around))]
        if known_only:
            counts &= _any_within(points, beside, tolerance)
        close = _any_within(points[counts], _sides(beside), tolerance)
        near += float(metres[counts][close].sum())
        total += float(metres[counts].sum())
    return near / total if total else float("nan")


def _cells(polygons: NDArray[np.object_]) -> Iterator[NDArray[np.int64]]:
    """Share the polygons out to squares of ground, some hundred to each."""
    if not len(polygons):
        return
    left, bottom, right, top = shapely.bounds(polygons).T
    places = np.stack([left + right, bottom + top], axis=1) / 2
    side = np.ptp(places, axis=0).max() / np.ceil(np.sqrt(len(polygons) / _PARCELS_A_CELL))
    cells = np.floor((places - places.min(axis=0)) / max(side, 1e-9)).astype(np.int64)
    order = np.lexsort((cells[:, 0], cells[:, 1]))
    cuts = np.flatnonzero(np.diff(cells[order], axis=0).any(axis=1)) + 1
    yield from np.split(order, cuts)


def _sampled(polygons: NDArray[np.object_], step: float) -> tuple[NDArray[np.object_], Floats]:
    """Return points along all outlines and the metres each stands for."""
    begin, end = _ends(polygons)
    length = np.hypot(*(end - begin).T)
    count = np.maximum(np.ceil(length / step), 1).astype(np.int64)
    side = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count) + 0.5
    share = (place / count[side])[:, None]
    points = begin[side] * (1 - share) + end[side] * share
    return shapely.points(points), (length / count)[side]


def _ends(polygons: NDArray[np.object_]) -> tuple[Floats, Floats]:
    """Return begin and end of all sides, (S, 2) each."""
    rings = shapely.get_rings(shapely.get_parts(polygons))
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    return corners[:-1][same], corners[1:][same]


def _sides(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    lines: NDArray[np.object_] = shapely.linestrings(np.stack(_ends(polygons), axis=1))
    return lines


def _any_within(points: NDArray[np.object_], shapes: NDArray[np.object_], distance: float) -> Mask:
    """Say of each point whether a shape lies within a distance."""
    found = np.zeros(len(points), bool)
    tree = shapely.STRtree(shapes)
    found[tree.query(points, predicate="dwithin", distance=distance)[0]] = True
    return found
