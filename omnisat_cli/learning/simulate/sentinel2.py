"""Sentinel-2 level-2A series of a tile: mixed pixels, clouds, shadows, scene classification.

Source: band widths and native pixels of 10 and 20 m, Drusch et al. 2012 (RSE 120, 25); codes and
limits of the scene classification, Sen2Cor (Main-Knorn et al. 2017, Proc. SPIE 10427): it works at
20 m, misses thin cloud, and takes some bright roofs for cloud; its agreement near cloud edges is
poor (Baetens, Desjardins & Hagolle 2019, Remote Sensing 11, 433).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array
from scipy.special import ndtri

from omnisat_cli.learning.simulate.fields import Pixels, fractal, smooth, white
from omnisat_cli.learning.simulate.legend import ROOFS
from omnisat_cli.learning.simulate.values import CELL_M

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.landscape import Landscape
    from omnisat_cli.learning.simulate.spectra import Reflectance
    from omnisat_cli.learning.simulate.weather import Optical

_COARSE = (3, 4, 5, 7, 8, 9)
"""Positions of the bands that are measured at 20 m."""
_CLOUD_OCTAVES = ((4100.0, 1.0), (1700.0, 0.75), (690.0, 0.5), (270.0, 0.28), (110.0, 0.14))
_CIRRUS_OCTAVES = ((6100.0, 1.0), (2100.0, 0.4), (510.0, 0.15))
_CLOUD = np.array([0.62, 0.61, 0.60, 0.605, 0.61, 0.615, 0.62, 0.625, 0.50, 0.38], np.float32)
_VEIL = np.array([0.20, 0.185, 0.175, 0.17, 0.165, 0.16, 0.155, 0.155, 0.10, 0.07], np.float32)
_SHADE = np.array([0.50, 0.42, 0.36, 0.34, 0.30, 0.29, 0.28, 0.28, 0.24, 0.22], np.float32)
"""Light left in a cloud shadow: the sky still lights the blue."""
_WAVELENGTHS = np.array([0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.842, 0.865, 1.61, 2.19])
_HAZE = (_WAVELENGTHS / 0.49) ** -2.2
NODATA, SHADOW, VEGETATION, BARE, WATER, UNCLASSIFIED = 0, 3, 4, 5, 6, 7
CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS = 8, 9, 10


@dataclass(frozen=True, slots=True)
class Shares:
    """How much of each pixel of 10 m each surface fills.

    Attributes:
        matrix: (pixels, N) sparse; rows sum to 1.
        pixels: The grid, row-major in `matrix`.
    """

    matrix: csr_array
    pixels: Pixels

    def mix(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (rows, columns, …) area means of a value of the surfaces, (N, …)."""
        flat: NDArray[np.float32] = self.matrix @ values.reshape(len(values), -1)
        return flat.reshape(*self.pixels.shape, *values.shape[1:])


def shares(painted: NDArray[np.int32], pixels: Pixels, count: int) -> Shares:
    """Count surfaces in the pixels of 10 m.

    Args:
        painted: (rows, columns) surface numbers at 1 m.
        pixels: The grid of 10 m over the same frame.
        count: Number of surfaces.
    """
    rows, cols = pixels.shape
    grouped = painted.reshape(rows, CELL_M, cols, CELL_M).swapaxes(1, 2).reshape(rows * cols, -1)
    indices = np.ascontiguousarray(grouped).ravel()
    starts = np.arange(0, indices.size + 1, CELL_M * CELL_M)
    weights = np.full(indices.size, 1 / CELL_M**2, np.float32)
    matrix = csr_array((weights, indices, starts), shape=(rows * cols, count))
    matrix.sum_duplicates()
    return Shares(matrix, pixels)


def clear_series(seed: int, parts: Shares, spectra: Reflectance) -> NDArray[np.float32]:
    """Return (T, 10, rows, columns) reflectance without weather or noise."""
    pixels = parts.pixels
    texture = ((13.0, 0.6), (41.0, 0.8), (160.0, 0.6))
    vigour = 0.13 * fractal(seed, 401, pixels, texture)[:, :, None, None]
    soil = 0.10 * fractal(seed, 402, pixels, texture)[:, :, None, None]
    ground = parts.mix(spectra.mean)
    ground += vigour * parts.mix(spectra.vigour)
    ground += soil * parts.mix(spectra.soil)
    series = np.ascontiguousarray(ground.transpose(2, 3, 0, 1))
    return _point_spread(series)


def _point_spread(series: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur as the instrument does; measure six bands at 20 m and spread them over 10 m."""
    blurred = np.asarray(gaussian_filter(series, (0, 0, 0.45, 0.45), mode="nearest", truncate=3))
    dates, _, rows, cols = series.shape
    pairs = blurred[:, _COARSE].reshape(dates, len(_COARSE), rows // 2, 2, cols // 2, 2)
    blurred[:, _COARSE] = _twice(_twice(pairs.mean((3, 5)), 2), 3)  # frames begin at 20 m
    return blurred


def _twice(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Interpolate linearly to half the pixel along one axis."""
    values = np.moveaxis(values, axis, -1)
    padded = np.concatenate([values[..., :1], values, values[..., -1:]], axis=-1)
    fine = np.empty((*values.shape[:-1], 2 * values.shape[-1]), np.float32)
    fine[..., 0::2] = 0.25 * padded[..., :-2] + 0.75 * padded[..., 1:-1]
    fine[..., 1::2] = 0.75 * padded[..., 1:-1] + 0.25 * padded[..., 2:]
    return np.moveaxis(fine, -1, axis)


def observe(
    seed: int, land: Landscape, parts: Shares, clear: NDArray[np.float32], year: Optical
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Add weather, residues of the correction and sensor noise.

    Args:
        seed: World.
        land: N surfaces.
        parts: Their shares of the pixels.
        clear: (T, 10, rows, columns) reflectance.
        year: Acquisitions.

    Returns:
        (T, 10, rows, columns) reflectance × 10 000, at least 1; (T, rows, columns) scene classes.
    """
    pixels = parts.pixels
    series = np.empty(clear.shape, np.uint16)
    classes = np.empty((len(clear), *pixels.shape), np.uint8)
    roofs = parts.mix(np.isin(land.cover, ROOFS).astype(np.float32))
    water = parts.mix((land.classes == 3).astype(np.float32))
    fooled = (roofs > 0.55) & (white(seed, 405, pixels.rows, pixels.cols) < 0.12)
    for t in range(len(clear)):
        cloud, veil, shade = _weather(seed, pixels, year, t)
        ground = clear[t] * float(year.gain[t]) * (1 + 0.02 * smooth(seed, 411 + t, pixels, 900.0))
        ground += (year.haze[t] * _HAZE).astype(np.float32)[:, None, None]
        seen = ground * (1 - shade * (1 - _SHADE[:, None, None]))
        seen = seen * (1 - veil) + _VEIL[:, None, None] * veil
        bright = _CLOUD[:, None, None] * (1 + 0.2 * smooth(seed, 511 + t, pixels, 60.0))
        seen = seen * (1 - cloud) + bright * cloud
        noise = _grain(seed, 611 + t, pixels)
        seen = seen * (1 + 0.012 * noise) + 0.0016 * noise[::-1]
        series[t] = np.clip(np.rint(seen * 1e4), 1, 20_000)
        classes[t] = _classify(seed, pixels, ground, (cloud, veil, shade), t)
        plain = (classes[t] == VEGETATION) | (classes[t] == BARE)
        classes[t][plain & (water > 0.6)] = WATER
        often = white(seed, 1411 + t, pixels.rows, pixels.cols) < 0.8  # by the light of the day
        classes[t][plain & fooled & often] = 8
    return series, classes


def _weather(
    seed: int, pixels: Pixels, year: Optical, t: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return opacity of cloud and of cirrus, and depth of cloud shadow, each (rows, columns)."""
    rng = np.random.default_rng([seed, 406, int(year.days[t])])
    height = rng.uniform(700, 2600)
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * (year.days[t] + 10) / 365)
    low_sun = np.deg2rad(72 - 43 * summer)  # zenith at the overpass, 49° north
    azimuth = np.deg2rad(166 - 18 * summer)
    away = height * np.tan(low_sun) * np.array([np.sin(azimuth), np.cos(azimuth)])
    limit, soft = float(ndtri(1 - year.cover[t])), 0.35
    salt = 4000 + 100 * int(year.days[t])

    def opacity(shift: tuple[float, float]) -> NDArray[np.float32]:
        thick = (fractal(seed, salt, pixels, _CLOUD_OCTAVES, shift) - limit) / soft + 0.5
        return _step(thick)

    cloud = opacity((0.0, 0.0))
    # a shadowed place looks towards the sun at its cloud
    shade = opacity((float(away[0]), float(away[1]))) * (1 - cloud)
    veil = np.zeros_like(cloud)
    if year.cirrus[t] > 0:
        high = fractal(seed, salt + 50, pixels, _CIRRUS_OCTAVES) - ndtri(1 - year.cirrus[t])
        veil = 0.55 * _step(high / 1.6)
    return cloud, veil.astype(np.float32), shade


def _step(values: NDArray[np.float32]) -> NDArray[np.float32]:
    t = np.clip(values, 0, 1)
    return t * t * (3 - 2 * t)


def _grain(seed: int, salt: int, pixels: Pixels) -> NDArray[np.float32]:
    """Return (10, rows, columns) independent standard normal noise."""
    bands = [white(seed, salt * 16 + band, pixels.rows, pixels.cols) for band in range(10)]
    return np.asarray(ndtri(np.stack(bands)), np.float32)


def _classify(
    seed: int,
    pixels: Pixels,
    ground: NDArray[np.float32],
    weather: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    t: int,
) -> NDArray[np.uint8]:
    """Label the pixels as Sen2Cor would, at 20 m, with its mistakes near edges."""
    doubt = 0.16 * smooth(seed, 711 + t, pixels, 45.0)
    # most doubt where a layer is half there
    cloud, veil, shade = (layer + doubt * (0.35 + 2.6 * layer * (1 - layer)) for layer in weather)
    index = (ground[6] - ground[2]) / np.maximum(ground[6] + ground[2], 1e-3)
    label = np.where(index + 0.2 * doubt > 0.38, VEGETATION, BARE)
    label = np.where((np.abs(index - 0.2) < 0.012) & (doubt > 0.1), UNCLASSIFIED, label)
    label = np.where(shade > 0.45, SHADOW, label)
    label = np.where(veil > 0.24, CIRRUS, label)
    label = np.where(cloud > 0.26, CLOUD_MEDIUM, label)
    label = np.where(cloud > 0.68, CLOUD_HIGH, label)
    coarse = label[::2, ::2]
    return coarse.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint8)
