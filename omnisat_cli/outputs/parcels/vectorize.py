"""From a class map to a file of parcels, in two passes over strips of rows.

The first pass learns the size, class and neighbours of every region, the second draws them. What is
held is a table of some numbers a region and the outlines that the strips so far have not finished.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.parcels.columns import Wording
from omnisat_cli.outputs.parcels.faces import Drawing, PolygonBuilder
from omnisat_cli.outputs.parcels.names import Origin, find_names, numbered, read_origin
from omnisat_cli.outputs.parcels.regions import Census
from omnisat_cli.outputs.parcels.source import MEASURES, Boundaries, ClassMap, open_map
from omnisat_cli.outputs.parcels.writer import Layer, check_parcel_output, parcel_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.columns import Fields
    from omnisat_cli.outputs.parcels.names import ParcelClass
    from omnisat_cli.outputs.parcels.regions import Integers, Regions

_LOG = logging.getLogger(__name__)

_BYTES_A_PARCEL = 1000
_SQUARE_METRES = 10_000
_COLUMNS = {"confidence": "conf", "validity": "valid"}


@dataclass(frozen=True, slots=True)
class ParcelOptions:
    """How parcels are drawn.

    Attributes:
        simplify_m: How far a border may move, in metres; None = one pixel, 0 = not at all.
        min_area_m2: Smaller regions join the neighbour with the longest common border.
        legend: Id of a shipped legend or path of a legend file; None = what the map says.
        overwrite: Replace an existing file.
        boundaries: Parcel boundaries that tell neighbours of one class apart.
        strip_rows: Rows held at a time; the parcels do not depend on it.
        fields: Which columns; None = those of fiboa for GeoParquet, else all.
        smooth: Round corners; borders then move by up to `simplify_m` once more (by half a pixel
            where that is 0).
    """

    simplify_m: float | None = None
    min_area_m2: float = 0.0
    legend: str | None = None
    overwrite: bool = False
    boundaries: Boundaries = field(default_factory=Boundaries)
    strip_rows: int | None = None
    fields: Fields | None = None
    smooth: bool = False

    def __post_init__(self) -> None:
        for name, value in (("--simplify", self.simplify_m), ("--min-area", self.min_area_m2)):
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise JobError(f"{name} {value}: must be 0 or more")


@dataclass(frozen=True, slots=True)
class ParcelReport:
    """What was written.

    Attributes:
        out: The file.
        parcels: Number of parcels.
        by_class: (name, parcels, hectares of their pixels) of the classes that occur.
        simplify_m: Tolerance that was used, in metres.
        named: Whether the map or a legend names the classes.
        boundary: The raster that told neighbours of one class apart, if any.
    """

    out: Path
    parcels: int
    by_class: tuple[tuple[str, int, float], ...]
    simplify_m: float
    named: bool
    boundary: Path | None = None


def vectorize(path: Path, out: Path, options: ParcelOptions = ParcelOptions()) -> ParcelReport:
    """Write the regions of a class map as polygons without gaps and overlaps.

    Args:
        path: Class map: one band of codes 0 to 254, projected or in degrees.
        out: .gpkg, .fgb or .geojson.
        options: How.

    Raises:
        OmnisatError: With the reason and what to do; what was at `out` is then untouched.
    """
    check_parcel_output(out, overwrite=options.overwrite)
    origin = read_origin(path)
    with open_map(path, options.boundaries) as source:
        names = find_names(source.dataset, path, origin, options.legend)
        regions = _census(source, options)
        codes = np.unique(regions.code[1:]).tolist()
        classes = numbered(codes, source.dataset) if names is None else names
        _check_codes(source, regions, classes)
        disk.require_space(out.parent, regions.count * _BYTES_A_PARCEL, f"writing {out.name}")
        tolerance = source.ground.pixel
        if options.simplify_m is not None:
            tolerance = options.simplify_m
        smooth = (tolerance or source.ground.pixel / 2) if options.smooth else 0.0
        builder = PolygonBuilder(source.shape, regions, Drawing(source.ground, tolerance, smooth))
        labels = Census(source.shape[1])
        layer = Layer(Wording.of(out, options.fields, path))
        with parcel_file(out, source.crs, list(classes.values()), layer) as writer:
            for strip in source.strips(options.strip_rows, measures=False):
                _LOG.info("rows %d of %d", strip.top, source.shape[0])
                numbers, drawn = builder.add(regions.of_label[labels.number(strip)])
                polygons = _on_the_ground(source, drawn)
                columns = _columns(source, (numbers, polygons), regions, classes)
                writer.add(polygons, columns | _constants(origin, len(numbers)))
        rows = _by_class(source, regions, classes)
        boundary = options.boundaries.find(path)
        return ParcelReport(out, regions.count, rows, tolerance, names is not None, boundary)


def _census(source: ClassMap, options: ParcelOptions) -> Regions:
    """Learn all about the regions; one whose area is the minimum or more stays."""
    minimum = int(np.ceil(options.min_area_m2 / source.ground.unit - 1e-9))
    census = Census(source.shape[1], minimum)
    for strip in source.strips(options.strip_rows):
        census.add(strip)
    return census.finish()


def _check_codes(source: ClassMap, regions: Regions, classes: dict[int, ParcelClass]) -> None:
    strange = sorted(set(np.unique(regions.code[1:]).tolist()) - set(classes))
    if strange:
        counts = np.bincount(regions.code[1:], regions.pixels[1:], 256).astype(int)
        found = ", ".join(f"{code} ({counts[code]} px)" for code in strange[:10])
        raise SourceError(
            f"{source.path}: holds classes its legend does not name: {found}; the legend names "
            f"{', '.join(map(str, classes))}. Give the right one with --legend"
        )


def _on_the_ground(source: ClassMap, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Bring polygons from pixels to the CRS of the map."""
    grid = source.dataset.transform
    scale, origin = np.array([grid.a, grid.e]), np.array([grid.c, grid.f])
    placed = shapely.transform(polygons, lambda xy: xy * scale + origin)
    turned: NDArray[np.object_] = shapely.orient_polygons(placed)
    return turned


def _columns(
    source: ClassMap,
    parcels: tuple[Integers, NDArray[np.object_]],
    regions: Regions,
    classes: dict[int, ParcelClass],
) -> dict[str, NDArray[np.generic]]:
    numbers, polygons = parcels
    codes = regions.code[numbers]
    entries = [classes[code] for code in codes.tolist()]
    area, outline = source.ground.measure(polygons)
    return {
        "id": regions.first[numbers] + 1,
        "class_code": codes.astype(np.int32),
        "class_name": _texts([entry.name for entry in entries]),
        "name_fr": _texts([entry.name_fr for entry in entries]),
        "rpg_group": _texts([entry.rpg_group for entry in entries]),
        "area_m2": np.round(area, 2),
        "area_ha": np.round(area / _SQUARE_METRES, 6),
        "perimeter_m": np.round(outline, 2),
        "n_px": regions.pixels[numbers],
        **_measure_columns(regions, numbers),
    }


def _measure_columns(regions: Regions, numbers: Integers) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {}
    for name in MEASURES:
        sums = regions.measures.get(name)
        for kind in ("mean", "std"):
            values = np.full(len(numbers), np.nan)
            if sums is not None:
                values = np.round((sums.mean() if kind == "mean" else sums.std())[numbers], 3)
            columns[f"{_COLUMNS[name]}_{kind}"] = values
    return columns


def _constants(origin: Origin, count: int) -> dict[str, NDArray[np.generic]]:
    begin, end = origin.dates or ("NaT", "NaT")
    return {
        "model": _texts([origin.model] * count),
        "date_start": np.full(count, np.datetime64(begin, "D")),
        "date_end": np.full(count, np.datetime64(end, "D")),
    }


def _texts(values: list[str] | list[str | None]) -> NDArray[np.generic]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _by_class(
    source: ClassMap, regions: Regions, classes: dict[int, ParcelClass]
) -> tuple[tuple[str, int, float], ...]:
    parcels = np.bincount(regions.code[1:], minlength=256)
    ground = np.bincount(regions.code[1:], regions.ground[1:], 256)
    hectares = ground * source.ground.unit / _SQUARE_METRES
    return tuple(
        (classes[code].name, int(parcels[code]), round(float(hectares[code]), 6))
        for code in np.flatnonzero(parcels).tolist()
    )
