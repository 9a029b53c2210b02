"""Learn from labels: from examples and a job to a model pack."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.learning.data.batches import Batcher, BatchSpec
from omnisat_cli.learning.data.statistics import class_weights, labels_of
from omnisat_cli.learning.training.design_learner import design_learner
from omnisat_cli.learning.training.lesson import Lesson
from omnisat_cli.learning.training.material import gather
from omnisat_cli.learning.training.objectives import Objective
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
    from collections.abc import Callable

    from omnisat_cli.learning.data.batches import Batch
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.learner import Learner
    from omnisat_cli.learning.training.lesson import FitReport, Watch
    from omnisat_cli.learning.training.material import Material
    from omnisat_cli.learning.training.train_job import TrainJob
    from omnisat_cli.learning.training.transfer import Transfer
    from omnisat_cli.packs.registry import Pack

log = logging.getLogger(__name__)

_LOOK = 64  # examples looked at to see whether parcel borders are known


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
