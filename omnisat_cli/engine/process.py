"""One block, from what was read to a finished prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.engine.encode import encode_sample, present_patches
from omnisat_cli.engine.finish import account, finish_block
from omnisat_cli.engine.fuse import (
    fuse_block,
    token_predictor,
    window_predictor,
    windows_with_data,
)
from omnisat_cli.networks.seam import PatchLocal, WindowBased

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.engine.fuse import Canvas
    from omnisat_cli.engine.recipe import Recipe
    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.geo.plan import Block, Tiling
    from omnisat_cli.outputs.prediction import Prediction
    from omnisat_cli.sources.values import Sample


@dataclass(frozen=True, slots=True)
class BlockMapper:
    """A network ready to map blocks.

    Attributes:
        network: On the device of `compute`, in inference form.
        recipe: What goes in and what comes out.
        tiling: Window lattice.
        compute: Device and batch sizes.
    """

    network: PatchLocal | WindowBased
    recipe: Recipe
    tiling: Tiling
    compute: Compute

    def predict(
        self, block: Block, sample: Sample, inside: NDArray[np.bool_], *, faulty: bool = False
    ) -> Prediction:
        """Map one block.

        Args:
            block: The block.
            sample: What was read over its reach.
            inside: (H, W) bool at output resolution over its core: the area of interest.
            faulty: Whether a modality could not be read here.

        Returns:
            The prediction of the core.
        """
        present = self._present(sample, block)
        seen = account(self.recipe, block, sample)
        windows = windows_with_data(self.tiling, block, present) if inside.any() else []
        canvas = self.canvas(block, sample, windows) if windows else None
        return finish_block(self.recipe, canvas, seen, inside, faulty)

    def _present(self, sample: Sample, block: Block) -> NDArray[np.bool_]:
        total = np.zeros(block.reach.shape, bool)
        for feed in self.recipe.feeds:
            values = sample.data.get(feed.name)
            if values is not None:
                total |= present_patches(feed, values, self.recipe.card.min_dates)
        return total

    def canvas(self, block: Block, sample: Sample, windows: list[Window]) -> Canvas:
        """Return the blended output of some windows over the core of a block."""
        compute, recipe = self.compute, self.recipe
        with compute.inference():
            if isinstance(self.network, PatchLocal):
                network = self.network
                tokens = compute.with_windows(
                    lambda _: encode_sample(network, recipe, sample, compute)
                )
                predict = token_predictor(network, recipe, tokens, block.reach)
            else:
                predict = window_predictor(self.network, recipe, sample, compute)
            return compute.with_windows(
                lambda batch: fuse_block(predict, recipe, self.tiling, block, windows, batch)
            )
