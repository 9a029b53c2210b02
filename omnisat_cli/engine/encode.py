"""Encode every patch of a block once.

Patches are encoded cell by cell. A cell belongs to the lattice, not to the block, and what is
computed in it (which dates are kept, which patches are stacked) follows from its own ground alone.
So neighbouring blocks that share a cell get the same tokens for it, bit for bit on a CPU.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from omnisat_cli.networks.seam import Encoded
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.engine.recipe import Channel, Feed, Recipe
    from omnisat_cli.networks.seam import PatchLocal

MIN_VALID_FRACTION = 0.5
"""Share of a patch's pixels that must be real for an image modality to be present there."""

_MOST_DB = 40.0
"""Largest ratio of two polarisations; that of published loaders, 10 000."""

_EPOCH = np.datetime64("2018-09-01")
_SEASON = 456  # days from 1 September to the end of the next November, as in PASTIS
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(slots=True)
class Tokens:
    """Encoded patches of one modality over the reach of a block.

    Attributes:
        tokens: (h, w, D), zeros where not present.
        present: (h, w) bool.
        fine: (h, w, F, f, f) finer features, or None.
    """

    tokens: Tensor
    present: NDArray[np.bool_]
    fine: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Cell:
    """Patches of one cell that are present: their (row, col) in the block."""

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]


def present_patches(
    feed: Feed, values: Image | Series, min_dates: int, *, any_pixel: bool = False
) -> NDArray[np.bool_]:
    """Tell at which patches a modality can be used.

    Args:
        feed: How the modality reaches the network.
        values: What was read.
        min_dates: Fewest clear dates that make a series usable.
        any_pixel: Whether one real pixel of an image is enough: patches mean nothing to a network
            that sees whole windows.

    Returns:
        (h, w) bool.
    """
    if isinstance(values, Image):
        if values.valid.all():
            height, width = values.valid.shape
            return np.ones((height // feed.refine, width // feed.refine), bool)
        blocks = patch_blocks(values.valid, feed.refine)
        if any_pixel:
            return np.asarray(blocks.any(axis=(-2, -1)))
        share: NDArray[np.float64] = blocks.mean(axis=(-2, -1))
        return np.asarray(share >= MIN_VALID_FRACTION)
    return np.asarray(patch_dates(feed, values).sum(axis=0) >= min_dates)


def patch_dates(feed: Feed, series: Series) -> NDArray[np.bool_]:
    """Return (T, h, w): the dates on which every pixel of a patch is clear."""
    if feed.refine == 1:
        return series.valid
    return np.asarray(patch_blocks(series.valid, feed.refine).all(axis=(-2, -1)))


def patch_blocks(array: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """View (…, H, W) as (…, h, w, side, side)."""
    *head, height, width = array.shape
    cut = array.reshape(*head, height // side, side, width // side, side)
    return cut.swapaxes(-3, -2)


def day_numbers(dates: NDArray[np.datetime64], encoding: str | None) -> NDArray[np.int64]:
    """Turn dates into the numbers a network was trained with.

    Args:
        dates: (T,) datetime64[D].
        encoding: "day-of-year" (1 January = 1), "days-since-2018-09-01", or
            "days-since-september": since the 1 September from which most of the dates lie within
            15 months, the latest of equals.

    Returns:
        (T,) day numbers.
    """
    days = dates.astype("datetime64[D]").astype(np.int64)
    if encoding == "days-since-2018-09-01":
        return np.asarray(days - _EPOCH.astype(np.int64))
    if encoding == "days-since-september" and len(dates):
        first, last = (moment.astype("datetime64[Y]") for moment in (dates.min(), dates.max()))
        years = np.arange(first - 1, last + 1)
        starts = (years.astype("datetime64[M]") + 8).astype("datetime64[D]").astype(np.int64)
        since = days - starts[:, None]  # (years, T)
        within = ((since >= 0) & (since < _SEASON)).sum(axis=1)
        return np.asarray(since[::-1][within[::-1].argmax()])  # of equals the latest
    first = dates.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    return np.asarray(days - first + 1)


def thin_dates(clear: NDArray[np.int64], max_dates: int | None) -> NDArray[np.int64]:
    """Choose dates when a series is longer than the network was trained on.

    The series is cut into `max_dates` runs of equal length and the clearest date of each run is
    kept (the first of equals): evenly spaced, deterministic.

    Args:
        clear: (T,) clear patches of each date.
        max_dates: Limit, or None.

    Returns:
        Indices of the kept dates, ascending.
    """
    count = len(clear)
    if max_dates is None or count <= max_dates:
        return np.arange(count)
    edges = np.linspace(0, count, max_dates + 1).round().astype(int)
    return np.array([a + int(np.argmax(clear[a:b])) for a, b in itertools.pairwise(edges)])


def choose_dates(clear: NDArray[np.bool_], max_dates: int | None) -> NDArray[np.int64]:
    """Choose the dates of some patches: those that are clear somewhere, thinned to `max_dates`.

    A patch that would lose all its clear dates to the thinning keeps its own first one.

    Args:
        clear: (T, N) bool.
        max_dates: Limit, or None.

    Returns:
        Indices of the kept dates, ascending.
    """
    counts = clear.sum(axis=1)
    some = np.nonzero(counts)[0]
    kept = some[thin_dates(counts[some], max_dates)]
    lost = clear.any(axis=0) & ~clear[kept].any(axis=0)
    return np.union1d(kept, clear[:, lost].argmax(axis=0)) if lost.any() else kept


def encode_sample(
    network: PatchLocal, recipe: Recipe, sample: Sample, compute: Compute
) -> dict[str, Tokens]:
    """Encode every patch of a sample once.

    Args:
        network: A patch-local network, on the device of `compute`.
        recipe: What the network expects.
        sample: What was read over the reach of a block; its window is made of whole cells.
        compute: Device and batch sizes.

    Returns:
        Modality name to tokens; a modality without any usable patch is absent.
    """
    encoded = {}
    for feed in recipe.feeds:
        values = sample.data.get(feed.name)
        if values is None:
            continue
        present = present_patches(feed, values, recipe.card.min_dates)
        if present.any():
            encoder = _Encoder(network, feed, recipe.card.window.cell, compute, recipe.fine)
            encoded[feed.name] = _encode(encoder, values, present)
    return encoded


@dataclass(frozen=True, slots=True)
class _Encoder:
    network: PatchLocal
    feed: Feed
    cell: int
    compute: Compute
    fine: bool


def _encode(encoder: _Encoder, values: Image | Series, present: NDArray[np.bool_]) -> Tokens:
    """Encode the present patches and scatter them into the block's arrays."""
    result: Tokens | None = None
    cells = list(_cells(present, encoder.cell))
    for start in range(0, len(cells), encoder.compute.cells):
        group = cells[start : start + encoder.compute.cells]
        if isinstance(values, Image):
            encoded = _encode_images(encoder, values, group)
        elif encoder.feed.is_context:
            encoded = _spread(_encode_series(encoder, values, _middles(group)), group)
        else:
            encoded = _encode_series(encoder, values, group)
        if not encoder.fine:
            encoded = Encoded(encoded.tokens)
        result = result or _allocate(encoded, present)
        rows = torch.from_numpy(np.concatenate([c.rows for c in group]))
        cols = torch.from_numpy(np.concatenate([c.cols for c in group]))
        result.tokens[rows, cols] = encoded.tokens.to(result.tokens.dtype)
        if encoded.fine is not None and result.fine is not None:
            result.fine[rows, cols] = encoded.fine.to(result.fine.dtype)
    if result is None:
        raise AssertionError("encoding was asked for without a present patch")
    return result


def _cells(present: NDArray[np.bool_], side: int) -> Iterator[_Cell]:
    """Yield the cells that hold a present patch, row by row."""
    for row in range(0, present.shape[0], side):
        for col in range(0, present.shape[1], side):
            rows, cols = np.nonzero(present[row : row + side, col : col + side])
            if len(rows):
                yield _Cell(rows + row, cols + col)


def _middles(group: list[_Cell]) -> list[_Cell]:
    """Return the most central patch of each cell: larger pixels look alike all over a cell."""
    middles = []
    for cell in group:
        away = (cell.rows - cell.rows.mean()) ** 2 + (cell.cols - cell.cols.mean()) ** 2
        at = slice(int(away.argmin()), int(away.argmin()) + 1)
        middles.append(_Cell(cell.rows[at], cell.cols[at]))
    return middles


def _spread(encoded: Encoded, group: list[_Cell]) -> Encoded:
    """Give every patch of a cell the token of the cell."""
    counts = torch.tensor([len(cell.rows) for cell in group], device=encoded.tokens.device)
    return Encoded(encoded.tokens.repeat_interleave(counts, 0))


def _allocate(encoded: Encoded, present: NDArray[np.bool_]) -> Tokens:
    """Make zeroed arrays for a block, shaped like one encoded batch."""
    shape = present.shape
    fine = encoded.fine
    return Tokens(
        encoded.tokens.new_zeros((*shape, *encoded.tokens.shape[1:])),
        present,
        None if fine is None else fine.new_zeros((*shape, *fine.shape[1:])),
    )


def _encode_images(encoder: _Encoder, image: Image, group: list[_Cell]) -> Encoded:
    feed, device = encoder.feed, encoder.compute.device
    side = feed.refine
    pixels = _cut(image.pixels, group, side)  # (N, C, p, p)
    valid = _cut(image.valid[None], group, side)  # (N, 1, p, p)
    batch = normalise(feed, torch.from_numpy(pixels).to(device), torch.from_numpy(valid).to(device))
    return encoder.network.encode_image(feed.name, batch)


def _encode_series(encoder: _Encoder, series: Series, group: list[_Cell]) -> Encoded:
    feed, device = encoder.feed, encoder.compute.device
    clear = patch_dates(feed, series)  # (T, h, w)
    numbers = day_numbers(series.dates, feed.card.dates)
    parts = [_series_cell(feed, series, clear, cell) for cell in group]
    longest = max(kept.size for kept, _, _ in parts)
    days = np.concatenate([_padded(numbers[kept], longest, len(p)) for kept, p, _ in parts])
    pixels = np.concatenate([pad_dates(p, longest, 1) for _, p, _ in parts])
    valid = np.concatenate([pad_dates(v, longest, 1) for _, _, v in parts])
    mask = torch.from_numpy(valid).to(device)  # (N, T)
    batch = torch.from_numpy(pixels).to(device)  # (N, T, C, p, p)
    batch = normalise(feed, batch, mask[:, :, None, None, None])
    return encoder.network.encode_series(feed.name, batch, torch.from_numpy(days).to(device), mask)


def _series_cell(
    feed: Feed, series: Series, clear: NDArray[np.bool_], cell: _Cell
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Take the dates of one cell that are clear somewhere in it.

    Returns:
        Kept date indices (T'), pixels (N, T', C, p, p), valid (N, T').
    """
    valid = clear[:, cell.rows, cell.cols]  # (T, N)
    kept = choose_dates(valid, feed.card.max_dates)
    pixels = _cut_dates(series.pixels, kept, cell, feed.refine)
    return kept, pixels, np.ascontiguousarray(valid[kept].T)


def _cut_dates(
    pixels: NDArray[np.float32], kept: NDArray[np.int64], cell: _Cell, side: int
) -> NDArray[np.float32]:
    """Cut patches out of (T, C, H, W): (N, T', C, p, p)."""
    if side == 1:
        cut = pixels[kept[:, None], :, cell.rows[None], cell.cols[None]]  # (T', N, C)
        return np.ascontiguousarray(cut.swapaxes(0, 1)[..., None, None])
    return np.stack(
        [
            pixels[kept, :, r * side : (r + 1) * side, c * side : (c + 1) * side]
            for r, c in zip(cell.rows, cell.cols, strict=True)
        ]
    )


def _cut(pixels: NDArray[Scalar], group: list[_Cell], side: int) -> NDArray[Scalar]:
    """Cut patches out of (C, H, W): (N, C, p, p)."""
    return np.stack(
        [
            pixels[:, r * side : (r + 1) * side, c * side : (c + 1) * side]
            for cell in group
            for r, c in zip(cell.rows, cell.cols, strict=True)
        ]
    )


def _padded(days: NDArray[np.int64], length: int, count: int) -> NDArray[np.int64]:
    """Repeat (T',) for `count` patches, padded with day 0 to (count, length)."""
    row = np.zeros(length, np.int64)
    row[: days.size] = days
    return np.broadcast_to(row, (count, length))


def pad_dates(array: NDArray[Scalar], length: int, axis: int = 0) -> NDArray[Scalar]:
    """Pad an axis of dates with zeros, that is with dates that are not valid."""
    missing = length - array.shape[axis]
    if missing == 0:
        return array
    widths = [(0, missing if each == axis else 0) for each in range(array.ndim)]
    return np.pad(array, widths)


def _selected(pixels: Tensor, channels: tuple[Channel, ...]) -> Tensor:
    """Pick the channels of (…, C, p, p); a pair gives the difference of two."""
    firsts = [c[0] if isinstance(c, tuple) else c or 0 for c in channels]
    if firsts == list(range(pixels.shape[-3])):
        return pixels
    chosen = pixels.index_select(-3, torch.tensor(firsts, device=pixels.device))
    for k, channel in enumerate(channels):
        if isinstance(channel, tuple):
            difference = chosen.select(-3, k).sub_(pixels.select(-3, channel[1]))
            difference.clamp_(-_MOST_DB, _MOST_DB)
    return chosen


def normalise(feed: Feed, pixels: Tensor, valid: Tensor) -> Tensor:
    """Select bands, change units, standardise; 0 (the mean) where not valid.

    Args:
        feed: Bands, units and statistics.
        pixels: (…, C, p, p) in the canonical unit.
        valid: Mask that broadcasts against it.

    Returns:
        (…, C', p, p) float32, C' the bands of the card.
    """
    device, card = pixels.device, feed.card
    pixels = _selected(pixels, feed.channels)
    mean = torch.tensor(card.mean, device=device).view(-1, 1, 1)
    scale = 1.0 / torch.tensor(card.std, device=device).view(-1, 1, 1)
    if card.units == "linear":
        pixels = torch.pow(10.0, pixels.to(torch.float32) / 10.0)
    values = (pixels - mean).mul_(scale)  # uint8 becomes float32 in the same pass
    if None not in feed.channels:
        # Asking a GPU whether all is valid would wait for it.
        if device.type == "cpu" and bool(valid.all()):
            return values
        return values.masked_fill_(~valid, 0.0)
    known = torch.tensor([c is not None for c in feed.channels], device=device).view(-1, 1, 1)
    return values.masked_fill_(~(valid & known), 0.0)
