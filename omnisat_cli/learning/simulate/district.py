"""What stands in one district: parcels, tracks, hedges, woods, villages, water."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.learning.simulate import layout
from omnisat_cli.learning.simulate.geometry import (
    Cut,
    area,
    frame_axes,
    merged,
    polygons_of,
    rectangle,
    split,
    subdivide,
    warp,
    warped,
)
from omnisat_cli.learning.simulate.layout import (
    Content,
    Crown,
    House,
    Kind,
    Level,
    River,
    Site,
    Surface,
)
from omnisat_cli.learning.simulate.legend import ANNUAL_CROPS, Cover

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_SMALLEST_PARCEL_M2 = 500.0
_HOUSE_ROOFS = (Cover.TILE_ROOF, Cover.SLATE_ROOF)


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the makers of a district work on.

    Attributes:
        seed: World.
        corners: (n, 2) convex cell before the warp.
        free: Warped ground without roads and rivers.
        displace: The warp.
        rng: Generator of this district.
        content: Where things are put.
    """

    seed: int
    site: Site
    corners: NDArray[np.float64]
    free: BaseGeometry
    displace: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    rng: np.random.Generator
    content: Content

    def add(self, cover: Cover, shape: BaseGeometry, angle: float, level: Level) -> None:
        """Put a surface that is not a parcel."""
        key = int(self.rng.integers(1 << 31))
        self.content.surfaces.append(Surface(cover, shape, key, angle, level))

    def bend(self, corners: NDArray[np.float64]) -> BaseGeometry:
        """Warp a convex polygon and keep its part on free ground."""
        return shapely.intersection(warped(shapely.polygons(corners), self.displace), self.free)


@lru_cache(maxsize=1024)
def district(seed: int, site: Site) -> Content:
    """Make a district. The same call gives the same district for every scene."""
    displace = warp(seed)
    corners = layout.cell(seed, site)
    rng = layout.stream(seed, 8, *site)
    content = Content()
    whole = warped(shapely.polygons(corners), displace)
    content.surfaces.append(
        Surface(Cover.LAWN, whole, int(rng.integers(1 << 31)), 0.0, Level.GROUND)
    )
    taken = _roads(seed, site, corners, content)
    taken += _rivers(seed, whole, content)
    free = shapely.difference(whole, shapely.union_all(taken)) if taken else whole
    ground = _Ground(seed, site, corners, free, displace, rng, content)
    _MAKERS[layout.kind_of(seed, site)](ground)
    return content


def _roads(
    seed: int, site: Site, corners: NDArray[np.float64], content: Content
) -> list[BaseGeometry]:
    """Lay the roads of the borders; return the ground they and their verges take."""
    displace, taken = warp(seed), []
    for border in layout.borders(seed, site, corners):
        line = warped(shapely.linestrings(border.ends), displace)
        rng = np.random.default_rng([seed, border.key])
        verge = float(rng.uniform(0.8, 2.5))
        taken.append(shapely.buffer(line, border.width / 2 + verge, quad_segs=4))
        if border.width == 0 or site > border.other:
            continue
        angle = float(np.arctan2(*(border.ends[1] - border.ends[0])[::-1]))
        level = Level.ROAD if border.cover is Cover.ASPHALT else Level.TRACK
        road = shapely.buffer(line, border.width / 2, quad_segs=4)
        content.surfaces.append(Surface(border.cover, road, border.key, angle, level))
        if border.width > 5.5:
            content.markings.append(line)
        if border.alley:
            side = border.width / 2 + 2.0
            _row_of_trees(shapely.offset_curve(line, side), rng, content)
            _row_of_trees(shapely.offset_curve(line, -side), rng, content)
    return taken


def _row_of_trees(line: BaseGeometry, rng: np.random.Generator, content: Content) -> None:
    for along in np.arange(6.0, line.length - 5, rng.uniform(9, 13)):
        point = line.interpolate(along)
        if rng.random() < 0.88:
            _tree(point.x, point.y, float(rng.uniform(2.2, 3.8)), rng, content)


def _tree(x: float, y: float, radius: float, rng: np.random.Generator, content: Content) -> None:
    """Plant a single broadleaved tree."""
    height = radius * float(rng.uniform(2.0, 3.2))
    content.crowns.append(Crown(x, y, radius, height))
    disc = shapely.buffer(shapely.points(x, y), radius, quad_segs=3)
    key = int(rng.integers(1 << 31))
    content.surfaces.append(Surface(Cover.DECIDUOUS, disc, key, 0.0, Level.TREE))


def _rivers(seed: int, whole: BaseGeometry, content: Content) -> list[BaseGeometry]:
    """Let rivers through, with trees on their banks; return the ground they take."""
    box = np.array(whole.bounds)
    taken = []
    for river in layout.rivers(seed, box[:2], box[2:]):
        line = shapely.linestrings(river.points)
        bed = shapely.intersection(shapely.buffer(line, river.width / 2, quad_segs=4), whole)
        if not bed.is_empty:
            key = river.number + (1 << 30)
            content.surfaces.append(Surface(Cover.WATER, bed, key, 0.0, Level.WATER))
            taken.append(shapely.buffer(line, river.width / 2 + 4.0, quad_segs=4))
            _bank_trees(seed, river, whole, content)
    return taken


def _bank_trees(seed: int, river: River, whole: BaseGeometry, content: Content) -> None:
    forward = np.gradient(river.points, axis=0)
    sideways = np.stack([-forward[:, 1], forward[:, 0]], axis=1)
    sideways /= np.hypot(*sideways.T)[:, None]
    for index in range(1, len(river.points) - 1):
        rng = layout.stream(seed, 9, river.number, river.first + index)
        for side in (-1, 1):
            if rng.random() < 0.45:
                offset = side * (river.width / 2 + rng.uniform(0.5, 4.0))
                x, y = river.points[index] + offset * sideways[index] + rng.uniform(-4, 4, 2)
                radius = float(rng.uniform(2.0, 4.5))
                if shapely.contains_xy(whole, x, y):
                    _tree(float(x), float(y), radius, rng, content)


def _arable(ground: _Ground) -> None:
    """Open fields of annual crops."""
    region = layout.region(ground.seed, layout.region_of(ground.seed, ground.site))
    elongation = float(
        ground.rng.uniform(3.5, 7.0) if region.strips else ground.rng.uniform(1.2, 2.4)
    )
    size = region.area_m2 * (0.6 if region.strips else 1.0)
    cut = Cut(float(ground.rng.uniform(0, np.pi)), size, elongation=elongation)
    _parcels(ground, cut, region.crops, hedges=0.06)


def _bocage(ground: _Ground) -> None:
    """Small enclosed fields, mostly meadow and maize."""
    region = layout.region(ground.seed, layout.region_of(ground.seed, ground.site))
    shares = 0.45 * region.crops
    shares[layout.REGION_CROPS.index(Cover.MEADOW)] += 0.45
    shares[layout.REGION_CROPS.index(Cover.MAIZE)] += 0.10
    angle = float(ground.rng.uniform(0, np.pi))
    cut = Cut(angle, 13_000.0, sigma=0.5, elongation=1.4, irregular=0.16)
    _parcels(ground, cut, shares, hedges=0.6)


def _slope(ground: _Ground) -> None:
    """Vineyards and orchards between a few fields."""
    region = layout.region(ground.seed, layout.region_of(ground.seed, ground.site))
    vine = float(ground.rng.choice([0.15, 0.75]))
    cut = Cut(float(ground.rng.uniform(0, np.pi)), 6_500.0, elongation=2.2)
    crops = np.append(0.25 * region.crops, [0.8 * vine, 0.8 * (1 - vine)])
    _parcels(ground, cut, crops / crops.sum(), hedges=0.08)


def _parcels(ground: _Ground, cut: Cut, shares: NDArray[np.float64], hedges: float) -> None:
    """Divide a district into parcels of crops.

    Args:
        ground: The district.
        cut: Size and direction of the parcels.
        shares: Shares of `layout.REGION_CROPS`, or of these, vine and orchard.
        hedges: Chance that a border of a parcel carries a hedge.
    """
    covers = (*layout.REGION_CROPS, Cover.VINE, Cover.ORCHARD)[: len(shares)]
    farm = ground.rng.random() < 0.3
    for pieces in _with_track(ground, cut):
        shape = shapely.intersection(warped(merged(pieces), ground.displace), ground.free)
        if farm and 3_000 < shape.area < 16_000:
            farm = False
            _farm(ground, pieces[0], cut.angle)
            continue
        cover = covers[int(ground.rng.choice(len(covers), p=shares / shares.sum()))]
        _parcel(ground, shape, cover, cut.angle)
        _hedges(ground, pieces, hedges)


def _with_track(ground: _Ground, cut: Cut) -> list[list[NDArray[np.float64]]]:
    """Divide the cell, mostly after a farm track has crossed it."""
    if ground.rng.random() > 0.65 or area(ground.corners) < 60_000:
        return subdivide(ground.corners, cut, ground.rng)
    gap = float(ground.rng.uniform(3.0, 4.0))
    first, second, strip = split(ground.corners, cut, ground.rng, gap + 1.2)
    if min(len(first), len(second), len(strip)) < 3:
        return subdivide(ground.corners, cut, ground.rng)
    track = shapely.buffer(ground.bend(strip), -0.6)
    ground.add(Cover.GRAVEL, track, cut.angle, Level.TRACK)
    return subdivide(first, cut, ground.rng) + subdivide(second, cut, ground.rng)


def _parcel(ground: _Ground, shape: BaseGeometry, cover: Cover, angle: float) -> None:
    """Sow one parcel: its margin stays grass; meadows get trees and sometimes a pond."""
    rng = ground.rng
    margin = float(rng.uniform(0.3, 1.4))
    inner = shapely.buffer(shape, -margin, join_style="mitre")
    along = angle + (0.0 if rng.random() < 0.8 else np.pi / 2) + float(rng.normal(0, 0.02))
    for part in polygons_of(inner, _SMALLEST_PARCEL_M2):
        field = part
        if cover is Cover.MEADOW and part.area > 6_000 and rng.random() < 0.07:
            field = _pond(ground, part)
        key = int(rng.integers(1 << 31))
        for piece in polygons_of(field, _SMALLEST_PARCEL_M2):
            ground.content.surfaces.append(Surface(cover, piece, key, along, Level.FIELD, True))
        density = 0.7 if cover is Cover.MEADOW else 0.04 if cover in ANNUAL_CROPS else 0.0
        _scatter(ground, part, density / 10_000, (2.0, 5.5))


def _pond(ground: _Ground, part: BaseGeometry) -> BaseGeometry:
    """Dig a pond into a parcel; return what is left of the parcel."""
    rng = ground.rng
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    radius = rng.uniform(7, 20) * np.ones(28)
    for wave in (1, 2, 3):
        radius *= 1 + 0.16 * rng.uniform() * np.sin(wave * turn + rng.uniform(0, 2 * np.pi))
    spot = part.representative_point()
    ring = np.stack([spot.x + radius * np.cos(turn), spot.y + radius * np.sin(turn)], axis=1)
    pond = shapely.intersection(shapely.polygons(ring), part)
    ground.add(Cover.WATER, pond, 0.0, Level.WATER)
    return shapely.difference(part, shapely.buffer(pond, 2.0, quad_segs=2))


def _scatter(
    ground: _Ground, shape: BaseGeometry, density: float, radii: tuple[float, float]
) -> None:
    """Plant single trees at random, `density` a square metre."""
    left, bottom, right, top = shape.bounds
    count = int(ground.rng.poisson((right - left) * (top - bottom) * density)) if density else 0
    places = ground.rng.uniform([left, bottom], [right, top], (count, 2))
    for x, y in places[shapely.contains_xy(shape, places)] if count else ():
        _tree(float(x), float(y), float(ground.rng.uniform(*radii)), ground.rng, ground.content)


def _hedges(ground: _Ground, pieces: list[NDArray[np.float64]], chance: float) -> None:
    """Grow hedges on some borders of a parcel."""
    if len(pieces) > 1:
        return
    corners = pieces[0]
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if np.hypot(*(b - a)) > 25 and ground.rng.random() < chance / 2:
            line = warped(shapely.linestrings(np.array([a, b])), ground.displace)
            hedge = shapely.buffer(line, float(ground.rng.uniform(1.2, 3.0)), quad_segs=2)
            hedge = shapely.intersection(hedge, ground.free)
            ground.add(Cover.DECIDUOUS, hedge, 0.0, Level.HEDGE)


def _wood(ground: _Ground) -> None:
    """Stands of broadleaves and conifers, with a glade now and then."""
    conifer = float(ground.rng.choice([0.1, 0.4, 0.85]))
    cut = Cut(float(ground.rng.uniform(0, np.pi)), 32_000.0, sigma=0.6, irregular=0.2)
    for pieces in subdivide(ground.corners, cut, ground.rng):
        shape = shapely.intersection(warped(merged(pieces), ground.displace), ground.free)
        cover = Cover.CONIFER if ground.rng.random() < conifer else Cover.DECIDUOUS
        if ground.rng.random() < 0.07:
            _parcel(ground, shapely.buffer(shape, -4), Cover.MEADOW, cut.angle)
            continue
        for part in polygons_of(shapely.buffer(shape, float(ground.rng.uniform(-1, 0.5))), 50):
            ground.add(cover, part, cut.angle, Level.FIELD)


def _village(ground: _Ground) -> None:
    """Streets, houses and gardens; fields at the rim."""
    angle = float(ground.rng.uniform(0, np.pi))
    region = layout.region(ground.seed, layout.region_of(ground.seed, ground.site))
    middle = ground.corners.mean(0) + ground.rng.normal(0, 40, 2)
    reach = float(ground.rng.uniform(110, 210))
    covers = (Cover.MEADOW, Cover.ORCHARD, Cover.WHEAT, Cover.MAIZE)
    for block in _blocks(ground, ground.corners, angle):
        distance = np.hypot(*(block.mean(0) - middle))
        if distance < reach:
            cut = Cut(angle, 330 + 2.6 * distance, sigma=0.35, elongation=1.7, irregular=0.04)
            for pieces in subdivide(block, cut, ground.rng):
                _plot(ground, pieces[0], angle)
        elif distance < 1.6 * reach:
            cover = covers[int(ground.rng.choice(4, p=[0.5, 0.22, 0.16, 0.12]))]
            _parcel(ground, ground.bend(block), cover, angle)
        else:
            cut = Cut(angle, region.area_m2 * 0.7)
            for pieces in subdivide(block, cut, ground.rng):
                shape = shapely.intersection(warped(merged(pieces), ground.displace), ground.free)
                crop = layout.REGION_CROPS[int(ground.rng.choice(7, p=region.crops))]
                _parcel(ground, shape, crop, angle)


def _blocks(
    ground: _Ground, corners: NDArray[np.float64], angle: float
) -> list[NDArray[np.float64]]:
    """Lay streets until the blocks between them are about a hectare."""
    if len(corners) < 3:
        return []
    if area(corners) < 15_000:
        return [corners]
    gap = float(ground.rng.uniform(4.5, 6.5))
    first, second, strip = split(corners, Cut(angle, 0, irregular=0.1), ground.rng, gap + 1.6)
    if len(strip) > 2:
        street = shapely.buffer(ground.bend(strip), -0.8)
        ground.add(Cover.ASPHALT, street, angle, Level.ROAD)
    return _blocks(ground, first, angle) + _blocks(ground, second, angle)


def _plot(ground: _Ground, corners: NDArray[np.float64], angle: float) -> None:
    """Build a house with its drive and garden on one plot."""
    rng = ground.rng
    shape = shapely.buffer(ground.bend(corners), -1.2, join_style="mitre")
    if shape.is_empty or shape.area < 120:
        return
    ground.add(Cover.LAWN, shape, angle, Level.FIELD)
    middle = np.array(shape.centroid.coords[0]) + rng.uniform(-4, 4, 2)
    length, width = rng.uniform(9, 17), rng.uniform(7, 10.5)
    wall = angle + float(rng.choice([0.0, np.pi / 2])) + float(rng.normal(0, 0.04))
    built = _house(
        ground,
        shape,
        House(float(middle[0]), float(middle[1]), wall, length, width, 4.5, 0.75),
        _HOUSE_ROOFS,
    )
    if built:
        beside = middle + frame_axes(wall)[1] * (width / 2 + 3.5)
        drive = rectangle(beside, wall, float(rng.uniform(6, 12)), float(rng.uniform(4, 7)))
        ground.add(Cover.GRAVEL, shapely.intersection(drive, shape), wall, Level.YARD)
    _scatter(ground, shape, 30 / 10_000, (1.2, 3.5))


def _house(
    ground: _Ground, plot: BaseGeometry, house: House, roofs: tuple[Cover, ...]
) -> BaseGeometry | None:
    """Put a building where it fits; return its outline."""
    centre = np.array([house.x, house.y])
    outline = rectangle(centre, house.angle, house.length, house.width)
    if not plot.contains(outline):
        return None
    weights = np.array([0.66, 0.34]) if len(roofs) == 2 else np.array([0.4, 0.2, 0.4])
    roof = roofs[int(ground.rng.choice(len(roofs), p=weights))]
    ground.add(roof, outline, house.angle, Level.BUILDING)
    ground.content.houses.append(house)
    return outline


def _farm(ground: _Ground, corners: NDArray[np.float64], angle: float) -> None:
    """Build an isolated farm: yard, house, sheds, a few trees."""
    rng = ground.rng
    shape = shapely.buffer(ground.bend(corners), -3.0)
    if shape.is_empty:
        return
    spot = shape.representative_point()
    middle = np.array([spot.x, spot.y])
    yard = rectangle(middle, angle, float(rng.uniform(50, 75)), float(rng.uniform(38, 55)))
    ground.add(Cover.GRAVEL, shapely.intersection(yard, shape), angle, Level.YARD)
    axes = frame_axes(angle)
    roofs = (Cover.TILE_ROOF, Cover.SLATE_ROOF, Cover.METAL_ROOF)
    for u, v, length, width in ((-20, 12, 16, 10), (14, 14, 30, 15), (14, -13, 34, 16)):
        place = middle + np.array([u, v]) @ axes + rng.uniform(-1.5, 1.5, 2)
        size = rng.uniform(0.75, 1.15)
        house = House(
            float(place[0]), float(place[1]), angle, length * size, width * size, 5.0, 0.4
        )
        _house(ground, shape, house, roofs[:2] if length < 20 else roofs)
    _scatter(ground, shapely.difference(shape, yard), 22 / 10_000, (2.0, 5.0))


_MAKERS: dict[Kind, Callable[[_Ground], None]] = {
    Kind.ARABLE: _arable,
    Kind.BOCAGE: _bocage,
    Kind.WOOD: _wood,
    Kind.VILLAGE: _village,
    Kind.SLOPE: _slope,
}
