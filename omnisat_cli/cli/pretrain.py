"""`omnisat pretrain`: an encoder learned from imagery alone."""

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisat_cli.cli.console import columns, say, say_json, set_up_logging
from omnisat_cli.cli.imagery import Imagery, with_imagery
from omnisat_cli.cli.learning_options import (
    BUDGET,
    DATASET,
    DRAWS,
    Flag,
    Given,
    batch_spec,
    comma_list,
    fit_spec,
    open_part,
    settle_threads,
    with_flags,
)
from omnisat_cli.cli.options import AsJson, Quiet, Verbose, date_range
from omnisat_cli.cli.request import inputs_from
from omnisat_cli.cli.text import count, duration
from omnisat_cli.errors import Exit, JobError

if TYPE_CHECKING:
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.pretrain import PretrainJob, PretrainReport
    from omnisat_cli.networks.pretraining import PretrainConfig

_SIDE, _PATCH_M = 12, 10.0
_LABELLED = ("--balanced", "--drop-region")
_DRAWS = tuple(flag for flag in DRAWS if flag.name not in _LABELLED)
_BUDGET = tuple(
    replace(flag, default=0.0) if flag.name == "--weight-decay" else flag for flag in BUDGET
)


class Contrast(StrEnum):
    """How modalities are contrasted."""

    MIL_NCE = "mil-nce"
    CLIP = "clip"
    NONE = "none"


TERMS = (
    Flag(
        "--contrast", Contrast, "How modalities are contrasted; none leaves it out.",
        default=Contrast.MIL_NCE,
    ),
    Flag("--reconstruct/--no-reconstruct", bool, "Reconstruct hidden pixels.", default=True),
    Flag("--mask-ratio", float, "Share of the tokens hidden from the network.", "RATE", 0.75),
    Flag(
        "--date-filter/--no-date-filter", bool,
        "Reconstruct only the dates the encoder attends to most.", default=True,
    ),
    Flag(
        "--index-bypass/--no-index-bypass", bool,
        "Tell the image decoder where the encoder found its maxima.", default=True,
    ),
    Flag("--image-share", float, "Share of the image patches reconstructed.", "RATE", 0.25),
)  # fmt: skip
"""What a pretraining step of OmniSat computes."""


def _flag(help: str, *names: str, metavar: str | None = None) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(*names, help=help, metavar=metavar)
    return info


@with_flags("dataset", DATASET)
@with_flags("terms", TERMS)
@with_flags("draws", _DRAWS)
@with_flags("budget", _BUDGET)
@with_imagery
def pretrain(
    *,
    out: Annotated[Path, _flag("Folder of the model pack.", "-o", "--out", metavar="FOLDER")],
    dataset: Given,
    imagery: Imagery,
    dates: Annotated[
        str | None, _flag("First and last day of the series.", metavar="A/B|FILE")
    ] = None,
    crs: Annotated[
        str | None, _flag("CRS of the windows; default: that of the imagery.", metavar="EPSG:N")
    ] = None,
    start: Annotated[
        str | None, _flag("Pack whose encoder is trained on.", "--from", metavar="MODEL")
    ] = None,
    size: Annotated[
        str, _flag("Size from scratch: tiny, small, medium, official.", metavar="NAME")
    ] = "small",
    terms: Given,
    draws: Given,
    budget: Given,
    licence: Annotated[str, _flag("Licence of the pack.", metavar="TEXT")] = "not stated",
    resume: Annotated[bool, _flag("Go on with a pretraining that was stopped.")] = True,
    overwrite: Annotated[bool, _flag("Replace an existing pack.", "--overwrite")] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Pretrain an encoder on imagery alone: no labels are needed, none are looked at.

    Give a --dataset with its --root, or imagery of an area (--aerial, --s2 …). The pack makes no
    map: `omnisat train --from` fine-tunes it. Ends with 130 when it was stopped: the same command
    then goes on.
    """
    set_up_logging(verbose, quiet)
    from omnisat_cli.learning.pretrain import PretrainJob

    config = _config(terms)
    settle_threads(budget)
    examples = _examples(dataset, imagery, draws, (dates, crs), start)
    names = tuple(channel.name for channel in examples.channels)
    job = PretrainJob(
        out=out,
        fit=fit_spec(budget),
        draws=batch_spec({**draws, "balanced": 0.0, "drop_region": 0.0}, names, 0.0),
        config=config,
        size=size,
        modalities=comma_list(dataset["modalities"]),
        start=start,
        licence=licence,
        command=("omnisat", *sys.argv[1:]),
        resume=resume,
        overwrite=overwrite,
    )
    report = _run(examples, job, quiet=quiet)
    if report.fit.main:
        _show(report, out, as_json=as_json)
    raise typer.Exit(Exit.INTERRUPTED if report.fit.ended == "stopped" else Exit.COMPLETE)


def _config(terms: Given) -> "PretrainConfig":
    """Turn the flags of `TERMS` into what a step computes.

    Raises:
        JobError: If nothing is left to learn from, or a number is out of range.
    """
    from omnisat_cli.networks.pretraining import PretrainConfig

    try:
        return PretrainConfig.from_dict({**terms, "contrast": str(terms["contrast"])})
    except ValueError as error:
        raise JobError(f"omnisat pretrain: {error}") from error


def _examples(
    dataset: Given,
    imagery: Imagery,
    draws: Given,
    place: tuple[str | None, str | None],
    start: str | None,
) -> "Examples":
    """Open a dataset, or the imagery of an area, as the pack to start from wants it.

    Raises:
        JobError: If neither or both are given.
    """
    dates, crs = place
    inputs = inputs_from(imagery, dates)
    if (dataset["dataset"] is None) == (not inputs):
        what = "both are given" if inputs else "neither is given"
        raise JobError(
            f"pretrain learns from a dataset (--dataset NAME --root DIR) or from the imagery of an "
            f"area (--aerial, --s2 …): {what}"
        )
    side = draws["side"]
    assert side is None or isinstance(side, int)
    if not inputs:
        split, folds = (None if dataset[k] is None else str(dataset[k]) for k in ("split", "folds"))
        return open_part(dataset, split=split, folds=folds, side=side)
    from omnisat_cli.learning.area import AreaCut, AreaInputs, open_areas
    from omnisat_cli.modality import modality
    from omnisat_cli.packs.registry import find_pack
    from omnisat_cli.sources.opening import Wanted

    for name in ("root", "split", "folds", "place"):
        if dataset[name] is not None:
            raise JobError(f"--{name} is about --dataset, which is missing")
    patch = dataset["patch"]
    assert patch is None or isinstance(patch, float)
    cut = AreaCut(side or _SIDE, patch or _PATCH_M)
    if start is not None:
        card = find_pack(start).card
        wanted = tuple(
            Wanted(entry.name, modality(entry.name).stored(entry.bands), entry.gsd)
            for entry in card.modalities
        )
        cut = AreaCut(side or card.window.size, patch or card.patch_m, wanted=wanted)
    return open_areas([AreaInputs(inputs, crs=crs, dates=date_range(dates))], cut)


def _run(examples: "Examples", job: "PretrainJob", *, quiet: bool) -> "PretrainReport":
    """Pretrain with the progress shown; the first Ctrl-C ends it after the step in work."""
    from omnisat_cli.cli.guard import stoppable
    from omnisat_cli.cli.learning_progress import choose_training_progress
    from omnisat_cli.learning.pretrain import pretrain as work

    progress = choose_training_progress(quiet, job.fit.minutes)
    with stoppable("the step in work") as stop:
        try:
            return work(examples, job, watch=progress, stop=stop)
        finally:
            progress.close()


def _show(report: "PretrainReport", out: Path, *, as_json: bool) -> None:
    """Say how it went."""
    fit = report.fit
    if as_json:
        say_json(
            {
                "pack": None if report.pack is None else str(out),
                "ended": fit.ended,
                "steps": fit.steps,
                "seconds": round(fit.seconds, 1),
                "step_seconds": round(fit.step_seconds, 4),
                "busy": round(fit.busy, 4),
                "parameters": report.parameters,
                "losses": dict(fit.loss),
            }
        )
        return
    if report.pack is None:
        say(f"stopped after {count(fit.steps, 'step')}; the same command goes on from there")
        return
    rows = [(name, f"{value:.4g}") for name, value in fit.loss.items()]
    say(
        f"{out}: encoder pretrained in {count(fit.steps, 'step')}, {duration(fit.seconds)} "
        f"({fit.step_seconds:.2g} s a step, {fit.busy:.0%} of it computing)"
    )
    for line in columns(rows, indent="  "):
        say(line)
    say(f"  next: omnisat train --from {out} --labels …")
