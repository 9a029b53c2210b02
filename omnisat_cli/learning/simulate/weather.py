"""Days of acquisition, rain, wind and cloud of one year of a world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORST_COVER = 0.80
"""Acquisitions with more cloud than this over the place are left out, as archive searches do."""


@dataclass(frozen=True, slots=True)
class Optical:
    """Sentinel-2 acquisitions of a year.

    Attributes:
        dates: (T,) datetime64[D].
        days: (T,) days since 1 January of the year.
        cover: (T,) share of opaque cloud over the world.
        cirrus: (T,) share of thin cloud.
        haze: (T,) reflectance that an imperfect atmospheric correction leaves in the blue.
        gain: (T,) factor left by view and sun angles.
    """

    dates: NDArray[np.datetime64]
    days: NDArray[np.float64]
    cover: NDArray[np.float64]
    cirrus: NDArray[np.float64]
    haze: NDArray[np.float64]
    gain: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Radar:
    """Sentinel-1 acquisitions of a year: two relative orbits.

    Attributes:
        dates: (T,) datetime64[D].
        days: (T,) days since 1 January.
        ascending: (T,) bool.
        incidence: (T,) degrees.
        wind: (T,) dB that wind adds over water.
        offset: (T,) dB of residual calibration.
    """

    dates: NDArray[np.datetime64]
    days: NDArray[np.float64]
    ascending: NDArray[np.bool_]
    incidence: NDArray[np.float64]
    wind: NDArray[np.float64]
    offset: NDArray[np.float64]


def optical_year(seed: int, year: int) -> Optical:
    """Draw the Sentinel-2 acquisitions of a year.

    Two satellites pass every 5 days. Cloud is U-shaped (nearly clear or nearly overcast) and
    winter is cloudier; with the overcast passes left out about half of the 73 remain.

    Source: cloud frequencies of 55–70 % over north-western Europe, Wilson & Jetz 2016
    (PLoS Biology 14, e1002415) and Sudmanns et al. 2020 (Int. J. Digital Earth 13).
    """
    rng = np.random.default_rng([seed, 101, year])
    first = _new_year(year) + np.timedelta64(int(rng.integers(0, 5)), "D")
    dates = np.arange(first, _new_year(year + 1), np.timedelta64(5, "D"))
    days = (dates - _new_year(year)).astype(np.float64)
    winter = 0.5 + 0.5 * np.cos(2 * np.pi * (days - 5) / 365)
    cover = rng.beta(0.55 + 0.45 * winter, 0.50 - 0.12 * winter)
    cirrus = np.where(rng.random(len(days)) < 0.28, rng.beta(1.2, 2.5, len(days)), 0.0)
    haze = rng.normal(0.0, 0.006, len(days))
    gain = rng.normal(1.0, 0.025, len(days))
    kept = cover < _WORST_COVER
    return Optical(dates[kept], days[kept], cover[kept], cirrus[kept], haze[kept], gain[kept])


def radar_year(seed: int, year: int) -> Radar:
    """Draw the Sentinel-1 acquisitions of a year: each orbit every 12 days (one satellite)."""
    rng = np.random.default_rng([seed, 102, year])
    start = int(rng.integers(0, 12))
    lag = int(rng.integers(2, 11))  # never the same day
    length = int((_new_year(year + 1) - _new_year(year)).astype(int))
    passes = [np.arange(start, length, 12), np.arange((start + lag) % 12, length, 12)]
    days = np.concatenate(passes)
    ascending = np.repeat([True, False], [len(p) for p in passes])
    order = np.argsort(days)
    days, ascending = days[order], ascending[order]
    angles = rng.uniform(33.0, 43.0, 2)
    return Radar(
        dates=_new_year(year) + days.astype("timedelta64[D]"),
        days=days.astype(np.float64),
        ascending=ascending,
        incidence=np.where(ascending, angles[0], angles[1]),
        wind=rng.normal(0.0, 2.0, len(days)),
        offset=rng.normal(0.0, 0.15, len(days)),
    )


def moisture(seed: int, year: int, days: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the wetness of the top soil, 0 dry to 1 wet, on the given days.

    An antecedent precipitation index: rain in spells, drying faster in summer.
    """
    rng = np.random.default_rng([seed, 103, year])
    index, wet, level = np.empty(400), 0.5, False
    for day in range(len(index)):
        summer = 0.5 - 0.5 * np.cos(2 * np.pi * (day - 15) / 365)
        level = bool(rng.random() < (0.66 if level else 0.26))
        rain = rng.exponential(0.22) if level else 0.0
        wet = min(1.0, wet * (0.95 - 0.15 * summer) + rain)
        index[day] = wet
    return np.asarray(index[np.clip(days.astype(int), 0, len(index) - 1)])


def flight_day(seed: int, year: int) -> float:
    """Return the day of the aerial survey: July or August, on the day count of the year."""
    return float(np.random.default_rng([seed, 104, year]).integers(182, 236))


def date_of(year: int, day: float) -> np.datetime64:
    """Return the date of a day counted from 1 January."""
    return _new_year(year) + np.timedelta64(int(day), "D")


def _new_year(year: int) -> np.datetime64:
    return np.datetime64(f"{year}-01-01", "D")
