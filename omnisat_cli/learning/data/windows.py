"""One window of an example as network input: cut, turned, normalised, cut into patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from omnisat_cli.engine.encode import day_numbers, normalise, patch_dates, present_patches
from omnisat_cli.engine.recipe import Feed, whole_ratio
from omnisat_cli.errors import JobError
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.modality import modality
from omnisat_cli.sources.values import Image, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.engine.recipe import Channel as Taken
    from omnisat_cli.learning.examples import Channel
    from omnisat_cli.packs.card import ModalityCard

    ChooseDates = Callable[[NDArray[np.bool_]], NDArray[np.int64]]

Scalar = TypeVar("Scalar", bound=np.generic)

_LEAST_POWER = 1e-10
"""Linear radar power that stands for silence when it is turned into decibels (-100 dB)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A square of patches inside an example, and how it is turned.

    Attributes:
        row: First row of patches.
        col: First column of patches.
        side: Side in patches.
        turns: Quarter turns, counter-clockwise.
        mirrored: Whether it is mirrored left to right after that.
    """

    row: int
    col: int
    side: int
    turns: int = 0
    mirrored: bool = False

    def of(self, array: NDArray[Scalar], n: int) -> NDArray[Scalar]:
        """Cut and turn (…, H, W), `n` pixels along a patch: (…, side n, side n)."""
        rows = slice(self.row * n, (self.row + self.side) * n)
        cols = slice(self.col * n, (self.col + self.side) * n)
        turned = np.rot90(array[..., rows, cols], self.turns, axes=(-2, -1))
        # Always a copy: what was read may be read-only or cached.
        return np.array(turned[..., ::-1] if self.mirrored else turned, order="C")


@dataclass(frozen=True, slots=True)
class Reader:
    """How one modality of a set of examples becomes input of the network.

    Attributes:
        feed: Bands, statistics and pixels along a patch.
        linear: Whether the examples deliver linear power, not decibels.
    """

    feed: Feed
    linear: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """One modality over one window of P patches.

    Attributes:
        pixels: (P, C, p, p) or (P, T, C, q, q) float32, normalised, 0 where not real.
        real: (P, p, p) or (P, T, q, q) bool.
        present: (P,) bool.
        days: (T,) day numbers, or None (image).
        valid: (P, T) bool, or None (image).
    """

    pixels: Tensor
    real: Tensor
    present: Tensor
    days: Tensor | None = None
    valid: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One window of an example, before it is stacked with others.

    Attributes:
        side: Patches along it.
        pieces: Modality to its part; an absent modality is an absent key.
        truth: (H, W) int64 class index, or None.
        boundary: (H, W) float32, or None where parcels are not known.
        tags: (K,) float32, or None.
    """

    side: int
    pieces: Mapping[str, Piece]
    truth: Tensor | None
    boundary: Tensor | None
    tags: Tensor | None


def make_reader(channel: Channel, card: ModalityCard, patch_m: float) -> Reader:
    """Match what a set of examples delivers with what a network wants.

    Raises:
        JobError: If pixel, units or bands differ.
    """
    # Pixels larger than a patch are read once a patch.
    gsd, wanted = min(channel.gsd, patch_m), min(card.gsd, patch_m)
    if abs(gsd - wanted) > 1e-6 * wanted:
        raise JobError(
            f"{card.name}: the examples have {channel.gsd:g} m pixels, the model was made for "
            f"{card.gsd:g} m; choose a model of that pixel or train one from scratch"
        )
    radar = {"db", "linear"}
    if channel.units != card.units and not {channel.units, card.units} <= radar:
        raise JobError(
            f"{card.name}: the examples are in {channel.units}, the model wants {card.units}"
        )
    channels = _channels(channel, card)
    linear = channel.units == "linear"
    if linear and card.units == "linear":
        # Already what the card wants: "db" tells `normalise` to leave the values as they are.
        card = card.model_copy(update={"units": "db"})
        linear = False
    return Reader(Feed(card, channels, whole_ratio(patch_m, gsd)), linear)


def _channels(channel: Channel, card: ModalityCard) -> tuple[Taken, ...]:
    """Find each band the network wants among those the examples have, or how it is derived."""
    places = {band: index for index, band in enumerate(channel.bands)}
    derived = modality(card.name).derived
    taken: list[Taken] = []
    for band in card.bands:
        parts = (band,) if band in places else derived.get(band, (band,))
        if any(part not in places for part in parts):
            raise JobError(
                f"{card.name}: the model wants {', '.join(card.bands)}, the examples have "
                f"{', '.join(channel.bands)}; state a band that stands for {band}, or train a "
                "model on the bands there are"
            )
        first, *second = (places[part] for part in parts)
        taken.append((first, second[0]) if second else first)
    return tuple(taken)


def image_piece(reader: Reader, image: Image, cut: Cut, *, any_pixel: bool) -> Piece:
    """Cut a window out of an image; see `engine.encode.present_patches` for `any_pixel`."""
    feed = reader.feed
    real = cut.of(image.valid, feed.refine)
    present = present_patches(feed, Image(image.pixels, real), 1, any_pixel=any_pixel)
    valid = torch.from_numpy(real)
    pixels = normalise(feed, torch.from_numpy(cut.of(image.pixels, feed.refine)), valid[None])
    return Piece(
        to_patches(pixels, feed.refine),
        to_patches(valid, feed.refine),
        torch.from_numpy(present.ravel()),
    )


def series_piece(
    reader: Reader, series: Series, cut: Cut, min_dates: int, choose: ChooseDates
) -> Piece:
    """Cut a window out of a series and thin its dates.

    Args:
        reader: How it becomes input.
        series: What the example holds.
        cut: The window.
        min_dates: Fewest clear dates that make a patch present.
        choose: Takes the clear present patches (T, P), gives the indices of the dates to keep.
    """
    feed = reader.feed
    clear = cut.of(series.valid, feed.refine)  # (T, h, w)
    whole = Series(series.pixels, series.dates, clear, clear)
    present = present_patches(feed, whole, min_dates)
    usable = patch_dates(feed, whole) & present
    kept = choose(usable.reshape(len(usable), cut.side**2))
    real = torch.from_numpy(clear[kept])
    values = torch.from_numpy(
        cut.of(series.pixels[kept], feed.refine).astype(np.float32, copy=False)
    )
    if reader.linear:
        values = 10.0 * torch.log10(values.clamp(min=_LEAST_POWER))
    pixels = normalise(feed, values, real[:, None])
    valid = torch.from_numpy(usable[kept].reshape(len(kept), cut.side**2).T.copy())  # (P, T)
    return Piece(
        to_patches(pixels, feed.refine),
        to_patches(real, feed.refine),
        valid.any(1),
        torch.from_numpy(day_numbers(series.dates, feed.card.dates)[kept]),
        valid,
    )


def to_patches(array: Tensor, n: int) -> Tensor:
    """Cut (…, H, W) into (P, …, n, n), row by row."""
    *head, H, W = array.shape
    cut = array.reshape(*head, H // n, n, W // n, n)
    axes = len(head)
    order = (axes, axes + 2, *range(axes), axes + 1, axes + 3)
    return cut.permute(order).reshape(H // n * (W // n), *head, n, n)


def borders(parcels: NDArray[np.int32], classes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (H, W): 1 on pixels that touch another parcel or class, 0 inside of one.

    Args:
        parcels: (H, W) parcel numbers, 0 = none known.
        classes: (H, W) classes, 255 = none. Ground with neither is 255, except along borders.
    """
    key = parcels.astype(np.int64) * 256 + classes
    edge = np.zeros(key.shape, bool)
    for axis in (0, 1):
        change = np.diff(key, axis=axis) != 0
        for cut in (slice(None, -1), slice(1, None)):
            where = [slice(None), slice(None)]
            where[axis] = cut
            edge[tuple(where)] |= change
    nothing = (parcels == 0) & (classes == UNLABELLED) & ~edge
    return np.where(nothing, np.float32(UNLABELLED), edge.astype(np.float32))


def shown_once(window: Shown, rows: int, cols: int) -> Shown:
    """Take the labels from the first rows and columns of patches, which other windows show."""
    if window.truth is None or rows == cols == 0:
        return window
    n = window.truth.shape[0] // window.side
    again = torch.zeros(window.truth.shape, dtype=torch.bool)
    again[: rows * n] = True
    again[:, : cols * n] = True
    edge = window.boundary
    return replace(
        window,
        truth=window.truth.masked_fill(again, UNLABELLED),
        boundary=None if edge is None else edge.masked_fill(again, UNLABELLED),
    )


def stack_pieces(pieces: Sequence[Piece | None]) -> Piece:
    """Stack a modality of several windows; at least one has it, the others are not present.

    Returns:
        A piece with a further first axis; series are padded to the longest with dates that are
        not valid.
    """
    some = next(piece for piece in pieces if piece is not None)
    full = [_nowhere(some) if piece is None else piece for piece in pieces]
    length = max((len(piece.days) for piece in full if piece.days is not None), default=0)
    pixels, real, present, days, valid = zip(
        *(_padded(piece, max(1, length)) for piece in full), strict=True
    )
    return Piece(
        torch.stack(pixels),
        torch.stack(real),
        torch.stack(present),
        torch.stack([d for d in days if d is not None]) if some.days is not None else None,
        torch.stack([v for v in valid if v is not None]) if some.valid is not None else None,
    )


def _nowhere(like: Piece) -> Piece:
    """Return a piece of the same shape that is not present anywhere."""
    return Piece(
        torch.zeros_like(like.pixels),
        torch.zeros_like(like.real),
        torch.zeros_like(like.present),
        None if like.days is None else torch.zeros_like(like.days),
        None if like.valid is None else torch.zeros_like(like.valid),
    )


def _padded(
    piece: Piece, length: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the tensors of a piece, the dates of a series padded to `length`."""
    pixels, real = piece.pixels, piece.real
    if piece.days is None or piece.valid is None:
        return pixels, real, piece.present, None, None
    more = length - len(piece.days)
    return (
        pad(pixels, (0, 0, 0, 0, 0, 0, 0, more)),
        pad(real, (0, 0, 0, 0, 0, more)),
        piece.present,
        pad(piece.days, (0, more)),
        pad(piece.valid, (0, more)),
    )
