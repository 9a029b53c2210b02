"""Integer lattices anchored to the origin of a CRS.

The anchor lattice has one fixed ground sample distance and its pixel (0, 0) touches the origin of
the CRS, so two areas run separately use the same pixels where they meet. Rows grow southwards:
row r covers northings from -r * gsd down to -(r + 1) * gsd. A finer raster lives on the lattice
refined by an integer. No float decides where a window lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from omnisat_cli.errors import AlignmentError

Bounds = tuple[float, float, float, float]
"""left, bottom, right, top in CRS units."""

_SNAP = 1e-3
"""Edges this close to a lattice line (in pixels) lie on it: GeoTIFF origins carry float noise."""


@dataclass(frozen=True, slots=True)
class Window:
    """Rectangle of pixels, half-open: rows `[row, row + height)`, columns likewise.

    Indices are absolute (they count from the origin of the CRS) and may be negative.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a window cannot have a negative side: {self}")

    @property
    def row_end(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def col_end(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def is_empty(self) -> bool:
        """Whether the window holds no pixel."""
        return self.height == 0 or self.width == 0

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def refined(self, n: int) -> Window:
        """Return the same ground on a grid whose pixels are `n` times smaller."""
        return Window(self.row * n, self.col * n, self.height * n, self.width * n)

    def coarsened(self, n: int) -> Window:
        """Return the smallest window of pixels `n` times larger that covers this one."""
        return Window.from_edges(
            self.row // n, self.col // n, -(-self.row_end // n), -(-self.col_end // n)
        )

    def snapped(self, n: int) -> Window:
        """Grow outwards until every edge is a multiple of `n`."""
        return self.coarsened(n).refined(n)

    def expanded(self, margin: int) -> Window:
        """Grow by `margin` pixels on each side."""
        return Window(
            self.row - margin, self.col - margin, self.height + 2 * margin, self.width + 2 * margin
        )

    def intersection(self, other: Window) -> Window:
        """Return the common part; an empty window where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        return Window(
            row,
            col,
            max(0, min(self.row_end, other.row_end) - row),
            max(0, min(self.col_end, other.col_end) - col),
        )

    def contains(self, other: Window) -> bool:
        """Whether `other` lies inside this window."""
        return self.intersection(other).shape == other.shape

    def slices_in(self, outer: Window) -> tuple[slice, slice]:
        """Index this window inside an array that covers `outer`.

        Raises:
            ValueError: If this window leaves `outer`.
        """
        if not outer.contains(self):
            raise ValueError(f"{self} leaves {outer}")
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)

    @staticmethod
    def from_edges(row: int, col: int, row_end: int, col_end: int) -> Window:
        """Build a window from its half-open edges."""
        return Window(row, col, row_end - row, col_end - col)

    @staticmethod
    def around(windows: list[Window]) -> Window:
        """Return the smallest window that holds all of a non-empty list."""
        return Window.from_edges(
            min(w.row for w in windows),
            min(w.col for w in windows),
            max(w.row_end for w in windows),
            max(w.col_end for w in windows),
        )


@dataclass(frozen=True, slots=True)
class Lattice:
    """Pixels of `gsd` CRS units anchored to the origin of `crs`.

    Attributes:
        crs: Coordinate reference system, as "EPSG:n" where it has a code, else WKT.
        gsd: Side of an anchor pixel in CRS units (metres; the CRS must be projected).
    """

    crs: str
    gsd: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gsd) and self.gsd > 0):
            raise AlignmentError(f"the anchor grid needs a positive pixel size, got {self.gsd}")

    def transform(self, window: Window, refine: int = 1) -> tuple[float, ...]:
        """Return the six affine coefficients (a, b, c, d, e, f) of a window.

        Args:
            window: Window in pixels of this lattice refined by `refine`.
            refine: How many times finer than the anchor lattice the window's pixels are.
        """
        pixel = self.gsd / refine
        return (pixel, 0.0, window.col * self.gsd / refine, 0.0, -pixel, -window.row * pixel)

    def bounds(self, window: Window, refine: int = 1) -> Bounds:
        """Return left, bottom, right, top of a window in CRS units."""
        pixel = self.gsd / refine
        return (
            window.col * pixel,
            -window.row_end * pixel,
            window.col_end * pixel,
            -window.row * pixel,
        )

    def window(self, bounds: Bounds, multiple: int = 1) -> Window:
        """Return the smallest window that covers `bounds`, its edges multiples of `multiple`.

        Args:
            bounds: left, bottom, right, top in CRS units.
            multiple: Side of the cells the window must be made of, in anchor pixels.

        Raises:
            AlignmentError: If the bounds are not finite or turned inside out.
        """
        left, bottom, right, top = bounds
        if not all(math.isfinite(edge) for edge in bounds) or right < left or top < bottom:
            raise AlignmentError(f"these bounds are not a rectangle: {bounds}")
        side = self.gsd * multiple
        return Window.from_edges(
            math.floor(-top / side + _SNAP),
            math.floor(left / side + _SNAP),
            math.ceil(-bottom / side - _SNAP),
            math.ceil(right / side - _SNAP),
        ).refined(multiple)
