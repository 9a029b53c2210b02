"""What a network is not shown in training: dates and modalities, so that it learns without them."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.modality import stand_alone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.learning.data.windows import Piece


def some_dates(
    clear: NDArray[np.bool_], most: int | None, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw dates among those that are clear somewhere.

    Args:
        clear: (T, P) bool.
        most: Most dates, or None for all.
        rng: Random numbers.

    Returns:
        Indices, ascending.
    """
    some = np.flatnonzero(clear.any(axis=1))
    return np.sort(rng.permutation(some)[:most])


def drop_modalities(
    pieces: Mapping[str, Piece],
    drop: Mapping[str, float],
    drop_region: float,
    rng: np.random.Generator,
) -> dict[str, Piece]:
    """Leave modalities out: over a whole window or a half-plane; one always stays whole.

    That one can stand alone, and is drawn among those that show at least half as much as the one
    that shows most: a modality that is hardly there would leave nothing to look at.

    Args:
        pieces: What is there.
        drop: Modality to the chance that all of it is left out.
        drop_region: Chance that it is left out over a half-plane.
        rng: Random numbers.
    """
    shown = {n: int(piece.present.sum()) for n, piece in pieces.items() if stand_alone((n,))}
    able = [name for name, count in shown.items() if 2 * count >= max(shown.values())]
    kept = str(rng.choice(able)) if able else ""
    left = {}
    for name, piece in pieces.items():
        side = isqrt(len(piece.present))
        mask = np.ones((side, side), bool)
        if name != kept and rng.random() < drop.get(name, 0.0):
            mask[:] = False
        elif name != kept and rng.random() < drop_region:
            mask = _half_plane(side, rng)
        left[name] = replace(piece, present=piece.present & torch.from_numpy(mask.ravel()))
    return left


def _half_plane(side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    angle = rng.uniform(0, 2 * np.pi)
    grid = np.arange(side) - (side - 1) / 2
    distance = grid[:, None] * np.sin(angle) + grid[None] * np.cos(angle)
    return np.asarray(distance > rng.uniform(-side / 3, side / 3))
