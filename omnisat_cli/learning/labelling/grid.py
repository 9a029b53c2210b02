"""The pixels that labels are laid on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.geo.lattice import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Lattice


@dataclass(frozen=True, slots=True)
class MapGrid:
    """Where the pixels of a map lie.

    Attributes:
        crs: Its CRS.
        transform: (a, b, c, d, e, f); north-up.
        height: Rows.
        width: Columns.
    """

    crs: str
    transform: tuple[float, ...]
    height: int
    width: int

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in CRS units."""
        a, _, left, _, e, top = self.transform
        return left, top + e * self.height, left + a * self.width, top

    @property
    def whole(self) -> Window:
        """All of it, in rows and columns from its corner."""
        return Window(0, 0, self.height, self.width)

    def part(self, window: Window) -> MapGrid:
        """Return a part of it; rows and columns of the window count from its corner."""
        a, _, left, _, e, top = self.transform
        place = (a, 0.0, left + window.col * a, 0.0, e, top + window.row * e)
        return MapGrid(self.crs, place, window.height, window.width)

    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the x (1, width) and the y (height, 1) of the centres of its pixels."""
        a, _, left, _, e, top = self.transform
        x = np.asarray(left + a * (np.arange(self.width)[None] + 0.5), np.float64)
        return x, np.asarray(top + e * (np.arange(self.height)[:, None] + 0.5), np.float64)


def grid_of_frame(lattice: Lattice, area: Window, refine: int) -> MapGrid:
    """Return the grid of a map that is planned.

    Args:
        lattice: Its anchor lattice.
        area: Its window, in anchor pixels.
        refine: Its pixels along an anchor pixel.
    """
    frame = area.refined(refine)
    return MapGrid(lattice.crs, lattice.transform(frame, refine), *frame.shape)
