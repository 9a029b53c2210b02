"""The area of interest: read, checked, repaired where that is safe, brought to the map's CRS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.crs import is_metric, mover, name_crs, same_crs
from omnisat_cli.sources.aoi_files import POLYGONS, Outline, read_outline
from omnisat_cli.sources.safe import local_path
from omnisat_cli.sources.values import Decision
from omnisat_cli.sources.vectors import refuse_contradiction, surfaces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shapely.geometry.base import BaseGeometry

    from omnisat_cli.geo.lattice import Bounds

_EDGE_PARTS = 64
"""Straight edges are cut into at least this many parts of the extent before they are warped."""


@dataclass(frozen=True, slots=True)
class Area:
    """The ground to map.

    Attributes:
        polygon: Valid polygon or multipolygon in the CRS of the lattice.
        crs: That CRS.
        description: Where it came from.
        decisions: What was recognised or repaired.
    """

    polygon: BaseGeometry
    crs: str
    description: str
    decisions: tuple[Decision, ...] = ()

    def __post_init__(self) -> None:
        shapely.prepare(self.polygon)

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in CRS units."""
        left, bottom, right, top = (float(edge) for edge in self.polygon.bounds)
        return left, bottom, right, top

    @property
    def km2(self) -> float:
        """Size in km²."""
        return float(self.polygon.area) / 1e6


def read_aoi(
    path: str | Path | None,
    bbox: Bounds | None,
    *,
    target_crs: str,
    aoi_crs: str | None = None,
    bbox_crs: str | None = None,
) -> Area:
    """Read the area of interest and bring it to the CRS of the map.

    Args:
        path: GeoJSON, GeoPackage, Shapefile or GeoParquet, or None.
        bbox: left, bottom, right, top instead of a file, or None.
        target_crs: CRS of the lattice; projected, in metres.
        aoi_crs: CRS of `path`, overruling what the file says.
        bbox_crs: CRS of `bbox`; that of the lattice where None.

    Raises:
        JobError: If both or neither of `path` and `bbox` are given, or the box is inside out.
        SecurityError: If the path is remote or virtual, or the file absurdly large.
        SourceError: If the file is damaged or holds anything but polygons.
        AlignmentError: If coordinates and CRS contradict each other.
    """
    _refuse_geographic(target_crs)
    if (path is None) == (bbox is None):
        raise JobError("give the area either as --aoi FILE or as --bbox LEFT BOTTOM RIGHT TOP")
    if bbox is not None:
        return _read_bbox(bbox, bbox_crs, target_crs)
    assert path is not None
    place = local_path(path)
    if place.is_dir():
        raise SourceError(f"{place}: is a folder; give the file inside it")
    outline = read_outline(place)
    crs, decision = _outline_crs(outline, place, aoi_crs)
    decisions = [decision]
    decisions += [
        Decision("area", note, "said by its reader", warning=True) for note in outline.notes
    ]
    polygon = _one_polygon(outline, str(place), decisions)
    refuse_contradiction(polygon.bounds, crs, str(place), "--aoi-crs", target_crs)
    polygon = _to_crs(polygon, crs, target_crs, str(place))
    return Area(polygon, target_crs, str(path), tuple(decisions))


def area_of(footprints: Sequence[Bounds], crs: str, description: str) -> Area:
    """Make the area that rectangles cover, for jobs without an area of interest.

    Raises:
        AlignmentError: If they cover nothing, or the CRS is not in metres.
    """
    _refuse_geographic(crs)
    boxes = [shapely.box(*bounds) for bounds in footprints]
    polygon = shapely.union_all(boxes) if boxes else shapely.Polygon()
    if polygon.is_empty or polygon.area == 0:
        raise AlignmentError(f"{description}: covers no ground; give the area with --aoi")
    return Area(polygon, crs, description)


def _refuse_geographic(crs: str) -> None:
    if not is_metric(crs):
        raise AlignmentError(
            f"the map grid is in {crs[:60]}, which is not in metres; choose a projected CRS "
            "with --crs EPSG:n"
        )


def _read_bbox(bbox: Bounds, bbox_crs: str | None, target_crs: str) -> Area:
    """Check a box and bring it to the CRS of the map."""
    left, bottom, right, top = bbox
    if not all(math.isfinite(edge) for edge in bbox) or right <= left or top <= bottom:
        raise JobError(
            f"--bbox {left:g} {bottom:g} {right:g} {top:g} is no rectangle; the order is "
            "LEFT BOTTOM RIGHT TOP"
        )
    crs = name_crs(bbox_crs)[0] if bbox_crs else target_crs
    box = shapely.box(left, bottom, right, top)
    refuse_contradiction(box.bounds, crs, "--bbox", "--bbox-crs", target_crs)
    because = "given with --bbox-crs" if bbox_crs else "the CRS of the map"
    decision = Decision("area crs", crs[:80], because, "--bbox-crs")
    text = f"bbox {left:.10g} {bottom:.10g} {right:.10g} {top:.10g} ({crs[:40]})"
    return Area(_to_crs(box, crs, target_crs, "--bbox"), target_crs, text, (decision,))


def _outline_crs(outline: Outline, place: Path, aoi_crs: str | None) -> tuple[str, Decision]:
    """Decide the CRS of the outline."""
    if aoi_crs is not None:
        crs, because = name_crs(aoi_crs)[0], "given with --aoi-crs"
    elif outline.crs:
        crs, because = name_crs(outline.crs)[0], outline.because
    else:
        raise AlignmentError(
            f"{place}: has no coordinate reference system (no .prj beside it?); "
            "say it with --aoi-crs EPSG:n"
        )
    return crs, Decision("area crs", crs[:80], because, "--aoi-crs")


def _one_polygon(outline: Outline, where: str, decisions: list[Decision]) -> BaseGeometry:
    """Join all features to one valid polygon; repair self-intersection and say so."""
    shapes: list[BaseGeometry] = []
    for number, shape in enumerate(outline.shapes, 1):
        if shape is None or shape.is_empty:
            raise SourceError(
                f"{where}, feature {number} of {len(outline.shapes)}: has no geometry; "
                "remove the feature or draw it"
            )
        if shape.geom_type not in (*POLYGONS, "GeometryCollection"):
            raise SourceError(
                f"{where}, feature {number}: is a {shape.geom_type}; an area needs polygons"
            )
        if not np.isfinite(shapely.get_coordinates(shape)).all():
            raise SourceError(f"{where}, feature {number}: a coordinate is not finite")
        if shape.is_valid:
            shapes.append(shape)
            continue
        shapes.append(surfaces(shapely.make_valid(shape)))
        reason = str(shapely.is_valid_reason(shape))
        decisions.append(Decision("area", f"feature {number} repaired", reason, warning=True))
    if not shapes:
        raise SourceError(f"{where}: holds no feature; draw the area and export it again")
    joined = surfaces(shapely.union_all(shapes))
    if joined.is_empty or joined.area == 0:
        raise SourceError(f"{where}: its polygons enclose no ground; draw the area again")
    if len(shapes) > 1:
        decisions.append(Decision("area", "all features together", f"{len(shapes)} features"))
    return joined


def _to_crs(shape: BaseGeometry, crs: str, target_crs: str, where: str) -> BaseGeometry:
    """Warp a polygon; long edges are cut first, because straight lines do not stay straight."""
    if same_crs(crs, target_crs):
        return shape
    left, bottom, right, top = shape.bounds
    fine = shapely.segmentize(shape, max(right - left, top - bottom) / _EDGE_PARTS)
    warp = mover(crs, target_crs)
    moved = shapely.transform(fine, lambda xy: np.stack(warp.transform(*xy.T), axis=1))
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise AlignmentError(
            f"{where}: x {left:.10g}..{right:.10g}, y {bottom:.10g}..{top:.10g} ({crs[:40]}) lies "
            f"outside what {target_crs[:40]} can show; choose a CRS of that region with --crs"
        )
    moved = moved if moved.is_valid else surfaces(shapely.make_valid(moved))
    if moved.is_empty or moved.area == 0:
        raise AlignmentError(f"{where}: has no area left in {target_crs[:40]}; check its CRS")
    return moved
