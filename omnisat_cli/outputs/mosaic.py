"""Blocks become a Cloud-Optimized GeoTIFF: streamed, reopened and compared with every block."""

from __future__ import annotations

import hashlib
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import OmnisatError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.faults import strike, strike_torn
from omnisat_cli.outputs.legend import NODATA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetWriter

    from omnisat_cli.outputs.journal import BlockRecord
    from omnisat_cli.outputs.prediction import Bytes
    from omnisat_cli.outputs.products import Category, Product
    from omnisat_cli.outputs.store import BlockStore

_LOG = logging.getLogger(__name__)

_TILE = 512
_GDAL_CACHE = 64 * 2**20
"""In bytes: rasterio, unlike the environment variable, does not take megabytes."""


@dataclass(frozen=True, slots=True)
class Dressing:
    """What a raster carries beside its pixels.

    Attributes:
        bands: Description of each band.
        categories: Values with names and colours; the colour table of a one-band raster.
        tags: Tags of the file.
        band_tags: Tags of the first band.
    """

    bands: tuple[str, ...]
    categories: tuple[Category, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    band_tags: Mapping[str, str] = field(default_factory=dict)


def export_raster(
    store: BlockStore, product: Product, dressing: Dressing, target: Path, *, threads: int = 2
) -> None:
    """Write one product of a run as a COG and check it against the blocks.

    The blocks are streamed into a scratch file that is not compressed (a compressed one would be
    rewritten where blocks and tiles do not align), which GDAL copies into a COG. Memory does not
    depend on the area.

    Args:
        store: Finished blocks.
        product: Which raster.
        dressing: What it carries beside the pixels.
        target: Path of the COG, on the file system of the store; it is synced, not yet public.
        threads: Threads of the compression.

    Raises:
        ResourceError: If the disk is full.
        BlockError: If a block file is damaged.
        OmnisatError: If the file that was written does not hold the pixels of the blocks.
    """
    scratch = target.with_name(f"{target.name}.scratch.tif")
    with gdal_errors(target, f"writing {target.name}"):
        _stream(store, product, dressing, scratch)
        _copy_to_cog(scratch, target, product, threads)
        strike_torn("mid-cog", target)
        disk.sync_file(target)
        strike("after-cog")
        _verify(store, product, target)
        scratch.unlink()


def histogram(path: Path) -> NDArray[np.int64]:
    """Count the values of the first band of a uint8 raster, block row by block row.

    Returns:
        (256,) counts.
    """
    from rasterio.windows import Window as RasterWindow

    from omnisat_cli.sources.safe import open_raster

    counts = np.zeros(256, np.int64)
    with open_raster(path) as dataset:
        for row in range(0, dataset.height, _TILE):
            strip = RasterWindow(0, row, dataset.width, min(_TILE, dataset.height - row))
            counts += np.bincount(dataset.read(1, window=strip).ravel(), minlength=256)
    return counts


def _stream(store: BlockStore, product: Product, dressing: Dressing, scratch: Path) -> None:
    import rasterio
    from affine import Affine

    facts, frame = store.facts, store.facts.frame
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "nodata": NODATA,
        "count": len(dressing.bands),
        "height": frame.height,
        "width": frame.width,
        "crs": rasterio.crs.CRS.from_user_input(facts.crs),
        "transform": Affine(*facts.lattice.transform(frame, facts.refine)),
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "interleave": "band",
        "SPARSE_OK": "TRUE",
        "BIGTIFF": "YES",
    }
    with rasterio.open(scratch, "w", **profile) as dataset:
        _dress(dataset, dressing)
        for record in store.done().values():
            block = store.read(record, product.array)
            dataset.write(block.reshape(-1, *block.shape[-2:]), window=_window(store, record))
            strike("mid-mosaic")


def _dress(dataset: DatasetWriter, dressing: Dressing) -> None:
    """Set names, tags and colours; the colours must come before any pixel."""
    if dressing.categories and len(dressing.bands) == 1:
        colors = {c.value: (*c.rgb, 255) for c in dressing.categories}
        dataset.write_colormap(1, {**colors, NODATA: (0, 0, 0, 0)})
    dataset.update_tags(**dressing.tags)
    dataset.update_tags(1, **dressing.band_tags)
    for band, description in enumerate(dressing.bands, 1):
        dataset.set_band_description(band, description)


def _copy_to_cog(scratch: Path, target: Path, product: Product, threads: int) -> None:
    from rasterio.shutil import copy

    target.unlink(missing_ok=True)
    copy(
        scratch,
        target,
        driver="COG",
        COMPRESS="DEFLATE",
        BLOCKSIZE=str(_TILE),
        BIGTIFF="IF_SAFER",
        OVERVIEWS="IGNORE_EXISTING",
        OVERVIEW_RESAMPLING=product.overviews,
        OVERVIEW_COMPRESS="DEFLATE",
        PREDICTOR="YES" if product.array == "probabilities" else "NO",
        NUM_THREADS=str(threads),
    )


def _verify(store: BlockStore, product: Product, path: Path) -> None:
    """Compare every block of a finished raster with the digest its block file states."""
    from omnisat_cli.sources.safe import open_raster

    with open_raster(path) as dataset:
        for record in store.done().values():
            pixels: Bytes = dataset.read(window=_window(store, record))
            if hashlib.sha256(pixels.tobytes()).hexdigest() == store.digest(record, product.array):
                continue
            # GDAL only logs most failed writes. Where one more file cannot be written either, the
            # cause is known: the disk, a quota or a limit of the file size.
            disk.probe(path.parent)
            raise OmnisatError(
                f"{path.name} does not hold the pixels of block {record.index} after it was "
                f"written under {path.parent}; check the disk and run the same command again"
            )


def _window(store: BlockStore, record: BlockRecord) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ((row, row end), (col, col end)) of a block inside the raster."""
    core = Window(*record.window).refined(store.facts.refine)
    rows, cols = core.slices_in(store.facts.frame)
    return (rows.start, rows.stop), (cols.start, cols.stop)


@contextmanager
def gdal_errors(path: Path, doing: str) -> Iterator[None]:
    """Bound the cache of GDAL and turn its errors into typed ones."""
    import rasterio
    from rasterio._err import CPLE_BaseError  # what close() and copy() let through
    from rasterio.errors import RasterioError

    with disk.disk_errors(path, doing):
        try:
            with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE):
                yield
        except (RasterioError, CPLE_BaseError) as error:
            raise OSError(str(error)) from error
