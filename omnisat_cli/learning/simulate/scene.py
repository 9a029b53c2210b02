"""A scene of any size, rendered tile by tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.learning.simulate.aerial import SHADOW_MARGIN_M, Flight, flight_sun, photograph
from omnisat_cli.learning.simulate.fields import Pixels
from omnisat_cli.learning.simulate.landscape import Landscape, landscape, parcels_of
from omnisat_cli.learning.simulate.legend import sim_legend
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
    year = _Year(
        optical_year(spec.seed, spec.year),
        radar_year(spec.seed, spec.year),
        flight_day(spec.seed, spec.year),
    )
    whole = _empty(spec, year)
    for tile in spec.frame.tiles(_TILE_M):
        _paste(spec, whole, tile, _render(spec, tile, year, numbered))
    land = landscape(spec.seed, spec.frame, numbered)
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
        parcels=tuple(parcel for parcel in parcels_of(land) if parcel.id in shown),
        legend=sim_legend(),
    )


def _empty(spec: SceneSpec, year: _Year) -> _Rasters:
    cells = spec.height_m // CELL_M, spec.width_m // CELL_M
    metres = spec.height_m, spec.width_m
    optical, radar = len(year.optical.dates), len(year.radar.dates)
    return _Rasters(
        aerial=np.zeros((4, *Pixels(spec.frame, spec.aerial_gsd).shape), np.uint8),
        s2=np.zeros((optical, 10, *cells), np.uint16),
        scl=np.zeros((optical, *cells), np.uint8),
        s1=np.zeros((radar, 2, *cells), np.float32),
        truth=np.zeros(metres, np.uint8),
        parcel_ids=np.zeros(metres, np.int32),
    )


def _paste(spec: SceneSpec, whole: _Rasters, tile: Frame, part: _Rasters) -> None:
    for target, source, gsd in (
        (whole.aerial, part.aerial, spec.aerial_gsd),
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
    painted = land.painted(Pixels(around, 1.0))
    cells = Pixels(around, CELL_M)
    parts = shares(painted, cells, len(land.cover))
    crop = _inside(around, tile, CELL_M)
    s2, scl = _optical(spec, land, parts, year.optical)
    s1 = _radar(spec, land, parts, year.radar)
    metre = _inside(around, tile, 1)
    return _Rasters(
        aerial=_aerial(spec, land, tile, year),
        s2=s2[crop],
        scl=scl[crop],
        s1=s1[crop],
        truth=land.classes[painted][metre],
        parcel_ids=land.parcel[painted][metre],
    )


def _optical(
    spec: SceneSpec, land: Landscape, parts: Shares, year: Optical
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    state = canopy(spec.seed, land, calendar(spec.seed, land), year.days)
    wetness = moisture(spec.seed, spec.year, year.days)
    clear = clear_series(spec.seed, parts, reflectance(spec.seed, land, state, wetness))
    return observe(spec.seed, land, parts, clear, year)


def _radar(spec: SceneSpec, land: Landscape, parts: Shares, year: Radar) -> NDArray[np.float32]:
    dates = calendar(spec.seed, land)
    state = canopy(spec.seed, land, dates, year.days)
    wetness = moisture(spec.seed, spec.year, year.days)
    level = backscatter(spec.seed, land, dates, state, year, wetness)
    return observe_radar(spec.seed, parts, level, year)


def _aerial(spec: SceneSpec, land: Landscape, tile: Frame, year: _Year) -> NDArray[np.uint8]:
    day = np.array([year.flight])
    state = canopy(spec.seed, land, calendar(spec.seed, land), day)
    spectra = reflectance(spec.seed, land, state, moisture(spec.seed, spec.year, day))
    around = tile.expanded(SHADOW_MARGIN_M).snapped(CELL_M)
    flight = Flight(spec.seed, flight_sun(spec.seed), spectra, state)
    image = photograph(land, Pixels(around, spec.aerial_gsd), flight)
    return image[_inside(around, tile, spec.aerial_gsd)]
