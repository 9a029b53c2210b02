"""Labels brought onto the grid of a map, part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import metres, moved_bounds, name_crs, same_crs, short_crs
from omnisat_cli.learning.labelling.grid import MapGrid
from omnisat_cli.learning.labelling.rasters import CodeRaster, code_band
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.sources.safe import open_raster
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.geo.lattice import Bounds, Window

_SNAP = 1e-3
"""Part of a pixel by which two grids may differ and still be one."""


class Reference(Protocol):
    """Labels on the grid of a map."""

    @property
    def bounds(self) -> Bounds:
        """Ground that may be labelled, in the CRS of the map."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was done to bring them there."""

    def read(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the codes (H, W) of a part of the map and which of its pixels are labelled."""


def grid_of(dataset: DatasetReader, path: Path) -> MapGrid:
    """Return the grid of a raster.

    Raises:
        AlignmentError: If it states no CRS or is not north-up.
    """
    if dataset.crs is None:
        raise AlignmentError(f"{path}: states no CRS; set it with gdal_edit.py -a_srs EPSG:N")
    grid = dataset.transform
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise AlignmentError(f"{path}: is not north-up: {tuple(grid)[:6]}; gdalwarp makes it so")
    crs, _ = name_crs(dataset.crs.to_wkt())
    return MapGrid(crs, tuple(grid)[:6], dataset.height, dataset.width)


def check_codes(dataset: DatasetReader, path: Path, band: int | None = None) -> None:
    """Check that a raster holds whole numbers.

    Args:
        dataset: The raster.
        path: Where it is, for messages.
        band: The band of the codes, from 1; None for a raster that must have one only.

    Raises:
        SourceError: If it does not.
    """
    kind = dataset.dtypes[(band or 1) - 1]
    whole = np.issubdtype(np.dtype(kind), np.integer)
    if band is not None and not whole:
        raise SourceError(f"{path}: band {band} is of type {kind}; class codes are whole numbers")
    if not whole or (band is None and dataset.count != 1):
        raise SourceError(
            f"{path}: has {dataset.count} band(s) of type {kind}; a raster of one band of class "
            "codes is needed"
        )


def check_overlap(labels: Bounds, grid: MapGrid, what: str) -> None:
    """Check that labels and map share ground.

    Raises:
        AlignmentError: If they do not; the message says how far apart they are.
    """
    left, bottom, right, top = grid.bounds
    across = max(left - labels[2], labels[0] - right)
    up = max(bottom - labels[3], labels[1] - top)
    if across < 0 and up < 0:
        return
    away = metres(grid.crs, max(across, 0), max(up, 0), (bottom + top) / 2)
    raise AlignmentError(
        f"{what} and the map do not overlap: they are {away / 1000:.3g} km apart "
        f"(labels {_corners(labels)}, map {_corners(grid.bounds)}, {short_crs(grid.crs)}); "
        "check the files and their CRS"
    )


@dataclass(frozen=True, slots=True)
class RasterReference:
    """A label raster; each pixel of the map takes the label under its centre.

    Attributes:
        raster: The file.
        grid: Grid of the map.
        decisions: What was done to bring it there.
        ignored: Codes that are no labels.
    """

    raster: CodeRaster
    grid: MapGrid
    decisions: tuple[Decision, ...]
    ignored: tuple[int, ...] = ()

    @property
    def bounds(self) -> Bounds:
        """Ground it covers, in the CRS of the map."""
        return moved_bounds(self.raster.bounds, self.raster.crs, self.grid.crs)

    def read(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return codes and labelled pixels; see `Reference.read`."""
        codes = self.raster.laid_on(self.grid.part(window))
        return codes, ~np.isin(codes, (-1, NODATA, *self.ignored))


def open_label_raster(
    path: Path, grid: MapGrid, ignored: tuple[int, ...] = (), field: str | None = None
) -> RasterReference:
    """Open a label raster on the grid of a map.

    Args:
        path: The raster.
        grid: Grid of the map.
        ignored: Codes that are no labels, beside 255 and the nodata value of the raster.
        field: Name or number of the band with the codes, where it has several.

    Raises:
        JobError: If it has several bands and the field names none of them.
        SourceError: If it is no raster of codes.
        AlignmentError: If it states no CRS, or shares no ground with the map.
    """
    with open_raster(path) as dataset:
        band = code_band(str(path), dataset.descriptions, field)
        check_codes(dataset, path, band)
        own, nodata = grid_of(dataset, path), dataset.nodata
    check_overlap(moved_bounds(own.bounds, own.crs, grid.crs), grid, str(path))
    raster = CodeRaster(str(path), own.crs, own.transform, own.whole.shape, nodata, band)
    made = () if _aligned(own, grid) else (_moved(own, grid),)
    return RasterReference(raster, grid, made, ignored)


def _moved(own: MapGrid, grid: MapGrid) -> Decision:
    pixel = f"{own.transform[0]:g} → {grid.transform[0]:g}"
    if same_crs(own.crs, grid.crs):
        return Decision(
            "labels grid",
            f"nearest label at the centre of each pixel of the map ({pixel})",
            "their pixels are not those of the map",
        )
    return Decision(
        "labels crs",
        f"moved from {short_crs(own.crs)} to {short_crs(grid.crs)} by nearest neighbour ({pixel})",
        "the map has another CRS",
    )


def _aligned(own: MapGrid, grid: MapGrid) -> bool:
    """Whether two rasters have the same pixels where both lie."""
    if not same_crs(own.crs, grid.crs):
        return False
    a, _, left, _, e, top = own.transform
    sides = abs(a / grid.transform[0] - 1) + abs(e / grid.transform[4] - 1)
    col, row = (grid.transform[2] - left) / a, (grid.transform[5] - top) / e
    drift = sides * max(grid.height, grid.width)
    return drift + abs(row - round(row)) + abs(col - round(col)) <= _SNAP


def _corners(bounds: Bounds) -> str:
    if not all(math.isfinite(edge) for edge in bounds):
        return "nowhere"
    return "{:.7g} {:.7g} {:.7g} {:.7g}".format(*bounds)
