"""Many files as one image: an integer grid of tiles, read window by window.

A mosaic never fills: ground without a file, blocks that were never written, masked and nodata
pixels are all "not valid", and bytes that should be there but cannot be read are an error.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

SNAP = 1e-3
"""Corners this close to a grid line (in pixels) lie on it: GeoTIFF origins carry float noise."""

_OPEN_FILES = 48
"""Handles kept open in each thread."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bands that one file contributes to a tile.

    Attributes:
        path: The file, absolute.
        bands: Bands of the file (from 1), in the order they are delivered.
        places: Positions on the band axis of the mosaic, one for each of `bands`.
        offset: (row, col) of the tile's first pixel inside the file.
        shape: (rows, cols) of the file.
        nodata: Value that means "no data" where all of `colours` hold it, or None.
        colours: Bands of the file that are image, not mask.
        alpha: Band that is transparency, or 0.
        alpha_from: Smallest alpha value of a real pixel.
        mask: "" or "internal", or the path of a `.msk` file.
        stamp: (size, mtime_ns) when the file was surveyed.
    """

    path: str
    bands: tuple[int, ...]
    places: tuple[int, ...]
    offset: tuple[int, int]
    shape: tuple[int, int]
    nodata: float | None
    colours: tuple[int, ...]
    alpha: int = 0
    alpha_from: int = 128
    mask: str = ""
    stamp: tuple[int, int] = (-1, -1)


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the mosaic's grid and the files that fill its bands."""

    window: Window
    parts: tuple[Part, ...]


class Handles:
    """Open datasets, a few for each thread, never shared and never carried across a fork."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[Handles], tuple[()]]:
        return Handles, ()

    def get(self, path: str, stamp: tuple[int, int] = (-1, -1)) -> DatasetReader:
        """Return this thread's handle of a file, opening it when needed.

        Raises:
            SourceError: If the file cannot be opened, or changed since it was surveyed.
        """
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.pid = os.getpid()
            self._local.open = OrderedDict()
        held: OrderedDict[str, Any] = self._local.open
        if path in held:
            held.move_to_end(path)
            return held[path]
        if stamp != (-1, -1):
            _refuse_changed(path, stamp)
        dataset = open_raster(path)
        held[path] = dataset
        if len(held) > _OPEN_FILES:
            held.popitem(last=False)[1].close()
        return dataset


def _refuse_changed(path: str, stamp: tuple[int, int]) -> None:
    try:
        status = os.stat(path)  # noqa: PTH116 - the path is text by design
    except OSError as error:
        raise SourceError(f"{path}: was there at the start and is gone now ({error})") from error
    if (status.st_size, status.st_mtime_ns) != stamp:
        raise SourceError(
            f"{path}: changed while in use ({stamp[0]} bytes at the start, {status.st_size} now); "
            "run again when it is complete"
        )


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Tiles on one integer grid. The first tile wins where two are valid.

    Attributes:
        tiles: In order of precedence.
        bands: Length of the band axis.
        dtype: "uint8" or "float32".
        scale: Factor that brings file values to the canonical unit (float32 only).
    """

    tiles: tuple[Tile, ...]
    bands: int
    dtype: str
    scale: float = 1.0
    handles: Handles = field(default_factory=Handles, compare=False, repr=False)
    _edges: NDArray[np.int64] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        edges = [
            (t.window.row, t.window.col, t.window.row_end, t.window.col_end) for t in self.tiles
        ]
        object.__setattr__(self, "_edges", np.array(edges, np.int64).reshape(-1, 4))

    @property
    def extent(self) -> Window:
        """Smallest window that holds all tiles."""
        return Window.around([tile.window for tile in self.tiles])

    def tiles_in(self, window: Window) -> list[Tile]:
        """Tiles that meet a window, in order of precedence."""
        edges = self._edges
        hit = (edges[:, 0] < window.row_end) & (edges[:, 2] > window.row)
        hit &= (edges[:, 1] < window.col_end) & (edges[:, 3] > window.col)
        return [self.tiles[k] for k in np.flatnonzero(hit)]

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the grid; it may reach beyond every tile.

        Returns:
            (C, H, W) pixels, 0 where not valid, and (H, W) valid.

        Raises:
            SourceError: If bytes that should be there cannot be read.
        """
        pixels = np.zeros((self.bands, *window.shape), self.dtype)
        valid = np.zeros(window.shape, np.bool_)
        for tile in self.tiles_in(window):
            self._lay(tile, window, pixels, valid)
        return pixels, valid

    def _lay(
        self, tile: Tile, window: Window, pixels: NDArray[Any], valid: NDArray[np.bool_]
    ) -> None:
        """Put one tile under what is already there."""
        common = tile.window.intersection(window)
        rows, cols = common.slices_in(window)
        here = valid[rows, cols]
        if not here.any():
            here[...] = self._read_tile(tile, common, pixels[:, rows, cols])
        elif not here.all():
            under = np.empty((self.bands, *common.shape), self.dtype)
            seen = self._read_tile(tile, common, under) & ~here
            np.copyto(pixels[:, rows, cols], under, where=seen)
            here |= seen

    def _read_tile(self, tile: Tile, common: Window, out: NDArray[Any]) -> NDArray[np.bool_]:
        """Read the part of a tile that `common` covers into `out`; return what is valid."""
        valid = np.ones(common.shape, np.bool_)
        empty: NDArray[np.bool_] | None = None
        for part in tile.parts:
            place = Window(
                common.row - tile.window.row + part.offset[0],
                common.col - tile.window.col + part.offset[1],
                *common.shape,
            )
            dataset = self.handles.get(part.path, part.stamp)
            nodata = self._read_part(dataset, part, place, out)
            # A pixel is "no data" only where every band says so: one black band is just dark.
            empty = nodata if empty is None else empty & nodata
            self._mask(dataset, part, place, valid)
        if empty is not None:
            valid &= ~empty
        if not np.issubdtype(out.dtype, np.integer):
            valid &= np.isfinite(out).all(axis=0)
            if self.scale != 1.0:
                out *= self.scale
        if not valid.all():
            out[:, ~valid] = 0
        return valid

    def _read_part(
        self, dataset: DatasetReader, part: Part, place: Window, out: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Read one file's bands to their places; return where all its bands hold nodata."""
        first, count = part.places[0], len(part.places)
        if part.places == tuple(range(first, first + count)):
            read_window(dataset, part.bands, place, out[first : first + count])
        else:
            got = np.empty((count, *place.shape), out.dtype)
            read_window(dataset, part.bands, place, got)
            out[list(part.places)] = got
        nodata = np.zeros(place.shape, np.bool_)
        value = _as_stored(part.nodata, out.dtype)
        if value is None:
            return nodata
        nodata[...] = (out[list(part.places)] == value).all(axis=0)
        others = tuple(band for band in part.colours if band not in part.bands)
        if others and nodata.any():
            rest = np.empty((len(others), *place.shape), out.dtype)
            read_window(dataset, others, place, rest)
            nodata &= (rest == value).all(axis=0)
        return nodata

    def _mask(
        self, dataset: DatasetReader, part: Part, place: Window, valid: NDArray[np.bool_]
    ) -> None:
        """Clear `valid` where the file says so by alpha, mask or blocks never written."""
        if part.alpha:
            alpha = np.empty((1, *place.shape), np.float32)
            read_window(dataset, (part.alpha,), place, alpha)
            valid &= alpha[0] >= part.alpha_from
        if part.mask == "internal":
            valid &= read_mask(dataset, place)
        elif part.mask:
            mask = np.empty((1, *place.shape), np.uint8)
            read_window(self.handles.get(part.mask), (1,), place, mask)
            valid &= mask[0] != 0
        if dataset.driver == "GTiff":
            _clear_unwritten(dataset, part, place, valid)


def read_window(
    dataset: DatasetReader, bands: Sequence[int], place: Window, out: NDArray[Any]
) -> None:
    """Read pixels of a file into `out`, unmasked and at full resolution.

    Raises:
        SourceError: If the bytes cannot be read or decoded.
    """
    from rasterio.errors import RasterioError
    from rasterio.windows import Window as RasterWindow

    try:
        dataset.read(
            list(bands),
            window=RasterWindow(place.col, place.row, place.width, place.height),
            out=out,
        )
    except RasterioError as error:
        raise _damaged(dataset, place, error) from error


def read_mask(dataset: DatasetReader, place: Window) -> NDArray[np.bool_]:
    """Read the mask stored inside a file, True = real data.

    Raises:
        SourceError: If the bytes cannot be read or decoded.
    """
    from rasterio.errors import RasterioError
    from rasterio.windows import Window as RasterWindow

    try:
        mask = dataset.read_masks(
            1, window=RasterWindow(place.col, place.row, place.width, place.height)
        )
    except RasterioError as error:
        raise _damaged(dataset, place, error) from error
    return np.asarray(mask != 0)


def _damaged(dataset: DatasetReader, place: Window, error: Exception) -> SourceError:
    reason = error.__cause__ or error
    return SourceError(
        f"{dataset.name}: rows {place.row}..{place.row_end - 1}, columns "
        f"{place.col}..{place.col_end - 1} cannot be read; the file is damaged or cut short "
        f"({reason}); copy or download it again"
    )


def _clear_unwritten(
    dataset: DatasetReader, part: Part, place: Window, valid: NDArray[np.bool_]
) -> None:
    """Clear `valid` over blocks that the tile index says were never written.

    A sparse file reads as zeros there, which are no observation.
    """
    height, width = dataset.block_shapes[0]
    pixel_interleaved = dataset.interleaving is not None and dataset.interleaving.value == "PIXEL"
    asked = part.bands[:1] if pixel_interleaved else part.bands
    for row in range(place.row // height, -(-place.row_end // height)):
        for col in range(place.col // width, -(-place.col_end // width)):
            name = f"BLOCK_OFFSET_{col}_{row}"
            if all(dataset.get_tag_item(name, "TIFF", bidx=band) for band in asked):
                continue
            hole = Window(row * height, col * width, height, width).intersection(place)
            valid[hole.slices_in(place)] = False


def _as_stored(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return nodata as pixels of this type hold it; None where no pixel can."""
    if nodata is None or np.isnan(nodata):
        return None
    if dtype == np.uint8:
        return nodata if nodata in range(256) else None
    return float(np.float32(nodata))
