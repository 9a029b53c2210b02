"""Random fields that are functions of the seed and of the place alone.

A value depends on integer world coordinates through a hash, never on the order of drawing, so two
windows of one world agree wherever they overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.values import Frame

_MASK = 0xFFFFFFFF
_SPLINE_SD = 151 / 315
"""Standard deviation left by a cubic B-spline filter of white noise, both axes together."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """A frame cut into square pixels.

    Attributes:
        frame: Ground.
        gsd: Side of a pixel in metres; whole pixels fit between the CRS origin and the frame.
    """

    frame: Frame
    gsd: float

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return round(self.frame.height / self.gsd), round(self.frame.width / self.gsd)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Absolute row numbers, growing southwards."""
        return round(-self.frame.top / self.gsd) + np.arange(self.shape[0])

    @property
    def cols(self) -> NDArray[np.int64]:
        """Absolute column numbers."""
        return round(self.frame.left / self.gsd) + np.arange(self.shape[1])

    @property
    def x(self) -> NDArray[np.float64]:
        """(columns,) eastings of the pixel centres."""
        return np.asarray((self.cols + 0.5) * self.gsd, np.float64)

    @property
    def y(self) -> NDArray[np.float64]:
        """(rows,) northings of the pixel centres."""
        return np.asarray(-(self.rows + 0.5) * self.gsd, np.float64)


def _scramble(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Mix the bits of 32-bit numbers (the finaliser of MurmurHash3, public domain)."""
    mixed = values ^ (values >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _number(seed: int, salt: int) -> int:
    """Turn a seed and a purpose into one 32-bit number."""
    word = np.array([(seed * 0x9E3779B1 + salt * 0x7FEB352D + (seed >> 32)) & _MASK], np.uint32)
    return int(_scramble(word)[0])


def uniform_at(seed: int, salt: int, keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return one uniform number in (0, 1) for each integer key, of any shape."""
    words = (keys.astype(np.int64) & _MASK).astype(np.uint32)
    high = (keys.astype(np.int64) >> 32 & _MASK).astype(np.uint32)
    words = words * np.uint32(0x9E3779B1) + np.uint32(_number(seed, salt)) + high
    return _to_unit(_scramble(_scramble(words)))


def normal_at(seed: int, salt: int, keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return one standard normal number for each integer key."""
    return np.asarray(ndtri(uniform_at(seed, salt, keys)), np.float32)


def white(
    seed: int, salt: int, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (rows, cols) independent uniform numbers in (0, 1), one a lattice node."""
    base = np.uint32(_number(seed, salt))
    down = _scramble((rows & _MASK).astype(np.uint32) * np.uint32(0x9E3779B1) + base)
    along = _scramble((cols & _MASK).astype(np.uint32) * np.uint32(0x85EBCA77) + base)
    return _to_unit(_scramble(down[:, None] + along[None, :]))


def smooth(
    seed: int, salt: int, pixels: Pixels, spacing: float, shift: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float32]:
    """Return smooth noise of about unit variance.

    Args:
        seed: World.
        salt: Purpose; two purposes are independent.
        pixels: Where to evaluate it.
        spacing: Distance of the lattice nodes in metres: the correlation length.
        shift: (dx, dy) in metres: the field is evaluated at x + dx, y + dy.

    Returns:
        (rows, columns) float32.
    """
    down, rows, along, cols = _weights(pixels, spacing, shift)
    nodes = ndtri(white(seed, salt, rows, cols)).astype(np.float32)
    return np.asarray(down @ nodes @ along.T / np.float32(_SPLINE_SD))


def fractal(
    seed: int,
    salt: int,
    pixels: Pixels,
    octaves: tuple[tuple[float, float], ...],
    shift: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
    """Return a weighted sum of smooth noises, scaled to unit variance.

    Args:
        seed: World.
        salt: Purpose.
        pixels: Where to evaluate it.
        octaves: (spacing in metres, weight) each.
        shift: As in `smooth`.
    """
    total = np.zeros(pixels.shape, np.float32)
    for index, (spacing, weight) in enumerate(octaves):
        total += np.float32(weight) * smooth(seed, salt + 7919 * index, pixels, spacing, shift)
    return total / np.float32(np.sqrt(sum(weight**2 for _, weight in octaves)))


def _to_unit(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    # 23 bits and a half, so that the float32 is exact and never 0 or 1
    return ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)


@lru_cache(maxsize=64)
def _weights(
    pixels: Pixels, spacing: float, shift: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return weights and node numbers of the rows, then of the columns."""
    return *_spline((-pixels.y - shift[1]) / spacing), *_spline((pixels.x + shift[0]) / spacing)


def _spline(position: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the cubic B-spline weights (n, nodes) of sorted positions, and the node numbers."""
    base = np.floor(position).astype(np.int64)
    t = position - base
    taps = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    first = int(base.min()) - 1
    nodes = np.arange(first, int(base.max()) + 3)
    weights = np.zeros((len(position), len(nodes)), np.float32)
    at = base - 1 - first
    for tap in range(4):
        weights[np.arange(len(position)), at + tap] = taps[:, tap] / 6
    return weights, nodes
