"""A class map cut into basins: pieces of fields that no line of the boundary map crosses.

A watershed that needs no more than `REACH` pixels around a pixel. Every pixel has a level: how far
inside a piece of ground free of lines it lies, up to `_DEEP`; below 0, how far inside a line. It
joins the neighbour of its class with the highest level above its own, of equals the one with the
weaker line. Pixels of a class too narrow for an inside (roads, hedges) stay together.

Basins are more than fields; `merging` puts together those that no line parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.outputs.legend import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Levels = NDArray[np.int16]
    Mask = NDArray[np.bool_]

_LINE: Final = 8
"""Strength from which a pixel is on a line."""

_DEEP: Final = 3
"""Highest level: inside that it is all one."""

_STEPS: Final = 8
"""Pixels that a basin may grow over lines; what lies deeper in a thick line stays by itself."""

REACH: Final = 2 + _DEEP + _STEPS
"""Rows above and below that decide what a row becomes, beside those that decide the strength."""

_LOST: Final = -_STEPS * 256
"""Below this height are the pixels that no basin reaches."""

_SIDES: Final = ((-1, 0), (0, -1), (0, 1), (1, 0))


def basin_links(codes: Bytes, strength: Bytes) -> tuple[Mask, Mask, Mask]:
    """Say which neighbouring pixels lie in one basin.

    Args:
        codes: (H, W) class codes, 255 = none.
        strength: (H, W) how clearly a pixel lies on a line.

    Returns:
        (H, W - 1), whether a pixel and the one right of it belong together; (H, W), whether a
        pixel and the one above it do, False in the first row; (H, W), whether a pixel lies deep
        inside.
    """
    level = _levels(codes, strength)
    height = level.astype(np.int32) * 256 - strength
    right, down = _climbs(codes, height)
    return right, down, level == _DEEP


def _levels(codes: Bytes, strength: Bytes) -> Levels:
    """Return the (H, W) levels, `-_STEPS - 1` in what no basin reaches."""
    free = (strength < _LINE) & ~_beside_other(codes) & (codes != NODATA)
    level = np.where(free, 1, -_STEPS - 1).astype(np.int16)
    inside = free
    for depth in range(2, _DEEP + 1):
        inside = inside & _all_sides(inside)
        level[inside] = depth
    reached = free
    for depth in range(_STEPS):
        grown = _any_side(reached, codes) & ~reached
        level[grown] = -depth
        reached = reached | grown
    return level


def _climbs(codes: Bytes, height: NDArray[np.int32]) -> tuple[Mask, Mask]:
    """Link every pixel with the highest neighbour above it, and equals that have none."""
    rows, cols = codes.shape
    best, choice = height.copy(), np.full(codes.shape, -1, np.int8)
    reached = height >= _LOST
    for side, (row, col) in enumerate(_SIDES):
        here, there = _shifted(rows, row), _shifted(cols, col)
        own, other = (here[0], there[0]), (here[1], there[1])
        better = (codes[own] == codes[other]) & (height[other] > best[own]) & reached[own]
        best[own] = np.where(better, height[other], best[own])
        choice[own] = np.where(better, np.int8(side), choice[own])
    top = choice == -1
    real = codes != NODATA
    right = _equal(codes, height, top, real, 1)
    right |= (choice[:, 1:] == 1) | (choice[:, :-1] == 2)
    down = np.zeros(codes.shape, bool)
    down[1:] = _equal(codes, height, top, real, 0)
    down[1:] |= (choice[1:] == 0) | (choice[:-1] == 3)
    right &= real[:, 1:]
    return right, down & real


def _equal(codes: Bytes, height: NDArray[np.int32], top: Mask, real: Mask, axis: int) -> Mask:
    """Pair neighbours of one class that are summits of one height, or that nothing reached."""
    one, other = (slice(1, None), slice(None)), (slice(None, -1), slice(None))
    if axis == 1:
        one, other = one[::-1], other[::-1]
    same = (codes[one] == codes[other]) & real[one]
    lost = (height[one] < _LOST) & (height[other] < _LOST)
    level = top[one] & top[other] & (height[one] == height[other])
    paired: Mask = same & (level | lost)
    return paired


def _shifted(count: int, step: int) -> tuple[slice, slice]:
    """Return the places that have a neighbour `step` away, and those neighbours."""
    if step == 0:
        return slice(None), slice(None)
    first, second = slice(0, count - 1), slice(1, count)
    return (first, second) if step == 1 else (second, first)


def _beside_other(codes: Bytes) -> Mask:
    """Mark pixels with a pixel of another class, or of none, on one of their sides."""
    found = np.zeros(codes.shape, bool)
    change = codes[:, 1:] != codes[:, :-1]
    found[:, 1:] |= change
    found[:, :-1] |= change
    change = codes[1:] != codes[:-1]
    found[1:] |= change
    found[:-1] |= change
    return found


def _all_sides(mask: Mask) -> Mask:
    """Mark pixels whose neighbours on all sides, as far as there are any, are in a mask."""
    found = np.ones(mask.shape, bool)
    found[1:] &= mask[:-1]
    found[:-1] &= mask[1:]
    found[:, 1:] &= mask[:, :-1]
    found[:, :-1] &= mask[:, 1:]
    return found


def _any_side(mask: Mask, codes: Bytes) -> Mask:
    """Mark pixels with a neighbour of their class in a mask."""
    found = np.zeros(mask.shape, bool)
    same = codes[1:] == codes[:-1]
    found[1:] |= mask[:-1] & same
    found[:-1] |= mask[1:] & same
    same = codes[:, 1:] == codes[:, :-1]
    found[:, 1:] |= mask[:, :-1] & same
    found[:, :-1] |= mask[:, 1:] & same
    return found
