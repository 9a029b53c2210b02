"""The area of interest: read, checked, repaired where that is safe, laid on the lattice."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import AlignmentError, JobError, SecurityError, SourceError
from omnisat_cli.geo.crs import is_metric, mover, name_crs, same_crs
from omnisat_cli.sources.safe import local_path
from omnisat_cli.sources.values import Decision
from omnisat_cli.sources.vectors import (
    GEOJSON,
    read_table,
    refuse_contradiction,
    surfaces,
    vector_kind,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from omnisat_cli.geo.lattice import Bounds, Lattice, Window

MAX_BYTES = 256 * 2**20
MAX_FEATURES = 1_000_000

_LON_LAT = "OGC:CRS84"
_POLYGONS = ("Polygon", "MultiPolygon")
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


@dataclass(frozen=True, slots=True)
class _Outline:
    """Geometries as a file gives them.

    Attributes:
        shapes: One for each feature; None where the feature has no geometry.
        crs: CRS name, or "" where the file has none.
        because: Where the CRS was found.
        notes: What the reader of the format complained about.
    """

    shapes: tuple[BaseGeometry | None, ...]
    crs: str
    because: str
    notes: tuple[str, ...] = ()


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
    outline = _read_outline(place)
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


def _read_outline(place: Path) -> _Outline:
    """Read a vector file with the reader its first bytes call for."""
    size = place.stat().st_size
    if size > MAX_BYTES:
        raise SecurityError(f"{place}: {size} bytes, the limit for an area is {MAX_BYTES}")
    kind = vector_kind(place, "area")
    return _read_geojson(place) if kind == GEOJSON else _read_frame(place, kind)


def _read_geojson(place: Path) -> _Outline:
    """Read GeoJSON ourselves: sizes, numbers and types are checked on the way."""
    try:
        tree = json.loads(place.read_text("utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise SourceError(f"{place}: is nested too deeply to be an area") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{place}: is no readable GeoJSON ({error}); export it again") from error
    crs, because = _geojson_crs(tree, place)
    features = tree.get("features") if tree.get("type") == "FeatureCollection" else [tree]
    if not isinstance(features, list) or not features:
        raise SourceError(f"{place}: holds no feature; draw the area and export it again")
    if len(features) > MAX_FEATURES:
        raise SecurityError(f"{place}: {len(features)} features, the limit is {MAX_FEATURES}")
    shapes = tuple(
        _geojson_shape(feature, f"{place}, feature {number}")
        for number, feature in enumerate(features, 1)
    )
    return _Outline(shapes, crs, because)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no coordinate")


def _geojson_crs(tree: dict[str, object], place: Path) -> tuple[str, str]:
    """Return the CRS of the old `crs` member, which desktop tools still write."""
    member = tree.get("crs")
    if member is None:
        return _LON_LAT, "GeoJSON without a crs member is in degrees"
    properties = member.get("properties") if isinstance(member, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if not isinstance(name, str) or len(name) > 10_000:
        raise SourceError(f"{place}: its crs member has no name; give the CRS with --aoi-crs")
    return (name, "the crs member of the file") if name else (_LON_LAT, "an empty crs member")


def _geojson_shape(feature: object, where: str) -> BaseGeometry | None:
    """Build the polygons of one feature or bare geometry."""
    if not isinstance(feature, dict):
        raise SourceError(f"{where}: is no GeoJSON object; export the area again")
    geometry = feature.get("geometry") if feature.get("type") == "Feature" else feature
    if geometry is None:
        return None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
        parts = [_geojson_shape(part, where) for part in geometry["geometries"]]
        return shapely.union_all([part for part in parts if part is not None])
    if kind not in _POLYGONS:
        raise SourceError(f"{where}: is a {kind!s:.40}; an area needs polygons")
    rings = geometry.get("coordinates")
    polygons = [rings] if kind == "Polygon" else rings
    if not isinstance(polygons, list):
        raise SourceError(f"{where}: has no coordinates; export the area again")
    shapes = [_polygon(polygon, where) for polygon in polygons]
    return shapes[0] if kind == "Polygon" else shapely.MultiPolygon(shapes)


def _polygon(rings: object, where: str) -> BaseGeometry:
    """Build one polygon from nested lists; a GeoJSON position may carry a height."""
    if not isinstance(rings, list) or not rings:
        raise SourceError(f"{where}: a polygon has no ring; export the area again")
    outlines = []
    for ring in rings:
        try:
            points = np.asarray(ring, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"{where}: a coordinate is no number ({error})") from error
        if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] < 2:
            raise SourceError(
                f"{where}: a ring has shape {points.shape}; it needs at least 3 points of 2 numbers"
            )
        if not np.isfinite(points[:, :2]).all():
            raise SourceError(f"{where}: a coordinate is not finite; export the area again")
        outlines.append(points[:, :2])
    return shapely.Polygon(outlines[0], outlines[1:])


def _read_frame(place: Path, kind: str) -> _Outline:
    """Read a GeoPackage, Shapefile or GeoParquet through geopandas."""
    table = read_table(place, "area")
    crs = table.frame.crs.to_wkt() if table.frame.crs is not None else ""
    return _Outline(tuple(table.frame.geometry), crs, f"the {kind} itself", table.notes)


def _outline_crs(outline: _Outline, place: Path, aoi_crs: str | None) -> tuple[str, Decision]:
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


def _one_polygon(outline: _Outline, where: str, decisions: list[Decision]) -> BaseGeometry:
    """Join all features to one valid polygon; repair self-intersection and say so."""
    shapes: list[BaseGeometry] = []
    for number, shape in enumerate(outline.shapes, 1):
        if shape is None or shape.is_empty:
            raise SourceError(
                f"{where}, feature {number} of {len(outline.shapes)}: has no geometry; "
                "remove the feature or draw it"
            )
        if shape.geom_type not in (*_POLYGONS, "GeometryCollection"):
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


def check_overlap(area: Area, footprints: Mapping[str, Sequence[Bounds]]) -> tuple[Decision, ...]:
    """Compare the area with the ground each modality covers.

    Args:
        area: The area of interest.
        footprints: Rectangles of each modality, in the CRS of the area.

    Returns:
        One decision a modality: how much of the area it covers.

    Raises:
        AlignmentError: If no modality meets the area.
    """
    shares, misses = {}, {}
    for name, boxes in footprints.items():
        near = [shapely.box(*bounds) for bounds in boxes]
        cover = shapely.union_all(near) if near else shapely.Polygon()
        shares[name] = float(area.polygon.intersection(cover).area / area.polygon.area)
        if shares[name] == 0:
            misses[name] = _miss(area, cover, name)
    if footprints and len(misses) == len(footprints):
        raise AlignmentError(
            f"the area ({_extent(area.polygon)}, {area.crs[:40]}) meets none of the inputs: "
            f"{'; '.join(misses.values())}. Check the CRS of the area (--aoi-crs) and the files"
        )
    return tuple(
        Decision(
            "coverage",
            f"{name} covers {share:.1%} of the area",
            misses.get(name, f"footprints of {len(footprints[name])} file(s) or cube(s)"),
            "--missing-modality",
            warning=share < 0.9995,
        )
        for name, share in shares.items()
    )


def _miss(area: Area, cover: BaseGeometry, name: str) -> str:
    if cover.is_empty:
        return f"{name} covers no ground at all"
    distance = float(area.polygon.distance(cover)) / 1000
    return f"{name} ({_extent(cover)}) is {distance:.4g} km away"


def _extent(shape: BaseGeometry) -> str:
    left, bottom, right, top = shape.bounds
    return f"x {left:.0f}..{right:.0f}, y {bottom:.0f}..{top:.0f}"


def meets(area: Area, lattice: Lattice, window: Window) -> bool:
    """Whether a window of anchor pixels holds any ground of the area; touching is not enough."""
    shapely.prepare(area.polygon)  # a no-op unless the area was just unpickled
    left, bottom, right, top = lattice.bounds(window)
    hair = 1e-4 * lattice.gsd
    box = shapely.box(left + hair, bottom + hair, right - hair, top - hair)
    return bool(shapely.intersects(area.polygon, box))


def rasterize_area(
    area: Area, lattice: Lattice, window: Window, refine: int = 1
) -> NDArray[np.bool_]:
    """Tell which pixels of a window have their centre inside the area.

    The answer for a pixel depends on the area and its place alone, not on the window; two areas
    that share a border share out its pixels without gap or overlap.

    Args:
        area: The area of interest.
        lattice: The anchor lattice.
        window: Window in anchor pixels.
        refine: Pixels along one anchor pixel.

    Returns:
        (height × refine, width × refine) bool.
    """
    fine = window.refined(refine)
    if fine.is_empty or not meets(area, lattice, window):
        return np.zeros(fine.shape, np.bool_)
    if shapely.contains(area.polygon, shapely.box(*lattice.bounds(window))):
        return np.ones(fine.shape, np.bool_)
    rows, cols = _crossings(area.polygon, lattice.gsd / refine, (fine.row, fine.row_end))
    inside = np.zeros((fine.height, fine.width + 1), np.uint8)
    cols = np.clip(cols - fine.col, 0, fine.width)
    np.add.at(inside, (rows - fine.row, cols), 1)
    np.add.accumulate(inside, axis=1, out=inside)  # wraps at 256: the parity stays
    return np.asarray((inside[:, :-1] & 1).astype(np.bool_))


def _crossings(
    polygon: BaseGeometry, pixel: float, rows: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where edges cross the centre lines of rows: (row, first column right of it)."""
    rings = shapely.get_rings(shapely.get_parts(polygon))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    u, v = points[:, 0] / pixel, -points[:, 1] / pixel
    same = ring[1:] == ring[:-1]
    ends = np.stack([u[:-1], v[:-1], u[1:], v[1:]])[:, same]
    # Ordered top to bottom, so that an edge walked the other way crosses at the same place.
    flip = (ends[1] > ends[3]) | ((ends[1] == ends[3]) & (ends[0] > ends[2]))
    ends[:, flip] = ends[:, flip][[2, 3, 0, 1]]
    first = np.maximum(np.ceil(ends[1] - 0.5).astype(np.int64), rows[0])
    last = np.minimum(np.ceil(ends[3] - 0.5).astype(np.int64), rows[1])
    count = np.clip(last - first, 0, None)
    edge = np.repeat(np.arange(count.size), count)
    start = np.repeat(np.cumsum(count) - count, count)
    row = first[edge] + np.arange(edge.size) - start
    top = ends[:, edge]
    slope = (top[2] - top[0]) / (top[3] - top[1])
    cross = top[0] + (row + 0.5 - top[1]) * slope
    return row, np.ceil(cross - 0.5).astype(np.int64)
