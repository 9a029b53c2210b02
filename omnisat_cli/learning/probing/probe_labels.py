"""Labelled patches out of embeddings and labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.learning.labelling.labels import open_labels
from omnisat_cli.learning.labelling.request import Ground
from omnisat_cli.learning.probing.probe_head import LabelledPatches
from omnisat_cli.learning.training.packing import pack_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.labelling.labels import Labels
    from omnisat_cli.learning.labelling.request import LabelRequest
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.sources.embeddings import Embeddings

_PART = 256
"""Patches along a part of the embeddings that is read at a time."""

_SQUARE = 16
"""Patches along a square of ground that is held out together, where there are no polygons."""


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """What is fitted, and where it goes.

    Attributes:
        embeddings: File of `omnisat embed`.
        labels: Polygons, points or a raster of codes on the same ground.
        out: Folder of the pack.
        table: CSV that merges or names codes, or None.
        start: Pack the embeddings come from; None to look it up by the name they carry.
        each: Most patches of one polygon that are used.
        most: Most patches that are used.
        seed: Of the choice of patches and of the folds.
        licence: Of the pack.
        limits: What users of the pack should know; "" for a sentence on where it was fitted.
        command: Command line, for the provenance.
        overwrite: Replace a pack that is there.
    """

    embeddings: Path
    labels: LabelRequest
    out: Path
    table: str | None = None
    start: str | None = None
    each: int = 40
    most: int = 20_000
    seed: int = 0
    licence: str = "not stated"
    limits: str = ""
    command: tuple[str, ...] = ()
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Gathered:
    """Labelled patches and what they mean.

    Attributes:
        patches: Their classes are places in `legend`.
        legend: The classes that occur.
        by: What a group is: "polygon" or "square".
        labelled: Labelled patches, before some were left out.
        notes: What to look at.
    """

    patches: LabelledPatches
    legend: Legend
    by: str
    labelled: int
    notes: tuple[str, ...]


def gather(embeddings: Embeddings, job: ProbeJob) -> Gathered:
    """Take the embeddings of the patches whose centre is labelled.

    Raises:
        AlignmentError: If labels and embeddings share no ground.
        SourceError: If fewer than two classes are labelled.
        JobError: If the labels hold codes that the table lacks.
    """
    lattice, window = embeddings.lattice, embeddings.window
    ground = Ground(lattice.crs, (lattice.bounds(window),))
    (labels,) = open_labels((job.labels,), (ground,), job.table)
    values, codes, groups, polygons = _read(embeddings, labels)
    by = "polygon" if polygons else "square"
    present = np.unique(codes)
    if len(present) < 2:
        raise SourceError(
            f"{job.labels.path} labels {len(codes)} patches of {embeddings.path}, of "
            f"{len(present)} class(es): a head needs at least two classes"
        )
    entries = [entry for entry in labels.legend.classes if entry.code in present]
    lost = [e.name_en for e in labels.legend.classes if e.code not in present]
    legend = replace(labels.legend, classes=tuple(entries))
    if legend.id == "labels":
        legend = replace(legend, id=pack_name(job.out))
    place = np.zeros(256, np.int64)
    place[[entry.code for entry in entries]] = np.arange(len(entries))
    patches = LabelledPatches(values, place[codes], groups)
    kept = thin(patches, job)
    notes = [f"{d.topic}: {d.value} ({d.because})" for d in labels.decisions if d.warning]
    if lost:
        notes.append(f"no patch has its centre in these classes: {', '.join(lost)}")
    return Gathered(patches.subset(kept), legend, by, len(codes), tuple(notes))


def thin(patches: LabelledPatches, job: ProbeJob) -> NDArray[np.bool_]:
    """Choose patches: not too many of one polygon, not too many in all; seeded."""
    rng = np.random.default_rng(job.seed)
    order = rng.permutation(len(patches.classes))
    rank = np.zeros(len(order), np.int64)
    by_group = order[np.argsort(patches.groups[order], kind="stable")]
    sorted_groups = patches.groups[by_group]
    first = np.r_[True, sorted_groups[1:] != sorted_groups[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    rank[by_group] = np.arange(len(order)) - start
    kept = rank < job.each
    if kept.sum() > job.most:
        # Round by round: every polygon keeps its first patches.
        chosen = np.lexsort((order.argsort(), rank))[: job.most]
        kept = np.zeros(len(order), bool)
        kept[chosen] = True
    return np.asarray(kept)


def _read(
    embeddings: Embeddings, labels: Labels
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64], bool]:
    """Return values (N, D), codes and groups of all labelled patches, and whether by polygon."""
    window = embeddings.window
    values, codes, parcels, squares = [], [], [], []
    for row in range(window.row, window.row_end, _PART):
        for col in range(window.col, window.col_end, _PART):
            part = Window(row, col, _PART, _PART).intersection(window)
            found, numbers = labels.burn(embeddings.lattice, part, 1)
            if (found == UNLABELLED).all():
                continue
            read = embeddings.read(part)
            rows, cols = np.nonzero((found != UNLABELLED) & ~np.isnan(read[0]))
            values.append(read[:, rows, cols].T)
            codes.append(found[rows, cols])
            none = np.zeros(len(rows), np.int64)
            parcels.append(none if numbers is None else numbers[rows, cols].astype(np.int64))
            squares.append(_squares(rows + row, cols + col))
    if not codes:
        return (
            np.zeros((0, embeddings.facts.width), np.float32),
            np.zeros(0, np.uint8),
            np.zeros(0, np.int64),
            False,
        )
    polygon, square = np.concatenate(parcels), np.concatenate(squares)
    # Points have no polygon: those of one square are held out together.
    groups = np.where(polygon > 0, polygon, -1 - square)
    return np.concatenate(values), np.concatenate(codes), groups, bool((polygon > 0).any())


def _squares(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the squares of ground that patches lie in; never negative."""
    row, col = rows // _SQUARE + 2**20, cols // _SQUARE + 2**20
    return np.asarray(row * 2**21 + col)
