"""Blocks of patches for joint-embedding prediction: what is predicted, and from what.

Source: I-JEPA (Assran et al., CVPR 2023), the multi-block masks, with the areas of AnySat (Astruc
et al., CVPR 2025). Draws come from a generator that is given, so that a mask is a function of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.networks.anysat_jepa import JepaMasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.networks.anysat_jepa import Recipe

    Mask = NDArray[np.bool_]

Range = tuple[float, float]
_TRIES = 20  # failed draws after which one constraint is dropped


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """How blocks are drawn; the defaults are AnySat's.

    Attributes:
        targets: Target blocks a window; there is one context block.
        target_area: Share of the window that a target block covers.
        target_aspect: Height over width of a target block.
        context_area: Share that the context block covers, before the targets are taken out.
        least: Fewest patches of a block.
        recipe: "official" never lets a block touch the last row and column unless it is as long
            as can be, and takes the first patches of a block where the shortest of the batch is
            shorter, which favours the upper rows. "corrected" does neither.
    """

    targets: int = 4
    target_area: Range = (0.2, 0.8)
    target_aspect: Range = (0.75, 1.5)
    context_area: Range = (0.85, 1.0)
    least: int = 1
    recipe: Recipe = "corrected"

    def __post_init__(self) -> None:
        """Refuse areas that no block has."""
        for low, high in (self.target_area, self.context_area):
            if not 0 < low <= high <= 1:
                raise ValueError(f"areas lie between 0 and 1, found {low:g} to {high:g}")
        if min(self.target_aspect) <= 0 or self.targets < 1 or self.least < 1:
            raise ValueError("aspect, number of targets and least patches must be above 0")


def block_sides(draw: float, area: Range, aspect: Range, grid: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a block.

    Args:
        draw: Number of [0, 1) that drives area and aspect alike.
        area: Least and largest share of the window.
        aspect: Least and largest height over width.
        grid: Rows and columns of patches of the window.

    Returns:
        At least 1 and less than the side of the window.
    """
    share = area[0] + draw * (area[1] - area[0])
    ratio = aspect[0] + draw * (aspect[1] - aspect[0])
    count = int(grid[0] * grid[1] * share)
    rows, cols = round(math.sqrt(count * ratio)), round(math.sqrt(count / ratio))
    return min(max(rows, 1), grid[0] - 1), min(max(cols, 1), grid[1] - 1)


def draw_masks(
    grid: tuple[int, int], batch: int, rng: np.random.Generator, spec: BlockSpec | None = None
) -> JepaMasks:
    """Draw targets and context of a batch of windows; blocks of a batch have equal sides.

    Args:
        grid: Rows and columns of patches of a window, at least 2.
        batch: Windows B.
        rng: Source of the draws.
        spec: How blocks are drawn.

    Returns:
        Patches row by row; as many in each window as in the one that has fewest.

    Raises:
        ValueError: If the window is a single row or column.
    """
    if min(grid) < 2:
        raise ValueError(f"a window of {grid[0]} x {grid[1]} patches cannot be divided in blocks")
    spec = spec or BlockSpec()
    target = block_sides(rng.random(), spec.target_area, spec.target_aspect, grid)
    context = block_sides(rng.random(), spec.context_area, (1.0, 1.0), grid)
    targets: list[list[Mask]] = []
    contexts: list[Mask] = []
    for _ in range(batch):
        drawn = [_block(grid, target, rng, spec) for _ in range(spec.targets)]
        targets.append(drawn)
        contexts.append(_context(grid, context, drawn, rng, spec))
    fewest = min(int(mask.sum()) for row in targets for mask in row)
    return JepaMasks(
        _indices(contexts, min(int(mask.sum()) for mask in contexts), rng, spec),
        tuple(
            _indices([row[k] for row in targets], fewest, rng, spec) for k in range(spec.targets)
        ),
    )


def _block(
    grid: tuple[int, int], sides: tuple[int, int], rng: np.random.Generator, spec: BlockSpec
) -> Mask:
    """Place a block anywhere in a window."""
    more = 0 if spec.recipe == "official" else 1
    row, col = (
        int(rng.integers(whole - side + more)) for whole, side in zip(grid, sides, strict=True)
    )
    mask = np.zeros(grid, bool)
    mask[row : row + sides[0], col : col + sides[1]] = True
    return mask


def _context(
    grid: tuple[int, int],
    sides: tuple[int, int],
    targets: list[Mask],
    rng: np.random.Generator,
    spec: BlockSpec,
) -> Mask:
    """Place a block and take the targets out; fewer of them where too little would be left."""
    failed = 0
    while True:
        relaxed = failed // _TRIES
        mask = _cut(_block(grid, sides, rng, spec), targets, relaxed)
        if mask.sum() >= spec.least or relaxed > len(targets):
            return mask
        failed += 1


def _cut(block: Mask, targets: list[Mask], relaxed: int) -> Mask:
    """Take the targets out of a block, but for the last `relaxed` of them."""
    mask = block.copy()
    for target in targets[: max(len(targets) - relaxed, 0)]:
        mask &= ~target
    return mask


def _indices(
    masks: list[Mask], count: int, rng: np.random.Generator, spec: BlockSpec
) -> torch.Tensor:
    """Return `count` patches of each mask: (B, count), ascending."""
    rows = []
    for mask in masks:
        found = np.flatnonzero(mask)
        if spec.recipe != "official" and len(found) > count:
            found = np.sort(rng.permutation(found)[:count])
        rows.append(found[:count])
    return torch.from_numpy(np.stack(rows))
