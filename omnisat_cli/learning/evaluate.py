"""Compare a map with labels, part by part: memory does not depend on the size of the map."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.geo.crs import is_geographic
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.metrics import Scores, adjusted
from omnisat_cli.learning.reference import (
    MapGrid,
    check_codes,
    grid_of,
    open_label_raster,
)
from omnisat_cli.learning.report import Report, Result
from omnisat_cli.learning.schemes import (
    Scheme,
    SchemeClass,
    own_scheme,
    read_crosswalk,
    register_groups,
)
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.parcels.names import find_names, numbered, read_origin
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.learning.reference import Reference

_SHOWN = 8
_SIDE = 2048
"""Pixels along a part of the map that is compared at a time."""


@dataclass(frozen=True, slots=True)
class TruthRequest:
    """Labels to compare with.

    Attributes:
        path: Label raster, or vector file.
        field: Column with the class, for a vector file.
        crosswalk: See `schemes.read_crosswalk`; None = the labels use the classes of the map.
        ignore: Codes or words of the labels that are no labels.
    """

    path: Path
    field: str | None = None
    crosswalk: str | None = None
    ignore: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """Counts of one comparison while it runs.

    Attributes:
        confusion: (K, K) pixels, rows = labels.
        mapped: (K,) pixels of the whole map.
        unmapped: Labelled pixels without a class in the map.
        unknown: Label codes outside the scheme.
    """

    confusion: NDArray[np.int64]
    mapped: NDArray[np.int64]
    unmapped: int = 0
    unknown: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, classes: int) -> Tally:
        """Return empty counts."""
        return cls(np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64))

    def add(
        self,
        codes: NDArray[np.int64],
        truth: NDArray[np.int16],
        mapped: NDArray[np.int16],
        labelled: NDArray[np.bool_],
    ) -> None:
        """Count pixels; all arrays have one shape.

        Args:
            codes: What the labels say.
            truth: The same as classes of the comparison, -1 where there is none.
            mapped: What the map says as classes of the comparison, -1 where it says nothing.
            labelled: Which pixels have a label.
        """
        K = len(self.confusion)
        known = labelled & (truth >= 0)
        values, counts = np.unique(codes[labelled & ~known], return_counts=True)
        self.unknown.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        both = known & (mapped >= 0)
        self.unmapped += int(known.sum() - both.sum())
        flat = np.bincount(truth[both].astype(np.int64) * K + mapped[both], minlength=K * K)
        self.confusion += flat.reshape(K, K)

    def refuse_unknown(self, scheme: Scheme, what: str) -> None:
        """Refuse label codes that no class of the comparison has.

        Args:
            scheme: The classes.
            what: The labels, for the message.

        Raises:
            JobError: If there are any.
        """
        if not self.unknown:
            return
        most = self.unknown.most_common(_SHOWN)
        shown = ", ".join(f"{scheme.label_word(code)} ({n} times)" for code, n in most)
        more = f" and {len(self.unknown) - len(most)} more" if len(self.unknown) > _SHOWN else ""
        ignored = ",".join(scheme.label_word(code) for code, _ in most)
        raise JobError(
            f"{what} holds {shown}{more}: no class of the comparison "
            f"({', '.join(scheme.label_word(code) for code in sorted(scheme.of_labels))})\n"
            "say what it stands for with --crosswalk FILE.csv, or leave such ground out with "
            f"--ignore {ignored}"
        )

    def refuse_empty(self, labels: str, subject: str) -> None:
        """Check that anything was compared.

        Raises:
            SourceError: If not.
        """
        if self.confusion.any():
            return
        if self.unmapped:
            raise SourceError(
                f"none of the {self.unmapped} labelled pixels of {labels} has a class in {subject}"
            )
        raise SourceError(
            f"{labels} labels no pixel of {subject}: where both lie, it holds no value; check its "
            "nodata value and --ignore"
        )

    def result(self, subset: str, pixel_hectares: float | None) -> Result:
        """Return the figures.

        Args:
            subset: Modalities that were used, or "" for a map.
            pixel_hectares: Ground of a pixel of the map; None where its whole area is not known or
                its pixels have different sizes: then areas are not estimated.
        """
        scores = Scores(self.confusion)
        if pixel_hectares is None:
            return Result(subset, scores, self.unmapped)
        areas = adjusted(self.confusion, self.mapped)
        hectares = float(self.mapped.sum()) * pixel_hectares
        return Result(subset, scores, self.unmapped, areas, hectares)

    def remarks(self) -> Iterator[str]:
        """Say what a reader of the figures should know."""
        if self.unmapped:
            share = 100 * self.unmapped / (self.unmapped + self.confusion.sum())
            yield f"{self.unmapped} labelled pixels ({share:.2g} %) have no class in the map"
        if np.count_nonzero(self.confusion.sum(1)) == 1:
            yield "the labels hold one class only: kappa and most means say little"


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
        with open_reference(request, grid) as reference:
            parts = ((w, _map_codes(dataset, w)) for w in _parts(grid.height, grid.width))
            tally = count(parts, reference, scheme, str(path))
            decisions = reference.decisions
        pixel = _pixel_hectares(dataset)
    tally.refuse_unknown(scheme, str(request.path))
    tally.refuse_empty(str(request.path), str(path))
    notes = [f"{d.topic}: {d.value} ({d.because})" for d in decisions]
    return Report(
        subject=str(path),
        reference=str(request.path),
        names=scheme.names,
        colors=scheme.colors,
        results=(tally.result("", None if is_geographic(grid.crs) else pixel),),
        notes=(*notes, *([scheme.note] if scheme.note else []), *tally.remarks()),
    )


@contextmanager
def open_reference(request: TruthRequest, grid: MapGrid) -> Iterator[Reference]:
    """Open labels on the grid of a map.

    Raises:
        SourceError: If the file cannot be read as labels.
        AlignmentError: If it shares no ground with the map.
        JobError: If a flag does not fit it.
    """
    if request.field is not None:
        raise JobError(f"--field {request.field}: {request.path} is a raster, it has no columns")
    with open_label_raster(request.path, grid, _ignored(request)) as reference:
        yield reference


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
    if request.crosswalk is None:
        return own_scheme(classes)
    return read_crosswalk(request.crosswalk, classes, None if legend else origin.legend)


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
