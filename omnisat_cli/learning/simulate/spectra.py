"""Reflectance of covers in the ten Sentinel-2 bands.

A canopy of leaf area L over a ground of reflectance s has R = v + (s - v) exp(-k L), where v is the
reflectance of an endless canopy: the semi-empirical form of Baret & Guyot 1991 (RSE 35, 161), one
k a band (chlorophyll and water bands close sooner than the near infrared). The end spectra are
rounded values of the shape that published libraries show, ECOSTRESS/ASTER (Baldridge et al. 2009,
RSE 113, 711: soils, roofs, asphalt), USGS splib07 (Kokaly et al. 2017: conifer and deciduous
foliage, dry grass) and, for crops, what PROSAIL gives for usual chlorophyll (Jacquemoud et al.
2009, RSE 113, S56). Rapeseed in flower: Sulik & Long 2016 (RSE 184, 161): green and red rise,
blue does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.learning.simulate.fields import normal_at, uniform_at
from omnisat_cli.learning.simulate.legend import Cover

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.landscape import Landscape
    from omnisat_cli.learning.simulate.phenology import Canopy

# bands: B02 B03 B04 B05 B06 B07 B08 B8A B11 B12
_CLOSURE = np.array([0.75, 0.66, 0.75, 0.66, 0.46, 0.42, 0.42, 0.42, 0.58, 0.66])
"""Extinction k of each band for a unit of leaf area."""
_DRY = np.array([0.085, 0.130, 0.180, 0.205, 0.230, 0.250, 0.270, 0.290, 0.330, 0.230])
_STRAW = np.array([0.110, 0.155, 0.205, 0.235, 0.260, 0.280, 0.300, 0.320, 0.390, 0.310])
_DARK_SOIL = np.array([0.048, 0.066, 0.088, 0.102, 0.115, 0.127, 0.140, 0.152, 0.215, 0.185])
_PALE_SOIL = np.array([0.105, 0.145, 0.192, 0.215, 0.236, 0.255, 0.275, 0.292, 0.375, 0.335])
_LITTER = np.array([0.034, 0.048, 0.066, 0.083, 0.115, 0.135, 0.158, 0.178, 0.215, 0.150])
_RAPE_FLOWER = np.array([0.045, 0.155, 0.145, 0.215, 0.385, 0.460, 0.480, 0.490, 0.235, 0.115])
_PALE_FLOWER = np.array([0.140, 0.200, 0.190, 0.240, 0.380, 0.430, 0.450, 0.460, 0.240, 0.120])

_ENDLESS: dict[Cover, list[float]] = {
    Cover.DECIDUOUS: [0.019, 0.038, 0.020, 0.070, 0.265, 0.350, 0.370, 0.390, 0.165, 0.068],
    Cover.CONIFER: [0.016, 0.027, 0.017, 0.043, 0.125, 0.165, 0.180, 0.192, 0.083, 0.036],
    Cover.LAWN: [0.030, 0.064, 0.037, 0.105, 0.300, 0.375, 0.395, 0.415, 0.225, 0.112],
    Cover.MEADOW: [0.028, 0.064, 0.034, 0.102, 0.320, 0.405, 0.425, 0.445, 0.225, 0.108],
    Cover.WHEAT: [0.023, 0.050, 0.025, 0.082, 0.310, 0.415, 0.435, 0.455, 0.195, 0.085],
    Cover.BARLEY: [0.024, 0.054, 0.028, 0.089, 0.320, 0.420, 0.440, 0.460, 0.205, 0.092],
    Cover.RAPESEED: [0.025, 0.062, 0.027, 0.098, 0.365, 0.475, 0.495, 0.510, 0.220, 0.098],
    Cover.MAIZE: [0.025, 0.058, 0.028, 0.098, 0.345, 0.445, 0.470, 0.490, 0.205, 0.090],
    Cover.SUNFLOWER: [0.028, 0.068, 0.033, 0.112, 0.375, 0.475, 0.495, 0.515, 0.225, 0.105],
    Cover.BEET: [0.024, 0.068, 0.028, 0.110, 0.400, 0.520, 0.545, 0.560, 0.215, 0.095],
    Cover.VINE: [0.026, 0.060, 0.032, 0.098, 0.310, 0.390, 0.410, 0.430, 0.215, 0.105],
    Cover.ORCHARD: [0.024, 0.050, 0.028, 0.085, 0.285, 0.365, 0.385, 0.405, 0.190, 0.085],
}
_SEALED: dict[Cover, list[float]] = {
    Cover.TILE_ROOF: [0.085, 0.112, 0.205, 0.235, 0.258, 0.272, 0.285, 0.298, 0.355, 0.325],
    Cover.SLATE_ROOF: [0.088, 0.094, 0.098, 0.102, 0.108, 0.112, 0.117, 0.120, 0.140, 0.142],
    Cover.METAL_ROOF: [0.330, 0.345, 0.350, 0.352, 0.355, 0.358, 0.360, 0.362, 0.370, 0.340],
    Cover.ASPHALT: [0.098, 0.110, 0.120, 0.125, 0.130, 0.135, 0.140, 0.146, 0.172, 0.162],
    Cover.GRAVEL: [0.165, 0.200, 0.235, 0.250, 0.262, 0.272, 0.285, 0.295, 0.345, 0.320],
    Cover.WATER: [0.042, 0.050, 0.034, 0.028, 0.020, 0.018, 0.016, 0.014, 0.007, 0.005],
}
_TABLE = np.array([(_ENDLESS | _SEALED)[cover] for cover in Cover])
_SEALED_COVERS = np.array([int(cover) for cover in _SEALED])
_LEAF_NOISE = np.array([0.10, 0.08, 0.12, 0.08, 0.06, 0.06, 0.06, 0.06, 0.09, 0.12])


@dataclass(frozen=True, slots=True)
class Reflectance:
    """Spectra of N surfaces on T days.

    Attributes:
        mean: (N, T, 10) reflectance.
        vigour: (N, T, 10) change of it where the canopy is denser by a factor e.
        soil: (N, T, 10) change of it where the bare ground is paler by a factor e.
    """

    mean: NDArray[np.float32]
    vigour: NDArray[np.float32]
    soil: NDArray[np.float32]


def reflectance(
    seed: int, land: Landscape, state: Canopy, wetness: NDArray[np.float64]
) -> Reflectance:
    """Mix the spectra of every surface.

    Args:
        seed: World.
        land: N surfaces.
        state: Their canopies on T days.
        wetness: (T,) moisture of the top soil, 0 to 1.
    """
    endless = _endless(seed, land)[:, None, :]
    ground = _ground(seed, land, state, wetness)
    mean = _canopy(land, state, endless, ground, 1.0)
    denser = _canopy(land, state, endless, ground, 1.2)
    paler = _canopy(land, state, endless, ground * 1.2, 1.0)
    step = np.float32(1 / np.log(1.2))
    sealed = np.isin(land.cover, _SEALED_COVERS)
    mean[sealed] = endless[sealed]
    vigour, soil = (denser - mean) * step, (paler - mean) * step
    vigour[sealed], soil[sealed] = 0, 0
    return Reflectance(mean, vigour, soil)


def _endless(seed: int, land: Landscape) -> NDArray[np.float32]:
    """Return (N, 10): the closed canopy or the sealed surface, each a little its own."""
    bands = np.arange(len(_LEAF_NOISE))
    own = normal_at(seed, 301, land.key[:, None] * 16 + bands)
    common = normal_at(seed, 302, land.key)[:, None]
    spread = np.where(np.isin(land.cover, _SEALED_COVERS)[:, None], 0.2, 0.55)
    changed = _TABLE[land.cover] * np.exp(
        spread * _LEAF_NOISE * (0.5 * own + common) + 0.4 * spread * 0.2 * common
    )
    return np.asarray(changed, np.float32)


def _ground(
    seed: int, land: Landscape, state: Canopy, wetness: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return (N, T, 10): soil between dark and pale, darker when wet, under straw or litter.

    Source: wet soils lose up to half their reflectance, more in the short-wave infrared (Lobell
    & Asner 2002, Soil Sci. Soc. Am. J. 66, 722).
    """
    phase = land.centre @ (2 * np.pi / np.array([[2700.0, 1900.0], [-1700.0, 2300.0]]))
    place = 0.5 + 0.25 * (np.sin(phase[:, 0] + seed) + np.sin(phase[:, 1] + 2 * seed))
    pale = np.clip(0.7 * place + 0.3 * uniform_at(seed, 303, land.key), 0, 1)[:, None]
    dry = pale * _PALE_SOIL + (1 - pale) * _DARK_SOIL
    damp = 1 - wetness[:, None] * np.linspace(0.30, 0.42, 10)
    soil = dry[:, None, :] * damp
    straw = state.straw[:, :, None]
    wooded = np.isin(land.cover, (Cover.DECIDUOUS, Cover.CONIFER))[:, None, None]
    cover = np.where(wooded, _LITTER, _STRAW) * (1 - 0.15 * wetness[:, None])
    return np.asarray(soil * (1 - straw) + cover * straw, np.float32)


def _canopy(
    land: Landscape,
    state: Canopy,
    endless: NDArray[np.float32],
    ground: NDArray[np.float32],
    factor: float,
) -> NDArray[np.float32]:
    total = (state.green + state.dry) * factor
    share = (state.dry * factor / np.maximum(total, 1e-6))[:, :, None].astype(np.float32)
    flower = state.flower[:, :, None].astype(np.float32)
    wooded = np.isin(land.cover, (Cover.DECIDUOUS, Cover.CONIFER))[:, None, None]
    dead = np.where(wooded, _LITTER, _DRY).astype(np.float32)
    yellow = (land.cover == Cover.RAPESEED) | (land.cover == Cover.SUNFLOWER)
    petals = np.where(yellow[:, None, None], _RAPE_FLOWER, _PALE_FLOWER).astype(np.float32)
    full = endless * (1 - share) + dead * share
    full = full * (1 - flower) + petals * flower
    through = np.exp(-total[:, :, None].astype(np.float32) * _CLOSURE.astype(np.float32))
    return full + (ground - full) * through
