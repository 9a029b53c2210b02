"""Which bytes an input was: a hash that resuming and provenance compare."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from omnisat_cli.errors import SourceError
from omnisat_cli.sources.safe import local_path
from omnisat_cli.sources.values import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WHOLE_UP_TO = 64 * 2**20
"""Files up to this many bytes are hashed whole."""

_CHUNK = 2**20
_CHUNKS = 32
_MANY_BYTES = 2**30
_FOLDER_SAMPLES = 16


def identify(path: str | Path, whole_up_to: int = WHOLE_UP_TO) -> Identity:
    """Identify a file, or a folder such as a Zarr store, by size, time and content.

    Args:
        path: A local file or folder.
        whole_up_to: Hash every byte of files up to this size; larger ones by their head, tail and
            evenly spaced chunks, with `sampled` set.

    Raises:
        SecurityError: If the path is remote or virtual.
        SourceError: If it cannot be read.
    """
    place = local_path(path)
    try:
        if place.is_dir():
            return _identify_folder(place, str(path))
        status = place.stat()
        digest, sampled = _digest(place, status.st_size, whole_up_to)
        return Identity(str(path), status.st_size, status.st_mtime_ns, digest, sampled)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read to identify it ({error})") from error


def identify_all(paths: Sequence[str]) -> tuple[Identity, ...]:
    """Identify the files of a mosaic; sampled where together they exceed 1 GiB."""
    total = sum(local_path(path).stat().st_size for path in paths)
    whole = WHOLE_UP_TO if total <= _MANY_BYTES else 2 * _CHUNK
    return tuple(identify(path, whole) for path in paths)


def _digest(path: Path, size: int, whole_up_to: int) -> tuple[str, bool]:
    """Hash all bytes, or a fixed selection of them together with the size."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        if size <= max(whole_up_to, _CHUNK):
            for piece in iter(lambda: stream.read(_CHUNK), b""):
                total.update(piece)
            return total.hexdigest(), False
        total.update(size.to_bytes(8, "big"))
        chunk = min(_CHUNK, size // _CHUNKS)
        for k in range(_CHUNKS):
            stream.seek(k * (size - chunk) // (_CHUNKS - 1))
            total.update(stream.read(chunk))
    return total.hexdigest(), True


def _identify_folder(folder: Path, name: str) -> Identity:
    """Hash the sorted listing of a folder, and the content of small and of some large files."""
    files = sorted(
        found for top, _, names in os.walk(folder) for found in (_join(top, leaf) for leaf in names)
    )
    total = hashlib.sha256()
    size, newest = 0, 0
    step = max(1, len(files) // _FOLDER_SAMPLES)
    for k, file in enumerate(files):
        place = folder.__class__(file)
        status = place.stat()
        size += status.st_size
        newest = max(newest, status.st_mtime_ns)
        total.update(f"{place.relative_to(folder).as_posix()}\0{status.st_size}\0".encode())
        # Metadata (.zarray, zarr.json, .zattrs) says what the chunks mean: always hashed.
        if place.suffix == ".json" or place.name.startswith(".z") or k % step == 0:
            total.update(_digest(place, status.st_size, _CHUNK)[0].encode())
    return Identity(name, size, newest, total.hexdigest(), sampled=True)


def _join(top: str, leaf: str) -> str:
    return os.path.join(top, leaf)  # noqa: PTH118 - a million chunks: strings are cheaper
