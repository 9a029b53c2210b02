"""Blocks of a prepared job, one after the other, without keeping them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from omnisat_cli.runners.local import compute_block, load_block

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from omnisat_cli.engine.process import BlockMapper
    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.geo.plan import Block
    from omnisat_cli.runners.local import Loaded
    from omnisat_cli.runners.setup import Setup


def loaded_blocks(setup: Setup, blocks: Sequence[Block], stop: threading.Event) -> Iterator[Loaded]:
    """Read blocks, one ahead of the one in work.

    Args:
        setup: The prepared job.
        blocks: Which blocks of its plan.
        stop: When set, no further block is given.

    Raises:
        SourceError: If an input cannot be read.
    """
    with ThreadPoolExecutor(1, "read") as reader:
        queue = iter(blocks)
        first = next(queue, None)
        ahead = None if first is None else reader.submit(load_block, setup, first)
        while ahead is not None and not stop.is_set():
            loaded = ahead.result()
            following = next(queue, None)
            ahead = None if following is None else reader.submit(load_block, setup, following)
            yield loaded
        if ahead is not None:
            ahead.cancel()


def mapped_blocks(
    setup: Setup, mapper: BlockMapper, stop: threading.Event
) -> Iterator[tuple[Window, NDArray[np.uint8]]]:
    """Map a job block by block.

    Yields:
        Where a block lies, in output pixels from the corner of the map, and its classes.
    """
    frame = setup.plan.area.refined(setup.recipe.refine)
    for loaded in loaded_blocks(setup, setup.plan.blocks, stop):
        core = loaded.block.core.refined(setup.recipe.refine)
        rows, cols = core.slices_in(frame)
        place = core.__class__(rows.start, cols.start, *core.shape)
        yield place, compute_block(setup, mapper, loaded).prediction.classes
