"""Batches made while others are computed: by a thread, or by processes."""

from __future__ import annotations

import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from omnisat_cli.errors import OmnisatError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

T = TypeVar("T")
AHEAD = 2
"""Batches made ahead by each maker."""


class _Batches(Dataset["T | OmnisatError"], Generic[T]):
    """The batches of a training as a map from their number; an error of ours is an item."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self.make = make

    def __getitem__(self, index: int) -> T | OmnisatError:
        try:
            return self.make(index)
        except OmnisatError as error:  # raised in a process, it would become a traceback in a text
            return error


@contextmanager
def prefetched(
    make: Callable[[int], T], numbers: Sequence[int], workers: int
) -> Iterator[Iterator[T]]:
    """Make batches ahead, in order.

    Args:
        make: Gives the batch of a number; with processes it must pickle.
        numbers: Numbers of the batches.
        workers: Processes that make them; 0 = one thread of this process.

    Yields:
        The batches. What `make` raises is raised there.

    Raises:
        ResourceError: If a process was killed.
    """
    if workers:
        with closing(_from_processes(make, numbers, workers)) as batches:
            yield batches
        return
    maker = ThreadPoolExecutor(1, "batches")
    try:
        yield _from_thread(make, numbers, maker)
    finally:
        maker.shutdown(wait=True, cancel_futures=True)


def _from_thread(
    make: Callable[[int], T], numbers: Sequence[int], maker: ThreadPoolExecutor
) -> Iterator[T]:
    waiting = deque(maker.submit(make, number) for number in numbers[:AHEAD])
    for number in numbers[AHEAD:]:
        batch = waiting.popleft().result()
        waiting.append(maker.submit(make, number))
        yield batch
    while waiting:
        yield waiting.popleft().result()


def _from_processes(make: Callable[[int], T], numbers: Sequence[int], workers: int) -> Generator[T]:
    loader: DataLoader[T | OmnisatError] = DataLoader(
        _Batches(make),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=AHEAD,
        worker_init_fn=_settle,
        multiprocessing_context="spawn",  # readers of HDF5 files do not survive a fork
    )
    try:
        for batch in loader:
            if isinstance(batch, OmnisatError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ResourceError(
            f"a process that reads training data was killed ({str(error).splitlines()[0]}); it "
            "may have run out of memory: use fewer --loaders or a smaller --batch"
        ) from error


def _settle(_number: int) -> None:
    """Leave Ctrl-C to the process that trains, and the cores to its computing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
