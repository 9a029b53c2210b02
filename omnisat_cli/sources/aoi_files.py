"""The outline of an area as a file gives it: geometries, CRS, what the reader said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import SecurityError, SourceError
from omnisat_cli.sources.vectors import GEOJSON, read_table, vector_kind

if TYPE_CHECKING:
    from pathlib import Path

    from shapely.geometry.base import BaseGeometry

MAX_BYTES = 256 * 2**20
MAX_FEATURES = 1_000_000
POLYGONS = ("Polygon", "MultiPolygon")

_LON_LAT = "OGC:CRS84"


@dataclass(frozen=True, slots=True)
class Outline:
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


def read_outline(place: Path) -> Outline:
    """Read a vector file with the reader its first bytes call for.

    Raises:
        SecurityError: If the file is absurdly large.
        SourceError: If it is damaged, or GeoJSON that holds anything but polygons.
    """
    size = place.stat().st_size
    if size > MAX_BYTES:
        raise SecurityError(f"{place}: {size} bytes, the limit for an area is {MAX_BYTES}")
    kind = vector_kind(place, "area")
    return _read_geojson(place) if kind == GEOJSON else _read_frame(place, kind)


def _read_geojson(place: Path) -> Outline:
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
    return Outline(shapes, crs, because)


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
    if kind not in POLYGONS:
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


def _read_frame(place: Path, kind: str) -> Outline:
    """Read a GeoPackage, Shapefile or GeoParquet through geopandas."""
    table = read_table(place, "area")
    crs = table.frame.crs.to_wkt() if table.frame.crs is not None else ""
    return Outline(tuple(table.frame.geometry), crs, f"the {kind} itself", table.notes)
