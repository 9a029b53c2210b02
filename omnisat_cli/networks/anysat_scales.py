"""AnySat's fine output averaged over patches of several sizes.

One patch of the engine is the largest; every smaller size is cut inside of it, so that what is
encoded still follows from the patch alone. Source: the multi-scale evaluation of AnySat's
training code (Astruc et al., CVPR 2025).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.networks.seam import Dense, Encoded, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from omnisat_cli.networks.anysat_values import Grid


class AnySatScales(AnySatSegmenter):
    """An `AnySatSegmenter` at several patch sizes at once; the tokens of a patch lie side by side.

    Args:
        config: With `scales`.
    """

    def __init__(self, config: AnySatSegmenterConfig) -> None:
        super().__init__(config)
        self.times = tuple(config.patch_m // size for size in (config.patch_m, *config.scales))

    @property
    def traits(self) -> Traits:
        """What to plan a run with."""
        one = super().traits
        fine = {name: count * len(self.times) for name, count in one.fine.items()}
        return replace(one, width=one.width * sum(k * k for k in self.times), fine=fine)

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode image patches; see `PatchLocal.encode_image`."""
        whole = super().encode_image
        return self._stacked(pixels, lambda cut, _: whole(name, cut))

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        """Encode series of patches; see `PatchLocal.encode_series`."""
        whole = super().encode_series

        def encode(cut: Tensor, k: int) -> Encoded:
            own = days if days.dim() == 1 else days.repeat_interleave(k * k, 0)
            return whole(name, cut, own, valid.repeat_interleave(k * k, 0))

        return self._stacked(pixels, encode)

    def fuse(
        self,
        tokens: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        grid: Grid | None = None,
    ) -> Tensor:
        """Fuse windows at every size; see `PatchLocal.fuse`."""
        grid = grid or self.config.grid
        fused = []
        for k, part in self._parts():
            finer = {name: _spread(values[..., part], grid, k) for name, values in tokens.items()}
            masks = {
                name: _spread(mask.unsqueeze(2).repeat(1, 1, k * k), grid, k).squeeze(2)
                for name, mask in present.items()
            }
            size = self.config.patch_m // k
            out = self._fused(finer, masks, (grid[0] * k, grid[1] * k), size)
            fused.append(
                torch.cat([out[:, :1].repeat(1, 1, k * k), _gather(out[:, 1:], grid, k)], 1)
            )
        return torch.cat(fused, dim=2)

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
        grid: Grid | None = None,
    ) -> Dense:
        """Average the logits of all sizes; see `PatchLocal.decode`."""
        del present, fine_output  # there is one output, where the sensor is
        grid = grid or self.config.grid
        name = self.config.fine_sensor
        assert name is not None
        cells = fine[name].chunk(len(self.times), dim=2)  # (B, P, D, f, f) each
        total: Tensor | None = None
        for (k, part), own in zip(self._parts(), cells, strict=True):
            patches = _spread(fused[:, 1:, part], grid, k)
            finer = (grid[0] * k, grid[1] * k)
            logits = self._fine_logits(torch.unflatten(patches, 1, finer), _cells(own, grid, k))
            total = logits if total is None else total + logits
        assert total is not None
        return Dense(total / len(self.times))

    def _parts(self) -> Iterator[tuple[int, slice]]:
        """Yield how often a size lies along a patch, and where its tokens lie."""
        width, start = self.config.encoder.width, 0
        for k in self.times:
            yield k, slice(start, start + k * k * width)
            start += k * k * width

    def _stacked(self, pixels: Tensor, encode: Callable[[Tensor, int], Encoded]) -> Encoded:
        """Encode patches (N, …, p, p) at every size and lay the results side by side."""
        N, tokens, fine = len(pixels), [], []
        for k in self.times:
            found = encode(_cut(pixels, k), k)
            tokens.append(found.tokens.reshape(N, -1))
            if found.fine is not None:
                parts = torch.unflatten(found.fine, 0, (N, k, k)).permute(0, 3, 1, 4, 2, 5)
                fine.append(parts.flatten(4, 5).flatten(2, 3))  # (N, D, f, f)
        return Encoded(torch.cat(tokens, 1), torch.cat(fine, 1) if fine else None)


def _cut(pixels: Tensor, k: int) -> Tensor:
    """Cut patches (N, …, p, p) into k × k smaller ones, row by row: (N k k, …, p / k, p / k)."""
    side, last = pixels.shape[-1] // k, pixels.dim() - 2
    parts = pixels.unfold(last, side, side).unfold(last + 1, side, side)  # (N, …, k, k, q, q)
    return parts.movedim((last, last + 1), (1, 2)).flatten(0, 2)


def _spread(values: Tensor, grid: Grid, k: int) -> Tensor:
    """Lay what patches (B, P, k k D) hold of smaller ones out row by row: (B, P k k, D).

    Args:
        values: Of the patches.
        grid: Rows and columns of patches.
        k: Smaller patches along one.
    """
    parts = torch.unflatten(torch.unflatten(values, 2, (k, k, -1)), 1, grid)
    return parts.transpose(2, 3).flatten(1, 4)


def _gather(values: Tensor, grid: Grid, k: int) -> Tensor:
    """Undo `_spread`: (B, P k k, D) to (B, P, k k D)."""
    parts = torch.unflatten(values, 1, (grid[0], k, grid[1], k))
    return parts.transpose(2, 3).flatten(3, 5).flatten(1, 2)


def _cells(fine: Tensor, grid: Grid, k: int) -> Tensor:
    """Cut the features of patches (B, P, D, f, f) into those of smaller ones, row by row."""
    B, P = fine.shape[:2]
    small = _cut(fine.flatten(0, 1), k)  # (B P k k, D, f / k, f / k)
    held = torch.unflatten(small, 0, (B, P, k * k)).flatten(2)
    return torch.unflatten(_spread(held, grid, k), 2, small.shape[1:])
