"""GeoParquet 1.1, written row group by row group.

Source: GeoParquet 1.1.0 (geo metadata, bbox covering); fiboa 0.3 and Vecorel 0.1 (`collection`
metadata, names and types of columns).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GEOMETRY: Final = "geometry"
_ROW_GROUP: Final = 50_000
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_NAMES: Final = {
    1: "LineString",
    0: "Point",
    3: "Polygon",
    4: "MultiPoint",
    5: "MultiLineString",
    6: "MultiPolygon",
    7: "GeometryCollection",
}
"""Names of the type numbers of shapely."""

_SCHEMAS: Final = (
    "https://vecorel.org/specification/v0.1.0/schema.yaml",
    "https://vecorel.org/geometry-metrics-extension/v0.1.0/schema.yaml",
    "https://fiboa.org/specification/v0.3.0/schema.yaml",
)


class GeoParquetWriter:
    """Appends tables to a GeoParquet file, which is whole once it is closed.

    Args:
        path: The file.
        crs: CRS of the geometries.
        collection: Name of a fiboa collection; None for a file that is none.
    """

    def __init__(self, path: Path, crs: str, collection: str | None = None) -> None:
        self._path, self._crs, self._collection = path, crs, collection
        self._waiting: list[pa.Table] = []
        self._file: pq.ParquetWriter | None = None
        self._covering = ""
        self._types: set[str] = set()
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def add(self, table: pa.Table, geometry: str) -> None:
        """Append features.

        Args:
            table: The same columns in every call.
            geometry: Column of the geometries, as WKB; it is called "geometry" in the file.
        """
        shapes = shapely.from_wkb(_binary(table.column(geometry)), on_invalid="ignore")
        self._covering = self._covering or _free("bbox", table.column_names)
        place = table.column_names.index(geometry)
        plain = table.column(geometry).cast(pa.binary())
        table = table.set_column(place, pa.field(GEOMETRY, pa.binary()), plain)
        table = table.append_column(self._covering, self._boxes(shapes))
        self._waiting.append(table)
        if sum(part.num_rows for part in self._waiting) >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the metadata."""
        if self._file is None or self._waiting:
            self._flush()
        if self._file is not None:
            metadata = {"geo": json.dumps(self._geo())}
            if self._collection is not None:
                content = {"schemas": {self._collection: _SCHEMAS}, "collection": self._collection}
                metadata["collection"] = json.dumps(content)
            self._file.add_key_value_metadata(metadata)
            self._file.close()
            self._file = None

    def abandon(self) -> None:
        """Let go of the file; what it holds is of no use."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        if self._file is None:
            schema = table.schema.remove_metadata()
            self._file = pq.ParquetWriter(self._path, schema, compression="zstd")
        self._file.write_table(table.replace_schema_metadata(None), row_group_size=_ROW_GROUP)

    def _boxes(self, shapes: NDArray[np.object_]) -> pa.StructArray:
        bounds = shapely.bounds(shapes).reshape(-1, 4)
        none = np.isnan(bounds).any(axis=1)
        if not none.all():
            low, high = bounds[~none, :2].min(axis=0), bounds[~none, 2:].max(axis=0)
            self._bounds[:2] = np.minimum(self._bounds[:2], low)
            self._bounds[2:] = np.maximum(self._bounds[2:], high)
        kinds = np.unique(
            np.column_stack([shapely.get_type_id(shapes), shapely.has_z(shapes)]), axis=0
        )
        for kind, deep in kinds.tolist():
            if kind in _NAMES:
                self._types.add(_NAMES[kind] + (" Z" if deep else ""))
        columns = [pa.array(edge) for edge in bounds.T]
        return pa.StructArray.from_arrays(columns, list(_CORNERS), mask=pa.array(none))

    def _geo(self) -> dict[str, object]:
        column: dict[str, object] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._types),
            "crs": pyproj.CRS.from_user_input(self._crs).to_json_dict(),
            "covering": {"bbox": {corner: [self._covering, corner] for corner in _CORNERS}},
        }
        if np.isfinite(self._bounds).all():
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def _binary(column: pa.ChunkedArray) -> NDArray[np.object_]:
    found: NDArray[np.object_] = column.cast(pa.binary()).to_numpy()
    return found


def _free(name: str, taken: list[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
