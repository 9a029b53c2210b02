"""`omnisat predict` whose network is replaced by one that computes nothing.

    python benchmarks/null_predict.py predict --aerial image.tif --model packs/null -o map.tif

The class of a pixel is its first band modulo the number of classes, whatever the window: what is
left of the run is the own cost of omnisat, and the map can be checked pixel by pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisat_cli.engine import network
from omnisat_cli.networks.seam import Dense

if TYPE_CHECKING:
    from collections.abc import Mapping

CLASSES = 19


class NullNetwork(nn.Module):
    """First band modulo the classes, as one-hot logits."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unused", torch.zeros(1))

    def predict(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],  # noqa: ARG002 - images have no days
        valid: Mapping[str, Tensor],  # noqa: ARG002 - every pixel has a class
    ) -> Dense:
        """Label windows; see `WindowBased.predict`."""
        return Dense(one_hot(pixels["aerial"][:, 0]))


def one_hot(band: Tensor) -> Tensor:
    """Return (B, K, h, w) float32 one-hot logits of (B, h, w) digital numbers."""
    code = band.to(torch.int64).remainder_(CLASSES).unsqueeze(1)
    return torch.zeros(len(band), CLASSES, *band.shape[1:]).scatter_(1, code, 1.0)


def main() -> None:
    """Run the command line with the network replaced."""
    from omnisat_cli.__main__ import main as command_line

    setattr(network, "build_network", lambda _kind, _config: NullNetwork())  # noqa: B010
    setattr(network, "fold_for_inference", lambda module: module)  # noqa: B010
    command_line()


if __name__ == "__main__":
    main()
