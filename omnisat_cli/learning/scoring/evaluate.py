"""Compare a map with labels, part by part: memory does not depend on the size of the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.geo.crs import is_geographic
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.labelling.rasters import is_raster
from omnisat_cli.learning.scoring.reference import check_codes, grid_of, open_label_raster
from omnisat_cli.learning.scoring.reference_vectors import open_label_vectors
from omnisat_cli.learning.scoring.report import Report
from omnisat_cli.learning.scoring.schemes import (
    Scheme,
    SchemeClass,
    own_scheme,
    read_class_table,
    read_crosswalk,
    register_groups,
)
from omnisat_cli.learning.scoring.tally import Tally
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.parcels.names import find_names, numbered, read_origin
from omnisat_cli.sources.safe import local_path, open_raster

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.learning.labelling.grid import MapGrid
    from omnisat_cli.learning.scoring.reference import Reference

_SIDE = 1024
"""Pixels along a part of the map that is compared at a time."""


@dataclass(frozen=True, slots=True)
class TruthRequest:
    """Labels to compare with, and what their values mean.

    Attributes:
        path: Label raster, or vector file.
        field: Column with the class; of a raster, its band by name or number.
        crosswalk: See `schemes.read_crosswalk`; None = the labels use the classes of the map.
        classes: See `schemes.read_class_table`, instead of a crosswalk.
        ignore: Codes or words of the labels that are no labels.
    """

    path: Path
    field: str | None = None
    crosswalk: str | None = None
    classes: str | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.crosswalk is not None and self.classes is not None:
            raise JobError("--crosswalk and --classes both say what labels mean; give one of them")

    def scheme(self, mapped: Sequence[SchemeClass], map_legend: str | None) -> Scheme:
        """Choose the classes of the comparison.

        Args:
            mapped: Classes of the map.
            map_legend: Label of its legend, where it is known.

        Raises:
            JobError: If a table or crosswalk does not fit the map.
            SourceError: If it cannot be read.
        """
        if self.classes is not None:
            return read_class_table(self.classes, mapped)
        if self.crosswalk is not None:
            return read_crosswalk(self.crosswalk, mapped, map_legend)
        return own_scheme(mapped)


def evaluate_map(path: Path, request: TruthRequest, legend: str | None = None) -> Report:
    """Compare a class map with labels.

    Args:
        path: The map; what lies beside it names its classes.
        request: The labels.
        legend: Shipped legend or legend file that names the classes of the map instead.

    Raises:
        SourceError: If a file cannot be read or is not what it should be.
        AlignmentError: If map and labels share no ground.
        JobError: If the labels hold codes outside the classes.
    """
    with open_raster(path) as dataset:
        check_codes(dataset, path)
        grid = grid_of(dataset, path)
        scheme = _scheme(dataset, path, request, legend)
        reference = open_reference(request, grid, scheme)
        parts = ((w, _map_codes(dataset, w)) for w in _parts(grid.height, grid.width))
        tally = count(parts, reference, scheme, str(path))
        pixel = _pixel_hectares(dataset)
    tally.refuse_unknown(scheme, str(request.path))
    tally.refuse_empty(str(request.path), str(path))
    notes = [f"{d.topic}: {d.value} ({d.because})" for d in reference.decisions]
    return Report(
        subject=str(path),
        reference=str(request.path),
        names=scheme.names,
        colors=scheme.colors,
        results=(tally.result("", None if is_geographic(grid.crs) else pixel),),
        notes=(*notes, *([scheme.note] if scheme.note else []), *tally.remarks(scheme)),
    )


def open_reference(request: TruthRequest, grid: MapGrid, scheme: Scheme) -> Reference:
    """Open labels on the grid of a map.

    Raises:
        SourceError: If the file cannot be read as labels.
        AlignmentError: If it shares no ground with the map.
        JobError: If a flag or a value does not fit it.
    """
    place = local_path(request.path)
    if not is_raster(place):
        return open_label_vectors(place, request.field, grid, scheme, request.ignore)
    return open_label_raster(request.path, grid, _ignored(request), request.field)


def count(
    parts: Iterable[tuple[Window, NDArray[np.uint8]]],
    reference: Reference,
    scheme: Scheme,
    subject: str,
) -> Tally:
    """Count a map part by part.

    Args:
        parts: Where a part lies (rows and columns from the corner of the map) and its codes, 255
            where there is none.
        reference: The labels on the grid of the map.
        scheme: Classes of the comparison.
        subject: The map, for messages.

    Raises:
        SourceError: If the map holds a code that nothing names, or labels cannot be read.
    """
    tally = Tally.of(len(scheme.names))
    for window, codes in parts:
        present = codes != NODATA
        mapped = scheme.map_classes(codes)
        strange = present & (mapped < 0)
        if strange.any():
            raise SourceError(
                f"{subject} holds the code {codes[strange][0]}, which its legend does not name; "
                "name its classes with --legend"
            )
        mapped[~present] = -1
        tally.mapped += np.bincount(mapped[present], minlength=len(tally.mapped))
        labels, labelled = reference.read(window)
        if labelled.any():
            tally.add(labels, scheme.label_classes(labels), mapped, labelled)
    return tally


def _scheme(
    dataset: DatasetReader, path: Path, request: TruthRequest, legend: str | None
) -> Scheme:
    """Name the classes of a map and choose those of the comparison."""
    origin = read_origin(path)
    named = find_names(dataset, path, origin, legend)
    if named is None:
        named = numbered(_values(dataset), dataset)
    classes = [
        SchemeClass(
            c.code,
            c.name,
            "#{:02x}{:02x}{:02x}".format(*c.rgb),
            c.name_fr or "",
            register_groups(c.rpg_group),
        )
        for c in named.values()
    ]
    return request.scheme(classes, None if legend else origin.legend)


def _ignored(request: TruthRequest) -> tuple[int, ...]:
    words = [word for word in request.ignore if not word.lstrip("-").isdecimal()]
    if words:
        raise JobError(f"--ignore {words[0]}: a label raster holds codes, give numbers")
    return tuple(int(word) for word in request.ignore)


def _parts(height: int, width: int) -> Iterator[Window]:
    for row in range(0, height, _SIDE):
        for col in range(0, width, _SIDE):
            yield Window(row, col, min(_SIDE, height - row), min(_SIDE, width - col))


def _map_codes(dataset: DatasetReader, window: Window) -> NDArray[np.uint8]:
    """Read the codes of a part of a map, 255 where there is none."""
    from rasterio.errors import RasterioError

    place = ((window.row, window.row_end), (window.col, window.col_end))
    try:
        values = dataset.read(1, window=place)
    except RasterioError as error:
        raise SourceError(f"{dataset.name} cannot be read, it is damaged: {error}") from error
    none = (values == NODATA) | (values == dataset.nodata)
    wrong = ~none & ((values < 0) | (values > NODATA))
    if wrong.any():
        raise SourceError(
            f"{dataset.name}: holds the value {values[wrong][0]}, but class codes are 0 to 254; "
            "map its classes to such codes first"
        )
    return np.where(none, NODATA, values).astype(np.uint8)


def _values(dataset: DatasetReader) -> list[int]:
    found: set[int] = set()
    for window in _parts(dataset.height, dataset.width):
        found |= set(np.unique(_map_codes(dataset, window)).tolist())
    return sorted(found - {NODATA})


def _pixel_hectares(dataset: DatasetReader) -> float:
    width, height = dataset.res
    return float(width * height * dataset.crs.linear_units_factor[1] ** 2 / 10_000)
