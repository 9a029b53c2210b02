"""Districts: the pieces of an endless world, each made from its own seed.

The world is divided into Voronoi cells of jittered points. Every cell is a district with one way of
farming (open fields, bocage, wood, village, slopes of vine and orchard), so that field patterns
have one direction per district, as land consolidation leaves them. Districts belong to regions of
about 2 km with one mix of crops; roads run along the borders, main roads between regions.

Source: tessellations by random splits as models of farmland, Kiêu, Adamczyk-Chauvat, Monod &
Stoica 2013 (Spatial Statistics 6, 118). Parcel areas (log-normal, median about a hectare) and crop
shares are of the order that the French parcel register (RPG) shows; they are not fitted to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.learning.simulate.geometry import clip
from omnisat_cli.learning.simulate.legend import Cover

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from omnisat_cli.learning.simulate.values import Frame

SPACING = 450.0
"""Mean distance of district centres, metres."""
_JITTER = 0.36
_REGION = 5
"""Districts along one region."""
_OFFSET = 1 << 20
"""Added to district numbers, because seeds may not be negative."""
_OVERHANG_M = 45
"""How far the warp, crowns and roads may carry a district over its cell."""

Site = tuple[int, int]


class Level(IntEnum):
    """Order of painting: higher hides lower."""

    GROUND = 0
    FIELD = 1
    YARD = 2
    TRACK = 3
    WATER = 4
    ROAD = 5
    HEDGE = 6
    TREE = 7
    BUILDING = 8


class Kind(IntEnum):
    """Ways of using a district."""

    ARABLE = 0
    BOCAGE = 1
    WOOD = 2
    VILLAGE = 3
    SLOPE = 4


@dataclass(frozen=True, slots=True)
class Surface:
    """A piece of ground of one cover.

    Attributes:
        cover: What it is.
        geometry: Where, after the warp.
        key: Number from which everything individual about it is drawn.
        angle: Direction of its rows or walls, radians from east.
        level: When it is painted.
        parcel: Whether it is an agricultural parcel.
    """

    cover: Cover
    geometry: BaseGeometry
    key: int
    angle: float
    level: Level
    parcel: bool = False


@dataclass(frozen=True, slots=True)
class Crown:
    """Crown of a single tree; lengths in metres."""

    x: float
    y: float
    radius: float
    height: float


@dataclass(frozen=True, slots=True)
class House:
    """Gabled building: ridge along `length` at `angle`; `pitch` is rise over run of the roof."""

    x: float
    y: float
    angle: float
    length: float
    width: float
    eave: float
    pitch: float


@dataclass(slots=True)
class Content:
    """What stands in a district, in the order it was made."""

    surfaces: list[Surface] = field(default_factory=list)
    crowns: list[Crown] = field(default_factory=list)
    houses: list[House] = field(default_factory=list)
    markings: list[BaseGeometry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Border:
    """Edge between two districts, before the warp.

    Attributes:
        ends: (2, 2) points.
        other: District on the other side.
        width: Of the road on it, metres; 0 where there is none.
        cover: Of the road.
        alley: Whether trees stand along it.
        key: As in `Surface`.
    """

    ends: NDArray[np.float64]
    other: Site
    width: float
    cover: Cover
    alley: bool
    key: int


@dataclass(frozen=True, slots=True)
class Region:
    """Farming of some square kilometres.

    Attributes:
        kinds: (5,) shares of the `Kind` of districts.
        crops: Shares of wheat, barley, rapeseed, maize, sunflower, beet, meadow.
        area_m2: Median area of arable parcels.
        strips: Whether parcels are long strips.
    """

    kinds: NDArray[np.float64]
    crops: NDArray[np.float64]
    area_m2: float
    strips: bool


REGION_CROPS = (
    Cover.WHEAT,
    Cover.BARLEY,
    Cover.RAPESEED,
    Cover.MAIZE,
    Cover.SUNFLOWER,
    Cover.BEET,
    Cover.MEADOW,
)
_SYSTEMS = np.array(
    [  # wheat, barley, rapeseed, maize, sunflower, beet, meadow
        [0.34, 0.13, 0.14, 0.09, 0.02, 0.20, 0.08],  # cereals and beet, Picardy
        [0.28, 0.17, 0.19, 0.08, 0.12, 0.06, 0.10],  # cereals and oilseeds, Champagne, Berry
        [0.18, 0.10, 0.06, 0.28, 0.02, 0.06, 0.30],  # dairy, Normandy and Ardennes
        [0.24, 0.10, 0.09, 0.20, 0.24, 0.03, 0.10],  # maize and sunflower, south-west
    ]
)
_KINDS = np.array([0.48, 0.17, 0.14, 0.12, 0.09])


def stream(seed: int, purpose: int, *place: int) -> np.random.Generator:
    """Return the generator of one purpose at one place of a world."""
    return np.random.default_rng([seed, purpose, *(number + _OFFSET for number in place)])


@lru_cache(maxsize=1 << 15)
def centre(seed: int, site: Site) -> tuple[float, float]:
    """Return the point of a district."""
    jitter = stream(seed, 1, *site).uniform(-_JITTER, _JITTER, 2)
    return (site[0] + 0.5 + float(jitter[0])) * SPACING, (
        site[1] + 0.5 + float(jitter[1])
    ) * SPACING


@lru_cache(maxsize=1 << 13)
def region_of(seed: int, site: Site) -> Site:
    """Return the region a district belongs to: the nearest of jittered region points."""
    x, y = (value / SPACING for value in centre(seed, site))
    column, row = int(x // _REGION), int(y // _REGION)
    best, found = np.inf, (column, row)
    for i in range(column - 1, column + 2):
        for j in range(row - 1, row + 2):
            dx, dy = stream(seed, 2, i, j).uniform(0.15, 0.85, 2)
            distance = ((i + dx) * _REGION - x) ** 2 + ((j + dy) * _REGION - y) ** 2
            if distance < best:
                best, found = float(distance), (i, j)
    return found


@lru_cache(maxsize=1 << 10)
def region(seed: int, place: Site) -> Region:
    """Return the farming of a region."""
    rng = stream(seed, 3, *place)
    system = _SYSTEMS[rng.integers(len(_SYSTEMS))]
    return Region(
        kinds=rng.dirichlet(_KINDS * 16),
        crops=rng.dirichlet(system * 24),
        area_m2=float(rng.uniform(20_000, 50_000)),
        strips=bool(rng.random() < 0.3),
    )


@lru_cache(maxsize=1 << 13)
def cell(seed: int, site: Site) -> NDArray[np.float64]:
    """Return the (n, 2) Voronoi polygon of a district, before the warp."""
    x, y = own = np.array(centre(seed, site))
    reach = 3 * SPACING
    corners = np.array([[x - reach, y - reach], [x + reach, y - reach]])
    corners = np.vstack([corners, [[x + reach, y + reach], [x - reach, y + reach]]])
    for other in neighbours(site):
        there = np.array(centre(seed, other))
        corners = clip(corners, (own + there) / 2, there - own)
    steps = corners - np.roll(corners, 1, axis=0)
    keep: NDArray[np.bool_] = np.hypot(steps[:, 0], steps[:, 1]) > 0.01
    return corners[keep]


def neighbours(site: Site) -> list[Site]:
    """Return the districts that may touch this one."""
    near = range(-2, 3)
    return [(site[0] + i, site[1] + j) for j in near for i in near if (i, j) != (0, 0)]


def borders(seed: int, site: Site, corners: NDArray[np.float64]) -> list[Border]:
    """Return the edges of a district with the road that runs along each.

    Both districts of an edge state the same road, because it is drawn from the pair.
    """
    own = np.array(centre(seed, site))
    others = neighbours(site)
    points = np.array([centre(seed, other) for other in others])
    found = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        middle = (a + b) / 2
        gap = np.abs(np.hypot(*(points - middle).T) - np.hypot(*(own - middle)))
        found.append(_border(seed, site, others[int(gap.argmin())], np.array([a, b])))
    return found


def _border(seed: int, site: Site, other: Site, ends: NDArray[np.float64]) -> Border:
    low, high = sorted([site, other])
    if low != site:
        ends = ends[::-1]  # one direction for both sides: the same buffer, bit for bit
    rng = stream(seed, 4, *low, *high)
    key, chance = int(rng.integers(1 << 31)), rng.random()
    main = region_of(seed, low) != region_of(seed, high)
    width, cover = float(rng.uniform(7.0, 9.0)), Cover.ASPHALT
    if not main and chance < 0.55:
        width = float(rng.uniform(4.2, 6.2))
    elif not main and chance < 0.75:
        width, cover = float(rng.uniform(3.2, 4.2)), Cover.GRAVEL
    elif not main:
        width = 0.0
    return Border(ends, other, width, cover, main and rng.random() < 0.35, key)


def kind_of(seed: int, site: Site) -> Kind:
    """Return how a district is used."""
    shares = region(seed, region_of(seed, site)).kinds
    return Kind(int(stream(seed, 5, *site).choice(len(shares), p=shares)))


def sites_in(seed: int, frame: Frame) -> list[Site]:
    """Return the districts whose ground may show in a frame, row by row."""
    left, bottom, right, top = frame.expanded(_OVERHANG_M).bounds
    found = []
    for site in sites_near(frame):
        low, high = cell(seed, site).min(0), cell(seed, site).max(0)
        if low[0] < right and high[0] > left and low[1] < top and high[1] > bottom:
            found.append(site)
    return found


def sites_near(frame: Frame) -> list[Site]:
    """Return a rectangle of districts that holds all that may show in a frame, row by row."""
    reach = 1.4 * SPACING
    left, bottom, right, top = frame.bounds
    columns = range(int((left - reach) // SPACING), int((right + reach) // SPACING) + 1)
    rows = range(int((bottom - reach) // SPACING), int((top + reach) // SPACING) + 1)
    return [(i, j) for j in rows for i in columns]


@lru_cache(maxsize=64)
def _river_waves(seed: int, number: int) -> NDArray[np.float64]:
    """Return offset, width, then (wavelength, phase, amplitude) of four meanders."""
    rng = stream(seed, 6, number)
    waves = [[w * rng.uniform(0.8, 1.25), rng.uniform(0, 2 * np.pi), a] for w, a in _MEANDERS]
    return np.array([rng.uniform(-300, 300), rng.uniform(4.0, 15.0), *np.ravel(waves)])


_MEANDERS = ((4200.0, 350.0), (1500.0, 110.0), (520.0, 30.0), (190.0, 9.0))
_RIVER_SPACING = 1900.0
_RIVER_STEP = 12.0


@dataclass(frozen=True, slots=True)
class River:
    """Centre line of a river near some place: (n, 2) points 12 m apart, and its width."""

    number: int
    first: int
    points: NDArray[np.float64]
    width: float


def rivers(seed: int, low: NDArray[np.float64], high: NDArray[np.float64]) -> list[River]:
    """Return the rivers that pass near the box from `low` to `high`."""
    turn = float(stream(seed, 7).uniform(0, np.pi))
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    box = np.array([[a, b] for a in (low[0], high[0]) for b in (low[1], high[1])]) @ axes.T
    first = int(box[:, 0].min() // _RIVER_STEP) - 5
    along = np.arange(first, int(box[:, 0].max() // _RIVER_STEP) + 7) * _RIVER_STEP
    numbers = (np.array([box[:, 1].min() - 900, box[:, 1].max() + 900]) / _RIVER_SPACING).round()
    found = []
    for number in range(int(numbers[0]), int(numbers[1]) + 1):
        offset, width, *rest = _river_waves(seed, number)
        across = np.full(len(along), number * _RIVER_SPACING + offset)
        for length, phase, height in np.reshape(rest, (-1, 3)):
            across += height * np.sin(2 * np.pi * along / length + phase)
        if across.max() > box[:, 1].min() - 30 and across.min() < box[:, 1].max() + 30:
            points = np.stack([along, across], axis=1) @ axes
            found.append(River(number, first, points, float(width)))
    return found
