"""What labels are asked for, and over which imagery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import shapely

from omnisat_cli.errors import AlignmentError
from omnisat_cli.geo.crs import short_crs

if TYPE_CHECKING:
    from omnisat_cli.geo.lattice import Bounds


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """Labels as the user gives them.

    Attributes:
        path: Vector file (polygons or points) or GeoTIFF of codes.
        field: Column that holds the class; of a raster, its band by name or number.
        crs: CRS that overrules what the file says, or None.
        radius_m: Metres around a point that are labelled with it; 0 labels its pixel.
        borders: Whether the outlines of polygons are borders of parcels, as those of a land
            parcel register; not those of patches drawn somewhere inside of fields.
    """

    path: str
    field: str | None = None
    crs: str | None = None
    radius_m: float = 0.0
    borders: bool = True


@dataclass(frozen=True, slots=True)
class Ground:
    """Where imagery is.

    Attributes:
        crs: CRS of the lattice.
        footprints: Rectangles in that CRS.
    """

    crs: str
    footprints: tuple[Bounds, ...]

    @property
    def bounds(self) -> Bounds:
        """The rectangle around all footprints."""
        left, bottom, right, top = shapely.total_bounds([shapely.box(*b) for b in self.footprints])
        return float(left), float(bottom), float(right), float(top)

    def refuse_apart(self, bounds: Bounds, path: str) -> None:
        """Refuse labels that lie beside the imagery.

        Args:
            bounds: left, bottom, right, top of the labels, in the CRS of the lattice.
            path: Their file.

        Raises:
            AlignmentError: If no footprint meets them.
        """
        box = shapely.box(*bounds)
        cover = shapely.union_all([shapely.box(*footprint) for footprint in self.footprints])
        if not shapely.intersects(box, cover):
            km = float(shapely.distance(box, cover)) / 1000
            raise AlignmentError(
                f"{path}: the labels ({_extent(bounds)}) lie {km:.4g} km from the imagery "
                f"({_extent(self.bounds)}, both in {short_crs(self.crs)}); give labels of this "
                "ground, or check the CRS of both (--labels-crs)"
            )


def _extent(bounds: Bounds) -> str:
    left, bottom, right, top = bounds
    return f"x {left:.0f}..{right:.0f}, y {bottom:.0f}..{top:.0f}"
