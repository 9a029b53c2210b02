"""Finished blocks on disk: one file a block, one journal line a block, safe against any kill.

A block counts if and only if its journal line is complete, its file exists and the file has the
digest of the line. Everything lives in `<output>.omnisat/`, beside the output, so that finished
files can be renamed into place.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import OmnisatError, OutputExistsError, ResumeError
from omnisat_cli.outputs import blockfile, disk
from omnisat_cli.outputs.faults import strike, strike_torn
from omnisat_cli.outputs.journal import (
    BLOCKS,
    BlockRecord,
    append_record,
    block_path,
    edges,
    mend_journal,
    read_journal,
)
from omnisat_cli.outputs.lock import Lock
from omnisat_cli.outputs.products import space_need
from omnisat_cli.outputs.run import (
    COMPLETE,
    FORMAT,
    LOCK,
    RUN,
    Json,
    RunFacts,
    differences,
    has_run,
    plain,
    read_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from omnisat_cli.geo.plan import Block, Plan
    from omnisat_cli.outputs.prediction import Bytes, Prediction

_LOG = logging.getLogger(__name__)

EXPORT = "export"
_SHOWN_FIELDS = 12


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """What the engine knows of a block beside its pixels.

    Attributes:
        seconds: Time it took.
        dates: Dates used, ISO, by modality.
        note: Why it is a fault, or "".
    """

    seconds: float
    dates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""


class BlockStore:
    """Blocks of one run. One process at a time; `commit` may be called from several threads."""

    def __init__(self, folder: Path, lock: Lock, facts: RunFacts, run: Json) -> None:
        """Use `create`, `resume` or `open` instead."""
        self.folder = folder
        self.facts = facts
        self.run = run
        self._lock = lock
        self._mutex = threading.Lock()
        self._done: dict[tuple[int, int], BlockRecord] = {}

    @classmethod
    def create(
        cls,
        folder: Path,
        fingerprint: Mapping[str, object],
        facts: RunFacts,
        *,
        start_over: bool = False,
    ) -> BlockStore:
        """Start a run.

        Args:
            folder: Staging folder; may exist if no run was started in it.
            fingerprint: Everything that shapes the bytes of the map, as JSON values.
            facts: What all blocks share.
            start_over: Drop a run that was started there; never one that is being worked on.

        Raises:
            OutputExistsError: If a run was started there, or another process works there.
            ResourceError: If the disk is full.
            SourceError: If the folder cannot be written.
        """
        disk.require_space(folder.parent, space_need(facts).total, f"the run in {folder.name}")
        with disk.disk_errors(folder.parent, "creating the staging folder"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _locked(folder)
        try:
            if has_run(folder) and not start_over:
                raise OutputExistsError(
                    f"{folder} already holds a run; resume it with the same command, or remove it"
                )
            run: Json = {
                "format": FORMAT,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "fingerprint": plain(fingerprint),
                "facts": asdict(facts),
            }
            with disk.disk_errors(folder, "starting the run"):
                _empty(folder)
                for name in (COMPLETE, RUN):
                    (folder / name).unlink(missing_ok=True)
                (folder / BLOCKS).mkdir()
                disk.write_json(folder / RUN, run)
        except BaseException:
            lock.release()
            raise
        return cls(folder, lock, facts, run)

    @classmethod
    def resume(cls, folder: Path, fingerprint: Mapping[str, object]) -> BlockStore:
        """Go on with a run made from the same inputs and parameters.

        Raises:
            ResumeError: If the fingerprints differ; the message names every field.
            OutputExistsError: If another process works there.
        """
        store = cls.open(folder)
        before = store.run.get("fingerprint")
        changed = differences(before if isinstance(before, dict) else {}, plain(fingerprint))
        if changed:
            store.close()
            shown = [f"  {name}: was {old}, now {new}" for name, old, new in changed]
            more = len(shown) - _SHOWN_FIELDS
            rest = [f"  and {more} more"] if more > 0 else []
            raise ResumeError(
                f"the run in {folder} was made from something else and cannot be resumed:\n"
                + "\n".join(shown[:_SHOWN_FIELDS] + rest)
                + "\nuse the same inputs and options, another output, or start over with "
                "--overwrite"
            )
        return store

    @classmethod
    def open(cls, folder: Path) -> BlockStore:
        """Open a run, lock it, check every block and sweep what a kill left behind.

        Raises:
            ResumeError: If there is no run that can be used.
            OutputExistsError: If another process works there.
        """
        if not folder.is_dir():
            raise ResumeError(f"there is no run to resume: {folder} does not exist")
        with disk.disk_errors(folder, "opening the run"):
            lock = _locked(folder)
        try:
            facts, run = read_run(folder)
            store = cls(folder, lock, facts, run)
            with disk.disk_errors(folder, "opening the run"):
                (folder / BLOCKS).mkdir(exist_ok=True)
                mend_journal(folder)
                store._load()
                store._sweep()
        except BaseException:
            lock.release()
            raise
        return store

    def __enter__(self) -> BlockStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def done(self) -> dict[tuple[int, int], BlockRecord]:
        """Return the records of the finished blocks by index, in the order of the index."""
        with self._mutex:
            return dict(sorted(self._done.items()))

    def pending(self, blocks: Iterable[Block], *, retry_faults: bool = False) -> tuple[Block, ...]:
        """Return the blocks that are not finished, in the given order.

        Args:
            blocks: Blocks of the plan.
            retry_faults: Whether finished blocks with a fault are to be computed again.
        """
        done = self.done()
        return tuple(
            block
            for block in blocks
            if block.index not in done or (retry_faults and done[block.index].status == "fault")
        )

    def commit(self, block: Block, prediction: Prediction, facts: BlockFacts) -> BlockRecord:
        """Store a finished block for good.

        Raises:
            ValueError: If the prediction does not fit the block or the run.
            ResourceError: If the disk is full; the block then does not count.
        """
        self._check_fit(block, prediction)
        content = blockfile.encode(prediction)
        holes = {reason.words: count for reason, count in prediction.holes().items()}
        record = BlockRecord(
            index=block.index,
            window=edges(block.core),
            path=block_path(block.name),
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            seconds=round(facts.seconds, 3),
            status="fault" if facts.note or "fault" in holes else "done",
            holes=holes,
            dates=facts.dates,
            note=facts.note,
        )
        with disk.disk_errors(self.folder, f"storing the block {block.name}"):
            part = disk.write_part(self.folder / record.path, content)
            strike_torn("mid-part", part)
            strike("after-part")
            with self._mutex:
                strike("before-rename")
                (self.folder / COMPLETE).unlink(missing_ok=True)  # of an export without this block
                disk.publish(part, self.folder / record.path)
                strike("after-rename")
                append_record(self.folder, record)
                self._done[block.index] = record
        return record

    def read(self, record: BlockRecord, name: str) -> Bytes:
        """Read one array of a finished block.

        Raises:
            BlockError: If its file is damaged.
        """
        return blockfile.read_array(self.folder / record.path, name)

    def digest(self, record: BlockRecord, name: str) -> str:
        """Return the SHA-256 of the raw bytes of one array of a finished block.

        Raises:
            BlockError: If its file is damaged.
        """
        return blockfile.read_digest(self.folder / record.path, name)

    def check_complete(self, plan: Plan) -> None:
        """Check that every block of a plan is finished.

        Raises:
            OmnisatError: If some are missing.
        """
        missing = self.pending(plan.blocks)
        if missing:
            raise OmnisatError(
                f"{len(missing)} of {len(plan.blocks)} blocks are not finished (first: "
                f"{missing[0].name}); run the same command again before exporting"
            )

    @property
    def export_folder(self) -> Path:
        """Where finished products wait for their final names."""
        return self.folder / EXPORT

    def discard(self) -> None:
        """Remove the staging folder and give the lock back; safe to repeat after a kill."""
        with disk.disk_errors(self.folder, "removing the staging folder"):
            _empty(self.folder)
            # run.json goes before the marker: a folder without run.json holds no run, while one
            # with both is finished, whatever became of its blocks.
            (self.folder / RUN).unlink(missing_ok=True)
            (self.folder / COMPLETE).unlink(missing_ok=True)
            (self.folder / LOCK).unlink(missing_ok=True)
            self._lock.release()
            with suppress(OSError):  # another process may have started a run there by now
                self.folder.rmdir()

    def _check_fit(self, block: Block, prediction: Prediction) -> None:
        shape = block.core.refined(self.facts.refine).shape
        if prediction.refine != self.facts.refine or prediction.shape != shape:
            raise ValueError(
                f"block {block.name} needs {shape} pixels refined {self.facts.refine} times, got "
                f"{prediction.shape} refined {prediction.refine} times"
            )
        extra = [n for n in ("boundary", "probabilities") if n in prediction.arrays()]
        if set(extra) != set(self.facts.arrays):
            raise ValueError(f"the run stores {self.facts.arrays}, block {block.name} has {extra}")
        stack = prediction.probabilities
        if stack is not None and len(stack) != self.facts.class_count:
            raise ValueError(f"{len(stack)} probabilities for {self.facts.class_count} classes")

    def _load(self) -> None:
        for record in read_journal(self.folder):
            self._done.pop(record.index, None)
            if _digest(self.folder / record.path) == record.sha256:
                self._done[record.index] = record

    def _sweep(self) -> None:
        """Remove files that belong to no finished block."""
        kept = {Path(record.path).name for record in self._done.values()}
        for path in (self.folder / BLOCKS).iterdir():
            if path.name not in kept:
                _LOG.info("removing %s, which belongs to no finished block", path)
                path.unlink()
        for path in self.folder.glob("*.part"):
            path.unlink()


def _empty(folder: Path) -> None:
    """Remove all that a staging folder holds except what says whether its run is finished."""
    kept = {RUN, LOCK} | ({COMPLETE} if has_run(folder) else set())
    for path in sorted(folder.iterdir()):
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        strike("mid-clean")


def _locked(folder: Path) -> Lock:
    lock = Lock(folder / LOCK)
    lock.acquire()
    return lock


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None
