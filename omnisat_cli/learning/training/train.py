"""Learn from labels: from examples and a job to a model pack."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.data.batches import Batcher, BatchSpec
from omnisat_cli.learning.data.split import Subset, split_by_space, take_share
from omnisat_cli.learning.data.statistics import class_counts, class_weights, labels_of
from omnisat_cli.learning.training.learner import Learner, design_learner
from omnisat_cli.learning.training.lesson import FitReport, FitSpec, Lesson
from omnisat_cli.learning.training.objectives import Objective, Weights
from omnisat_cli.learning.training.packing import (
    pack_name,
    publish_pack,
    refuse_existing,
    training_record,
    workplace,
)
from omnisat_cli.learning.training.trainer import fit
from omnisat_cli.learning.training.validation import Validation
from omnisat_cli.packs.card import Card, NetworkCard
from omnisat_cli.packs.writer import empty_digest

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.data.batches import Batch
    from omnisat_cli.learning.data.statistics import Weighting
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.lesson import Watch
    from omnisat_cli.learning.training.transfer import Transfer
    from omnisat_cli.packs.registry import Pack

log = logging.getLogger(__name__)

Kind = Literal["omnisat", "anysat", "utae", "dual-stream", "unet"]
_LOOK = 64  # examples looked at to see whether parcel borders are known


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What is trained, and where it goes.

    Attributes:
        out: Folder of the pack.
        fit: Budget and rates; its metric is chosen by the task.
        draws: How training windows are drawn; whether one pixel is enough follows from the network.
        kind: Network, where it starts from scratch.
        size: How large it is then.
        modalities: What it reads then, in its order; None = all there are.
        start: Pack it starts from instead: name or folder.
        freeze: Whether only what follows the encoder of the pack learns.
        weights: Of the terms of the loss; class weights follow from `weighting`.
        weighting: How much rare classes count.
        label_share: Share of the labelled training examples that is used.
        val_share: Share of the examples kept apart, where no validation is given.
        val_places: Most places that are measured, evenly spread; 0 = all.
        licence: Of the pack.
        limits: What users of the pack should know; "" for a sentence on where it was trained.
        inputs: What is known of the files the examples come from, as plain values.
        command: Command line, for the provenance.
        resume: Go on with a training that was stopped.
        overwrite: Replace a pack that is there.
    """

    out: Path
    fit: FitSpec
    draws: BatchSpec
    kind: Kind = "omnisat"
    size: str = "small"
    modalities: tuple[str, ...] | None = None
    start: str | None = None
    freeze: bool = False
    weights: Weights = field(default_factory=Weights)
    weighting: Weighting = "inverse-sqrt"
    label_share: float = 1.0
    val_share: float = 0.2
    val_places: int = 100
    licence: str = "not stated"
    limits: str = ""
    inputs: Mapping[str, object] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    resume: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.freeze and self.start is None:
            raise JobError("--freeze encoder needs a trained encoder: give --from PACK")


@dataclass(frozen=True, slots=True)
class Material:
    """What a training learns from and what it is measured on.

    Attributes:
        training: Labelled examples.
        validation: Labelled examples of other ground.
        each: (N, K) labelled pixels, or places, of each class in the training examples.
        held: (K,) of all validation examples.
    """

    training: Examples
    validation: Examples
    each: NDArray[np.int64]
    held: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K,) of all training examples."""
        return np.asarray(self.each.sum(0))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of it."""
        classes = self.training.legend.classes
        numbers = list(zip(classes, self.counts, self.held, strict=True))
        alone = [entry.name_en for entry, learned, held in numbers if learned and not held]
        never = [entry.name_en for entry, learned, _ in numbers if not learned]
        lines = [
            f"learning from {self.training.name}: {len(self.training)} places, "
            f"{int((self.counts > 0).sum())} of {len(classes)} classes",
            f"validating on {self.validation.name}: {len(self.validation)} places",
        ]
        if alone:
            lines.append(f"not validated, for want of other ground: {', '.join(alone)}")
        if never:
            lines.append(f"without any label to learn from: {', '.join(never)}")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class TrainReport:
    """How a training went.

    Attributes:
        fit: The training.
        pack: What was written; None where it was stopped, or in a process that writes nothing.
        material: What it learned from.
        transfer: What came over from the pack it started from, or None.
        parameters: Trained numbers.
        scores: Figures of the validation, by subset of the modalities.
    """

    fit: FitReport
    pack: Pack | None
    material: Material
    transfer: Transfer | None
    parameters: int
    scores: dict[str, dict[str, float]]


def train(
    examples: Examples,
    validation: Examples | None,
    job: TrainJob,
    *,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] = log.info,
) -> TrainReport:
    """Train a network on labels and write it as a pack.

    Args:
        examples: What there is to learn from.
        validation: What it is measured on; None = a share of `examples`, apart in space.
        job: What is wanted.
        watch: Told of every step.
        stop: When set, training ends after the step in work; the same job then goes on.
        tell: Told in words what is learned from what, before training begins.

    Raises:
        OutputExistsError: If the pack is there, or another process is writing it.
        SourceError: If there are too few labels to learn from.
        JobError: If the job does not fit the examples.
        CheckpointError: If the pack to start from, or a checkpoint, cannot be used.
        ResumeError: If what was begun towards `out` was something else.
        LossError: If the loss is not finite.
    """
    refuse_existing(job.out, overwrite=job.overwrite)
    with workplace(job.out, resume=job.resume) as folder:
        material = gather(examples, validation, job)
        torch.manual_seed(job.fit.seed)
        learner = design_learner(material.training, job)
        trainee = _Trainee(material, learner, job)
        for line in (*material.notes, *(learner.transfer.lines if learner.transfer else ())):
            tell(line)
        report = fit(
            learner.network, trainee.lesson(), trainee.spec, folder, watch=watch, stop=stop
        )
        size = sum(p.numel() for p in learner.network.parameters() if p.requires_grad)
        made = None
        scores: dict[str, dict[str, float]] = {}
        if report.ended != "stopped" and report.main:
            scores = trainee.validation.by_subset(learner.network)
            made = publish_pack(
                job.out,
                trainee.card(report, scores),
                material.training.legend,
                learner.network.state_dict(),
                trainee.provenance(report, scores),
            )
        return TrainReport(report, made, material, learner.transfer, size, scores)


def gather(examples: Examples, validation: Examples | None, job: TrainJob) -> Material:
    """Take the labelled examples and put a part of them aside.

    Raises:
        SourceError: If there is no label, or one class only.
        JobError: If nothing can be kept apart, or the two sets differ in classes.
    """
    counts = class_counts(examples)
    _check_classes(examples, counts.sum(0))
    labelled = np.flatnonzero(counts.any(axis=1))
    if validation is None:
        split = split_by_space(
            examples.groups[labelled], counts[labelled], job.val_share, job.fit.seed
        )
        chosen, kept = labelled[split.training], labelled[split.validation]
        validation, held = examples, counts
    else:
        if validation.legend != examples.legend:
            raise JobError(
                f"{examples.name} has the classes of {examples.legend.label}, {validation.name} "
                f"those of {validation.legend.label}: they cannot be compared"
            )
        held = class_counts(validation)
        chosen, kept = labelled, np.flatnonzero(held.any(axis=1))
        if not kept.size:
            raise SourceError(f"{validation.name} holds no label to validate on")
    if job.label_share < 1:
        chosen = chosen[take_share(counts[chosen], job.label_share, job.fit.seed)]
    _check_classes(examples, counts[chosen].sum(0))
    if 0 < job.val_places < len(kept):
        kept = kept[np.linspace(0, len(kept) - 1, job.val_places).round().astype(int)]
    return Material(
        Subset(examples, chosen), Subset(validation, kept), counts[chosen], held[kept].sum(0)
    )


def _check_classes(examples: Examples, counts: NDArray[np.int64]) -> None:
    """Check that there is something to tell apart.

    Raises:
        SourceError: If not.
    """
    present = np.flatnonzero(counts)
    if not present.size:
        raise SourceError(f"{examples.name} holds no labelled pixel: nothing can be learned")
    if present.size == 1 and examples.task == "segmentation":
        only = examples.legend.classes[int(present[0])]
        raise SourceError(
            f"{examples.name} labels one class only ({only.code} {only.name_en}, "
            f"{int(counts[present[0]])} pixels): a network that knows one class calls everything "
            "so. Label at least one other class"
        )


class _Trainee:
    """A learner with its material: what `fit` and the pack need."""

    def __init__(self, material: Material, learner: Learner, job: TrainJob) -> None:
        self.material, self.learner, self.job = material, learner, job
        draws = replace(job.draws, side=learner.side, any_pixel=learner.whole_windows)
        self.draws = draws
        self.batcher = Batcher(material.training, learner.cards, draws, job.fit.seed, material.each)
        self.validation = Validation(
            Batcher(
                material.validation,
                learner.cards,
                BatchSpec(
                    draws.size,
                    learner.side,
                    min_dates=draws.min_dates,
                    any_pixel=learner.whole_windows,
                ),
                job.fit.seed,
            )
        )
        self.spec = replace(job.fit, metric=self.validation.metric)
        weights = class_weights(material.counts, job.weighting)
        self.weights = replace(job.weights, classes=tuple(float(w) for w in weights))

    def lesson(self) -> Lesson[Batch]:
        """Return what `fit` trains."""
        objective = Objective(self.learner.network, self.weights)
        return Lesson(
            self.batcher.batch,
            objective.losses,
            validate=lambda: self.validation.figures(self.learner.network),
            frozen=self.learner.frozen,
            facts=self.facts(),
        )

    def facts(self) -> dict[str, object]:
        """Return what shapes the weights beside the training itself."""
        material, learner, job = self.material, self.learner, self.job
        return {
            "examples": {
                "name": material.training.name,
                "number": len(material.training),
                "labels": material.counts.tolist(),
                "legend": material.training.legend.label,
            },
            "validation": {
                "name": material.validation.name,
                "number": len(material.validation),
                "labels": material.held.tolist(),
            },
            "network": {"kind": learner.kind, "config": learner.config},
            "modalities": [card.model_dump(mode="json") for card in learner.cards],
            "draws": {name: _plain(value) for name, value in asdict(self.draws).items()},
            "losses": asdict(self.weights),
            "start": learner.start_digest,
            "freeze": job.freeze,
            "inputs": dict(job.inputs),
        }

    def card(self, report: FitReport, scores: dict[str, dict[str, float]]) -> Card:
        """Write the card."""
        learner, job, material = self.learner, self.job, self.material
        legend = material.training.legend
        names = ", ".join(card.name for card in learner.cards)
        return Card(
            name=pack_name(job.out),
            version="1",
            summary=f"{learner.title} of {names}: {len(legend.classes)} classes of {legend.label}"
            + (", multi-label: any number of them a place" if learner.labels_places else ""),
            licence=job.licence,
            source="omnisat, `omnisat train`",
            training=self._training(report),
            limits=job.limits or _limits(material.training.name),
            network=NetworkCard(kind=learner.kind, config=learner.config),
            modalities=learner.cards,
            patch_m=material.training.patch_m,
            patch_sizes=learner.patch_sizes,
            coarse_m=learner.coarse_m,
            fine_m=learner.fine_m,
            window=learner.window,
            boundary=learner.has_boundary and knows_borders(material.training),
            min_dates=self.draws.min_dates,
            legend=legend.label,
            scores={"validation": scores},
            weights_sha256=empty_digest(),
        )

    def _training(self, report: FitReport) -> str:
        job, material, spec = self.job, self.material, self.spec
        begun = "from scratch" if self.learner.start is None else f"from {self.learner.start}"
        if job.freeze:
            begun += ", its encoder frozen"
        windows = self.draws.size * spec.accumulate * spec.devices
        losses = ", ".join(f"{name} {value:.3g}" for name, value in report.loss.items())
        share = f" ({job.label_share:.0%} of the labels)" if job.label_share < 1 else ""
        best = "" if report.best_step is None else f", best after {report.best_step}"
        return (
            f"{begun} on {len(material.training)} places of {material.training.name}{share}; "
            f"{report.steps} steps{best}, of {windows} windows in {report.seconds / 60:.1f} "
            f"minutes, seed {spec.seed}; losses of the last step: {losses}; validated on "
            f"{len(material.validation)} places of {material.validation.name}"
        )

    def provenance(
        self, report: FitReport, scores: dict[str, dict[str, float]]
    ) -> dict[str, object]:
        """Return what `training.json` says."""
        transfer = self.learner.transfer
        return {
            **training_record(self.job.command, self.facts(), self.spec),
            "transfer": None if transfer is None else asdict(transfer),
            "run": {
                "ended": report.ended,
                "steps": report.steps,
                "best_step": report.best_step,
                "seconds": round(report.seconds, 1),
                "step_seconds": round(report.step_seconds, 4),
                "busy": round(report.busy, 4),
                "losses": dict(report.loss),
            },
            "scores": scores,
        }


def knows_borders(examples: Examples) -> bool:
    """Whether some of the examples tell where parcels end."""
    indices = np.linspace(0, len(examples) - 1, min(len(examples), _LOOK)).round().astype(int)
    return any(labels_of(examples, int(index)).parcels is not None for index in indices)


def _limits(where: str) -> str:
    return (
        f"Learned from {where}; elsewhere, in other seasons and with other sensors it has not been "
        "measured."
    )


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, dict) else value
