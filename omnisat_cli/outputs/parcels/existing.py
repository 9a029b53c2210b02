"""Parcels the user has, with what a class map says of each.

Their geometries, identifiers and columns pass through as they are; what is computed uses repaired
copies. Parcels are read, measured and written batch by batch.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from omnisat_cli.errors import JobError, OutputExistsError, SourceError
from omnisat_cli.geo.crs import same_crs, short_crs
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.extent import Extent
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.parcels.declared import Declared, key_of, read_declared
from omnisat_cli.outputs.parcels.names import find_names, numbered, read_origin
from omnisat_cli.outputs.parcels.predicted import Predicted, Scheme
from omnisat_cli.outputs.parcels.repair import Fit, make_fit
from omnisat_cli.outputs.parcels.writer import check_parcel_output, parcel_file
from omnisat_cli.outputs.sidecars import csv_table
from omnisat_cli.outputs.zonal import MapLayers, open_layers, sum_up
from omnisat_cli.sources.polygons import PolygonFile, open_polygons

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.names import ParcelClass

_LOG = logging.getLogger(__name__)

OPTION: Final = "--parcels"
_SPECK: Final = 0.01
"""Side of the smallest square that is measured, in pixels."""

_BYTES_A_SHARE: Final = 9
_BYTES_A_PARCEL: Final = 200


@dataclass(frozen=True, slots=True)
class ExistingOptions:
    """How existing parcels are read and judged.

    Attributes:
        legend: Id of a shipped legend or path of a legend file; None = what the map says.
        overwrite: Replace existing files.
        crs: CRS of the parcels, overruling what their file says.
        layer: Layer of the parcels, where their file has several.
        declared: Column of the declared crop.
        crosswalk: File from declared value to class.
        suspects: CSV of the parcels that disagree with their declaration.
    """

    legend: str | None = None
    overwrite: bool = False
    crs: str | None = None
    layer: str | None = None
    declared: str | None = None
    crosswalk: Path | None = None
    suspects: Path | None = None

    def __post_init__(self) -> None:
        for name, value in (("--crosswalk", self.crosswalk), ("--suspects", self.suspects)):
            if value is not None and self.declared is None:
                raise JobError(f"{name} {value}: needs --declared COLUMN, the declared crop")


@dataclass(slots=True)
class ExistingReport:
    """What was written.

    Attributes:
        out: The file.
        parcels: Features of the input, all of which are in the file.
        outside: Parcels where the map has no class, or that it does not reach.
        absent: Features without a polygon: no geometry, a line, a curve, no area.
        repaired: Parcels whose outline is not valid; a repaired copy was measured.
        classes: Number of parcels a predicted class, by name.
        agreement: Number of parcels by "yes", "no" and "" (cannot be judged).
        declared: What the declarations mean, if they were asked for.
        renamed: Columns of ours whose name the input has too, and what they are called.
        moved: CRS of the parcels and of the map where they differ, in words.
        suspects: The list of suspect parcels.
        named: Whether the map or a legend names the classes.
    """

    out: Path
    parcels: int = 0
    outside: int = 0
    absent: int = 0
    repaired: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    agreement: Counter[str] = field(default_factory=Counter)
    declared: Declared | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    moved: tuple[str, str] | None = None
    suspects: Path | None = None
    named: bool = True

    def take(self, fit: Fit, predicted: Predicted) -> None:
        """Count a batch of parcels."""
        found = predicted.place >= 0
        self.parcels += len(found)
        self.absent += int(fit.absent.sum())
        self.outside += int((~found & ~fit.absent).sum())
        self.repaired += int(fit.repaired.sum())
        names = np.array([entry.name for entry in predicted.scheme.classes], dtype=object)
        self.classes.update(names[predicted.place[found]].tolist())
        if predicted.agrees is not None:
            self.agreement.update("" if a is None else a for a in predicted.agrees.tolist())


def judge_parcels(
    path: Path, parcels: Path, out: Path, options: ExistingOptions = ExistingOptions()
) -> ExistingReport:
    """Write what a class map says of parcels the user has.

    Args:
        path: Class map: one band of codes 0 to 254; confidence and validity beside it are used.
        parcels: Vector file of polygons.
        out: .gpkg, .fgb or .geojson.
        options: How.

    Raises:
        OmnisatError: With the reason and what to do; what was at `out` is then untouched.
    """
    _check_outputs(out, parcels, options)
    source = open_polygons(parcels, option=OPTION, crs=options.crs, layer=options.layer)
    with open_layers(path) as layers:
        classes, held, named = _classes(layers, path, options.legend)
        declared = None
        if options.declared is not None:
            declared = read_declared(source, options.declared, classes, options.crosswalk)
        report = ExistingReport(out, declared=declared, named=named)
        scheme = Scheme.of(held, declared, layers.beside, source)
        report.renamed = {a: b for a, b in scheme.names.items() if a != b}
        if not same_crs(source.crs, layers.crs):
            report.moved = short_crs(source.crs), short_crs(layers.crs)
        _require_space(source, len(scheme.classes), out)
        _write(layers, source, scheme, options, report)
    return report


def _check_outputs(out: Path, parcels: Path, options: ExistingOptions) -> None:
    check_parcel_output(out, overwrite=options.overwrite)
    if out.exists() and parcels.exists() and out.samefile(parcels):
        raise JobError(f"{out} is the input itself, which is never changed; write to another file")
    suspects = options.suspects
    if suspects is None:
        return
    if suspects.suffix.lower() != ".csv" or suspects.is_dir():
        raise JobError(f"--suspects {suspects}: is a list in a .csv file")
    if suspects.exists() and not options.overwrite:
        raise OutputExistsError(
            f"{suspects} exists\nkeep it:    --suspects other.csv\nreplace it: --overwrite"
        )


def _classes(
    layers: MapLayers, path: Path, wanted: str | None
) -> tuple[dict[int, ParcelClass], tuple[ParcelClass, ...], bool]:
    """Return the classes of the legend, those the map holds, and whether anything names them."""
    counts = layers.histogram()
    held = [code for code in np.flatnonzero(counts).tolist() if code != NODATA]
    named = find_names(layers.dataset, path, read_origin(path), wanted)
    if named is None:
        classes = numbered(held, layers.dataset)
        return classes, tuple(classes.values()), False
    strange = [code for code in held if code not in named]
    if strange:
        found = ", ".join(f"{code} ({counts[code]} px)" for code in strange[:10])
        raise SourceError(
            f"{path}: holds classes its legend does not name: {found}; the legend names "
            f"{', '.join(map(str, named))}. Give the right one with --legend"
        )
    return named, tuple(named[code] for code in held), True


def _require_space(source: PolygonFile, classes: int, out: Path) -> None:
    a_row = _BYTES_A_PARCEL + _BYTES_A_SHARE * classes
    needed = source.path.stat().st_size + source.count * a_row
    disk.require_space(out.parent, needed, f"writing {out.name}")


def _write(
    layers: MapLayers,
    source: PolygonFile,
    scheme: Scheme,
    options: ExistingOptions,
    report: ExistingReport,
) -> None:
    """Measure and write all batches; both files get their names when both are complete."""
    suspects: list[pa.Table] = []
    extent = Extent()
    part: Path | None = None
    try:
        with parcel_file(report.out, source.crs, scheme.classes, scheme.layer) as writer:
            for batch in source.batches():
                _LOG.info("parcel %d of %d", report.parcels, source.count)
                fit, predicted = _measure(layers, source, scheme, batch)
                extent.add(fit.polygons)
                report.take(fit, predicted)
                table = predicted.beside(_plain(batch))
                writer.add_table(table, source.geometry)
                if options.suspects is not None:
                    suspects.append(predicted.suspects(table, source.geometry))
            if report.absent == report.parcels:
                raise SourceError(f"{source.path}: none of its {report.parcels} features has area")
            extent.check(layers, source, OPTION)
            if options.suspects is not None:
                part = _write_suspects(options.suspects, suspects)
        if part is not None and options.suspects is not None:
            disk.publish(part, options.suspects)
            report.suspects = options.suspects
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _measure(
    layers: MapLayers, source: PolygonFile, scheme: Scheme, batch: pa.RecordBatch
) -> tuple[Fit, Predicted]:
    fit = make_fit(source.shapes(batch), source.crs, layers.crs)
    placed = _sturdy(layers.to_pixels(fit.polygons))
    zonal = sum_up(layers, placed, scheme.codes)
    keys = None
    if scheme.declared is not None:
        keys = _keys(batch.column(scheme.declared.column))
    return fit, Predicted.of(scheme, zonal, shapely.area(placed), keys)


def _sturdy(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Put a speck in the place of polygons without ground to speak of, which rounding would lose.

    Args:
        polygons: (N,) in pixels, or None.
    """
    faint = shapely.area(polygons) < _SPECK**2
    if not faint.any():
        return polygons
    sturdy = polygons.copy()
    sturdy[faint] = shapely.buffer(
        shapely.point_on_surface(polygons[faint]), _SPECK / 2, cap_style="square"
    )
    return sturdy


def _keys(column: pa.Array) -> NDArray[np.object_]:
    """Return how the declarations of a batch are compared."""
    values = column.unique()
    keys = np.array([key_of(value) for value in values.to_pylist()], dtype=object)
    places = pc.index_in(column, values).to_numpy(zero_copy_only=False)
    found: NDArray[np.object_] = keys[places]
    return found


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """Return a batch as a table without dictionaries, which vector formats do not have."""
    table = pa.Table.from_batches([batch])
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, name, column.cast(column.type.value_type))
    return table


def _write_suspects(path: Path, tables: list[pa.Table]) -> Path:
    """Write the list under a temporary name, the surest disagreement first."""
    table = pa.concat_tables(tables)
    table = table.sort_by([("score", "descending")])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.disk_errors(path, f"writing {path.name}"):
        return disk.write_part(path, csv_table(table.column_names, rows))
