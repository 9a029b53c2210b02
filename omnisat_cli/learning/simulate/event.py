"""What happens to a landscape within the year of its series: by default, nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from omnisat_cli.learning.simulate.legend import LEGEND_FILE
from omnisat_cli.learning.simulate.spectra import Reflectance
from omnisat_cli.outputs.legend import Legend, load_legend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.fields import Pixels
    from omnisat_cli.learning.simulate.landscape import Landscape
    from omnisat_cli.learning.simulate.phenology import Canopy
    from omnisat_cli.learning.simulate.sentinel2 import Shares
    from omnisat_cli.learning.simulate.values import Frame
    from omnisat_cli.learning.simulate.weather import Optical, Radar

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Ground:
    """A landscape before anything has happened.

    Attributes:
        seed: World.
        land: N surfaces.
        painted: (rows, columns) surface numbers.
        pixels: Their grid, of 1 m.
    """

    seed: int
    land: Landscape
    painted: NDArray[np.int32]
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Event:
    """An event, as it struck N surfaces. This one strikes none.

    The struck part of a surface is a surface of its own, described as it is afterwards; before its
    day it looks like the surface it was part of.

    Attributes:
        land: N surfaces, those of the ground and the struck parts.
        painted: (rows, columns) surface numbers at 1 m.
        origin: (N,) which surface it was part of; its own number where it was not struck.
        day: (N,) first day of the year on which it is changed; infinite where it was not struck.
    """

    land: Landscape
    painted: NDArray[np.int32]
    origin: NDArray[np.int64]
    day: NDArray[np.float64]

    legend_file: ClassVar[Path] = LEGEND_FILE

    @classmethod
    def legend(cls) -> Legend:
        """Return the classes of the truth."""
        return load_legend(cls.legend_file)

    @classmethod
    def site(cls, seed: int, frame: Frame) -> Frame:  # noqa: ARG003 - the seed is for events
        """Return the frame of that size near `frame` where the event can be seen."""
        return frame

    @classmethod
    def weather(cls, optical: Optical, radar: Radar) -> Optical:  # noqa: ARG003 - for events
        """Return the optical year with the weather that goes with the event."""
        return optical

    @classmethod
    def strike(cls, ground: Ground, optical: Optical, radar: Radar) -> Self:  # noqa: ARG003
        """Let it happen."""
        return cls.of(ground, np.zeros(ground.painted.shape, bool), np.array([np.inf]))

    @classmethod
    def of(cls, ground: Ground, where: NDArray[np.bool_], day: NDArray[np.float64]) -> Self:
        """Cut the struck parts out of their surfaces.

        Args:
            ground: The landscape.
            where: (rows, columns) what is struck.
            day: (surfaces,) or (1,) when it strikes each surface.
        """
        land, count = ground.land, len(ground.land.cover)
        struck = np.unique(ground.painted[where])
        number = np.zeros(count, np.int32)
        number[struck] = count + np.arange(len(struck), dtype=np.int32)
        origin = np.concatenate([np.arange(count), struck])
        days = np.concatenate([np.full(count, np.inf), np.broadcast_to(day, count)[struck]])
        painted = np.where(where, number[ground.painted], ground.painted)
        return cls(_taken(land, origin), painted, origin, days)

    @property
    def untouched(self) -> Landscape:
        """The N surfaces as they were."""
        return replace(self.land, cover=self.land.cover[self.origin])

    @property
    def struck(self) -> NDArray[np.bool_]:
        """(N,) the struck parts."""
        return np.isfinite(self.day)

    def canopy(self, state: Canopy, days: NDArray[np.float64]) -> Canopy:  # noqa: ARG002
        """Return the canopies with those that struck parts have afterwards."""
        return state

    def spectra(self, spectra: Reflectance, days: NDArray[np.float64]) -> Reflectance:
        """Return the spectra of surfaces of which each T dates are known, before and after."""
        return Reflectance(
            self.before(spectra.mean, days),
            self.before(spectra.vigour, days),
            self.before(spectra.soil, days),
        )

    def backscatter(
        self,
        level: NDArray[np.float32],
        days: NDArray[np.float64],
        wetness: NDArray[np.float64],  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Return the backscatter, (N, T, 2) dB, before and after, on soil of that (T,) moisture."""
        return self.before(level, days)

    def scene_classes(
        self,
        scl: NDArray[np.uint8],
        parts: Shares,  # noqa: ARG002
        days: NDArray[np.float64],  # noqa: ARG002
    ) -> NDArray[np.uint8]:
        """Return the (T, h, w) scene classes of untouched land with what changes in them."""
        return scl

    def truth(self, scl: NDArray[np.uint8], days: NDArray[np.float64]) -> NDArray[np.uint8]:  # noqa: ARG002
        """Return (rows, columns) class codes at 1 m, given the (T, h, w) scene classes at 10 m."""
        return self.land.classes[self.painted]

    def before(self, values: NDArray[np.float32], days: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return (N, T, bands) values in which struck parts still look as before their day."""
        early = days[None, :, None] < self.day[:, None, None]
        return np.where(early, values[self.origin], values)


def _taken(land: Landscape, which: NDArray[np.int64]) -> Landscape:
    """Return a landscape of these surfaces."""
    return replace(
        land,
        cover=land.cover[which],
        key=land.key[which],
        angle=land.angle[which],
        centre=land.centre[which],
        parcel=land.parcel[which],
        shapes=land.shapes[which],
    )
