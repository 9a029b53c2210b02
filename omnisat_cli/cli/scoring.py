"""The routes of `omnisat evaluate`, and what it prints and writes."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omnisat_cli.cli.console import columns, note, say, say_json
from omnisat_cli.errors import JobError
from omnisat_cli.job import Execution, Job
from omnisat_cli.learning.labelling.grid import grid_of_frame
from omnisat_cli.learning.scoring.evaluate import (
    TruthRequest,
    count,
    evaluate_map,
    open_reference,
)
from omnisat_cli.learning.scoring.evaluate_pack import (
    choose_subsets,
    not_measured,
    update_card,
)
from omnisat_cli.learning.scoring.report import Report, means, plain
from omnisat_cli.learning.scoring.report_files import check_outputs, write_report
from omnisat_cli.learning.scoring.schemes import scheme_classes
from omnisat_cli.packs.patch_size import at_patch_size
from omnisat_cli.packs.registry import find_pack
from omnisat_cli.runners.setup import traits_of_pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnisat_cli.cli.flags import Given
    from omnisat_cli.job import AreaRequest, Input
    from omnisat_cli.learning.scoring.report import Result
    from omnisat_cli.learning.scoring.schemes import Scheme
    from omnisat_cli.learning.scoring.tally import Tally
    from omnisat_cli.packs.registry import Pack

Route = Literal["map", "dataset", "area"]
_NOWHERE = Path("evaluate.tif")
"""A job names a map; nothing is written to it."""


@dataclass(frozen=True, slots=True)
class AreaJob:
    """Imagery of an area and the model that is to map it."""

    model: str
    inputs: tuple[Input, ...]
    area: AreaRequest
    crs: str | None
    dates: tuple[str, str] | None
    patches: tuple[float, ...] = ()

    def job(self, names: tuple[str, ...]) -> Job:
        """Return the job of mapping it with some of the imagery."""
        used = tuple(e for e in self.inputs if _given(e.modality, names))
        return Job(
            used, self.model, _NOWHERE, area=self.area, crs=self.crs, dates=self.dates,
            patch_m=self.patches[0] if self.patches else None, scales=self.patches[1:],
        )  # fmt: skip

    def pack(self) -> Pack:
        """Return the model at the size of its patches."""
        patch_m = self.patches[0] if self.patches else None
        return at_patch_size(find_pack(self.model), patch_m, self.patches[1:])


@dataclass(frozen=True, slots=True)
class Saving:
    """Where the report goes."""

    outs: tuple[Path, ...]
    overwrite: bool
    test_set: str | None
    as_json: bool

    def check(self, model: str | None) -> None:
        """Check, before anything is computed, that the report can be written."""
        check_outputs(self.outs, overwrite=self.overwrite)
        if self.test_set is not None and model is None:
            raise JobError(f"--update-card {self.test_set} is about --model, which is missing")

    def finish(self, report: Report, model: str | None) -> None:
        """Print and write the report."""
        for out in self.outs:
            write_report(report, out)
        if self.test_set is not None:
            update_card(find_pack(str(model)), self.test_set, report)
        if self.as_json:
            say_json(plain(report))
            return
        for text in report.notes:
            note(f"note: {text}")
        for line in table(report):
            say(line)
        for out in self.outs:
            say(str(out))


def choose_route(
    *,
    path: Path | None,
    model: str | None,
    dataset: str | None,
    inputs: Sequence[Input],
    labels: Path | None,
) -> Route:
    """Tell what is to be evaluated against what.

    Raises:
        JobError: If the flags name nothing, or two things.
    """
    if path is not None and (model or dataset or inputs):
        raise JobError("give a MAP with --labels, or a --model with a dataset or imagery, not both")
    if path is not None:
        if labels is None:
            raise JobError(f"{path} is compared with labels: give them as --labels FILE")
        return "map"
    if model is None:
        raise JobError("nothing to evaluate: give a MAP with --labels, or a --model")
    if dataset is not None:
        if inputs or labels is not None:
            raise JobError("--dataset brings its own imagery and labels; leave --labels out")
        return "dataset"
    if not inputs or labels is None:
        raise JobError(
            f"--model {model} is evaluated on --dataset NAME --root DIR, or on imagery "
            "(--aerial, --s2 …) with --labels FILE"
        )
    return "area"


def refuse_area(kind: Route, given: Given) -> None:
    """Refuse flags about an area where none is mapped.

    Raises:
        JobError: If one was given.
    """
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if kind != "area" and named:
        raise JobError(f"{', '.join(named)}: about a --model with imagery (--aerial, --s2 …) alone")


def of_map(
    path: Path | None, labels: TruthRequest, legend: str | None, subsets: str | None
) -> Report:
    """Compare a map with labels."""
    if subsets is not None:
        raise JobError(f"--subsets {subsets} is about --model, which is missing")
    return evaluate_map(Path() if path is None else path, labels, legend)


def of_area(
    area: AreaJob, labels: TruthRequest, subsets: str | None, execution: Execution
) -> Report:
    """Map an area with each subset of its imagery, block by block, and compare with labels."""
    pack = area.pack()
    if pack.card.whole_places:
        raise JobError(
            f"{pack.card.name} labels whole places, and --labels are of pixels; evaluate it on "
            "--dataset NAME --root DIR"
        )
    there = [name for name in pack.card.names if _of_inputs(name, area.inputs)]
    scheme = labels.scheme(scheme_classes(pack.legend.classes), pack.legend.label)
    traits = traits_of_pack(pack)
    needed = () if traits is None else traits.needed
    tallies = {
        names: _map_and_count(area.job(names), labels, scheme, execution)
        for names in choose_subsets(subsets, there, needed)
    }
    results, notes = [], [scheme.note] if scheme.note else []
    notes += not_measured(subsets, needed)
    for names, (tally, pixel, decisions) in tallies.items():
        tally.refuse_unknown(scheme, str(labels.path))
        tally.refuse_empty(str(labels.path), f"the map from {'+'.join(names)}")
        results.append(tally.result("+".join(names), pixel))
        notes += [*decisions, *(f"{'+'.join(names)}: {remark}" for remark in tally.remarks(scheme))]
    return Report(
        subject=f"{pack.card.name} {pack.card.version}",
        reference=str(labels.path),
        names=scheme.names,
        colors=scheme.colors,
        results=tuple(results),
        notes=tuple(dict.fromkeys(notes)),
    )


def _map_and_count(
    job: Job, labels: TruthRequest, scheme: Scheme, execution: Execution
) -> tuple[Tally, float, list[str]]:
    """Return the counts, the hectares of a pixel, and what was done to the labels."""
    from omnisat_cli.runners.local import load_mapper
    from omnisat_cli.runners.setup import prepare
    from omnisat_cli.runners.stream import mapped_blocks

    setup = prepare(job, execution)
    mapper = load_mapper(setup, execution)
    plan, refine = setup.plan, setup.recipe.refine
    grid = grid_of_frame(plan.lattice, plan.area, refine)
    reference = open_reference(labels, grid, scheme)
    blocks = mapped_blocks(setup, mapper, threading.Event())
    tally = count(blocks, reference, scheme, job.model)
    decisions = [f"{d.topic}: {d.value} ({d.because})" for d in reference.decisions]
    return tally, (plan.lattice.gsd / refine) ** 2 / 10_000, decisions


def table(report: Report) -> list[str]:
    """Return the lines of the console."""
    lines = [f"{report.subject} against {report.reference}"]
    if len(report.results) > 1:
        lines += columns(_subset_rows(report), "  ")
    else:
        lines += columns(_mean_rows(report.results[0]), "  ")
    lines += columns(_class_rows(report, report.results[0]), "  ")
    found = report.results[0].adjusted
    if found is not None and math.isfinite(found.overall.value):
        value, margin = 100 * float(found.overall.value), 100 * float(found.overall.margin)
        lines.append(
            f"  area-adjusted accuracy {value:.1f} ± {margin:.1f} % (95 %, if the labels were a "
            "random sample within each class of the map)"
        )
    return lines


def _subset_rows(report: Report) -> list[tuple[str, ...]]:
    named = [(result.subset, means(result.scores)) for result in report.results]
    head = ("imagery", *named[0][1])
    return [head, *((name, *(_percent(v) for v in values.values())) for name, values in named)]


def _mean_rows(result: Result) -> list[tuple[str, ...]]:
    named = means(result.scores)
    return [tuple(named), tuple(_percent(value) for value in named.values())]


def _class_rows(report: Report, result: Result) -> list[tuple[str, ...]]:
    each = result.scores.classes
    head = ("class", "precision", "recall", "F1", "IoU", "labelled")
    figures = (each.precision, each.recall, each.f1, each.iou)
    rows = [
        (name, *(_percent(part[k]) for part in figures), f"{int(each.support[k])}")
        for k, name in enumerate(report.names)
        if math.isfinite(each.f1[k])
    ]
    return [head, *rows]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"


def _of_inputs(name: str, inputs: Sequence[Input]) -> bool:
    """Whether a modality of a card has a file."""
    return any(_given(entry.modality, (name,)) for entry in inputs)


def _given(modality: str, names: Sequence[str]) -> bool:
    """Whether the files of a modality serve one of some modalities of a card."""
    return modality in names or (modality == "s1" and any(n.startswith("s1-") for n in names))
