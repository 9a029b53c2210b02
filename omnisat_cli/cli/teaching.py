"""The work of `omnisat train` between its flags and its last line."""

from __future__ import annotations

import hashlib
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from omnisat_cli.cli.console import columns, note, say, say_json
from omnisat_cli.cli.learning_options import (
    batch_spec,
    comma_list,
    fit_spec,
    open_part,
    settle_threads,
    step_count,
)
from omnisat_cli.cli.learning_progress import choose_training_progress, pace
from omnisat_cli.cli.options import date_range
from omnisat_cli.cli.request import inputs_from
from omnisat_cli.cli.text import count, duration
from omnisat_cli.errors import Exit, JobError
from omnisat_cli.learning.data.area import AreaCut, AreaExamples, AreaInputs, open_areas
from omnisat_cli.learning.labelling.labels import LabelRequest
from omnisat_cli.learning.training.design_learner import starting_rate
from omnisat_cli.learning.training.objectives import Weights
from omnisat_cli.learning.training.packing import is_helper, refuse_existing
from omnisat_cli.learning.training.train import train
from omnisat_cli.learning.training.train_job import TrainJob
from omnisat_cli.modality import modality
from omnisat_cli.packs.patch_size import at_patch_size
from omnisat_cli.packs.registry import find_pack
from omnisat_cli.sources.opening import Wanted

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from omnisat_cli.cli.flags import Given
    from omnisat_cli.cli.imagery import Imagery
    from omnisat_cli.learning.data.statistics import Weighting
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.lesson import FitSpec
    from omnisat_cli.learning.training.train import TrainReport
    from omnisat_cli.learning.training.train_job import Kind
    from omnisat_cli.packs.card import ModalityCard

_DROP = 0.3
"""Chance of dropping each modality of a network that fuses several, where nothing is said."""

_FUSING = ("omnisat", "anysat")
"""Networks that fuse any modalities, patch by patch."""

_SIDE, _SIDES = 12, {"utae": 16, "dual-stream": 16}
"""Patches along a window cut from imagery of one's own; networks of several levels want more."""

_PATCH_M, _LABELS_M = 10.0, 1.0
"""Patch, and pixel of labels, in metres."""

_TIMED_VALIDATION = 200
"""Steps between two validations where time alone ends training."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Imagery of one's own and what is labelled there, as given."""

    imagery: Imagery
    labels: str | None
    field: str | None
    classes: str | None
    labels_crs: str | None
    point_radius: float
    borders: bool
    dates: str | None
    crs: str | None


@dataclass(frozen=True, slots=True)
class Validation:
    """What is kept to validate on."""

    split: str | None
    folds: str | None
    share: float
    places: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What to learn from, as given."""

    ground: Ground
    dataset: Given
    val: Validation
    draws: Given
    budget: Given


class Choices(TypedDict):
    """What else a job says, as given."""

    out: Path
    start: str | None
    freeze: bool
    kind: Kind
    size: str
    weighting: Weighting
    boundary_weight: float
    label_share: float
    fit: Mapping[str, object]
    licence: str
    limits: str
    resume: bool
    overwrite: bool


def open_examples(wish: Wish, start: str | None, kind: Kind) -> tuple[Examples, Examples | None]:
    """Open what there is to learn from, and what to validate on if that is another part.

    Raises:
        JobError: If flags are missing or contradict each other.
        SourceError: If files are missing or damaged.
    """
    settle_threads(wish.budget)
    inputs = inputs_from(wish.ground.imagery, wish.ground.dates)
    side = wish.draws["side"]
    assert side is None or isinstance(side, int)
    given = wish.dataset
    if given["dataset"] is None:
        if given["whole_places"]:
            raise JobError("--whole-places is about --dataset, which is missing")
        if not inputs or wish.ground.labels is None:
            raise JobError(
                "nothing to learn from: give imagery (--aerial, --s2, --s1 …) with --labels, or "
                "--dataset NAME --root DIR"
            )
        return open_ground(wish, start, kind), None
    if inputs or wish.ground.labels is not None:
        raise JobError("give either --dataset, or imagery with --labels")
    split, folds, val = given["split"], given["folds"], wish.val
    examples = open_part(given, split=_text(split), folds=_text(folds), side=side)
    if val.split is None and val.folds is None:
        return examples, None
    return examples, open_part(given, split=val.split or _text(split), folds=val.folds, side=side)


def open_ground(wish: Wish, start: str | None, kind: Kind) -> Examples:
    """Open imagery and labels of the user, as the pack to start from wants them.

    Raises:
        OmnisatError: If anything about files, labels or options does not fit.
    """
    ground, side = wish.ground, wish.draws["side"]
    given = wish.dataset["patch"]
    asked = given if isinstance(given, float) else None
    pack = None if start is None else at_patch_size(find_pack(start), asked)
    window = _SIDES.get(kind, _SIDE) if pack is None else pack.card.window.size
    if asked is not None and asked <= 0:
        raise JobError(f"--patch {asked:g}: a patch has a side above 0 m")
    patch_m = asked or (_PATCH_M if pack is None else pack.card.patch_m)
    finest = max(round(patch_m / _LABELS_M), 1)
    if pack is not None:
        finest = max(finest, round(patch_m / pack.card.fine_m))
    cut = AreaCut(
        side=side if isinstance(side, int) else window,
        patch_m=patch_m,
        label_refine=finest,
        wanted=None if pack is None else tuple(_wanted(card) for card in pack.card.modalities),
    )
    assert ground.labels is not None
    labels = LabelRequest(
        ground.labels, ground.field, ground.labels_crs, ground.point_radius, borders=ground.borders
    )
    inputs = inputs_from(ground.imagery, ground.dates)
    area = AreaInputs(inputs, labels, crs=ground.crs, dates=date_range(ground.dates))
    known = None if pack is None or pack.card.pretrained_only else pack.legend
    return open_areas([area], cut, ground.classes, known)


def _wanted(card: ModalityCard) -> Wanted:
    return Wanted(card.name, modality(card.name).stored(card.bands), card.gsd)


def ground_facts(wish: Wish, examples: Examples) -> dict[str, object]:
    """Return what is known of the files of one's own: their digests, and what was decided."""
    if not isinstance(examples, AreaExamples):
        return {}
    files = {
        name: [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in found]
        for name, found in ((n, s.identities) for n, s in examples.sources.items())
    }
    labels = Path(str(wish.ground.labels))
    if labels.is_file():
        with labels.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        known = {"path": str(labels), "size": labels.stat().st_size, "sha256": digest}
        files["labels"] = [known]
    return {"files": files, "decisions": [asdict(entry) for entry in examples.decisions]}


def make_job(wish: Wish, examples: Examples, **said: Unpack[Choices]) -> TrainJob:
    """Put a job together.

    Raises:
        JobError: If a value is out of range.
    """
    start, boundary = said["start"], said["boundary_weight"]
    refuse_existing(said["out"], overwrite=said["overwrite"])
    names = tuple(channel.name for channel in examples.channels)
    several = said["kind"] in _FUSING or start is not None
    return TrainJob(
        out=said["out"],
        fit=_fit(wish, said["fit"], starting_rate(start, said["kind"], said["size"])),
        draws=batch_spec(wish.draws, names, _DROP if several else 0.0),
        kind=said["kind"],
        size=said["size"],
        modalities=comma_list(wish.dataset["modalities"]),
        start=start,
        freeze=said["freeze"],
        weights=replace(Weights(), boundary=boundary),
        weighting=said["weighting"],
        label_share=said["label_share"],
        val_share=wish.val.share,
        val_places=wish.val.places,
        licence=said["licence"],
        limits=said["limits"],
        command=("omnisat", *sys.argv[1:]),
        inputs=ground_facts(wish, examples),
        resume=said["resume"],
        overwrite=said["overwrite"],
    )


def _fit(wish: Wish, said: Mapping[str, object], rate: float) -> FitSpec:
    steps = step_count(wish.budget)
    every = said["validate_every"]
    if every is None:
        timed = wish.budget["steps"] is None and wish.budget["minutes"] is not None
        every = _TIMED_VALIDATION if timed else max(1, steps // 10)
    return fit_spec(wish.budget, rate=rate, **{**said, "validate_every": every})


def run(
    job: TrainJob,
    examples: Examples,
    validation: Examples | None,
    stop: threading.Event,
    *,
    quiet: bool,
) -> TrainReport:
    """Train with progress on the screen."""
    hidden = quiet or is_helper()
    progress = choose_training_progress(hidden, job.fit.minutes)
    tell = (lambda _: None) if hidden else note
    try:
        return train(examples, validation, job, watch=progress, stop=stop, tell=tell)
    finally:
        progress.close()


def show(report: TrainReport, job: TrainJob, *, as_json: bool) -> int:
    """Say how it went; returns the exit code."""
    fit = report.fit
    if not fit.main:
        return int(Exit.COMPLETE)
    if report.pack is None:
        note(f"stopped after step {fit.steps}; nothing is lost. Go on with:")
        note(f"  {shlex.join(job.command)}")
        return int(Exit.INTERRUPTED)
    if as_json:
        say_json(_plain(report))
        return int(Exit.COMPLETE)
    how = {"patience": "early, without gain", "minutes": "at the end of its time"}.get(fit.ended)
    ended = "" if how is None else f", ended {how}"
    say(
        f"trained {report.parameters:,} weights in {count(fit.steps, 'step')} and "
        f"{duration(fit.seconds)}{ended}{pace(fit)}"
    )
    best = f", the best, after step {fit.best_step}" if fit.best_step is not None else ""
    say(f"on {count(len(report.material.validation), 'place')} kept apart{best}, per cent:")
    for line in columns(_table(report.scores), "  "):
        say(line)
    pack = report.pack
    say(f"{pack.folder}  {count(len(pack.legend.classes), 'class')} of {pack.legend.label}")
    flags = " ".join(f"--{name} FILE" for name in pack.card.names)
    say(f"  next: omnisat predict -m {shlex.quote(str(pack.folder))} {flags} --out map.tif")
    return int(Exit.COMPLETE)


def _table(scores: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return the figures of each subset that are not of single classes."""
    whole = next(iter(scores.values()), {})
    names = list(whole)[:3]
    rows = [["", *names]]
    for subset, figures in scores.items():
        rows.append(
            [subset, *(f"{figures[name]:.1f}" if name in figures else "–" for name in names)]
        )
    return rows


def _plain(report: TrainReport) -> dict[str, object]:
    fit, pack = report.fit, report.pack
    assert pack is not None
    return {
        "pack": str(pack.folder),
        "sha256": pack.card.weights_sha256,
        "steps": fit.steps,
        "best_step": fit.best_step,
        "ended": fit.ended,
        "seconds": round(fit.seconds, 1),
        "step_seconds": round(fit.step_seconds, 4),
        "busy": round(fit.busy, 4),
        "weights": report.parameters,
        "scores": report.scores,
        "notes": list(report.material.notes),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
