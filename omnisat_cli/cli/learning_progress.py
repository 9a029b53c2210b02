"""Progress of a training: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NoReturn, Protocol

from omnisat_cli.cli.console import note
from omnisat_cli.cli.text import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tqdm import tqdm

    from omnisat_cli.learning.training.lesson import FitReport

_SECONDS_BETWEEN_LINES = 10.0


def pace(fit: FitReport) -> str:
    """Return how fast a training was; nothing after one step, most of which is starting up."""
    if not fit.step_seconds:
        return ""
    return f": {fit.step_seconds:.2g} s a step, computing {fit.busy:.0%} of it"


class TrainingProgress(Protocol):
    """What `trainer.fit` asks of its watch, and an end."""

    def start(self, steps: int, done: int) -> None:
        """Say how many steps there are and how many an earlier run did."""

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Say that a step is done."""

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        """Say what a validation found."""

    def close(self) -> None:
        """Take the progress off the screen."""


def choose_training_progress(quiet: bool, minutes: float | None) -> TrainingProgress:
    """Return what fits the terminal and the user's wish.

    Args:
        quiet: Show nothing.
        minutes: Time budget, if any: then the end is known by the clock.
    """
    if quiet:
        return Silence()
    return Bar(minutes) if sys.stderr.isatty() else Lines(minutes)


class Silence:
    """No progress at all."""

    def start(self, steps: int, done: int) -> None:
        """Say nothing."""

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Say nothing."""

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""


class _Tally:
    """Counts steps and time."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.steps = self.before = self.done = 0
        self.begin = time.monotonic()

    def start(self, steps: int, done: int) -> None:
        self.steps, self.before, self.done = steps, done, done
        self.begin = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds to the end, by pace or by the clock, whichever comes first."""
        seconds = time.monotonic() - self.begin
        pace = seconds / max(1, self.done - self.before)
        by_steps = pace * (self.steps - self.done)
        if self.minutes is None:
            return by_steps
        return max(0.0, min(by_steps, 60 * self.minutes - seconds))

    def line(self, losses: Mapping[str, float]) -> str:
        """Return "step 120/1000  loss 2.31 (fine 1.90, coarse 0.41)  8 min left"."""
        goal = "" if self.minutes is not None else f"/{self.steps}"
        terms = ", ".join(f"{name} {value:.2f}" for name, value in losses.items() if name != "loss")
        return (
            f"step {self.done}{goal}  loss {losses.get('loss', float('nan')):.2f} ({terms})  "
            f"{duration(self.left)} left"
        )


def beginning(steps: int, done: int) -> str:
    """Say that an earlier run is gone on with; "" where there is none."""
    return f"going on after step {done} of {steps}" if done else ""


def finding(step: int, figures: Mapping[str, float], best: bool) -> str:
    """Say what a validation found, without the figures of single classes."""
    shown = [f"{name} {value:.1f}" for name, value in figures.items()][:3]
    return f"after step {step}: validation {', '.join(shown)}{'  best so far' if best else ''}"


class Lines:
    """A plain line now and then: for log files."""

    def __init__(self, minutes: float | None) -> None:
        self._tally = _Tally(minutes)
        self._said = 0.0

    def start(self, steps: int, done: int) -> None:
        """Say where it goes on."""
        self._tally.start(steps, done)
        if done:
            note(beginning(steps, done))

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Say how far it got, at most every ten seconds."""
        self._tally.done = step + 1
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            note(self._tally.line(losses))

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        """Say what it found."""
        note(finding(step, figures, best))

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A bar with losses and time left."""

    def __init__(self, minutes: float | None) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._bar: tqdm[NoReturn] | None = None
        self._tally = _Tally(minutes)

    def start(self, steps: int, done: int) -> None:
        """Draw the bar."""
        self._tally.start(steps, done)
        if done:
            note(beginning(steps, done))
        timed = self._tally.minutes is not None
        self._bar = self._tqdm(
            total=1000 if timed else steps,
            initial=0 if timed else done,
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc} |{bar}|",
        )

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Move the bar."""
        self._tally.done = step + 1
        if self._bar is None:
            return
        try:
            self._bar.set_description_str(self._tally.line(losses), refresh=False)
            self._bar.update(self._place() - self._bar.n)
        except OSError:  # the terminal went away: training goes on
            self._bar = None

    def _place(self) -> int:
        """Return where the bar stands: steps, or thousandths of the time."""
        tally = self._tally
        if tally.minutes is None:
            return tally.done
        return min(1000, round(1000 * (time.monotonic() - tally.begin) / (60 * tally.minutes)))

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        """Write it above the bar."""
        if self._bar is not None:
            self._bar.write(finding(step, figures, best), file=sys.stderr)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
