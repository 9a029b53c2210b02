"""Which pixels lie on a line of the boundary map, and how clearly it stands out.

A network's boundary is strong between classes, faint between fields of one class, and everywhere in
vineyards, whose rows look like boundaries. So what counts is not the value of a pixel: it is by how
much the mean along a straight line through it exceeds the means along the lines beside it, the best
of eight directions, and by how much that exceeds what is usual around it. A line of 21 pixels also
bridges gaps that are shorter than itself. All is computed from whole numbers within `REACH` pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Counts = NDArray[np.int32]

_HALF: Final = 10
"""Pixels of a line on each side of its middle."""

_BESIDE: Final = 4
"""Distance of the lines beside it, in pixels: a margin between fields is narrower."""

_DIRECTIONS: Final = 8
_AROUND: Final = 20
"""What is usual is the mean over a square that reaches this far."""

REACH: Final = _HALF + _BESIDE + _AROUND


def line_strength(boundary: Bytes) -> Bytes:
    """Say how clearly each pixel lies on a line.

    Args:
        boundary: (H, W) probability of a boundary, 0 to 250; beyond its edges it goes on as there.

    Returns:
        (H, W) 0 to 250.
    """
    found = np.zeros(boundary.shape, np.int32)
    for direction in range(_DIRECTIONS):
        np.maximum(found, _contrast(boundary, np.pi * direction / _DIRECTIONS), out=found)
    usual = _box_sums(found)
    side = (2 * _AROUND + 1) ** 2
    strength: Bytes = np.maximum(found - usual // side, 0).astype(np.uint8)
    return strength


def _contrast(boundary: Bytes, angle: float) -> Counts:
    """Compare the mean along a line through each pixel with the larger mean beside it."""
    height, width = boundary.shape
    margin = _HALF + _BESIDE
    padded = np.pad(boundary.astype(np.uint16), margin, mode="edge")
    taps = _taps(angle)
    wide = height + 2 * _BESIDE, width + 2 * _BESIDE
    sums = np.zeros(wide, np.uint16)  # at most 21 * 250
    for row, col in taps:
        sums += padded[row + _HALF :, col + _HALF :][: wide[0], : wide[1]]
    down, right = round(_BESIDE * np.cos(angle)), -round(_BESIDE * np.sin(angle))
    middle, one, other = (
        sums[_BESIDE + step * down :, _BESIDE + step * right :][:height, :width]
        for step in (0, 1, -1)
    )
    contrast: Counts = middle.astype(np.int32) - np.maximum(one, other)
    return contrast // len(taps)


def _taps(angle: float) -> list[tuple[int, int]]:
    """Return (row, col) of the pixels of a line around (0, 0)."""
    places = np.linspace(-_HALF, _HALF, 4 * _HALF + 1)
    rows, cols = np.rint(places * np.sin(angle)), np.rint(places * np.cos(angle))
    return sorted(set(zip(rows.astype(int).tolist(), cols.astype(int).tolist(), strict=True)))


def _box_sums(values: Counts) -> Counts:
    """Sum each pixel's square; whole numbers, so that the answer does not depend on its place."""
    sums = values
    for axis in (0, 1):
        margin = [(0, 0), (0, 0)]
        margin[axis] = (_AROUND + 1, _AROUND)
        running = np.cumsum(np.pad(sums, margin, mode="edge"), axis=axis, dtype=np.int32)
        length = values.shape[axis]
        upper = np.take(running, range(2 * _AROUND + 1, 2 * _AROUND + 1 + length), axis=axis)
        sums = upper - np.take(running, range(length), axis=axis)
    return sums
