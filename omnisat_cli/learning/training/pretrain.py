"""Pretrain an encoder without labels and write it as a pack that `train --from` fine-tunes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.learning.data.batches import Batch, Batcher, BatchSpec
from omnisat_cli.learning.data.statistics import make_modality_cards
from omnisat_cli.learning.training.design import (
    choose_size,
    design_encoder,
    design_segmenter,
    window_card,
)
from omnisat_cli.learning.training.lesson import FitReport, FitSpec, Lesson
from omnisat_cli.learning.training.packing import (
    pack_name,
    publish_pack,
    refuse_existing,
    training_record,
    workplace,
)
from omnisat_cli.learning.training.trainer import fit
from omnisat_cli.networks.pretraining import OmniSatPretraining, PretrainConfig, Windows
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.packs.card import Card, NetworkCard
from omnisat_cli.packs.registry import find_pack, load_weights
from omnisat_cli.packs.writer import empty_digest

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.lesson import Watch
    from omnisat_cli.packs.card import ModalityCard
    from omnisat_cli.packs.registry import Pack

_SIDE = 12  # patches along a window, where the examples are larger
LIMITS = (
    "Pretrained without labels: the encoder knows the imagery, the head is untrained and makes no "
    "map. Fine-tune it with `omnisat train --from`."
)


@dataclass(frozen=True, slots=True)
class PretrainJob:
    """What is pretrained, and where it goes.

    Attributes:
        out: Folder of the pack.
        fit: Budget and rates.
        draws: How windows are drawn.
        config: What a step computes.
        size: Name of a size of `design.SIZES`; not asked where `start` is given.
        modalities: The modalities of the network, in its order; None = all there are.
        start: Pack whose encoder is trained on, or None to begin with random weights.
        licence: Of the pack.
        command: Command line, for the provenance.
        resume: Go on with a pretraining that was stopped.
        overwrite: Replace a pack that is there.
    """

    out: Path
    fit: FitSpec
    draws: BatchSpec
    config: PretrainConfig = field(default_factory=PretrainConfig)
    size: str = "small"
    modalities: tuple[str, ...] | None = None
    start: str | None = None
    licence: str = "not stated"
    command: tuple[str, ...] = ()
    resume: bool = True
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class PretrainReport:
    """How a pretraining went.

    Attributes:
        fit: The training.
        pack: What was written; None where it was stopped, or in a process that writes nothing.
        parameters: Trained numbers, decoders included.
    """

    fit: FitReport
    pack: Pack | None
    parameters: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a job becomes on a set of examples."""

    cards: tuple[ModalityCard, ...]
    network: SegmenterConfig
    weights: Mapping[str, Tensor] | None
    side: int


def pretrain(
    examples: Examples,
    job: PretrainJob,
    *,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
) -> PretrainReport:
    """Pretrain an OmniSat encoder on imagery alone; labels of the examples are not looked at.

    Args:
        examples: Where the imagery comes from.
        job: What is wanted.
        watch: Told of every step.
        stop: When set, training ends after the step in work; the same job then goes on.

    Raises:
        OutputExistsError: If the pack is there, or another process is writing it.
        JobError: If the job does not fit the examples.
        CheckpointError: If the pack to start from cannot be used.
        LossError: If the loss is not finite.
        ResumeError: If what was begun towards `out` was something else.
    """
    refuse_existing(job.out, overwrite=job.overwrite)
    with workplace(job.out, resume=job.resume) as folder:
        plan = _plan(examples, job)
        torch.manual_seed(job.fit.seed)
        segmenter = OmniSatSegmenter(plan.network)
        if plan.weights is not None:
            segmenter.load_state_dict(plan.weights)
        network = OmniSatPretraining(segmenter.encoder, job.config)
        draws = replace(job.draws, side=plan.side)
        batcher = Batcher(examples, plan.cards, draws, job.fit.seed)
        lesson = Lesson(
            batcher.batch,
            lambda batch: network(windows_of(batch), grid=(batch.side, batch.side)),
            facts=_facts(examples, job, plan),
        )
        report = fit(network, lesson, job.fit, folder, watch=watch, stop=stop)
        size = sum(p.numel() for p in network.parameters() if p.requires_grad)
        made = None
        if report.ended != "stopped" and report.main:
            made = publish_pack(
                job.out,
                _card(examples, job, plan, report),
                examples.legend,
                segmenter.state_dict(),
                pretraining_record(job.command, _facts(examples, job, plan), job.fit, report),
            )
        return PretrainReport(report, made, size)


def windows_of(batch: Batch) -> Windows:
    """Take from a batch what pretraining looks at: everything but the labels."""
    return Windows(batch.pixels, batch.days, batch.valid, batch.present)


def _plan(examples: Examples, job: PretrainJob) -> _Plan:
    """Choose modalities and network.

    Raises:
        JobError: If fewer than two modalities would be contrasted, or windows do not fit.
        CheckpointError: If the pack to start from holds no OmniSat.
    """
    if job.start is not None:
        return _plan_from(examples, job, find_pack(job.start))
    side = _side(examples, job, _SIDE)
    cards = make_modality_cards(examples, job.modalities)
    _check_contrast([card.name for card in cards], job.config, examples.name)
    encoder = design_encoder(cards, examples.patch_m, side, choose_size(job.size))
    classes = len(examples.legend.classes)
    return _Plan(cards, design_segmenter(encoder, examples.patch_m, classes), None, side)


def _side(examples: Examples, job: PretrainJob, wanted: int) -> int:
    """Return the side of training windows: as asked for, else what fits the examples."""
    return job.draws.side or min(wanted, *examples.example(0).sample.window.shape)


def _plan_from(examples: Examples, job: PretrainJob, pack: Pack) -> _Plan:
    if pack.card.network.kind != "omnisat":
        raise CheckpointError(
            f"--from {pack.folder}: its network is {pack.card.network.kind}; `--network omnisat` "
            "goes on from packs with an OmniSat encoder only"
        )
    if job.modalities is not None and set(job.modalities) != set(pack.card.names):
        raise JobError(
            f"--from {pack.folder} has {', '.join(pack.card.names)}; the modalities of a network "
            f"cannot be changed to {', '.join(job.modalities)}"
        )
    if pack.card.patch_m != examples.patch_m:
        raise JobError(
            f"--from {pack.folder} has patches of {pack.card.patch_m:g} m, {examples.name} of "
            f"{examples.patch_m:g} m"
        )
    shared = {channel.name for channel in examples.channels} & set(pack.card.names)
    _check_contrast(sorted(shared), job.config, examples.name)
    network = SegmenterConfig.from_dict(pack.card.network.config)
    side = _side(examples, job, pack.card.window.size)
    return _Plan(pack.card.modalities, network, load_weights(pack), side)


def _check_contrast(names: list[str], config: PretrainConfig, where: str) -> None:
    if len(names) < 2 and not config.reconstruct:
        raise JobError(
            f"{where} has {', '.join(names)} only: contrast needs two modalities; leave "
            "reconstruction on"
        )


def _facts(examples: Examples, job: PretrainJob, plan: _Plan) -> dict[str, object]:
    """Return what shapes the weights beside the training itself."""
    start = None
    if job.start is not None:
        start = find_pack(job.start).card.weights_sha256
    return {
        "examples": {"name": examples.name, "number": len(examples)},
        "modalities": [card.model_dump(mode="json") for card in plan.cards],
        "network": plan.network.to_dict(),
        "pretraining": job.config.to_dict(),
        "draws": {name: _plain(value) for name, value in asdict(job.draws).items()},
        "side": plan.side,
        "start": start,
    }


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, dict) else value


def _card(examples: Examples, job: PretrainJob, plan: _Plan, report: FitReport) -> Card:
    """Describe the encoder with its untrained head."""
    network, patch_m = plan.network, examples.patch_m
    before = "" if job.start is None else f"continued from {find_pack(job.start).card.name}; "
    return Card(
        name=pack_name(job.out),
        version="1",
        summary=f"OmniSat pretrained without labels on {examples.name}: "
        + ", ".join(card.name for card in plan.cards),
        licence=job.licence,
        source="omnisat, `omnisat pretrain`",
        training=before + describe(job, report, len(examples), examples.name),
        limits=LIMITS,
        network=NetworkCard(kind="omnisat", config=network.to_dict()),
        modalities=plan.cards,
        patch_m=patch_m,
        coarse_m=patch_m / network.coarse_side,
        fine_m=patch_m / network.fine_side,
        window=window_card(network.encoder.grid[0]),
        boundary=True,
        min_dates=job.draws.min_dates,
        pretrained_only=True,
        legend=examples.legend.label,
        weights_sha256=empty_digest(),
    )


def pretraining_record(
    command: Sequence[str], facts: Mapping[str, object], spec: FitSpec, report: FitReport
) -> dict[str, object]:
    """Return what `training.json` says; see `packing.training_record`."""
    return {
        **training_record(command, facts, spec),
        "steps": report.steps,
        "seconds": round(report.seconds, 1),
        "losses": dict(report.loss),
    }


def describe(job: PretrainJob, report: FitReport, count: int, where: str) -> str:
    """Say in a sentence how something was pretrained."""
    config = job.config
    terms = []
    if config.contrast != "none":
        terms.append(f"contrast between modalities ({config.contrast})")
    if config.reconstruct:
        parts = [f"{config.mask_ratio:.0%} of the tokens hidden"]
        if config.image_share < 1:
            parts.append(f"{config.image_share:.0%} of the image patches a step")
        if not config.date_filter:
            parts.append("all dates")
        if not config.index_bypass:
            parts.append("no index bypass")
        terms.append(f"reconstruction ({', '.join(parts)})")
    losses = ", ".join(f"{name} {value:.3g}" for name, value in report.loss.items())
    return (
        f"{' and '.join(terms)} on {count} places of {where}, no labels; {report.steps} steps of "
        f"{job.draws.size * job.fit.accumulate * job.fit.devices} windows in "
        f"{report.seconds / 60:.1f} minutes, seed {job.fit.seed}; losses of the last step: {losses}"
    )
