"""Map one example through the engine, as `predict` would map its ground."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.engine.recipe import Recipe, draws_fine, output_refine
from omnisat_cli.errors import JobError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Tiling, make_plan
from omnisat_cli.learning.data.windows import make_reader
from omnisat_cli.networks.seam import HasTraits
from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.engine.recipe import Feed
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.networks.seam import PatchLocal, WindowBased
    from omnisat_cli.packs.card import Card

Scalar = TypeVar("Scalar", bound=np.generic)

_BLOCK = 64
"""Patches along a block of a large example."""
_LEAST_POWER = 1e-10
"""Linear radar power that stands for silence when it is turned into decibels (-100 dB)."""


@dataclass(frozen=True, slots=True)
class SampleMapper:
    """A network that maps samples.

    Attributes:
        network: On the device of `compute`, in inference form.
        card: Its card.
        codes: Legend code of each class.
        feeds: How each modality of the samples becomes input of the network.
        linear: Modalities that the samples give in linear power.
        compute: Device and batch sizes.
    """

    network: PatchLocal | WindowBased
    card: Card
    codes: tuple[int, ...]
    feeds: tuple[Feed, ...]
    compute: Compute
    linear: frozenset[str] = frozenset()

    @property
    def needed(self) -> tuple[str, ...]:
        """Modalities without which the network makes no map."""
        return self.network.traits.needed if isinstance(self.network, HasTraits) else ()

    def recipe(self, names: tuple[str, ...], label_refine: int | None = None) -> Recipe:
        """Say what to compute from some of the modalities.

        Args:
            names: Modalities to use.
            label_refine: Pixels of the labels along a patch, if they need no finer map.
        """
        feeds = tuple(feed for feed in self.feeds if feed.name in names)
        traits = self.network.traits if isinstance(self.network, HasTraits) else None
        lacking = [name for name in self.needed if name not in names]
        if lacking:
            raise JobError(
                f"{self.card.name} draws its map from {', '.join(lacking)}: it cannot be measured "
                f"on {'+'.join(names)}; name other --subsets"
            )
        refine, fine = _output(self.card, label_refine, has_fine=draws_fine(traits, feeds))
        return Recipe(self.card, feeds, self.codes, refine, fine)

    def map(self, sample: Sample, recipe: Recipe) -> NDArray[np.uint8]:
        """Map a sample.

        A sample no larger than a window of the network is seen as one window, as in training; a
        larger one lies where it lies and is mapped block by block.

        Args:
            sample: Its imagery; modalities outside the recipe are not looked at.
            recipe: From `recipe`.

        Returns:
            (h refine, w refine) legend codes; 255 where there is no class.
        """
        data = {
            feed.name: self._canonical(feed.name, sample.data[feed.name])
            for feed in recipe.feeds
            if feed.name in sample.data
        }
        size = self.card.window.size
        window, stride = sample.window, size - self.card.window.overlap
        if max(window.shape) <= size:
            window, stride = Window(0, 0, *window.shape), size
        tiling = Tiling(_block(self.card.window.cell), size, stride, self.card.window.cell)
        mapper = BlockMapper(self.network, recipe, tiling, self.compute)
        out = np.full(window.refined(recipe.refine).shape, NODATA, np.uint8)
        sizes = {feed.name: feed.refine for feed in recipe.feeds}
        # The CRS is not looked at: blocks are integers.
        for block in make_plan(Lattice("EPSG:2154", self.card.patch_m), window, tiling).blocks:
            core = block.core.refined(recipe.refine)
            part = cut_sample(Sample(window, data), block.reach, sizes)
            found = mapper.predict(block, part, np.ones(core.shape, bool))
            out[core.slices_in(window.refined(recipe.refine))] = found.classes
        return out

    def _canonical(self, name: str, values: Image | Series) -> Image | Series:
        """Return linear radar power as decibels; anything else as it is."""
        if name not in self.linear or isinstance(values, Image):
            return values
        decibels = 10.0 * np.log10(np.maximum(values.pixels, _LEAST_POWER))
        return replace(values, pixels=decibels.astype(np.float32))


def mapper_for(
    network: PatchLocal | WindowBased,
    card: Card,
    codes: tuple[int, ...],
    examples: Examples,
    compute: Compute,
) -> SampleMapper:
    """Match a network with what a set of examples delivers.

    Raises:
        JobError: If patches, pixels or units differ, or no modality is common.
    """
    if abs(examples.patch_m - card.patch_m) > 1e-6 * card.patch_m:
        raise JobError(
            f"{examples.name} has patches of {examples.patch_m:g} m, {card.name} of "
            f"{card.patch_m:g} m: it cannot be evaluated on them"
        )
    channels = {channel.name: channel for channel in examples.channels}
    readers = [
        make_reader(channels[entry.name], entry, card.patch_m)
        for entry in card.modalities
        if entry.name in channels
    ]
    if not readers:
        raise JobError(
            f"{examples.name} has {', '.join(channels)}, {card.name} uses {', '.join(card.names)}: "
            "no modality in common"
        )
    linear = frozenset(reader.feed.name for reader in readers if reader.linear)
    feeds = tuple(reader.feed for reader in readers)
    return SampleMapper(network, card, codes, feeds, compute, linear)


def cut_sample(sample: Sample, window: Window, refine: Mapping[str, int]) -> Sample:
    """Cut a window out of a sample; ground outside of it is not valid.

    Args:
        sample: Everything there is.
        window: In anchor pixels; may reach beyond the sample.
        refine: Modality to its pixels along an anchor pixel.
    """
    data: dict[str, Image | Series] = {}
    for name, values in sample.data.items():
        places = (sample.window, window, refine[name])
        if isinstance(values, Image):
            pixels = cast(
                "NDArray[np.uint8]", _cut(values.pixels, *places)
            )  # or float32, as it was
            data[name] = Image(pixels, _cut(values.valid, *places))
        else:
            data[name] = Series(
                _cut(values.pixels, *places),
                values.dates,
                _cut(values.valid, *places),
                _cut(values.clouded, *places),
            )
    return Sample(window, data)


def on_labels(mapped: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a map on the grid of its labels: the pixel under the centre of each label."""
    rows, cols = (
        ((np.arange(want) + 0.5) * have / want).astype(int)
        for have, want in zip(mapped.shape, shape, strict=True)
    )
    return mapped[np.ix_(rows, cols)]


def _output(card: Card, label_refine: int | None, *, has_fine: bool) -> tuple[int, bool]:
    """Choose the output that the labels can judge: no finer than they are, if there is one."""
    finest = card.fine_m if has_fine else card.coarse_m
    wanted = None if label_refine is None else card.patch_m / label_refine
    if wanted is not None and wanted > finest:
        try:
            return output_refine(card, has_fine, wanted)
        except JobError:  # such pixels do not divide the patch: labels take the nearest one
            pass
    return output_refine(card, has_fine, None)


def _block(cell: int) -> int:
    return max(_BLOCK // cell, 1) * cell


def _cut(array: NDArray[Scalar], have: Window, want: Window, n: int) -> NDArray[Scalar]:
    """Cut (…, H, W) over `have` to `want`, zeros outside."""
    common = have.intersection(want).refined(n)
    source, target = common.slices_in(have.refined(n)), common.slices_in(want.refined(n))
    if common.shape == want.refined(n).shape:
        return array[(..., *source)]
    out = np.zeros((*array.shape[:-2], *want.refined(n).shape), array.dtype)
    if not common.is_empty:
        out[(..., *target)] = array[(..., *source)]
    return out
