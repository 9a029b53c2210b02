"""Reports as files: JSON, CSV or an HTML page, by their ending."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, OutputExistsError
from omnisat_cli.learning.scoring.metrics import Scores
from omnisat_cli.learning.scoring.report import means, plain
from omnisat_cli.learning.scoring.report_page import page
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.sidecars import csv_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from omnisat_cli.learning.scoring.metrics import Adjusted
    from omnisat_cli.learning.scoring.report import Report, Result

FORMATS = (".json", ".csv", ".html")


def check_outputs(outs: Sequence[Path], *, overwrite: bool) -> None:
    """Check that reports can be written, before anything is computed.

    Raises:
        JobError: If an ending stands for no format, or it is a folder.
        OutputExistsError: If one is there already and must not be replaced.
    """
    for out in outs:
        if out.suffix.lower() not in FORMATS:
            raise JobError(f"--out {out}: a report ends in {', '.join(FORMATS)}")
        if out.is_dir():
            raise JobError(f"--out {out} is a folder; give the path of a file")
        if out.exists() and not overwrite:
            raise OutputExistsError(
                f"{out} exists\nkeep it:    -o other{out.suffix}\nreplace it: --overwrite"
            )


def write_report(report: Report, out: Path) -> None:
    """Write a report in the format its ending names; complete or not at all.

    Raises:
        ResourceError: If the disk is full.
        SourceError: If the folder cannot be written.
    """
    with disk.disk_errors(out, f"writing {out.name}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        disk.write_atomic(out, _content(report, out.suffix.lower()))


def _csv(report: Report) -> bytes:
    """One row a figure: subset, class ("" = all), figure, value, half of its interval."""
    rows: list[tuple[object, ...]] = []
    for result in report.results:
        subset, each = result.subset, result.scores.classes
        rows += [(subset, "", name, value, "") for name, value in means(result.scores).items()]
        rows.append((subset, "", "unmapped", result.unmapped, ""))
        for k, name in enumerate(report.names):
            for figure in ("precision", "recall", "f1", "iou", "support"):
                rows.append((subset, name, figure, getattr(each, figure)[k], ""))
        if result.adjusted is not None:
            rows += _adjusted_rows(report, result, result.adjusted)
        if isinstance(result.scores, Scores):
            for true, line in zip(report.names, result.scores.confusion, strict=True):
                for mapped, count in zip(report.names, line, strict=True):
                    rows.append((subset, true, f"mapped as {mapped}", int(count), ""))
    cells = [tuple(_cell(value) for value in row) for row in rows]
    return csv_table(("subset", "class", "figure", "value", "margin_95"), cells)


def _adjusted_rows(report: Report, result: Result, found: Adjusted) -> Iterator[tuple[object, ...]]:
    subset = result.subset
    yield subset, "", "adjusted accuracy", found.overall.value, found.overall.margin
    ground = result.hectares * found.covered
    kinds = (
        ("adjusted share", found.share, 1.0),
        ("adjusted hectares", found.share, ground),
        ("adjusted user accuracy", found.user, 1.0),
        ("adjusted producer accuracy", found.producer, 1.0),
    )
    for k, name in enumerate(report.names):
        for figure, estimate, unit in kinds:
            yield subset, name, figure, estimate.value[k] * unit, estimate.margin[k] * unit


def _cell(value: object) -> object:
    if isinstance(value, str | int):
        return value
    if isinstance(value, np.integer):
        return int(value)
    number = float(value)  # type: ignore[arg-type] # a float or a 0-d array
    return round(number, 6) if math.isfinite(number) else ""


def _content(report: Report, ending: str) -> bytes:
    if ending == ".json":
        return disk.to_json(plain(report))
    if ending == ".csv":
        return _csv(report)
    return page(report)
