"""The journal of a run: one line for each finished block, the last one of an index counts."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from omnisat_cli.geo.lattice import Window
from omnisat_cli.geo.plan import Block
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.faults import strike, strike_torn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)

JOURNAL, BLOCKS = "journal.jsonl", "blocks"


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """One line of the journal.

    Attributes:
        index: (row, col) on the block lattice.
        window: (row, col, height, width) of the core in anchor pixels.
        path: File, relative to the store.
        sha256: Digest of the file.
        size: Bytes of the file.
        seconds: Time it took.
        status: "done", or "fault" if some ground could not be read or computed.
        holes: Pixels without a class, by reason.
        dates: Dates used, ISO, by modality.
        note: Why it is a fault, or "".
    """

    index: tuple[int, int]
    window: tuple[int, int, int, int]
    path: str
    sha256: str
    size: int
    seconds: float
    status: str
    holes: Mapping[str, int]
    dates: Mapping[str, tuple[str, ...]]
    note: str = ""


def read_journal(folder: Path) -> tuple[BlockRecord, ...]:
    """Read the complete lines of a journal, oldest first, without checking the block files."""
    try:
        lines = (folder / JOURNAL).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return ()
    records = (_record(line) for line in lines)
    return tuple(record for record in records if record is not None)


def append_record(folder: Path, record: BlockRecord) -> None:
    """Add a line and bring it to the disk; one caller at a time."""
    line = (json.dumps(asdict(record), ensure_ascii=True) + "\n").encode("ascii")
    path = folder / JOURNAL
    fresh = not path.exists()
    begin = 0 if fresh else path.stat().st_size
    try:
        with path.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        if path.exists():
            os.truncate(path, begin)  # a torn line would swallow the next one
        raise
    strike_torn("mid-journal", path, begin + len(line) // 2)
    if fresh:
        disk.sync_folder(folder)
    strike("after-journal")


def mend_journal(folder: Path) -> None:
    """Cut a line that a kill tore, so that the next one starts on a line of its own."""
    path = folder / JOURNAL
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        _LOG.info("dropping a torn line of %d bytes from %s", len(content) - whole, path)
        os.truncate(path, whole)
        disk.sync_file(path)


def _record(line: bytes) -> BlockRecord | None:
    """Parse a journal line; None if it is not one or names a file elsewhere."""
    try:
        raw = json.loads(line)
        row, col = map(int, raw["index"])
        raw["index"] = (row, col)
        raw["window"] = edges(Window(*map(int, raw["window"])))
        raw["dates"] = {str(key): tuple(value) for key, value in raw["dates"].items()}
        record = BlockRecord(**raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _LOG.warning("ignoring a journal line that is damaged: %.60r", line)
        return None
    area = Window(*record.window)
    return record if record.path == block_path(Block(record.index, area, area).name) else None


def block_path(name: str) -> str:
    """Return the file of a block, relative to the staging folder."""
    return f"{BLOCKS}/{name}.block"


def edges(window: Window) -> tuple[int, int, int, int]:
    """Return (row, col, height, width)."""
    return window.row, window.col, window.height, window.width
