"""What the steps of a training found: judged, told, logged and timed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omnisat_cli.learning.training.lesson import LossError, Unwatched

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from omnisat_cli.learning.training.lesson import FitSpec, Watch

LAST, LOG = "last.ckpt", "log"
_LOG_STEPS = 50  # steps kept in memory before the log is written


@dataclass(slots=True)
class Clock:
    """Time of this run, in seconds."""

    begin: float = field(default_factory=time.monotonic)
    before: float = 0.0  # of earlier runs
    steps: int = 0  # measured ones: all but the first
    wall: float = 0.0
    compute: float = 0.0

    @property
    def seconds(self) -> float:
        """Time of all runs."""
        return self.before + time.monotonic() - self.begin

    @property
    def step_seconds(self) -> float:
        """Mean time of a step of this run."""
        return self.wall / max(self.steps - 1, 1)

    @property
    def busy(self) -> float:
        """Share of that time in which batches were computed."""
        return min(self.compute / self.wall, 1.0) if self.wall else 1.0

    def count(self, wall: float, compute: float) -> None:
        """Count a step; the first of a run also starts loaders and kernels."""
        self.steps += 1
        self.wall += wall if self.steps > 1 else 0.0
        self.computed(compute)

    def computed(self, seconds: float) -> None:
        """Add time in which the last step was computed."""
        self.compute += seconds if self.steps > 1 else 0.0


@dataclass(slots=True)
class Done:
    """A step whose figures are on their way from the device.

    Attributes:
        numbers: Its batches.
        names: Of the losses.
        values: (losses + 1,) the losses and the length of the gradient, on the CPU once `ready`.
        spans: Begin and end of each computation on a GPU.
    """

    step: int
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    values: Tensor
    ready: torch.cuda.Event | None = None
    spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)


class Ledger:
    """The figures of one training.

    Args:
        spec: Budget and rates.
        folder: Of the checkpoints and the log.
        main: Whether this process writes them.
    """

    def __init__(self, spec: FitSpec, folder: Path, *, main: bool) -> None:
        from lightning_fabric.loggers.csv_logs import CSVLogger

        self.spec, self.folder, self.main = spec, folder, main
        self.logger = CSVLogger(folder, LOG, flush_logs_every_n_steps=_LOG_STEPS)
        self.watch: Watch = Unwatched()
        self.clock = Clock()
        self.losses: dict[str, float] = {}
        self.unread: Done | None = None
        self.kept = -1
        """Step of the last checkpoint; -1 = none."""

    def read(self, rate: float) -> None:
        """Take the figures of the step before from a GPU, which meanwhile computes the next."""
        done, self.unread = self.unread, None
        if done is None or done.ready is None:
            return
        done.ready.synchronize()
        self.judge(done, rate)
        done.spans[-1][1].synchronize()
        self.clock.computed(sum(a.elapsed_time(b) for a, b in done.spans) / 1000)

    def judge(self, done: Done, rate: float) -> None:
        """Report the losses of a step, and the learning rate.

        Raises:
            LossError: If they, or the gradient, are not finite.
        """
        *values, norm = done.values.tolist()
        losses = dict(zip(done.names, values, strict=True))
        scaled = self.spec.precision == "16-mixed"  # there, steps with too long gradients are left
        if not math.isfinite(sum(values)) or not (scaled or math.isfinite(norm)):
            raise LossError(self._broken(done, losses | {"gradient": norm}))
        self.losses = losses | {"loss": sum(values)}
        if self.main:
            self.watch.step(done.step, self.losses)
            self.logger.log_metrics({**self.losses, "gradient": norm, "rate": rate}, done.step)

    def validated(self, step: int, figures: Mapping[str, float], *, best: bool) -> None:
        """Report a validation."""
        self.watch.validated(step, figures, best)
        self.logger.log_metrics({f"validation {n}": v for n, v in figures.items()}, step)

    def close(self) -> None:
        """Write what is left of the log."""
        if self.main:
            self.logger.finalize("success")

    def _broken(self, done: Done, figures: Mapping[str, float]) -> str:
        shown = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        batches = " to ".join(str(number) for number in sorted({done.numbers[0], done.numbers[-1]}))
        kept = (
            f"the last good checkpoint is {self.folder / LAST}, after {self.kept} steps"
            if self.kept >= 0
            else "no checkpoint was due before"
        )
        return (
            f"the loss is not finite in step {done.step} (batch {batches}, seed "
            f"{self.spec.seed}): {shown}; {kept}.\nlower --rate (now {self.spec.rate:g}), or use "
            "--precision 32, and start again with --no-resume"
        )
