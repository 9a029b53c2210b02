"""Bring pixels of any grid onto the lattice, so that a pixel never depends on the window read.

On axis-parallel grids of the same CRS the weights are computed from absolute pixel indices. Across
CRSs whole anchored cells are warped, each always in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from omnisat_cli.geo.lattice import Lattice, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.sources.mosaic import Mosaic

Affine6 = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f: x = a·col + b·row + c, y = d·col + e·row + f."""

_STRIP = 512
"""Target rows resampled at once: bounds the memory of a fine source."""

_CELL_PX = 512
"""Wished side of a warped cell, in target pixels."""

_MOST_SOURCE_PX = 2**25


@dataclass(frozen=True, slots=True)
class Taps:
    """Weights of source pixels along one axis.

    Attributes:
        first: (N,) index of the first source pixel of each target pixel.
        weights: (K, N) weight of source pixel `first + k`.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def span(self) -> tuple[int, int]:
        """Half-open range of source indices used."""
        return int(self.first.min()), int(self.first.max()) + len(self.weights)


def axis_taps(start: int, stop: int, step: tuple[float, float], how: str) -> Taps:
    """Compute the weights of target pixels `start..stop - 1`.

    Args:
        start: First target index, absolute.
        stop: Last target index + 1.
        step: (offset, ratio): target pixel i covers `[offset + i·ratio, offset + (i + 1)·ratio)`
            in source pixels.
        how: "average", "bilinear" or "nearest".
    """
    offset, ratio = step
    index = np.arange(start, stop, dtype=np.float64)
    # Rounded so that float noise of an origin cannot move an edge across a source pixel.
    low = np.round(offset + index * ratio, 6)
    high = np.round(offset + (index + 1) * ratio, 6)
    if how == "average":
        first = np.floor(low).astype(np.int64)
        count = int(np.ceil(high - first).max())
        cells = first[None, :] + np.arange(count)[:, None]
        overlap = np.minimum(high, cells + 1) - np.maximum(low, cells)
        weights = np.clip(overlap, 0, None) / (high - low)
    elif how == "bilinear":
        centre = (low + high) / 2 - 0.5
        first = np.floor(centre).astype(np.int64)
        fraction = centre - first
        weights = np.stack([1 - fraction, fraction])
    else:
        first = np.floor((low + high) / 2).astype(np.int64)
        weights = np.ones((1, first.size))
    return Taps(first, weights.astype(np.float32))


def resample_axes(
    mosaic: Mosaic, window: Window, steps: tuple[tuple[float, float], tuple[float, float]], how: str
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of the lattice from a mosaic on another axis-parallel grid.

    Args:
        mosaic: Pixels on their own grid.
        window: Target window on the refined lattice.
        steps: (offset, ratio) of rows and of columns, see `axis_taps`.
        how: "average", "bilinear" or "nearest".

    Returns:
        (C, H, W) pixels, 0 where not valid, and (H, W) valid: at least half of the weight real.
    """
    pixels = np.zeros((mosaic.bands, *window.shape), mosaic.dtype)
    valid = np.zeros(window.shape, np.bool_)
    cols = axis_taps(window.col, window.col_end, steps[1], how)
    for top in range(0, window.height, _STRIP):
        bottom = min(top + _STRIP, window.height)
        rows = axis_taps(window.row + top, window.row + bottom, steps[0], how)
        source = Window.from_edges(rows.span[0], cols.span[0], rows.span[1], cols.span[1])
        if not mosaic.tiles_in(source):
            continue
        got, seen = mosaic.read(source)
        local = (_shifted(rows, source.row), _shifted(cols, source.col))
        if seen.all():
            weight = np.ones((bottom - top, window.width), np.float32)
        else:
            weight = _apply(seen.astype(np.float32), *local)
        valid[top:bottom] = weight >= 0.5 - 1e-6
        for band in range(mosaic.bands):
            value = _apply(got[band].astype(np.float32), *local)
            pixels[band, top:bottom] = _settled(value, weight, valid[top:bottom], mosaic.dtype)
    return pixels, valid


def _shifted(taps: Taps, origin: int) -> Taps:
    return Taps(taps.first - origin, taps.weights)


def _apply(plane: NDArray[np.float32], rows: Taps, cols: Taps) -> NDArray[np.float32]:
    """Weigh rows, then columns of one plane; the order of sums is fixed."""
    tall = np.zeros((rows.first.size, plane.shape[1]), np.float32)
    for k, weights in enumerate(rows.weights):
        tall += weights[:, None] * plane[rows.first + k]
    wide = np.zeros((rows.first.size, cols.first.size), np.float32)
    for k, weights in enumerate(cols.weights):
        wide += weights[None, :] * tall[:, cols.first + k]
    return wide


def _settled(
    value: NDArray[np.float32],
    weight: NDArray[np.float32],
    valid: NDArray[np.bool_],
    dtype: str,
) -> NDArray[Any]:
    """Divide by the weight where part of it is missing, round for uint8, clear the rest."""
    partial = valid & (weight < 1 - 1e-5)
    settled: NDArray[np.float32] = value
    if partial.any():
        settled = np.where(partial, value / np.where(partial, weight, 1), value)
    if not valid.all():
        settled = np.where(valid, settled, 0)
    if dtype == "uint8":
        rounded: NDArray[np.uint8] = np.clip(np.floor(settled + 0.5), 0, 255).astype(np.uint8)
        return rounded
    return settled.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Warp:
    """How a grid of another CRS, turned or upside down, comes onto the lattice.

    Attributes:
        lattice: The anchor lattice.
        refine: Target pixels along one anchor pixel.
        crs: CRS of the source grid.
        transform: Affine of the source grid.
        how: "average", "bilinear" or "nearest".
    """

    lattice: Lattice
    refine: int
    crs: str
    transform: Affine6
    how: str

    @property
    def cell(self) -> int:
        """Side of a cell in anchor pixels: what is warped in one piece, wherever it is asked."""
        return max(1, _CELL_PX // self.refine)

    def source_window(self, cell: Window, margin: int = 4) -> Window | None:
        """Source pixels that a window of anchor pixels needs, or None where it cannot be seen."""
        from rasterio.errors import RasterioError
        from rasterio.warp import transform_bounds

        bounds = self.lattice.bounds(cell)
        try:
            left, bottom, right, top = transform_bounds(
                self.lattice.crs, self.crs, *bounds, densify_pts=9
            )
        except RasterioError:
            return None
        corners = [(x, y) for x in (left, right) for y in (bottom, top)]
        if not all(math.isfinite(value) for corner in corners for value in corner):
            return None
        places = [self._index(x, y) for x, y in corners]
        cols, rows = zip(*places, strict=True)
        return Window.from_edges(
            math.floor(min(rows)) - margin,
            math.floor(min(cols)) - margin,
            math.ceil(max(rows)) + margin,
            math.ceil(max(cols)) + margin,
        )

    def _index(self, x: float, y: float) -> tuple[float, float]:
        """(col, row) of a point on the source grid."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        return (e * (x - c) - b * (y - f)) / det, (a * (y - f) - d * (x - c)) / det


def resample_warped(
    mosaic: Mosaic, window: Window, warp: Warp
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of the lattice from a mosaic in another CRS.

    Args:
        mosaic: Pixels on their own grid.
        window: Target window in pixels of the refined lattice.
        warp: Where the mosaic lies.

    Returns:
        (C, H, W) pixels, 0 where not valid, and (H, W) valid: at least half of the weight real.
    """
    pixels = np.zeros((mosaic.bands, *window.shape), mosaic.dtype)
    valid = np.zeros(window.shape, np.bool_)
    cells = window.coarsened(warp.refine * warp.cell)
    for row in range(cells.row, cells.row_end):
        for col in range(cells.col, cells.col_end):
            anchor = Window(row, col, 1, 1).refined(warp.cell)
            source = warp.source_window(anchor)
            if source is None or not mosaic.tiles_in(source):
                continue
            got, seen = _warp_cell(mosaic, source, anchor, warp)
            place = anchor.refined(warp.refine)
            common = place.intersection(window)
            there, here = common.slices_in(place), common.slices_in(window)
            pixels[:, here[0], here[1]] = got[:, there[0], there[1]]
            valid[here] = seen[there]
    return pixels, valid


def _warp_cell(
    mosaic: Mosaic, source: Window, anchor: Window, warp: Warp
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Warp one whole cell; the validity is warped with the same kernel."""
    from rasterio.transform import Affine
    from rasterio.warp import Resampling, reproject

    _refuse_huge(source, warp)
    got, seen = mosaic.read(source)
    a, b, c, d, e, f = warp.transform
    grids = {
        "src_crs": warp.crs,
        "src_transform": Affine(
            *(a, b, c + a * source.col + b * source.row),
            *(d, e, f + d * source.col + e * source.row),
        ),
        "dst_crs": warp.lattice.crs,
        "dst_transform": Affine(*warp.lattice.transform(anchor.refined(warp.refine), warp.refine)),
        "resampling": Resampling[warp.how],
        "tolerance": 0.01,
        "num_threads": 1,
    }
    shape = anchor.refined(warp.refine).shape
    # One call for all planes: the coordinates are computed once.
    planes = np.concatenate([got, seen[None]], dtype=np.float32)
    warped = np.zeros((len(planes), *shape), np.float32)
    reproject(planes, warped, **grids)
    weight = warped[-1]
    valid = weight >= 0.5 - 1e-6
    pixels = np.stack([_settled(plane, weight, valid, mosaic.dtype) for plane in warped[:-1]])
    return pixels, valid


def _refuse_huge(source: Window, warp: Warp) -> None:
    from omnisat_cli.errors import AlignmentError

    if source.height * source.width > _MOST_SOURCE_PX:
        raise AlignmentError(
            f"one cell of {warp.cell * warp.lattice.gsd:g} m needs {source.height} × "
            f"{source.width} source pixels: the image is far finer than the map grid, or lies at "
            f"the edge of {warp.crs[:40]}; resample it first"
        )
