"""Several sets of examples as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError
from omnisat_cli.learning.data.statistics import labels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Channel, Example, Examples, Task
    from omnisat_cli.outputs.legend import Legend


@dataclass(frozen=True)
class Joined:
    """Sets one after the other; their groups stay apart.

    Attributes:
        sets: At least one, of one patch, task and legend; a modality that several have is alike.
    """

    sets: tuple[Examples, ...]

    def __post_init__(self) -> None:
        first = self.sets[0]
        for other in self.sets[1:]:
            for what, one, two in (
                ("patches of", first.patch_m, other.patch_m),
                ("the task", first.task, other.task),
                ("the classes", _classes(first.legend), _classes(other.legend)),
            ):
                if one != two:
                    raise JobError(
                        f"{first.name} has {what} {one}, {other.name} {two}: they cannot be joined"
                    )
        channels: dict[str, tuple[Channel, str]] = {}
        for part in self.sets:
            for channel in part.channels:
                known, where = channels.setdefault(channel.name, (channel, part.name))
                if known != channel:
                    raise JobError(
                        f"{channel.name} has {', '.join(known.bands)} at {known.gsd:g} m in "
                        f"{where}, {', '.join(channel.bands)} at {channel.gsd:g} m in "
                        f"{part.name}: they cannot be joined"
                    )

    @property
    def name(self) -> str:
        """Names of all sets."""
        return " + ".join(part.name for part in self.sets)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The modalities that any set has."""
        return tuple({c.name: c for part in self.sets for c in part.channels}.values())

    @property
    def patch_m(self) -> float:
        """Side of a patch in metres."""
        return self.sets[0].patch_m

    @property
    def task(self) -> Task:
        """What the labels are."""
        return self.sets[0].task

    @property
    def legend(self) -> Legend:
        """The classes."""
        return self.sets[0].legend

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) groups, numbered on from set to set."""
        first, parts = 0, []
        for part in self.sets:
            _, own = np.unique(part.groups, return_inverse=True)
            parts.append(own + first)
            first += int(own.max(initial=-1)) + 1
        return np.concatenate(parts).astype(np.int64)

    def __len__(self) -> int:
        """Return the number of examples of all sets."""
        return sum(len(part) for part in self.sets)

    def example(self, index: int) -> Example:
        """Read one place; see `Examples.example`."""
        part, own = self._find(index)
        return part.example(own)

    def labels(self, index: int) -> Example:
        """Read the labels of one place."""
        return labels_of(*self._find(index))

    def _find(self, index: int) -> tuple[Examples, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        for part in self.sets:
            if index < len(part):
                break
            index -= len(part)
        return part, index


def _classes(legend: Legend) -> tuple[tuple[int, str], ...]:
    return tuple((entry.code, entry.name_en) for entry in legend.classes)
