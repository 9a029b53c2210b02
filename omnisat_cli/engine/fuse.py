"""Run overlapping windows over a block and blend what they say.

Windows lie on a lattice anchored to the CRS origin and are visited row by row, so a pixel receives
the same contributions in the same order whatever the block it is computed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from omnisat_cli.engine.blend import window_weight
from omnisat_cli.engine.encode import choose_dates, day_numbers, normalise, pad_dates
from omnisat_cli.errors import BlockError
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.engine.encode import Tokens
    from omnisat_cli.engine.recipe import Feed, Recipe
    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.geo.plan import Block, Tiling
    from omnisat_cli.networks.seam import Dense, PatchLocal, WindowBased

Predict = Callable[[list["Window"]], "Dense"]
"""Windows (anchor pixels) to their dense output."""


@dataclass(frozen=True, slots=True)
class Band:
    """Rows of the core of a block to which no window adds any more.

    The tensors are overwritten once the next band is asked for.

    Attributes:
        row: First row, in output pixels from the top of the core.
        logits: (K, h, W) float32, the weighted mean of the windows' logits, on the device.
        boundary: (h, W) float32 likewise, or None.
    """

    row: int
    logits: Tensor
    boundary: Tensor | None


def fuse_block(
    predict: Predict,
    recipe: Recipe,
    tiling: Tiling,
    block: Block,
    windows: list[Window],
    batch: int,
) -> Iterator[Band]:
    """Predict windows batch by batch, blend them and hand over rows as soon as they are final.

    Only as many rows as a window is high are ever held, however large the block.

    Args:
        predict: Gives the dense output of a list of windows.
        recipe: Output resolution and classes.
        tiling: Window lattice.
        block: The block; only its core is kept.
        windows: Windows over the core that hold data, in lattice order.
        batch: Windows a call; the last call is filled up by repeating a window, so that every
            call has the same shape and a window's result does not depend on its neighbours.

    Yields:
        Bands from top to bottom; rows that no window covers are in none or are zero.
    """
    canvas: _Canvas | None = None
    for start in range(0, len(windows), batch):
        group = windows[start : start + batch]
        dense = predict(group + [group[-1]] * (batch - len(group)))
        logits = _pooled(dense.logits.float(), recipe)
        boundary = (
            None if dense.boundary is None else _pooled(dense.boundary[:, None].float(), recipe)
        )
        if canvas is None:
            canvas = _Canvas(block, recipe, tiling, logits, boundary is not None)
        for index, window in enumerate(group):
            yield from canvas.move_to(window)
            canvas.add(window, logits[index], None if boundary is None else boundary[index, 0])
    if canvas is None:
        raise BlockError(f"block {block.name} holds no window with data")
    yield canvas.rest()


class _Canvas:
    """The rows of a core under one row of windows; it moves down with them."""

    def __init__(
        self, block: Block, recipe: Recipe, tiling: Tiling, like: Tensor, with_boundary: bool
    ) -> None:
        n = recipe.refine
        self.core, self.refine = block.core.refined(n), n
        self.row = 0  # first row held, from the top of the core
        height, width = min(tiling.window * n, self.core.height), self.core.width
        if like.stride(1) == 1 < like.shape[1]:
            # Channels-last like the network's output: adding across layouts is 8 times slower.
            self.logits = like.new_zeros((height, width, like.shape[1])).permute(2, 0, 1)
        else:
            self.logits = like.new_zeros((like.shape[1], height, width))
        self.boundary = like.new_zeros((height, width)) if with_boundary else None
        side, overlap = tiling.window * n, (tiling.window - tiling.stride) * n
        self.weight = torch.from_numpy(window_weight(side, overlap)).to(like.device)

    def move_to(self, window: Window) -> Iterator[Band]:
        """Give up the rows above a window and make room for it."""
        row = max(window.row * self.refine - self.core.row, 0)
        if row <= self.row:
            return
        height = self.logits.shape[1]
        done = min(row - self.row, height)
        yield self._band(done)
        for held in (self.logits, self.boundary):
            if held is None:
                continue
            held[..., : height - done, :] = held[..., done:, :].clone()
            held[..., height - done :, :] = 0
        self.row = row

    def add(self, window: Window, logits: Tensor, boundary: Tensor | None) -> None:
        """Add the part of one window that lies in the core."""
        whole = window.refined(self.refine)
        common = whole.intersection(self.core)
        source = common.slices_in(whole)
        rows, cols = common.slices_in(self.core)
        target = (slice(rows.start - self.row, rows.stop - self.row), cols)
        part = self.weight[source]
        self.logits[:, *target].addcmul_(logits[:, *source], part)
        if self.boundary is not None and boundary is not None:
            self.boundary[target].addcmul_(boundary[source], part)

    def rest(self) -> Band:
        """Return the rows that are left."""
        return self._band(min(self.logits.shape[1], self.core.height - self.row))

    def _band(self, rows: int) -> Band:
        boundary = None if self.boundary is None else self.boundary[:rows]
        return Band(self.row, self.logits[:, :rows], boundary)


def token_predictor(
    network: PatchLocal, recipe: Recipe, tokens: Mapping[str, Tokens], reach: Window
) -> Predict:
    """Make the predictor of a patch-local network: gather tokens, fuse, decode."""
    masks = {
        name: torch.from_numpy(entry.present).to(entry.tokens.device)
        for name, entry in tokens.items()
    }

    def predict(windows: list[Window]) -> Dense:
        cuts = [window.slices_in(reach) for window in windows]
        vectors = {
            name: torch.stack([entry.tokens[cut].flatten(0, 1) for cut in cuts])
            for name, entry in tokens.items()
        }
        present = {
            name: torch.stack([mask[cut].flatten() for cut in cuts]) for name, mask in masks.items()
        }
        fine = {
            name: torch.stack([entry.fine[cut].flatten(0, 1) for cut in cuts])
            for name, entry in tokens.items()
            if entry.fine is not None and recipe.fine
        }
        fused = network.fuse(vectors, present)
        return network.decode(fused, fine, present, fine_output=recipe.fine)

    return predict


def window_predictor(
    network: WindowBased, recipe: Recipe, sample: Sample, compute: Compute
) -> Predict:
    """Make the predictor of a network that must see whole windows."""

    def predict(windows: list[Window]) -> Dense:
        pixels: dict[str, Tensor] = {}
        days: dict[str, Tensor] = {}
        valid: dict[str, Tensor] = {}
        for feed in recipe.feeds:
            values = sample.data.get(feed.name)
            if values is None:
                continue
            cuts = [window.slices_in(sample.window) for window in windows]
            pixels[feed.name], valid[feed.name], numbers = _window_batch(
                feed, values, cuts, compute
            )
            if isinstance(values, Series):
                days[feed.name] = numbers
        return network.predict(pixels, days, valid)

    return predict


def windows_with_data(tiling: Tiling, block: Block, present: NDArray[np.bool_]) -> list[Window]:
    """Return the windows over a core that hold a present patch, in lattice order.

    Args:
        tiling: Window lattice.
        block: The block.
        present: (h, w) over the reach of the block.
    """
    return [
        window
        for window in tiling.windows_over(block.core)
        if present[window.slices_in(block.reach)].any()
    ]


def _window_batch(
    feed: Feed,
    values: Image | Series,
    cuts: list[tuple[slice, slice]],
    compute: Compute,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut windows (B, C, h, w) or (B, T, C, h, w), their mask, and the days (B, T) of a series."""
    n = feed.refine
    fine = [(..., slice(r.start * n, r.stop * n), slice(c.start * n, c.stop * n)) for r, c in cuts]
    if isinstance(values, Image):
        pixels = np.stack([values.pixels[cut] for cut in fine])
        valid = np.stack([values.valid[cut] for cut in fine])
        days = np.zeros((len(cuts), 0), np.int64)
    else:
        kept = [_kept_dates(values.valid[cut], feed.card.max_dates) for cut in fine]
        longest = max(map(len, kept))
        pairs = list(zip(fine, kept, strict=True))
        pixels = np.stack([pad_dates(values.pixels[cut][some], longest) for cut, some in pairs])
        valid = np.stack([pad_dates(values.valid[cut][some], longest) for cut, some in pairs])
        numbers = day_numbers(values.dates, feed.card.dates)
        days = np.stack([pad_dates(numbers[some], longest) for some in kept])
    device = compute.device
    mask = torch.from_numpy(valid).to(device)
    batch = normalise(feed, torch.from_numpy(pixels).to(device), mask.unsqueeze(-3))
    return batch, mask, torch.from_numpy(days).to(device)


def _kept_dates(valid: NDArray[np.bool_], max_dates: int | None) -> NDArray[np.int64]:
    """Choose the dates of a window (T, h, w): all of them unless there are too many."""
    if max_dates is None or len(valid) <= max_dates:
        return np.arange(len(valid))
    kept = choose_dates(valid.reshape(len(valid), -1), max_dates)
    return kept if kept.size else np.zeros(1, np.int64)  # another modality may be there


def _pooled(dense: Tensor, recipe: Recipe) -> Tensor:
    """Average the network's output pixels into the pixels that were asked for."""
    factor = recipe.network_refine // recipe.refine
    return dense if factor == 1 else avg_pool2d(dense, factor)
