"""Cut an area into blocks and fusion windows: pure arithmetic, nothing is read.

Blocks and windows are cells of lattices anchored to the CRS origin. A block is the unit of work:
its core is written, its halo is the ground its fusion windows need beyond the core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError
from omnisat_cli.geo.lattice import Lattice, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Block:
    """Unit of work: frozen, picklable, idempotent.

    Attributes:
        index: (row, col) of the block on the block lattice.
        core: Anchor pixels this block writes.
        reach: Anchor pixels it reads: the core and the halo its windows need.
    """

    index: tuple[int, int]
    core: Window
    reach: Window

    @property
    def name(self) -> str:
        """File-system name of the block."""
        return f"r{self.index[0]:+07d}_c{self.index[1]:+07d}"


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an area is cut, in anchor pixels.

    Attributes:
        block: Side of a block; a multiple of `cell`, so that cells never straddle two blocks.
        window: Side of a fusion window.
        stride: Distance between two windows; `window - stride` is their overlap.
        cell: Side of an encoding cell: the patches that are encoded in one call. What a cell
            computes depends on its own ground alone, so a map does not depend on the blocks.
    """

    block: int
    window: int
    stride: int
    cell: int

    def __post_init__(self) -> None:
        if min(self.block, self.window, self.stride, self.cell) < 1:
            raise JobError(f"block, window, stride and cell must be positive: {self}")
        if self.stride > self.window:
            raise JobError(f"windows of {self.window} px laid every {self.stride} px leave gaps")
        if self.block % self.cell:
            raise JobError(f"a block of {self.block} px is no multiple of the {self.cell} px cell")

    def windows_over(self, area: Window) -> Iterator[Window]:
        """Yield every window of the lattice that meets `area`, row by row."""
        for row in _starts(area.row, area.row_end, self.window, self.stride):
            for col in _starts(area.col, area.col_end, self.window, self.stride):
                yield Window(row, col, self.window, self.window)

    def reach(self, core: Window) -> Window:
        """Return the ground the windows over `core` need, in whole cells."""
        rows = _starts(core.row, core.row_end, self.window, self.stride)
        cols = _starts(core.col, core.col_end, self.window, self.stride)
        return Window.from_edges(
            rows[0], cols[0], rows[-1] + self.window, cols[-1] + self.window
        ).snapped(self.cell)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be computed where.

    Attributes:
        lattice: The anchor lattice.
        area: Bounding window of the map, in anchor pixels.
        tiling: How it is cut.
        blocks: Units of work, row by row.
    """

    lattice: Lattice
    area: Window
    tiling: Tiling
    blocks: tuple[Block, ...]


def make_plan(
    lattice: Lattice,
    area: Window,
    tiling: Tiling,
    keep: Callable[[Window], bool] = lambda _: True,
) -> Plan:
    """Cut an area into blocks.

    Args:
        lattice: The anchor lattice.
        area: Bounding window of the map, in anchor pixels.
        tiling: Block, window, stride and cell sides.
        keep: Tells whether the core of a block holds any ground of the area of interest.

    Returns:
        The plan; its cores are disjoint and cover every kept part of `area`.
    """
    cells = area.coarsened(tiling.block)
    blocks = []
    for row in range(cells.row, cells.row_end):
        for col in range(cells.col, cells.col_end):
            core = Window(row, col, 1, 1).refined(tiling.block).intersection(area)
            if keep(core):
                blocks.append(Block((row, col), core, tiling.reach(core)))
    return Plan(lattice, area, tiling, tuple(blocks))


def _starts(begin: int, end: int, window: int, stride: int) -> range:
    """Starts of all windows of the lattice `k * stride` that meet `[begin, end)`."""
    first = (begin - window) // stride + 1
    last = -(-end // stride) - 1
    return range(first * stride, last * stride + 1, stride)
