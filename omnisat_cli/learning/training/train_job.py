"""What `train` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from omnisat_cli.errors import JobError
from omnisat_cli.learning.training.objectives import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omnisat_cli.learning.data.batches import BatchSpec
    from omnisat_cli.learning.data.statistics import Weighting
    from omnisat_cli.learning.training.lesson import FitSpec

Kind = Literal["omnisat", "anysat", "utae", "dual-stream", "unet"]


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
