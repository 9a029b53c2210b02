"""Aerial image of a tile: one summer day, R G B NIR as 8-bit numbers.

The colour of every surface is its Sentinel-2 spectrum of the day (bands B04, B03, B02, B08), so the
sensors agree; what is added is what only small pixels show: rows, tramlines, straw swaths, single
crowns, ridges of roofs, cast shadows, lane markings. In July and August ripe wheat and barley and
their stubbles have one spectrum and one texture (the confusion of winter cereals in a single image,
e.g. Garnot & Landrieu 2021, ICCV, and Inglada et al. 2015, Remote Sensing 7, 12356).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from omnisat_cli.learning.simulate.fields import Pixels, smooth, uniform_at, white
from omnisat_cli.learning.simulate.legend import Cover
from omnisat_cli.learning.simulate.relief import Relief, Sun, light, relief

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.landscape import Landscape
    from omnisat_cli.learning.simulate.phenology import Canopy
    from omnisat_cli.learning.simulate.spectra import Reflectance

SHADOW_MARGIN_M = 30
"""Ground around a tile that may throw a shadow into it."""

_BANDS = (2, 1, 0, 6)
_WHITE = (0.34, 0.32, 0.30, 0.62)
"""Reflectance that becomes 255."""
_TONE = 1 / 1.7
_SKY = (0.30, 0.34, 0.42, 0.22)
"""Share of the light that shadows keep."""


@dataclass(frozen=True, slots=True)
class _Grain:
    """Texture of a cover.

    Attributes:
        speck: Pixel-to-pixel brightness, relative.
        clump: Density at 1.3 m, in logarithms of leaf area.
        patch: Density at 9 and 45 m.
        row: Distance of plant rows in metres, 0 for none.
        contrast: Density contrast of the rows.
        tramlines: Whether sprayer tracks show.
        height: Of the grown crop, metres.
    """

    speck: float
    clump: float
    patch: float
    row: float = 0.0
    contrast: float = 0.0
    tramlines: bool = False
    height: float = 0.0


_GRAINS: dict[Cover, _Grain] = {
    Cover.TILE_ROOF: _Grain(0.07, 0, 0),
    Cover.SLATE_ROOF: _Grain(0.05, 0, 0),
    Cover.METAL_ROOF: _Grain(0.03, 0, 0),
    Cover.ASPHALT: _Grain(0.045, 0, 0),
    Cover.GRAVEL: _Grain(0.09, 0, 0),
    Cover.WATER: _Grain(0.05, 0, 0),
    Cover.DECIDUOUS: _Grain(0.12, 0.3, 0.1),
    Cover.CONIFER: _Grain(0.12, 0.3, 0.1),
    Cover.LAWN: _Grain(0.06, 0.30, 0.25),
    Cover.MEADOW: _Grain(0.05, 0.22, 0.24),
    Cover.WHEAT: _Grain(0.03, 0.09, 0.14, tramlines=True, height=0.8),
    Cover.BARLEY: _Grain(0.03, 0.09, 0.14, tramlines=True, height=0.8),
    Cover.RAPESEED: _Grain(0.045, 0.16, 0.16, tramlines=True, height=1.3),
    Cover.MAIZE: _Grain(0.045, 0.14, 0.16, row=0.75, contrast=0.9, height=2.2),
    Cover.SUNFLOWER: _Grain(0.05, 0.18, 0.18, row=0.60, contrast=0.9, height=1.5),
    Cover.BEET: _Grain(0.045, 0.14, 0.18, row=0.50, contrast=0.8, tramlines=True, height=0.4),
    Cover.VINE: _Grain(0.05, 0.25, 0.15, row=2.0, contrast=1.5, height=0.6),
    Cover.ORCHARD: _Grain(0.07, 0.30, 0.12),
}


def _column(name: str) -> NDArray[np.float32]:
    return np.array([float(getattr(_GRAINS[cover], name)) for cover in Cover], np.float32)


@dataclass(frozen=True, slots=True)
class Flight:
    """The day of the survey: its light and the state of the fields.

    Attributes:
        seed: World.
        sun: Where the sun stands.
        spectra: (N, 1, 10) reflectance of the surfaces.
        state: (N, 1) canopies.
    """

    seed: int
    sun: Sun
    spectra: Reflectance
    state: Canopy


def flight_sun(seed: int) -> Sun:
    """Draw the hour of the flight: a high sun, within three hours of noon."""
    rng = np.random.default_rng([seed, 901])
    return Sun(float(np.deg2rad(rng.uniform(46, 60))), float(np.deg2rad(rng.uniform(140, 225))))


def photograph(land: Landscape, pixels: Pixels, flight: Flight) -> NDArray[np.uint8]:
    """Render (4, rows, columns) 8-bit R, G, B, NIR."""
    seed = flight.seed
    painted = land.painted(pixels)
    grown = np.clip((flight.state.green + flight.state.dry)[:, 0] / 3.0, 0, 1)
    tall = (_column("height")[land.cover] * grown).astype(np.float32)
    ground = relief(seed, land, painted, pixels, tall)
    density, soil = _texture(land, painted, pixels, flight)
    ground = _plant_orchards(seed, land, painted, pixels, (ground, density))
    shine = light(ground, pixels, flight.sun)
    speck = ndtri(white(seed, 911, pixels.rows, pixels.cols)).astype(np.float32)
    tone = ground.tone * (1 + _column("speck")[land.cover][painted] * speck)
    tone *= 1 + 0.05 * smooth(seed, 912, pixels, 1400.0)  # light falls off across the strip
    marks = land.marked(pixels) * np.float32(min(1.0, 0.16 / pixels.gsd))
    layers = []
    for index, band in enumerate(_BANDS):
        colour = flight.spectra.mean[:, 0, band][painted]
        colour += flight.spectra.vigour[:, 0, band][painted] * density
        colour += flight.spectra.soil[:, 0, band][painted] * soil
        colour += (0.42 - colour) * marks
        lit = _SKY[index] + (1 - _SKY[index]) * shine
        layers.append(_develop(seed, pixels, np.maximum(colour, 0.008) * tone * lit, index))
    return np.stack(layers)


def _develop(
    seed: int, pixels: Pixels, colour: NDArray[np.float32], index: int
) -> NDArray[np.uint8]:
    """Blur by the optics, stretch to 8 bits, add noise."""
    sharp = gaussian_filter(colour, 0.45, truncate=4)
    number = 255 * np.clip(sharp / _WHITE[index], 0, 1) ** _TONE
    noise = 3.0 * (white(seed, 920 + index, pixels.rows, pixels.cols) - 0.5)
    return np.asarray(np.clip(np.rint(number + noise), 1, 255), np.uint8)


def _texture(
    land: Landscape, painted: NDArray[np.int32], pixels: Pixels, flight: Flight
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the density of the canopy and the paleness of the soil, logarithms around 0."""
    seed = flight.seed
    coarse = 0.6 * smooth(seed, 931, pixels, 9.0) + 0.8 * smooth(seed, 932, pixels, 45.0)
    fine = smooth(seed, 933, pixels, 1.3)
    cover = land.cover[painted]
    density = _column("patch")[cover] * coarse + _column("clump")[cover] * fine
    soil = 0.07 * fine + 0.10 * smooth(seed, 934, pixels, 60.0)
    _draw_rows(land, painted, pixels, flight, (density, soil))
    return density, soil


def _draw_rows(
    land: Landscape,
    painted: NDArray[np.int32],
    pixels: Pixels,
    flight: Flight,
    layers: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Add plant rows, passes of the seeder, tramlines and straw swaths, in place."""
    density, soil = layers
    rows, cols = np.nonzero((land.parcel > 0)[painted])
    of = painted[rows, cols]
    x = (pixels.x[cols] - land.centre[of, 0]).astype(np.float32)
    y = (pixels.y[rows] - land.centre[of, 1]).astype(np.float32)
    angle = land.angle.astype(np.float32)
    across = -np.sin(angle)[of] * x + np.cos(angle)[of] * y
    draw = uniform_at(flight.seed, 941, land.key)
    space = _column("row")[land.cover]
    space = np.where(land.cover == Cover.VINE, 1.4 + 1.2 * draw, space)
    # a pixel that is wide against the rows averages them out
    seen = np.sinc(pixels.gsd / np.maximum(space, 0.01)).clip(0) * (space > 0)
    contrast = (_column("contrast")[land.cover] * seen).astype(np.float32)
    wave = np.cos(2 * np.pi * across / np.maximum(space, 0.01)[of].astype(np.float32))
    passes = np.floor(across / 3.0).astype(np.int64) + land.key[of] * 4096
    change = contrast[of] * wave + 0.16 * (uniform_at(flight.seed, 942, passes) - 0.5)
    stands = (flight.state.green + flight.state.dry)[:, 0] > 0.2
    tracks = _column("tramlines")[land.cover] * stands.astype(np.float32)
    reach = np.where(draw < 0.5, 12.0, 18.0).astype(np.float32)[of]
    beside = np.abs(np.abs((across + reach) % (2 * reach) - reach) - 0.9)
    wide = max(0.28, 0.6 * pixels.gsd)
    change -= tracks[of] * (0.28 / wide) * 1.6 * np.exp(-0.5 * (beside / wide) ** 2)
    density[rows, cols] += change.astype(np.float32)
    baled = uniform_at(flight.seed, 943, land.key) < 0.45
    straw = ((flight.state.straw[:, 0] > 0.3) & ~baled).astype(np.float32)
    header = np.where(draw < 0.5, 6.0, 8.0).astype(np.float32)[of]
    swath = np.exp(-0.5 * ((across % header - header / 2) / max(0.7, pixels.gsd)) ** 2)
    soil[rows, cols] += (straw[of] * 0.28 * (swath - 0.2)).astype(np.float32)


def _plant_orchards(
    seed: int,
    land: Landscape,
    painted: NDArray[np.int32],
    pixels: Pixels,
    layers: tuple[Relief, NDArray[np.float32]],
) -> Relief:
    """Stand fruit trees on a lattice along the rows; return the relief with them."""
    ground, density = layers
    rows, cols = np.nonzero((land.cover == Cover.ORCHARD)[painted])
    if not len(rows):
        return ground
    of = painted[rows, cols]
    x, y = pixels.x[cols] - land.centre[of, 0], pixels.y[rows] - land.centre[of, 1]
    c, s = np.cos(land.angle)[of], np.sin(land.angle)[of]
    step = (4.0 + 2.5 * uniform_at(seed, 951, land.key))[of]
    along, across = (c * x + s * y) / (0.8 * step), (-s * x + c * y) / step
    number = (np.floor(along).astype(np.int64) << 16) + np.floor(across).astype(np.int64)
    size = 0.30 + 0.14 * uniform_at(seed, 952, number + land.key[of])
    dx = (along - np.floor(along) - 0.5) * 0.8
    dy = across - np.floor(across) - 0.5
    squared = (dx**2 + dy**2) / size**2
    inside = squared < 1
    height = ground.height.copy()
    height[rows, cols] = np.where(inside, 3.8 * (1 - 0.5 * squared), 0.1)
    density[rows, cols] += np.where(inside, 0.9, -0.5)
    return Relief(height, ground.tone)
