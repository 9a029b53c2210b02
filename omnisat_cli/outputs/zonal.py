"""What polygons hold of a class map: every pixel counts by the part of it that a polygon covers.

The map is read once a batch of polygons, in strips; a polygon without a pixel centre gets its share
like any other, and polygons may overlap. The sums do not depend on the strips (to 1e-9 of a pixel).
"""

from __future__ import annotations

import math
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import shapely

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.outputs.coverage import Edges, by_strip, cover
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.outputs.coverage import Covered

    Floats = NDArray[np.float64]
    Bytes = NDArray[np.uint8]

MEASURES: Final = ("confidence", "validity")
_STRIP_PIXELS: Final = 2**20
_LEAST_ROWS: Final = 16
_SNAP: Final = 1e-3

_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Weighted:
    """Sums of a measure over the covered pixels of each polygon.

    Attributes:
        count: (N,) pixels that have a value.
        total: (N,) sum of the values.
        squares: (N,) sum of their squares.
    """

    count: Floats
    total: Floats
    squares: Floats

    @staticmethod
    def zeros(count: int) -> Weighted:
        """Return sums of nothing."""
        return Weighted(np.zeros(count), np.zeros(count), np.zeros(count))

    def mean(self) -> Floats:
        """Return the (N,) means, NaN where no pixel has a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)

    def std(self) -> Floats:
        """Return the (N,) standard deviations of the population."""
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = self.squares / self.count - (self.total / self.count) ** 2
        return np.where(self.count > 0, np.sqrt(np.maximum(spread, 0)), np.nan)


@dataclass(frozen=True, slots=True)
class Zonal:
    """What polygons hold.

    Attributes:
        pixels: (N, K) pixels of each class, edge pixels by their covered part.
        measures: By name.
    """

    pixels: Floats
    measures: dict[str, Weighted]


@dataclass(frozen=True, slots=True)
class MapLayers:
    """An open class map and the rasters beside it.

    Attributes:
        path: The map.
        dataset: The same, open.
        beside: Rasters of the same grid by name, uint8, 255 = none.
    """

    path: Path
    dataset: DatasetReader
    beside: dict[str, DatasetReader]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.dataset.height, self.dataset.width

    @property
    def crs(self) -> str:
        """CRS as text."""
        text: str = self.dataset.crs.to_string()
        return text

    @property
    def strip_rows(self) -> int:
        """Rows of the whole width that are read at a time."""
        return _strip_rows(self.dataset.width)

    def to_pixels(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """Bring polygons from the CRS of the map to columns and rows."""
        grid = self.dataset.transform
        origin, scale = np.array([grid.c, grid.f]), np.array([grid.a, grid.e])
        placed: NDArray[np.object_] = shapely.transform(polygons, lambda xy: (xy - origin) / scale)
        return placed

    def histogram(self) -> NDArray[np.int64]:
        """Count the pixels of each code, (256,), streaming."""
        counts = np.zeros(256, np.int64)
        height, width = self.shape
        rows = self.strip_rows
        for top in range(0, height, rows):
            codes = self.codes((top, min(height, top + rows)), (0, width))
            counts += np.bincount(codes.ravel(), minlength=256)
        return counts

    def codes(self, rows: tuple[int, int], cols: tuple[int, int]) -> Bytes:
        """Read class codes, 255 where there is none.

        Args:
            rows: First row and the one after the last.
            cols: Columns likewise.

        Raises:
            SourceError: If pixels cannot be read or are no class codes.
        """
        values = _read(self.dataset, rows, cols)
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
        codes: Bytes = np.where(empty, NODATA, values).astype(np.uint8)
        return codes


@contextmanager
def open_layers(path: Path, *, measures: bool = True) -> Iterator[MapLayers]:
    """Open a class map, with its confidence and validity where they lie beside it.

    Raises:
        SourceError: If it is no raster of class codes.
        AlignmentError: If it has no north-up grid, or a raster beside it another grid.
    """
    with ExitStack() as stack:
        dataset = stack.enter_context(open_raster(path))
        _check_map(dataset, path)
        beside = {}
        for name in MEASURES if measures else ():
            place = path.with_name(f"{path.stem}.{name}{path.suffix}")
            if place.exists():
                beside[name] = stack.enter_context(open_raster(place))
                _check_beside(dataset, beside[name], place)
        yield MapLayers(path, dataset, beside)


def sum_up(
    layers: MapLayers,
    polygons: NDArray[np.object_],
    codes: NDArray[np.int64],
    pixel_rows: Floats | None = None,
) -> Zonal:
    """Sum up what polygons hold.

    Args:
        layers: The map.
        polygons: (N,) valid polygons in columns and rows of the map, or None.
        codes: (K,) class codes that are counted.
        pixel_rows: (H,) what a pixel of each row of the map counts; default: 1.

    Returns:
        The sums; `measures` holds one entry for each raster beside the map.

    Raises:
        SourceError: If pixels cannot be read.
    """
    found = Zonal(
        np.zeros((len(polygons), len(codes))),
        {name: Weighted.zeros(len(polygons)) for name in layers.beside},
    )
    window = _window(layers.shape, polygons)
    if window is None:
        return found
    (first, end), cols = window
    width = cols[1] - cols[0]
    edges = Edges.of(shapely.transform(polygons, lambda xy: xy - [cols[0], 0]))
    tops = np.arange(first, end, _strip_rows(width))
    place = np.full(256, len(codes))
    place[codes] = np.arange(len(codes))
    for number, inside in by_strip(edges, tops, end):
        rows = int(tops[number]), min(end, int(tops[number]) + _strip_rows(width))
        covered = cover(inside, rows, width)
        strip = _Strip(covered, np.unique(covered.polygon), width)
        if pixel_rows is not None:
            strip.weigh(pixel_rows[rows[0] : rows[1]])
        found.pixels[strip.polygons] += strip.classes(place[layers.codes(rows, cols)], len(codes))
        for name, file in layers.beside.items():
            strip.add_measure(found.measures[name], _read(file, rows, cols))
    return found


class _Strip:
    """The covered pixels of a strip and what becomes of them.

    Args:
        covered: From `cover`.
        polygons: (P,) the polygons that occur, ascending.
        width: Columns of the strip.
    """

    def __init__(self, covered: Covered, polygons: NDArray[np.int64], width: int) -> None:
        self.polygons = polygons
        self._local = covered.spread(np.searchsorted(polygons, covered.polygon))
        self._pixel, self._part, self._width = covered.pixel, covered.part, width

    def weigh(self, rows: Floats) -> None:
        """Let pixels count by their row, (rows of the strip,)."""
        row = np.minimum(self._pixel // self._width, len(rows) - 1)
        self._part = self._part * rows[row]

    def classes(self, places: NDArray[np.int64], count: int) -> Floats:
        """Return the (P, K) pixels of each class; place K of a pixel stands for none."""
        size = count + 1
        key = self._local * size + self._at(places)
        sums: Floats = np.bincount(key, self._part, len(self.polygons) * size).astype(np.float64)
        return sums.reshape(-1, size)[:, :count]

    def add_measure(self, sums: Weighted, values: Bytes) -> None:
        """Add the values of the strip, (H, W) uint8, 255 = none."""
        value = self._at(values)
        part = np.where(value == NODATA, 0, self._part)
        count = len(self.polygons)
        sums.count[self.polygons] += np.bincount(self._local, part, count)
        part *= value
        sums.total[self.polygons] += np.bincount(self._local, part, count)
        part *= value
        sums.squares[self.polygons] += np.bincount(self._local, part, count)

    def _at(self, values: NDArray[_Kind]) -> NDArray[_Kind]:
        """Look pixels up; the sentinel after the last row finds the last pixel."""
        found: NDArray[_Kind] = np.take(values.ravel(), self._pixel, mode="clip")
        return found


def _strip_rows(width: int) -> int:
    return max(_LEAST_ROWS, _STRIP_PIXELS // max(1, width))


def _window(
    shape: tuple[int, int], polygons: NDArray[np.object_]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the rows and columns of the map that polygons can meet."""
    left, top, right, bottom = shapely.bounds(polygons).T
    height, width = shape
    near = (right > 0) & (left < width) & (bottom > 0) & (top < height)
    if not near.any():
        return None
    rows = max(0, math.floor(top[near].min())), min(height, math.ceil(bottom[near].max()))
    cols = max(0, math.floor(left[near].min())), min(width, math.ceil(right[near].max()))
    return rows, cols


def _check_map(dataset: DatasetReader, path: Path) -> None:
    kind = dataset.dtypes[0]
    if dataset.count != 1 or not np.issubdtype(np.dtype(kind), np.integer):
        raise SourceError(
            f"{path}: has {dataset.count} band(s) of type {kind}; "
            "a class map of one band of whole numbers is needed"
        )
    if dataset.crs is None:
        raise AlignmentError(f"{path}: states no CRS; set it with gdal_edit.py -a_srs EPSG:N")
    grid = dataset.transform
    if grid.b or grid.d or grid.a <= 0 or grid.e >= 0:
        raise AlignmentError(f"{path}: is not north-up: {tuple(grid)[:6]}; gdalwarp makes it so")


def _check_beside(dataset: DatasetReader, other: DatasetReader, path: Path) -> None:
    if other.count != 1 or other.dtypes[0] != "uint8":
        raise SourceError(
            f"{path}: has {other.count} band(s) of type {other.dtypes[0]}; one of uint8 is needed"
        )
    off = np.abs(np.subtract(dataset.bounds, other.bounds)).max() / dataset.transform.a
    if other.shape != dataset.shape or off > _SNAP or other.crs != dataset.crs:
        raise AlignmentError(
            f"{path}: has not the grid of the map beside it ({other.shape} pixels, "
            f"{off:.3g} pixels away, {other.crs}); make it again or move it away"
        )


def _read(
    dataset: DatasetReader, rows: tuple[int, int], cols: tuple[int, int]
) -> NDArray[np.uint8]:
    from rasterio.errors import RasterioError

    try:
        values: NDArray[np.uint8] = dataset.read(1, window=(rows, cols))
    except RasterioError as error:
        raise SourceError(
            f"{dataset.name}: rows {rows[0]} to {rows[1] - 1} cannot be read, it is damaged or cut "
            f"short: {error}"
        ) from error
    return values
