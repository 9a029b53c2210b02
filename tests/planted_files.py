"""Tiny files of PLANTED in the layout that the training code of AnySat reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SENSORS = {"s2": (3, 12, 10), "s1": (3, 12, 2), "l7": (4, 4, 6), "alos": (2, 4, 2),
            "modis": (5, 1, 7)}  # fmt: skip
"""Sensor to its dates, pixels along a tile, and bands."""


def write_planted(root: Path, splits: Mapping[str, Mapping[str, int]]) -> None:
    """Write tiles of each split, with the classes of their names."""
    rng = np.random.default_rng(5)
    for split, tiles in splits.items():
        (root / split).mkdir(parents=True)
        (root / split / "labels2.json").write_text(json.dumps(tiles))
        for name in tiles:
            folder = root / split / name
            folder.mkdir()
            for sensor, (dates, side, bands) in _SENSORS.items():
                shape = (dates, side, side, bands)
                radar = sensor in ("s1", "alos")
                pixels = rng.normal(-12, 3, shape) if radar else rng.uniform(200, 4000, shape)
                mask = np.ones((dates, side, side, 1), np.int64)
                mask[0, 0] = 0
                days = np.array(_quarters(dates), "datetime64[ms]")
                np.savez(folder / f"{name}_{sensor}.npz", pixels.astype(np.float32))
                np.savez(folder / f"{name}_{sensor}_mask.npz", mask)
                np.savez(folder / f"{name}_{sensor}_timestamp.npz", days.astype(np.int64))


def _quarters(count: int) -> list[str]:
    ends = ("03-31", "06-30", "09-30", "12-31")
    return [f"{2016 + n // 4}-{ends[n % 4]}T10:00" for n in range(count)]
