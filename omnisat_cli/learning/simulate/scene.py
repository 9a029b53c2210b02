"""A scene of any size, rendered tile by tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.learning.simulate.aerial import SHADOW_MARGIN_M, Flight, flight_sun, photograph
from omnisat_cli.learning.simulate.event import Ground
from omnisat_cli.learning.simulate.events import EVENTS, staged
from omnisat_cli.learning.simulate.fields import Pixels
from omnisat_cli.learning.simulate.landscape import Landscape, landscape, parcels_of
from omnisat_cli.learning.simulate.phenology import calendar, canopy
from omnisat_cli.learning.simulate.sentinel1 import backscatter, observe_radar
from omnisat_cli.learning.simulate.sentinel2 import Shares, clear_series, observe, shares
from omnisat_cli.learning.simulate.spectra import reflectance
from omnisat_cli.learning.simulate.values import CELL_M, Frame, Scene, SceneSpec
from omnisat_cli.learning.simulate.weather import (
    Optical,
    Radar,
    date_of,
    flight_day,
    moisture,
    optical_year,
    radar_year,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import EllipsisType

    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.event import Event

_TILE_M = 1000
"""Side of the tiles a scene is rendered in: bounds the memory beside the result."""
_MARGIN_M = 60
"""Ground rendered around a tile: covers the blur of the sensors and shadows."""


@dataclass(frozen=True, slots=True)
class _Rasters:
    """Rasters of a scene or of one tile; shapes as in `Scene`."""

    aerial: NDArray[np.uint8]
    s2: NDArray[np.uint16]
    scl: NDArray[np.uint8]
    s1: NDArray[np.float32]
    truth: NDArray[np.uint8]
    parcel_ids: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Year:
    """Acquisitions of a scene."""

    optical: Optical
    radar: Radar
    flight: float


def simulate(spec: SceneSpec) -> Scene:
    """Make a scene.

    The same `spec` gives the same scene, and two windows of one seed agree where they overlap.
    """
    spec = staged(spec)
    return _make(spec, spec.frame)


def simulate_tiles(spec: SceneSpec, side_m: int) -> Iterator[Scene]:
    """Make a scene too large for the memory, piece by piece.

    Args:
        spec: The whole scene.
        side_m: Side of a piece, a multiple of 10 m.

    Yields:
        Scenes of at most `side_m`, row by row from the upper left; their parcels keep the numbers
        they have in the whole.
    """
    for frame in spec.frame.tiles(side_m):
        place = (frame.left, frame.top)
        piece = replace(spec, width_m=frame.width, height_m=frame.height, origin=place)
        yield _make(piece, spec.frame)


def _make(spec: SceneSpec, numbered: Frame) -> Scene:
    """Make a scene whose parcels are numbered as in the frame `numbered`."""
    event = EVENTS[spec.event]
    radar = radar_year(spec.seed, spec.year)
    optical = event.weather(optical_year(spec.seed, spec.year), radar)
    year = _Year(optical, radar, flight_day(spec.seed, spec.year))
    whole = _empty(spec, year)
    for tile in spec.frame.tiles(_TILE_M):
        _paste(spec, whole, tile, _render(spec, tile, year, numbered))
    parcels = () if spec.event else parcels_of(landscape(spec.seed, spec.frame, numbered))
    shown = set(np.unique(whole.parcel_ids).tolist())
    return Scene(
        spec=spec,
        origin=(spec.frame.left, spec.frame.top),
        aerial=whole.aerial,
        aerial_date=date_of(spec.year, year.flight),
        s2=whole.s2,
        s2_dates=year.optical.dates,
        scl=whole.scl,
        s1=whole.s1,
        s1_dates=year.radar.dates,
        s1_orbit=np.where(year.radar.ascending, "ascending", "descending"),
        truth=whole.truth,
        parcel_ids=whole.parcel_ids,
        parcels=tuple(parcel for parcel in parcels if parcel.id in shown),
        legend=event.legend(),
    )


def _empty(spec: SceneSpec, year: _Year) -> _Rasters:
    cells = spec.height_m // CELL_M, spec.width_m // CELL_M
    metres = spec.height_m, spec.width_m
    photo = (0, 0) if spec.event else Pixels(spec.frame, spec.aerial_gsd).shape
    optical, radar = len(year.optical.dates), len(year.radar.dates)
    return _Rasters(
        aerial=np.zeros((4, *photo), np.uint8),
        s2=np.zeros((optical, 10, *cells), np.uint16),
        scl=np.zeros((optical, *cells), np.uint8),
        s1=np.zeros((radar, 2, *cells), np.float32),
        truth=np.zeros(metres, np.uint8),
        parcel_ids=np.zeros(metres, np.int32),
    )


def _paste(spec: SceneSpec, whole: _Rasters, tile: Frame, part: _Rasters) -> None:
    for target, source, gsd in (
        *(() if spec.event else ((whole.aerial, part.aerial, spec.aerial_gsd),)),
        (whole.s2, part.s2, CELL_M),
        (whole.scl, part.scl, CELL_M),
        (whole.s1, part.s1, CELL_M),
        (whole.truth, part.truth, 1),
        (whole.parcel_ids, part.parcel_ids, 1),
    ):
        np.copyto(target[_inside(spec.frame, tile, gsd)], source)


def _inside(outer: Frame, inner: Frame, gsd: float) -> tuple[EllipsisType, slice, slice]:
    """Return the index of `inner` in the last two axes of a raster of `outer`."""
    row, col = round((outer.top - inner.top) / gsd), round((inner.left - outer.left) / gsd)
    rows, cols = round(inner.height / gsd), round(inner.width / gsd)
    return ..., slice(row, row + rows), slice(col, col + cols)


def _render(spec: SceneSpec, tile: Frame, year: _Year, numbered: Frame) -> _Rasters:
    """Render one tile with a margin, and cut the margin off."""
    around = tile.expanded(_MARGIN_M).snapped(2 * CELL_M)
    land = landscape(spec.seed, around, numbered)
    metres, cells = Pixels(around, 1.0), Pixels(around, CELL_M)
    ground = Ground(spec.seed, land, land.painted(metres), metres)
    event = EVENTS[spec.event].strike(ground, year.optical, year.radar)
    parts = shares(event.painted, cells, len(event.land.cover))
    crop, metre = _inside(around, tile, CELL_M), _inside(around, tile, 1)
    s2, scl = _optical(spec, event, parts, year.optical)
    s1 = _radar(spec, event, parts, year.radar)
    return _Rasters(
        aerial=np.zeros((4, 0, 0), np.uint8) if spec.event else _aerial(spec, land, tile, year),
        s2=s2[crop],
        scl=scl[crop],
        s1=s1[crop],
        truth=event.truth(scl, year.optical.days)[metre],
        parcel_ids=event.land.parcel[event.painted][metre],
    )


def _optical(
    spec: SceneSpec, event: Event, parts: Shares, year: Optical
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    land = event.land
    state = event.canopy(canopy(spec.seed, land, calendar(spec.seed, land), year.days), year.days)
    wetness = moisture(spec.seed, spec.year, year.days)
    spectra = event.spectra(reflectance(spec.seed, land, state, wetness), year.days)
    clear = clear_series(spec.seed, parts, spectra)
    series, scl = observe(spec.seed, event.untouched, parts, clear, year)
    return series, event.scene_classes(scl, parts, year.days)


def _radar(spec: SceneSpec, event: Event, parts: Shares, year: Radar) -> NDArray[np.float32]:
    land, dates = event.land, calendar(spec.seed, event.land)
    state = event.canopy(canopy(spec.seed, land, dates, year.days), year.days)
    wetness = moisture(spec.seed, spec.year, year.days)
    level = backscatter(spec.seed, land, dates, state, year, wetness)
    return observe_radar(spec.seed, parts, event.backscatter(level, year.days, wetness), year)


def _aerial(spec: SceneSpec, land: Landscape, tile: Frame, year: _Year) -> NDArray[np.uint8]:
    day = np.array([year.flight])
    state = canopy(spec.seed, land, calendar(spec.seed, land), day)
    spectra = reflectance(spec.seed, land, state, moisture(spec.seed, spec.year, day))
    around = tile.expanded(SHADOW_MARGIN_M).snapped(CELL_M)
    flight = Flight(spec.seed, flight_sun(spec.seed), spectra, state)
    image = photograph(land, Pixels(around, spec.aerial_gsd), flight)
    return image[_inside(around, tile, spec.aerial_gsd)]
