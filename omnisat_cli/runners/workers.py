"""Process blocks in several processes of this machine, with dask.distributed.

Each worker opens the sources and builds the network once, computes blocks and hands their finished
layers back; this process alone writes. A block is computed in the same way wherever it lands, so
the map is that of `local.run_blocks` with as many threads a process.
"""

from __future__ import annotations

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING

from distributed import Client, KilledWorker, LocalCluster, as_completed

from omnisat_cli.errors import BlockError
from omnisat_cli.runners.local import (
    Finished,
    Timing,
    compute_block,
    load_block,
    load_mapper,
)

if TYPE_CHECKING:
    import threading

    from distributed import Future

    from omnisat_cli.engine.process import BlockMapper
    from omnisat_cli.geo.plan import Block
    from omnisat_cli.job import Execution
    from omnisat_cli.outputs.store import BlockStore
    from omnisat_cli.runners.local import Watch
    from omnisat_cli.runners.setup import Setup

log = logging.getLogger(__name__)

_AHEAD = 2
"""Blocks submitted for each worker: one in work, one waiting."""

_mappers: dict[str, BlockMapper] = {}
"""The network of this worker process, by staging target; loading it costs seconds."""


def run_blocks_in_workers(
    setup: Setup,
    execution: Execution,
    store: BlockStore,
    watch: Watch,
    stop: threading.Event,
) -> Timing:
    """Compute every block that is not in the store yet.

    Args:
        setup: The prepared job; it is sent to each worker once.
        execution: `workers` processes of `threads` threads.
        store: Where finished blocks go; only this process writes to it.
        watch: Told of each block.
        stop: When set, blocks in work are dropped and left for a resumed run.

    Raises:
        SourceError: If an input cannot be read and holes were not allowed.
        BlockError: If a block cannot be computed, or kills the workers that try.
    """
    blocks = store.pending(setup.plan.blocks)
    watch.start(len(setup.plan.blocks), len(setup.plan.blocks) - len(blocks), setup.km2)
    timing = Timing()
    if not blocks:
        return timing
    count = min(execution.workers, len(blocks))
    with (
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        begin = time.monotonic()
        _drain(client, (setup, execution), blocks, (store, watch, stop, timing))
        timing.computing = time.monotonic() - begin
    return timing


def _drain(
    client: Client,
    what: tuple[Setup, Execution],
    blocks: tuple[Block, ...],
    run: tuple[BlockStore, Watch, threading.Event, Timing],
) -> None:
    """Keep a few blocks submitted for each worker and commit what comes back."""
    store, watch, stop, timing = run
    setup, execution = what
    shared = client.scatter(what, broadcast=True)
    queue = iter(blocks)

    def submit(block: Block) -> Future:
        return client.submit(_process, shared, block, pure=False)

    ahead = execution.workers * _AHEAD
    waiting = {submit(block): block for block in islice(queue, ahead)}
    done = as_completed(list(waiting))
    for future in done:
        block = waiting.pop(future)
        finished = _result(future, block)
        future.release()
        finished.commit(store, watch, timing)
        if stop.is_set():
            client.cancel(list(waiting))
            return
        following = next(queue, None)
        if following is not None:
            submitted = submit(following)
            waiting[submitted] = following
            done.add(submitted)
    log.info("%d workers computed %d blocks of %s", execution.workers, len(blocks), setup.job.out)


def _result(future: Future, block: Block) -> Finished:
    try:
        finished: Finished = future.result()
    except KilledWorker as error:
        raise BlockError(
            f"block {block.name} killed the workers that tried it (out of memory, or a codec that "
            "crashed); lower --memory or --workers, or find the file with `omnisat inspect`"
        ) from error
    return finished


def _process(what: tuple[Setup, Execution], block: Block) -> Finished:
    """Compute one block in a worker."""
    setup, execution = what
    key = f"{setup.job.out}:{setup.pack.card.weights_sha256}"
    if key not in _mappers:
        _mappers.clear()
        _mappers[key] = load_mapper(setup, execution)
    return compute_block(setup, _mappers[key], load_block(setup, block))
