"""Labels brought onto the grid of a map, part by part."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from affine import Affine

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import metres, moved_bounds, name_crs, same_crs, short_crs
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.sources.safe import open_raster
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT

    from omnisat_cli.geo.lattice import Bounds, Lattice, Window

_SNAP = 1e-3
"""Part of a pixel by which two grids may differ and still be one."""


@dataclass(frozen=True, slots=True)
class MapGrid:
    """Where the pixels of a map lie.

    Attributes:
        crs: Its CRS.
        transform: (a, b, c, d, e, f); north-up.
        height: Rows.
        width: Columns.
    """

    crs: str
    transform: tuple[float, ...]
    height: int
    width: int

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in CRS units."""
        a, _, left, _, e, top = self.transform
        return left, top + e * self.height, left + a * self.width, top

    def window_transform(self, window: Window) -> Affine:
        """Return the transform of a part of the map; rows and columns count from its corner."""
        a, _, left, _, e, top = self.transform
        return Affine(a, 0.0, left + window.col * a, 0.0, e, top + window.row * e)


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


def grid_of_frame(lattice: Lattice, area: Window, refine: int) -> MapGrid:
    """Return the grid of a map that is planned.

    Args:
        lattice: Its anchor lattice.
        area: Its window, in anchor pixels.
        refine: Its pixels along an anchor pixel.
    """
    frame = area.refined(refine)
    return MapGrid(lattice.crs, lattice.transform(frame, refine), *frame.shape)


def check_codes(dataset: DatasetReader, path: Path) -> None:
    """Check that a raster holds one band of whole numbers.

    Raises:
        SourceError: If it does not.
    """
    kind = dataset.dtypes[0]
    if dataset.count != 1 or not np.issubdtype(np.dtype(kind), np.integer):
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
    """A label raster, read pixel for pixel or through the nearest neighbour.

    Attributes:
        path: Its path.
        view: The raster on the grid of the map.
        aligned: Whether its own pixels are those of the map; then `view` is the raster itself.
        offset: Row and column of the corner of the map in the raster, if aligned.
        bounds: Ground it covers, in the CRS of the map.
        decisions: What was done to bring it there.
        ignored: Codes that are no labels.
    """

    path: Path
    view: DatasetReader | WarpedVRT
    aligned: bool
    offset: tuple[int, int]
    bounds: Bounds
    decisions: tuple[Decision, ...]
    ignored: tuple[int, ...] = ()

    def read(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return codes and labelled pixels; see `Reference.read`."""
        from rasterio.errors import RasterioError

        codes = np.zeros(window.shape, np.int64)
        labelled = np.zeros(window.shape, bool)
        row, col = window.row + self.offset[0], window.col + self.offset[1]
        rows = slice(max(row, 0), min(row + window.height, self.view.height))
        cols = slice(max(col, 0), min(col + window.width, self.view.width))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return codes, labelled
        place = ((rows.start, rows.stop), (cols.start, cols.stop))
        try:
            found = self.view.read(1, window=place)
            mask = self.view.read_masks(1, window=place)
        except RasterioError as error:
            raise SourceError(f"{self.path} cannot be read, it is damaged: {error}") from error
        target = (
            slice(rows.start - row, rows.stop - row),
            slice(cols.start - col, cols.stop - col),
        )
        codes[target] = found
        labelled[target] = (mask > 0) & ~np.isin(found, (NODATA, *self.ignored))
        return codes, labelled


@contextmanager
def open_label_raster(
    path: Path, grid: MapGrid, ignored: tuple[int, ...] = ()
) -> Iterator[RasterReference]:
    """Open a label raster on the grid of a map.

    Args:
        path: The raster.
        grid: Grid of the map.
        ignored: Codes that are no labels, beside 255 and the nodata value of the raster.

    Raises:
        SourceError: If it is no raster of codes.
        AlignmentError: If it states no CRS, or shares no ground with the map.
    """
    with open_raster(path) as dataset:
        check_codes(dataset, path)
        own = grid_of(dataset, path)
        bounds = moved_bounds(own.bounds, own.crs, grid.crs)
        check_overlap(bounds, grid, str(path))
        offset = _offset(own, grid)
        if offset is not None:
            yield RasterReference(path, dataset, True, offset, bounds, (), ignored)
            return
        with _warped(dataset, grid) as view:
            made = (_warped_decision(own, grid),)
            yield RasterReference(path, view, False, (0, 0), bounds, made, ignored)


def _warped(dataset: DatasetReader, grid: MapGrid) -> WarpedVRT:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    return WarpedVRT(
        dataset,
        crs=rasterio.crs.CRS.from_user_input(grid.crs),
        transform=Affine(*grid.transform),
        height=grid.height,
        width=grid.width,
        resampling=Resampling.nearest,
        # Ground beyond the raster must not become code 0.
        add_alpha=dataset.nodata is None,
    )


def _warped_decision(own: MapGrid, grid: MapGrid) -> Decision:
    pixel = f"{own.transform[0]:g} → {grid.transform[0]:g}"
    if same_crs(own.crs, grid.crs):
        return Decision(
            "labels grid", f"nearest label at the centre of each pixel of the map ({pixel})",
            "their pixels are not those of the map",
        )  # fmt: skip
    return Decision(
        "labels crs",
        f"moved from {short_crs(own.crs)} to {short_crs(grid.crs)} by nearest neighbour ({pixel})",
        "the map has another CRS",
    )


def _offset(own: MapGrid, grid: MapGrid) -> tuple[int, int] | None:
    """Return row and column of the map's corner in a raster of the same pixels, or None."""
    if not same_crs(own.crs, grid.crs):
        return None
    a, _, left, _, e, top = own.transform
    sides = abs(a / grid.transform[0] - 1) + abs(e / grid.transform[4] - 1)
    col, row = (grid.transform[2] - left) / a, (grid.transform[5] - top) / e
    drift = sides * max(grid.height, grid.width)
    if drift + abs(row - round(row)) + abs(col - round(col)) > _SNAP:
        return None
    return round(row), round(col)


def _corners(bounds: Bounds) -> str:
    if not all(math.isfinite(edge) for edge in bounds):
        return "nowhere"
    return "{:.7g} {:.7g} {:.7g} {:.7g}".format(*bounds)
