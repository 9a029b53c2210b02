"""What lies in a folder of maps: finished ones by their provenance, others by their journal."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from omnisat_cli.cli.request import command_of
from omnisat_cli.errors import OmnisatError
from omnisat_cli.outputs.journal import read_journal
from omnisat_cli.outputs.lock import Owner
from omnisat_cli.outputs.run import COMPLETE, has_run, read_run, running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PROVENANCE = ".provenance.json"
_STAGING = ".omnisat"
_SHOWN_NOTES = 5
_LIMIT = 2**28


@dataclass(frozen=True, slots=True)
class FinishedMap:
    """A map whose provenance is beside it.

    Attributes:
        out: Path of the class map.
        created: When, ISO.
        model: Name and version.
        inputs: Modalities used.
        blocks: Number of blocks.
        holes: Hectares without a class, by reason.
        problem: Why this is no usable map, or "".
    """

    out: Path
    created: str = ""
    model: str = ""
    inputs: tuple[str, ...] = ()
    blocks: int = 0
    holes: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StagedRun:
    """A run that has not delivered its map.

    Attributes:
        out: Path of the map it works towards.
        state: "running", "stopped", or "complete" if only its tidying is missing.
        started: When, ISO.
        blocks: Blocks of the plan.
        done: Finished blocks.
        faults: Finished blocks with a fault.
        notes: What the first faults were.
        holes: Pixels without a class so far, by reason.
        pid: Process that works on it, or None.
        host: Its machine.
        next_command: What goes on with it, "" while it is running.
        problem: Why it cannot be resumed, or "".
    """

    out: Path
    state: str = "stopped"
    started: str = ""
    blocks: int = 0
    done: int = 0
    faults: int = 0
    notes: tuple[str, ...] = ()
    holes: Mapping[str, int] = field(default_factory=dict)
    pid: int | None = None
    host: str = ""
    next_command: str = ""
    problem: str = ""


def find_maps(path: Path) -> tuple[FinishedMap, ...]:
    """Return the maps of a folder, or the one at a path."""
    if path.is_dir():
        found = sorted(path.glob(f"*{_PROVENANCE}"))
    else:
        found = [path.with_name(f"{path.stem}{_PROVENANCE}")]
    return tuple(_read_map(entry) for entry in found if entry.is_file())


def find_runs(path: Path) -> tuple[StagedRun, ...]:
    """Return the staged runs of a folder, or that towards a path."""
    if path.is_dir() and path.suffix == _STAGING:
        found = [path]
    elif path.is_dir():
        found = sorted(path.glob(f"*{_STAGING}"))
    else:
        found = [path.with_name(f"{path.name}{_STAGING}")]
    return tuple(_read_staged(entry) for entry in found if has_run(entry))


def plain_map(found: FinishedMap) -> dict[str, object]:
    """Return JSON values."""
    return {**asdict(found), "out": str(found.out)}


def plain_run(run: StagedRun) -> dict[str, object]:
    """Return JSON values."""
    return {**asdict(run), "out": str(run.out)}


def _read_map(path: Path) -> FinishedMap:
    stem = path.name.removesuffix(_PROVENANCE)
    out = next(
        (p for p in (path.with_name(stem + end) for end in (".tif", ".tiff")) if p.is_file()),
        path.with_name(f"{stem}.tif"),
    )
    if not out.is_file():
        return FinishedMap(out, problem=f"is gone; its provenance {path.name} is still there")
    try:
        if path.stat().st_size > _LIMIT:
            raise ValueError(f"larger than {_LIMIT} bytes")
        content = json.loads(path.read_bytes())
        holes: dict[str, float] = {}
        for hole in content["holes"]:
            reason = str(hole["reason"])
            holes[reason] = holes.get(reason, 0.0) + float(hole["hectares"])
        return FinishedMap(
            out=out,
            created=str(content["created"]),
            model=f"{content['model']['name']} {content['model']['version']}",
            inputs=tuple(str(name) for name in content["inputs"]),
            blocks=int(content["blocks"]),
            holes=holes,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return FinishedMap(out, problem=f"its provenance {path.name} cannot be read ({error})")


def _read_staged(folder: Path) -> StagedRun:
    out = folder.with_name(folder.name.removesuffix(_STAGING))
    try:
        facts, run = read_run(folder)
    except OmnisatError as error:
        return StagedRun(out, problem=str(error))
    records = {record.index: record for record in read_journal(folder)}
    faults = [record for record in records.values() if record.status == "fault"]
    holes: dict[str, int] = {}
    for record in records.values():
        for reason, pixels in record.holes.items():
            holes[reason] = holes.get(reason, 0) + pixels
    owner = running(folder)
    alive = owner is not None and _may_be_alive(owner)
    state = "complete" if (folder / COMPLETE).is_file() else "stopped"
    return StagedRun(
        out=out,
        state=f"running as process {owner.pid} on {owner.host}" if alive and owner else state,
        started=str(run.get("started", "")),
        blocks=facts.blocks,
        done=len(records),
        faults=len(faults),
        notes=tuple(record.note for record in faults[:_SHOWN_NOTES] if record.note),
        holes=holes,
        pid=owner.pid if alive and owner else None,
        host=owner.host if alive and owner else "",
        next_command="" if alive else _next_command(run, out),
    )


def _may_be_alive(owner: Owner) -> bool:
    """Whether the owner of a lock runs; one on another machine cannot be judged from here."""
    me = Owner.this()
    if owner.host != me.host:
        return True
    if owner.boot != me.boot:
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _next_command(run: Mapping[str, object], out: Path) -> str:
    """Return the command that goes on with a run, from its fingerprint."""
    asked = run.get("fingerprint")
    if not isinstance(asked, dict) or not isinstance(asked.get("job"), dict):
        return ""
    command = command_of(asked["job"], out)
    for name, flag in (("device", "--device"), ("threads", "--threads"), ("batch", "--batch-size")):
        if asked.get(name) is not None:
            command += f" {flag} {asked[name]}"
    grid, tiling = asked.get("grid"), asked.get("tiling")
    if isinstance(grid, dict) and isinstance(tiling, dict):
        command += f" --block {float(tiling['block']) * float(grid['patch_m']):g}"
    return command
