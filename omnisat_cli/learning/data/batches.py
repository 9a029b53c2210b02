"""Batches of windows: drawn for training so that a step can be drawn again, walked for validation.

What a step shows follows from the seed and the number of the step alone. So a run that was
interrupted goes on exactly as if it had not been, and several processes can read ahead.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnisat_cli.engine.encode import choose_dates
from omnisat_cli.errors import JobError
from omnisat_cli.learning.data.dropout import drop_modalities, some_dates
from omnisat_cli.learning.data.windows import (
    Cut,
    Piece,
    Shown,
    borders,
    image_piece,
    make_reader,
    series_piece,
    shown_once,
    stack_pieces,
)
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.sources.values import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Example, Examples
    from omnisat_cli.packs.card import ModalityCard

    Choose = Callable[[str, NDArray[np.bool_]], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows of P = side² patches.

    A modality that no window of the batch has is an absent key; one that some windows lack is
    not `present` there.

    Attributes:
        pixels: Modality to (B, P, C, p, p) image or (B, P, T, C, q, q) series, normalised.
        days: Series modality to (B, T) day numbers.
        valid: Series modality to (B, P, T) bool; shorter series are padded with False.
        present: Modality to (B, P) bool.
        real: Modality to (B, P, p, p) or (B, P, T, q, q) bool, pixel by pixel.
        truth: (B, H, W) int64, index of the class in the legend, 255 = none; H is a multiple of
            the side.
        boundary: (B, H, W) float32, 1 on parcel and class boundaries, 0 inside of parcels, 255
            where nothing is known.
        borders_known: (B,) bool, whether the parcels of a window are known at all.
        tags: (B, K) float32, 1 where a window holds a class, or None.
        side: Patches along a window.
    """

    pixels: dict[str, Tensor]
    days: dict[str, Tensor]
    valid: dict[str, Tensor]
    present: dict[str, Tensor]
    real: dict[str, Tensor]
    truth: Tensor
    boundary: Tensor
    borders_known: Tensor
    tags: Tensor | None
    side: int

    def __len__(self) -> int:
        """Return B."""
        return len(self.truth)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return replace(
            self,
            pixels=_moved(self.pixels, device),
            days=_moved(self.days, device),
            valid=_moved(self.valid, device),
            present=_moved(self.present, device),
            real=_moved(self.real, device),
            truth=self.truth.to(device, non_blocking=True),
            boundary=self.boundary.to(device, non_blocking=True),
            borders_known=self.borders_known.to(device, non_blocking=True),
            tags=None if self.tags is None else self.tags.to(device, non_blocking=True),
        )


def _moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


def whole(batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """Lay the patches of a modality side by side, for networks that see whole windows.

    Returns:
        (B, C, h, w) image or (B, T, C, h, w) series, 0 where not valid, and (B, h, w) or
        (B, T, h, w) bool: real pixels of patches that are present.
    """
    present = batch.present[name][(..., *[None] * (batch.real[name].dim() - 2))]
    valid = _joined(batch.real[name] & present, batch.side)
    pixels = _joined(batch.pixels[name], batch.side)
    return pixels.masked_fill(~valid.unsqueeze(-3), 0.0), valid


def _joined(patches: Tensor, side: int) -> Tensor:
    """Lay (B, P, …, n, n) side by side: (B, …, side n, side n)."""
    B, _, *head, n, _ = patches.shape
    grid = patches.reshape(B, side, side, *head, n, n)
    middle = range(3, 3 + len(head))
    last = 3 + len(head)
    return grid.permute(0, *middle, 1, last, 2, last + 1).reshape(B, *head, side * n, side * n)


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """How training windows are drawn.

    Attributes:
        size: Windows a batch.
        side: Patches along a window; None takes examples whole.
        keep_dates: Series to the most dates shown at once, a random subset otherwise; series that
            are not named keep all.
        drop: Modality to the chance that a window does not have it at all.
        drop_region: Chance that a modality is missing over a random half-plane of a window. One
            random modality always stays whole.
        augment: Whether windows are turned and mirrored at random.
        balanced: Chance that a window is drawn for a random class, so that rare ones are seen.
        min_dates: Fewest clear dates that make a series present; as on the card.
        any_pixel: Whether one real pixel makes an image patch present (networks that see whole
            windows) instead of half of them.
    """

    size: int
    side: int | None = None
    keep_dates: Mapping[str, int] = field(default_factory=dict)
    drop: Mapping[str, float] = field(default_factory=dict)
    drop_region: float = 0.0
    augment: bool = True
    balanced: float = 0.0
    min_dates: int = 1
    any_pixel: bool = False

    def __post_init__(self) -> None:
        chances = {"drop_region": self.drop_region, "balanced": self.balanced, **self.drop}
        for name, chance in chances.items():
            if not 0 <= chance <= 1:
                raise JobError(f"the chance {chance:g} given for {name} is not between 0 and 1")
        counts = {"batch": self.size, "side": self.side or 1, **self.keep_dates}
        for name, count in counts.items():
            if count < 1:
                raise JobError(f"{name} {count}: at least 1")


class Batcher:
    """Draws and walks the windows of a set of examples.

    Args:
        examples: Where they come from.
        cards: Bands, normalisation and day encoding; modalities that the examples do not have
            are simply never there.
        spec: How training windows are drawn.
        seed: Seed of the draws.
        counts: (N, K) labelled pixels of each class in each example, for balanced draws; counted
            here where it is needed and not given.

    Raises:
        JobError: If no modality is shared, or examples and cards do not fit.
    """

    def __init__(
        self,
        examples: Examples,
        cards: tuple[ModalityCard, ...],
        spec: BatchSpec,
        seed: int,
        counts: NDArray[np.int64] | None = None,
    ) -> None:
        self.examples, self.spec, self.seed = examples, spec, seed
        channels = {channel.name: channel for channel in examples.channels}
        self.readers = {
            card.name: make_reader(channels[card.name], card, examples.patch_m)
            for card in cards
            if card.name in channels
        }
        if not self.readers:
            raise JobError(
                f"{examples.name} has {', '.join(channels)}; the model needs "
                f"{', '.join(card.name for card in cards)}: nothing in common"
            )
        if len(examples) == 0:
            raise JobError(f"{examples.name} holds no example")
        codes = examples.legend.codes
        self._index = np.full(256, UNLABELLED, np.int64)
        self._index[list(codes)] = np.arange(len(codes))
        if spec.balanced and counts is None:
            from omnisat_cli.learning.data.statistics import class_counts

            counts = class_counts(examples)
        self._counts = counts

    @property
    def epoch_steps(self) -> int:
        """Steps in which every example is drawn about once."""
        return max(1, round(len(self.examples) / self.spec.size))

    def batch(self, step: int) -> Batch:
        """Draw the windows of a step; the same for the same step, whatever was drawn before."""
        rng = np.random.default_rng([self.seed, step])
        return stack([self._drawn(rng, number) for number in self._slots(step)])

    def ordered(
        self, indices: Iterable[int], size: int, names: Sequence[str] | None = None
    ) -> Iterator[Batch]:
        """Walk examples without chance: not turned, nothing dropped, dates as `predict` keeps them.

        Examples larger than a window are cut side by side; a labelled pixel counts in one window.

        Args:
            indices: The examples, in order.
            size: Windows a batch; the last one may be smaller.
            names: The only modalities shown, or None for all.

        Raises:
            JobError: If none of `names` is among the modalities.
        """
        shown = [name for name in self.readers if names is None or name in names]
        if not shown:
            raise JobError(
                f"none of {', '.join(names or ())} is there; there are {', '.join(self.readers)}"
            )
        windows = itertools.chain.from_iterable(self._tiles(index, shown) for index in indices)
        while group := list(itertools.islice(windows, size)):
            yield stack(group)

    def _slots(self, step: int) -> list[int]:
        """Return the examples of a step: every one once in an epoch, in random order."""
        total = len(self.examples)
        slots = np.arange(step * self.spec.size, (step + 1) * self.spec.size)
        chosen: list[int] = []
        for epoch in range(slots[0] // total, slots[-1] // total + 1):
            order = np.random.default_rng([self.seed, epoch, total]).permutation(total)
            chosen += order[slots[slots // total == epoch] % total].tolist()
        return chosen

    def _drawn(self, rng: np.random.Generator, index: int) -> Shown:
        """Draw a window from an example, or from one that holds a random class."""
        spec = self.spec
        wanted: int | None = None
        if self._counts is not None and rng.random() < spec.balanced:
            held = np.flatnonzero(self._counts.any(axis=0))
            if held.size:
                wanted = int(rng.choice(held))
                index = int(rng.choice(np.flatnonzero(self._counts[:, wanted])))
        example = self.examples.example(index)
        row, col = self._place(example, wanted, rng)
        turn = (int(rng.integers(4)), bool(rng.integers(2))) if spec.augment else (0, False)
        cut = Cut(row, col, self._side(example), *turn)

        def choose(name: str, clear: NDArray[np.bool_]) -> NDArray[np.int64]:
            return some_dates(clear, spec.keep_dates.get(name), rng)

        pieces = self._pieces(example, cut, self.readers, choose)
        return self._labelled(
            example, cut, drop_modalities(pieces, spec.drop, spec.drop_region, rng)
        )

    def _place(
        self, example: Example, wanted: int | None, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Choose the first row and column of a window, anywhere or around a pixel of a class."""
        height, width = example.sample.window.shape
        side = self._side(example)
        last = np.array([height - side, width - side])
        start = rng.integers(0, last + 1)
        if wanted is not None and example.classes is not None and last.any():
            found = np.argwhere(self._index[example.classes] == wanted)
            if len(found):
                centre = found[rng.integers(len(found))] * height // example.classes.shape[0]
                start = np.clip(centre - rng.integers(0, side, 2), 0, last)
        return int(start[0]), int(start[1])

    def _side(self, example: Example) -> int:
        height, width = example.sample.window.shape
        side = self.spec.side or min(height, width)
        if side > min(height, width):
            raise JobError(
                f"windows of {side} patches were asked for, but an example of "
                f"{self.examples.name} has {height} × {width}; use at most {min(height, width)}"
            )
        return side

    def _tiles(self, index: int, names: Sequence[str]) -> Iterator[Shown]:
        """Cut an example into windows side by side; the last ones reach back over the others."""
        example = self.examples.example(index)
        height, width = example.sample.window.shape
        side = self._side(example)

        def choose(name: str, clear: NDArray[np.bool_]) -> NDArray[np.int64]:
            return choose_dates(clear, self.readers[name].feed.card.max_dates)

        for top in range(0, height, side):
            for left in range(0, width, side):
                cut = Cut(min(top, height - side), min(left, width - side), side)
                pieces = self._pieces(example, cut, names, choose)
                window = self._labelled(example, cut, pieces)
                yield shown_once(window, top - cut.row, left - cut.col)

    def _pieces(
        self, example: Example, cut: Cut, names: Iterable[str], choose: Choose
    ) -> dict[str, Piece]:
        """Cut every modality the example has."""
        spec, pieces = self.spec, {}
        for name in names:
            values = example.sample.data.get(name)
            if isinstance(values, Image):
                pieces[name] = image_piece(
                    self.readers[name], values, cut, any_pixel=spec.any_pixel
                )
            elif values is not None:
                pieces[name] = series_piece(
                    self.readers[name], values, cut, spec.min_dates, partial(choose, name)
                )
        return pieces

    def _labelled(self, example: Example, cut: Cut, pieces: dict[str, Piece]) -> Shown:
        """Put the labels of a window beside its imagery."""
        tags = None if example.tags is None else torch.from_numpy(example.tags.astype(np.float32))
        if example.classes is None:
            return Shown(cut.side, pieces, None, None, tags)
        n = example.classes.shape[0] // example.sample.window.height
        classes = cut.of(example.classes, n)
        truth = torch.from_numpy(self._index[classes])
        edge = None
        if example.parcels is not None:
            edge = torch.from_numpy(borders(cut.of(example.parcels, n), classes))
        return Shown(cut.side, pieces, truth, edge, tags)


def stack(windows: Sequence[Shown]) -> Batch:
    """Stack windows; series are padded to the longest, labels that are not there with 255.

    Raises:
        JobError: If the windows differ in size.
    """
    sides = sorted({window.side for window in windows})
    if len(sides) > 1:
        raise JobError(f"the examples have {sides[0]} to {sides[-1]} patches a side; state one")
    names = dict.fromkeys(name for window in windows for name in window.pieces)
    stacks = {name: stack_pieces([w.pieces.get(name) for w in windows]) for name in names}
    shape = next((w.truth.shape for w in windows if w.truth is not None), (sides[0], sides[0]))
    nothing = torch.full(shape, UNLABELLED)
    unknown = torch.full(shape, float(UNLABELLED))
    tags = [window.tags for window in windows if window.tags is not None]
    return Batch(
        pixels={name: s.pixels for name, s in stacks.items()},
        days={name: s.days for name, s in stacks.items() if s.days is not None},
        valid={name: s.valid for name, s in stacks.items() if s.valid is not None},
        present={name: s.present for name, s in stacks.items()},
        real={name: s.real for name, s in stacks.items()},
        truth=torch.stack([nothing if w.truth is None else w.truth for w in windows]),
        boundary=torch.stack([unknown if w.boundary is None else w.boundary for w in windows]),
        borders_known=torch.tensor([w.boundary is not None for w in windows]),
        tags=torch.stack(tags) if tags else None,
        side=sides[0],
    )
