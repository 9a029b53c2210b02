"""The training loop on Lightning Fabric; it knows nothing of what it trains.

It gets `batch(number)`, which makes a batch from its number alone, and `losses(batch)`. Before
every batch the random numbers are seeded from the seed and that number, so a training that was
stopped goes on exactly as if it had not been.
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.learning.training.checkpoint import check_same, load_checkpoint, save_checkpoint
from omnisat_cli.learning.training.fabric import Parcel, Whole, make_fabric
from omnisat_cli.learning.training.ledger import LAST, Done, Ledger
from omnisat_cli.learning.training.lesson import FitReport, Movable, Unwatched
from omnisat_cli.learning.training.prefetch import prefetched
from omnisat_cli.outputs.disk import disk_errors
from omnisat_cli.outputs.run import plain

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lightning_fabric import Fabric

    from omnisat_cli.learning.training.lesson import Ended, FitSpec, Lesson, Watch

B = TypeVar("B", bound=Movable)
BEST = "best.ckpt"
_LEAST_RATE = 1e-3  # of the highest, at the very first step
_AGREE_EVERY = 10  # steps between two agreements of several devices on whether to stop


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
        loop.ledger.watch = watch or Unwatched()
        loop.resume()
        ended = loop.run(stop)
        return loop.report(ended)
    finally:
        network.to("cpu").eval()


@dataclass(slots=True)
class _Best:
    """The validation so far."""

    value: float = -math.inf
    step: int | None = None
    worse: int = 0  # validations since
    figures: dict[str, float] = field(default_factory=dict)


class _Loop(Generic[B]):
    """One training."""

    def __init__(
        self, fabric: Fabric, network: nn.Module, lesson: Lesson[B], spec: FitSpec, folder: Path
    ) -> None:
        self.fabric, self.network, self.lesson, self.spec = fabric, network, lesson, spec
        self.folder = folder
        parameters = [p for p in network.parameters() if p.requires_grad]
        if not parameters:
            raise JobError("nothing can be trained: every part of the network is frozen")
        self.optimiser = torch.optim.AdamW(parameters, lr=spec.rate, weight_decay=spec.weight_decay)
        self.plateau = ReduceLROnPlateau(self.optimiser, "max", factor=0.5, patience=1)
        self.model, self.stepper = fabric.setup(Whole(network, lesson.losses), self.optimiser)
        self.ledger = Ledger(spec, folder, main=fabric.is_global_zero)
        self.on_gpu = fabric.device.type == "cuda"
        self.step = 0
        self.best = _Best()
        self.validated = -1
        self.saved_at = time.monotonic()

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
            self.ledger.kept, self.saved_at = self.step, time.monotonic()
        self.ledger.watch.start(self.spec.steps, self.step)

    def _restore(self, state: Mapping[str, object]) -> None:
        self.network.load_state_dict(state["network"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.plateau.load_state_dict(state["plateau"])  # type: ignore[arg-type]
        self.fabric.strategy.precision.load_state_dict(state["precision"])  # type: ignore[arg-type]
        self.best = _Best(**state["best"])  # type: ignore[arg-type]
        self.step = int(state["step"])  # type: ignore[call-overload]
        self.validated = int(state["validated"])  # type: ignore[call-overload]
        self.ledger.clock.before = float(state["seconds"])  # type: ignore[arg-type]

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this very step."""
        self.ledger.read(self.rate)
        if self.ledger.kept == self.step:
            return
        self.ledger.kept, self.saved_at = self.step, time.monotonic()
        if not self.fabric.is_global_zero:
            return
        state = {
            "fingerprint": self.fingerprint(),
            "step": self.step,
            "validated": self.validated,
            "seconds": self.ledger.clock.seconds,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "plateau": self.plateau.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "best": asdict(self.best),
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
        self.ledger.read(self.rate)
        unknown = self.lesson.validate is not None and self.validated != self.step
        if ended != "stopped" and unknown:
            self._validate()
        self.save()
        self.ledger.close()
        self.fabric.barrier()
        if ended != "stopped" and self.best.step not in (None, self.step):
            state = load_checkpoint(self.folder / BEST)
            self.network.load_state_dict(state["network"])  # type: ignore[arg-type]

    def _agreed(self, stop: threading.Event | None) -> tuple[float, bool]:
        """Return how much of the budget is used (0 to 1) and whether to stop; all devices agree."""
        done = self.step / self.spec.steps
        if self.spec.minutes is not None:
            done = max(done, self.ledger.clock.seconds / 60 / self.spec.minutes)
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
        overdue = time.monotonic() - self.saved_at > 60 * spec.checkpoint_minutes
        if overdue or self.step - max(self.ledger.kept, 0) >= spec.checkpoint_steps:
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
        done = Done(self.step, numbers, names, values, self._event())
        if not self.on_gpu:  # nothing to wait for: judged before the weights change
            self.ledger.judge(done, self.rate)
        self.stepper.step()
        self.optimiser.zero_grad(set_to_none=True)
        spans.append((start, self._event()))
        wall = time.monotonic() - begin
        self.ledger.clock.count(wall, 0.0 if self.on_gpu else wall - waited)
        if self.on_gpu:
            self.ledger.read(self.rate)
            done.spans = [(a, b) for a, b in spans if a is not None and b is not None]
            self.ledger.unread = done

    @property
    def rate(self) -> float:
        """The learning rate of now."""
        return float(self.optimiser.param_groups[0]["lr"])

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
            losses: dict[str, Tensor] = self.model(Parcel(moved))
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
        self.ledger.read(self.rate)
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
        self.ledger.validated(self.step, figures, best=better)

    def report(self, ended: Ended) -> FitReport:
        """Say how it went."""
        clock = self.ledger.clock
        return FitReport(
            ended=ended,
            steps=self.step,
            seconds=clock.seconds,
            step_seconds=clock.step_seconds,
            busy=clock.busy,
            loss=self.ledger.losses,
            best_step=self.best.step,
            figures=self.best.figures,
            main=self.fabric.is_global_zero,
        )


def _schedule(done: float, warm_up: float) -> float:
    """Return the share of the highest rate when `done` (0 to 1) of the budget is used."""
    if done < warm_up:
        return done / warm_up + _LEAST_RATE
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))
