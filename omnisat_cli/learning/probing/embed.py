"""Patch embeddings: the fused tokens of a model, blended over overlapping windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.engine.fuse import windows_with_data
from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.errors import BlockError, JobError
from omnisat_cli.networks.probe import FusedTokens
from omnisat_cli.networks.seam import HasTraits, PatchLocal, Traits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.engine.fuse import Band
    from omnisat_cli.engine.recipe import Recipe
    from omnisat_cli.geo.plan import Block, Tiling
    from omnisat_cli.networks.seam import WindowBased
    from omnisat_cli.packs.card import Card
    from omnisat_cli.sources.values import Sample


@dataclass(frozen=True, slots=True)
class Embedder:
    """A network ready to embed blocks; make one with `make_embedder`."""

    mapper: BlockMapper

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        network = self.mapper.network
        return network.traits.width if isinstance(network, HasTraits) else Traits().width

    def embed(self, block: Block, sample: Sample, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Embed one block.

        Args:
            block: The block.
            sample: What was read over its reach.
            inside: (h, w) bool over the patches of its core: the area of interest.

        Returns:
            (D, h, w), NaN where nothing was observed or outside the area; (0, h, w) where the
            whole block is so.

        Raises:
            BlockError: If the network gave values that are not finite.
        """
        nothing = np.zeros((0, *block.core.shape), np.float32)
        present = self.mapper.present(sample)
        somewhere = np.zeros(block.reach.shape, bool)
        for mask in present.values():
            somewhere |= mask
        wanted = inside & somewhere[block.core.slices_in(block.reach)]
        windows = windows_with_data(self.mapper.tiling, block, somewhere)
        if not wanted.any():
            return nothing
        values = self.mapper.fused(block, sample, windows, lambda bands: _stacked(bands, wanted))
        if not np.isfinite(values[:, wanted]).all():
            raise BlockError(
                f"block {block.name}: the network gave values that are not finite; nothing was "
                "written"
            )
        return values


def make_embedder(
    network: PatchLocal | WindowBased, recipe: Recipe, tiling: Tiling, compute: Compute
) -> Embedder:
    """Take the decoder off a network.

    Args:
        network: In inference form, on the device of `compute`.
        recipe: Of a map; only its inputs are used.
        tiling: Window lattice.
        compute: Device and batch sizes.

    Raises:
        JobError: If the network has no tokens of patches.
    """
    if not isinstance(network, PatchLocal):
        raise JobError(
            f"the model {recipe.card.name} ({recipe.card.network.kind}) sees whole windows: it has "
            "no embeddings of patches. Use an OmniSat or AnySat model"
        )
    tokens = replace(
        recipe,
        card=patch_card(recipe.card),
        refine=1,
        fine=False,
        probabilities=False,
        boundary=False,
    )
    return Embedder(BlockMapper(FusedTokens(network), tokens, tiling, compute))


def patch_card(card: Card) -> Card:
    """Return the card of a network that gives one answer a patch."""
    side = {"coarse_m": card.patch_m, "fine_m": card.patch_m, "boundary": False}
    return card.model_copy(update=side)


def _stacked(bands: Iterator[Band], wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Put bands together; NaN where nothing is wanted."""
    out: NDArray[np.float32] | None = None
    for band in bands:
        rows = band.logits.float().cpu().numpy()
        if out is None:
            out = np.full((len(rows), *wanted.shape), np.nan, np.float32)
        out[:, band.row : band.row + rows.shape[1]] = rows
    assert out is not None, "a block with data has windows"
    out[:, ~wanted] = np.nan
    return out
