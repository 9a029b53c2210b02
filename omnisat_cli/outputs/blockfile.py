"""The file of one finished block: a line of JSON, then zlib streams. Same block, same bytes."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import BlockError

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.outputs.prediction import Bytes, Prediction

_MAGIC = b"omnisat-block-1 "
_HEADER_LIMIT = 2**16
_LEVEL = 1
"""Class maps shrink to a tenth at 160 MB/s; level 6 halves the speed for 4 % less."""


def encode(prediction: Prediction) -> bytes:
    """Return the bytes of a block file."""
    header, streams = [], []
    for name, array in prediction.arrays().items():
        raw = np.ascontiguousarray(array).tobytes()
        stream = zlib.compress(raw, _LEVEL)
        digest = hashlib.sha256(raw).hexdigest()
        header.append([name, list(array.shape), len(stream), digest])
        streams.append(stream)
    head = json.dumps({"refine": prediction.refine, "arrays": header}, separators=(",", ":"))
    return b"".join([_MAGIC, head.encode("ascii"), b"\n", *streams])


def read_array(path: Path, name: str) -> Bytes:
    """Read one array of a block file and check its digest.

    Args:
        path: The block file.
        name: Field of `Prediction`.

    Returns:
        (H, W) or (K, H, W) uint8.

    Raises:
        BlockError: If the file is damaged or has no such array.
    """
    try:
        with path.open("rb") as stream:
            shape, size, digest = _find(stream.readline(_HEADER_LIMIT), name)
            stream.seek(size.start, 1)
            compressed = stream.read(size.stop - size.start)
        expected = int(np.prod(shape, dtype=np.int64))
        inflate = zlib.decompressobj()
        raw = inflate.decompress(compressed, expected + 1)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
        raise BlockError(f"the block {path} cannot be read: {error}; {_ADVICE}") from error
    if len(raw) != expected or hashlib.sha256(raw).hexdigest() != digest:
        raise BlockError(f"{name} of the block {path} is damaged; {_ADVICE}")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def read_digest(path: Path, name: str) -> str:
    """Return the SHA-256 of the raw bytes of one array, as the header states it.

    Raises:
        BlockError: If the file is damaged or has no such array.
    """
    try:
        with path.open("rb") as stream:
            return _find(stream.readline(_HEADER_LIMIT), name)[2]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BlockError(f"the block {path} cannot be read: {error}; {_ADVICE}") from error


_ADVICE = "run the same command again: damaged blocks are computed anew"


def _find(line: bytes, name: str) -> tuple[tuple[int, ...], range, str]:
    """Return shape, position after the header and digest of an array."""
    if not line.startswith(_MAGIC) or not line.endswith(b"\n"):
        raise ValueError("not a block file")
    begin = 0
    for found, shape, size, digest in json.loads(line[len(_MAGIC) :])["arrays"]:
        if found == name:
            return tuple(map(int, shape)), range(begin, begin + int(size)), str(digest)
        begin += int(size)
    raise KeyError(f"no array {name!r}")
