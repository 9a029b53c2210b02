"""Neighbouring fields of one class as parcels of their own, from a map of boundaries.

The inside of a field is where no boundary is near. It grows back over the boundary, lowest values
first, a fixed number of steps; a pixel that several fields reach in one step goes to the one above,
then left, right, below. What a pixel becomes follows from `REACH` pixels around it, so the parcels
do not depend on how the map is cut into strips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.prediction import MAX_SCALED, NONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.regions import Integers, Mask

_EDGE: Final = MAX_SCALED // 4
"""Boundary value from which a pixel is no inside of a field. Networks are rarely sure of a line two
pixels wide; of 40, 62, 75, 100 and 125 this one agreed best with a simulated scene."""

_LIMITS: Final = (_EDGE, _EDGE + 40, _EDGE + 80, MAX_SCALED + 1)
_STEPS: Final = 4
REACH: Final = 2 + _STEPS * len(_LIMITS)
"""Rows above and below that decide what a row becomes."""


def field_links(codes: NDArray[np.uint8], boundary: NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Say which neighbouring pixels lie in one field.

    Args:
        codes: (H, W) class codes, 255 = none.
        boundary: (H, W) probability of a boundary, 0 to 250; 255 = none, taken for no boundary.

    Returns:
        (H, W - 1), whether a pixel and the one right of it belong together, and (H, W), whether a
        pixel and the one above it do; the first row has none above.
    """
    ground = _Ground(codes, np.where(boundary == NONE, 0, boundary))
    inside = ground.inside()
    right, down = ground.pairs(inside)
    inside = ground.grow(inside, right, down)
    rest_right, rest_down = ground.pairs(ground.real & ~inside)
    height, width = codes.shape
    shape = (height + 2, width + 2)
    right, down = (right | rest_right).reshape(shape), (down | rest_down).reshape(shape)
    return right[1:-1, 1:-2], down[1:-1, 1:-1]


class _Ground:
    """Classes and boundaries with a frame of no class around them, as flat arrays.

    Args:
        codes: (H, W) class codes.
        boundary: (H, W) probability of a boundary.
    """

    def __init__(self, codes: NDArray[np.uint8], boundary: NDArray[np.uint8]) -> None:
        self._codes = np.pad(codes, 1, constant_values=NODATA).ravel()
        self._boundary = np.pad(boundary, 1).ravel()
        self._width = codes.shape[1] + 2
        self.real: Mask = self._codes != NODATA

    def inside(self) -> Mask:
        """Return the pixels with no boundary on them or, within their class, beside them."""
        free: Mask = self.real & (self._boundary < _EDGE)
        width = self._width
        places = np.flatnonzero(free)
        found = free.copy()
        for step in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
            beside = places + step
            same = self._codes[beside] == self._codes[places]
            found[places[same & ~free[beside]]] = False
        return found

    def pairs(self, mask: Mask) -> tuple[Mask, Mask]:
        """Return where a pixel and the one right of it, or above it, are both in a mask.

        Only pixels of one class are paired.
        """
        right, down = np.zeros_like(mask), np.zeros_like(mask)
        codes, width = self._codes, self._width
        right[:-1] = mask[:-1] & mask[1:] & (codes[:-1] == codes[1:])
        down[width:] = mask[width:] & mask[:-width] & (codes[width:] == codes[:-width])
        return right, down

    def grow(self, inside: Mask, right: Mask, down: Mask) -> Mask:
        """Let fields grow over the pixels around them.

        Args:
            inside: Pixels that belong to a field.
            right: Pairs of a pixel and the one right of it; new ones are added.
            down: Pairs of a pixel and the one above it; new ones are added.

        Returns:
            The pixels that belong to a field now.
        """
        inside = inside.copy()
        waiting = np.flatnonzero(self.real & ~inside)
        for limit in np.repeat(_LIMITS, _STEPS):
            open_now = self._boundary[waiting] < limit
            source = self._source(waiting, inside)
            taken = open_now & (source != 0)
            pixels, steps = waiting[taken], source[taken]
            right[pixels[steps == -1] - 1] = True
            right[pixels[steps == 1]] = True
            down[pixels[steps == -self._width]] = True
            down[pixels[steps == self._width] + self._width] = True
            inside[pixels] = True
            waiting = waiting[~taken]
        return inside

    def _source(self, places: Integers, inside: Mask) -> Integers:
        """Return the step to the field each pixel joins; 0 where none is beside it."""
        source = np.zeros(len(places), np.int64)
        for step in (self._width, 1, -1, -self._width):  # the last one wins: above
            beside = places + step
            source[inside[beside] & (self._codes[beside] == self._codes[places])] = step
        return source
