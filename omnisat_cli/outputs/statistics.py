"""Hectares of each class: of a whole map, and of zones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, OutputExistsError, SourceError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.area import Ground, measure_ground
from omnisat_cli.outputs.extent import Extent
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.parcels.names import find_names, numbered, read_origin
from omnisat_cli.outputs.parcels.repair import make_fit
from omnisat_cli.outputs.sidecars import csv_table
from omnisat_cli.outputs.zonal import MapLayers, open_layers, sum_up
from omnisat_cli.sources.polygons import PolygonFile, open_polygons

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.names import ParcelClass

    Floats = NDArray[np.float64]

_LOG = logging.getLogger(__name__)

OPTION: Final = "--zones"
ENDINGS: Final = (".csv", ".json")
TOTAL: Final = "total"
_DECIMALS: Final = 6


@dataclass(frozen=True, slots=True)
class Zones:
    """Polygons that hectares are counted in.

    Attributes:
        path: Vector file.
        column: Column that names them; those of one name are one zone.
        crs: CRS that overrules what the file says.
        layer: Layer, where the file has several.
    """

    path: Path
    column: str | None = None
    crs: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class ClassShare:
    """Ground of one class in one place.

    Attributes:
        code: Value in the map.
        name: Name of the class.
        name_fr: French name, where the legend states it.
        pixels: Pixels; those at the edge of a zone count by their part inside.
        hectares: Ground.
        share: Part of the ground that has a class, 0 to 1; None where there is none.
    """

    code: int
    name: str
    name_fr: str | None
    pixels: float
    hectares: float
    share: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """A zone or the whole map.

    Attributes:
        name: Name of the zone as the file has it; "total" for the map.
        hectares: Ground with a class.
        without: Ground inside the map without a class.
        classes: One entry for each class that the map holds.
    """

    name: str
    hectares: float
    without: float
    classes: tuple[ClassShare, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Hectares of a map.

    Attributes:
        path: The map.
        method: How ground was measured.
        remarks: What a user should know.
        total: The whole map.
        zones: The zones that meet the map, in the order of the file.
        column: Column that names them.
    """

    path: Path
    method: str
    remarks: tuple[str, ...]
    total: Place
    zones: tuple[Place, ...] = ()
    column: str | None = None


def measure(path: Path, zones: Zones | None = None, legend: str | None = None) -> Statistics:
    """Count the hectares of each class, streaming.

    Args:
        path: Class map: one band of codes 0 to 254.
        zones: Where to count beside the whole map.
        legend: Id of a shipped legend or path of a legend file; None = what the map says.

    Raises:
        OmnisatError: With the reason and what to do.
    """
    with open_layers(path, measures=False) as layers:
        ground = measure_ground(layers.dataset)
        pixels, hectares = _whole(layers, ground)
        held = [code for code in np.flatnonzero(pixels).tolist() if code != NODATA]
        classes, remarks = _classes(layers, held, legend)
        remarks = [*([ground.remark] if ground.remark else []), *remarks]
        codes = np.array([*held, NODATA])
        total = _place(TOTAL, (pixels[codes], hectares[codes]), classes)
        places: tuple[Place, ...] = ()
        if zones is not None:
            source = open_polygons(zones.path, option=OPTION, crs=zones.crs, layer=zones.layer)
            column = _column(source, zones.column)
            counter = _Counter(layers, ground, codes)
            sums = counter.count(source, column)
            remarks += counter.remarks()
            places = tuple(_place(name, found, classes) for name, found in sums.items())
        return Statistics(
            path, ground.method, tuple(remarks), total, places, zones.column if zones else None
        )


def _whole(layers: MapLayers, ground: Ground) -> tuple[Floats, Floats]:
    """Count the (256,) pixels and hectares of each code."""
    pixels, hectares = np.zeros(256), np.zeros(256)
    height, width = layers.shape
    rows = layers.strip_rows
    for top in range(0, height, rows):
        end = min(height, top + rows)
        codes = layers.codes((top, end), (0, width))
        found = np.stack([np.bincount(line, minlength=256) for line in codes])
        pixels += found.sum(axis=0)
        hectares += ground.rows[top:end] @ found
    return pixels, hectares


def _classes(
    layers: MapLayers, held: list[int], legend: str | None
) -> tuple[tuple[ParcelClass, ...], list[str]]:
    named = find_names(layers.dataset, layers.path, read_origin(layers.path), legend)
    if named is None:
        remark = "nothing names the classes of the map; --legend does"
        return tuple(numbered(held, layers.dataset).values()), [remark]
    strange = [code for code in held if code not in named]
    if strange:
        raise SourceError(
            f"{layers.path}: holds classes its legend does not name: "
            f"{', '.join(map(str, strange[:10]))}; the legend names {', '.join(map(str, named))}. "
            "Give the right one with --legend"
        )
    return tuple(named[code] for code in held), []


def _column(source: PolygonFile, column: str | None) -> str:
    if column is not None:
        source.check_column(column, "--id")
        return column
    there = ", ".join(source.columns[:20]) or "no column"
    raise JobError(f"--zones {source.path}: say with --id which column names them ({there})")


class _Counter:
    """Counts zones batch by batch.

    Args:
        layers: The map.
        ground: Its pixels.
        codes: (K,) codes to count.
    """

    def __init__(self, layers: MapLayers, ground: Ground, codes: NDArray[np.int64]) -> None:
        self._layers, self._ground, self._codes = layers, ground, codes
        self._even = bool(np.ptp(ground.rows) == 0)
        self._repaired = self._absent = 0

    def count(self, source: PolygonFile, column: str) -> dict[str, tuple[Floats, Floats]]:
        """Return the (K,) pixels and hectares of each zone that meets the map."""
        found: dict[str, tuple[Floats, Floats]] = {}
        missed: set[str] = set()
        extent = Extent()
        for batch in source.batches([column]):
            names = ["" if v is None else str(v) for v in batch.column(column).to_pylist()]
            pixels, hectares = self._batch(source, batch, extent)
            for row, name in enumerate(names):
                if not pixels[row].any():
                    missed.add(name)
                    continue
                before = found.get(name, (0.0, 0.0))
                found[name] = (before[0] + pixels[row], before[1] + hectares[row])
        extent.check(self._layers, source, OPTION)
        self._missed = len(missed - set(found))
        return found

    def _batch(
        self, source: PolygonFile, batch: pa.RecordBatch, extent: Extent
    ) -> tuple[Floats, Floats]:
        fit = make_fit(source.shapes(batch), source.crs, self._layers.crs)
        extent.add(fit.polygons)
        self._repaired += int(fit.repaired.sum())
        self._absent += int(fit.absent.sum())
        placed = self._layers.to_pixels(fit.polygons)
        pixels = sum_up(self._layers, placed, self._codes).pixels
        if self._even:
            return pixels, pixels * self._ground.rows[0]
        return pixels, sum_up(self._layers, placed, self._codes, self._ground.rows).pixels

    def remarks(self) -> list[str]:
        """Return what a user should know of the zones."""
        found = (
            (self._repaired, "not valid: a repaired copy was measured"),
            (self._absent, "without a polygon: left out"),
            (self._missed, "off the map: left out"),
        )
        return [f"zones {text} ({number})" for number, text in found if number]


def _place(name: str, sums: tuple[Floats, Floats], classes: Sequence[ParcelClass]) -> Place:
    """Put sums, those of pixels without a class last, in words."""
    pixels, hectares = sums
    whole = float(hectares[:-1].sum())
    rows = tuple(
        ClassShare(
            entry.code,
            entry.name,
            entry.name_fr,
            round(float(pixels[k]), 2),
            round(float(hectares[k]), _DECIMALS),
            round(float(hectares[k]) / whole, _DECIMALS) if whole > 0 else None,
        )
        for k, entry in enumerate(classes)
    )
    return Place(name, round(whole, _DECIMALS), round(float(hectares[-1]), _DECIMALS), rows)


def to_csv(found: Statistics) -> bytes:
    """Return one line a place and class; with zones, their name comes first and the map last."""
    header = ["code", "name", "name_fr", "pixels", "hectares", "share"]
    rows = [
        (
            place.name,
            entry.code,
            entry.name,
            "" if entry.name_fr is None else entry.name_fr,
            entry.pixels,
            entry.hectares,
            "" if entry.share is None else entry.share,
        )
        for place in (*found.zones, found.total)
        for entry in place.classes
    ]
    if found.column is None:
        return csv_table(header, [row[1:] for row in rows])
    return csv_table([found.column, *header], rows)


def to_plain(found: Statistics) -> dict[str, object]:
    """Return the content of the JSON file."""
    return {
        "map": str(found.path),
        "ground": found.method,
        "remarks": list(found.remarks),
        "total": _plain(found.total),
        "zone_column": found.column,
        "zones": [{"zone": place.name, **_plain(place)} for place in found.zones],
    }


def _plain(place: Place) -> dict[str, object]:
    return {
        "hectares": place.hectares,
        "hectares_without_class": place.without,
        "classes": [
            {
                "code": entry.code,
                "name": entry.name,
                "name_fr": entry.name_fr,
                "pixels": entry.pixels,
                "hectares": entry.hectares,
                "share": entry.share,
            }
            for entry in place.classes
        ],
    }


def check_table_output(out: Path, *, overwrite: bool) -> None:
    """Check that statistics can be written to a path.

    Raises:
        JobError: If its ending stands for no format, or it is a folder.
        OutputExistsError: If it is there already and must not be replaced.
    """
    if out.suffix.lower() not in ENDINGS or out.is_dir():
        raise JobError(f"statistics are written as {' or '.join(ENDINGS)}: {out} is neither")
    if out.exists() and not overwrite:
        raise OutputExistsError(
            f"{out} exists\nkeep it:    -o other{out.suffix}\nreplace it: --overwrite"
        )


def write_table(found: Statistics, out: Path) -> None:
    """Write statistics as CSV or JSON; the file is complete or absent."""
    with disk.disk_errors(out, f"writing {out.name}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".csv":
            disk.write_atomic(out, to_csv(found))
        else:
            disk.write_json(out, to_plain(found))
