"""The devices a training runs on, and a network as they take it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn

from omnisat_cli.errors import JobError
from omnisat_cli.learning.training.lesson import Movable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightning_fabric import Fabric

    from omnisat_cli.learning.training.lesson import FitSpec

B = TypeVar("B", bound=Movable)


def make_fabric(spec: FitSpec) -> Fabric:
    """Return Fabric on the devices asked for; with several, the other processes start here.

    Raises:
        JobError: If the device or the precision is not to be had.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    cuda = torch.cuda.is_available()
    kind, _, number = spec.device.partition(":")
    if kind == "auto":
        kind = "cuda" if cuda else "cpu"
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not cuda):
        raise JobError(f"--device {spec.device} cannot be used here; see `omnisat doctor`")
    there = torch.cuda.device_count() if kind == "cuda" else spec.devices
    if spec.devices > there or (number and not (number.isdigit() and int(number) < there)):
        raise JobError(
            f"--device {spec.device} --devices {spec.devices}: this machine has {there} GPUs"
        )
    if spec.precision == "16-mixed" and kind == "cpu":
        raise JobError("--precision 16-mixed needs a GPU; use bf16-mixed or 32")
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number else spec.devices,
        strategy="ddp_find_unused_parameters_true" if spec.devices > 1 else "auto",
        precision="32-true" if spec.precision == "32" else spec.precision,
    )
    fabric.launch()
    return fabric


class Parcel(Generic[B]):
    """A batch in a wrapper that nothing on the way opens, converts or copies."""

    def __init__(self, batch: B) -> None:
        self.batch = batch


class Whole(nn.Module, Generic[B]):
    """Network and losses as one module: devices exchange gradients around its `forward`."""

    def __init__(self, network: nn.Module, losses: Callable[[B], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.network = network
        self.losses = losses

    def forward(self, parcel: Parcel[B]) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        return dict(self.losses(parcel.batch))
