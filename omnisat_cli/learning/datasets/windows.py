"""Windows of patches over places that are larger than an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from omnisat_cli.errors import JobError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.sources.values import Image, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Place = TypeVar("Place")
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Cut:
    """How a place is cut.

    Attributes:
        side: Patches along a window.
        stride: Patches from one window to the next.
    """

    side: int
    stride: int

    def count(self, height: int, width: int) -> int:
        """Return how many windows a place of so many patches has."""
        return len(_starts(height, self)) * len(_starts(width, self))

    def window(self, height: int, width: int, index: int) -> Window:
        """Return a window counted from the upper left patch of a place, row by row."""
        rows, cols = _starts(height, self), _starts(width, self)
        row, col = divmod(index, len(cols))
        return Window(rows[row], cols[col], self.side, self.side)


@dataclass(frozen=True, slots=True)
class Windows(Generic[Place]):
    """The windows of places that are squares of one size, place by place.

    Attributes:
        places: What is cut.
        side: Patches along a place.
        cut: How.
    """

    places: Sequence[Place]
    side: int
    cut: Cut

    @property
    def each(self) -> int:
        """Windows of a place."""
        return self.cut.count(self.side, self.side)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.places) * self.each

    def place(self, index: int) -> tuple[Place, Window]:
        """Return a place and a window counted from its upper left patch.

        Raises:
            IndexError: If there is no such window.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        which, inside = divmod(index, self.each)
        return self.places[which], self.cut.window(self.side, self.side, inside)


def cut_of(side: int | None, stride: int | None, default: int) -> Cut:
    """Return the cut asked for; windows touch unless a stride is given.

    Raises:
        JobError: If a stride would leave ground out.
    """
    side = side or default
    if stride is not None and stride > side:
        raise JobError(f"a stride of {stride} patches leaves ground between windows of {side}")
    return Cut(side, stride or side)


def _starts(size: int, cut: Cut) -> list[int]:
    """Return where windows begin; the last one touches the far edge, so that nothing is left."""
    last = size - cut.side
    if last < 0:
        return []
    starts = list(range(0, last + 1, cut.stride))
    return starts if starts[-1] == last else [*starts, last]


def cut_image(image: Image, window: Window, refine: int) -> Image:
    """Copy a window, in patches from the upper left, out of an image."""
    rows, cols = slices_of(window, refine)
    return Image(image.pixels[:, rows, cols].copy(), image.valid[rows, cols].copy())


def cut_series(series: Series, window: Window, refine: int) -> Series:
    """Copy a window, in patches from the upper left, out of a series, as float32."""
    rows, cols = slices_of(window, refine)
    return Series(
        series.pixels[..., rows, cols].astype(np.float32),
        series.dates,
        series.valid[..., rows, cols].copy(),
        series.clouded[..., rows, cols].copy(),
    )


def cut_raster(raster: NDArray[Scalar], window: Window, refine: int) -> NDArray[Scalar]:
    """Copy a window, in patches from the upper left, out of an (H, W) raster."""
    return raster[slices_of(window, refine)].copy()


def slices_of(window: Window, refine: int) -> tuple[slice, slice]:
    """Return rows and columns of a window of patches in a raster `refine` times finer."""
    fine = window.refined(refine)
    return slice(fine.row, fine.row_end), slice(fine.col, fine.col_end)
