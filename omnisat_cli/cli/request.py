"""From flags to a job, and from a job back to the command that asked for it."""

from __future__ import annotations

import shlex
from enum import Enum
from operator import itemgetter
from typing import TYPE_CHECKING

from omnisat_cli.cli.imagery import IMAGERY, SERIES
from omnisat_cli.cli.options import date_range
from omnisat_cli.errors import JobError
from omnisat_cli.job import Input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PATHS: Mapping[str, str] = {
    modality: entry.name for entry in IMAGERY if not entry.option for modality in entry.about
}
"""Modality to the flag that names its files."""

FLAGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    entry.name: (entry.option, entry.about) for entry in IMAGERY if entry.option
}
"""Flag to the reader's option it sets and the modalities it is about."""


def inputs_from(given: Mapping[str, object], dates: str | None) -> tuple[Input, ...]:
    """Build the inputs of a job.

    Args:
        given: Value of every parameter of the command, None where it was not given.
        dates: Value of --dates: a range, or a file with the dates of one cube.

    Raises:
        JobError: If a flag is about an input that is not there.
    """
    named = {modality: _texts(given[_parameter(flag)]) for modality, flag in PATHS.items()}
    present = [modality for modality, paths in named.items() if paths]
    said: dict[str, list[tuple[str, str]]] = {modality: [] for modality in present}
    for flag, (option, about) in FLAGS.items():
        texts = _texts(given[_parameter(flag)])
        if not texts:
            continue
        concerned = [modality for modality in about if modality in present]
        if not concerned:
            flags = " or ".join(PATHS[modality] for modality in about)
            raise JobError(f"{flag} {','.join(texts)} is about {flags}, which is not given")
        for modality in concerned:
            said[modality] += [(option, text) for text in texts]
    if dates is not None and date_range(dates) is None:
        cubes = [modality for modality in present if modality in SERIES]
        if len(cubes) != 1:
            raise JobError(
                f"--dates {dates}: not a range like 2024-01-01/2024-12-31, so it is a file with "
                f"one date a line; that fits one cube, and {len(cubes)} are given"
            )
        said[cubes[0]].append(("dates_file", dates))
    return tuple(
        Input(modality, named[modality], tuple(sorted(said[modality], key=itemgetter(0))))
        for modality in present
    )


def command_of(job: Mapping[str, object], out: Path) -> str:
    """Return the command that asks for a job, as far as its fingerprint tells.

    Args:
        job: `Job.facts()` as JSON values.
        out: Path of the map.
    """
    words = ["omnisat", "predict"]
    for entry in _mappings(job.get("inputs")):
        modality = str(entry.get("modality"))
        for path in _sequence(entry.get("paths")):
            words += [PATHS.get(modality, f"--{modality}"), str(path)]
        for pair in _sequence(entry.get("options")):
            option, value = (str(part) for part in _sequence(pair))
            words += _flag_words(modality, option, value)
    words += ["--model", str(job.get("model")), "--out", str(out)]
    area = job.get("area")
    words += _area_words(area) if isinstance(area, dict) else []
    for name in ("crs", "resolution"):
        if job.get(name) is not None:
            words += [f"--{name}", str(job[name])]
    if job.get("patch_m") is not None:
        sizes = (job["patch_m"], *_sequence(job.get("scales", ())))
        words += ["--patch-size", ",".join(map(str, sizes))]
    if job.get("dates"):
        words += ["--dates", "/".join(map(str, _sequence(job["dates"])))]
    for name, default in (("missing_modality", "allow"), ("on_error", "fail")):
        if job.get(name, default) != default:
            words += [f"--{name.replace('_', '-')}", str(job[name])]
    words += [f"--{name}" for name in ("probabilities", "boundary") if job.get(name)]
    return shlex.join(words)


def _flag_words(modality: str, option: str, value: str) -> list[str]:
    if option == "dates_file":
        return ["--dates", value]
    for flag, (name, about) in FLAGS.items():
        if name == option and modality in about:
            return [flag] if option == "keep_snow" else [flag, value]
    return []


def _area_words(area: Mapping[str, object]) -> list[str]:
    words = []
    for name in ("aoi", "aoi_crs", "bbox", "bbox_crs"):
        value = area.get(name)
        if value is not None:
            texts = [str(edge) for edge in value] if isinstance(value, list) else [str(value)]
            words += [f"--{name.replace('_', '-')}", *texts]
    return words


def _parameter(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _texts(value: object) -> tuple[str, ...]:
    """Return what a parameter holds as texts; nothing for None, False and the empty list."""
    if value is None or value is False:
        return ()
    if value is True:
        return ("yes",)
    if isinstance(value, list):
        return tuple(str(part) for part in value)
    return (str(value.value) if isinstance(value, Enum) else str(value),)


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _mappings(value: object) -> list[dict[str, object]]:
    return [entry for entry in _sequence(value) if isinstance(entry, dict)]
