"""Embeddings that `omnisat embed` wrote, read back window by window."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import name_crs
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.sources.safe import local_path, open_raster

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from zarr import Array, Group

TAG = "omnisat_embedding"
"""Tag of a file, or attribute of a store, that holds `EmbeddingFacts` as JSON."""

NO_EMBEDDING = -128
"""Stored value of patches without embedding, where 8-bit integers are stored."""

_SNAP = 1e-3
_LIMIT = 2**24


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """What embeddings are of; enough to refuse those of another encoder.

    Attributes:
        model: Name of the pack.
        version: Version of the pack.
        weights_sha256: Digest of its weights.
        patch_m: Side of a patch in metres.
        width: Numbers of an embedding.
        modalities: Imagery that was used.
        dates: Series to the days it was read on, ISO.
        inputs: Modality to the files: path, bytes, digest.
        omnisat: Version of the program.
        scale: Factor from stored to true values of each number; empty where they are stored as
            they are.
    """

    model: str
    version: str
    weights_sha256: str
    patch_m: float
    width: int
    modalities: tuple[str, ...]
    dates: Mapping[str, tuple[str, ...]]
    inputs: Mapping[str, tuple[Mapping[str, object], ...]]
    omnisat: str
    scale: tuple[float, ...] = ()

    def to_json(self) -> str:
        """Return them as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of an area.

    Attributes:
        path: Where they lie.
        facts: What they are of.
        lattice: One anchor pixel is one patch.
        window: Ground of the file.
    """

    path: Path
    facts: EmbeddingFacts
    lattice: Lattice
    window: Window

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read (D, h, w); NaN where there is no embedding, also beyond the file.

        Raises:
            SourceError: If the file is damaged.
        """
        out = np.full((self.facts.width, *window.shape), np.nan, np.float32)
        common = window.intersection(self.window)
        if common.is_empty:
            return out
        stored = _stored(self.path, *common.slices_in(self.window))
        values = stored.astype(np.float32)
        if self.facts.scale:
            values *= np.array(self.facts.scale, np.float32)[:, None, None]
            values[:, (stored == NO_EMBEDDING).all(axis=0)] = np.nan
        out[:, *common.slices_in(window)] = values
        return out


def open_embeddings(path: str | Path) -> Embeddings:
    """Open a GeoTIFF or a Zarr store of embeddings.

    Raises:
        SourceError: If it is damaged or holds no embeddings of omnisat.
        AlignmentError: If its patches do not lie on their lattice.
        SecurityError: If the path is remote.
    """
    place = local_path(path)
    text, crs, transform, shape = _zarr_head(place) if place.is_dir() else _tiff_head(place)
    facts = _parsed(text, place)
    if shape[0] != facts.width or len(facts.scale) not in (0, facts.width):
        raise SourceError(f"{place}: has {shape[0]} bands, its tag says {facts.width}")
    lattice = Lattice(name_crs(crs)[0], facts.patch_m)
    a, b, left, d, e, top = transform
    row, col = -top / facts.patch_m, left / facts.patch_m
    off = max(abs(row - round(row)), abs(col - round(col)))
    if off > _SNAP or b or d or abs(a - facts.patch_m) > _SNAP or abs(e + facts.patch_m) > _SNAP:
        raise AlignmentError(
            f"{place}: its pixels do not lie on the lattice of {facts.patch_m:g} m patches any "
            "more; use the file as `omnisat embed` wrote it"
        )
    return Embeddings(place, facts, lattice, Window(round(row), round(col), *shape[1:]))


Head = tuple[str, str, tuple[float, ...], tuple[int, int, int]]
"""Tag, CRS, transform and (D, H, W) of a file."""


def _tiff_head(path: Path) -> Head:
    with open_raster(path) as dataset:
        crs = "" if dataset.crs is None else dataset.crs.to_wkt()
        shape = (dataset.count, dataset.height, dataset.width)
        return dataset.tags().get(TAG, ""), crs, tuple(dataset.transform)[:6], shape


def _zarr_head(path: Path) -> Head:
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
        place = group["spatial_ref"].attrs
        left, a, _, top, _, e = (float(part) for part in str(place["GeoTransform"]).split())
        D, H, W = _array(group).shape
        tag = json.dumps(group.attrs.asdict().get(TAG))
        return tag, str(place["crs_wkt"]), (a, 0.0, left, 0.0, e, top), (D, H, W)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise SourceError(f"{path}: holds no embeddings that omnisat wrote: {error}") from error


def _array(group: Group) -> Array[Any]:
    import zarr

    found = group["embedding"]
    if not isinstance(found, zarr.Array):
        raise TypeError("`embedding` is no array")
    return found


def _parsed(text: str, path: Path) -> EmbeddingFacts:
    try:
        content = dict(json.loads(text)) if len(text) < _LIMIT else {}
        known = {entry.name: content[entry.name] for entry in fields(EmbeddingFacts)}
        known["modalities"] = tuple(known["modalities"])
        for name in ("dates", "inputs"):
            known[name] = {str(key): tuple(values) for key, values in dict(known[name]).items()}
        known["scale"] = tuple(float(part) for part in known["scale"])
        facts = EmbeddingFacts(**known)
        if not all(math.isfinite(part) for part in (facts.patch_m, *facts.scale)):
            raise ValueError("a number is not finite")
        return facts
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SourceError(
            f"{path}: carries no {TAG} tag that can be read ({error}); it holds no embeddings "
            "that `omnisat embed` wrote"
        ) from error


def _stored(path: Path, rows: slice, cols: slice) -> NDArray[np.generic]:
    if path.is_dir():
        import zarr

        try:
            group = zarr.open_group(path, mode="r")
            return np.asarray(_array(group)[:, rows, cols])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise SourceError(f"{path}: cannot be read, it is damaged: {error}") from error
    from rasterio.errors import RasterioError

    try:
        with open_raster(path) as dataset:
            window = ((rows.start, rows.stop), (cols.start, cols.stop))
            return np.asarray(dataset.read(window=window))
    except RasterioError as error:
        raise SourceError(f"{path}: cannot be read, it is damaged: {error}") from error
