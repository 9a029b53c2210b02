"""Polygons of the user, read as they are: every column, every geometry, batch by batch.

The first bytes of a file choose its reader, as for rasters. Geometries stay well-known binary, so
that what is read can be written again byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.crs import name_crs
from omnisat_cli.sources.safe import local_path
from omnisat_cli.sources.vectors import GEOPARQUET, check_column, layers_of, readable, vector_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_BATCH = 2**15
_SHOWN = 8
_GPKG = "GPKG"


@dataclass(frozen=True, slots=True)
class PolygonFile:
    """A vector file of polygons.

    Attributes:
        path: Its path.
        kind: Its format.
        layer: Layer that holds the polygons; None where the format has one only.
        crs: CRS as the file or the user states it; never empty.
        geometry: Column that holds the geometries.
        geometry_type: Type of the layer, e.g. "MultiPolygon".
        fid: Column of the feature identifiers, where the format stores them.
        columns: All other columns, in order.
        count: Features.
    """

    path: Path
    kind: str
    layer: str | None
    crs: str
    geometry: str
    geometry_type: str
    fid: str | None
    columns: tuple[str, ...]
    count: int

    def batches(
        self, columns: Sequence[str] | None = None, *, geometry: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """Read the features in the order of the file.

        Args:
            columns: Columns that are wanted; None = all, identifiers included.
            geometry: Whether the geometries are wanted, as WKB.

        Raises:
            SourceError: If the file is damaged.
        """
        with readable(self.path, self.kind, "polygons"):
            if self.kind == GEOPARQUET:
                yield from self._parquet_batches(columns, geometry)
            else:
                yield from self._gdal_batches(columns, geometry)

    def _gdal_batches(
        self, columns: Sequence[str] | None, geometry: bool
    ) -> Iterator[pa.RecordBatch]:
        import pyogrio

        with pyogrio.raw.open_arrow(
            self.path,
            layer=self.layer,
            columns=columns,
            read_geometry=geometry,
            return_fids=columns is None and self.fid is not None,
            batch_size=_BATCH,
            use_pyarrow=True,
        ) as (_, reader):
            yield from reader

    def _parquet_batches(
        self, columns: Sequence[str] | None, geometry: bool
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        wanted = list(self.columns if columns is None else columns)
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(
                _BATCH, columns=[*wanted, *([self.geometry] if geometry else [])]
            )

    def shapes(self, batch: pa.RecordBatch) -> NDArray[np.object_]:
        """Return the (N,) geometries of a batch as WKB, None where there is none."""
        import pyarrow as pa

        column = batch.column(self.geometry)
        plain = column.storage if isinstance(column, pa.ExtensionArray) else column
        found: NDArray[np.object_] = plain.to_numpy(zero_copy_only=False)
        return found

    def check_column(self, name: str, option: str) -> None:
        """Check that a column is there.

        Raises:
            JobError: If it is not.
        """
        check_column(name, self.columns, option, self.path)


def open_polygons(
    path: str | Path, *, option: str, crs: str | None = None, layer: str | None = None
) -> PolygonFile:
    """Learn what a vector file holds; no feature is read.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet.
        option: Option it was given with, for messages; `<option>-crs` and `<option>-layer` are
            named in hints.
        crs: CRS that overrules what the file says.
        layer: Layer, where a file has several.

    Raises:
        SourceError: If the file is damaged, empty or holds no polygons.
        AlignmentError: If it states no CRS.
        JobError: If it has several layers, or not the one that was asked for.
    """
    place = local_path(path)
    if place.is_dir():
        raise SourceError(f"{place}: is a folder; give the file inside it")
    kind = vector_kind(place, option.strip("-"))
    with readable(place, kind, "polygons"):
        if kind == GEOPARQUET:
            found = _open_parquet(place)
        else:
            found = _open_gdal(place, kind, _choose_layer(place, kind, layer, option))
    if found.count == 0:
        raise SourceError(f"{place}: holds no feature; export the polygons again")
    if found.geometry_type and not any(
        word in found.geometry_type for word in ("Polygon", "Unknown", "Collection", "Surface")
    ):
        raise SourceError(f"{place}: holds {found.geometry_type} features; polygons are needed")
    if crs is not None:
        name_crs(crs)
        return _with_crs(found, crs)
    if not found.crs:
        raise AlignmentError(
            f"{place}: states no coordinate reference system (no .prj beside it?); "
            f"say it with {option}-crs EPSG:n"
        )
    return found


def _choose_layer(place: Path, kind: str, wanted: str | None, option: str) -> str | None:
    layers = layers_of(place)
    if wanted is not None:
        if wanted in layers:
            return wanted
        raise JobError(f"{option}-layer {wanted}: {place} has {', '.join(layers) or 'no layer'}")
    if kind != _GPKG and len(layers) == 1:
        return None
    if len(layers) == 1:
        return layers[0]
    if not layers:
        raise SourceError(f"{place}: has no layer with geometry; polygons are needed")
    raise JobError(
        f"{place} has {len(layers)} layers ({', '.join(layers[:_SHOWN])}); choose one with "
        f"{option}-layer {layers[0]}"
    )


def _open_gdal(place: Path, kind: str, layer: str | None) -> PolygonFile:
    import pyogrio

    info = pyogrio.read_info(place, layer=layer, force_feature_count=True)
    return PolygonFile(
        path=place,
        kind=kind,
        layer=layer,
        crs=info["crs"] or "",
        geometry=info["geometry_name"] or "wkb_geometry",
        geometry_type=info["geometry_type"] or "",
        fid=(info["fid_column"] or None) if kind == _GPKG else None,
        columns=tuple(str(name) for name in info["fields"]),
        count=int(info["features"]),
    )


def _open_parquet(place: Path) -> PolygonFile:
    import pyarrow.parquet as pq
    import pyproj

    with pq.ParquetFile(place) as file:
        raw = (file.metadata.metadata or {}).get(b"geo")
        names, count = file.schema_arrow.names, file.metadata.num_rows
    if raw is None:
        raise SourceError(f"{place}: is Parquet without geometries (no geo metadata)")
    geo = json.loads(raw)
    primary = str(geo["primary_column"])
    column = geo["columns"][primary]
    if column.get("encoding") != "WKB":
        raise SourceError(
            f"{place}: stores geometries as {column.get('encoding')}; write it with WKB encoding"
        )
    crs = "OGC:CRS84"
    if "crs" in column:
        known = column["crs"]
        crs = pyproj.CRS.from_json_dict(known).to_wkt() if known else ""
    types = {str(kind).removesuffix(" Z") for kind in column.get("geometry_types") or ()}
    return PolygonFile(
        path=place,
        kind=GEOPARQUET,
        layer=None,
        crs=crs,
        geometry=primary,
        geometry_type=types.pop() if len(types) == 1 else "Unknown",
        fid=None,
        columns=tuple(name for name in names if name not in {primary, _covering(column)}),
        count=int(count),
    )


def _covering(column: dict[str, dict[str, dict[str, list[str]]]]) -> str:
    """Return the column of bounds that belongs to the geometries and not to the user, or ""."""
    return column.get("covering", {}).get("bbox", {}).get("xmin", [""])[0]


def _with_crs(found: PolygonFile, crs: str) -> PolygonFile:
    return replace(found, crs=crs)
