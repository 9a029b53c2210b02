"""How much of each pixel a polygon covers: exact areas, for all polygons of a strip at once.

An edge that passes a pixel adds the signed area to its right inside the pixel, and its height to
every pixel further right in the row; summed over the closed outline that is the covered part. Only
the row spans of the polygons are held, never a raster a polygon, and overlaps do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Covered:
    """The pixels of a strip that polygons cover; a pixel occurs once a polygon part.

    Attributes:
        polygon: (S,) number of the polygon of each row span.
        length: (S,) pixels of each span.
        pixel: (N,) row * width + column inside the strip, span by span; the last pixel of a span
            is a sentinel with nothing covered and may lie one beyond the strip.
        part: (N,) covered part of the pixel, 0 to 1.
    """

    polygon: Integers
    length: Integers
    pixel: Integers
    part: Floats

    def spread(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Repeat a value of each span, (S,), for its pixels, (N,)."""
        repeated: NDArray[np.int64] = np.repeat(values, self.length)
        return repeated


@dataclass(frozen=True, slots=True)
class Edges:
    """The edges of polygons that are not level, pointing down.

    Attributes:
        ends: (4, E) column and row of the upper end, column and row of the lower end, in pixels.
        sign: (E,) 1, or -1 where the outline runs the other way.
        piece: (E,) polygon part each edge belongs to.
        polygon: (P,) polygon of each part.
    """

    ends: Floats
    sign: Floats
    piece: Integers
    polygon: Integers

    @staticmethod
    def of(polygons: NDArray[np.object_]) -> Edges:
        """Take valid polygons, multipolygons or None apart.

        Args:
            polygons: (N,), x = column and y = row of a raster.
        """
        parts, owner = shapely.get_parts(polygons, return_index=True)
        rings, part = shapely.get_rings(shapely.orient_polygons(parts), return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        joined = ring[1:] == ring[:-1]
        ends = np.concatenate([points[:-1], points[1:]], axis=1)[joined].T
        sloped = ends[1] != ends[3]
        ends, piece = ends[:, sloped], part[ring[1:][joined][sloped]]
        up = ends[1] > ends[3]
        ends = np.where(up, ends[[2, 3, 0, 1]], ends)
        return Edges(ends, np.where(up, 1.0, -1.0), piece, owner.astype(np.int64))

    def select(self, chosen: Integers) -> Edges:
        """Return some of the edges."""
        return Edges(self.ends[:, chosen], self.sign[chosen], self.piece[chosen], self.polygon)


def by_strip(edges: Edges, tops: Integers, height: int) -> Iterator[tuple[int, Edges]]:
    """Deal edges out to strips of rows, each to all it passes.

    Args:
        edges: The edges.
        tops: First row of each strip, ascending.
        height: Row after the last strip.

    Yields:
        (number of the strip, its edges), for the strips that have some.
    """
    first = np.searchsorted(tops, edges.ends[1], side="right") - 1
    last = np.searchsorted(tops, edges.ends[3], side="left") - 1
    met = (edges.ends[3] > tops[0]) & (edges.ends[1] < height)
    first = np.maximum(first, 0)
    count = np.where(met, last - first + 1, 0)
    edge = np.repeat(np.arange(len(count)), count)
    strip = first[edge] + _within(count)
    order = np.argsort(strip, kind="stable")
    bounds = np.searchsorted(strip[order], np.arange(len(tops) + 1))
    for number in range(len(tops)):
        chosen = edge[order[bounds[number] : bounds[number + 1]]]
        if len(chosen):
            yield number, edges.select(chosen)


def cover(edges: Edges, rows: tuple[int, int], width: int) -> Covered:
    """Measure which part of each pixel of a strip the polygons cover.

    Args:
        edges: Every edge that passes the strip.
        rows: First row of the strip and the one after its last.
        width: Columns of the raster, from 0.

    Returns:
        The covered pixels, by polygon part and row.
    """
    crossings = _by_row(edges, rows)
    span, first_col, length, polygon, row = _spans(edges, crossings, width)
    start = np.cumsum(length) - length
    canvas = _canvas(crossings, span, (start, first_col, length), width)
    canvas[start + length - 1] = 0  # beyond the last pixel, or beyond the raster
    pixel = np.repeat((row - rows[0]) * width + first_col - start, length)
    pixel += np.arange(len(pixel))
    return Covered(polygon, length, pixel, canvas)


@dataclass(frozen=True, slots=True)
class _Crossings:
    """Edges cut at the borders of rows.

    Attributes:
        edge: (M,) edge.
        row: (M,) row.
        left: (M,) smaller column, right: the larger one.
        drop: (M,) signed height inside the row.
    """

    edge: Integers
    row: Integers
    left: Floats
    right: Floats
    drop: Floats


def _by_row(edges: Edges, rows: tuple[int, int]) -> _Crossings:
    upper_x, upper_y, lower_x, lower_y = edges.ends
    begin = np.floor(np.maximum(upper_y, rows[0])).astype(np.int64)
    end = np.ceil(np.minimum(lower_y, rows[1])).astype(np.int64)
    count = np.maximum(end - begin, 0)
    edge = np.repeat(np.arange(len(count)), count)
    row = begin[edge] + _within(count)
    slope = (lower_x - upper_x) / (lower_y - upper_y)
    from_y = np.maximum(upper_y[edge], row)
    to_y = np.minimum(lower_y[edge], row + 1)
    low, high = np.minimum(upper_x, lower_x)[edge], np.maximum(upper_x, lower_x)[edge]
    base, lean = upper_x[edge], slope[edge]
    top = upper_y[edge]
    one = np.clip(base + (from_y - top) * lean, low, high)
    other = np.clip(base + (to_y - top) * lean, low, high)
    drop = edges.sign[edge] * (to_y - from_y)
    return _Crossings(edge, row, np.minimum(one, other), np.maximum(one, other), drop)


def _spans(
    edges: Edges, crossings: _Crossings, width: int
) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """Find the columns that each polygon part can cover in each row.

    Returns:
        (M,) span of each crossing; of each span (S,): first column, pixels with one more than it
        covers, polygon and row.
    """
    piece = edges.piece[crossings.edge]
    present = np.flatnonzero(np.bincount(piece))
    local = np.empty(int(present[-1]) + 1, np.int64)
    local[present] = np.arange(len(present))
    place = local[piece]
    first_row = np.full(len(present), np.iinfo(np.int64).max)
    np.minimum.at(first_row, place, crossings.row)
    last_row = np.zeros(len(present), np.int64)
    np.maximum.at(last_row, place, crossings.row)
    count = last_row - first_row + 1
    span = (np.cumsum(count) - count - first_row)[place] + crossings.row
    low = np.clip(crossings.left, 0, width - 1).astype(np.int64)
    high = np.clip(np.ceil(crossings.right) - 1, low, width - 1).astype(np.int64)
    total = int(count.sum())
    first = np.full(total, width)
    np.minimum.at(first, span, low)
    last = np.full(total, width - 1)
    last[span] = 0
    np.maximum.at(last, span, high)
    first = np.minimum(first, last)
    polygon = np.repeat(edges.polygon[present], count)
    row = np.repeat(first_row, count) + _within(count)
    return span, first, last - first + 2, polygon, row


def _canvas(
    crossings: _Crossings,
    span: Integers,
    spans: tuple[Integers, Integers, Integers],
    width: int,
) -> Floats:
    """Add up what every crossing covers.

    Column -1 stands for all ground left of the raster, column `width` for all right of it.
    """
    start, first, length = spans
    left, right = crossings.left, crossings.right
    begin = np.clip(np.floor(left), -1, width).astype(np.int64)
    end = np.clip(np.ceil(right) - 1, begin, width).astype(np.int64)
    count = end - begin + 1
    which = np.repeat(np.arange(len(count)), count)
    col = begin[which] + _within(count)
    from_x = np.where(col < 0, left[which], np.maximum(left[which], col))
    to_x = np.where(col == width, right[which], np.minimum(right[which], col + 1))
    extent = (right - left)[which]
    with np.errstate(invalid="ignore", divide="ignore"):
        drop = crossings.drop[which] * np.where(extent > 0, (to_x - from_x) / extent, 1.0)
    beside = np.clip(1 - ((from_x + to_x) / 2 - col), 0, 1)
    beside[(col < 0) | (col == width)] = 1
    place = (start - first)[span[which]] + np.maximum(col, 0)
    size = int(start[-1] + length[-1])
    own = drop * beside
    canvas: Floats = np.bincount(place, own, size + 1).astype(np.float64, copy=False)
    canvas += np.bincount(place + 1, drop - own, size + 1)
    covered: Floats = np.cumsum(canvas[:size], out=canvas[:size])
    return covered


def _within(count: Integers) -> Integers:
    """Return 0, 1, … count - 1 for each entry, one after the other."""
    steps: Integers = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return steps
