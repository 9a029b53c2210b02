"""The columns of parcels in the words of those who use them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[np.generic]]

_ALSO: Final = (
    *("class_code", "class_name", "name_fr", "rpg_group"),
    *("conf_mean", "conf_std", "valid_mean", "valid_std", "n_px"),
)
"""Columns that a fiboa file has beside those of fiboa."""

_DETAILS: Final = "omnisat: regions of a class map"
_END_OF_DAY: Final = np.timedelta64(86_399, "s")


class Fields(StrEnum):
    """Which columns parcels have."""

    FULL = "full"
    FIBOA = "fiboa"
    OSO = "oso"


@dataclass(frozen=True, slots=True)
class Wording:
    """How the columns of parcels are named.

    Attributes:
        fields: Which columns.
        collection: Name of the collection the parcels belong to.
        lists: Whether the format has lists.
    """

    fields: Fields = Fields.FULL
    collection: str = "parcels"
    lists: bool = False

    @staticmethod
    def of(out: Path, fields: Fields | None, source: Path) -> Wording:
        """Choose the columns for a file: those of fiboa for GeoParquet, else all of ours.

        Args:
            out: The file of the parcels.
            fields: What the user wants, if anything.
            source: The class map.
        """
        parquet = out.suffix.lower() == ".parquet"
        chosen = fields or (Fields.FIBOA if parquet else Fields.FULL)
        return Wording(chosen, source.stem, parquet)

    @property
    def style(self) -> str:
        """Column of the class codes."""
        return "Classe" if self.fields is Fields.OSO else "class_code"

    def table(self, columns: Columns) -> pa.Table:
        """Return our columns in these words."""
        plain = pa.table({name: arrow(values) for name, values in columns.items()})
        if self.fields is Fields.OSO:
            return _oso(columns)
        if self.fields is Fields.FIBOA:
            return self._fiboa(plain, columns)
        return plain

    def _fiboa(self, plain: pa.Table, columns: Columns) -> pa.Table:
        """Return the columns of fiboa 0.3, then what else we know."""
        count = plain.num_rows
        model = columns["model"].tolist()
        details = [f"{_DETAILS}, model {name}" if name else _DETAILS for name in model]
        seen = columns["date_end"].astype("datetime64[s]") + _END_OF_DAY
        category = pa.array([["other"]] * count, pa.list_(pa.string()))
        if not self.lists:
            category = pa.array(["other"] * count, pa.string())
        named = {
            "id": pa.array(columns["id"].astype(str).tolist(), pa.string()),
            "collection": pa.array([self.collection] * count, pa.string()),
            "category": category,
            "metrics:area": pa.array(columns["area_m2"].astype(np.float32)),
            "metrics:perimeter": pa.array(columns["perimeter_m"].astype(np.float32)),
            "determination:method": pa.array(["auto-imagery"] * count, pa.string()),
            "determination:datetime": pa.array(
                seen.astype("datetime64[ms]"), pa.timestamp("ms", "UTC"), from_pandas=True
            ),
            "determination:details": pa.array(details, pa.string()),
        }
        return pa.table({**named, **{name: plain.column(name) for name in _ALSO}})


def _oso(columns: Columns) -> pa.Table:
    """Return the columns of the vector product of OSO, the land cover map of France.

    Aire is in square metres, Validmean and Confidence are whole numbers, as iota2 writes them. It
    has a percentage a class as well, which parcels of one class do not need.

    Source: inglada/iota2, simplification/ZonalStats.py, iota2Formatting.
    """
    return pa.table(
        {
            "Classe": arrow(columns["class_code"]),
            "Validmean": _whole(columns["valid_mean"]),
            "Validstd": arrow(np.round(columns["valid_std"].astype(np.float64), 2)),
            "Confidence": _whole(columns["conf_mean"]),
            "Aire": arrow(np.round(columns["area_m2"].astype(np.float64), 2)),
        }
    )


def _whole(values: NDArray[np.generic]) -> pa.Array:
    numbers = values.astype(np.float64)
    none = np.isnan(numbers)
    return pa.array(np.round(np.where(none, 0, numbers)).astype(np.int32), mask=none)


def arrow(values: NDArray[np.generic]) -> pa.Array:
    """Return a column as Arrow has it; NaN, NaT and None are no value, objects are texts."""
    if values.dtype == object:
        return pa.array(values.tolist(), pa.string())
    return pa.array(values, from_pandas=True)
