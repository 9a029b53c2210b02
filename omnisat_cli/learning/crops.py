"""Simulated scenes in memory as a set of examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.batches import Batcher, BatchSpec
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.learning.simulate import sim_legend
from omnisat_cli.learning.statistics import class_counts
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.learning.batches import Batch
    from omnisat_cli.learning.simulate import Scene
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.packs.card import Card

CLEAR_SCL = (4, 5, 6, 7)
"""Scene classes that count as clear: vegetation, bare, water, unclassified."""


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How training windows are drawn; see `BatchSpec`."""

    side: int
    keep_dates: int
    drop: Mapping[str, float]
    drop_region: float = 0.15
    balanced: float = 0.5


@dataclass(frozen=True)
class WorldExamples:
    """Whole scenes, each a place; see `Examples`."""

    scenes: tuple[Scene, ...]
    channels: tuple[Channel, ...]
    name: str = "simulated scenes"
    patch_m: float = 10.0
    task: Task = "segmentation"
    legend: Legend = field(default_factory=sim_legend)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) each scene is a world of its own."""
        return np.arange(len(self.scenes))

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.scenes)

    def example(self, index: int) -> Example:
        """Return one scene; nothing is copied."""
        scene = self.scenes[index]
        height, width = scene.s2.shape[-2:]
        clear = np.isin(scene.scl, CLEAR_SCL)
        always = np.ones((len(scene.s1_dates), height, width), bool)
        # Stored as small integers; they become float32 where a window is cut.
        s2 = cast("NDArray[np.float32]", scene.s2)
        data: dict[str, Image | Series] = {
            "aerial": Image(scene.aerial, np.ones(scene.aerial.shape[1:], bool)),
            "s2": Series(s2, scene.s2_dates, clear, ~clear),
            "s1": Series(scene.s1, scene.s1_dates, always, ~always),
        }
        sample = Sample(Window(0, 0, height, width), data)
        return Example(sample, scene.truth, scene.parcel_ids.astype(np.int32))


class CropSampler:
    """Draws windows from scenes.

    Args:
        scenes: Simulated scenes, all with the aerial pixel of the card.
        card: Bands, normalisation and day encoding.
        spec: How windows are drawn.
        seed: Seed of the draws.
    """

    def __init__(self, scenes: list[Scene], card: Card, spec: CropSpec, seed: int) -> None:
        channels = tuple(
            Channel(n.name, n.bands, n.gsd, n.units, "day-of-year" if n.dates else None)
            for n in card.modalities
        )
        self.examples, self.card = WorldExamples(tuple(scenes), channels), card
        self.spec, self.seed, self.step = spec, seed, 0
        self._counts = class_counts(self.examples)

    def draw(self, count: int) -> Batch:
        """Draw `count` windows."""
        spec = self.spec
        draws = BatchSpec(
            size=count,
            side=spec.side,
            keep_dates={"s2": spec.keep_dates, "s1": spec.keep_dates},
            drop=spec.drop,
            drop_region=spec.drop_region,
            balanced=spec.balanced,
        )
        batcher = Batcher(self.examples, self.card.modalities, draws, self.seed, self._counts)
        self.step += 1
        return batcher.batch(self.step - 1)
