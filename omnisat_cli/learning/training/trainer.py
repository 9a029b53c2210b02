"""The training loop on Lightning Fabric; it knows nothing of what it trains.

It gets `batch(number)`, which makes a batch from its number alone, and `losses(batch)`. Before
every batch the random numbers are seeded from the seed and that number, so a training that was
stopped goes on exactly as if it had not been.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.learning.training.checkpoint import check_same, load_checkpoint, save_checkpoint
from omnisat_cli.learning.training.lesson import FitReport, LossError, Movable, Unwatched
from omnisat_cli.learning.training.prefetch import prefetched
from omnisat_cli.outputs.disk import disk_errors
from omnisat_cli.outputs.run import plain

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lightning_fabric import Fabric

    from omnisat_cli.learning.training.lesson import Ended, FitSpec, Lesson, Watch

B = TypeVar("B", bound=Movable)
LAST, BEST, LOG = "last.ckpt", "best.ckpt", "log"
_LEAST_RATE = 1e-3  # of the highest, at the very first step
_AGREE_EVERY = 10  # steps between two agreements of several devices on whether to stop
_LOG_STEPS = 50  # steps kept in memory before the log is written


def fit(
    network: nn.Module,
    lesson: Lesson[B],
    spec: FitSpec,
    folder: Path,
    *,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
) -> FitReport:
    """Train a network in place, from the checkpoint in `folder` if there is one.

    Args:
        network: On the CPU; it ends there too, in evaluation mode, with the weights that the
            validation found best (without a validation, or stopped on request: the last ones).
        lesson: Batches and losses.
        spec: Budget and rates.
        folder: For checkpoints and the log; made if absent.
        watch: Told of every step.
        stop: When set, training ends after the step in work, with a checkpoint.

    Raises:
        LossError: If the loss is not finite; the checkpoints are those of before.
        ResumeError: If the checkpoint in `folder` was made from something else.
        CheckpointError: If it is damaged.
        SecurityError: If it holds code.
        JobError: If the device or the precision is not to be had, or nothing can be trained.
        ResourceError: If disk or memory is full.
    """
    fabric = make_fabric(spec)
    with disk_errors(folder, "making the folder of the training"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        loop = _Loop(fabric, network, lesson, spec, folder)
        loop.watch = watch or Unwatched()
        loop.resume()
        ended = loop.run(stop)
        return loop.report(ended)
    finally:
        network.to("cpu").eval()


def make_fabric(spec: FitSpec) -> Fabric:
    """Return Fabric on the devices asked for; with several, the other processes start here.

    Raises:
        JobError: If the device or the precision is not to be had.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    cuda = torch.cuda.is_available()
    kind, _, number = spec.device.partition(":")
    if kind == "auto":
        kind = "cuda" if cuda else "cpu"
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not cuda):
        raise JobError(f"--device {spec.device} cannot be used here; see `omnisat doctor`")
    there = torch.cuda.device_count() if kind == "cuda" else spec.devices
    if spec.devices > there or (number and not (number.isdigit() and int(number) < there)):
        raise JobError(
            f"--device {spec.device} --devices {spec.devices}: this machine has {there} GPUs"
        )
    if spec.precision == "16-mixed" and kind == "cpu":
        raise JobError("--precision 16-mixed needs a GPU; use bf16-mixed or 32")
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number else spec.devices,
        strategy="ddp_find_unused_parameters_true" if spec.devices > 1 else "auto",
        precision="32-true" if spec.precision == "32" else spec.precision,
    )
    fabric.launch()
    return fabric


class _Parcel(Generic[B]):
    """A batch in a wrapper that nothing on the way opens, converts or copies."""

    def __init__(self, batch: B) -> None:
        self.batch = batch


class _Whole(nn.Module, Generic[B]):
    """Network and losses as one module: devices exchange gradients around its `forward`."""

    def __init__(self, network: nn.Module, losses: Callable[[B], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.network = network
        self.losses = losses

    def forward(self, parcel: _Parcel[B]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        return dict(self.losses(parcel.batch))


@dataclass(slots=True)
class _Best:
    """The validation so far."""

    value: float = -math.inf
    step: int | None = None
    worse: int = 0  # validations since
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Clock:
    """Time of this run, in seconds."""

    begin: float
    before: float = 0.0  # of earlier runs
    steps: int = 0  # measured ones: all but the first
    wall: float = 0.0
    compute: float = 0.0

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begin


@dataclass(slots=True)
class _Done:
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


class _Loop(Generic[B]):
    """One training."""

    watch: Watch

    def __init__(
        self, fabric: Fabric, network: nn.Module, lesson: Lesson[B], spec: FitSpec, folder: Path
    ) -> None:
        from lightning_fabric.loggers.csv_logs import CSVLogger

        self.fabric, self.network, self.lesson, self.spec = fabric, network, lesson, spec
        self.folder = folder
        parameters = [p for p in network.parameters() if p.requires_grad]
        if not parameters:
            raise JobError("nothing can be trained: every part of the network is frozen")
        self.optimiser = torch.optim.AdamW(parameters, lr=spec.rate, weight_decay=spec.weight_decay)
        self.plateau = ReduceLROnPlateau(self.optimiser, "max", factor=0.5, patience=1)
        self.model, self.stepper = fabric.setup(_Whole(network, lesson.losses), self.optimiser)
        self.logger = CSVLogger(folder, LOG, flush_logs_every_n_steps=_LOG_STEPS)
        self.on_gpu = fabric.device.type == "cuda"
        self.step = 0
        self.best = _Best()
        self.clock = _Clock(time.monotonic())
        self.validated = -1
        self.unread: _Done | None = None
        self.losses: dict[str, float] = {}
        self.saved = (-1, time.monotonic())  # step and time of the last checkpoint

    # --- checkpoints

    def fingerprint(self) -> dict[str, object]:
        """Return everything that shapes the weights."""
        return plain(
            {
                **self.lesson.facts,
                "training": self.spec.facts(),
                "device": self.fabric.device.type,
                "threads": None if self.on_gpu else torch.get_num_threads(),
                "torch": importlib.metadata.version("torch"),
            }
        )

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        path = self.folder / LAST
        if path.is_file():
            state = load_checkpoint(path)
            check_same(path, state.get("fingerprint"), self.fingerprint())
            try:
                self._restore(state)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                first = str(error).splitlines()[0]
                raise CheckpointError(
                    f"the checkpoint {path} does not fit: {first}; start again with --no-resume"
                ) from error
            self.saved = (self.step, time.monotonic())
        self.watch.start(self.spec.steps, self.step)

    def _restore(self, state: Mapping[str, object]) -> None:
        self.network.load_state_dict(state["network"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.plateau.load_state_dict(state["plateau"])  # type: ignore[arg-type]
        self.fabric.strategy.precision.load_state_dict(state["precision"])  # type: ignore[arg-type]
        self.best = _Best(**state["best"])  # type: ignore[arg-type]
        self.step = int(state["step"])  # type: ignore[call-overload]
        self.validated = int(state["validated"])  # type: ignore[call-overload]
        self.clock.before = float(state["seconds"])  # type: ignore[arg-type]

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this very step."""
        self._read()
        if self.saved[0] == self.step:
            return
        self.saved = (self.step, time.monotonic())
        if not self.fabric.is_global_zero:
            return
        best = self.best
        state = {
            "fingerprint": self.fingerprint(),
            "step": self.step,
            "validated": self.validated,
            "seconds": self.clock.seconds,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "best": {
                "value": best.value,
                "step": best.step,
                "worse": best.worse,
                "figures": best.figures,
            },
        }
        save_checkpoint(self.folder / LAST, state)

    # --- the loop

    def run(self, stop: threading.Event | None) -> Ended:
        """Train until something ends it, which is returned."""
        spec, fabric = self.spec, self.fabric
        world = fabric.world_size
        each = spec.accumulate * world
        numbers = range(self.step * each + fabric.global_rank, spec.steps * each, world)
        self._train()
        with prefetched(self.lesson.batch, numbers, spec.loaders) as batches:
            while True:
                done, stopped = self._agreed(stop)
                if stopped:
                    ended: Ended = "stopped"
                elif self.step >= spec.steps:
                    ended = "steps"
                elif done >= 1:
                    ended = "minutes"
                elif spec.patience is not None and self.best.worse >= spec.patience:
                    ended = "patience"
                else:
                    self._advance(batches, done)
                    continue
                break
        self._finish(ended)
        return ended

    def _finish(self, ended: Ended) -> None:
        """Validate what is not validated yet, keep a checkpoint, take the best weights."""
        self._read()
        unknown = self.lesson.validate is not None and self.validated != self.step
        if ended != "stopped" and unknown:
            self._validate()
        self.save()
        if self.fabric.is_global_zero:
            self.logger.finalize("success")
        self.fabric.barrier()
        if ended != "stopped" and self.best.step not in (None, self.step):
            state = load_checkpoint(self.folder / BEST)
            self.network.load_state_dict(state["network"])  # type: ignore[arg-type]

    def _agreed(self, stop: threading.Event | None) -> tuple[float, bool]:
        """Return how much of the budget is used (0 to 1) and whether to stop; all devices agree."""
        done = self.step / self.spec.steps
        if self.spec.minutes is not None:
            done = max(done, self.clock.seconds / 60 / self.spec.minutes)
        now = done, stop is not None and stop.is_set()
        if self.fabric.world_size == 1:
            return now
        if self.spec.minutes is None and self.step % _AGREE_EVERY:
            return done, False
        return self.fabric.broadcast(now)

    def _advance(self, batches: Iterator[B], done: float) -> None:
        """Do one step, and what is due after it."""
        spec = self.spec
        if spec.schedule == "cosine" or done < spec.warm_up:
            for group in self.optimiser.param_groups:
                group["lr"] = spec.rate * _schedule(done, spec.warm_up)
        self._learn(batches)
        self.step += 1
        due = spec.validate_every and self.step % spec.validate_every == 0
        if due and self.lesson.validate is not None:
            self._validate()
            self.save()
        step, when = self.saved
        overdue = time.monotonic() - when > 60 * spec.checkpoint_minutes
        if overdue or self.step - max(step, 0) >= spec.checkpoint_steps:
            self.save()

    def _learn(self, batches: Iterator[B]) -> None:
        """Compute the gradient of a step from its batches and move the weights."""
        begin, waited = time.monotonic(), 0.0
        spans, parts = [], []
        numbers = self._numbers()
        for number in numbers:
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            start = self._event()
            parts.append(self._backward(batch, number, last=number == numbers[-1]))
            spans.append((start, self._event()))
        start = self._event()
        norm = self.fabric.clip_gradients(
            self.model, self.stepper, max_norm=self.spec.clip, error_if_nonfinite=False
        )
        assert norm is not None
        names = tuple(parts[0])
        sums = [torch.stack([part[name] for part in parts]).mean() for name in names]
        values = torch.stack([*sums, norm.detach()]).to("cpu", non_blocking=True)
        done = _Done(self.step, numbers, names, values, self._event())
        if not self.on_gpu:  # nothing to wait for: judged before the weights change
            self._judge(done)
        self.stepper.step()
        self.optimiser.zero_grad(set_to_none=True)
        spans.append((start, self._event()))
        self._count(time.monotonic() - begin, waited)
        if self.on_gpu:
            self._read()
            done.spans = [(a, b) for a, b in spans if a is not None and b is not None]
            self.unread = done

    def _numbers(self) -> tuple[int, ...]:
        """Return the numbers of the batches that this device takes in this step."""
        fabric = self.fabric
        first = self.step * self.spec.accumulate
        return tuple(
            (first + part) * fabric.world_size + fabric.global_rank
            for part in range(self.spec.accumulate)
        )

    def _backward(self, batch: B, number: int, *, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one batch; returns its losses."""
        fabric = self.fabric
        moved = batch.to(fabric.device)
        torch.manual_seed(
            int(np.random.SeedSequence((self.spec.seed, number)).generate_state(1)[0])
        )
        alone = last or fabric.world_size == 1
        with nullcontext() if alone else fabric.no_backward_sync(self.model):
            losses: dict[str, Tensor] = self.model(_Parcel(moved))
            total = torch.stack(list(losses.values())).sum()
            fabric.backward(total / self.spec.accumulate)
        return {name: value.detach() for name, value in losses.items()}

    def _event(self) -> torch.cuda.Event | None:
        """Mark this point of the work queued on a GPU."""
        if not self.on_gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _count(self, wall: float, waited: float) -> None:
        """Count the time of a step; the first of a run also starts loaders and kernels."""
        self.clock.steps += 1
        if self.clock.steps > 1:
            self.clock.wall += wall
            self.clock.compute += 0.0 if self.on_gpu else wall - waited

    def _read(self) -> None:
        """Take the figures of the step before from a GPU, which meanwhile computes the next."""
        done, self.unread = self.unread, None
        if done is None or done.ready is None:
            return
        done.ready.synchronize()
        self._judge(done)
        done.spans[-1][1].synchronize()
        if self.clock.steps > 1:
            self.clock.compute += sum(a.elapsed_time(b) for a, b in done.spans) / 1000

    def _judge(self, done: _Done) -> None:
        """Report the losses of a step.

        Raises:
            LossError: If they, or the gradient, are not finite.
        """
        *values, norm = done.values.tolist()
        losses = dict(zip(done.names, values, strict=True))
        scaled = self.spec.precision == "16-mixed"  # there, steps with too long gradients are left
        if not math.isfinite(sum(values)) or not (scaled or math.isfinite(norm)):
            raise LossError(self._broken(done, losses | {"gradient": norm}))
        self.losses = losses | {"loss": sum(values)}
        if self.fabric.is_global_zero:
            self.watch.step(done.step, self.losses)
            rate = self.optimiser.param_groups[0]["lr"]
            self.logger.log_metrics({**self.losses, "gradient": norm, "rate": rate}, done.step)

    def _broken(self, done: _Done, figures: Mapping[str, float]) -> str:
        shown = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        batches = " to ".join(str(number) for number in sorted({done.numbers[0], done.numbers[-1]}))
        step = self.saved[0]
        kept = (
            f"the last good checkpoint is {self.folder / LAST}, after {step} steps"
            if step >= 0
            else "no checkpoint was due before"
        )
        return (
            f"the loss is not finite in step {done.step} (batch {batches}, seed "
            f"{self.spec.seed}): {shown}; {kept}.\nlower --rate (now {self.spec.rate:g}), or use "
            "--precision 32, and start again with --no-resume"
        )

    # --- validation

    def _train(self) -> None:
        """Bring the network into training mode, except for its frozen parts."""
        self.model.train()
        for part in self.lesson.frozen:
            part.eval()

    def _validate(self) -> None:
        """Measure the network as it is; keep its weights if they are the best so far."""
        validate = self.lesson.validate
        assert validate is not None
        self._read()
        figures: dict[str, float] = {}
        if self.fabric.is_global_zero:
            self.network.eval()
            with torch.no_grad(), self.fabric.autocast():
                figures = {name: float(value) for name, value in validate().items()}
        figures = self.fabric.broadcast(figures)
        self._train()
        self.validated = self.step
        self._rank(figures)

    def _rank(self, figures: dict[str, float]) -> None:
        """Compare a validation with the best one."""
        value = figures.get(self.spec.metric, math.nan)
        value = -math.inf if math.isnan(value) else value
        better = self.best.step is None or value > self.best.value
        if better:
            self.best = _Best(value, self.step, 0, figures)
        else:
            self.best.worse += 1
        if self.spec.schedule == "plateau":
            self.plateau.step(value)
        if not self.fabric.is_global_zero:
            return
        if better:
            save_checkpoint(self.folder / BEST, {"network": self.network.state_dict()})
        self.watch.validated(self.step, figures, better)
        self.logger.log_metrics({f"validation {n}": v for n, v in figures.items()}, self.step)

    def report(self, ended: Ended) -> FitReport:
        """Say how it went."""
        clock = self.clock
        measured = max(clock.steps - 1, 1)
        return FitReport(
            ended=ended,
            steps=self.step,
            seconds=clock.seconds,
            step_seconds=clock.wall / measured,
            busy=min(clock.compute / clock.wall, 1.0) if clock.wall else 1.0,
            loss=self.losses,
            best_step=self.best.step,
            figures=self.best.figures,
            main=self.fabric.is_global_zero,
        )


def _schedule(done: float, warm_up: float) -> float:
    """Return the share of the highest rate when `done` (0 to 1) of the budget is used."""
    if done < warm_up:
        return done / warm_up + _LEAST_RATE
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))
