"""Parcels as a vector file that is complete or absent."""

from __future__ import annotations

import errno
import sqlite3
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError

from omnisat_cli.errors import JobError, OmnisatError, OutputExistsError, ResourceError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.faults import strike, strike_torn
from omnisat_cli.outputs.parcels.columns import Fields, Wording
from omnisat_cli.outputs.parcels.style import store_style

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.columns import Columns
    from omnisat_cli.outputs.parcels.geoparquet import GeoParquetWriter
    from omnisat_cli.outputs.parcels.names import ParcelClass

LAYER = "parcels"
PARQUET = ".parquet"
DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON", ".json": "GeoJSON"}
ENDINGS = (*DRIVERS, PARQUET)
_GEOMETRY = "geometry"
_FULL_WORDS = ("disk is full", "No space left", "File too large", "quota")
_LIBRARY_ERRORS = (DataSourceError, DataLayerError, FeatureError, sqlite3.Error)


def check_parcel_output(out: Path, *, overwrite: bool) -> None:
    """Check that parcels can be written to a path.

    Raises:
        JobError: If its ending stands for no format, or it is a folder.
        OutputExistsError: If it is there already and must not be replaced, or is open elsewhere.
    """
    if out.suffix.lower() not in ENDINGS:
        raise JobError(f"parcels are written as {', '.join(ENDINGS)}: {out} ends in none of them")
    if out.is_dir():
        raise JobError(f"{out} is a folder; give the path of a file, e.g. {out / 'parcels.gpkg'}")
    if out.exists() and not overwrite:
        raise OutputExistsError(
            f"{out} exists\nkeep it:    -o other{out.suffix}\nreplace it: --overwrite"
        )
    log = out.with_name(f"{out.name}-wal")
    if log.exists() and log.stat().st_size:
        raise OutputExistsError(
            f"{out} is open in another program, or was left so ({log.name} holds changes); close "
            "it there, or choose another file"
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """What a parcel file is beside its features.

    Attributes:
        wording: How our own columns are named.
        geometry: Type of its geometries.
        style: Column whose class codes choose the colour; None = that of the wording.
        shape: Column of the geometries.
        fid: Column of the feature identifiers.
    """

    wording: Wording = field(default_factory=Wording)
    geometry: str = "Polygon"
    style: str | None = None
    shape: str = "geom"
    fid: str = "fid"


class _GeoPackage:
    """A GeoPackage that grows."""

    def __init__(self, path: Path, crs: str, layer: Layer) -> None:
        self._path, self._crs, self._layer = path, crs, layer
        self._begun = False

    def add(self, table: pa.Table, geometry: str) -> None:
        """Append features; the first call, even of none, makes the layer."""
        if self._begun and not table.num_rows:
            return
        names = {"GEOMETRY_NAME": self._layer.shape, "FID": self._layer.fid}
        pyogrio.raw.write_arrow(
            table,
            self._path,
            layer=LAYER,
            driver="GPKG",
            geometry_name=geometry,
            geometry_type=self._layer.geometry,
            crs=self._crs,
            append=self._begun,
            dataset_options=None if self._begun else {"VERSION": "1.2"},
            layer_options=None if self._begun else names,
        )
        self._begun = True

    def close(self) -> None:
        """Everything is in the file already."""

    abandon = close


class ParcelWriter:
    """Appends parcels to a file that gets its name at the end.

    Args:
        sink: Where they go.
        layer: What the file is.
    """

    def __init__(self, sink: _GeoPackage | GeoParquetWriter, layer: Layer) -> None:
        self._sink, self._layer = sink, layer

    def add(self, polygons: NDArray[np.object_], columns: Columns) -> None:
        """Append parcels of our own; the first call, even of none, makes the layer."""
        import pyarrow as pa

        table = self._layer.wording.table(columns)
        wkb = pa.array(shapely.to_wkb(polygons).tolist(), pa.binary())
        self.add_table(table.append_column(_GEOMETRY, wkb), _GEOMETRY)

    def add_table(self, table: pa.Table, geometry: str) -> None:
        """Append features whose geometries are well-known binary, which stays as it is.

        Args:
            table: The same columns in every call.
            geometry: Column of the geometries.
        """
        self._sink.add(table, geometry)
        strike("mid-mosaic")


@contextmanager
def parcel_file(
    out: Path, crs: str, classes: Sequence[ParcelClass], layer: Layer = Layer()
) -> Iterator[ParcelWriter]:
    """Write a parcel file under a temporary name beside `out`; on success it becomes `out`.

    Args:
        out: Path; its ending chooses the format.
        crs: Coordinate reference system.
        classes: The classes, for the style of a GeoPackage.
        layer: What the file is beside its features.

    Raises:
        ResourceError: If the disk is full; what was at `out` is untouched.
        SourceError: If the folder cannot be written.
    """
    part = out.with_name(f".{uuid.uuid4().hex}.part.gpkg")
    final = part.with_suffix(out.suffix.lower())
    with _typed_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        sink = _sink(part, final, crs, layer)
        try:
            yield ParcelWriter(sink, layer)
            sink.close()
            if final == part:
                style = layer.style or layer.wording.style
                store_style(part, LAYER, classes, (style, layer.shape))
            elif final.suffix in DRIVERS:
                _convert(part, final, crs, layer.geometry)
                part.unlink()
            strike_torn("mid-part", final)
            disk.sync_file(final)
            strike("before-replace")
            disk.publish(final, out)
        finally:
            sink.abandon()
            for rest in out.parent.glob(f"{part.stem}.*"):
                rest.unlink(missing_ok=True)


def _sink(part: Path, final: Path, crs: str, layer: Layer) -> _GeoPackage | GeoParquetWriter:
    if final.suffix != PARQUET:
        return _GeoPackage(part, crs, layer)
    from omnisat_cli.outputs.parcels.geoparquet import GeoParquetWriter

    wording = layer.wording
    return GeoParquetWriter(
        final, crs, wording.collection if wording.fields is Fields.FIBOA else None
    )


def _convert(part: Path, final: Path, crs: str, geometry: str) -> None:
    """Stream the finished parcels into another format."""
    with pyogrio.raw.open_arrow(part, layer=LAYER, use_pyarrow=False) as (meta, stream):
        pyogrio.raw.write_arrow(
            stream,
            final,
            layer=LAYER,
            driver=DRIVERS[final.suffix],
            geometry_name=meta["geometry_name"] or "wkb_geometry",
            geometry_type=geometry,
            crs=crs,
        )


@contextmanager
def _typed_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except _LIBRARY_ERRORS as error:
        if _is_full(out.parent, str(error)):
            raise _full(out, error) from error
        raise OmnisatError(f"writing {out} failed: {error}") from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise _full(out, error) from error
        with disk.disk_errors(out, f"writing {out.name}"):
            raise


def _full(out: Path, error: Exception) -> ResourceError:
    free = disk.human(disk.free_bytes(out.parent))
    return ResourceError(
        f"no space left while writing {out} ({free} free): {error}. What was there before is "
        "untouched; free some space and run the same command again"
    )


def _is_full(folder: Path, message: str) -> bool:
    """Judge the error of a library that keeps the error number to itself."""
    if any(words in message for words in _FULL_WORDS):
        return True
    try:
        disk.probe(folder)
    except OSError:
        return True
    return False
