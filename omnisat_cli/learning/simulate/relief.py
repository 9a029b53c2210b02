"""Heights of what stands on the ground, and the light that falls on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from omnisat_cli.learning.simulate.fields import Pixels, white
from omnisat_cli.learning.simulate.legend import Cover

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.landscape import Landscape
    from omnisat_cli.learning.simulate.layout import House

_STANDS: dict[Cover, tuple[float, float]] = {
    # spacing of crowns, height of the tops (m)
    Cover.DECIDUOUS: (6.5, 17.0),
    Cover.CONIFER: (4.2, 19.0),
}
TALLEST_M = 20.0
"""Nothing stands higher."""


@dataclass(frozen=True, slots=True)
class Sun:
    """Direction of the sun: elevation and azimuth (clockwise from north), radians."""

    elevation: float
    azimuth: float

    @property
    def towards(self) -> tuple[float, float]:
        """Unit step (east, north) on the ground towards the sun."""
        return float(np.sin(self.azimuth)), float(np.cos(self.azimuth))


@dataclass(frozen=True, slots=True)
class Relief:
    """Surface heights.

    Attributes:
        height: (rows, columns) metres above the ground.
        tone: (rows, columns) brightness of single crowns and roofs, around 1.
    """

    height: NDArray[np.float32]
    tone: NDArray[np.float32]


def relief(
    seed: int,
    land: Landscape,
    painted: NDArray[np.int32],
    pixels: Pixels,
    tall: NDArray[np.float32],
) -> Relief:
    """Raise woods, hedges, trees, buildings and high crops.

    Args:
        seed: World.
        land: N surfaces.
        painted: (rows, columns) surface numbers.
        pixels: The grid.
        tall: (N,) heights of the crops on the day.
    """
    height = tall[painted]
    tone = np.ones(pixels.shape, np.float32)
    cover = land.cover[painted]
    for kind, (spacing, top) in _STANDS.items():
        wood = cover == kind
        if wood.any():
            _raise_wood(seed, pixels, wood, (spacing, top), (height, tone))
    for crown in land.crowns:
        spot = _spot(pixels, crown.x, crown.y, crown.radius)
        if spot is None:
            continue
        part, x, y = spot
        squared = (x**2 + y**2) / crown.radius**2
        top = min(crown.height, TALLEST_M)
        dome = np.where(squared < 1, top * (1 - 0.55 * squared), 0.0)
        height[part] = np.where(squared < 1, dome, height[part])
    for house in land.houses:
        _raise_house(pixels, house, height)
    return Relief(height.astype(np.float32), tone)


def _spot(
    pixels: Pixels, x: float, y: float, reach: float
) -> tuple[tuple[slice, slice], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the pixels within `reach` of a place, and their offsets from it in metres."""
    left, top = (x - pixels.frame.left) / pixels.gsd, (pixels.frame.top - y) / pixels.gsd
    span = reach / pixels.gsd + 1
    rows = slice(max(0, int(top - span)), max(0, min(pixels.shape[0], int(top + span) + 1)))
    cols = slice(max(0, int(left - span)), max(0, min(pixels.shape[1], int(left + span) + 1)))
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return None
    return (rows, cols), (pixels.x[cols] - x)[None, :], (pixels.y[rows] - y)[:, None]


def _raise_house(pixels: Pixels, house: House, height: NDArray[np.float32]) -> None:
    """Set the heights of a gabled roof, in place."""
    spot = _spot(pixels, house.x, house.y, (house.length + house.width) / 2)
    if spot is None:
        return
    part, x, y = spot
    c, s = np.cos(house.angle), np.sin(house.angle)
    along, across = np.abs(c * x + s * y), np.abs(-s * x + c * y)
    inside = (along <= house.length / 2) & (across <= house.width / 2)
    roof = house.eave + house.pitch * (house.width / 2 - across)
    height[part] = np.where(inside, roof, height[part])


def _raise_wood(
    seed: int,
    pixels: Pixels,
    wood: NDArray[np.bool_],
    stand: tuple[float, float],
    layers: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Fill a wood with crowns on a jittered lattice: heights and tones, in place."""
    spacing, top = stand
    height, tone = layers
    rows, cols = np.nonzero(wood)
    x = (pixels.x[cols] / spacing).astype(np.float64)
    y = (-pixels.y[rows] / spacing).astype(np.float64)
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    first_row, first_col = int(row.min()) - 1, int(column.min()) - 1
    span = np.arange(first_row, row.max() + 2), np.arange(first_col, column.max() + 2)
    salt = 1200 + int(10 * spacing)
    draw = [white(seed, salt + n, *span) for n in range(4)]
    best, best_tone = np.full(len(rows), 0.3 * top, np.float32), np.ones(len(rows), np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            at = (row + down - first_row, column + right - first_col)
            dx = x - (column + right + 0.15 + 0.7 * draw[0][at])
            dy = y - (row + down + 0.15 + 0.7 * draw[1][at])
            radius = 0.62 + 0.32 * draw[2][at]
            dome = top * (0.7 + 0.3 * draw[2][at]) * (1 - 0.5 * (dx**2 + dy**2) / radius**2)
            higher = dome > best
            best = np.where(higher, dome, best).astype(np.float32)
            best_tone = np.where(higher, 0.82 + 0.36 * draw[3][at], best_tone)
    height[rows, cols], tone[rows, cols] = best, best_tone


def light(ground: Relief, pixels: Pixels, sun: Sun) -> NDArray[np.float32]:
    """Return the direct light on every pixel, 1 on open flat ground, 0 in full shadow."""
    rough = gaussian_filter(ground.height, 0.5)
    down, right = np.gradient(rough, pixels.gsd)
    slope_east, slope_north = np.clip(right, -2.5, 2.5), np.clip(-down, -2.5, 2.5)
    east, north = sun.towards
    flat = 1 / np.tan(sun.elevation)
    facing = (1 - flat * (slope_east * east + slope_north * north)) / np.sqrt(
        1 + slope_east**2 + slope_north**2
    )
    shadow = uniform_filter(_shadow(ground.height, pixels, sun).astype(np.float32), 2)
    return np.asarray(np.clip(facing, 0, 1.5) * (1 - shadow), np.float32)


def _shadow(height: NDArray[np.float32], pixels: Pixels, sun: Sun) -> NDArray[np.bool_]:
    """Walk towards the sun and look for something higher than the ray."""
    east, north = sun.towards
    climb = float(np.tan(sun.elevation)) * pixels.gsd
    dark = np.zeros(height.shape, bool)
    for step in range(1, int(min(float(height.max()), TALLEST_M) / climb) + 1):
        right, down = round(step * east), round(-step * north)
        here, there = _overlap(height.shape, down, right)
        dark[here] |= height[there] > height[here] + step * climb
    return dark


def _overlap(
    shape: tuple[int, ...], down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of pixels and of the pixels (down, right) of them."""
    rows = slice(max(0, -down), shape[0] - max(0, down))
    cols = slice(max(0, -right), shape[1] - max(0, right))
    moved = (
        slice(rows.start + down, rows.stop + down),
        slice(cols.start + right, cols.stop + right),
    )
    return (rows, cols), moved
