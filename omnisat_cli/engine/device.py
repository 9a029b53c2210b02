"""Where tensors live, in which precision, and what to do when memory runs out."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from omnisat_cli.errors import JobError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Compute:
    """A device and the batch sizes that fit it.

    Attributes:
        device: The torch device.
        windows: Fusion windows a batch; halved when memory runs out.
        cells: Encoding cells a batch; 1 on a CPU, where small batches stay in the cache.
    """

    device: torch.device
    windows: int
    cells: int

    @property
    def on_gpu(self) -> bool:
        """Whether mixed precision and large batches pay."""
        return self.device.type == "cuda"

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Run without gradients; in bfloat16 on a GPU, in float32 on a CPU."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu),
        ):
            yield

    def with_windows(self, run: Callable[[int], T]) -> T:
        """Call `run(windows)`, halving the batch each time memory runs out.

        Raises:
            ResourceError: If a single window does not fit.
        """
        while True:
            try:
                return run(self.windows)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if self.windows == 1:
                    raise ResourceError(
                        f"one window does not fit the memory of {self.device}: {error}; "
                        "close other programs or use --device cpu"
                    ) from error
                self.windows = self.windows // 2
                self.cells = max(1, self.cells // 2)
                log.warning("out of memory on %s: batch halved to %d", self.device, self.windows)
                if self.on_gpu:
                    torch.cuda.empty_cache()


def choose_compute(device: str, windows: int | None = None) -> Compute:
    """Choose the device and the first batch sizes.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:n".
        windows: Fusion windows a batch, or None to choose.

    Raises:
        JobError: If the device does not exist here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(
            f"--device {device} cannot be used: {reason}; see `omnisat doctor`"
        ) from error
    on_gpu = chosen.type == "cuda"
    return Compute(chosen, windows or (32 if on_gpu else 1), 64 if on_gpu else 1)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "not enough memory" in str(error) or "can't allocate memory" in str(error)
    )
