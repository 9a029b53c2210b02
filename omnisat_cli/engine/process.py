"""One block, from what was read to a finished prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from omnisat_cli.engine.encode import encode_sample, present_patches
from omnisat_cli.engine.finish import account, finish_block
from omnisat_cli.engine.fuse import (
    fuse_block,
    token_predictor,
    window_predictor,
    windows_with_data,
)
from omnisat_cli.networks.seam import HasTraits, PatchLocal, WindowBased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.engine.fuse import Band
    from omnisat_cli.engine.recipe import Recipe
    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.geo.plan import Block, Tiling
    from omnisat_cli.outputs.prediction import Prediction
    from omnisat_cli.sources.values import Sample

T = TypeVar("T")


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
        self,
        block: Block,
        sample: Sample,
        inside: NDArray[np.bool_],
        lost: NDArray[np.bool_] | None = None,
    ) -> Prediction:
        """Map one block.

        Args:
            block: The block.
            sample: What was read over its reach.
            inside: (H, W) bool at output resolution over its core: the area of interest.
            lost: (h, w) bool, patches of its core where a modality could not be read.

        Returns:
            The prediction of the core.
        """
        if lost is None:
            lost = np.zeros(block.core.shape, bool)
        present = self.present(sample)
        seen = account(self.recipe, block, sample, present)
        somewhere = np.zeros(block.reach.shape, bool)
        for mask in present.values():
            somewhere |= mask
        windows = windows_with_data(self.tiling, block, somewhere) if inside.any() else []
        if not windows:
            return finish_block(self.recipe, None, seen, inside, lost)
        # Labelled row by row while it is blended: no map of all logits is ever held.
        return self.fused(
            block,
            sample,
            windows,
            lambda bands: finish_block(self.recipe, bands, seen, inside, lost),
        )

    def present(self, sample: Sample) -> dict[str, NDArray[np.bool_]]:
        """Return, for each modality that was read, the patches (h, w) at which it can be used."""
        any_pixel = not isinstance(self.network, PatchLocal)
        least = self.recipe.card.min_dates
        feeds = [feed for feed in self.recipe.feeds if feed.name in sample.data]
        present = {
            feed.name: present_patches(feed, sample.data[feed.name], least, any_pixel=any_pixel)
            for feed in feeds
        }
        local = [present[feed.name] for feed in feeds if not feed.is_context]
        seen = np.logical_or.reduce(local) if local else np.zeros(sample.window.shape, bool)
        needed = self.network.traits.needed if isinstance(self.network, HasTraits) else ()
        for name in needed:
            seen = seen & present.get(name, np.zeros(sample.window.shape, bool))
        for feed in feeds:
            if feed.is_context or needed:
                present[feed.name] &= seen
        return present

    def fused(
        self,
        block: Block,
        sample: Sample,
        windows: list[Window],
        use: Callable[[Iterator[Band]], T],
    ) -> T:
        """Blend some windows over the core of a block and use the result.

        Args:
            block: The block.
            sample: What was read over its reach.
            windows: Windows over the core, in lattice order.
            use: Takes the bands from top to bottom. Called again with fresh ones if memory runs
                out on the way.

        Returns:
            What `use` returns.
        """
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
                lambda batch: use(fuse_block(predict, recipe, self.tiling, block, windows, batch))
            )
