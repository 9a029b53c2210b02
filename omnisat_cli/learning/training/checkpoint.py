"""Checkpoints of a training: tensors and plain values only, complete or absent."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from typing import TYPE_CHECKING

import torch

from omnisat_cli.errors import CheckpointError, ResumeError, SecurityError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.run import differences, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
_SHOWN_FIELDS = 12
_PICKLE = b"\x80"

State = dict[str, object]


def save_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write a checkpoint that is either the old file or the whole new one.

    Args:
        path: The file; its folder exists.
        state: Tensors, numbers, texts, lists and tables of them.

    Raises:
        ResourceError: If the disk is full.
    """
    content = io.BytesIO()
    torch.save({"format": FORMAT, **state}, content)
    with disk.disk_errors(path, "writing a checkpoint"):
        disk.write_atomic(path, content.getvalue())


def load_checkpoint(path: Path) -> State:
    """Read a checkpoint without running anything that it holds.

    Raises:
        CheckpointError: If it is missing, damaged or of another version.
        SecurityError: If it holds code or objects that a checkpoint has no use for.
    """
    _check_container(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path) from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path} is no checkpoint of this version: format {found}, expected {FORMAT}; start "
            "again with --no-resume"
        )
    return state


def _check_container(path: Path) -> None:
    """Check that a file is a whole zip archive, as torch writes them."""
    try:
        with path.open("rb") as stream:
            head = stream.read(1)
        if head == _PICKLE:
            raise _refused(path)
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    if broken is not None:
        raise _damaged(path, f"{broken} has another checksum")


def _refused(path: Path) -> SecurityError:
    return SecurityError(
        f"{path} holds more than tensors and plain values: loading it could run code, so it was "
        "not loaded. Use a checkpoint that omnisat wrote, or start again with --no-resume"
    )


def _damaged(path: Path, reason: object) -> CheckpointError:
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return CheckpointError(
        f"the checkpoint {path} is truncated or damaged: {first}; start again with --no-resume"
    )


def check_same(path: Path, before: object, now: Mapping[str, object]) -> None:
    """Check that a checkpoint was made from the same data and settings.

    Args:
        path: The checkpoint, for the message.
        before: Fingerprint it holds.
        now: Fingerprint of what is asked.

    Raises:
        ResumeError: If they differ; the message names the fields.
    """
    changed = differences(before if isinstance(before, dict) else {}, plain(now))
    if not changed:
        return
    shown = [f"  {name}: was {old}, now {new}" for name, old, new in changed]
    more = len(shown) - _SHOWN_FIELDS
    rest = [f"  and {more} more"] if more > 0 else []
    raise ResumeError(
        f"the training in {path.parent} was begun with something else and cannot be resumed:\n"
        + "\n".join(shown[:_SHOWN_FIELDS] + rest)
        + "\nuse the same data and options, another output, or start over with --no-resume"
    )
