"""Regions as polygons, each as soon as all its borders are known."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.outputs.parcels.borders import BorderTracer
from omnisat_cli.outputs.parcels.simplify import Simplifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.borders import Border
    from omnisat_cli.outputs.parcels.ground import Ground
    from omnisat_cli.outputs.parcels.regions import Integers, Labels, Regions


class PolygonBuilder:
    """Turns strips of regions into polygons in pixel coordinates (x = column, y = row).

    Only borders and regions that the strips so far have not finished are held.

    Args:
        shape: Rows and columns of the map.
        regions: The regions.
        tolerance_m: How far a border may move; 0 keeps the outlines of the pixels.
        ground: Size of the pixels.
    """

    def __init__(
        self, shape: tuple[int, int], regions: Regions, tolerance_m: float, ground: Ground
    ) -> None:
        self._tracer = BorderTracer(*shape)
        self._simplifier = Simplifier(tolerance_m, ground) if tolerance_m > 0 else None
        self._waiting: list[Border] = []
        self._outlines: dict[int, list[Integers]] = defaultdict(list)
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
        ready = [border for border in known if border.rows[1] < self._tracer.row]
        self._waiting = known[len(ready) :]
        outlines: Sequence[Integers] = [border.corners for border in ready]
        if self._simplifier is not None:
            others = [*self._waiting, *self._tracer.unfinished()]
            outlines = self._simplifier.add(ready, others)
        for border, outline in zip(ready, outlines, strict=True):
            for region in border.sides:
                if region:
                    self._outlines[region].append(outline)
        stop = int(np.searchsorted(self._last_row, self._tracer.row - 1))
        regions = self._order[self._emitted : stop]
        self._emitted = stop
        polygons = [_polygon(self._outlines.pop(region)) for region in regions.tolist()]
        return regions, np.array(polygons, dtype=object)


def _polygon(outlines: list[Integers]) -> shapely.Polygon:
    """Return the region inside its borders: the face that holds all other faces in its holes."""
    if len(outlines) == 1:
        return shapely.normalize(shapely.polygons(outlines[0][:, ::-1]))
    lines = [shapely.linestrings(outline[:, ::-1]) for outline in _sorted(outlines)]
    faces = shapely.get_parts(shapely.polygonize(lines))
    extents = shapely.area(shapely.polygons(shapely.get_exterior_ring(faces)))
    return shapely.normalize(faces[int(np.argmax(extents))])


def _sorted(outlines: list[Integers]) -> Iterator[Integers]:
    return iter(sorted(outlines, key=lambda outline: outline[:2].tolist()))
