"""Borders with fewer corners that still do not touch one another.

A chain of corners becomes one straight line where no corner of it lies further away than the
tolerance, and where the convex hull of the chain holds no part of any *original* border but the
chain itself. Lines that replace chains with such free hulls cannot cross one another, nor leave a
region on the wrong side: two closed curves cross an even number of times. So every chain is judged
alone, from the original borders near it: the result depends neither on an order nor on strips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.outputs.parcels.smooth import Originals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.borders import Border
    from omnisat_cli.outputs.parcels.ground import Ground
    from omnisat_cli.outputs.parcels.regions import Integers, Mask
    from omnisat_cli.outputs.parcels.smooth import Smoother

    Floats = NDArray[np.float64]
    Corners = NDArray[np.int64] | NDArray[np.float64]

_TOUCHES_AT_ITS_END = "FF*F*****"
"""DE-9IM of hull and side: the inside of the side is outside, its end may lie on the outline."""


@dataclass(frozen=True, slots=True)
class _Chains:
    """Parts of borders, as places in one array of corners.

    Attributes:
        first: (N,) place of the first corner.
        last: (N,) place of the last corner.
        split: (N,) whether the chain may not become one line whatever its shape.
    """

    first: Integers
    last: Integers
    split: Mask

    def __getitem__(self, chosen: NDArray[np.generic]) -> _Chains:
        return _Chains(self.first[chosen], self.last[chosen], self.split[chosen])


class Simplifier:
    """Simplifies borders in the order in which they become known.

    Args:
        tolerance_m: How far a border may move, in metres.
        ground: Size of the pixels.
        smoother: What rounds the corners afterwards, if anything.
        margin: Rows beyond a border that must be known for that.
    """

    def __init__(
        self, tolerance_m: float, ground: Ground, smoother: Smoother | None = None, margin: int = 0
    ) -> None:
        self._tolerance = tolerance_m
        self._ground = ground
        self._smoother, self._margin = smoother, margin
        self._linked: set[frozenset[tuple[int, int]]] = set()
        self._kept: list[Border] = []

    def add(self, ready: Sequence[Border], others: Sequence[Border]) -> Sequence[Corners]:
        """Simplify borders.

        Args:
            ready: Whole borders in the order of their keys; those of earlier calls have lower ones.
            others: All other borders that reach into rows of `ready` and their margin, or parts of
                them; those that were ready before are remembered here.

        Returns:
            (K, 2) corners of each border that is ready.
        """
        if not ready:
            return []
        split = np.array([self._must_bend(border) for border in ready])
        corners = np.concatenate([b.corners for b in ready])
        ends = np.cumsum([len(b.corners) for b in ready])
        begins = np.concatenate([[0], ends[:-1]])
        chains = _Chains(begins, ends - 1, split)
        sides = _Sides(corners, begins, [*self._kept, *others], self._margin)
        keep = np.zeros(len(corners), bool)
        keep[begins] = keep[ends - 1] = True
        while len(chains.first):
            chains = self._divide(chains, corners, sides, keep)
        self._forget([*ready], others)
        outlines = [corners[a:b][keep[a:b]] for a, b in zip(begins, ends, strict=True)]
        if self._smoother is None:
            return outlines
        rings = [border.ring for border in ready]
        return self._smoother.smooth(outlines, rings, sides.originals(begins))

    def _must_bend(self, border: Border) -> bool:
        """Whether a straight line would coincide with another border, or shrink to a point."""
        link = frozenset(border.ends)
        known = link in self._linked
        self._linked.add(link)
        return known or len(link) == 1

    def _forget(self, ready: list[Border], others: Sequence[Border]) -> None:
        """Keep what borders that are not ready yet may still meet."""
        top = min((border.rows[0] for border in others), default=np.inf)
        self._kept = [b for b in [*self._kept, *ready] if b.rows[1] >= top - self._margin]
        tips = {end for border in others for end in border.ends}
        self._linked = {link for link in self._linked if link <= tips}

    def _divide(self, chains: _Chains, corners: Integers, sides: _Sides, keep: Mask) -> _Chains:
        """Accept the chains that can be lines; return the halves of the others."""
        chains = chains[chains.last - chains.first > 1]
        if not len(chains.first):
            return chains
        furthest, distance = self._furthest(chains, corners)
        fits = (distance <= self._tolerance) & ~chains.split
        fits[fits] = sides.leave_free(chains[fits])
        rest, middle = chains[~fits], furthest[~fits]
        keep[middle] = True
        closed = (corners[rest.first] == corners[rest.last]).all(axis=1)
        return _Chains(
            np.concatenate([rest.first, middle]),
            np.concatenate([middle, rest.last]),
            np.concatenate([closed, closed]),
        )

    def _furthest(self, chains: _Chains, corners: Integers) -> tuple[Integers, Floats]:
        """Return place and distance in metres of the inner corner furthest from the line."""
        count = chains.last - chains.first - 1
        starts = np.concatenate([[0], np.cumsum(count)[:-1]])
        owner = np.repeat(np.arange(len(count)), count)
        places = np.arange(len(owner)) - starts[owner] + chains.first[owner] + 1
        ends = corners[chains.first], corners[chains.last]
        scale = self._ground.sizes((ends[0][:, 0] + ends[1][:, 0]) / 2)
        line = ((ends[1] - ends[0]) * scale)[owner]
        point = (corners[places] - ends[0][owner]) * scale[owner]
        length = line[:, 0] ** 2 + line[:, 1] ** 2
        along = point[:, 0] * line[:, 0] + point[:, 1] * line[:, 1]
        share = np.clip(along / np.where(length > 0, length, 1), 0, 1)
        away = point - share[:, None] * line
        distance = away[:, 0] ** 2 + away[:, 1] ** 2
        largest = np.maximum.reduceat(distance, starts)
        hits = np.flatnonzero(distance == largest[owner])
        _, at = np.unique(owner[hits], return_index=True)
        return places[hits[at]], np.sqrt(largest)


class _Sides:
    """The straight sides of all original borders near those that are simplified.

    Args:
        corners: (P, 2) corners of the borders that are simplified.
        begins: Places where a border begins.
        others: Further borders.
        margin: Rows above and below `corners` that are of interest too.
    """

    def __init__(
        self, corners: Integers, begins: Integers, others: Sequence[Border], margin: int
    ) -> None:
        first = np.ones(len(corners), bool)
        first[begins] = False
        own = np.flatnonzero(first) - 1
        starts, stops = [corners[own]], [corners[own + 1]]
        top, bottom = int(corners[:, 0].min()) - margin, int(corners[:, 0].max()) + margin
        for border in others:
            rows = border.corners[:, 0]
            low = np.maximum(rows[1:], rows[:-1]) >= top
            near = low & (np.minimum(rows[1:], rows[:-1]) <= bottom)
            starts.append(border.corners[:-1][near])
            stops.append(border.corners[1:][near])
        self._corners = corners
        self._ends = np.stack([np.concatenate(starts), np.concatenate(stops)], axis=1)
        self._lines = shapely.linestrings(self._ends)
        self._place = np.full(len(self._ends), -1, np.int64)
        self._place[: len(own)] = own
        self._tree = shapely.STRtree(self._lines)

    def originals(self, begins: Integers) -> Originals:
        """Return the sides with the number of the border that they belong to."""
        border = np.searchsorted(begins, self._place, side="right") - 1
        return Originals(self._tree, np.where(self._place < 0, -1, border))

    def leave_free(self, chains: _Chains) -> Mask:
        """Say whether the hull of each chain holds no side but its own.

        A side that goes off from an end of the chain may touch the hull there.
        """
        count = chains.last - chains.first + 1
        owner = np.repeat(np.arange(len(count)), count)
        starts = np.concatenate([[0], np.cumsum(count)[:-1]]) if len(count) else count
        places = np.arange(len(owner)) - starts[owner] + chains.first[owner]
        hulls = shapely.convex_hull(shapely.linestrings(self._corners[places], indices=owner))
        chain, side = self._tree.query(hulls, predicate="intersects")
        place = self._place[side]
        foreign = (place < chains.first[chain]) | (place >= chains.last[chain])
        chain, side = chain[foreign], side[foreign]
        tips = self._corners[np.stack([chains.first[chain], chains.last[chain]], axis=1)]
        meets = (self._ends[side][:, :, None] == tips[:, None, :]).all(axis=3).any(axis=(1, 2))
        harmless = meets.copy()
        harmless[meets] = shapely.relate_pattern(
            hulls[chain[meets]], self._lines[side[meets]], _TOUCHES_AT_ITS_END
        )
        free = np.ones(len(count), bool)
        free[chain[~harmless]] = False
        return free
