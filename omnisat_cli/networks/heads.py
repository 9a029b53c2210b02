"""Heads: tile labels, patch labels, and dense maps at two resolutions."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.seam import Dense

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.networks.image import ImageFeatures

Grid = tuple[int, int]


class TileHead(nn.Module):
    """Multi-label logits of a window from its class token.

    The key of the layers is `head` or `mlp`, as in the published checkpoints: `head.0` for a
    plain linear layer, `mlp.0`, `mlp.1`, ... for normalisation, hidden layers and the last linear.

    Args:
        width: Width of the class token.
        classes: Labels.
        hidden: Widths of hidden layers, each with batch-norm and GELU; None for the plain linear
            layer without normalisation.
    """

    def __init__(self, width: int, classes: int, hidden: tuple[int, ...] | None = None) -> None:
        super().__init__()
        if hidden is None:
            self.head = nn.Sequential(nn.Linear(width, classes))
            return
        layers: list[nn.Module] = [nn.LayerNorm(width)]
        for before, after in pairwise((width, *hidden)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.GELU()]
        layers.append(nn.Linear(hidden[-1] if hidden else width, classes))
        self.mlp = nn.Sequential(*layers)

    def forward(self, fused: Tensor) -> Tensor:
        """Label windows: (B, 1 + P, D) to (B, K) logits."""
        layers = self.head if hasattr(self, "head") else self.mlp
        logits: Tensor = layers(fused[:, 0])
        return logits


class PatchHead(nn.Module):
    """Class logits of every patch."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, fused: Tensor) -> Tensor:
        """Label patches: (B, 1 + P, D) to (B, P, K) logits."""
        logits: Tensor = self.linear(self.norm(fused[:, 1:]))
        return logits


class FineProjection(nn.Module):
    """Narrow an image encoder's finer maps to few channels, patch by patch."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(width, channels, 1)
        self.middle = nn.Conv2d(width, channels, 1, bias=False)

    def forward(self, features: ImageFeatures) -> Tensor:
        """Combine two levels: (N, F, f, f) with f the side of the stem."""
        fine: Tensor = self.stem(features.stem)
        coarse: Tensor = self.middle(features.middle)
        size = (fine.shape[-2], fine.shape[-1])
        return fine + functional.interpolate(
            coarse, size=size, mode="bilinear", align_corners=False
        )


class DenseHead(nn.Module):
    """Class and boundary logits: coarse from fused tokens, fine with the encoders' finer maps.

    Args:
        width: Width of the fused tokens.
        classes: Classes K.
        coarse_side: Coarse pixels along a patch.
        fine_sides: Image modality to the side of its finer maps, pixels a patch.
        channels: Channels of those maps.
        hidden: Channels of the 3 x 3 convolutions.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        coarse_side: int,
        fine_sides: Mapping[str, int],
        channels: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.outputs = classes + 1  # the last is the boundary
        self.coarse_side, self.fine_sides = coarse_side, dict(fine_sides)
        self.fine_side = max(fine_sides.values(), default=coarse_side)
        if self.fine_side % coarse_side:
            raise ValueError(
                f"{self.fine_side} fine pixels a patch are no multiple of {coarse_side} coarse ones"
            )
        self.coarse = nn.Linear(width, coarse_side**2 * self.outputs)
        if not fine_sides:
            return
        self.context = nn.Linear(width, hidden)
        self.conv1 = nn.Conv2d(channels * len(fine_sides), hidden, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.last = nn.Conv2d(hidden, self.outputs, 1)

    def coarse_logits(self, fused: Tensor, grid: Grid) -> Tensor:
        """Return (B, K + 1, h * c, w * c) from (B, 1 + P, D)."""
        c = self.coarse_side
        y: Tensor = self.coarse(fused[:, 1:])
        y = y.view(-1, *grid, self.outputs, c, c).permute(0, 3, 1, 4, 2, 5)  # (B, K, h, c, w, c)
        return y.reshape(-1, self.outputs, grid[0] * c, grid[1] * c)

    def fine_logits(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        coarse: Tensor,
        grid: Grid,
    ) -> Tensor:
        """Return (B, K + 1, h * f, w * f); patches without finer maps repeat `coarse`.

        Args:
            fused: (B, 1 + P, D).
            fine: Modality to (B, P, F, f, f).
            present: Modality to (B, P) bool.
            coarse: From `coarse_logits`.
            grid: Rows and columns of patches.
        """
        repeated = _repeat(coarse, self.fine_side // self.coarse_side)
        names = [name for name in self.fine_sides if name in fine and name in present]
        if not names:
            return repeated
        have = torch.stack([present[name] for name in names]).any(0)  # (B, P)
        index = have.any(1).nonzero().squeeze(1)
        if len(index) == 0:
            return repeated
        if len(index) < len(have):  # windows without any finer map cost nothing
            some = {name: fine[name][index] for name in names}
            flags = {name: present[name][index] for name in names}
            refined = self._refine(fused[index], some, flags, grid)
            keep = _repeat(have[index].view(-1, 1, *grid), self.fine_side)
            refined = torch.where(keep, refined, repeated[index])
            return repeated.index_copy(0, index, refined)
        refined = self._refine(fused, {name: fine[name] for name in names}, present, grid)
        if bool(have.all()):
            return refined
        return torch.where(_repeat(have.view(-1, 1, *grid), self.fine_side), refined, repeated)

    def _refine(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        grid: Grid,
    ) -> Tensor:
        B = fused.shape[0]
        size = (grid[0] * self.fine_side, grid[1] * self.fine_side)
        context: Tensor = self.context(fused[:, 1:])
        context = torch.unflatten(context.transpose(1, 2), 2, grid)  # (B, hidden, h, w)
        context = functional.interpolate(context, size=size, mode="bilinear", align_corners=False)
        maps = []
        for name, side in self.fine_sides.items():
            if name not in fine:
                channels = self.conv1.in_channels // len(self.fine_sides)
                maps.append(context.new_zeros(B, channels, *size))
                continue
            part = fine[name]
            if not bool(present[name].all()):
                part = part.masked_fill(~present[name][:, :, None, None, None], 0.0)
            maps.append(_resize(window_map(part, grid), size, side == self.fine_side))
        x = maps[0] if len(maps) == 1 else torch.cat(maps, 1)
        # In place: no step needs the values that the next one overwrites.
        x = functional.relu(self.norm1(self.conv1(x)).add_(context), inplace=True)
        x = functional.relu(self.norm2(self.conv2(x)), inplace=True)
        logits: Tensor = self.last(x)
        return logits

    def dense(self, logits: Tensor) -> Dense:
        """Split the boundary from the classes."""
        return Dense(logits[:, :-1], logits[:, -1])


def window_map(patches: Tensor, grid: Grid) -> Tensor:
    """Lay the maps of patches side by side: (B, P, F, f, f) to (B, F, h * f, w * f).

    The result is channels-last, the faster layout of the convolutions that follow.
    """
    B, _, C, f, _ = patches.shape
    maps = patches.view(B, *grid, C, f, f).permute(0, 1, 4, 2, 5, 3)  # (B, h, f, w, f, F)
    return maps.reshape(B, grid[0] * f, grid[1] * f, C).permute(0, 3, 1, 2)


def _resize(maps: Tensor, size: Grid, same: bool) -> Tensor:
    if same:
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _repeat(maps: Tensor, times: int) -> Tensor:
    """Repeat every pixel of (B, C, h, w) `times` times along both axes."""
    B, C, h, w = maps.shape
    spread = maps[:, :, :, None, :, None].expand(B, C, h, times, w, times)
    return spread.reshape(B, C, h * times, w * times)
