"""What to simulate, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from omnisat_cli.outputs.legend import Legend

CRS = "EPSG:2154"
"""Simulated worlds lie in Lambert-93."""

CELL_M = 10
"""Side of a Sentinel pixel."""

_STEP_M = 40
"""Frames that are moved begin at multiples of this: whole patches of 10, 20 and 40 m."""

EVENT_NAMES = ("flood", "clearing")


@dataclass(frozen=True, slots=True)
class Frame:
    """Rectangle of ground in whole metres: x grows right from `left`, y falls from `top`."""

    left: int
    top: int
    width: int
    height: int

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """left, bottom, right, top."""
        return self.left, self.top - self.height, self.left + self.width, self.top

    def expanded(self, margin: int) -> Frame:
        """Grow by `margin` metres on each side."""
        return Frame(
            self.left - margin, self.top + margin, self.width + 2 * margin, self.height + 2 * margin
        )

    def snapped(self, step: int) -> Frame:
        """Grow outwards until every edge is a multiple of `step` metres."""
        left, bottom, right, top = self.bounds
        left, bottom = left // step * step, bottom // step * step
        right, top = -(-right // step) * step, -(-top // step) * step
        return Frame(left, top, right - left, top - bottom)

    def centred(self, x: float, y: float) -> Frame:
        """Move the middle to about (x, y)."""
        left = round((x - self.width / 2) / _STEP_M) * _STEP_M
        top = round((y + self.height / 2) / _STEP_M) * _STEP_M
        return Frame(left, top, self.width, self.height)

    def tiles(self, side: int) -> list[Frame]:
        """Cut into frames of at most `side` metres, counted from the upper left corner."""
        return [
            Frame(
                self.left + x, self.top - y, min(side, self.width - x), min(side, self.height - y)
            )
            for y in range(0, self.height, side)
            for x in range(0, self.width, side)
        ]


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """Which window of which simulated world.

    A seed makes one endless world. Two windows of the same world agree where they overlap, so a
    large scene can be made in pieces.

    Attributes:
        seed: Number of the world, ≥ 0.
        width_m: West-east extent, a multiple of 10 m.
        height_m: North-south extent, a multiple of 10 m.
        aerial_gsd: Pixel of the aerial image, 0.2 to 1 m, dividing 10 m.
        year: Calendar year of the series.
        origin: (left, top) in EPSG:2154, multiples of 10 m; None lets the seed choose.
        event: What happens in the year, of `EVENT_NAMES`; None = nothing beyond farming.
    """

    seed: int
    width_m: int = 640
    height_m: int = 640
    aerial_gsd: float = 0.5
    year: int = 2023
    origin: tuple[int, int] | None = None
    event: str | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise JobError(f"the seed must be 0 or more, got {self.seed}")
        if self.event not in (None, *EVENT_NAMES):
            raise JobError(f"no event {self.event!r}; there are {', '.join(EVENT_NAMES)}")
        for name in ("width_m", "height_m"):
            side = getattr(self, name)
            if side <= 0 or side % CELL_M:
                raise JobError(f"{name} must be a positive multiple of {CELL_M} m, got {side}")
        cells = CELL_M / self.aerial_gsd if self.aerial_gsd > 0 else 0.0
        if not 0.2 - 1e-9 <= self.aerial_gsd <= 1 or abs(cells - round(cells)) > 1e-6:
            raise JobError(
                f"the aerial pixel must lie in 0.2–1 m and divide {CELL_M} m "
                f"(0.2, 0.25, 0.4, 0.5, 1), got {self.aerial_gsd} m"
            )
        if not 2015 <= self.year <= 2100:
            raise JobError(f"the year must lie in 2015–2100 (Sentinel time), got {self.year}")
        if self.origin is not None and any(edge % CELL_M for edge in self.origin):
            raise JobError(f"the origin must be multiples of {CELL_M} m, got {self.origin}")

    @property
    def frame(self) -> Frame:
        """Ground of the scene."""
        if self.origin is not None:
            left, top = self.origin
        else:
            draw = np.random.default_rng([self.seed, 2154]).integers(0, 90, 2)
            left, top = 605_000 + 1000 * int(draw[0]), 6_805_000 + 1000 * int(draw[1])
        return Frame(left, top, self.width_m, self.height_m)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One agricultural parcel.

    Attributes:
        id: Number in `Scene.parcel_ids`, from 1.
        class_code: Code in the legend.
        geometry: Polygon in the CRS of the scene, clipped to the scene.
    """

    id: int
    class_code: int
    geometry: BaseGeometry


@dataclass(frozen=True, slots=True)
class Scene:
    """A simulated scene: co-registered images, series and truth.

    H, W count aerial pixels, h, w pixels of 10 m, M, N metres.

    Attributes:
        spec: What was asked.
        origin: (left, top) in `crs`.
        aerial: (4, H, W) uint8, R G B NIR; (4, 0, 0) with an event, which the series show.
        aerial_date: Day of the flight.
        s2: (T, 10, h, w) uint16 reflectance × 10 000, bands as in `modality.S2_BANDS`; ≥ 1.
        s2_dates: (T,) datetime64[D], strictly ascending.
        scl: (T, h, w) uint8 scene classification as Sen2Cor codes it.
        s1: (T, 2, h, w) float32 dB, VV VH.
        s1_dates: (T,) datetime64[D], strictly ascending.
        s1_orbit: (T,) "ascending" or "descending".
        truth: (M, N) uint8 class codes at 1 m, 255 = not labelled.
        parcel_ids: (M, N) int32 at 1 m, 0 = no parcel.
        parcels: Parcels that show in the scene, by id; none with an event.
        legend: Names and colours of the classes.
        crs: "EPSG:2154".
    """

    spec: SceneSpec
    origin: tuple[int, int]
    aerial: NDArray[np.uint8]
    aerial_date: np.datetime64
    s2: NDArray[np.uint16]
    s2_dates: NDArray[np.datetime64]
    scl: NDArray[np.uint8]
    s1: NDArray[np.float32]
    s1_dates: NDArray[np.datetime64]
    s1_orbit: NDArray[np.str_]
    truth: NDArray[np.uint8]
    parcel_ids: NDArray[np.int32]
    parcels: tuple[Parcel, ...]
    legend: Legend
    crs: str = CRS

    @property
    def gsd(self) -> float:
        """Pixel of the aerial image in metres."""
        return self.spec.aerial_gsd
