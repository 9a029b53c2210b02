"""Random training windows out of simulated scenes, as network input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnisat_cli.engine.encode import day_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate import Scene
    from omnisat_cli.packs.card import Card, ModalityCard

CLEAR_SCL = (4, 5, 6, 7)
"""Scene classes that count as clear: vegetation, bare, water, unclassified."""

IGNORE = 255
_TRUTH_PX = 10
"""Truth pixels along a 10 m patch."""


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How training windows are drawn.

    Attributes:
        side: Side of a window in patches.
        keep_dates: Most dates of a series shown at once; a random subset otherwise.
        drop: Modality to the chance that a window does not have it at all.
        drop_region: Chance that a modality is missing over a random half-plane of a window.
        balanced: Chance that a window is drawn around a patch of a random class, so that rare
            classes (buildings, water) are seen often enough.
    """

    side: int
    keep_dates: int
    drop: Mapping[str, float]
    drop_region: float = 0.15
    balanced: float = 0.5


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows of P = side² patches.

    Attributes:
        pixels: Modality to (B, P, C, p, p) image or (B, P, T, C, 1, 1) series, normalised.
        days: Series modality to (B, T) day numbers.
        valid: Series modality to (B, P, T) bool.
        present: Modality to (B, P) bool.
        truth: (B, 10 side, 10 side) int64 classes at 1 m, 255 = none.
        boundary: (B, 10 side, 10 side) float32, 1 on parcel and class boundaries.
    """

    pixels: dict[str, Tensor]
    days: dict[str, Tensor]
    valid: dict[str, Tensor]
    present: dict[str, Tensor]
    truth: Tensor
    boundary: Tensor


def boundaries(scene: Scene) -> NDArray[np.bool_]:
    """Return (M, N): the 1 m pixels that touch another parcel or another class."""
    key = scene.parcel_ids.astype(np.int64) * 256 + scene.truth
    edge = np.zeros(key.shape, bool)
    for axis in (0, 1):
        change = np.diff(key, axis=axis) != 0
        for cut in (slice(None, -1), slice(1, None)):
            where = [slice(None), slice(None)]
            where[axis] = cut
            edge[tuple(where)] |= change
    return edge


class CropSampler:
    """Draws windows from scenes.

    Args:
        scenes: Simulated scenes, all with the aerial pixel of the card.
        card: Bands, normalisation and day encoding.
        spec: How windows are drawn.
        seed: Seed of the draws.
    """

    def __init__(self, scenes: list[Scene], card: Card, spec: CropSpec, seed: int) -> None:
        self.scenes = scenes
        self.cards: dict[str, ModalityCard] = {entry.name: entry for entry in card.modalities}
        self.spec = spec
        self.edges = [boundaries(scene) for scene in scenes]
        self.rng = np.random.default_rng(seed)

    def draw(self, count: int) -> Batch:
        """Draw `count` windows; all share the kept dates of their own scene only."""
        parts = [self._window() for _ in range(count)]
        names = list(self.cards)
        return Batch(
            pixels={n: self._stacked(n, [p.pixels[n] for p in parts]) for n in names},
            days={n: torch.stack([p.days[n] for p in parts]) for n in names if n in parts[0].days},
            valid={
                n: torch.stack([p.valid[n] for p in parts]) for n in names if n in parts[0].valid
            },
            present={n: torch.stack([p.present[n] for p in parts]) for n in names},
            truth=torch.stack([p.truth for p in parts]),
            boundary=torch.stack([p.boundary for p in parts]),
        )

    def _stacked(self, name: str, arrays: list[Tensor]) -> Tensor:
        card = self.cards[name]
        values = torch.stack(arrays).float()
        mean = torch.tensor(card.mean).view(-1, 1, 1)
        std = torch.tensor(card.std).view(-1, 1, 1)
        return (values - mean) / std

    def _window(self) -> Batch:
        spec, rng = self.spec, self.rng
        which = int(rng.integers(len(self.scenes)))
        scene = self.scenes[which]
        row, col = self._place(which)
        turn = int(rng.integers(4)), bool(rng.integers(2))
        pixels, days, valid = {}, {}, {}
        present = self._present()
        for name in self.cards:
            if name == "aerial":
                side = round(_TRUTH_PX / scene.gsd)
                pixels[name] = patches(
                    _turned(_cut(scene.aerial, row, col, spec.side, side), turn), side
                )
                continue
            values, dates, clear = _series(scene, name)
            kept = np.sort(rng.permutation(len(dates))[: spec.keep_dates])
            cut = _turned(_cut(values[kept], row, col, spec.side, 1), turn)
            mask = _turned(_cut(clear[kept], row, col, spec.side, 1), turn)
            pixels[name] = torch.from_numpy(  # (P, T, C, 1, 1)
                cut.reshape(*cut.shape[:2], -1)
                .transpose(2, 0, 1)[..., None, None]
                .astype(np.float32)
            )
            valid[name] = torch.from_numpy(mask.reshape(len(kept), -1).T.copy())
            days[name] = torch.from_numpy(day_numbers(dates[kept], self.cards[name].dates))
            present[name] &= valid[name].any(dim=1)
        place = (row, col, spec.side, _TRUTH_PX)
        return Batch(
            pixels,
            days,
            valid,
            present,
            torch.from_numpy(_turned(_cut(scene.truth, *place), turn).astype(np.int64)),
            torch.from_numpy(_turned(_cut(self.edges[which], *place), turn).astype(np.float32)),
        )

    def _place(self, which: int) -> tuple[int, int]:
        """Draw the first patch of a window, anywhere or around a patch of a random class."""
        spec, rng = self.spec, self.rng
        truth = self.scenes[which].truth
        last = [n // _TRUTH_PX - spec.side for n in truth.shape]
        start = [int(rng.integers(end + 1)) for end in last]
        if rng.random() < spec.balanced:
            code = rng.choice(np.unique(truth[::5, ::5]))
            found = np.argwhere(truth[::5, ::5] == code)
            centre = found[rng.integers(len(found))] * 5 // _TRUTH_PX
            shift = rng.integers(0, spec.side, 2)
            start = [
                int(np.clip(c - s, 0, end)) for c, s, end in zip(centre, shift, last, strict=True)
            ]
        return start[0], start[1]

    def _present(self) -> dict[str, Tensor]:
        """Draw modality dropout: whole windows and half-planes; one modality is always whole."""
        spec, rng = self.spec, self.rng
        names = list(self.cards)
        kept = str(rng.choice(names))
        present = {}
        for name in names:
            mask = np.ones((spec.side, spec.side), bool)
            if name != kept and rng.random() < spec.drop.get(name, 0.0):
                mask[:] = False
            elif name != kept and rng.random() < spec.drop_region:
                mask = _half_plane(spec.side, rng)
            present[name] = torch.from_numpy(mask.ravel())
        return present


def patches(image: NDArray[np.generic], side: int) -> Tensor:
    """Cut (C, H, W) into (P, C, side, side), row by row."""
    C, H, W = image.shape
    cut = image.reshape(C, H // side, side, W // side, side).transpose(1, 3, 0, 2, 4)
    return torch.from_numpy(np.ascontiguousarray(cut.reshape(-1, C, side, side)))


def _series(
    scene: Scene, name: str
) -> tuple[NDArray[np.generic], NDArray[np.datetime64], NDArray[np.bool_]]:
    """Return pixels (T, C, h, w), dates and clear (T, h, w) of a series of a scene."""
    if name == "s2":
        return scene.s2, scene.s2_dates, np.isin(scene.scl, CLEAR_SCL)
    clear = np.ones((len(scene.s1_dates), *scene.s1.shape[-2:]), bool)
    return scene.s1, scene.s1_dates, clear


def _cut(array: NDArray[np.generic], row: int, col: int, side: int, px: int) -> NDArray[np.generic]:
    return array[..., row * px : (row + side) * px, col * px : (col + side) * px]


def _turned(array: NDArray[np.generic], turn: tuple[int, bool]) -> NDArray[np.generic]:
    turned = np.rot90(array, turn[0], axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if turn[1] else turned)


def _half_plane(side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    angle = rng.uniform(0, 2 * np.pi)
    grid = np.arange(side) - (side - 1) / 2
    distance = grid[:, None] * np.sin(angle) + grid[None] * np.cos(angle)
    return np.asarray(distance > rng.uniform(-side / 3, side / 3))
