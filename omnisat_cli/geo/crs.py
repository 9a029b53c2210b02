"""Coordinate reference systems: named, compared, and bounds moved between them.

A CRS travels as text: "EPSG:n" where it has a code, else WKT. Opens no file.
"""

from __future__ import annotations

import math
import re
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import pyproj
from pyproj.exceptions import ProjError

from omnisat_cli.errors import AlignmentError

if TYPE_CHECKING:
    from omnisat_cli.geo.lattice import Bounds

_EARTH_RADIUS = 6_371_008.8
_LOST_DATUM = re.compile(r"unknown|unnamed|not.?specified", re.IGNORECASE)
_CODE_IN_NAME = re.compile(r"EPSG\W{0,3}(\d{4,6})")
_ANY_CONFIDENCE = 20
_NAMED_ENOUGH = 24
_DENSIFY = 21
"""Points along an edge: straight lines do not stay straight."""


@lru_cache(maxsize=256)
def name_crs(text: str) -> tuple[str, str]:
    """Name a CRS by its EPSG code where it has one.

    Args:
        text: "EPSG:n", WKT, PROJ string or anything else that PROJ reads.

    Returns:
        "EPSG:n" or WKT, and what had to be recognised (a known projection under a lost name), "".

    Raises:
        AlignmentError: If the text is no CRS.
    """
    try:
        crs = _horizontal(pyproj.CRS.from_user_input(text))
        code = crs.to_epsg()
        if code is not None:
            return f"EPSG:{code}", ""
        named = _CODE_IN_NAME.search(crs.name)
        for guess in (int(named[1]) if named else None, crs.to_epsg(_ANY_CONFIDENCE)):
            if guess is None:
                continue
            known = pyproj.CRS.from_epsg(guess)
            if _same_definition(crs, known):
                return f"EPSG:{guess}", ""
            if _same_projection(crs, known):
                return (
                    f"EPSG:{guess}",
                    f"its datum is unnamed ({crs.name!r}) but the projection is that of "
                    f"EPSG:{guess} to 1 cm",
                )
        return str(crs.to_wkt()), ""
    except (ProjError, UnicodeError) as error:
        raise AlignmentError(f"{text[:80]!r} is no known CRS ({error}); give EPSG:n") from error


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """Drop what hides a code: heights, and the datum shift of WKT 1 (PROJ has better ones)."""
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    return crs.source_crs if crs.is_bound and crs.source_crs is not None else crs


def _same_definition(found: pyproj.CRS, known: pyproj.CRS) -> bool:
    """Whether a CRS without authority is a known one: the same datum and projection."""
    with warnings.catch_warnings():
        # PROJ strings lose the datum, which is why its name is compared too.
        warnings.simplefilter("ignore", UserWarning)
        same = found.to_dict() == known.to_dict()
    return same and _datum(found) == _datum(known)


def _datum(crs: pyproj.CRS) -> str:
    name = crs.datum.name if crs.datum is not None else ""
    return str(name).lower().removesuffix(" ensemble").replace("_", " ")


def _same_projection(found: pyproj.CRS, known: pyproj.CRS) -> bool:
    """Whether a CRS with a lost datum projects like a known one, to 1 cm."""
    lost = found.datum is None or _LOST_DATUM.match(found.datum.name)
    area = known.area_of_use
    if not lost or area is None or not (found.is_projected and known.is_projected):
        return False
    lons = [area.west, (area.west + area.east) / 2, area.east]
    lats = [area.south, (area.south + area.north) / 2, area.north]
    ours, theirs = pyproj.Proj(found)(lons, lats), pyproj.Proj(known)(lons, lats)
    return all(
        abs(a - b) < 0.01
        for p, q in zip(ours, theirs, strict=True)
        for a, b in zip(p, q, strict=True)
    )


def short_crs(crs: str) -> str:
    """Name a CRS in few words: its code, or its title where it has none."""
    return crs if len(crs) < _NAMED_ENOUGH else str(pyproj.CRS.from_user_input(crs).name)


@lru_cache(maxsize=256)
def same_crs(one: str, other: str) -> bool:
    """Whether two CRS place a point alike (axis order aside)."""
    return one == other or bool(
        pyproj.CRS.from_user_input(one).equals(
            pyproj.CRS.from_user_input(other), ignore_axis_order=True
        )
    )


@lru_cache(maxsize=256)
def is_metric(crs: str) -> bool:
    """Whether a CRS is projected with metres on both axes."""
    system = pyproj.CRS.from_user_input(crs)
    return bool(system.is_projected) and all(
        abs(axis.unit_conversion_factor - 1) < 1e-9 for axis in system.axis_info[:2]
    )


def is_geographic(crs: str) -> bool:
    """Whether a CRS gives longitudes and latitudes."""
    return bool(pyproj.CRS.from_user_input(crs).is_geographic)


def metres(crs: str, width: float, height: float, middle: float) -> float:
    """Return the larger side of a pixel in metres.

    Args:
        crs: CRS of the pixel.
        width: Extent along x, in CRS units.
        height: Extent along y, in CRS units.
        middle: y of the middle of the raster: degrees of longitude shrink towards the poles.
    """
    system = pyproj.CRS.from_user_input(crs)
    factor = float(system.axis_info[0].unit_conversion_factor)
    if not system.is_geographic:
        return max(width, height) * factor
    return _EARTH_RADIUS * factor * max(width * math.cos(middle * factor), height)


@lru_cache(maxsize=32)
def mover(source: str, target: str) -> pyproj.Transformer:
    """Return the transformer between two CRSs, x before y; building one takes 50 ms."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def moved_bounds(bounds: Bounds, source: str, target: str) -> Bounds:
    """Return the rectangle that holds `bounds` in another CRS.

    Raises:
        AlignmentError: If the rectangle has no image there.
    """
    if same_crs(source, target):
        return bounds
    moved = mover(source, target).transform_bounds(*bounds, densify_pts=_DENSIFY)
    if not all(math.isfinite(edge) for edge in moved):
        raise AlignmentError(
            f"the area {bounds} of {short_crs(source)} does not exist in {short_crs(target)}"
        )
    return (float(moved[0]), float(moved[1]), float(moved[2]), float(moved[3]))


def metric_crs(crs: str, bounds: Bounds) -> str:
    """Return a CRS in metres, or the UTM zone of the middle of `bounds` for any other."""
    if is_metric(crs):
        return crs
    left, bottom, right, top = bounds
    lon, lat = mover(crs, "OGC:CRS84").transform((left + right) / 2, (bottom + top) / 2)
    zone = min(60, max(1, int((lon + 180) // 6) + 1))
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"
