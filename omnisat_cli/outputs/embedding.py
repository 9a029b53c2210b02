"""Embeddings of patches as a cloud-optimised GeoTIFF or a Zarr store, complete or absent.

Blocks are streamed into a scratch GeoTIFF beside the output, which is then copied into its final
form and renamed: memory does not depend on the area.
"""

from __future__ import annotations

import shutil
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, OutputExistsError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.embedding_forms import write_cog, write_zarr
from omnisat_cli.outputs.mosaic import gdal_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetWriter

    from omnisat_cli.geo.lattice import Lattice, Window
    from omnisat_cli.sources.embeddings import EmbeddingFacts

FORMATS = (".tif", ".tiff", ".zarr")
_TILE = 256


@dataclass(frozen=True, slots=True)
class Frame:
    """Where embeddings lie.

    Attributes:
        lattice: One anchor pixel is one patch.
        area: Window of the file.
    """

    lattice: Lattice
    area: Window


class EmbeddingWriter:
    """Takes blocks of embeddings.

    Args:
        dataset: The scratch file.
        frame: Where they lie.
    """

    def __init__(self, dataset: DatasetWriter, frame: Frame) -> None:
        self._dataset, self._frame = dataset, frame
        self.largest = np.zeros(dataset.count, np.float32)
        """Largest absolute value of each number so far."""
        self.patches = 0
        """Patches written so far."""

    def put(self, core: Window, values: NDArray[np.float32]) -> None:
        """Write a block, (D, h, w) with NaN where there is nothing; (0, h, w) writes nothing."""
        if not len(values):
            return
        there = ~np.isnan(values[0])
        self.patches += int(there.sum())
        if there.any():
            peaks = np.abs(values[:, there]).max(axis=1)
            self.largest = np.maximum(self.largest, peaks)
        rows, cols = core.slices_in(self._frame.area)
        self._dataset.write(values, window=((rows.start, rows.stop), (cols.start, cols.stop)))


def check_embedding_output(out: Path, *, overwrite: bool) -> None:
    """Check that embeddings can be written to a path.

    Raises:
        JobError: If its ending stands for no format, or it is a folder that is no store.
        OutputExistsError: If something is there and must not be replaced.
    """
    if out.suffix.lower() not in FORMATS:
        raise JobError(f"embeddings are written as .tif or .zarr: {out} ends in neither")
    if not out.exists():
        return
    if not overwrite:
        raise OutputExistsError(
            f"{out} exists\nkeep it:    -o other{out.suffix}\nreplace it: --overwrite"
        )
    is_store = (out / "zarr.json").is_file()
    if out.is_dir() and (out.suffix.lower() != ".zarr" or not is_store):
        raise JobError(f"{out} is a folder that holds no embeddings; choose another path")


@contextmanager
def embedding_file(
    out: Path, frame: Frame, facts: EmbeddingFacts, *, quantised: bool
) -> Iterator[EmbeddingWriter]:
    """Write embeddings beside `out`; they become `out` when everything is there.

    Args:
        out: .tif or .zarr.
        frame: Where they lie.
        facts: What they are of; `scale` is filled in.
        quantised: Store 8-bit integers with a scale for each number.

    Raises:
        ResourceError: If the disk is full; `out` is untouched.
    """
    with disk.disk_errors(out, f"writing {out.name}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        work = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
        work.mkdir()
    try:
        with gdal_errors(out, f"writing {out.name}"):
            need = frame.area.height * frame.area.width * facts.width * 4
            disk.require_space(work, 2 * need, f"writing {out.name}")
            scratch = work / "scratch.tif"
            with _scratch(scratch, frame, facts.width) as dataset:
                writer = EmbeddingWriter(dataset, frame)
                yield writer
            made = work / out.name
            write = write_zarr if out.suffix.lower() == ".zarr" else write_cog
            write(scratch, made, facts, writer.largest if quantised else None)
            _publish(made, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _scratch(path: Path, frame: Frame, bands: int) -> Iterator[DatasetWriter]:
    import rasterio
    from affine import Affine

    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "nodata": float("nan"),
        "count": bands,
        "height": frame.area.height,
        "width": frame.area.width,
        "crs": rasterio.crs.CRS.from_user_input(frame.lattice.crs),
        "transform": Affine(*frame.lattice.transform(frame.area)),
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "interleave": "band",
        "SPARSE_OK": "TRUE",
        "BIGTIFF": "YES",
    }
    with rasterio.open(path, "w", **profile) as dataset:
        yield dataset


def _publish(made: Path, out: Path) -> None:
    """Give finished embeddings their name; a store that is there makes room first."""
    if out.is_dir():
        out.replace(made.with_name("replaced"))
    made.replace(out)
    disk.sync_folder(out.parent)
