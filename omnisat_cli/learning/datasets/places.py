"""What whole places hold, from labelled pixels: the classes that cover enough of their ground."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.learning.data.statistics import labels_of
from omnisat_cli.learning.datasets.treesatai import THRESHOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Channel, Example, Examples, Task
    from omnisat_cli.outputs.legend import Legend


@dataclass(frozen=True, slots=True)
class WholePlaces:
    """Examples of labelled pixels as places with tags; see `Examples`.

    A place holds a class whose share of its ground, labelled or not, exceeds `share`, the rule of
    TreeSatAI. Of a place without any label nothing is known: it has no tags.
    """

    pixels: Examples
    share: float = THRESHOLD
    task: Task = "multilabel"

    @property
    def name(self) -> str:
        """What the set is."""
        return f"whole places of {self.pixels.name}"

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The modalities."""
        return self.pixels.channels

    @property
    def patch_m(self) -> float:
        """Side of a patch in metres."""
        return self.pixels.patch_m

    @property
    def legend(self) -> Legend:
        """The classes."""
        return self.pixels.legend

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) spatial groups."""
        return self.pixels.groups

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self.pixels)

    def example(self, index: int) -> Example:
        """Read one place."""
        return self._tagged(self.pixels.example(index))

    def labels(self, index: int) -> Example:
        """Read what one place holds."""
        return self._tagged(labels_of(self.pixels, index))

    def _tagged(self, made: Example) -> Example:
        tags = None
        if made.classes is not None:
            counts = np.bincount(made.classes.ravel(), minlength=256)[list(self.legend.codes)]
            if counts.any():
                tags = (counts > self.share * made.classes.size).astype(np.uint8)
        return replace(made, classes=None, parcels=None, tags=tags)
