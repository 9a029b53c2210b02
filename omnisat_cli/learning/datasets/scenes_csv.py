"""Tables of satellite scenes by tile: a line is one image of one tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.learning.datasets.layout import parse_days

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pyarrow import RecordBatch

_COLUMNS = ("projection", "col", "row", "index", "scene")


@dataclass(frozen=True, slots=True, eq=False)
class Calendar:
    """Dates of the images of many tiles, in the order of the images.

    Attributes:
        starts: (N + 1,) where the dates of each tile begin.
        days: (M,) int32 days since 1970.
    """

    starts: NDArray[np.int64]
    days: NDArray[np.int32]

    def of(self, tile: int) -> NDArray[np.datetime64]:
        """Return the dates of one tile; none where it has no image."""
        part = self.days[self.starts[tile] : self.starts[tile + 1]]
        return part.astype("datetime64[D]")


def read_calendar(path: Path, tiles: NDArray[np.int32], dated_part: int) -> Calendar:
    """Read the dates of some tiles; the table is streamed and may be larger than memory.

    Args:
        path: CSV of projection, col, row, index and scene.
        tiles: (N, 3) projection, column and row, sorted.
        dated_part: Which part of a scene's name, between underscores, begins with its date.

    Raises:
        SourceError: If the table is missing, damaged, or does not number the images of a tile.
    """
    keys = _key(*tiles.T)
    found = [_select(batch, keys, path, dated_part) for batch in _batches(path)]
    table = np.concatenate([np.empty((0, 3), np.int64), *found])
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    starts = np.searchsorted(table[:, 0], np.arange(len(keys) + 1))
    numbers = np.arange(len(table)) - starts[table[:, 0]]
    wrong = np.flatnonzero(numbers != table[:, 1])
    if wrong.size:
        tile = "_".join(map(str, tiles[table[wrong[0], 0]].tolist()))
        raise SourceError(f"{path} does not number the images of tile {tile} from 0 on, once each")
    return Calendar(starts, table[:, 2].astype(np.int32))


def _batches(path: Path) -> Iterator[RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv

    types = {name: pa.string() if name == "scene" else pa.int64() for name in _COLUMNS}
    options = csv.ConvertOptions(include_columns=list(_COLUMNS), column_types=types)
    reading = csv.ReadOptions(block_size=2**24, use_threads=False)
    try:
        with csv.open_csv(path, read_options=reading, convert_options=options) as stream:
            yield from stream
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{path} is no table of {', '.join(_COLUMNS)}: {error}") from error


def _select(
    batch: RecordBatch, keys: NDArray[np.int64], path: Path, dated_part: int
) -> NDArray[np.int64]:
    """Return (K, 3) number of the tile, number of the image and day of the wanted lines."""
    if any(batch.column(name).null_count for name in _COLUMNS[:4]):
        raise SourceError(f"{path} has a line without {', '.join(_COLUMNS[:4])}")
    columns = [np.from_dlpack(batch.column(name)).astype(np.int64) for name in _COLUMNS[:4]]
    wanted = _key(*columns[:3])
    places = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    lines = np.flatnonzero(keys[places] == wanted)
    scenes = batch.column("scene")
    names = [scenes[line].as_py() or "" for line in lines.tolist()]
    parts = [name.split("_")[dated_part : dated_part + 1] for name in names]
    days = parse_days(("".join(part)[:8] for part in parts), path)
    return np.column_stack([places[lines], columns[3][lines], days.astype(np.int64)])


def _key(
    projection: NDArray[np.integer], col: NDArray[np.integer], row: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Number tiles, in the order of projection, column and row."""
    offset = np.int64(2**19)
    zone = projection.astype(np.int64) << 40
    return zone + ((col.astype(np.int64) + offset) << 20) + row.astype(np.int64) + offset
