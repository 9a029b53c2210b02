"""Options that several commands share, and how their words become values."""

import re
from enum import StrEnum
from typing import Annotated

import typer

from omnisat_cli.errors import JobError

Verbose = Annotated[
    int,
    typer.Option(
        "-v", "--verbose", count=True, help="Say more; twice: everything.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Errors and results only.")]
AsJson = Annotated[bool, typer.Option("--json", help="One machine-readable object on stdout.")]

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4}
_RANGE = re.compile(r"(\d{4}-\d\d-\d\d)/(\d{4}-\d\d-\d\d)")


class Allowance(StrEnum):
    """What becomes of a modality of the model that has no file."""

    ALLOW = "allow"
    FAIL = "fail"


class Trouble(StrEnum):
    """What becomes of ground that cannot be read."""

    FAIL = "fail"
    HOLE = "hole"


class Resampling(StrEnum):
    """How an image comes onto the grid."""

    AUTO = "auto"
    AVERAGE = "average"
    BILINEAR = "bilinear"
    NEAREST = "nearest"


class Duplicates(StrEnum):
    """What becomes of several images of one day."""

    REFUSE = "refuse"
    FIRST = "first"
    MEAN = "mean"


class Offset(StrEnum):
    """What must be added to Sentinel-2 values."""

    AUTO = "auto"
    NONE = "0"
    MINUS_1000 = "-1000"


class RadarUnits(StrEnum):
    """How backscatter is stored."""

    AUTO = "auto"
    DB = "db"
    LINEAR = "linear"
    AMPLITUDE = "amplitude"


class PixelPoint(StrEnum):
    """What a coordinate of a cube names."""

    AUTO = "auto"
    CENTRE = "centre"
    CORNER = "corner"


def mebibytes(text: str) -> int:
    """Turn "2048", "2GB" or "1.5GiB" into MiB; a bare number is MiB.

    Raises:
        JobError: If it is no amount of memory.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise JobError(f"--memory {text}: write MiB as a number, or 2GB, 1.5GiB, 800MB")
    number, unit, binary = float(found[1]), found[2].lower(), found[3]
    if not unit:
        return int(number)
    base = 1024 if binary else 1000
    return int(number * base ** _POWER[unit] / 2**20)


def date_range(text: str | None) -> tuple[str, str] | None:
    """Read "A/B" with two ISO days; None where the text is something else (a file)."""
    found = None if text is None else _RANGE.fullmatch(text.strip())
    return None if found is None else (found[1], found[2])


def patch_sizes(text: str | None) -> tuple[float, ...]:
    """Read "40" or "20,40,80": sides of patches in metres, the largest first.

    Raises:
        JobError: If a part is no number.
    """
    parts = [] if text is None else text.split(",")
    try:
        return tuple(sorted({float(part) for part in parts}, reverse=True))
    except ValueError:
        raise JobError(f"--patch-size {text}: write metres as 40, or 20,40") from None
