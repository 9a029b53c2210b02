"""Polygons of the user made fit for computing; what the user has stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.geo.crs import is_geographic, mover, same_crs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
_STEP_M, _STEP_DEGREES = 1000.0, 0.01
"""Longer edges are cut before they are warped: straight lines do not stay straight."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Copies of geometries that can be measured.

    Attributes:
        polygons: (N,) valid Polygon or MultiPolygon, or None where there is none to measure.
        repaired: (N,) whether the outline crossed itself or was otherwise not valid.
        absent: (N,) whether the feature has no polygon: none at all, a line, a curve, no area. A
            polygon that the other CRS cannot show is not absent, but None.
    """

    polygons: NDArray[np.object_]
    repaired: NDArray[np.bool_]
    absent: NDArray[np.bool_]


def make_fit(wkb: NDArray[np.object_], crs: str, target_crs: str) -> Fit:
    """Parse, bring to another CRS and repair.

    Args:
        wkb: (N,) well-known binary, None where a feature has no geometry.
        crs: CRS of the geometries.
        target_crs: CRS they are measured in.
    """
    shapes = shapely.force_2d(shapely.from_wkb(wkb, on_invalid="ignore"))
    kind = shapely.get_type_id(shapes)
    areal = (kind == _POLYGON) | (kind == _MULTIPOLYGON) | (kind == _COLLECTION)
    shapes[~areal] = None
    flawed = ~shapely.is_valid(shapes) & areal  # before the warp: its rounding is not the user's
    polygons = _moved(shapes, crs, target_crs)
    far = ~_finite(polygons)
    polygons[far] = None
    wrong = ~shapely.is_valid(polygons) & (shapely.get_type_id(polygons) >= 0)
    wrong |= shapely.get_type_id(polygons) == _COLLECTION
    for index in np.flatnonzero(wrong):
        polygons[index] = _surfaces(polygons[index])
    lost = ~(shapely.area(polygons) > 0)
    polygons[lost] = None
    return Fit(polygons, flawed & ~lost, lost & ~far)


def _moved(shapes: NDArray[np.object_], crs: str, target_crs: str) -> NDArray[np.object_]:
    if same_crs(crs, target_crs):
        return shapes.copy()
    fine = shapely.segmentize(shapes, _STEP_DEGREES if is_geographic(crs) else _STEP_M)
    warp = mover(crs, target_crs)
    moved: NDArray[np.object_] = shapely.transform(
        fine, lambda xy: np.stack(warp.transform(*xy.T), axis=1)
    )
    return moved


def _finite(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    bad = np.unique(owner[~np.isfinite(points).all(axis=1)])
    finite = np.ones(len(shapes), bool)
    finite[bad] = False
    return finite


def _surfaces(shape: shapely.Geometry) -> shapely.Geometry | None:
    """Return the ground a faulty outline encloses; where parts overlap, it counts once."""
    whole = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    parts = shapely.get_parts(shapely.get_parts(whole))
    kept = [part for part in parts if part.geom_type == "Polygon" and part.area > 0]
    return shapely.union_all(kept) if kept else None
