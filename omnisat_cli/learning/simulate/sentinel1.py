"""Sentinel-1 backscatter of a tile: VV and VH in dB, two orbits, correlated speckle.

Every crop follows a curve through its stages. The values are read from published profiles:
Veloso et al. 2017 (RSE 199, 415): winter cereals fall in VV and VH from stem elongation to heading,
by attenuation in vertical stems, rapeseed is high with its pods, maize and sunflower rise with
their leaves; Vreugdenhil et al. 2018 (Remote Sensing 10, 1396): VH/VV follows vegetation water;
Khabbazan et al. 2019 (Remote Sensing 11, 1887): sugar beet rises in June and stays; Harfenmeister,
Spengler & Weltzien 2019 (Remote Sensing 11, 1569) and Arias, Campo-Bescós & Álvarez-Mozos 2020
(Remote Sensing 12, 278): barley rises again after heading, wheat later and less; Frison et al. 2018
(Remote Sensing 10, 2049): temperate forest, VH lower and VV higher in leaf. Soil moisture adds up
to some 4 dB to bare soil and fades under the canopy (Attema & Ulaby 1978, Radio Science 13, 357).
Speckle: equivalent number of looks 4.4 (IW) as the product definition of level-1 GRD gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import correlate1d
from scipy.stats import gamma

from omnisat_cli.learning.simulate.fields import normal_at, smooth, white
from omnisat_cli.learning.simulate.legend import ANNUAL_CROPS, ROOFS, Cover

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.landscape import Landscape
    from omnisat_cli.learning.simulate.phenology import Calendar, Canopy
    from omnisat_cli.learning.simulate.sentinel2 import Shares
    from omnisat_cli.learning.simulate.weather import Radar

_STAGES: dict[Cover, list[tuple[float, float]]] = {
    # (VV, VH) dB at: emergence, start of growth, mid growth, full canopy, senescence, harvest
    Cover.WHEAT: [
        (-10.8, -18.4),
        (-10.6, -18.0),
        (-13.2, -20.0),
        (-15.6, -21.0),
        (-13.4, -18.8),
        (-11.8, -18.0),
    ],
    Cover.BARLEY: [
        (-10.8, -18.2),
        (-10.6, -17.6),
        (-13.4, -19.8),
        (-14.8, -19.2),
        (-11.6, -15.9),
        (-11.2, -16.6),
    ],
    Cover.RAPESEED: [
        (-11.0, -17.8),
        (-11.0, -16.4),
        (-10.6, -15.0),
        (-11.6, -14.4),
        (-9.6, -12.4),
        (-11.2, -15.0),
    ],
    Cover.MAIZE: [
        (-11.4, -19.6),
        (-10.6, -18.6),
        (-9.2, -15.8),
        (-8.9, -14.0),
        (-10.0, -15.0),
        (-11.0, -16.4),
    ],
    Cover.SUNFLOWER: [
        (-11.4, -19.6),
        (-10.6, -18.8),
        (-8.6, -15.2),
        (-7.9, -13.8),
        (-10.4, -15.8),
        (-11.6, -17.6),
    ],
    Cover.BEET: [
        (-11.0, -19.4),
        (-10.2, -18.2),
        (-8.6, -14.6),
        (-7.9, -12.9),
        (-8.3, -13.0),
        (-8.8, -13.4),
    ],
}
_STEADY: dict[Cover, tuple[float, float]] = {
    Cover.TILE_ROOF: (-5.5, -13.5),
    Cover.SLATE_ROOF: (-5.5, -13.5),
    Cover.METAL_ROOF: (-4.5, -13.0),
    Cover.ASPHALT: (-15.5, -23.5),
    Cover.GRAVEL: (-12.5, -20.5),
    Cover.WATER: (-20.0, -27.0),
    Cover.DECIDUOUS: (-9.3, -14.2),
    Cover.CONIFER: (-9.8, -15.0),
    Cover.LAWN: (-11.8, -18.6),
    Cover.MEADOW: (-12.0, -19.0),
    Cover.VINE: (-10.6, -17.2),
    Cover.ORCHARD: (-9.6, -15.3),
}
_SOIL_DB = np.array([-13.4, -20.8])
_SOIL_WET_DB = np.array([4.4, 3.2])
_LOOKS = 4.4
_SPREAD = np.array([0.25, 0.5, 0.25])
"""Impulse response: the resolution of 20 m is sampled every 10 m."""
_GRAIN = np.array([0.12, 0.76, 0.12])
"""Neighbouring samples of speckle correlate by about 0.3."""
_FLOOR = 10 ** (-2.9)
"""What thermal noise leaves after its removal, linear."""


@dataclass(frozen=True, slots=True)
class _Speckle:
    """Table of the inverse gamma distribution for uncorrelated looks before the blur."""

    quantiles: NDArray[np.float64]
    values: NDArray[np.float64]


def _speckle_table() -> _Speckle:
    # blurring independent samples with weights w multiplies the looks by 1 / sum(w²)
    looks = _LOOKS * float((_GRAIN**2).sum()) ** 2
    quantiles = np.concatenate([np.geomspace(1e-8, 0.01, 200), np.linspace(0.011, 0.99, 900)])
    quantiles = np.concatenate([quantiles, 1 - np.geomspace(0.0099, 1e-8, 200)])
    return _Speckle(quantiles, gamma.ppf(quantiles, looks, scale=1 / looks))


_TABLE = _speckle_table()


def backscatter(
    seed: int,
    land: Landscape,
    dates: Calendar,
    state: Canopy,
    year: Radar,
    wetness: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return the mean backscatter of the surfaces, (N, T, 2) dB.

    Args:
        seed: World.
        land: N surfaces.
        dates: Calendars of the fields.
        state: Canopies on the T days.
        year: Acquisitions.
        wetness: (T,) moisture of the top soil.
    """
    level = np.zeros((len(land.cover), len(year.days), 2))
    for cover, pair in _STEADY.items():
        level[land.cover == cover] = pair
    _leaves(land, state, level)
    soil = _soil(seed, land, dates, year, wetness)
    for cover in ANNUAL_CROPS:
        of = land.cover == cover
        if of.any():
            level[of] = _crop(_STAGES[cover], dates, of, year.days, soil[of])
    seen = np.exp(-0.30 * (state.green + state.dry))[:, :, None]
    bare = np.isin(land.cover, (*ANNUAL_CROPS, Cover.MEADOW, Cover.LAWN, Cover.VINE))[:, None, None]
    wet = (wetness - 0.5)[None, :, None] * _SOIL_WET_DB
    level += np.where(bare, seen * wet, 0.2 * wet * (land.cover != Cover.WATER)[:, None, None])
    level[land.cover == Cover.WATER] += year.wind[:, None]
    level += normal_at(seed, 811, land.key[:, None] * 2 + np.arange(2))[:, None, :] * 0.7
    level += (year.offset - 0.11 * (year.incidence - 38))[None, :, None]
    level[:, :, 0] += _walls(land, year)
    return level.astype(np.float32)


def _leaves(land: Landscape, state: Canopy, level: NDArray[np.float64]) -> None:
    """Let trees, vines and grass change a little with their leaves, in place."""
    for cover, full, change in (
        (Cover.DECIDUOUS, 4.6, (0.5, -0.9)),
        (Cover.ORCHARD, 3.0, (0.3, 0.6)),
        (Cover.VINE, 1.6, (0.5, 1.0)),
        (Cover.MEADOW, 3.0, (-0.6, 0.9)),
        (Cover.LAWN, 2.5, (-0.3, 0.5)),
    ):
        of = land.cover == cover
        leafy = np.clip(state.green[of] / full, 0, 1.2)[:, :, None] - 0.4
        level[of] += leafy * np.array(change)


def _soil(
    seed: int, land: Landscape, dates: Calendar, year: Radar, wetness: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (N, T, 2): bare soil in dB at mean moisture, rougher after tillage, and its rows."""
    tilled = normal_at(seed, 812, land.key)[:, None] * 0.8 + 0.9
    since = year.days[None, :] - dates.till[:, None]
    rough = np.where(since > 0, 1.4 * np.exp(-since.clip(0) / 45.0), 0.0) + tilled
    across = 1.3 * _facing(land.angle, year, 9.0)
    level: NDArray[np.float64] = (
        _SOIL_DB + 0.5 * _SOIL_WET_DB + (rough + across)[:, :, None] * np.array([1.0, 0.8])
    )
    level -= 0.3 * wetness[None, :, None]  # roughness counts less on wet soil
    return level


def _facing(angle: NDArray[np.float64], year: Radar, width: float) -> NDArray[np.float64]:
    """Return (N, T) 0 to 1: whether rows or walls stand across the look direction."""
    look = np.deg2rad(np.where(year.ascending, 90.0 - 78.0, 90.0 - 282.0))
    turn = angle[:, None] - look[None, :]
    along = np.abs((turn + np.pi / 2) % np.pi - np.pi / 2)  # 0: parallel to the look
    across = np.minimum(np.pi / 2 - along, np.pi / 2)
    return np.asarray(np.exp(-0.5 * (np.rad2deg(across) / width) ** 2))


def _walls(land: Landscape, year: Radar) -> NDArray[np.float64]:
    """Return (N, T) dB: double bounce of walls that face the sensor, on either axis."""
    facing = np.maximum(
        _facing(land.angle, year, 11.0), _facing(land.angle + np.pi / 2, year, 11.0)
    )
    return np.where(np.isin(land.cover, ROOFS)[:, None], 7.5 * facing, 0.0)


def _crop(
    stages: list[tuple[float, float]],
    dates: Calendar,
    of: NDArray[np.bool_],
    days: NDArray[np.float64],
    soil: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return (n, T, 2) dB of the fields of one crop."""
    grow = 1.9 / dates.rise_rate[of]
    knots = np.stack(
        [
            dates.emerge[of],
            dates.rise[of] - grow,
            dates.rise[of],
            np.minimum(dates.rise[of] + 1.6 * grow, dates.fall[of] - 14),
            np.minimum(dates.fall[of] + 3, dates.harvest[of] - 3),
            dates.harvest[of],
        ]
    )
    knots = np.maximum.accumulate(knots, axis=0)
    level = soil.copy()
    values = np.array(stages)
    for field in range(knots.shape[1]):
        on = (days > knots[0, field] - 8) & (days <= knots[-1, field])
        for pol in range(2):
            level[field, on, pol] = np.interp(days[on], knots[:, field], values[:, pol])
    return level


def observe_radar(
    seed: int, parts: Shares, level: NDArray[np.float32], year: Radar
) -> NDArray[np.float32]:
    """Mix the surfaces in power, blur, and speckle.

    Args:
        seed: World.
        parts: Shares of the surfaces.
        level: (N, T, 2) dB.
        year: Acquisitions.

    Returns:
        (T, 2, rows, columns) dB.
    """
    pixels = parts.pixels
    power = parts.mix(np.power(10, level / 10, dtype=np.float32)).transpose(2, 3, 0, 1)
    texture = 0.09 * smooth(seed, 813, pixels, 34.0) + 0.05 * smooth(seed, 814, pixels, 11.0)
    power = _blur(power * (1 + texture), _SPREAD)
    out = np.empty(power.shape, np.float32)
    for t, day in enumerate(year.days):
        for pol in range(2):
            draw = white(seed, 9000 + 2 * int(day) + pol, pixels.rows, pixels.cols)
            speckle = _blur(np.interp(draw, _TABLE.quantiles, _TABLE.values), _GRAIN)
            out[t, pol] = 10 * np.log10(power[t, pol] * speckle + _FLOOR)
    return out


def _blur(values: NDArray[np.floating], taps: NDArray[np.float64]) -> NDArray[np.float32]:
    once = correlate1d(values, taps, axis=-1, mode="nearest")
    return np.asarray(correlate1d(once, taps, axis=-2, mode="nearest"), np.float32)
