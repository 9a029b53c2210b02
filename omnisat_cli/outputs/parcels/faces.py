"""Regions as polygons, each as soon as all its borders are known."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.outputs.parcels.borders import BorderTracer
from omnisat_cli.outputs.parcels.simplify import Simplifier
from omnisat_cli.outputs.parcels.smooth import Smoother

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.borders import Border
    from omnisat_cli.outputs.parcels.ground import Ground
    from omnisat_cli.outputs.parcels.regions import Integers, Labels, Regions
    from omnisat_cli.outputs.parcels.simplify import Corners


@dataclass(frozen=True, slots=True)
class Drawing:
    """How outlines are drawn.

    Attributes:
        ground: Size of the pixels.
        tolerance_m: How far simplification may move a border; 0 keeps the outlines of the pixels.
        smooth_m: How far smoothing may move it beyond that; 0 keeps the corners.
    """

    ground: Ground
    tolerance_m: float
    smooth_m: float = 0.0


class PolygonBuilder:
    """Turns strips of regions into polygons in pixel coordinates (x = column, y = row).

    Only borders and regions that the strips so far have not finished are held.

    Args:
        shape: Rows and columns of the map.
        regions: The regions.
        drawing: How outlines are drawn.
    """

    def __init__(self, shape: tuple[int, int], regions: Regions, drawing: Drawing) -> None:
        self._tracer = BorderTracer(*shape)
        self._height, self._margin = shape[0], 0
        self._simplifier: Simplifier | None = None
        tolerance, smooth, ground = drawing.tolerance_m, drawing.smooth_m, drawing.ground
        if smooth > 0:
            smoother = Smoother(tolerance, smooth, ground)
            self._margin = smoother.margin(shape[0])
            self._simplifier = Simplifier(tolerance, ground, smoother, self._margin)
        elif tolerance > 0:
            self._simplifier = Simplifier(tolerance, ground)
        self._waiting: list[Border] = []
        self._outlines: dict[int, list[Corners]] = defaultdict(list)
        order = np.lexsort((regions.first, regions.last_row))
        order = order[order > 0]
        self._order = order
        self._last_row = regions.last_row[order]
        self._emitted = 0

    def add(self, labels: Labels) -> tuple[Integers, NDArray[np.object_]]:
        """Take the next strip.

        Args:
            labels: (H, W) region of each pixel.

        Returns:
            The regions that are finished, ordered by last row and first pixel, and their polygons.
        """
        known = sorted([*self._waiting, *self._tracer.add(labels)], key=lambda b: b.key)
        horizon = self._tracer.row
        if horizon <= self._height:  # what is near a border must be known too
            horizon -= self._margin
        ready = [border for border in known if border.rows[1] < horizon]
        self._waiting = known[len(ready) :]
        outlines: Sequence[Corners] = [border.corners for border in ready]
        if self._simplifier is not None:
            others = [*self._waiting, *self._tracer.unfinished()]
            outlines = self._simplifier.add(ready, others)
        for border, outline in zip(ready, outlines, strict=True):
            for region in border.sides:
                if region:
                    self._outlines[region].append(outline)
        stop = int(np.searchsorted(self._last_row, horizon - 1))
        regions = self._order[self._emitted : stop]
        self._emitted = max(stop, self._emitted)
        polygons = [_polygon(self._outlines.pop(region)) for region in regions.tolist()]
        return regions, np.array(polygons, dtype=object)


def _polygon(outlines: list[Corners]) -> shapely.Polygon:
    """Return the region inside its borders: the face that holds all other faces in its holes."""
    if len(outlines) == 1:
        return shapely.normalize(shapely.polygons(outlines[0][:, ::-1]))
    lines = [shapely.linestrings(outline[:, ::-1]) for outline in _sorted(outlines)]
    faces = shapely.get_parts(shapely.polygonize(lines))
    extents = shapely.area(shapely.polygons(shapely.get_exterior_ring(faces)))
    return shapely.normalize(faces[int(np.argmax(extents))])


def _sorted(outlines: list[Corners]) -> Iterator[Corners]:
    return iter(sorted(outlines, key=lambda outline: outline[:2].tolist()))
