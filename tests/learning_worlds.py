"""Small sets of examples made of arrays, for tests of learning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.packs.card import ModalityCard
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES = (3, 7, 9)
CHANNELS = (
    Channel("aerial", ("R",), 2.5, "dn8"),
    Channel("s2", ("B02", "B03"), 10.0, "reflectance_1e4", "day-of-year"),
)
CARDS = (
    ModalityCard(name="aerial", bands=("R",), gsd=2.5, units="dn8", mean=(0.0,), std=(1.0,)),
    ModalityCard(
        name="s2",
        bands=("B02", "B03"),
        gsd=10,
        units="reflectance_1e4",
        mean=(2000.0, 2000.0),
        std=(500.0, 500.0),
        dates="day-of-year",
    ),
)


def toy_legend() -> Legend:
    """Three classes."""
    classes = tuple(LegendClass(c, f"class {c}", f"classe {c}", f"#0000{c:02x}") for c in CODES)
    return Legend("toy", "1", "test", "MIT", classes)


def code_of(place: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The class of a place number: the truth follows from the imagery."""
    return np.array(CODES, np.uint8)[place % 3]


@dataclass(frozen=True)
class ToyExamples:
    """Examples whose pixels tell where they are: every modality and the labels agree.

    The value of a patch is its number (row * 100 + col) in aerial pixels (4 × 4, one truth pixel
    each), in S2 (2000 + number), and in the parcels (number + 1).
    """

    count: int = 6
    height: int = 8
    width: int = 8
    clouds: float = 0.3
    task: Task = "segmentation"
    known_parcels: bool = True
    only: tuple[str, ...] = ("aerial", "s2")

    name = "toy"
    channels = CHANNELS
    patch_m = 10.0
    legend = toy_legend()

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        return np.arange(self.count) // 2

    def __len__(self) -> int:
        return self.count

    def example(self, index: int) -> Example:
        rng = np.random.default_rng(index)
        h, w = self.height, self.width
        number = np.arange(h)[:, None] * 20 + np.arange(w)
        fine = number.repeat(4, 0).repeat(4, 1)
        dates = 3 + index % 3
        valid = rng.random((dates, h, w)) >= self.clouds
        pixels = np.broadcast_to(2000.0 + number, (dates, 2, h, w)).astype(np.float32)
        data = {
            "aerial": Image(fine[None].astype(np.uint8), np.ones((4 * h, 4 * w), bool)),
            "s2": Series(
                np.asarray(pixels * valid[:, None], np.float32),
                np.datetime64("2024-03-01") + 13 * np.arange(dates),
                valid,
                ~valid,
            ),
        }
        return Example(
            Sample(Window(0, 0, h, w), {name: data[name] for name in self.only}),
            code_of(fine),
            (fine + 1).astype(np.int32) if self.known_parcels else None,
            np.array([1, 0, index % 2], np.uint8) if self.task == "multilabel" else None,
        )
