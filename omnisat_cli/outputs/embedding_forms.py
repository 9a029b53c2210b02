"""The final forms of embeddings: cloud-optimised GeoTIFF and Zarr."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.outputs import disk
from omnisat_cli.sources.embeddings import NO_EMBEDDING, TAG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.sources.embeddings import EmbeddingFacts

_LEVELS = 127
_TILE = 256


def write_cog(
    scratch: Path, target: Path, facts: EmbeddingFacts, largest: NDArray[np.float32] | None
) -> None:
    """Copy embeddings into a cloud-optimised GeoTIFF of D bands.

    Args:
        scratch: The same as plain float32 GeoTIFF.
        target: Path of the file.
        facts: What its tag says.
        largest: Largest absolute value of each number: values are stored as 8-bit integers; None
            to store float32.
    """
    import rasterio
    from rasterio.shutil import copy

    scale = None if largest is None else scale_of(largest)
    final = scratch
    if scale is not None:
        final = scratch.with_name("quantised.tif")
        _quantise(scratch, final, scale)
    with rasterio.open(final, "r+") as dataset:
        dataset.update_tags(**{TAG: _facts(facts, scale).to_json()})
        if scale is not None:
            dataset.scales = tuple(float(part) for part in scale)
    copy(
        final,
        target,
        driver="COG",
        COMPRESS="DEFLATE",
        BLOCKSIZE=str(_TILE),
        BIGTIFF="IF_SAFER",
        OVERVIEWS="NONE",  # embeddings are read at their own resolution
        PREDICTOR="YES",
    )
    disk.sync_file(target)


def write_zarr(
    scratch: Path, target: Path, facts: EmbeddingFacts, largest: NDArray[np.float32] | None
) -> None:
    """Copy embeddings into a Zarr store that xarray opens; see `write_cog`.

    The store holds `embedding` (band, y, x), the coordinates of the centres of the patches, and
    `spatial_ref` with the CRS as WKT.
    """
    import zarr

    scale = None if largest is None else scale_of(largest)
    with _opened(scratch) as dataset:
        group = zarr.create_group(target, zarr_format=3)
        shape = (dataset.count, dataset.height, dataset.width)
        array = group.create_array(
            "embedding",
            shape=shape,
            chunks=(shape[0], min(_TILE, shape[1]), min(_TILE, shape[2])),
            dtype="float32" if scale is None else "int8",
            fill_value=float("nan") if scale is None else NO_EMBEDDING,
            dimension_names=("band", "y", "x"),
            attributes={"grid_mapping": "spatial_ref"},
        )
        for rows in _strips(dataset):
            values = dataset.read(window=(rows, (0, dataset.width)))
            array[:, slice(*rows), :] = values if scale is None else _stored(values, scale)
        _coordinates(group, dataset)
        if scale is not None:
            _vector(group, "scale", scale.astype(np.float64), "band")
        group.attrs[TAG] = json.loads(_facts(facts, scale).to_json())


def scale_of(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the step of each number so that its largest value still fits 8 bits."""
    return np.where(largest > 0, largest / _LEVELS, 1.0).astype(np.float32)


def _facts(facts: EmbeddingFacts, scale: NDArray[np.float32] | None) -> EmbeddingFacts:
    return facts if scale is None else replace(facts, scale=tuple(float(s) for s in scale))


def _stored(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    steps = np.rint(values / scale[:, None, None])
    return np.where(np.isnan(steps), NO_EMBEDDING, steps).astype(np.int8)


def _quantise(scratch: Path, target: Path, scale: NDArray[np.float32]) -> None:
    import rasterio

    with _opened(scratch) as source:
        profile = {**source.profile, "dtype": "int8", "nodata": NO_EMBEDDING}
        with rasterio.open(target, "w", **profile) as dataset:
            for rows in _strips(source):
                place = (rows, (0, source.width))
                dataset.write(_stored(source.read(window=place), scale), window=place)


@contextmanager
def _opened(path: Path) -> Iterator[DatasetReader]:
    import rasterio

    with rasterio.open(path) as dataset:
        yield dataset


def _strips(dataset: DatasetReader) -> Iterator[tuple[int, int]]:
    """Yield rows, half-open, tile by tile."""
    for row in range(0, dataset.height, _TILE):
        yield row, min(row + _TILE, dataset.height)


def _coordinates(group: object, dataset: DatasetReader) -> None:
    grid = dataset.transform
    x = grid.c + grid.a * (np.arange(dataset.width) + 0.5)
    y = grid.f + grid.e * (np.arange(dataset.height) + 0.5)
    _vector(group, "x", x, "x")
    _vector(group, "y", y, "y")
    transform = " ".join(repr(part) for part in grid.to_gdal())
    place = group.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0)  # type: ignore[attr-defined]
    place.attrs.update({"crs_wkt": dataset.crs.to_wkt(), "GeoTransform": transform})


def _vector(group: object, name: str, values: NDArray[np.float64], dimension: str) -> None:
    array = group.create_array(  # type: ignore[attr-defined]
        name, shape=values.shape, dtype="float64", dimension_names=(dimension,)
    )
    array[:] = values
