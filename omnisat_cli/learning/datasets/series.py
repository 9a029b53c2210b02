"""Stacks of dated images as `Series`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.sources.values import Series

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_series(
    pixels: NDArray[np.generic],
    days: NDArray[np.datetime64],
    hidden: NDArray[np.bool_] | None = None,
) -> Series:
    """Make a series, dates ascending.

    Two images of one day stay two images, as the published datasets use them. A pixel whose bands
    are all 0, or any of which is not finite, is no data: optical products fill with 0.

    Args:
        pixels: (T, C, H, W).
        days: (T,) datetime64[D], in any order.
        hidden: (T, H, W), True under clouds or snow that are to be masked.
    """
    order = np.argsort(days, kind="stable")
    values = np.asarray(pixels[order], dtype=np.float32)
    seen = np.isfinite(values).all(axis=1) & (values != 0).any(axis=1)
    clouded = np.zeros_like(seen) if hidden is None else hidden[order] & seen
    valid = seen & ~clouded
    return Series(np.where(valid[:, None], values, 0), days[order], valid, clouded)
