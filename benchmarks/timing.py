"""The median time of calls in this process, for the children of the benchmarks."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def median_seconds(run: Callable[[], object], times: int, device: str = "cpu") -> float:
    """Call something once to warm up, then a few times.

    Args:
        run: What is timed.
        times: Calls that count.
        device: "cpu" counts CPU seconds of the process; a GPU is waited for, by the clock.
    """
    on_gpu = device != "cpu"
    clock = time.perf_counter if on_gpu else time.process_time
    spent = []
    for number in range(times + 1):
        begin = clock()
        run()
        if on_gpu:
            import torch

            torch.cuda.synchronize()
        if number:
            spent.append(clock() - begin)
    return statistics.median(spent)
