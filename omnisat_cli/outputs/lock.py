"""One process at a time on one output."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import OutputExistsError

if TYPE_CHECKING:
    from types import TracebackType

_LOG = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        pid: Process number.
        host: Name of its machine.
        boot: Identifier of the boot of that machine, "" where the system has none.
    """

    pid: int
    host: str
    boot: str

    @staticmethod
    def this() -> Owner:
        """Return this process."""
        boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""
        return Owner(os.getpid(), socket.gethostname(), boot)

    @staticmethod
    def read(path: Path) -> Owner | None:
        """Return the owner a lock file names, or None if it names none."""
        try:
            content = json.loads(path.read_bytes()[:4096])
            return Owner(int(content["pid"]), str(content["host"]), str(content["boot"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


class Lock:
    """An exclusive lock on a file, released by the system when its process dies.

    The file also names its owner: pid, host and boot. A lock left by a dead process of this
    machine is stale and taken over; one left by another machine cannot be judged from here and is
    respected.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            OutputExistsError: If another process holds it.
        """
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _try_lock(descriptor):
                    raise OutputExistsError(self._busy(Owner.read(self._path)))
                if not _same_file(descriptor, self._path):
                    continue  # its folder was removed between open and lock: try the new one
                self._take_over(descriptor)
                self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def release(self) -> None:
        """Give the lock back; the file stays, empty, so that no two processes lock two files."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _take_over(self, descriptor: int) -> None:
        me, before = Owner.this(), Owner.read(self._path)
        if before is not None and before.host != me.host:
            raise OutputExistsError(self._busy(before))
        if before is not None:
            reason = "was killed" if before.boot == me.boot else "ran before the last restart"
            _LOG.info("taking over the lock of process %d, which %s", before.pid, reason)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(me)).encode(), 0)
        os.fsync(descriptor)

    def _busy(self, owner: Owner | None) -> str:
        who = f"process {owner.pid} on {owner.host}" if owner else "another process"
        return (
            f"{self._path.parent} is being written by {who}; wait for it, or choose another "
            f"output. If that process is gone for sure, remove {self._path} and try again"
        )


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            # One byte far behind the content, so that the owner stays readable.
            os.lseek(descriptor, 2**20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
