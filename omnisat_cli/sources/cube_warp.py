"""Bring a cube of any grid onto the lattice: bilinear values, nearest validity.

Positions are computed exactly for every pixel (no approximated transformer), so a pixel's value
does not depend on the window it was read with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.geo.crs import mover, same_crs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.sources.cube_grid import CubeGrid

_MAX_OVERSAMPLING = 5
"""5 × 5 positions, 2 × 2 pixels each: every pixel counts down to a tenth of the size."""
_EDGE = 1e-6
"""Pixels by which a position may lie outside the grid and still count as on its edge."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Where the pixels of a window fall in a cube, in its pixels; centres are whole numbers.

    Attributes:
        rows: (S, H, W) fractional rows; S sub-positions a pixel.
        cols: (S, H, W) fractional columns.
        inside: (S, H, W) whether the position lies on the cube's pixels.
    """

    rows: NDArray[np.float64]
    cols: NDArray[np.float64]
    inside: NDArray[np.bool_]

    def extent(self, grid: CubeGrid) -> tuple[slice, slice] | None:
        """Rows and columns of the cube that the positions need, or None if they need none."""
        if not self.inside.any():
            return None
        rows, cols = self.rows[self.inside], self.cols[self.inside]
        return (
            slice(max(0, math.floor(rows.min())), min(grid.height, math.floor(rows.max()) + 2)),
            slice(max(0, math.floor(cols.min())), min(grid.width, math.floor(cols.max()) + 2)),
        )


def locate(
    grid: CubeGrid, crs: str, transform: tuple[float, ...], shape: tuple[int, int]
) -> Positions:
    """Find where the pixels of a window fall in a cube.

    Args:
        grid: The cube's grid.
        crs: CRS of the window.
        transform: Affine (a, b, c, d, e, f) of the window, not rotated.
        shape: (H, W) of the window.
    """
    n = _oversampling(grid, crs, transform)
    height, width = shape
    steps = (np.arange(n) + 0.5) / n
    a, _, c, _, e, f = transform
    xs = c + a * (np.arange(width)[None, :] + steps[:, None])  # (n, W)
    ys = f + e * (np.arange(height)[None, :] + steps[:, None])  # (n, H)
    x = np.broadcast_to(xs[None, :, None, :], (n, n, height, width)).reshape(n * n, height, width)
    y = np.broadcast_to(ys[:, None, :, None], (n, n, height, width)).reshape(n * n, height, width)
    if not same_crs(crs, grid.crs):
        x, y = mover(crs, grid.crs).transform(x, y)
    with np.errstate(invalid="ignore"):  # ground that does not exist there comes back infinite
        cols = (np.asarray(x) - grid.left) / grid.dx - 0.5
        rows = (grid.top - np.asarray(y)) / grid.dy - 0.5
        inside = np.isfinite(rows) & np.isfinite(cols)
        for position, size in ((rows, grid.height), (cols, grid.width)):
            inside &= (position >= -0.5 - _EDGE) & (position < size - 0.5 + _EDGE)
    return Positions(rows, cols, inside)


def _oversampling(grid: CubeGrid, crs: str, transform: tuple[float, ...]) -> int:
    """Sub-positions along a pixel's side: finer cubes are averaged, not picked."""
    if not same_crs(crs, grid.crs):
        x0, y0 = grid.left + grid.width / 2 * grid.dx, grid.top - grid.height / 2 * grid.dy
        (xa, xb), (ya, yb) = mover(grid.crs, crs).transform([x0, x0 + grid.dx], [y0, y0])
        pixel = math.hypot(xb - xa, yb - ya)
    else:
        pixel = grid.dx
    ratio = abs(transform[0]) / pixel
    return min(_MAX_OVERSAMPLING, max(1, math.floor(ratio + 0.5)))


def nearest(
    flags: NDArray[np.bool_], at: Positions, extent: tuple[slice, slice]
) -> NDArray[np.float32]:
    """Share of a pixel's sub-positions whose nearest cube pixel is flagged.

    Args:
        flags: (T, h, w) over `extent`.
        at: Positions of a window.
        extent: Rows and columns of the cube that `flags` covers.

    Returns:
        (T, H, W) in 0…1; 0 outside the cube.
    """
    index = _flat(np.rint, at, extent)
    flat = flags.reshape(len(flags), -1)
    share: NDArray[np.float32] = np.zeros((len(flags), *at.rows.shape[1:]), dtype=np.float32)
    for sub, inside in zip(index, at.inside, strict=True):
        share += flat[:, sub.ravel()].reshape(share.shape) & inside
    return (share / len(at.rows)).astype(np.float32)


def bilinear(
    values: NDArray[np.float32],
    good: NDArray[np.bool_],
    at: Positions,
    extent: tuple[slice, slice],
) -> NDArray[np.float32]:
    """Interpolate values, leaving out the pixels that are not good.

    Args:
        values: (T, C, h, w) over `extent`.
        good: (T, h, w) which pixels may contribute.
        at: Positions of a window.
        extent: Rows and columns of the cube that `values` covers.

    Returns:
        (T, C, H, W) float32; 0 where no good pixel is near.
    """
    dates, bands = values.shape[:2]
    shape = at.rows.shape[1:]
    out = np.zeros((dates, bands, *shape), dtype=np.float32)
    taps = [
        (index.ravel(), share.ravel())
        for corner in range(4)
        for index, share in zip(*_corner(at, extent, corner), strict=True)
    ]
    for k in range(dates):  # one date fits the cache of a core, all dates do not
        if good[k].any():
            weights = good[k].ravel().astype(np.float32)
            out[k] = _weighted_mean(values[k].reshape(bands, -1), weights, taps).reshape(
                bands, *shape
            )
    return out


def _weighted_mean(
    values: NDArray[np.float32],
    weights: NDArray[np.float32],
    taps: list[tuple[NDArray[np.intp], NDArray[np.float32]]],
) -> NDArray[np.float32]:
    """Mean of (C, pixels) values under the taps; 0 where their weights add up to nothing."""
    size = len(taps[0][0])
    total = np.zeros((len(values), size), dtype=np.float32)
    weight = np.zeros(size, dtype=np.float32)
    weighted = np.where(weights > 0, values, 0)  # what is not good may be NaN
    for index, share in taps:
        total += weighted.take(index, axis=1) * share
        weight += weights.take(index) * share
    known = weight > 1e-6
    return np.divide(total, weight, out=np.zeros_like(total), where=known)


def _corner(
    at: Positions, extent: tuple[slice, slice], corner: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Index and weight of one of the four pixels around each position."""
    down, right = divmod(corner, 2)
    share = at.inside.astype(np.float64)
    parts = []
    for position, part, far in ((at.rows, extent[0], down), (at.cols, extent[1], right)):
        clean = np.where(at.inside, position, part.start)
        low = np.floor(clean)
        fraction = clean - low
        share *= fraction if far else 1 - fraction
        whole = low.astype(np.intp) + far - part.start
        size = part.stop - part.start
        share *= (whole >= 0) & (whole < size)
        parts.append(np.clip(whole, 0, size - 1))
    width = extent[1].stop - extent[1].start
    return parts[0] * width + parts[1], share.astype(np.float32)


def _flat(rounding: np.ufunc, at: Positions, extent: tuple[slice, slice]) -> NDArray[np.intp]:
    parts = []
    for position, part in ((at.rows, extent[0]), (at.cols, extent[1])):
        clean = np.where(at.inside, position, part.start)
        whole = rounding(clean).astype(np.intp) - part.start
        parts.append(np.clip(whole, 0, part.stop - part.start - 1))
    return np.asarray(parts[0] * (extent[1].stop - extent[1].start) + parts[1], dtype=np.intp)
