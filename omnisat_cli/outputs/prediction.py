"""What one block of the map holds, and the checks that keep it truthful."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

NONE: Final = 255
"""No value, in every array."""

MAX_MODALITIES: Final = 7
MAX_OBSERVATIONS: Final = 254
MAX_SCALED: Final = 250
"""The value of probability 1 in `boundary` and `probabilities`."""


class Hole(IntEnum):
    """Why a pixel has no class; a value of `Prediction.presence`."""

    FAULT = 252
    CLOUDS = 253
    NO_DATA = 254
    OUTSIDE = 255

    @property
    def words(self) -> str:
        """The reason in words."""
        return self.name.lower().replace("_", " ")


REASONS: Final = (Hole.FAULT, Hole.CLOUDS, Hole.NO_DATA)
"""Reasons of pixels inside the area of interest."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The core of one block, on the anchor lattice refined by `refine`.

    Every pixel either has a class, a confidence and at least one modality it was read from, or has
    none of them and a reason: no pixel is labelled from data that was not read.

    Attributes:
        refine: Output pixels along one anchor pixel.
        classes: (H, W) uint8 legend codes; 255 = none.
        confidence: (H, W) uint8, 0 to 100; 255 = none.
        validity: (H, W) uint8, clear observations used, capped at 254; 255 = outside.
        presence: (H, W) uint8; bit i = the i-th modality of the run was used; values of `Hole`
            where there is no class.
        boundary: (H, W) uint8, probability of a parcel boundary, 0 to 250; 255 = none.
        probabilities: (K, H, W) uint8, probability of each class of the legend, 0 to 250;
            255 = none.
    """

    refine: int
    classes: Bytes
    confidence: Bytes
    validity: Bytes
    presence: Bytes
    boundary: Bytes | None = None
    probabilities: Bytes | None = None

    def __post_init__(self) -> None:
        for name, array in self.arrays().items():
            if array.dtype != np.uint8 or array.shape[-2:] != self.shape:
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, not uint8 on {self.shape} pixels"
                )
        empty = self.classes == NONE
        self._check_presence(empty)
        self._check("confidence", empty, 100)
        self._check("boundary", empty, MAX_SCALED)
        self._check("probabilities", empty, MAX_SCALED)
        if ((self.validity == NONE) != (self.presence == Hole.OUTSIDE)).any():
            raise ValueError("validity must be 255 outside the area of interest, and only there")

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.classes.shape
        return height, width

    def arrays(self) -> dict[str, Bytes]:
        """Return the arrays that are there, by name, in a fixed order."""
        found = ((entry.name, getattr(self, entry.name)) for entry in fields(self)[1:])
        return {name: array for name, array in found if array is not None}

    def holes(self) -> dict[Hole, int]:
        """Count the pixels of the area of interest without a class, by reason."""
        counts = {reason: int(np.count_nonzero(self.presence == reason)) for reason in REASONS}
        return {reason: count for reason, count in counts.items() if count}

    def _check_presence(self, empty: NDArray[np.bool_]) -> None:
        used = (self.presence > 0) & (self.presence < 1 << MAX_MODALITIES)
        if (used == empty).any():
            raise ValueError("a pixel needs a modality where it has a class, and only there")
        if (empty & (self.presence < Hole.FAULT)).any():
            raise ValueError("a pixel without a class needs a reason")

    def _check(self, name: str, empty: NDArray[np.bool_], highest: int) -> None:
        array: Bytes | None = getattr(self, name)
        if array is None:
            return
        if ((array == NONE) != empty).any():
            raise ValueError(f"{name} must be 255 where there is no class, and only there")
        if ((array > highest) & ~empty).any():
            raise ValueError(f"{name} goes above {highest}")


def hole_prediction(
    shape: tuple[int, int], refine: int, presence: Bytes, extra: Mapping[str, int]
) -> Prediction:
    """Return a block without any class.

    Args:
        shape: (H, W) of the block, in output pixels.
        refine: Output pixels along one anchor pixel.
        presence: (H, W) uint8 of `Hole` values.
        extra: Optional arrays every block of the run has: {"boundary": 1, "probabilities": K}.
    """
    empty = np.full(shape, NONE, np.uint8)
    stack = extra.get("probabilities")
    return Prediction(
        refine=refine,
        classes=empty,
        confidence=empty,
        validity=np.where(presence == Hole.OUTSIDE, NONE, 0).astype(np.uint8),
        presence=presence,
        boundary=empty if "boundary" in extra else None,
        probabilities=None if stack is None else np.full((stack, *shape), NONE, np.uint8),
    )
