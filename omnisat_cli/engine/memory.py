"""Keep freed memory in the process: fresh pages are what large tensors cost on a CPU."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**30


def keep_freed_memory() -> bool:
    """Let glibc reuse large freed blocks instead of giving them back and faulting them in again.

    The page faults of fresh large tensors are a large part of inference on a CPU. With these
    thresholds a block is taken from the heap and stays there; the peak is not changed by it, since
    blocks of one run have the same sizes again and again.

    Returns:
        Whether the allocator understood; False outside Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST - 1)
    )
