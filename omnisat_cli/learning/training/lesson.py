"""What is trained, how long and how fast: the values that `trainer.fit` takes and gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar, get_args

from omnisat_cli.errors import Exit, JobError, OmnisatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    import torch
    from torch import Tensor, nn

Precision = Literal["32", "bf16-mixed", "16-mixed"]
Ended = Literal["steps", "minutes", "patience", "stopped"]


class Movable(Protocol):
    """A batch: it can go to a device."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""


B = TypeVar("B", bound=Movable)


class LossError(OmnisatError):
    """The loss or its gradient is not finite: what follows would be noise."""

    exit_code = Exit.REFUSED


@dataclass(frozen=True, slots=True)
class FitSpec:
    """How long, how fast, on what.

    Attributes:
        steps: Optimiser steps.
        minutes: Finish within this time, the schedule included, or None.
        rate: Highest learning rate.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the rate rises.
        schedule: After that the rate falls as half a cosine, or is halved whenever the
            validation does not get better.
        clip: Longest gradient.
        accumulate: Batches of one step.
        seed: Of everything random in the network.
        device: "auto", "cpu", "cuda".
        devices: How many of them; each takes batches of its own.
        precision: "32", "bf16-mixed" or "16-mixed" (GPU only).
        loaders: Processes that make batches; 0 = one thread of this process.
        checkpoint_steps: Steps between two checkpoints.
        checkpoint_minutes: Longest time between two checkpoints.
        validate_every: Steps between two validations; 0 = at the end only.
        patience: Validations without a better figure after which training ends; None = never.
        metric: Figure of the validation that counts; higher is better.
    """

    steps: int
    minutes: float | None = None
    rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up: float = 0.05
    schedule: Literal["cosine", "plateau"] = "cosine"
    clip: float = 1.0
    accumulate: int = 1
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: Precision = "32"
    loaders: int = 0
    checkpoint_steps: int = 500
    checkpoint_minutes: float = 5.0
    validate_every: int = 0
    patience: int | None = None
    metric: str = "mIoU"

    def __post_init__(self) -> None:
        whole = ("steps", "accumulate", "devices", "checkpoint_steps")
        above = {name: getattr(self, name) for name in (*whole, "rate", "clip")}
        above |= {"minutes": self.minutes or 1, "patience": self.patience or 1}
        if self.minutes == 0 or self.patience == 0 or any(value <= 0 for value in above.values()):
            bad = next((f"{n} {v}" for n, v in above.items() if v <= 0), "minutes or patience 0")
            raise JobError(f"training: {bad}: must be above 0")
        if not 0 <= self.warm_up < 1 or self.weight_decay < 0 or self.loaders < 0:
            raise JobError("training: warm-up, weight decay and loaders must be 0 or more")
        if self.precision not in get_args(Precision):
            raise JobError(f"--precision {self.precision}: use {', '.join(get_args(Precision))}")
        if self.validate_every == 0 and (self.patience or self.schedule == "plateau"):
            raise JobError("patience and the plateau schedule need validations on the way")

    def facts(self) -> dict[str, object]:
        """Return what shapes the weights; where checkpoints go and who reads data does not."""
        how = ("device", "loaders", "checkpoint_steps", "checkpoint_minutes")
        return {name: value for name, value in asdict(self).items() if name not in how}


@dataclass(frozen=True, slots=True)
class Lesson(Generic[B]):
    """What is trained.

    Attributes:
        batch: Makes the batch of a number, the same one whenever it is asked.
        losses: Weighted losses of a batch, by name; their sum is minimised.
        validate: Figures of the network as it is, in evaluation mode without gradients; or None.
        frozen: Parts that stay in evaluation mode (no dropout, fixed statistics).
        facts: Data and configuration, as plain values: a checkpoint of others is refused.
    """

    batch: Callable[[int], B]
    losses: Callable[[B], Mapping[str, Tensor]]
    validate: Callable[[], Mapping[str, float]] | None = None
    frozen: tuple[nn.Module, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


class Watch(Protocol):
    """Is told how training goes, in this process only."""

    def start(self, steps: int, done: int) -> None:
        """Say how many steps there are and how many an earlier run did."""

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Say that a step is done, with its losses and their sum "loss"."""

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        """Say what a validation found after `step` steps, and whether it is the best so far."""


class Unwatched:
    """A watch that looks away."""

    def start(self, steps: int, done: int) -> None:
        """Say nothing."""

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Say nothing."""

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """How a training went.

    Attributes:
        ended: What ended it; "stopped" = on request, to be resumed.
        steps: Steps done, those of earlier runs included.
        seconds: Time of the loop, those of earlier runs included.
        step_seconds: Mean time of a step of this run, without validations and checkpoints.
        busy: Share of that time in which batches were computed, not waited for.
        loss: Losses of the last step.
        best_step: Steps after which the validation was best; its weights are in the network.
        figures: What the validation found then.
        main: Whether this is the process that writes results (one of several devices).
    """

    ended: Ended
    steps: int
    seconds: float
    step_seconds: float
    busy: float
    loss: Mapping[str, float]
    best_step: int | None
    figures: Mapping[str, float]
    main: bool = True
