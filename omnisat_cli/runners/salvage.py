"""Read what can be read of ground where some bytes are damaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.sources.values import Image, Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.geo.plan import Plan
    from omnisat_cli.sources.values import Source


@dataclass(frozen=True, slots=True)
class Salvage:
    """What could be read of one modality.

    Attributes:
        values: The window, not valid where it is lost; None where nothing could be read.
        lost: (h, w) bool, anchor pixels of the window that could not be read.
        reason: Why, or "".
    """

    values: Image | Series | None
    lost: NDArray[np.bool_]
    reason: str


def read_around_damage(source: Source, window: Window, plan: Plan) -> Salvage:
    """Read a window; where that fails read its halves, down to single encoding cells.

    Cells belong to the lattice, so what is lost does not depend on the window.

    Args:
        source: The modality.
        window: Anchor pixels, made of whole cells.
        plan: For the lattice and the side of a cell.
    """
    lost = np.zeros(window.shape, bool)
    parts: list[tuple[Window, Image | Series]] = []
    reason = ""
    waiting = [window]
    while waiting:
        part = waiting.pop()
        try:
            parts.append((part, source.read(part)))
        except SourceError as error:
            reason = reason or str(error)
            halves = _halves(part, plan.tiling.cell)
            waiting += halves
            if not halves:
                lost[part.slices_in(window)] = True
    return Salvage(
        _joined(parts, window, source.refine), _under(source, window, plan, lost), reason
    )


def _halves(window: Window, cell: int) -> list[Window]:
    """Cut the longer side at a cell; nothing for a single cell."""
    row, col, row_end, col_end = window.row, window.col, window.row_end, window.col_end
    rows, cols = window.height // cell, window.width // cell
    if max(rows, cols) <= 1:
        return []
    if rows >= cols:
        middle = row + rows // 2 * cell
        edges = ((row, col, middle, col_end), (middle, col, row_end, col_end))
    else:
        middle = col + cols // 2 * cell
        edges = ((row, col, row_end, middle), (row, middle, row_end, col_end))
    return [Window.from_edges(*edge) for edge in edges]


def _joined(
    parts: list[tuple[Window, Image | Series]], window: Window, refine: int
) -> Image | Series | None:
    """Paste parts into a window that is not valid elsewhere."""
    if not parts:
        return None
    if len(parts) == 1 and parts[0][0] == window:
        return parts[0][1]
    shape = window.refined(refine).shape
    first = parts[0][1]

    def blank(array: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.zeros((*array.shape[:-2], *shape), array.dtype)

    names = ("pixels", "valid") if isinstance(first, Image) else ("pixels", "valid", "clouded")
    whole = {name: blank(getattr(first, name)) for name in names}
    for part, values in parts:
        rows, cols = part.refined(refine).slices_in(window.refined(refine))
        for name, array in whole.items():
            array[..., rows, cols] = getattr(values, name)
    if isinstance(first, Image):
        return Image(**whole)  # type: ignore[arg-type]
    return Series(dates=first.dates, **whole)  # type: ignore[arg-type]


def _under(
    source: Source, window: Window, plan: Plan, lost: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Keep what lies under the files: beside them nothing could be lost."""
    if not lost.any():
        return lost
    covered = np.zeros_like(lost)
    for bounds in source.footprints:
        common = plan.lattice.window(bounds).intersection(window)
        if not common.is_empty:
            covered[common.slices_in(window)] = True
    return lost & covered
