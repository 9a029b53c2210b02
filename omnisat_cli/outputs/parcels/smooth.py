"""Round the corners of borders, in a way that no two borders can meet.

Borders are shared by the parcels beside them, so smoothing them opens no gap. At each turn of a
simplified border a curve replaces the corner: the quadratic Bézier curve between two points on
the sides, which stays inside the triangle of these points and the corner, and closer to the corner
than `smooth_m`. Junctions of three parcels stay where they are.

A corner is rounded where its triangle holds no other side of its own border, and where no
*original* side of any other border is closer to it than the simplification and the smoothing can
move things together. Triangles of one border then cannot overlap, and curves of two borders cannot
reach each other. So each corner is judged from originals near it: the answer depends neither on an
order nor on strips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.ground import Ground
    from omnisat_cli.outputs.parcels.regions import Integers, Mask

    Floats = NDArray[np.float64]

_PLACES: Final = np.array([0, 1 / 3, 2 / 3, 1])
"""Where on its curve a corner gets new corners."""

_TURN: Final = np.cos(np.deg2rad(12))
"""A corner that turns less is no corner."""

_HAIR: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Originals:
    """The sides of all borders before they were simplified, near those that are smoothed.

    Attributes:
        tree: Their lines, x = row and y = column.
        border: (S,) which of the borders to be smoothed a side belongs to; -1 for others.
    """

    tree: shapely.STRtree
    border: Integers


@dataclass(frozen=True, slots=True)
class _Corners:
    """Corners that may be rounded.

    Attributes:
        border: (N,) border of each.
        place: (N,) place of the corner in its border.
        points: (N, 3, 2) where its curve begins, the corner, where its curve ends.
    """

    border: Integers
    place: Integers
    points: Floats

    def __getitem__(self, chosen: Mask) -> _Corners:
        return _Corners(self.border[chosen], self.place[chosen], self.points[chosen])


@dataclass(frozen=True, slots=True)
class Smoother:
    """Rounds corners.

    Attributes:
        moved_m: How far simplification has moved borders, in metres.
        smooth_m: How far smoothing may move them.
        ground: Size of the pixels.
    """

    moved_m: float
    smooth_m: float
    ground: Ground

    def margin(self, height: int) -> int:
        """Return how many rows beyond a border must be known before it can be smoothed."""
        shortest = float(self.ground.sizes(np.array([0, height])).min(axis=0)[0])
        return int(np.ceil((self.moved_m + self.smooth_m) / shortest)) + 2

    def smooth(
        self, outlines: Sequence[Integers], rings: Sequence[bool], originals: Originals
    ) -> list[Floats]:
        """Round the corners of borders.

        Args:
            outlines: (K, 2) corners of each simplified border; first equals last in a loop.
            rings: Whether a border is a loop without junction.
            originals: What they and all borders near them were before.

        Returns:
            Their corners afterwards.
        """
        corners = self._corners(outlines, rings)
        corners = corners[self._is_clear(corners, originals)]
        corners = corners[_is_alone(corners, outlines)]
        curves: dict[int, dict[int, Floats]] = {}
        share = _PLACES[:, None]
        weights = np.stack([(1 - share) ** 2, 2 * share * (1 - share), share**2])  # (3, T, 1)
        points = np.einsum("ktu,nkd->ntd", weights, corners.points)
        for border, place, curve in zip(
            corners.border.tolist(), corners.place.tolist(), points, strict=True
        ):
            curves.setdefault(border, {})[place] = curve
        return [
            _redrawn(outline, curves.get(index, {}), ring)
            for index, (outline, ring) in enumerate(zip(outlines, rings, strict=True))
        ]

    def _corners(self, outlines: Sequence[Integers], rings: Sequence[bool]) -> _Corners:
        """Find the turns, and where on their sides curves would begin and end."""
        count = np.array([len(outline) for outline in outlines], np.int64)
        stops = np.cumsum(count)
        begins = stops - count
        every = np.concatenate([np.zeros((0, 2)), *outlines]).astype(np.float64)
        border = np.repeat(np.arange(len(count)), count)
        before, after = np.arange(len(every)) - 1, np.arange(len(every)) + 1
        inner = np.ones(len(every), bool)
        inner[begins] = inner[stops - 1] = False
        loops = np.flatnonzero(np.array(rings, bool))
        inner[begins[loops]] = True  # the last corner of a loop is its first
        before[begins[loops]] = stops[loops] - 2
        place = np.flatnonzero(inner)
        trio = np.stack([every[before[place]], every[place], every[after[place]]], axis=1)
        metres = self.ground.sizes(trio[:, 1, 0])[:, None, :]
        sides = (trio[:, [0, 2]] - trio[:, 1:2]) * metres
        length = np.maximum(np.hypot(sides[..., 0], sides[..., 1]), _HAIR)
        straight = -(sides[:, 0] * sides[:, 1]).sum(axis=1) / (length[:, 0] * length[:, 1])
        # a curve that begins twice the distance away comes no further than that from the corner
        share = np.minimum(0.5, 2 * self.smooth_m / length)[..., None]
        trio[:, [0, 2]] = trio[:, 1:2] + share * (trio[:, [0, 2]] - trio[:, 1:2])
        turns = straight < _TURN
        return _Corners(border[place], place - begins[border[place]], trio)[turns]

    def _is_clear(self, corners: _Corners, originals: Originals) -> Mask:
        """Say where no other border was, or can come, near the triangle."""
        clear = np.ones(len(corners.border), bool)
        smallest = self.ground.sizes(corners.points[:, 1, 0]).min(axis=1)
        distance = (self.moved_m + self.smooth_m) / np.maximum(smallest, _HAIR) + _HAIR
        shapes = shapely.polygons(corners.points)
        one, side = originals.tree.query(shapes, predicate="dwithin", distance=distance)
        foreign = originals.border[side] != corners.border[one]
        clear[one[foreign]] = False
        return clear


def _is_alone(corners: _Corners, outlines: Sequence[Integers]) -> Mask:
    """Say where a triangle holds no side of its own border but the two of its corner."""
    alone = np.ones(len(corners.border), bool)
    if not len(alone):
        return alone
    sides, border, number = [], [], []
    for index in np.unique(corners.border).tolist():
        outline = outlines[index]
        sides.append(np.stack([outline[:-1], outline[1:]], axis=1))
        border.append(np.full(len(outline) - 1, index))
        number.append(np.arange(len(outline) - 1))
    of, place = np.concatenate(border), np.concatenate(number)
    sides_of = np.array([len(outline) - 1 for outline in outlines])
    tree = shapely.STRtree(shapely.linestrings(np.concatenate(sides).astype(np.float64)))
    one, side = tree.query(shapely.polygons(corners.points), predicate="intersects")
    own = of[side] == corners.border[one]
    one, side = one[own], side[own]
    after = corners.place[one]
    before = (after - 1) % sides_of[corners.border[one]]
    other = (place[side] != after) & (place[side] != before)
    alone[one[other]] = False
    return alone


def _redrawn(outline: Integers, curves: dict[int, Floats], ring: bool) -> Floats:
    """Put curves in the place of corners."""
    points: Floats = outline.astype(np.float64)
    if not curves:
        return points
    last = len(points) - 1
    parts = [curves.get(place, points[place : place + 1]) for place in range(last)]
    parts.append(parts[0][:1] if ring else points[last:])
    drawn = np.concatenate(parts)
    new = np.ones(len(drawn), bool)
    new[1:] = (drawn[1:] != drawn[:-1]).any(axis=1)  # two curves may meet half-way
    return drawn[new]
