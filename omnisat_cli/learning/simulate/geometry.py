"""Convex polygons, recursive splits, and the gentle warp that makes straight borders curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_WARP = ((910.0, 9.0), (430.0, 5.0), (240.0, 2.5))
"""(wavelength, amplitude) in metres of the warp's waves."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a piece of land is divided into parcels.

    Attributes:
        angle: Direction of the long sides, radians from east.
        area_m2: Median area of a piece; areas are log-normal.
        sigma: Spread of the logarithm of the area.
        elongation: Length over width that the pieces tend to.
        irregular: Spread of the direction of a cut, radians.
    """

    angle: float
    area_m2: float
    sigma: float = 0.55
    elongation: float = 1.6
    irregular: float = 0.05


def area(corners: NDArray[np.float64]) -> float:
    """Return the area of a (n, 2) polygon."""
    x, y = corners[:, 0], corners[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def clip(
    corners: NDArray[np.float64], point: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Keep the part of a convex (n, 2) polygon where (p - point) · normal ≤ 0."""
    side = (corners - point) @ normal
    kept: list[NDArray[np.float64]] = []
    for index in range(len(corners)):
        here, there = side[index - 1], side[index]
        if (here <= 0) != (there <= 0):
            t = here / (here - there)
            kept.append(corners[index - 1] + t * (corners[index] - corners[index - 1]))
        if there <= 0:
            kept.append(corners[index])
    return np.array(kept).reshape(-1, 2)


def cut_line(
    corners: NDArray[np.float64], cut: Cut, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose the line that divides a convex polygon: a point of it, and its normal."""
    axes = frame_axes(cut.angle)
    local = corners @ axes.T
    low, high = local.min(0), local.max(0)
    extent = high - low
    axis = 0 if extent[0] > cut.elongation * extent[1] else 1
    middle = (low + high) / 2
    middle[axis] = low[axis] + extent[axis] * rng.uniform(0.36, 0.64)
    normal = frame_axes(cut.angle + rng.normal(0.0, cut.irregular))[axis]
    return middle @ axes, normal


def split(
    corners: NDArray[np.float64], cut: Cut, rng: np.random.Generator, gap: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cut a convex polygon in two across its longer side.

    Returns:
        The two sides and the strip of `gap` metres between them; each may be empty (0, 2).
    """
    point, normal = cut_line(corners, cut, rng)
    edge = normal * gap / 2
    first, second = clip(corners, point - edge, normal), clip(corners, point + edge, -normal)
    between = clip(corners, point + edge, normal)
    between = clip(between, point - edge, -normal) if gap > 0 and len(between) else corners[:0]
    return first, second, between


def frame_axes(angle: float) -> NDArray[np.float64]:
    """Return the (2, 2) rows: unit vector along `angle`, unit vector across it."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


def subdivide(
    corners: NDArray[np.float64], cut: Cut, rng: np.random.Generator
) -> list[list[NDArray[np.float64]]]:
    """Divide a convex polygon until its pieces have the wanted areas.

    Returns:
        Pieces in a fixed order; each is one convex polygon, or two that form an L.
    """
    whole = area(corners)
    target = cut.area_m2 * float(np.exp(rng.normal(0.0, cut.sigma)))
    if whole < 1.45 * target or len(corners) < 3:
        return [[corners]] if whole > 60 else []
    first, second, _ = split(corners, cut, rng)
    if whole < 3.2 * target and rng.random() < 0.12 and len(second) >= 3:
        near, far, _ = split(second, cut, rng)
        return [piece for piece in ([first, near], [far]) if all(len(p) > 2 for p in piece)]
    return subdivide(first, cut, rng) + subdivide(second, cut, rng)


def warp(seed: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the displacement of a world: (n, 2) points to (n, 2) points."""
    rng = np.random.default_rng([seed, 77])
    waves = []
    for length, height in _WARP:
        for _ in range(2):
            heading, phase, tilt = rng.uniform(0, 2 * np.pi, 3)
            vector = 2 * np.pi / length * np.array([np.cos(heading), np.sin(heading)])
            waves.append((vector, phase, height * np.array([np.cos(tilt), np.sin(tilt)])))

    def displace(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = points.astype(np.float64)
        for vector, phase, push in waves:
            moved = moved + np.sin(points @ vector + phase)[:, None] * push
        return moved

    return displace


def warped(
    geometry: BaseGeometry, displace: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> BaseGeometry:
    """Bend a geometry; straight sides get a vertex at least every 30 m."""
    return shapely.transform(shapely.segmentize(geometry, 30.0), displace)


def merged(pieces: list[NDArray[np.float64]]) -> BaseGeometry:
    """Join the convex polygons of one parcel."""
    if len(pieces) == 1:
        return shapely.polygons(pieces[0])
    return shapely.union_all([shapely.polygons(piece) for piece in pieces], grid_size=1e-3)


def polygons_of(geometry: BaseGeometry, smallest: float) -> list[BaseGeometry]:
    """Return the polygons in a geometry that are at least `smallest` m² large."""
    return [
        part
        for part in shapely.get_parts(geometry)
        if part.geom_type == "Polygon" and part.area >= smallest
    ]


def rectangle(
    centre: NDArray[np.float64], angle: float, length: float, width: float
) -> BaseGeometry:
    """Return a rectangle whose `length` lies along `angle`."""
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array([length, width]) / 2
    return shapely.polygons(half @ frame_axes(angle) + centre)
