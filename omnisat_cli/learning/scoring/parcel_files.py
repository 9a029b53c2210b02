"""Predicted and reference parcels out of vector files, brought together for scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyproj
import shapely

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.crs import is_metric, name_crs
from omnisat_cli.learning.scoring.parcel_scores import ParcelSet
from omnisat_cli.outputs.parcels.repair import make_fit
from omnisat_cli.sources.safe import local_path
from omnisat_cli.sources.vectors import Table, read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CODE, NAME = "class_code", "class_name"
"""Columns of the parcels that omnisat writes."""

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ParcelFiles:
    """Two vector files and where their classes stand.

    Attributes:
        predicted: Predicted parcels.
        reference: Reference parcels.
        field: Column of the reference that holds its class; None = `class_code` where it has that.
        predicted_field: Column of the predictions; None = `class_code`, or `class_name` where
            only that has classes in common with the reference.
    """

    predicted: Path
    reference: Path
    field: str | None = None
    predicted_field: str | None = None


@dataclass(frozen=True, slots=True)
class ParcelPair:
    """Parcels that can be compared.

    Attributes:
        predicted: Predicted parcels.
        reference: Reference parcels.
        crs: The CRS of both.
        notes: What was decided or repaired, one sentence each.
    """

    predicted: ParcelSet
    reference: ParcelSet
    crs: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _File:
    """What a file holds; `columns` are text, "" where a feature has no value."""

    path: Path
    shapes: NDArray[np.object_]
    columns: dict[str, NDArray[np.str_]]
    crs: str
    table: Table


def read_pair(files: ParcelFiles) -> ParcelPair:
    """Read two files of parcels, in one CRS and with classes that can be compared.

    Raises:
        SourceError: If a file cannot be read or holds no parcel.
        AlignmentError: If a file has no CRS, or the files do not meet.
        JobError: If a column is missing, or the columns have no class in common.
    """
    reference = _read(files.reference, (files.field,) if files.field else (CODE,))
    wanted = (files.predicted_field,) if files.predicted_field else (CODE, NAME)
    predicted = _read(files.predicted, wanted)
    for file, field in ((reference, files.field), (predicted, files.predicted_field)):
        if field is not None and field not in file.columns:
            there = ", ".join(file.table.columns)
            raise JobError(f"{file.path}: has no column {field!r}; it has {there}")
    crs = _common_crs(predicted, reference)
    notes = [
        f"{file.path.name}: {text}" for file in (predicted, reference) for text in file.table.notes
    ]
    classes = _classes(predicted, reference, files, notes)
    sets = [
        _parcel_set(file, column, crs, notes)
        for file, column in zip((predicted, reference), classes, strict=True)
    ]
    _check_meeting(sets[0], sets[1], files, crs)
    return ParcelPair(sets[0], sets[1], crs, tuple(notes))


def _read(path: Path, columns: Sequence[str]) -> _File:
    """Read the geometries and those of the columns that are there."""
    place = local_path(path)
    if not place.is_file():
        raise SourceError(f"{path}: there is no such file")
    table = read_table(place, "parcels", columns, usual="parcels")
    frame = table.frame
    if frame.crs is None:
        raise AlignmentError(f"{path}: states no CRS; write it again with one")
    named = {name: _as_text(frame[name]) for name in columns if name in frame.columns}
    crs = name_crs(frame.crs.to_wkt())[0]
    return _File(path, frame.geometry.to_numpy(), named, crs, table)


def _as_text(column: Iterable[object]) -> NDArray[np.str_]:
    """Write classes so that 7, 7.0 and "7" are one; nothing is ""."""
    return np.array([_text(value) for value in column], np.str_)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _common_crs(predicted: _File, reference: _File) -> str:
    """Choose the CRS to measure in: that of a file that counts in metres, else an own one."""
    for file in (predicted, reference):
        if is_metric(file.crs):
            return file.crs
    left, bottom, right, top = shapely.total_bounds(reference.shapes)
    if not np.isfinite([left, bottom, right, top]).all():
        raise SourceError(f"{reference.path}: holds no geometry")
    here = pyproj.Transformer.from_crs(reference.crs, "EPSG:4326", always_xy=True)
    lon, lat = here.transform((left + right) / 2, (bottom + top) / 2)
    return name_crs(f"+proj=laea +lon_0={lon:.4f} +lat_0={lat:.4f} +units=m +type=crs")[0]


def _classes(
    predicted: _File, reference: _File, files: ParcelFiles, notes: list[str]
) -> tuple[NDArray[np.str_] | None, NDArray[np.str_] | None]:
    """Return the classes of both; None if they are not compared."""
    theirs = reference.columns.get(files.field or CODE)
    if theirs is None:
        notes.append(f"classes are not compared: {reference.path.name} has no column {CODE}")
        return None, None
    for name, ours in predicted.columns.items():
        if set(ours.tolist()) & set(theirs.tolist()) - {""}:
            notes.append(f"classes: {name} against {files.field or CODE}")
            return ours, theirs
    found = ", ".join(sorted({c for column in predicted.columns.values() for c in column})[:_SHOWN])
    wanted = ", ".join(sorted(set(theirs.tolist()))[:_SHOWN])
    raise JobError(
        f"{files.predicted}: has the classes {found or 'of no column'}, and "
        f"{files.reference}: {wanted}; none is common. Name the columns that match, or write the "
        "reference with the codes of the map's legend"
    )


def _parcel_set(
    file: _File, classes: NDArray[np.str_] | None, crs: str, notes: list[str]
) -> ParcelSet:
    """Repair, flatten and warp the geometries; drop what is no polygon."""
    fit = make_fit(shapely.to_wkb(file.shapes), file.crs, crs)
    kept = ~shapely.is_missing(fit.polygons)
    repaired, dropped = int(fit.repaired.sum()), int((~kept).sum())
    if repaired:
        notes.append(f"{file.path.name}: {repaired} invalid geometries repaired")
    if dropped:
        notes.append(f"{file.path.name}: {dropped} features without a polygon left out")
    if not kept.any():
        raise SourceError(f"{file.path}: holds no parcel ({len(kept)} features, none a polygon)")
    columns = None if classes is None else classes[kept]
    return ParcelSet(fit.polygons[kept], columns, repaired, dropped)


def _check_meeting(
    predicted: ParcelSet, reference: ParcelSet, files: ParcelFiles, crs: str
) -> None:
    ours, theirs = (shapely.total_bounds(one.polygons) for one in (predicted, reference))
    if (ours[:2] > theirs[2:]).any() or (theirs[:2] > ours[2:]).any():
        raise AlignmentError(
            f"{files.predicted} ({_extent(ours)}) and {files.reference} ({_extent(theirs)}, "
            f"{crs[:40]}) do not meet; check their CRSs"
        )


def _extent(bounds: NDArray[np.float64]) -> str:
    left, bottom, right, top = bounds.tolist()
    return f"x {left:.0f}..{right:.0f}, y {bottom:.0f}..{top:.0f}"
