"""Zarr folders before zarr opens them: which codecs they name, which chunks are not there."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import SecurityError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_METADATA_BYTES = 16 * 2**20
_MAX_SIDE = 2_000_000
# An allow list: numcodecs also registers "pickle", which runs code on reading.
_CODECS = frozenset(
    (
        *("blosc", "zlib", "gzip", "zstd", "lz4", "lz4hc", "bz2", "lzma", "shuffle", "delta"),
        *("fixedscaleoffset", "quantize", "bitround", "packbits", "crc32", "crc32c", "adler32"),
        *("fletcher32", "jenkins_lookup3", "vlen-utf8", "vlen-bytes", "bytes", "endian"),
        *("transpose", "sharding_indexed", "astype", "categorize", "scale_offset", "cast_value"),
    )
)


@dataclass(frozen=True, slots=True)
class ChunkCount:
    """How many chunks of an array its folder holds, and how many its shape asks for."""

    expected: int
    present: int
    fill: float | None
    """The value that zarr puts where a chunk is not there; None where it is no number."""


def is_zarr(path: Path) -> bool:
    """Whether a folder holds Zarr metadata of version 2 or 3."""
    return any((path / name).is_file() for name in (".zgroup", ".zmetadata", "zarr.json"))


def check_metadata(path: Path) -> None:
    """Refuse a Zarr folder that names an unknown codec, links out of itself or claims too much.

    Raises:
        SourceError: If a metadata file is no JSON.
        SecurityError: If a codec is not on the list, a link leaves the folder or a side is absurd.
    """
    root = path.resolve()
    for file in _metadata_files(path):
        if not file.resolve().is_relative_to(root):
            raise SecurityError(f"{file} links out of {path}; copy the cube without links")
        meta = _load(file)
        shape = meta.get("shape")
        check_sides(tuple(shape) if isinstance(shape, list) else (), str(file))
        for name in _codec_names(meta):
            short = name.removeprefix("numcodecs.")
            if short not in _CODECS:
                raise SecurityError(
                    f"{file} names the codec {name!r}, which is not one we decode; "
                    "write the cube again with blosc, zstd or gzip"
                )


def check_sides(shape: tuple[object, ...], what: str) -> None:
    """Refuse an array of absurd size before anything of it is read.

    Raises:
        SecurityError: If a side is no number, or longer than any cube.
    """
    for side in shape:
        if not isinstance(side, int) or not 0 <= side <= _MAX_SIDE:
            raise SecurityError(
                f"{what} claims a side of {side} (at most {_MAX_SIDE} is read); "
                "a cube of this size is a mistake or an attack"
            )


def count_chunks(path: Path, variable: str) -> ChunkCount:
    """Compare the chunk files of one array with the chunk grid of its shape.

    Raises:
        SourceError: If the metadata of the array cannot be read.
    """
    folder = path / variable
    if (folder / ".zarray").is_file():
        meta = _load(folder / ".zarray")
        chunk, fill = meta["chunks"], meta.get("fill_value")
        separator = str(meta.get("dimension_separator", "."))
        prefix: tuple[str, ...] = ()
    else:
        meta = _load(folder / "zarr.json")
        grid = _table(_table(meta["chunk_grid"])["configuration"])
        chunk, fill = grid["chunk_shape"], meta.get("fill_value")
        encoding = _table(meta.get("chunk_key_encoding", {"name": "default"}))
        default = encoding.get("name") == "default"
        options = _table(encoding.get("configuration", {}))
        separator = str(options.get("separator", "/" if default else "."))
        prefix = ("c",) if default else ()
    shape = meta["shape"]
    if not isinstance(shape, list) or not isinstance(chunk, list):
        raise SourceError(f"{folder}: the metadata has no shape and chunk shape")
    counts = [math.ceil(size / step) for size, step in zip(shape, chunk, strict=True)]
    number = float(fill) if isinstance(fill, int | float | str) and _is_number(fill) else None
    present = sum(1 for _ in _chunk_files(folder, (prefix, separator), counts))
    return ChunkCount(math.prod(counts), present, number)


def _is_number(value: float | str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _chunk_files(
    folder: Path, key: tuple[tuple[str, ...], str], counts: list[int]
) -> Iterator[Path]:
    """Files whose names are chunk indices inside the grid."""
    prefix, separator = key
    for base, _, names in os.walk(folder):
        for name in names:
            relative = os.path.relpath(f"{base}/{name}", folder).replace(os.sep, "/")
            parts = relative.replace(separator, "/").split("/")
            indices = parts[len(prefix) :] if tuple(parts[: len(prefix)]) == prefix else []
            if len(indices) == len(counts) and all(
                part.isdecimal() and int(part) < count
                for part, count in zip(indices, counts, strict=True)
            ):
                yield folder / relative


def _metadata_files(path: Path) -> Iterator[Path]:
    """Metadata of the root, its groups and arrays; the chunks of an array are not searched."""
    for base, folders, names in os.walk(path):
        found = [n for n in names if n in (".zarray", ".zgroup", ".zmetadata", "zarr.json")]
        files = [Path(base) / name for name in found]
        yield from files
        if any(file.name == ".zarray" or _load(file).get("node_type") == "array" for file in files):
            folders.clear()


def _load(file: Path) -> dict[str, object]:
    try:
        if file.stat().st_size > _MAX_METADATA_BYTES:
            raise SecurityError(f"{file} holds more than {_MAX_METADATA_BYTES} bytes of metadata")
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{file} is not readable Zarr metadata: {error}") from error
    return _table(loaded)


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise SourceError(f"Zarr metadata holds {value!r:.60} where a table was expected")
    return value


def _codec_names(meta: object) -> Iterator[str]:
    """Names of every codec in a metadata document, at any depth (sharding, consolidated)."""
    if isinstance(meta, list):
        for entry in meta:
            yield from _codec_names(entry)
        return
    if not isinstance(meta, dict):
        return
    for key in ("compressor", "filters", "codecs", "index_codecs"):
        entries = meta.get(key)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, dict):
                yield str(entry.get("id", entry.get("name", "")))
    for key, entry in meta.items():
        if key != "attributes" and not key.endswith(".zattrs"):
            yield from _codec_names(entry)
