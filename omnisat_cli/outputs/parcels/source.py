"""A class map and what lies beside it, read in strips of full rows."""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyproj

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.parcels import basins, lines
from omnisat_cli.outputs.parcels.ground import Degrees, Pixel
from omnisat_cli.outputs.parcels.regions import Lines, Strip, class_links
from omnisat_cli.outputs.prediction import NONE
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.outputs.parcels.ground import Ground

MEASURES = ("confidence", "validity")
_STRIP_PIXELS = 2**21
_LEAST_ROWS = 16
_SNAP = 1e-3
_POLE = 90 + 1e-6
_REACH = lines.REACH + basins.REACH
"""Rows above and below whose boundaries decide what a row becomes."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """An open class map.

    Attributes:
        path: Its path.
        dataset: The map.
        measures: Rasters of the same grid by name.
        ground: Size of the pixels in metres.
        boundary: Probability of parcel boundaries on the same grid; None to tell regions apart by
            class alone.
    """

    path: Path
    dataset: DatasetReader
    measures: dict[str, DatasetReader]
    ground: Ground
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
        areas = self.ground.areas(top, count)
        if self.boundary is None:
            right, down = class_links(codes)
            return Strip(top, codes[rows], right[rows], down[rows], beside, areas=areas)
        boundary = _read(self.boundary, first, end - first)
        strength = lines.line_strength(np.where(boundary == NONE, 0, boundary).astype(np.uint8))
        right, down, deep = basins.basin_links(codes, strength)
        found = Lines(strength[rows], deep[rows])
        return Strip(top, codes[rows], right[rows], down[rows], beside, found, areas)

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
        AlignmentError: If it has no north-up grid, or a raster beside it another grid.
    """
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(path))
        _check_values(dataset, path)
        ground = _ground(dataset, path)
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
        yield ClassMap(path, dataset, files, ground, boundary)


def _check_values(dataset: DatasetReader, path: Path, only: str | None = None) -> None:
    kind = dataset.dtypes[0]
    fits = kind == only if only else np.issubdtype(np.dtype(kind), np.integer)
    if dataset.count != 1 or not fits:
        raise SourceError(
            f"{path}: has {dataset.count} band(s) of type {kind}; "
            f"a raster of one band of {only or 'whole numbers'} is needed"
        )


def _ground(dataset: DatasetReader, path: Path) -> Ground:
    """Measure the pixels of a map."""
    if dataset.crs is None:
        raise AlignmentError(f"{path}: states no CRS; set it with gdal_edit.py -a_srs EPSG:N")
    grid = dataset.transform
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise AlignmentError(f"{path}: is not north-up: {tuple(grid)[:6]}; gdalwarp makes it so")
    if dataset.crs.is_projected:
        metres = float(dataset.crs.linear_units_factor[1])
        return Pixel(-grid.e * metres, grid.a * metres, metres)
    crs = pyproj.CRS.from_user_input(dataset.crs)
    geod = crs.get_geod()
    units = {axis.unit_name for axis in crs.axis_info[:2]}
    if not crs.is_geographic or geod is None or units != {"degree"}:
        raise AlignmentError(
            f"{path}: its CRS {dataset.crs.to_string()[:80]} is neither projected nor in degrees "
            f"({', '.join(sorted(units))}); reproject it first: gdalwarp -t_srs EPSG:N -r near"
        )
    if grid.f > _POLE or grid.f + grid.e * dataset.height < -_POLE:
        raise AlignmentError(
            f"{path}: reaches from latitude {grid.f:.6g} to "
            f"{grid.f + grid.e * dataset.height:.6g}, beyond a pole; its grid is wrong"
        )
    return Degrees(grid.f, -grid.e, grid.a, dataset.height, geod)


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
