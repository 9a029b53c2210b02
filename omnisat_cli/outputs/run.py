"""A run as its staging folder tells it: what all blocks share, and what it was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.errors import ResumeError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.outputs.lock import Owner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RUN, COMPLETE, LOCK = "run.json", "complete.json", "lock"
FORMAT = 1
_ABSENT = "(absent)"

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What every block of a run shares, and what `status` shows.

    Attributes:
        crs: CRS of the map.
        gsd: Anchor pixel in CRS units.
        area: (row, col, height, width) of the map in anchor pixels.
        refine: Output pixels along one anchor pixel.
        blocks: Number of blocks of the plan.
        modalities: Modalities of the pack, or of the job where it has too many: bit i of the
            presence raster is the i-th.
        legend: `id@version`.
        class_count: Number of classes.
        arrays: Optional arrays every block has, of "boundary" and "probabilities".
    """

    crs: str
    gsd: float
    area: tuple[int, int, int, int]
    refine: int
    blocks: int
    modalities: tuple[str, ...]
    legend: str
    class_count: int
    arrays: tuple[str, ...] = ()

    @property
    def lattice(self) -> Lattice:
        """The anchor lattice."""
        return Lattice(self.crs, self.gsd)

    @property
    def frame(self) -> Window:
        """The map in output pixels."""
        return Window(*self.area).refined(self.refine)


def staging_folder(out: Path) -> Path:
    """Return the folder where a run towards `out` works: beside it, on the same file system."""
    return out.with_name(f"{out.name}.omnisat")


def has_run(folder: Path) -> bool:
    """Whether a run was started in a staging folder."""
    return (folder / RUN).is_file()


def running(folder: Path) -> Owner | None:
    """Return the process that says it is working on a run, if any."""
    return Owner.read(folder / LOCK)


def read_run(folder: Path) -> tuple[RunFacts, Json]:
    """Read the facts of a run and the whole of run.json, without a lock.

    Raises:
        ResumeError: If there is no run that can be used.
    """
    path = folder / RUN
    try:
        run: Json = json.loads(path.read_bytes())
        if run["format"] != FORMAT:
            raise ValueError(f"format {run['format']}, this version writes {FORMAT}")
        raw = dict(run["facts"])  # type: ignore[call-overload]
        for key in ("area", "modalities", "arrays"):
            raw[key] = tuple(raw[key])
        return RunFacts(**raw), run
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResumeError(
            f"{path} is not the start of a run this version can resume ({error}); remove {folder} "
            "or choose another output"
        ) from error


def differences(before: Json, after: Json) -> list[tuple[str, str, str]]:
    """Compare two fingerprints field by field.

    Returns:
        (dotted name, old value, new value) of each field that differs.
    """
    old, new = _flat(before), _flat(after)
    return [
        (name, old.get(name, _ABSENT), new.get(name, _ABSENT))
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]


def _flat(value: object, name: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        children = ((f"{name}.{key}" if name else str(key), item) for key, item in value.items())
    elif isinstance(value, list) and value and any(isinstance(v, dict | list) for v in value):
        children = ((f"{name}[{i}]", item) for i, item in enumerate(value))
    else:
        return {name: json.dumps(value, ensure_ascii=False)} if name else {}
    return {key: text for child, item in children for key, text in _flat(item, child).items()}


def plain(value: Mapping[str, object]) -> Json:
    """Return what a mapping becomes when it is written as JSON and read back."""
    content: Json = json.loads(json.dumps(dict(value), allow_nan=False))
    return content
