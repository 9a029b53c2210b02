"""Pretrain an encoder without labels and write it as a pack that `train --from` fine-tunes."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch

from omnisat_cli.errors import CheckpointError, JobError, OutputExistsError
from omnisat_cli.learning.batches import Batch, Batcher, BatchSpec
from omnisat_cli.learning.design import (
    choose_size,
    design_encoder,
    design_segmenter,
    window_card,
)
from omnisat_cli.learning.lesson import FitReport, FitSpec, Lesson
from omnisat_cli.learning.statistics import make_modality_cards
from omnisat_cli.learning.trainer import fit
from omnisat_cli.networks.pretraining import OmniSatPretraining, PretrainConfig, Windows
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.outputs.disk import disk_errors
from omnisat_cli.outputs.lock import Lock
from omnisat_cli.outputs.run import staging_folder
from omnisat_cli.packs.card import Card, NetworkCard
from omnisat_cli.packs.registry import CARD, Pack, find_pack, load_weights
from omnisat_cli.packs.writer import empty_digest, write_pack

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.lesson import Watch
    from omnisat_cli.packs.card import ModalityCard

LOG = "training.csv"
_LIMITS = (
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
    if (job.out / CARD).exists() and not job.overwrite:
        raise OutputExistsError(f"{job.out} holds a pack; choose another folder or --overwrite")
    folder = staging_folder(job.out)
    with disk_errors(folder, "making the folder of the training"):
        folder.mkdir(parents=True, exist_ok=True)
    helper = "LOCAL_RANK" in os.environ  # one of several devices; the first holds the lock
    with nullcontext() if helper else Lock(folder / "lock"):
        if not job.resume and not helper:
            _forget(folder)
        plan = _plan(examples, job)
        torch.manual_seed(job.fit.seed)
        segmenter = OmniSatSegmenter(plan.network)
        if plan.weights is not None:
            segmenter.load_state_dict(plan.weights)
        network = OmniSatPretraining(segmenter.encoder, job.config)
        batcher = Batcher(examples, plan.cards, job.draws, job.fit.seed)
        lesson = Lesson(
            batcher.batch,
            lambda batch: network(windows_of(batch), grid=(batch.side, batch.side)),
            facts=_facts(examples, job, plan),
        )
        report = fit(network, lesson, job.fit, folder, watch=watch, stop=stop)
        size = sum(p.numel() for p in network.parameters() if p.requires_grad)
        if report.ended == "stopped" or not report.main:
            return PretrainReport(report, None, size)
        pack = _write(examples, job, plan, segmenter, report)
        collect_log(folder, job.out / LOG)
    shutil.rmtree(folder)
    return PretrainReport(report, pack, size)


def windows_of(batch: Batch) -> Windows:
    """Take from a batch what pretraining looks at: everything but the labels."""
    return Windows(batch.pixels, batch.days, batch.valid, batch.present)


def _plan(examples: Examples, job: PretrainJob) -> _Plan:
    """Choose modalities and network.

    Raises:
        JobError: If fewer than two modalities would be contrasted, or windows do not fit.
        CheckpointError: If the pack to start from holds no OmniSat.
    """
    side = job.draws.side or min(examples.example(0).sample.window.shape)
    if job.start is not None:
        return _plan_from(examples, job, find_pack(job.start), side)
    cards = make_modality_cards(examples, job.modalities)
    _check_contrast([card.name for card in cards], job.config, examples.name)
    encoder = design_encoder(cards, examples.patch_m, side, choose_size(job.size))
    classes = len(examples.legend.classes)
    return _Plan(cards, design_segmenter(encoder, examples.patch_m, classes), None, side)


def _plan_from(examples: Examples, job: PretrainJob, pack: Pack, side: int) -> _Plan:
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
        "start": start,
    }


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, dict) else value


def _write(
    examples: Examples,
    job: PretrainJob,
    plan: _Plan,
    segmenter: OmniSatSegmenter,
    report: FitReport,
) -> Pack:
    """Write the encoder with its untrained head."""
    network, patch_m = plan.network, examples.patch_m
    before = "" if job.start is None else f"continued from {find_pack(job.start).card.name}; "
    legend = examples.legend
    card = Card(
        name=pack_name(job.out),
        version="1",
        summary=f"OmniSat pretrained without labels on {examples.name}: "
        + ", ".join(card.name for card in plan.cards),
        licence="not stated",
        source="omnisat, `omnisat pretrain`",
        training=before + describe(job, report, len(examples), examples.name),
        limits=_LIMITS,
        network=NetworkCard(kind="omnisat", config=network.to_dict()),
        modalities=plan.cards,
        patch_m=patch_m,
        coarse_m=patch_m / network.coarse_side,
        fine_m=patch_m / network.fine_side,
        window=window_card(plan.side),
        boundary=True,
        min_dates=job.draws.min_dates,
        pretrained_only=True,
        legend=f"{legend.id}@{legend.version}",
        weights_sha256=empty_digest(),
    )
    return write_pack(job.out, card, legend.to_json(), segmenter.state_dict())


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


def pack_name(out: Path) -> str:
    """Turn the name of a folder into the name of a pack."""
    name = re.sub(r"[^a-z0-9._-]+", "-", out.resolve().name.lower()).strip("-._")[:64]
    return name or "pretrained"


def collect_log(folder: Path, path: Path) -> None:
    """Put the logs of a training and of its resumptions into one table; the last word counts."""
    import csv

    rows: dict[int, dict[str, str]] = {}
    parts = folder.glob("log/version_*/metrics.csv")
    for part in sorted(parts, key=lambda p: int(p.parent.name.removeprefix("version_"))):
        with part.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                rows[int(row["step"])] = row
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = ["step", *(name for name in columns if name != "step")]
    with disk_errors(path, "writing the log"), path.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, columns, restval="")
        table.writeheader()
        table.writerows(rows[step] for step in sorted(rows))


def _forget(folder: Path) -> None:
    """Remove what an earlier training left, but not the lock."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()
