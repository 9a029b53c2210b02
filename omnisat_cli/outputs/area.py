"""How many hectares of each class a map holds."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.geo.crs import short_crs
from omnisat_cli.outputs.mosaic import histogram
from omnisat_cli.outputs.sidecars import csv_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyproj
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.outputs.legend import Legend

_SQUARE_METRES = 10_000
_SPHERE_M = 6_371_008.8
_STRETCH = 0.005
"""Areal distortion that is worth a remark: national projections stay below."""


@dataclass(frozen=True, slots=True)
class ClassArea:
    """Ground of one class.

    Attributes:
        code: Value in the map.
        name_en: English name.
        name_fr: French name.
        pixels: Pixels of the class.
        hectares: The same on the ground of the CRS.
        share: Part of the pixels that have a class, 0 to 1.
    """

    code: int
    name_en: str
    name_fr: str
    pixels: int
    hectares: float
    share: float


def area_table(path: Path, legend: Legend) -> tuple[ClassArea, ...]:
    """Measure a class map, streaming.

    Args:
        path: The map.
        legend: What its codes mean.

    Returns:
        One row a class of the legend, in the order of the codes.
    """
    return class_areas(histogram(path), legend, pixel_hectares(path))


def class_areas(
    counts: NDArray[np.int64], legend: Legend, hectares: float
) -> tuple[ClassArea, ...]:
    """Return the table for known counts.

    Args:
        counts: (256,) pixels of each value.
        legend: What the values mean.
        hectares: Ground of one pixel.
    """
    total = max(1, sum(int(counts[code]) for code in legend.codes))
    return tuple(
        ClassArea(
            code=code,
            name_en=entry.name_en,
            name_fr=entry.name_fr,
            pixels=int(counts[code]),
            hectares=round(int(counts[code]) * hectares, 6),
            share=round(int(counts[code]) / total, 6),
        )
        for code, entry in legend.by_code().items()
    )


def pixel_hectares(path: Path) -> float:
    """Return the ground of one pixel of a projected raster, in hectares."""
    from omnisat_cli.sources.safe import open_raster

    with open_raster(path) as dataset:
        return plane_hectares(dataset)


def plane_hectares(dataset: DatasetReader) -> float:
    """Return the ground of one pixel in the plane of a projected CRS, in hectares."""
    width, height = dataset.res
    metres = dataset.crs.linear_units_factor[1] if dataset.crs else 1.0
    return float(width * height * metres**2 / _SQUARE_METRES)


@dataclass(frozen=True, slots=True)
class Ground:
    """How much ground the pixels of a raster stand for.

    Attributes:
        rows: (H,) hectares of a pixel of each row.
        method: How it was measured, in words.
        remark: What a user should know of it, or "".
    """

    rows: NDArray[np.float64]
    method: str
    remark: str = ""


def measure_ground(dataset: DatasetReader) -> Ground:
    """Measure the pixels of a raster.

    In degrees, a pixel is a piece of the ellipsoid between two parallels, measured exactly. In a
    projected CRS it is a rectangle of its plane, as everywhere in that CRS; where the projection
    stretches areas by more than half a per cent, the remark says so.

    Args:
        dataset: An open raster, north-up, with a CRS.
    """
    import pyproj

    crs = pyproj.CRS.from_user_input(dataset.crs.to_wkt())
    name = short_crs(dataset.crs.to_string())
    if crs.is_geographic:
        rows = _ellipsoid_hectares(dataset, crs)
        return Ground(rows, f"on the ellipsoid of {name}, row by row")
    flat = plane_hectares(dataset)
    stretch = _stretch(dataset, crs)
    remark = ""
    if abs(stretch - 1) > _STRETCH:
        remark = (
            f"{name} shows areas {stretch:.3f} times as large as they are on the ground here; "
            "reproject the map to an equal-area CRS for true hectares"
        )
    return Ground(np.full(dataset.height, flat), f"in the plane of {name}", remark)


def _ellipsoid_hectares(dataset: DatasetReader, crs: pyproj.CRS) -> NDArray[np.float64]:
    """Return the ground of a pixel of each row of a raster in degrees.

    Source: area between the equator and a parallel, J. P. Snyder, Map Projections, USGS 1395,
    equation 3-12, as `q`.
    """
    grid, ellipsoid = dataset.transform, crs.ellipsoid
    unit = float(crs.axis_info[0].unit_conversion_factor)
    major = float(ellipsoid.semi_major_metre) if ellipsoid else _SPHERE_M
    minor = float(ellipsoid.semi_minor_metre) if ellipsoid else _SPHERE_M
    squared = 1 - (minor / major) ** 2
    edges = (grid.f + grid.e * np.arange(dataset.height + 1)) * unit
    sine = np.sin(np.clip(edges, -np.pi / 2, np.pi / 2))
    if squared > 0:
        e = np.sqrt(squared)
        zone = sine / (1 - squared * sine**2) + np.arctanh(e * sine) / e
    else:
        zone = 2 * sine
    width = abs(grid.a) * unit
    areas: NDArray[np.float64] = np.abs(np.diff(zone)) * minor**2 / 2 * width / _SQUARE_METRES
    return areas


def _stretch(dataset: DatasetReader, crs: pyproj.CRS) -> float:
    """Return by how much a projection enlarges areas in the middle of a raster."""
    import pyproj

    left, bottom, right, top = dataset.bounds
    projection = pyproj.Proj(crs)
    lon, lat = projection((left + right) / 2, (bottom + top) / 2, inverse=True)
    scale = float(projection.get_factors(lon, lat).areal_scale) if np.isfinite(lon) else 1.0
    return scale if np.isfinite(scale) else 1.0


def area_csv(rows: Sequence[ClassArea]) -> bytes:
    """Return the table as a CSV file."""
    return csv_table([entry.name for entry in fields(ClassArea)], [astuple(row) for row in rows])
