"""Pretrain an AnySat on one dataset or many and write it as a pack for `train --from`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.learning.data.batches import whole
from omnisat_cli.learning.training.design_anysat import design_anysat
from omnisat_cli.learning.training.lesson import Lesson
from omnisat_cli.learning.training.mixing import MixedBatch, Mixture, Part, pooled_cards
from omnisat_cli.learning.training.packing import (
    pack_name,
    publish_pack,
    refuse_existing,
    workplace,
)
from omnisat_cli.learning.training.pretrain import LIMITS, PretrainReport, pretraining_record
from omnisat_cli.learning.training.trainer import fit
from omnisat_cli.networks.anysat_config import CELL_M, AnySatConfig
from omnisat_cli.networks.anysat_jepa import Seen
from omnisat_cli.networks.anysat_pretraining import AnySatPretraining, JepaConfig, View
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.networks.image import cut_patches
from omnisat_cli.networks.jepa_masks import BlockSpec
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.packs.card import Card, NetworkCard, WindowCard
from omnisat_cli.packs.registry import Pack, find_pack, load_weights
from omnisat_cli.packs.writer import empty_digest

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from omnisat_cli.learning.training.lesson import FitReport, FitSpec, Watch

Keep = Literal["teacher", "student"]


@dataclass(frozen=True, slots=True)
class JepaJob:
    """What is pretrained, and where it goes.

    Attributes:
        out: Folder of the pack.
        fit: Budget and rates.
        config: What a step computes.
        size: Name of a size; not asked where `start` is given.
        start: AnySat pack that is trained on, or None to begin with random weights.
        keep: Which of the two networks the pack holds; the published recipe keeps the teacher.
        min_dates: Fewest clear dates that make a series present.
        augment: Whether windows are turned and mirrored at random.
        licence: Of the pack.
        command: Command line, for the provenance.
        resume: Go on with a pretraining that was stopped.
        overwrite: Replace a pack that is there.
    """

    out: Path
    fit: FitSpec
    config: JepaConfig = field(default_factory=JepaConfig)
    size: str = "small"
    start: str | None = None
    keep: Keep = "teacher"
    min_dates: int = 1
    augment: bool = True
    licence: str = "not stated"
    command: tuple[str, ...] = ()
    resume: bool = True
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a job becomes on a mixture."""

    mixture: Mixture
    network: AnySatSegmenterConfig
    weights: Mapping[str, Tensor] | None
    legend: Legend
    start: Pack | None


def pretrain_anysat(
    parts: tuple[Part, ...],
    job: JepaJob,
    *,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
) -> PretrainReport:
    """Pretrain an AnySat by joint-embedding prediction; labels are not looked at.

    Args:
        parts: The datasets, each with its weight, scales and batch.
        job: What is wanted.
        watch: Told of every step.
        stop: When set, training ends after the step in work; the same job then goes on.

    Raises:
        OutputExistsError: If the pack is there, or another process is writing it.
        JobError: If datasets, scales and network do not fit each other.
        CheckpointError: If the pack to start from cannot be used.
        LossError: If the loss is not finite.
        ResumeError: If what was begun towards `out` was something else.
    """
    refuse_existing(job.out, overwrite=job.overwrite)
    with workplace(job.out, resume=job.resume) as folder:
        plan = _plan(parts, job)
        torch.manual_seed(job.fit.seed)
        segmenter = AnySatSegmenter(plan.network)
        if plan.weights is not None:
            segmenter.load_state_dict(plan.weights)
        network = AnySatPretraining(
            segmenter.encoder, job.config, job.fit.steps * job.fit.accumulate
        )
        lesson: Lesson[MixedBatch] = Lesson(
            plan.mixture.batch,
            lambda mixed: network(view_of(mixed, plan.network.encoder), mixed.masks),
            facts=_facts(parts, job, plan),
        )
        report = fit(network, lesson, job.fit, folder, watch=watch, stop=stop)
        size = sum(p.numel() for p in network.parameters() if p.requires_grad)
        if report.ended == "stopped" or not report.main:
            return PretrainReport(report, None, size)
        if job.keep == "teacher":
            segmenter.encoder.load_state_dict(network.teacher.state_dict())
        card = _card(parts, job, plan, report, network.untouched)
        facts = _facts(parts, job, plan) | {"kept": job.keep}
        record = pretraining_record(job.command, facts, job.fit, report)
        made = publish_pack(job.out, card, plan.legend, segmenter.state_dict(), record)
        return PretrainReport(report, made, size)


def view_of(mixed: MixedBatch, config: AnySatConfig) -> View:
    """Lay the windows of a batch out as AnySat takes them, cut into the patches of the step."""
    batch, patch_m = mixed.batch, mixed.patch_m
    pixels: dict[str, Tensor] = {}
    valid: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for name in batch.pixels:
        sensor = config.sensor(name)
        values, real = whole(batch, name)
        if sensor.whole_window:
            values, real = _one_pixel(values, real)
        pixels[name] = values
        if bool(real.all()):
            continue
        if sensor.kind == "series":
            valid[name] = real
        else:
            side = sensor.patch_side(patch_m, config.behaviour) * sensor.subpatch_px
            cut = cut_patches(real.unsqueeze(1).float(), side).transpose(0, 1)  # (B, P, 1, p, p)
            present[name] = cut.mean((2, 3, 4)) >= 0.5
    return View(pixels, batch.days, Seen(valid, present), patch_m)


def _one_pixel(values: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Average the real pixels of a series (B, T, C, h, w): (B, T, C, 1, 1) and (B, T, 1, 1)."""
    count = real.sum((2, 3), keepdim=True)  # (B, T, 1, 1)
    mean = values.sum((3, 4), keepdim=True) / count.clamp(min=1).unsqueeze(2)
    return mean, count > 0


# --- the network


def _plan(parts: tuple[Part, ...], job: JepaJob) -> _Plan:
    """Choose modalities and network.

    Raises:
        JobError: If datasets, scales and network do not fit each other.
        CheckpointError: If the pack to start from holds no AnySat.
    """
    scales = sorted({scale for part in parts for scale in part.member.scales})
    weights, start = None, None
    legend = _legend(parts)
    if job.start is not None:
        start = find_pack(job.start)
        if start.card.network.kind != "anysat":
            raise CheckpointError(
                f"--from {start.folder}: its network is {start.card.network.kind}, not anysat"
            )
        cards, legend = start.card.modalities, start.legend
        network = AnySatSegmenterConfig.from_dict(start.card.network.config)
        weights = load_weights(start)
    else:
        cards = pooled_cards(parts)
        encoder = design_anysat(cards, job.size)
        patch_m = CELL_M * scales[0]
        side = min(round(part.side_m // patch_m) for part in parts)
        network = AnySatSegmenterConfig(
            encoder, len(legend.classes), patch_m, (side, side), coarse_side=scales[0]
        )
    _check(parts, network.encoder, job.config)
    blocks = BlockSpec(recipe=job.config.recipe)
    mixture = Mixture(parts, cards, job.fit.seed, blocks, job.min_dates, job.augment)
    return _Plan(mixture, network, weights, legend, start)


def _check(parts: tuple[Part, ...], encoder: AnySatConfig, config: JepaConfig) -> None:
    """Check that every dataset can be cut into every patch it is to be cut into."""
    if encoder.width % config.heads:
        raise JobError(
            f"a width of {encoder.width} is no multiple of {config.heads} heads of the predictor"
        )
    for part in parts:
        names = [channel.name for channel in part.examples.channels]
        local = [n for n in names if n in encoder.names and not encoder.sensor(n).whole_window]
        if not local:
            raise JobError(
                f"{part.examples.name} has {', '.join(names)}; the network reads "
                f"{', '.join(encoder.names)}: none of its sensors gives patches there"
            )
        for name in local:
            for scale in part.member.scales:
                try:
                    encoder.sensor(name).patch_side(CELL_M * scale, encoder.behaviour)
                except ValueError as error:
                    raise JobError(f"{part.examples.name}, scale {scale}: {error}") from error


def _legend(parts: tuple[Part, ...]) -> Legend:
    """Return the classes that all datasets share, or a placeholder: nothing is mapped yet."""
    first = parts[0].examples.legend
    if all(part.examples.legend == first for part in parts):
        return first
    entry = LegendClass(0, "unlabelled", "sans étiquette", "#808080")
    return Legend(
        "unlabelled", "1", "several datasets, none of whose labels count", "none", (entry,)
    )


# --- what is written


def _facts(parts: tuple[Part, ...], job: JepaJob, plan: _Plan) -> dict[str, object]:
    """Return what shapes the weights beside the training itself."""
    return {
        "datasets": [
            {
                **part.member.model_dump(mode="json"),
                "examples": part.examples.name,
                "number": len(part.examples),
            }
            for part in parts
        ],
        "modalities": [card.model_dump(mode="json") for card in plan.mixture.cards],
        "network": plan.network.to_dict(),
        "pretraining": job.config.to_dict(),
        "min_dates": job.min_dates,
        "augment": job.augment,
        "start": None if plan.start is None else plan.start.card.weights_sha256,
    }


def _card(
    parts: tuple[Part, ...], job: JepaJob, plan: _Plan, report: FitReport, untouched: float
) -> Card:
    network = plan.network
    where = ", ".join(part.examples.name for part in parts)
    before = "" if plan.start is None else f"continued from {plan.start.card.name}; "
    return Card(
        name=pack_name(job.out),
        version="1",
        summary=f"AnySat pretrained without labels on {where}: "
        + ", ".join(card.name for card in plan.mixture.cards),
        licence=job.licence,
        source="omnisat, `omnisat pretrain --network anysat`",
        training=before + _describe(parts, job, report, untouched),
        limits=LIMITS,
        network=NetworkCard(kind="anysat", config=network.to_dict()),
        modalities=plan.mixture.cards,
        patch_m=network.patch_m,
        patch_sizes=_other_sizes(parts, network.patch_m),
        coarse_m=network.patch_m / network.coarse_side,
        fine_m=network.patch_m / network.fine_side,
        window=WindowCard(size=network.grid[0], overlap=network.grid[0] // 3, cell=8),
        min_dates=job.min_dates,
        pretrained_only=True,
        legend=plan.legend.label,
        weights_sha256=empty_digest(),
    )


def _other_sizes(parts: tuple[Part, ...], patch_m: int) -> tuple[float, ...]:
    """Return the patch sizes that were seen beside the pack's own."""
    seen = {CELL_M * scale for part in parts for scale in part.member.scales}
    return tuple(sorted(float(size) for size in seen - {patch_m}))


def _describe(parts: tuple[Part, ...], job: JepaJob, report: FitReport, untouched: float) -> str:
    """Say in a sentence how something was pretrained."""
    sets = "; ".join(
        f"{len(part.examples)} places of {part.examples.name} (weight {part.member.weight:g}, "
        f"patches of {', '.join(str(CELL_M * scale) for scale in part.member.scales)} m, "
        f"{part.member.batch} windows a step)"
        for part in parts
    )
    kept = "the student's weights"
    if job.keep == "teacher":
        kept = f"the teacher's weights, {untouched:.1%} of which are those it began with"
    losses = ", ".join(f"{name} {value:.3g}" for name, value in report.loss.items())
    contrast = " and contrast between sensors" if job.config.contrast else ""
    return (
        f"joint-embedding prediction{contrast} ({job.config.recipe} recipe), no labels, on {sets}; "
        f"{report.steps} steps in {report.seconds / 60:.1f} minutes, seed {job.fit.seed}; {kept}; "
        f"losses of the last step: {losses}"
    )
