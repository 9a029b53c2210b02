"""A class map and what lies beside it, read in strips of full rows."""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.parcels import basins, lines
from omnisat_cli.outputs.parcels.regions import Lines, Strip, class_links
from omnisat_cli.outputs.parcels.simplify import Pixel
from omnisat_cli.outputs.prediction import NONE
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader


MEASURES = ("confidence", "validity")
_STRIP_PIXELS = 2**21
_LEAST_ROWS = 16
_SNAP = 1e-3
_REACH = lines.REACH + basins.REACH
"""Rows above and below whose boundaries decide what a row becomes."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """An open class map.

    Attributes:
        path: Its path.
        dataset: The map.
        measures: Rasters of the same grid by name.
        pixel: Size of a pixel in metres.
        boundary: Probability of parcel boundaries on the same grid; None to tell regions apart by
            class alone.
    """

    path: Path
    dataset: DatasetReader
    measures: dict[str, DatasetReader]
    pixel: Pixel
    boundary: DatasetReader | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.dataset.height, self.dataset.width

    @property
    def crs(self) -> str:
        """Coordinate reference system as text."""
        text: str = self.dataset.crs.to_string()
        return text

    def strips(self, rows: int | None = None, *, measures: bool = True) -> Iterator[Strip]:
        """Read the map from top to bottom.

        Args:
            rows: Rows of a strip; default: as many as some megapixels take.
            measures: Whether to read the rasters beside the map too.

        Raises:
            SourceError: If pixels cannot be read or are no class codes.
        """
        height, width = self.shape
        rows = rows or max(_LEAST_ROWS, _STRIP_PIXELS // width)
        named = self.measures if measures else {}
        for top in range(0, height, rows):
            count = min(rows, height - top)
            beside = {name: _read(file, top, count) for name, file in named.items()}
            yield self._linked(top, count, beside)

    def _linked(self, top: int, count: int, beside: dict[str, NDArray[np.uint8]]) -> Strip:
        """Read rows, and say which of their pixels belong together."""
        halo = 1 if self.boundary is None else _REACH
        first, end = max(0, top - halo), min(self.shape[0], top + count + halo)
        codes = self._codes(first, end - first)
        rows = slice(top - first, top - first + count)
        if self.boundary is None:
            right, down = class_links(codes)
            return Strip(top, codes[rows], right[rows], down[rows], beside)
        boundary = _read(self.boundary, first, end - first)
        strength = lines.line_strength(np.where(boundary == NONE, 0, boundary).astype(np.uint8))
        right, down, deep = basins.basin_links(codes, strength)
        found = Lines(strength[rows], deep[rows])
        return Strip(top, codes[rows], right[rows], down[rows], beside, found)

    def _codes(self, top: int, rows: int) -> NDArray[np.uint8]:
        values = _read(self.dataset, top, rows)
        nodata = self.dataset.nodata
        empty = values == NODATA
        if nodata is not None and not math.isnan(nodata):
            empty |= values == nodata
        wrong = ~empty & ((values < 0) | (values > NODATA))
        if wrong.any():
            raise SourceError(
                f"{self.path}: holds the value {values[wrong][0]}, but class codes are 0 to 254; "
                "map its classes to such codes first"
            )
        codes: NDArray[np.uint8] = np.where(empty, NODATA, values).astype(np.uint8)
        return codes


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Which parcel boundaries to use.

    Attributes:
        use: Whether to use any.
        path: Raster; None = the one beside the map, if there is one.
    """

    use: bool = True
    path: Path | None = None

    def find(self, path: Path) -> Path | None:
        """Return the raster for a class map."""
        beside = path.with_name(f"{path.stem}.boundary{path.suffix}")
        return None if not self.use else self.path or (beside if beside.exists() else None)


@contextmanager
def open_map(path: Path, boundaries: Boundaries) -> Iterator[ClassMap]:
    """Open a class map with its confidence and validity, where they lie beside it.

    Args:
        path: The map.
        boundaries: Which parcel boundaries to use.

    Raises:
        SourceError: If it is no raster of class codes.
        AlignmentError: If it has no projected north-up grid, or a raster beside it another grid.
    """
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(path))
        _check_values(dataset, path)
        pixel = _pixel(dataset, path)
        paths = {name: path.with_name(f"{path.stem}.{name}{path.suffix}") for name in MEASURES}
        beside = {name: place for name, place in paths.items() if place.exists()}
        edges = boundaries.find(path)
        if edges is not None:
            beside["boundary"] = edges
        files = {}
        for name, place in beside.items():
            files[name] = stack.enter_context(open_raster(place))
            _check_values(files[name], place, only="uint8")
            _check_same_grid(dataset, files[name], place)
        boundary = files.pop("boundary", None)
        yield ClassMap(path, dataset, files, pixel, boundary)


def _check_values(dataset: DatasetReader, path: Path, only: str | None = None) -> None:
    kind = dataset.dtypes[0]
    fits = kind == only if only else np.issubdtype(np.dtype(kind), np.integer)
    if dataset.count != 1 or not fits:
        raise SourceError(
            f"{path}: has {dataset.count} band(s) of type {kind}; "
            f"a raster of one band of {only or 'whole numbers'} is needed"
        )


def _pixel(dataset: DatasetReader, path: Path) -> Pixel:
    if dataset.crs is None:
        raise AlignmentError(f"{path}: states no CRS; set it with gdal_edit.py -a_srs EPSG:N")
    if not dataset.crs.is_projected:
        raise AlignmentError(
            f"{path}: its CRS {dataset.crs.to_string()} counts in degrees, but parcels have "
            "areas in square metres; reproject it first: gdalwarp -t_srs EPSG:N -r near"
        )
    grid = dataset.transform
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise AlignmentError(f"{path}: is not north-up: {tuple(grid)[:6]}; gdalwarp makes it so")
    metres = float(dataset.crs.linear_units_factor[1])
    return Pixel(-grid.e * metres, grid.a * metres)


def _check_same_grid(dataset: DatasetReader, other: DatasetReader, path: Path) -> None:
    off = np.abs(np.subtract(dataset.bounds, other.bounds)).max() / dataset.transform.a
    if other.shape != dataset.shape or off > _SNAP or other.crs != dataset.crs:
        raise AlignmentError(
            f"{path}: has not the grid of the map beside it ({other.shape} pixels, "
            f"{off:.3g} pixels away, {other.crs}); make it again or move it away"
        )


def _read(dataset: DatasetReader, top: int, rows: int) -> NDArray[np.uint8]:
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    try:
        values: NDArray[np.uint8] = dataset.read(1, window=Window(0, top, dataset.width, rows))
    except RasterioError as error:
        raise SourceError(
            f"{dataset.name}: rows {top} to {top + rows - 1} cannot be read, it is damaged or cut "
            f"short: {error}"
        ) from error
    return values
