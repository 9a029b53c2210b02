"""The route of `omnisat evaluate` that compares parcels with reference parcels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.cli.console import columns, note, say, say_json
from omnisat_cli.errors import JobError
from omnisat_cli.learning.scoring.parcel_files import ParcelFiles, read_pair
from omnisat_cli.learning.scoring.parcel_scores import ParcelRules, plain_scores, score_parcels

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.learning.scoring.parcel_scores import Panoptic, ParcelScores


@dataclass(frozen=True, slots=True)
class ParcelJob:
    """What the user asked for.

    Attributes:
        predicted: Predicted parcels.
        reference: Reference parcels.
        field: Column of the reference with the class.
        void: Classes of the reference that are unknown ground, comma-separated.
        elsewhere_void: Whether ground without reference parcels is unknown too.
        tolerance_m: Distance within which outlines agree.
    """

    predicted: Path
    reference: Path | None
    field: str | None
    void: str | None
    elsewhere_void: bool
    tolerance_m: float


def score_files(job: ParcelJob, *, as_json: bool) -> None:
    """Compare two files and print the figures."""
    if job.reference is None:
        raise JobError("--parcels needs the parcels to compare with: --reference FILE")
    rules = ParcelRules(
        void=frozenset(name.strip() for name in (job.void or "").split(",") if name.strip()),
        elsewhere="void" if job.elsewhere_void else "background",
        tolerance_m=job.tolerance_m,
    )
    pair = read_pair(ParcelFiles(job.predicted, job.reference, job.field))
    scores = score_parcels(pair.predicted, pair.reference, rules)
    sizes = len(pair.predicted.polygons), len(pair.reference.polygons)
    if as_json:
        facts = {"parcels": sizes[0], "reference": sizes[1], "crs": pair.crs}
        say_json(facts | {"notes": list(pair.notes)} | plain_scores(scores))
        return
    for text in pair.notes:
        note(text)
    _show(scores, sizes)


def _show(scores: ParcelScores, sizes: tuple[int, int]) -> None:
    rows: list[tuple[str, ...]] = [("", "PQ", "SQ", "RQ", "found", "false", "missed")]
    rows += [_row(name, counts) for name, counts in scores.by_class.items()]
    rows.append(_row("all together", scores.together))
    rows.append(_row("any class", scores.any_class))
    for line in columns(rows):
        say(line)
    cut, outlines = scores.segmentation, scores.outlines
    say(
        f"{sizes[0]} parcels, {sizes[1]} in the reference; in per cent, IoU above 0.5; "
        f"mean over the classes: PQ {_percent(scores.mean('pq'))}, SQ {_percent(scores.mean('sq'))}"
        f", RQ {_percent(scores.mean('rq'))}"
    )
    say(
        f"outlines within {outlines.tolerance_m:g} m: F {_percent(outlines.f_score)}, "
        f"precision {_percent(outlines.precision)}, recall {_percent(outlines.recall)}"
    )
    say(
        f"over-segmentation {_percent(cut.over)}, under-segmentation {_percent(cut.under)}; "
        f"reference parcels split {_percent(cut.split)}, merged {_percent(cut.merged)}"
    )
    if scores.ignored or scores.unjudged:
        say(
            f"not counted: {scores.ignored} on unknown ground, {scores.unjudged} of classes that "
            "the reference does not have"
        )


def _row(name: str, counts: Panoptic) -> tuple[str, ...]:
    figures = (_percent(value) for value in (counts.pq, counts.sq, counts.rq))
    return (name, *figures, str(counts.found), str(counts.false), str(counts.missed))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"
