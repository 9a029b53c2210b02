"""A flood: water stands on low ground along rivers on the last dates of the series.

How high ground lies above its river decides (height above the nearest drainage, Nobre et al. 2011,
J. Hydrology 404, 13): a gentle slope with hollows and swells. Open water reflects the radar away,
as the water of `sentinel1`; water under trees or beside walls returns more than dry ground by
double bounce, less at C-band than the 3 to 10 dB of L-band (Hess, Melack & Simonett 1990, Int. J.
Remote Sensing 11, 1313). Flood water carries soil: its red and red edge are bright, its short-wave
infrared stays black (shape after Doxaran, Froidefond & Castaing 2002, Int. J. Remote Sensing 23,
5079). Labels as in Sen1Floods11 (Bonafilia et al. 2020): open water, also that of rivers, and no
label where clouds hide the ground from every optical image of the flood.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from scipy.spatial import cKDTree

from omnisat_cli.learning.simulate.event import FOLDER, Event, Ground
from omnisat_cli.learning.simulate.fields import Pixels, fractal
from omnisat_cli.learning.simulate.layout import rivers
from omnisat_cli.learning.simulate.legend import ROOFS, Cover
from omnisat_cli.learning.simulate.sentinel2 import (
    BARE,
    CLOUD_HIGH,
    CLOUD_MEDIUM,
    VEGETATION,
    WATER,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.sentinel2 import Shares
    from omnisat_cli.learning.simulate.spectra import Reflectance
    from omnisat_cli.learning.simulate.values import Frame
    from omnisat_cli.learning.simulate.weather import Optical, Radar

_SLOPE = 0.012
"""Rise of the valley floor away from the river, metres a metre."""
_RELIEF_M = 0.9
"""Standard deviation of hollows and swells."""
_RELIEF = ((420.0, 1.0), (150.0, 0.5), (55.0, 0.2))
_LEVEL_M = (0.7, 2.0)
"""Lowest and highest flood, above the river."""
_REACH_M = 600.0
"""No flood reaches farther from its river."""
_STANDING = (*ROOFS, Cover.DECIDUOUS, Cover.CONIFER, Cover.ORCHARD)
"""What stands out of the water."""
_BOUNCE_DB = np.array([2.0, 0.5], np.float32)
_TURBID = np.array([0.062, 0.092, 0.112, 0.108, 0.060, 0.058, 0.050, 0.044, 0.010, 0.007])
_RAIN_CLOUD = (0.2, 0.5)
"""Least and most cloud of the optical dates of a flood."""


@dataclass(frozen=True, slots=True)
class Flood(Event):
    """See the module.

    Attributes:
        since: First day of the year with water, also where none of it came.
    """

    since: float = np.inf

    legend_file: ClassVar[Path] = FOLDER / "omnisat-flood.json"

    @classmethod
    def site(cls, seed: int, frame: Frame) -> Frame:
        """Centre the frame on the nearest river."""
        centre = np.array([frame.left + frame.width / 2, frame.top - frame.height / 2])
        near = rivers(seed, centre - 2000, centre + 2000)
        points = np.concatenate([river.points for river in near])
        return frame.centred(*points[np.hypot(*(points - centre).T).argmin()])

    @classmethod
    def weather(cls, optical: Optical, radar: Radar) -> Optical:
        """Bring the clouds of a rainy week, with gaps."""
        wet = optical.days >= _start(optical, radar)
        return replace(
            optical, cover=np.where(wet, np.clip(optical.cover, *_RAIN_CLOUD), optical.cover)
        )

    @classmethod
    def strike(cls, ground: Ground, optical: Optical, radar: Radar) -> Self:
        """Let the water rise."""
        rng = np.random.default_rng([ground.seed, 1501])
        under = height_above_river(ground.seed, ground.pixels) < rng.uniform(*_LEVEL_M)
        start = _start(optical, radar)
        event = cls.of(ground, under, np.array([start]))
        drowned = event.struck & ~np.isin(event.land.cover, _STANDING)
        cover = np.where(drowned, Cover.WATER, event.land.cover)
        return replace(event, land=replace(event.land, cover=cover), since=start)

    def spectra(self, spectra: Reflectance, days: NDArray[np.float64]) -> Reflectance:
        """Stir up the soil."""
        open_water = self.struck & (self.land.cover == Cover.WATER)
        mean = spectra.mean.copy()
        mean[open_water] = 0.3 * mean[open_water] + 0.7 * _TURBID
        return Event.spectra(self, replace(spectra, mean=mean), days)

    def backscatter(
        self, level: NDArray[np.float32], days: NDArray[np.float64], wetness: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Let trunks and walls return what the water beside them reflects."""
        beside = self.struck & (self.land.cover != Cover.WATER)
        return Event.backscatter(self, level + beside[:, None, None] * _BOUNCE_DB, days, wetness)

    def scene_classes(
        self, scl: NDArray[np.uint8], parts: Shares, days: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """Call the flood water once it is there."""
        wet = parts.mix((self.land.cover == Cover.WATER).astype(np.float32)) > 0.6
        clear = np.isin(scl, (VEGETATION, BARE)) & self._during(days)[:, None, None]
        return np.where(clear & wet, WATER, scl).astype(np.uint8)

    def truth(self, scl: NDArray[np.uint8], days: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return where open water is, and where nobody saw whether it is."""
        water = (self.land.cover == Cover.WATER)[self.painted]
        during = scl[self._during(days)]
        unseen = np.isin(during, (CLOUD_MEDIUM, CLOUD_HIGH)).all(axis=0)
        fine = unseen.repeat(10, axis=0).repeat(10, axis=1)
        return np.where(fine, 255, water).astype(np.uint8)

    def _during(self, days: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(days >= self.since)


def _start(optical: Optical, radar: Radar) -> float:
    """Return the day the water comes: three dates of each sensor are left to see it."""
    return float(min(optical.days[-3], radar.days[-3])) - 0.5


def height_above_river(seed: int, pixels: Pixels) -> NDArray[np.float32]:
    """Return (rows, columns) metres above the water of the nearest river."""
    left, bottom, right, top = pixels.frame.bounds
    low, high = np.array([left, bottom]) - _REACH_M, np.array([right, top]) + _REACH_M
    x, y = np.meshgrid(pixels.x, pixels.y)
    away = np.full(pixels.shape, _REACH_M)
    for river in rivers(seed, low, high):
        distance, _ = cKDTree(river.points).query(
            np.stack([x, y], axis=-1), distance_upper_bound=_REACH_M
        )
        away = np.minimum(away, distance - river.width / 2)
    relief = _RELIEF_M * fractal(seed, 1511, pixels, _RELIEF)
    return np.asarray(_SLOPE * away.clip(0) + relief, np.float32)
