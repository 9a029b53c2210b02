"""Process blocks in this process: reading, computing and writing overlap.

One thread reads ahead, the calling thread computes, one thread commits. Memory holds at most the
block in work, the blocks read ahead and the block being written, whatever the area.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from omnisat_cli.engine.device import choose_compute
from omnisat_cli.engine.finish import used_dates
from omnisat_cli.engine.memory import keep_freed_memory
from omnisat_cli.engine.network import load_network
from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.errors import BlockError
from omnisat_cli.outputs.prediction import Hole, hole_prediction
from omnisat_cli.outputs.store import BlockFacts
from omnisat_cli.runners.salvage import read_around_damage
from omnisat_cli.runners.setup import thread_count
from omnisat_cli.sources.area_ground import rasterize_area
from omnisat_cli.sources.values import Sample

if TYPE_CHECKING:
    import threading

    from numpy.typing import NDArray

    from omnisat_cli.geo.plan import Block
    from omnisat_cli.job import Execution
    from omnisat_cli.outputs.journal import BlockRecord
    from omnisat_cli.outputs.prediction import Prediction
    from omnisat_cli.outputs.store import BlockStore
    from omnisat_cli.runners.setup import Setup

log = logging.getLogger(__name__)


class Watch(Protocol):
    """Told what happens; the command line draws progress from it."""

    def start(self, blocks: int, done: int, km2: float) -> None:
        """Say how much there is and how much an earlier run finished."""

    def block(self, block: Block, record: BlockRecord, km2: float) -> None:
        """Say that a block is committed, and the ground it covers."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One block, read.

    Attributes:
        block: The block.
        sample: What was read over its reach.
        inside: (H, W) bool at output resolution over its core: the area of interest.
        faults: What could not be read, and why.
        lost: (h, w) bool, patches of its core where a modality could not be read.
    """

    block: Block
    sample: Sample
    inside: NDArray[np.bool_]
    faults: tuple[str, ...]
    lost: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finished:
    """A computed block on its way to the store.

    Attributes:
        block: The block.
        prediction: Its core.
        facts: What the journal says of it.
        km2: Ground of its core.
    """

    block: Block
    prediction: Prediction
    facts: BlockFacts
    km2: float

    def commit(self, store: BlockStore, watch: Watch, timing: Timing) -> None:
        """Store it for good and say so."""
        record = store.commit(self.block, self.prediction, self.facts)
        timing.records.append(record)
        watch.block(self.block, record, self.km2)


@dataclass(slots=True)
class Timing:
    """Where the seconds of a run went; reading and writing overlap computing.

    Attributes:
        waiting: Seconds the network waited for pixels.
        computing: Seconds of encoding, fusing and finishing.
    """

    waiting: float = 0.0
    computing: float = 0.0
    records: list[BlockRecord] = field(default_factory=list)


def load_mapper(setup: Setup, execution: Execution) -> BlockMapper:
    """Build the network of a pack in inference form on its device.

    Raises:
        CheckpointError: If the weights do not fit the card.
        JobError: If the device cannot be used.
    """
    keep_freed_memory()
    torch.set_num_threads(thread_count(execution))
    compute = choose_compute(execution.device, execution.batch)
    network = load_network(setup.pack, compute)
    return BlockMapper(network, setup.recipe, setup.plan.tiling, compute)


def run_blocks(
    setup: Setup,
    mapper: BlockMapper,
    store: BlockStore,
    watch: Watch,
    stop: threading.Event,
    prefetch: int = 1,
) -> Timing:
    """Compute every block that is not in the store yet.

    Args:
        setup: The prepared job.
        mapper: The network, ready.
        store: Where finished blocks go; blocks it holds are skipped.
        watch: Told of each block.
        stop: When set, the block in work is finished and the rest is left for a resumed run.
        prefetch: Blocks read ahead.

    Raises:
        SourceError: If an input cannot be read and holes were not allowed.
        BlockError: If a block cannot be computed and holes were not allowed.
    """
    blocks = store.pending(setup.plan.blocks)
    watch.start(len(setup.plan.blocks), len(setup.plan.blocks) - len(blocks), setup.km2)
    timing = Timing()
    with (
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        queue = iter(blocks)
        ahead = deque(
            reader.submit(load_block, setup, block) for block in islice(queue, prefetch + 1)
        )
        writing: Future[None] | None = None
        try:
            while ahead and not stop.is_set():
                begin = time.monotonic()
                loaded = ahead.popleft().result()
                following = next(queue, None)
                if following is not None:
                    ahead.append(reader.submit(load_block, setup, following))
                ready = time.monotonic()
                finished = compute_block(setup, mapper, loaded)
                timing.waiting += ready - begin
                timing.computing += time.monotonic() - ready
                if writing is not None:
                    writing.result()
                writing = writer.submit(finished.commit, store, watch, timing)
            if writing is not None:
                writing.result()
        finally:
            for future in ahead:
                future.cancel()
    return timing


def load_block(setup: Setup, block: Block) -> Loaded:
    """Read every modality over the reach of a block.

    Raises:
        SourceError: If bytes cannot be read and the job does not allow holes.
    """
    data = {}
    faults = []
    lost = np.zeros(block.reach.shape, bool)
    for name, source in setup.sources.items():
        if setup.job.on_error == "fail":
            data[name] = source.read(block.reach)
            continue
        got = read_around_damage(source, block.reach, setup.plan)
        lost |= got.lost
        if got.values is not None:
            data[name] = got.values
        if got.reason:
            log.warning("block %s without a part of %s: %s", block.name, name, got.reason)
            faults.append(f"{name}: {got.reason}")
    shape = block.core.refined(setup.recipe.refine).shape
    if setup.area is None:
        inside = np.ones(shape, bool)
    else:
        inside = rasterize_area(setup.area, setup.plan.lattice, block.core, setup.recipe.refine)
    lost = lost[block.core.slices_in(block.reach)]
    return Loaded(block, Sample(block.reach, data), inside, tuple(faults), lost)


def compute_block(setup: Setup, mapper: BlockMapper, loaded: Loaded) -> Finished:
    """Map one block; a failure becomes a hole where the job allows it."""
    begin = time.monotonic()
    block, recipe = loaded.block, setup.recipe
    faults = list(loaded.faults)
    try:
        prediction = mapper.predict(block, loaded.sample, loaded.inside, loaded.lost)
    except BlockError as error:
        if setup.job.on_error == "fail":
            raise
        faults.append(str(error))
        presence = np.where(loaded.inside, Hole.FAULT, Hole.OUTSIDE).astype(np.uint8)
        prediction = hole_prediction(presence.shape, recipe.refine, presence, recipe.extra)
    dates = {name: tuple(days) for name, days in used_dates(recipe, block, loaded.sample).items()}
    facts = BlockFacts(time.monotonic() - begin, dates, "; ".join(faults))
    km2 = block.core.height * block.core.width * setup.plan.lattice.gsd**2 / 1e6
    return Finished(block, prediction, facts, km2)
