"""`omnisat train --probe`: a head on cached embeddings."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.cli.console import note, say, say_json
from omnisat_cli.cli.scoring import table
from omnisat_cli.cli.text import count, duration
from omnisat_cli.errors import Exit, JobError
from omnisat_cli.learning.labelling.request import LabelRequest
from omnisat_cli.learning.probing.probe import train_probe
from omnisat_cli.learning.probing.probe_labels import ProbeJob
from omnisat_cli.learning.scoring.report import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omnisat_cli.learning.probing.probe import ProbeReport


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was given to learn from."""

    probe: bool
    embeddings: Path | None
    imagery: Mapping[str, object]
    dataset: Mapping[str, object]

    def file(self) -> Path:
        """Return the embeddings.

        Raises:
            JobError: If flags are missing, or belong to another way to train.
        """
        if not self.probe:
            raise JobError(f"--embeddings {self.embeddings} is for --probe, which is missing")
        if self.embeddings is None:
            raise JobError(
                "--probe learns from embeddings: make them with `omnisat embed … -o e.tif` and "
                "give them as --embeddings e.tif"
            )
        given = [name for name, value in self.imagery.items() if value not in (None, False, [])]
        if given or self.dataset.get("dataset"):
            extra = given[0].replace("_", "-") if given else "dataset"
            raise JobError(f"--probe learns from --embeddings alone; leave --{extra} out")
        return self.embeddings


@dataclass(frozen=True, slots=True)
class Labelled:
    """What was said of the labels."""

    path: str | None
    field: str | None
    classes: str | None
    crs: str | None
    radius_m: float

    def request(self) -> LabelRequest:
        """Return the labels.

        Raises:
            JobError: If there are none.
        """
        if self.path is None:
            raise JobError("--probe needs labels: give them as --labels FILE [--field NAME]")
        return LabelRequest(self.path, self.field, self.crs, self.radius_m)


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the pack goes and what it says."""

    out: Path
    start: str | None
    licence: str
    limits: str
    overwrite: bool


def run(inputs: Inputs, labelled: Labelled, kept: Kept, *, as_json: bool) -> int:
    """Fit, write and say so; return the exit code."""
    job = ProbeJob(
        embeddings=inputs.file(),
        labels=labelled.request(),
        out=kept.out,
        table=labelled.classes,
        start=kept.start,
        licence=kept.licence,
        limits=kept.limits,
        command=("omnisat", *sys.argv[1:]),
        overwrite=kept.overwrite,
    )
    _show(train_probe(job), as_json=as_json)
    return int(Exit.COMPLETE)


def _show(found: ProbeReport, *, as_json: bool) -> None:
    pack = found.pack
    if as_json:
        numbers = {name: getattr(found, name) for name in ("patches", "groups", "by")}
        say_json(
            {"pack": str(pack.folder), "sha256": pack.card.weights_sha256, **numbers}
            | {"seconds": round(found.seconds, 2), "notes": list(found.notes)}
            | {"validation": plain(found.report)}
        )
        return
    for text in found.notes:
        note(f"note: {text}")
    say(
        f"fitted on {count(found.patches, 'label')} of {count(found.groups, found.by)} in "
        f"{duration(found.seconds)}; on {found.by}s held out in turn, per cent:"
    )
    for line in table(found.report)[1:]:
        say(line)
    say(f"{pack.folder}  {count(len(pack.legend.classes), 'class')} of {pack.legend.label}")
    flags = " ".join(f"--{name} FILE" for name in pack.card.names)
    say(f"  next: omnisat predict -m {shlex.quote(str(pack.folder))} {flags} --out map.tif")
