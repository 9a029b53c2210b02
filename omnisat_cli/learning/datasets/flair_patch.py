"""What every edition of FLAIR has in common: patches of 512 px of 0.2 m with 10 × 10 of Sentinel.

The centre 500 × 500 px of images and labels are used, ten patches of 10 m a side. (Official
training draws that crop at random and leaves the Sentinel pixels where they are.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets.layout import read_raster
from omnisat_cli.learning.datasets.windows import Cut, cut_of, slices_of
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.outputs.legend import legend
from omnisat_cli.sources.values import Image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.outputs.legend import Legend

PATCH_M, SIDE = 10.0, 10
REFINE = 50
"""Pixels of 0.2 m along a patch."""

_STORED_PX = 512
_MARGIN_PX = (_STORED_PX - SIDE * REFINE) // 2


def centre(window: Window) -> tuple[slice, slice]:
    """Return rows and columns of a window of patches in an image or mask of 512 px."""
    rows, cols = slices_of(window, REFINE)
    return (
        slice(rows.start + _MARGIN_PX, rows.stop + _MARGIN_PX),
        slice(cols.start + _MARGIN_PX, cols.stop + _MARGIN_PX),
    )


def read_image(path: Path, stored: int, used: int, window: Window) -> Image:
    """Read a window of an aerial image.

    Args:
        path: File of 512 × 512 px.
        stored: Bands it has.
        used: How many of them, from the first, are delivered.
        window: In patches.

    Raises:
        SourceError: If it is missing, damaged or of another form.
    """
    shape = (_STORED_PX, _STORED_PX)
    pixels = read_raster(path, stored, ("uint8",), shape, centre(window))[:used]
    return Image(np.asarray(pixels, np.uint8), np.ones(pixels.shape[1:], bool))


def read_mask(path: Path, known: Legend, merged: Mapping[int, int]) -> NDArray[np.uint8]:
    """Read the classes of a whole patch.

    Args:
        path: File of 512 × 512 px; its first band counts.
        known: Legend of the result.
        merged: Stored code to the code it is replaced by; 255 = not labelled.

    Raises:
        SourceError: If it is missing, damaged, of another form, or holds unknown codes.
    """
    stored = np.asarray(read_raster(path, None, ("uint8",), (_STORED_PX, _STORED_PX))[0], np.uint8)
    table = np.full(256, -1, np.int16)
    table[list(known.codes)] = known.codes
    for code, target in merged.items():
        table[code] = target
    classes = table[stored]
    if (classes < 0).any():
        unknown = np.unique(stored[classes < 0]).tolist()
        raise SourceError(f"{path} holds codes {unknown}, which {known.id} does not know")
    return classes.astype(np.uint8)


def tags_of(classes: NDArray[np.uint8], known: Legend) -> NDArray[np.uint8]:
    """Return (K,) uint8: 1 where a class occurs anywhere in a patch."""
    return np.isin(known.codes, classes[classes != UNLABELLED]).astype(np.uint8)


def flair_cut(request: Request) -> Cut:
    """Return how patches are cut into windows.

    Raises:
        JobError: If a window is larger than a patch, or its patches are not of 10 m.
    """
    request.patch(PATCH_M)
    cut = cut_of(request.options.side, request.options.stride, SIDE)
    if cut.side > SIDE:
        raise JobError(f"{request.name} has {SIDE} patches of 10 m a side, fewer than {cut.side}")
    return cut


def flair_legend(request: Request, *names: str) -> Legend:
    """Return the legend asked for; the first name is the default.

    Raises:
        JobError: If the edition has no such classes.
    """
    wanted = request.options.legend or names[0]
    if wanted not in names:
        raise JobError(f"{request.name} at {request.root} has {' or '.join(names)}, not {wanted}")
    return legend(wanted)
