"""The borders between regions as chains of pixel corners, traced strip by strip.

A border runs between two *nodes*: corners where three or more regions meet, and the four corners of
the map. A border without node is a loop. Every border is the same whatever the strips were.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.regions import Integers, Labels, Mask

_Tip = tuple[int, int]
"""(kind, column) of an end of a piece."""

_ABOVE, _TOP, _BOTTOM = 0, 1, 2
"""Kinds of open ends: of a piece from above the strip; of a new piece, at its top or bottom."""

_CLOSED: Final[_Tip] = (-1, -1)
_LINKED, _AT_NODE = 0, -1


@dataclass(frozen=True, slots=True)
class Border:
    """A border, or the part of it that is known.

    Attributes:
        corners: (K, 2) int64 (row, col) of its ends and turns; first equals last in a loop.
        sides: The two regions it parts, 0 for none.
        ring: Whether it has no node.
    """

    corners: Integers
    sides: tuple[int, int]
    ring: bool = False

    @property
    def ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last corner."""
        (a, b), (c, d) = self.corners[0].tolist(), self.corners[-1].tolist()
        return (a, b), (c, d)

    @property
    def rows(self) -> tuple[int, int]:
        """First and last corner row."""
        rows = self.corners[:, 0]
        return int(rows.min()), int(rows.max())

    @property
    def key(self) -> tuple[int, ...]:
        """Orders borders by their lowest row, then in a way that depends on the map alone."""
        return (self.rows[1], *self.corners[0].tolist(), *self.corners[1].tolist())


@dataclass(slots=True)
class _Piece:
    parts: list[Integers]
    sides: tuple[int, int]
    head: _Tip
    tail: _Tip
    ring: bool = False

    def turn(self) -> None:
        self.parts = [part[::-1] for part in reversed(self.parts)]
        self.head, self.tail = self.tail, self.head

    def rename(self, old: _Tip, new: _Tip) -> None:
        self.head = new if self.head == old else self.head
        self.tail = new if self.tail == old else self.tail

    @property
    def whole(self) -> bool:
        return self.head == self.tail == _CLOSED

    def border(self) -> Border:
        return Border(_canonical(np.concatenate(self.parts), self.ring), self.sides, self.ring)


class BorderTracer:
    """Traces borders while strips of regions pass by, from top to bottom.

    Args:
        height: Rows of the map.
        width: Columns of the map.
    """

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width
        self._row = 0
        self._above: Labels = np.zeros(width, np.int32)
        self._open: dict[_Tip, _Piece] = {}

    @property
    def row(self) -> int:
        """First corner row of which not everything is known."""
        return self._row + (self._row == self._height)

    def unfinished(self) -> list[Border]:
        """Return the known parts of the borders that go on below."""
        pieces = {id(piece): piece for piece in self._open.values()}
        return [Border(np.concatenate(p.parts), p.sides) for p in pieces.values()]

    def add(self, regions: Labels) -> list[Border]:
        """Trace a strip.

        Args:
            regions: (H, W) region of each pixel, 0 for none.

        Returns:
            The borders that are whole now.
        """
        end = self._row + len(regions)
        if not (self._open or self._above.any() or regions.any()):
            self._above, self._row = regions[-1], end
            return []
        rows = len(regions) + (end == self._height)
        padded = np.zeros((rows + 1, self._width + 2), np.int32)
        padded[0, 1:-1], padded[1 : len(regions) + 1, 1:-1] = self._above, regions
        frame = [edge - self._row for edge in (0, self._height) if 0 <= edge - self._row < rows]
        corners = _Corners.of(padded, frame)
        pieces = _trace(corners, padded, self._row)
        done = self._stitch(corners, pieces)
        self._above, self._row = regions[-1], end
        return [p.border() for p in done]

    def _stitch(self, corners: _Corners, new: list[_Piece]) -> list[_Piece]:
        done = [piece for piece in new if piece.whole]
        ends = dict(self._open)
        for piece in new:
            ends.update({tip: piece for tip in (piece.head, piece.tail) if tip != _CLOSED})
        for tip in self._open:
            piece = ends.pop(tip)
            if corners.node[0, tip[1]]:
                piece.rename(tip, _CLOSED)
            else:
                piece = _joined(piece, tip, ends.pop((_TOP, tip[1])))
                ends.update({end: piece for end in (piece.head, piece.tail) if end != _CLOSED})
            if piece.whole:
                done.append(piece)
        for tip, piece in ends.items():
            piece.rename(tip, (_ABOVE, tip[1]))
        self._open = {(_ABOVE, col): piece for (_, col), piece in ends.items()}
        return done


def _joined(piece: _Piece, tip: _Tip, other: _Piece) -> _Piece:
    """Join the end `tip` of a piece with the end of another one that begins there."""
    if piece is other:
        piece.head = piece.tail = _CLOSED
        piece.ring = True
        return piece
    if piece.tail != tip:
        piece.turn()
    if other.head != (_TOP, tip[1]):
        other.turn()
    return _Piece(piece.parts + other.parts, piece.sides, piece.head, other.tail)


@dataclass(frozen=True, slots=True)
class _Corners:
    """Corners of a strip; row 0 is its upper edge, the row below its lower edge is not in it.

    Attributes:
        east: (n, W + 1), whether a side leaves to the east; likewise west, north, south.
        node: (n, W + 1), whether three or more regions meet, or the map has its corner.
        stop: (n, W + 1), whether a straight run ends: a node or a turn.
    """

    east: Mask
    west: Mask
    north: Mask
    south: Mask
    node: Mask
    stop: Mask

    @staticmethod
    def of(padded: Labels, frame: list[int]) -> _Corners:
        """Compare the pixels around every corner.

        Args:
            padded: (n + 1, W + 2) regions with the row above and a column of 0 on both sides.
            frame: Rows of corners that are the upper or lower edge of the map.
        """
        sides = padded[1:] != padded[:-1]  # between a pixel and the one above it
        posts = padded[:, 1:] != padded[:, :-1]
        west, east, north, south = sides[:, :-1], sides[:, 1:], posts[:-1], posts[1:]
        degree = west.astype(np.uint8) + east + north + south
        node = degree > 2
        for row in frame:
            node[row, [0, -1]] = degree[row, [0, -1]] > 0
        straight = (degree == 2) & (west == east)
        return _Corners(east, west, north, south, node, (degree > 0) & (~straight | node))


def _trace(corners: _Corners, padded: Labels, top: int) -> list[_Piece]:
    """Chain the straight runs of a strip into pieces."""
    ends, sides = _runs(corners, padded)
    count, width = corners.node.shape
    kind = np.full((count + 1, width), _LINKED, np.int8)
    kind[:-1][corners.node] = _AT_NODE
    kind[0][corners.north[0] & ~corners.node[0]] = _TOP
    kind[-1] = _BOTTOM
    kinds = kind.ravel()[ends]
    linked = np.flatnonzero(kinds == _LINKED)
    linked = linked[np.argsort(ends[linked], kind="stable")]
    partner = np.full(len(ends), -1, np.int64)
    partner[linked[::2]], partner[linked[1::2]] = linked[1::2], linked[::2]
    chains, offsets = _follow(partner)
    rows, cols = np.divmod(ends[chains], width)
    points = np.column_stack([rows + top, cols])
    pieces = []
    for start, stop in itertools.pairwise(offsets):
        first, last = chains[start], chains[stop - 1]
        one, other = sides[first // 2].tolist()
        tips = [
            _CLOSED if kinds[end] in {_AT_NODE, _LINKED} else (int(kinds[end]), int(col))
            for end, col in ((first, cols[start]), (last, cols[stop - 1]))
        ]
        ring = bool(kinds[first] == _LINKED)
        pieces.append(_Piece([points[start:stop]], (one, other), tips[0], tips[1], ring))
    return pieces


def _runs(corners: _Corners, padded: Labels) -> tuple[Integers, Labels]:
    """Return the straight runs of a strip.

    Returns:
        (2 n,) corner of each end, runs one after the other, and (n, 2) the regions beside each.
    """
    width = corners.node.shape[1]
    begin = np.flatnonzero(corners.stop & corners.east)
    end = np.flatnonzero(corners.stop & corners.west)
    row, col = np.divmod(begin, width)
    across = np.column_stack([padded[row, col + 1], padded[row + 1, col + 1]])
    starts = corners.stop & corners.south
    starts[0] |= corners.south[0] & corners.north[0]
    stops = np.vstack([corners.stop & corners.north, corners.south[-1:]])
    stops[0] = False
    upper, lower = _by_column(starts), _by_column(stops)
    row, col = np.divmod(upper, width)
    along = np.column_stack([padded[row + 1, col], padded[row + 1, col + 1]])
    ends = np.column_stack([np.concatenate([begin, upper]), np.concatenate([end, lower])])
    return ends.ravel(), np.concatenate([across, along])


def _by_column(mask: Mask) -> Integers:
    """Return the flat places of a mask, column by column."""
    flat = np.flatnonzero(mask)
    return flat[np.argsort(flat % mask.shape[1], kind="stable")]


def _follow(partner: Integers) -> tuple[Integers, Integers]:
    """Walk from end to end: along a run (ends 2k and 2k + 1), over to its partner, and on.

    Returns:
        The first end of the first run and the second end of each run, chain by chain, and the
        (n + 1,) offsets of the chains.
    """
    other = partner.tolist()
    seen = bytearray(len(other))
    chain: list[int] = []
    offsets = [0]
    for begin in [*np.flatnonzero(partner < 0).tolist(), *range(len(other))]:
        if seen[begin]:
            continue
        chain.append(begin)
        end = begin
        while end >= 0 and not seen[end]:
            seen[end] = seen[end ^ 1] = 1
            chain.append(end ^ 1)
            end = other[end ^ 1]
        offsets.append(len(chain))
    return np.array(chain, np.int64), np.array(offsets, np.int64)


def _canonical(corners: Integers, ring: bool) -> Integers:
    """Drop what is no turn, and choose start and direction by the place alone."""
    steps = np.sign(np.diff(corners, axis=0))
    moved = steps.any(axis=1)
    corners, steps = np.concatenate([corners[:1], corners[1:][moved]]), steps[moved]
    turns = np.flatnonzero((steps[1:] != steps[:-1]).any(axis=1)) + 1
    corners = corners[np.concatenate([[0], turns, [len(corners) - 1]])]
    return _canonical_loop(corners, steps) if ring else _canonical_way(corners)


def _canonical_way(corners: Integers) -> Integers:
    places = corners.tolist()
    return corners[::-1] if places[::-1] < places else corners


def _canonical_loop(corners: Integers, steps: NDArray[np.int64]) -> Integers:
    ring = corners[:-1]
    if (steps[0] == steps[-1]).all() and len(ring) > 3:
        ring = ring[1:]  # the walk began in the middle of a run
    first = int(np.lexsort((ring[:, 1], ring[:, 0]))[0])
    ring = np.roll(ring, -first, axis=0)
    if ring[-1].tolist() < ring[1].tolist():
        ring = np.roll(ring[::-1], 1, axis=0)
    return np.concatenate([ring, ring[:1]])
