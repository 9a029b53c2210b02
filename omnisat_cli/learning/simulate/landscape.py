"""The surfaces that show in a frame, and their rasters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine

from omnisat_cli.learning.simulate import layout
from omnisat_cli.learning.simulate.district import district
from omnisat_cli.learning.simulate.legend import CLASS_OF_COVER
from omnisat_cli.learning.simulate.values import Frame, Parcel

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from omnisat_cli.learning.simulate.fields import Pixels
    from omnisat_cli.learning.simulate.layout import Content, Crown, House, Surface

PARCELS_A_DISTRICT = 1024
"""Parcel numbers set aside for a district."""


@dataclass(frozen=True, slots=True)
class Landscape:
    """N surfaces that show in a frame, in the order of painting.

    Attributes:
        frame: Ground that is covered.
        cover: (N,) `Cover`.
        key: (N,) number from which everything individual about a surface is drawn.
        angle: (N,) radians, direction of rows or walls.
        centre: (N, 2) x, y.
        parcel: (N,) parcel number, 0 where a surface is not a parcel.
        shapes: (N,) geometries.
        crowns: Single trees.
        houses: Buildings.
        markings: Centre lines of wide roads.
    """

    frame: Frame
    cover: NDArray[np.int64]
    key: NDArray[np.int64]
    angle: NDArray[np.float64]
    centre: NDArray[np.float64]
    parcel: NDArray[np.int32]
    shapes: NDArray[np.object_]
    crowns: tuple[Crown, ...]
    houses: tuple[House, ...]
    markings: tuple[BaseGeometry, ...]

    @property
    def classes(self) -> NDArray[np.uint8]:
        """(N,) class codes."""
        return np.array(CLASS_OF_COVER, np.uint8)[self.cover]

    def painted(self, pixels: Pixels) -> NDArray[np.int32]:
        """Return the number of the surface under each pixel centre, (rows, columns)."""
        box = shapely.box(*pixels.frame.bounds)
        seen = np.flatnonzero(shapely.intersects(self.shapes, box))
        shapes = list(zip(self.shapes[seen], seen.tolist(), strict=True))
        raster: NDArray[np.int32] = rasterize(
            shapes, out_shape=pixels.shape, transform=transform(pixels), fill=0, dtype="int32"
        )
        return raster

    def marked(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return where the dashes of centre lines are, 0 or 1, (rows, columns)."""
        dashes = [
            shapely.linestrings(
                [line.interpolate(at).coords[0], line.interpolate(at + 3).coords[0]]
            )
            for line in self.markings
            for at in np.arange(4.0, line.length - 6, 13.0)
        ]
        if not dashes:
            return np.zeros(pixels.shape, np.float32)
        where = transform(pixels)
        return np.asarray(rasterize(dashes, out_shape=pixels.shape, transform=where), np.float32)


def transform(pixels: Pixels) -> Affine:
    """Return the affine transform of a grid of pixels."""
    return Affine(pixels.gsd, 0, float(pixels.frame.left), 0, -pixels.gsd, float(pixels.frame.top))


def landscape(seed: int, frame: Frame, whole: Frame) -> Landscape:
    """Gather what shows in a frame.

    Args:
        seed: World.
        frame: Ground to cover.
        whole: Frame of the scene, from which parcels are numbered.
    """
    near = [(site, district(seed, site)) for site in layout.sites_in(seed, frame)]
    number = {site: n for n, site in enumerate(layout.sites_near(whole.expanded(2000)))}
    box = shapely.box(*frame.bounds)
    found: list[tuple[Surface, int]] = []
    for site, content in near:
        found += _numbered(content, box, number[site] * PARCELS_A_DISTRICT)
    found.sort(key=lambda pair: pair[0].level)  # stable: districts keep their order
    shapes = np.array([surface.geometry for surface, _ in found], dtype=object)
    centroids = shapely.centroid(shapes)
    return Landscape(
        frame=frame,
        cover=np.array([int(surface.cover) for surface, _ in found]),
        key=np.array([surface.key for surface, _ in found]),
        angle=np.array([surface.angle for surface, _ in found]),
        centre=np.stack([shapely.get_x(centroids), shapely.get_y(centroids)], axis=1),
        parcel=np.array([parcel for _, parcel in found], np.int32),
        shapes=shapes,
        crowns=tuple(
            c for _, content in near for c in content.crowns if _meets(c, frame, c.radius)
        ),
        houses=tuple(
            h for _, content in near for h in content.houses if _meets(h, frame, h.length)
        ),
        markings=tuple(m for _, content in near for m in content.markings if m.intersects(box)),
    )


def _numbered(content: Content, box: BaseGeometry, first: int) -> list[tuple[Surface, int]]:
    """Return the surfaces of a district that meet a box, with their parcel numbers."""
    parcel = first
    found = []
    meets = shapely.intersects(np.array([s.geometry for s in content.surfaces], object), box)
    for surface, shows in zip(content.surfaces, meets, strict=True):
        parcel += surface.parcel
        if shows:
            found.append((surface, parcel if surface.parcel else 0))
    return found


def _meets(thing: Crown | House, frame: Frame, reach: float) -> bool:
    left, bottom, right, top = frame.bounds
    return left - reach < thing.x < right + reach and bottom - reach < thing.y < top + reach


def parcels_of(land: Landscape) -> tuple[Parcel, ...]:
    """Return the parcels of a landscape, clipped to its frame, by number."""
    box = shapely.box(*land.frame.bounds)
    found = []
    for index in np.flatnonzero(land.parcel):
        clipped = shapely.intersection(land.shapes[index], box)
        if clipped.area >= 1.0:
            code = int(land.classes[index])
            found.append(Parcel(int(land.parcel[index]), code, clipped))
    return tuple(sorted(found, key=lambda parcel: parcel.id))
