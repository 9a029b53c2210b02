"""Files that are complete or absent, and what to say when the disk is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from omnisat_cli.errors import OmnisatError, ResourceError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNREACHABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT}
_NEARLY_FULL = 8 * 2**20
"""Free bytes below which a failed GDAL write is put down to a full disk: GDAL gives no errno."""


def human(size: float) -> str:
    """Return a byte count in words, e.g. "1.4 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def free_bytes(folder: Path) -> int:
    """Return the free space of the file system of a folder, or of its closest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that the disk can hold what is about to be written.

    Raises:
        ResourceError: If it cannot.
    """
    available = free_bytes(folder)
    if available < needed:
        raise ResourceError(
            f"{purpose} needs about {human(needed)} ({needed} bytes) under {folder}, but "
            f"{human(available)} ({available} bytes) are free; free {human(needed - available)} "
            "or write to another disk, then run the same command again"
        )


@contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn the errors of a write under `path` into typed ones.

    Raises:
        ResourceError: If the disk, the quota or the file size limit is exhausted.
        SourceError: If the folder cannot be written.
        OmnisatError: For any other error of the file system.
    """
    try:
        yield
    except OSError as error:
        folder = path if path.is_dir() else path.parent
        free = free_bytes(folder)
        if error.errno in _FULL or (error.errno is None and _looks_full(str(error), free)):
            raise ResourceError(
                f"no space left while {doing} under {folder} ({human(free)} free): {error}. "
                "Finished blocks are kept and the output is untouched; free some space and run "
                "the same command again"
            ) from error
        if error.errno in _UNREACHABLE:
            raise SourceError(
                f"{folder} cannot be written while {doing}: {error}; restore the folder or choose "
                "another one"
            ) from error
        raise OmnisatError(f"{doing} failed under {folder}: {error}") from error


def probe(folder: Path) -> None:
    """Write and remove a file of a few megabytes.

    Raises:
        OSError: If the folder cannot take it.
    """
    part = write_part(folder / "probe", bytes(_NEARLY_FULL))
    part.unlink()


def _looks_full(message: str, free: int) -> bool:
    """Judge the error of a library that keeps the error number to itself."""
    return free < _NEARLY_FULL or any(os.strerror(code) in message for code in _FULL)


def write_part(path: Path, content: bytes) -> Path:
    """Write `content` to a unique file beside `path` and force it to the disk.

    Returns:
        The unique file; rename it with `publish`.
    """
    part = path.with_name(f"{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return part


def publish(part: Path, path: Path) -> None:
    """Give a complete, synced file its final name, for good."""
    part.replace(path)
    sync_folder(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that is either the old one or the whole new one."""
    publish(write_part(path, content), path)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically."""
    write_atomic(path, to_json(content))


def to_json(content: object) -> bytes:
    """Return indented UTF-8 JSON that ends with a line break; NaN is refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 holds lone surrogates: they are written as JSON escapes.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def sync_file(path: Path) -> None:
    """Force a file another library wrote to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    if os.name == "posix":
        sync_file(folder)
