"""Where a training works, and how its pack appears: whole, or not at all."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import re
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from omnisat_cli.errors import OutputExistsError
from omnisat_cli.learning.training.ledger import LOG
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.lock import Lock
from omnisat_cli.outputs.run import staging_folder
from omnisat_cli.packs.registry import CARD, Pack, read_pack
from omnisat_cli.packs.writer import write_pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from omnisat_cli.learning.training.lesson import FitSpec
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.packs.card import Card

TABLE = "training.csv"
FACTS = "training.json"
_LOCK, _PACK = "lock", "pack"
_LIBRARIES = ("torch", "lightning-fabric", "numpy")
"""Libraries whose versions shape weights."""


def is_helper() -> bool:
    """Whether this process was started by another one to train on a second device."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def refuse_existing(out: Path, *, overwrite: bool) -> None:
    """Check that a pack may be written to a folder.

    Raises:
        OutputExistsError: If there is one, or something that is no pack.
    """
    if is_helper() or not out.exists():
        return
    if (out / CARD).is_file():
        if not overwrite:
            raise OutputExistsError(
                f"{out} holds a model pack.\nkeep it:     --out another/folder\n"
                "replace it:  --overwrite"
            )
    elif not out.is_dir() or any(out.iterdir()):
        raise OutputExistsError(f"{out} is there and is no model pack; choose another folder")


@contextmanager
def workplace(out: Path, *, resume: bool) -> Iterator[Path]:
    """Give the folder where a training towards `out` works; nobody else works there meanwhile.

    Args:
        out: Folder of the pack to be.
        resume: Keep what a stopped training left there.

    Yields:
        The folder, beside `out`.

    Raises:
        OutputExistsError: If another process works there.
    """
    folder = staging_folder(out)
    with disk.disk_errors(folder, "making the folder of the training"):
        folder.mkdir(parents=True, exist_ok=True)
    if is_helper():
        yield folder
        return
    with Lock(folder / _LOCK):
        if not resume:
            _forget(folder)
        yield folder


def _forget(folder: Path) -> None:
    """Remove what an earlier training left, but not the lock."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()


def publish_pack(
    out: Path,
    card: Card,
    legend: Legend,
    weights: Mapping[str, Tensor],
    facts: Mapping[str, object],
) -> Pack:
    """Write a pack, its log and its provenance, and remove the workplace.

    A pack that is there is replaced; it stays whole until the new one is.

    Args:
        out: Folder of the pack.
        card: Its card.
        legend: Its classes.
        weights: State dict of the network.
        facts: What `training.json` says, as plain values.
    """
    work = staging_folder(out)
    made, old = work / _PACK, work / f"old-{uuid.uuid4().hex}"
    with disk.disk_errors(work, "writing the pack"):
        shutil.rmtree(made, ignore_errors=True)
        write_pack(made, card, legend.to_json(), weights)
        collect_log(work, made / TABLE)
        disk.write_json(made / FACTS, dict(facts))
        for path in made.iterdir():
            disk.sync_file(path)
        if out.exists():
            out.replace(old)
        made.replace(out)
        disk.sync_folder(out.parent)
        shutil.rmtree(work)
    return read_pack(out)


def training_record(
    command: Sequence[str], facts: Mapping[str, object], spec: FitSpec
) -> dict[str, object]:
    """Return what any `training.json` says: versions, command, data and settings.

    Args:
        command: Command line.
        facts: Data and configuration, as plain values.
        spec: Budget and rates.
    """
    return {
        "format": 1,
        "omnisat": importlib.metadata.version("omnisat"),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "command": list(command),
        **facts,
        "training": spec.facts(),
    }


def pack_name(out: Path) -> str:
    """Turn the name of a folder into the name of a pack."""
    name = re.sub(r"[^a-z0-9._-]+", "-", out.resolve().name.lower()).strip("-._")[:64]
    return name or "model"


def collect_log(work: Path, path: Path) -> None:
    """Put the logs of a training and of its resumptions into one table.

    Steps that were done twice, because a kill came before a checkpoint, count as the last time.
    """
    rows: dict[tuple[int, bool], dict[str, str]] = {}
    parts = (work / LOG).glob("version_*/metrics.csv")
    for part in sorted(parts, key=_version):
        with part.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                rows[int(row["step"]), bool(row.get("rate"))] = row
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = ["step", *sorted(name for name in columns if name != "step")]
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns, restval="")
        table.writeheader()
        table.writerows(rows[key] for key in sorted(rows))


def _version(path: Path) -> int:
    return int(path.parent.name.removeprefix("version_"))
