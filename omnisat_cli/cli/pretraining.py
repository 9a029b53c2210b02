"""The work of `omnisat pretrain` between its flags and its last line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from omnisat_cli.cli.console import columns, say, say_json
from omnisat_cli.cli.guard import stoppable
from omnisat_cli.cli.learning_options import (
    batch_spec,
    comma_list,
    fit_spec,
    open_part,
    settle_threads,
)
from omnisat_cli.cli.learning_progress import choose_training_progress, pace
from omnisat_cli.cli.options import date_range
from omnisat_cli.cli.request import inputs_from
from omnisat_cli.cli.text import count, duration
from omnisat_cli.errors import Exit, JobError
from omnisat_cli.learning.data.area import AreaCut, AreaInputs, open_areas
from omnisat_cli.learning.training.mixing import Member, Part, read_mixture
from omnisat_cli.learning.training.pretrain import PretrainJob, PretrainReport, pretrain
from omnisat_cli.learning.training.pretrain_anysat import JepaJob, Keep, pretrain_anysat
from omnisat_cli.modality import modality
from omnisat_cli.networks.anysat_pretraining import JepaConfig
from omnisat_cli.networks.pretraining import PretrainConfig
from omnisat_cli.packs.registry import find_pack
from omnisat_cli.sources.opening import Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.cli.flags import Given
    from omnisat_cli.cli.imagery import Imagery
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.lesson import FitSpec

T = TypeVar("T")
Rates = tuple[float, float]
_SIDE, _PATCH_M = 12, 10.0
_OMNISAT = PretrainConfig(image_share=0.25)
"""What a step of OmniSat computes where nothing is said."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Imagery of one's own, as given."""

    imagery: Imagery
    dates: str | None
    crs: str | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What to learn from and how, as given."""

    dataset: Given
    ground: Ground
    terms: Given
    joint: Given
    draws: Given
    budget: Given


@dataclass(frozen=True, slots=True)
class Said:
    """What any job says."""

    out: Path
    start: str | None
    size: str
    licence: str
    command: tuple[str, ...]
    resume: bool
    overwrite: bool

    def fields(self) -> dict[str, object]:
        """Return them by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def omnisat(wish: Wish, said: Said, rates: Rates, *, quiet: bool) -> PretrainReport:
    """Pretrain an OmniSat.

    Raises:
        OmnisatError: If anything about flags or files does not fit.
    """
    for name, value in wish.joint.items():
        if value is not None:
            raise JobError(f"--{name.replace('_', '-')} is about --network anysat")
    config = _omnisat_config(wish.terms)
    settle_threads(wish.budget)
    examples = _examples(wish, said.start)
    names = tuple(channel.name for channel in examples.channels)
    draws = batch_spec({**wish.draws, "balanced": 0.0, "drop_region": 0.0}, names, 0.0)
    job = PretrainJob(
        fit=_fit(wish.budget, rates),
        draws=draws,
        config=config,
        modalities=comma_list(wish.dataset["modalities"]),
        **said.fields(),  # type: ignore[arg-type]
    )
    progress = choose_training_progress(quiet, job.fit.minutes)
    with stoppable("the step in work") as stop:
        try:
            return pretrain(examples, job, watch=progress, stop=stop)
        finally:
            progress.close()


def anysat(wish: Wish, said: Said, rates: Rates, *, quiet: bool) -> PretrainReport:
    """Pretrain an AnySat.

    Raises:
        OmnisatError: If anything about flags or files does not fit.
    """
    joint, draws = wish.joint, wish.draws
    config = _joint_config(wish)
    if draws["drop"]:
        raise JobError("--drop is about --network omnisat; anysat hides half of its tokens itself")
    settle_threads(wish.budget)
    parts = _parts(wish, said.start)
    keep: Keep = "student" if joint["keep"] == "student" else "teacher"
    job = JepaJob(
        fit=_fit(wish.budget, rates),
        config=config,
        keep=keep,
        min_dates=_given(draws["min_dates"], int, 1),
        augment=bool(draws["augment"]),
        **said.fields(),  # type: ignore[arg-type]
    )
    progress = choose_training_progress(quiet, job.fit.minutes)
    with stoppable("the step in work") as stop:
        try:
            return pretrain_anysat(parts, job, watch=progress, stop=stop)
        finally:
            progress.close()


def _fit(budget: Given, rates: Rates) -> FitSpec:
    decay = _given(budget["weight_decay"], float, rates[1])
    return fit_spec({**budget, "weight_decay": decay}, rate=rates[0])


def _omnisat_config(terms: Given) -> PretrainConfig:
    """Turn the flags into what a step of OmniSat computes.

    Raises:
        JobError: If nothing is left to learn from, or a number is out of range.
    """
    try:
        return PretrainConfig.from_dict({**terms, "contrast": str(terms["contrast"])})
    except ValueError as error:
        raise JobError(f"omnisat pretrain: {error}") from error


def _joint_config(wish: Wish) -> JepaConfig:
    """Turn the flags into what a step of AnySat computes.

    Raises:
        JobError: If one is about OmniSat, or a number is out of range.
    """
    terms, joint = wish.terms, wish.joint
    usual = _OMNISAT.to_dict()
    for name, value in terms.items():
        if name != "contrast" and value != usual[name]:
            raise JobError(f"--{name.replace('_', '-')} is about --network omnisat")
    if terms["contrast"] == "clip":
        raise JobError("--contrast clip is about --network omnisat; anysat has mil-nce or none")
    asked: Mapping[str, object] = {
        "depth": joint["predictor_depth"],
        "momentum": joint["momentum"],
        "recipe": None if joint["recipe"] is None else str(joint["recipe"]),
    }
    plain = {name: value for name, value in asked.items() if value is not None}
    try:
        return JepaConfig.from_dict({**plain, "contrast": terms["contrast"] != "none"})
    except ValueError as error:
        raise JobError(f"omnisat pretrain: {error}") from error


def _parts(wish: Wish, start: str | None) -> tuple[Part, ...]:
    """Open the datasets of a mixture, or make the one that is given a mixture.

    Raises:
        JobError: If flags contradict each other.
    """
    dataset, draws, mix = wish.dataset, wish.draws, wish.joint["mix"]
    keep = _given(draws["keep_dates"], int, 0)
    if isinstance(mix, Path):
        inputs = inputs_from(wish.ground.imagery, wish.ground.dates)
        given = [name for name, value in dataset.items() if value is not None]
        given += [name for name in ("side",) if draws[name] is not None]
        given += ["scales"] if wish.joint["scales"] is not None else []
        given += [inputs[0].modality] if inputs else []
        if given:
            flags = ", ".join(f"--{name}" for name in given)
            raise JobError(f"{flags}: with --mix, datasets are described in {mix} alone")
        return tuple(Part(member, member.open()) for member in read_mixture(mix))
    examples = _examples(wish, start)
    if dataset["dataset"] is None and dataset["modalities"] is not None:
        raise JobError("--modalities: leave the files of the others out")
    side = _given(draws["side"], int, min(_SIDE, *examples.example(0).sample.window.shape))
    member = Member(
        name=str(dataset["dataset"] or "imagery"),
        root=Path(str(dataset["root"] or ".")),
        scales=_scales(wish.joint["scales"]),
        batch=_given(draws["batch"], int, 8),
        side=side,
        keep_dates=keep or None,
    )
    return (Part(member, examples),)


def _scales(text: object) -> tuple[int, ...]:
    """Read "1,2,4".

    Raises:
        JobError: If it is something else.
    """
    if text is None:
        return (1,)
    try:
        scales = tuple(int(part) for part in str(text).split(","))
    except ValueError:
        scales = ()
    if not scales or min(scales) < 1:
        raise JobError(f"--scales {text}: write whole numbers of 10 m, like 1,2,4")
    return scales


def _examples(wish: Wish, start: str | None) -> Examples:
    """Open a dataset, or the imagery of an area, as the pack to start from wants it.

    Raises:
        JobError: If neither or both are given.
    """
    dataset, ground = wish.dataset, wish.ground
    inputs = inputs_from(ground.imagery, ground.dates)
    if (dataset["dataset"] is None) == (not inputs):
        what = "both are given" if inputs else "neither is given"
        raise JobError(
            f"pretrain learns from a dataset (--dataset NAME --root DIR) or from the imagery of an "
            f"area (--aerial, --s2 …): {what}"
        )
    side = _given(wish.draws["side"], int, None)
    if not inputs:
        split, folds = (None if dataset[k] is None else str(dataset[k]) for k in ("split", "folds"))
        return open_part(dataset, split=split, folds=folds, side=side)
    for name in ("root", "split", "folds", "place"):
        if dataset[name] is not None:
            raise JobError(f"--{name} is about --dataset, which is missing")
    patch = _given(dataset["patch"], float, None)
    cut = AreaCut(side or _SIDE, patch or _PATCH_M)
    if start is not None:
        card = find_pack(start).card
        wanted = tuple(
            Wanted(entry.name, modality(entry.name).stored(entry.bands), entry.gsd)
            for entry in card.modalities
        )
        cut = AreaCut(side or card.window.size, patch or card.patch_m, wanted=wanted)
    area = AreaInputs(inputs, crs=ground.crs, dates=date_range(ground.dates))
    return open_areas([area], cut)


def _given(value: object, kind: type[T], default: T | None) -> T:
    """Return a value that was given, or the default."""
    if value is None:
        return default  # type: ignore[return-value]
    assert isinstance(value, kind)
    return value


def show(report: PretrainReport, out: Path, *, as_json: bool) -> int:
    """Say how it went and return the exit code."""
    fit = report.fit
    code = Exit.INTERRUPTED if fit.ended == "stopped" else Exit.COMPLETE
    if not fit.main:
        return code
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
        return code
    if report.pack is None:
        say(f"stopped after {count(fit.steps, 'step')}; the same command goes on from there")
        return code
    steps = count(fit.steps, "step")
    say(f"{out}: encoder pretrained in {steps}, {duration(fit.seconds)}{pace(fit)}")
    rows = [(name, f"{value:.4g}") for name, value in fit.loss.items()]
    for line in columns(rows, indent="  "):
        say(line)
    say(f"  next: omnisat train --from {out} --labels …")
    return code
