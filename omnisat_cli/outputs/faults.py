"""Named points where tests kill the process. Inert unless OMNISAT_FAULT is set.

`OMNISAT_FAULT=before-rename:3` ends the process, as `kill -9` would, at the third pass of that
point: nothing is flushed, no handler runs.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

Point = Literal[
    "mid-part",
    "after-part",
    "before-rename",
    "after-rename",
    "mid-journal",
    "after-journal",
    "before-export",
    "mid-mosaic",
    "mid-cog",
    "after-cog",
    "before-replace",
    "between-products",
    "before-complete",
    "mid-clean",
]

VARIABLE: Final = "OMNISAT_FAULT"
KILLED: Final = 137

_passes: Counter[str] = Counter()


def strike(point: Point) -> None:
    """End the process here if the test asked for it."""
    if _due(point):
        os._exit(KILLED)


def strike_torn(point: Point, path: Path, keep: int | None = None) -> None:
    """End the process here, leaving `path` as a write that was cut leaves it.

    Args:
        point: Name of the point.
        path: File that was just written.
        keep: Bytes that reached the disk; half of the file by default.
    """
    if _due(point):
        os.truncate(path, path.stat().st_size // 2 if keep is None else keep)
        os._exit(KILLED)


def _due(point: Point) -> bool:
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return False
    name, _, count = wanted.partition(":")
    if name != point:
        return False
    _passes[point] += 1
    return _passes[point] == int(count or 1)
