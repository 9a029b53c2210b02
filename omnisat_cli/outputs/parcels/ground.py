"""How large the pixels of a map are on the ground: all alike, or, in degrees, by their row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import shapely

if TYPE_CHECKING:
    import pyproj
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_DM2: Final = 0.01
"""Areas of rows are whole numbers of this many m², so that sums do not depend on their order."""


class Ground(Protocol):
    """What a map's pixels measure, in metres."""

    @property
    def unit(self) -> float:
        """The m² that areas of pixels are counted in."""

    @property
    def pixel(self) -> float:
        """The larger side of a pixel, at the widest place of the map."""

    def areas(self, top: int, count: int) -> Integers | None:
        """Return the area of a pixel of each of `count` rows, in units; None where it is one."""

    def sizes(self, rows: NDArray[np.generic]) -> Floats:
        """Return (N, 2) height and width of a pixel at (N,) rows."""

    def measure(self, polygons: NDArray[np.object_]) -> tuple[Floats, Floats]:
        """Return (N,) area in m² and outline in m of polygons in the CRS of the map."""


@dataclass(frozen=True, slots=True)
class Pixel:
    """Pixels of one size.

    Attributes:
        height: In metres.
        width: In metres.
        metres: Metres in a unit of the CRS.
    """

    height: float
    width: float
    metres: float = 1.0

    @property
    def unit(self) -> float:
        """Square metres of a pixel."""
        return self.height * self.width

    @property
    def pixel(self) -> float:
        """The larger side."""
        return max(self.height, self.width)

    def areas(self, top: int, count: int) -> Integers | None:
        """Return None: pixels are counted."""
        del top, count
        return None

    def sizes(self, rows: NDArray[np.generic]) -> Floats:
        """Return the same height and width for all rows."""
        return np.broadcast_to(np.array([self.height, self.width]), (len(rows), 2))

    def measure(self, polygons: NDArray[np.object_]) -> tuple[Floats, Floats]:
        """Measure in the plane of the CRS."""
        return shapely.area(polygons) * self.metres**2, shapely.length(polygons) * self.metres


@dataclass(frozen=True, slots=True)
class Degrees:
    """Pixels of a map in degrees, on its ellipsoid.

    Attributes:
        top: Latitude of the upper edge.
        step: Height of a pixel in degrees.
        across: Width of a pixel in degrees.
        height: Rows of the map.
        geod: The ellipsoid.
    """

    top: float
    step: float
    across: float
    height: int
    geod: pyproj.Geod

    @property
    def unit(self) -> float:
        """A square decimetre."""
        return _DM2

    @property
    def pixel(self) -> float:
        """The larger side of a pixel where the map comes closest to the equator."""
        ends = self.top, self.top - self.step * self.height
        row = 0.0 if min(map(abs, ends)) == abs(ends[0]) else float(self.height)
        if ends[0] > 0 > ends[1]:
            row = self.top / self.step
        return float(self.sizes(np.array([row])).max())

    def areas(self, top: int, count: int) -> Integers:
        """Return the area between two parallels and two meridians, exactly on the ellipsoid."""
        edges = np.deg2rad(self.top - self.step * np.arange(top, top + count + 1))
        sine = np.sin(edges)
        squared = self.geod.es
        zone = sine / (1 - squared * sine**2)
        if squared:
            zone += np.arctanh(np.sqrt(squared) * sine) / np.sqrt(squared)
        else:
            zone += sine
        belt = (zone[:-1] - zone[1:]) * self.geod.b**2 / 2 * np.deg2rad(self.across)
        whole: Integers = np.maximum(np.rint(belt / _DM2), 1).astype(np.int64)
        return whole

    def sizes(self, rows: NDArray[np.generic]) -> Floats:
        """Return height and width at the latitudes of rows."""
        latitude = np.deg2rad(self.top - self.step * np.asarray(rows, np.float64))
        bent = 1 - self.geod.es * np.sin(latitude) ** 2
        along = self.geod.a * (1 - self.geod.es) / bent**1.5
        around = self.geod.a / np.sqrt(bent) * np.cos(latitude)
        sides = np.stack([along * self.step, around * self.across], axis=1)
        metres: Floats = np.deg2rad(sides)
        return metres

    def measure(self, polygons: NDArray[np.object_]) -> tuple[Floats, Floats]:
        """Measure with geodesics."""
        area, outline = np.zeros(len(polygons)), np.zeros(len(polygons))
        rings, of = shapely.get_rings(polygons, return_index=True)
        before = -1
        for ring, index in zip(rings, of.tolist(), strict=True):
            x, y = shapely.get_coordinates(ring).T
            found, length = self.geod.polygon_area_perimeter(x, y)
            area[index] += abs(found) if index != before else -abs(found)  # holes come after
            outline[index] += length
            before = index
        return area, outline
