"""Weighted blending of overlapping windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ramp(size: int, overlap: int) -> NDArray[np.float32]:
    """Blending weight of a window along one axis.

    Args:
        size: Side of the window, in output pixels.
        overlap: Pixels it shares with each neighbour.

    Returns:
        (size,) weights in (0, 1]. Windows laid every `size - overlap` pixels sum to 1.

    Raises:
        JobError: If more than two windows would meet at a pixel.
    """
    if 2 * overlap > size:
        raise JobError(
            f"an overlap of {overlap} px does not fit a {size} px window; use at most {size // 2}"
        )
    weight = np.ones(size, np.float32)
    if overlap:
        rise = (np.arange(overlap, dtype=np.float64) + 0.5) / overlap
        weight[:overlap] = rise
        weight[size - overlap :] = rise[::-1]
    return weight


def window_weight(size: int, overlap: int) -> NDArray[np.float32]:
    """Return the (size, size) product of two ramps; see `ramp`."""
    line = ramp(size, overlap)
    return np.outer(line, line)
