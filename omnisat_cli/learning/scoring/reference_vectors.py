"""Polygons and points as labels on the grid of a map."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError
from omnisat_cli.learning.labelling.classes import Codes
from omnisat_cli.learning.labelling.classes import Scheme as LabelScheme
from omnisat_cli.learning.labelling.request import Ground, LabelRequest
from omnisat_cli.learning.labelling.vectors import survey_vectors
from omnisat_cli.outputs.legend import NODATA, Legend, LegendClass

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Window
    from omnisat_cli.learning.labelling.grid import MapGrid
    from omnisat_cli.learning.labelling.vectors import VectorLabels
    from omnisat_cli.learning.scoring.schemes import Scheme
    from omnisat_cli.sources.values import Decision


@dataclass(frozen=True, slots=True)
class VectorReference:
    """Labels of a vector file; see `reference.Reference`.

    Attributes:
        labels: The shapes; their codes are places in `codes`.
        codes: (C,) label codes of the comparison.
        grid: Grid of the map.
        decisions: What was recognised, repaired or left out.
    """

    labels: VectorLabels
    codes: NDArray[np.int64]
    grid: MapGrid
    decisions: tuple[Decision, ...]

    @property
    def bounds(self) -> Bounds:
        """Ground they cover, in the CRS of the map."""
        return self.labels.bounds

    def read(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return codes and labelled pixels; see `Reference.read`."""
        places, _ = self.labels.laid_on(self.grid.part(window))
        labelled = places != NODATA
        return self.codes[np.where(labelled, places, 0)], labelled


def open_label_vectors(
    path: Path, field: str | None, grid: MapGrid, scheme: Scheme, ignored: tuple[str, ...]
) -> VectorReference:
    """Read polygons or points that lie on a map.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or GeoParquet.
        field: Column with their class: a code, or a name.
        grid: Grid of the map.
        scheme: Classes of the comparison.
        ignored: Values of the column that are no labels.

    Raises:
        SourceError: If the file is damaged.
        AlignmentError: If it shares no ground with the map.
        JobError: If the column is missing, or a value is no class of the comparison.
    """
    survey = survey_vectors(LabelRequest(str(path), field), Ground(grid.crs, (grid.bounds,)))
    codes, words = _classes(survey.codes, scheme, ignored)
    # Only the numbers of the classes matter here.
    names = tuple(LegendClass(k, f"{code}", f"{code}", "#000000") for k, code in enumerate(codes))
    legend = Legend("labels", "1", str(path), "that of the labels", names)
    labels = survey.labelled(LabelScheme(legend, words))
    return VectorReference(
        replace(labels, borders=False),
        np.array(codes, np.int64),
        grid,
        tuple(d for d in labels.decisions if d.warning),
    )


def _classes(
    found: Codes, scheme: Scheme, ignored: tuple[str, ...]
) -> tuple[list[int], dict[str, int | None]]:
    """Return the codes that occur, and for each word its place among them; None = ignored.

    Raises:
        JobError: If a word is no class of the comparison.
    """
    codes: list[int] = []
    words: dict[str, int | None] = {}
    unknown: Counter[str] = Counter()
    for word, count in found.counts.items():
        code = scheme.code_of(word)
        if word in ignored or code in scheme.left_out:
            words[word.casefold()] = None
        elif code is None:
            unknown[word] += count
        else:
            if code not in codes:
                codes.append(code)
            words[word.casefold()] = codes.index(code)
    if unknown:
        raise JobError(scheme.refusal(unknown, found.where, found.unit))
    if not codes:
        raise JobError(f"{found.where}: all {sum(found.counts.values())} features are left out")
    return codes, words
