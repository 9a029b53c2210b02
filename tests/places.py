"""For tests of learning: places of random imagery in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.examples import Channel, Example
from omnisat_cli.learning.simulate.legend import sim_legend
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.outputs.legend import Legend

SIDE = 4


@dataclass(frozen=True)
class Places:
    """Places of random imagery."""

    names: tuple[str, ...] = ("aerial", "s2", "s1")
    number: int = 4
    labelled: bool = False
    name: str = "random places"
    patch_m: float = 10.0
    task: str = "segmentation"
    legend: Legend = field(default_factory=sim_legend)

    @property
    def channels(self) -> tuple[Channel, ...]:
        known = {
            "aerial": Channel("aerial", ("R", "G", "B", "NIR"), 2.5, "dn8"),
            "s2": Channel("s2", S2_BANDS, 10.0, "reflectance_1e4", "day-of-year"),
            "s1": Channel("s1", ("VV", "VH"), 10.0, "db", "day-of-year"),
        }
        return tuple(known[name] for name in self.names)

    @property
    def groups(self) -> NDArray[np.int64]:
        return np.arange(self.number)

    def __len__(self) -> int:
        return self.number

    def example(self, index: int) -> Example:
        rng = np.random.default_rng(index)
        dates = np.datetime64("2023-01-05") + np.arange(6) * 20
        data: dict[str, Image | Series] = {}
        for channel in self.channels:
            n = SIDE * round(self.patch_m / channel.gsd)
            if channel.dates is None:
                pixels = rng.integers(0, 255, (len(channel.bands), n, n), np.uint8)
                data[channel.name] = Image(pixels, np.ones((n, n), bool))
                continue
            shape = (len(dates), len(channel.bands), n, n)
            values = rng.normal(0, 1, shape).astype(np.float32)
            clear = rng.random((len(dates), n, n)) < 0.8
            data[channel.name] = Series(values, dates, clear, ~clear)
        classes = rng.integers(0, 5, (SIDE, SIDE), np.uint8) if self.labelled else None
        return Example(Sample(Window(0, 0, SIDE, SIDE), data), classes)
