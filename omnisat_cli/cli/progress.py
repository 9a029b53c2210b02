"""Progress of a run: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NoReturn, Protocol

from omnisat_cli.cli.console import note
from omnisat_cli.cli.text import count, duration, rate, square_km

if TYPE_CHECKING:
    from omnisat_cli.geo.plan import Block
    from omnisat_cli.outputs.journal import BlockRecord

_SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """What `runners.local.Watch` asks for, and an end."""

    def start(self, blocks: int, done: int, km2: float) -> None:
        """Say how much there is and how much an earlier run finished."""

    def block(self, block: Block, record: BlockRecord, km2: float) -> None:
        """Say that a block is committed."""

    def close(self) -> None:
        """Take the progress off the screen."""


def choose_progress(quiet: bool) -> Progress:
    """Return what fits the terminal and the user's wish."""
    if quiet:
        return Silence()
    return Bar() if sys.stderr.isatty() else Lines()


class Silence:
    """No progress at all."""

    def start(self, blocks: int, done: int, km2: float) -> None:
        """Say nothing."""

    def block(self, block: Block, record: BlockRecord, km2: float) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""


class Tally:
    """Counts ground and time, and says them in one line."""

    def __init__(self, blocks: int, done: int) -> None:
        self.blocks, self.done, self.before = blocks, done, done
        self.km2 = 0.0
        self.begin = time.monotonic()

    def add(self, km2: float) -> None:
        """Count a block."""
        self.done += 1
        self.km2 += km2

    @property
    def seconds(self) -> float:
        """Seconds since the first block was begun."""
        return time.monotonic() - self.begin

    @property
    def left(self) -> float:
        """Seconds to the last block, at the pace so far."""
        computed = max(1, self.done - self.before)
        return self.seconds / computed * (self.blocks - self.done)

    def line(self) -> str:
        """Return "blocks 3/4  0.71 km²  2.1 km²/min  8 s left"."""
        return (
            f"blocks {self.done}/{self.blocks}  {square_km(self.km2)}  "
            f"{rate(self.km2, self.seconds)}  {duration(self.left)} left"
        )


class Lines:
    """A plain line now and then: for log files."""

    def __init__(self) -> None:
        self._tally = Tally(0, 0)
        self._said = 0.0

    def start(self, blocks: int, done: int, km2: float) -> None:
        """Say how much there is."""
        self._tally = Tally(blocks, done)
        self._said = time.monotonic()
        note(_beginning(blocks, done, km2))

    def block(self, block: Block, record: BlockRecord, km2: float) -> None:
        """Say how far it got, at most every ten seconds."""
        del block
        tally = self._tally
        tally.add(km2)
        if record.note:
            note(f"block {record.index}: {record.note}")
        now = time.monotonic()
        if now - self._said < _SECONDS_BETWEEN_LINES or tally.done == tally.blocks:
            return
        self._said = now
        note(tally.line())

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A bar with ground done, pace and time left."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._bar: tqdm[NoReturn] | None = None
        self._tally = Tally(0, 0)

    def start(self, blocks: int, done: int, km2: float) -> None:
        """Draw the bar."""
        self._tally = Tally(blocks, done)
        note(_beginning(blocks, done, km2))
        self._bar = self._tqdm(
            total=blocks,
            initial=done,
            desc=f"blocks {done}/{blocks}",
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc} |{bar}|",
        )

    def block(self, block: Block, record: BlockRecord, km2: float) -> None:
        """Move the bar."""
        del block
        self._tally.add(km2)
        if self._bar is None:
            return
        try:
            self._bar.set_description_str(self._tally.line(), refresh=False)
            self._bar.update()
            if record.note:
                self._bar.write(f"block {record.index}: {record.note}", file=sys.stderr)
        except OSError:  # the terminal went away: the map goes on
            self._bar = None

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()


def _beginning(blocks: int, done: int, km2: float) -> str:
    resumed = f", {done} done by an earlier run" if done else ""
    return f"mapping {square_km(km2)} in {count(blocks, 'block')}{resumed}"
