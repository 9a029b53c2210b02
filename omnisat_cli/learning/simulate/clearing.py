"""Forest loss: part of some stands is felled, each stand on a day of its own.

A forest is a stand of half a hectare or more (FAO, Global Forest Resources Assessment); hedges and
single trees are none. Felling lowers the backscatter of Sentinel-1 (Akbari & Solberg 2022, IEEE
GRSL 19, Ireland), in the Amazon by 2 dB in VV and 2.3 dB in VH on average (Silva, Guerrisi, Del
Frate & Sano 2022, European J. Remote Sensing 55, 129); here by 1.6 to 2.1 and 2.4 to 3.2 dB, half
of it at once, the rest while the felled wood is taken away: wood that lies about keeps the signal
up (Almeida-Filho et al. 2007, Int. J. Remote Sensing 28, 1383, at L-band). Groups of trees are
left, as retention forestry does (Gustafsson et al. 2012, BioScience 62, 633), so a clearing is
rougher than a field. To the eye it is soil, litter and branches, slowly greening.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import shapely

from omnisat_cli.learning.simulate.event import FOLDER, Event, Ground
from omnisat_cli.learning.simulate.fields import smooth, uniform_at
from omnisat_cli.learning.simulate.layout import Kind, centre, kind_of, sites_near
from omnisat_cli.learning.simulate.legend import Cover
from omnisat_cli.learning.simulate.phenology import Canopy

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.landscape import Landscape
    from omnisat_cli.learning.simulate.values import Frame
    from omnisat_cli.learning.simulate.weather import Optical, Radar

_TREES = (Cover.DECIDUOUS, Cover.CONIFER)
_FOREST_M2 = 5_000.0
_SHARE = 0.55
"""Share of the stands in which trees are felled."""
_DAYS = (110.0, 290.0)
"""First and last day of felling."""
_LOSS_DB = {Cover.DECIDUOUS: (-2.1, -3.2), Cover.CONIFER: (-1.6, -2.4)}
_WET_DB = np.array([2.2, 1.6])
"""From dry to wet ground: half of what bare soil shows."""
_REMOVAL_DAYS = 20.0
_REGROWTH_DAYS = 90.0
OTHER, KEPT, LOST = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Clearing(Event):
    """See the module."""

    legend_file: ClassVar[Path] = FOLDER / "omnisat-clearing.json"

    @classmethod
    def site(cls, seed: int, frame: Frame) -> Frame:
        """Centre the frame on the nearest wooded district."""
        middle = np.array([frame.left + frame.width / 2, frame.top - frame.height / 2])
        reach = 2000
        while True:  # a seventh of all districts are wooded
            woods = [
                centre(seed, site)
                for site in sites_near(frame.expanded(reach))
                if kind_of(seed, site) is Kind.WOOD
            ]
            if woods:
                points = np.array(woods)
                return frame.centred(*points[np.hypot(*(points - middle).T).argmin()])
            reach *= 2

    @classmethod
    def strike(cls, ground: Ground, optical: Optical, radar: Radar) -> Self:  # noqa: ARG003
        """Fell."""
        first, last = _DAYS
        day = first + (last - first) * uniform_at(ground.seed, 1601, ground.land.key)
        return cls.of(ground, _felled(ground), day.astype(np.float64))

    def canopy(self, state: Canopy, days: NDArray[np.float64]) -> Canopy:
        """Leave branches and litter, and let herbs come up."""
        struck = self.struck
        since = (days[None, :] - self.day[struck, None]).clip(0)
        parts = [values.copy() for values in (state.green, state.dry, state.flower, state.straw)]
        green, dry, _, litter = parts
        green[struck] = 0.15 + 0.6 * (1 - np.exp(-since / _REGROWTH_DAYS))
        dry[struck], litter[struck] = 0.3, 0.4
        return Canopy(*parts)

    def backscatter(
        self, level: NDArray[np.float32], days: NDArray[np.float64], wetness: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Take the crowns away, then the wood."""
        since = (days[None, :] - self.day[:, None]).clip(0)
        gone = np.where(self.struck[:, None], 1 - 0.5 * np.exp(-since / _REMOVAL_DAYS), 0.0)
        change = (wetness - 0.5)[None, :, None] * _WET_DB + np.zeros((len(gone), 1, 1))
        for cover, loss in _LOSS_DB.items():
            change[self.land.cover == cover] += loss
        after = level + (gone[:, :, None] * change).astype(np.float32)
        return Event.backscatter(self, after, days, wetness)

    def truth(self, scl: NDArray[np.uint8], days: NDArray[np.float64]) -> NDArray[np.uint8]:  # noqa: ARG002
        """Return what became of the forest."""
        codes = np.where(self.struck, LOST, np.where(_forest(self.land), KEPT, OTHER))
        return codes.astype(np.uint8)[self.painted]


def _forest(land: Landscape) -> NDArray[np.bool_]:
    """Return which surfaces are stands of a forest, (N,)."""
    large: NDArray[np.bool_] = shapely.area(land.shapes) >= _FOREST_M2
    return large & np.isin(land.cover, _TREES)


def _felled(ground: Ground) -> NDArray[np.bool_]:
    """Return where trees are felled, (rows, columns): a rectangle in a stand, with a ragged rim."""
    seed, land, pixels = ground.seed, ground.land, ground.pixels
    chosen = _forest(land) & (uniform_at(seed, 1602, land.key) < _SHARE)
    rows, cols = np.nonzero(chosen[ground.painted])
    of = ground.painted[rows, cols]
    size = np.sqrt(shapely.area(land.shapes))
    draw = [uniform_at(seed, 1603 + n, land.key) for n in range(4)]
    c, s = np.cos(land.angle)[of], np.sin(land.angle)[of]
    x, y = pixels.x[cols] - land.centre[of, 0], pixels.y[rows] - land.centre[of, 1]
    inside = np.ones(len(of), bool)
    for along, half, shift in (
        (c * x + s * y, draw[0], draw[1]),
        (c * y - s * x, draw[2], draw[3]),
    ):
        rim = (size * (0.25 + 0.3 * half))[of]
        inside &= np.abs(along - (size * 0.4 * (shift - 0.5))[of]) < rim
    ragged = smooth(seed, 1611, pixels, 14.0)
    felled = np.zeros(pixels.shape, bool)
    felled[rows, cols] = inside
    return felled & (ragged < 1.5)  # groups of trees are left
