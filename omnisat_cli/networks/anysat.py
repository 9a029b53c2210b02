"""AnySat: any sensors of one place, at any scale, to one vector a patch.

Source: "AnySat: One Earth Observation Model for Many Resolutions, Scales, and Modalities" (Astruc
et al., CVPR 2025). State-dict keys are those of the published release.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisat_cli.networks.anysat_combiner import Combiner, tiled_buckets
from omnisat_cli.networks.anysat_encoders import (
    Attention,
    Block,
    HeadAttention,
    ImageProjector,
    SeriesProjector,
    SpatialEncoder,
    Subpatches,
    cells_to_raster,
    position_code,
)
from omnisat_cli.networks.anysat_values import Features, Patches, Windowed, check_ground
from omnisat_cli.networks.image import cut_patches
from omnisat_cli.networks.relative import GridLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from omnisat_cli.networks.anysat_config import AnySatConfig, Sensor
    from omnisat_cli.networks.anysat_values import Grid

# Widest activation of the patches encoded at once without autograd.
_CPU_BYTES = 1 << 22
_GPU_BYTES = 1 << 29


class AnySat(nn.Module):
    """The network. `encode_image` and `encode_series` are patch-local, `fuse` sees a window.

    Args:
        config: Sizes, sensors and behaviour.
    """

    def __init__(self, config: AnySatConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.width, config.heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        for sensor in config.sensors:
            kind = ImageProjector if sensor.kind == "image" else SeriesProjector
            self.add_module(f"projector_{sensor.name}", kind(config, sensor))
        self.spatial_encoder = SpatialEncoder(config)
        attention = Attention if config.trunk_attention == "tokens" else HeadAttention
        blocks: list[nn.Module] = [
            Block(width, attention(width, heads, biased=False), config.mlp_ratio, 1e-6)
            for _ in range(config.depth)
        ]
        blocks.append(Combiner(width, heads, config.mlp_ratio))
        self.blocks = nn.ModuleList(blocks)
        self.apply(_initialise)
        combiner = self.blocks[-1]
        assert isinstance(combiner, Combiner)
        for parameter in (
            self.cls_token,
            self.spatial_encoder.cls_token,
            combiner.attn.q_learned,
        ):
            nn.init.trunc_normal_(parameter, std=0.02)

    def encode_image(self, name: str, pixels: Tensor, *, kept: bool = True) -> Patches:
        """Encode image patches (N, C, p, p); see `encode`."""
        projector = self.get_submodule(f"projector_{name}")
        return self._spatial(name, projector(pixels), kept=kept)

    def encode_series(
        self,
        name: str,
        pixels: Tensor,
        days: Tensor,
        valid: Tensor | None = None,
        *,
        kept: bool = True,
    ) -> Patches:
        """Encode patches of a series.

        Args:
            name: Sensor.
            pixels: (N, T, C, p, p).
            days: (T,) or (N, T).
            valid: (N, T) or (N, T, p, p) bool; None takes everything.
            kept: Return the sub-patch vectors; none of them otherwise.
        """
        projector = self.get_submodule(f"projector_{name}")
        return self._spatial(name, projector(pixels, days, valid), kept=kept)

    def encode(
        self,
        name: str,
        pixels: Tensor,
        days: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        kept: bool = True,
    ) -> Patches:
        """Encode many patches of any sensor, a slice at a time without autograd.

        Args:
            name: Sensor.
            pixels: (N, C, p, p) image or (N, T, C, p, p) series.
            days: (T,) or (N, T) for a series.
            valid: (N, T) or (N, T, p, p) bool for a series; None takes everything.
            kept: Return the sub-patch vectors; none of them otherwise.
        """
        done: list[Patches] = []
        for part in self._parts(name, pixels):
            if days is None:
                done.append(self.encode_image(name, pixels[part], kept=kept))
                continue
            own = days if days.dim() == 1 else days[part]
            flags = None if valid is None else valid[part]
            done.append(self.encode_series(name, pixels[part], own, flags, kept=kept))
        return _join(done, kept=kept)

    def fuse(
        self,
        tokens: Mapping[str, Tensor],
        grid: Grid,
        patch_m: int,
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Fuse the tokens of windows.

        Args:
            tokens: Sensor to (B, P, D), row by row; sensors with one pixel a window (B, 1, D).
            grid: Rows and columns of patches.
            patch_m: Side of a patch, metres.
            present: Sensor to (B, P) bool for the sensors that are not everywhere; tokens that
                are not present have no influence.

        Returns:
            (B, 1 + P, D).

        Raises:
            ValueError: If no sensor gives patches, or their number is not the grid's.
        """
        whole = [name for name in tokens if self.config.sensor(name).whole_window]
        local = [name for name in tokens if name not in whole]
        self._check_tokens(tokens, local, grid)
        first = tokens[local[0]]
        code = position_code(*grid, patch_m / 10, self.config.width, first.device)
        code = code.to(first.dtype)
        B, P = first.shape[:2]
        parts = [self.cls_token.expand(B, -1, -1), *(tokens[name] for name in whole)]
        given = present or {}
        flags = [torch.ones(B, 1, dtype=torch.bool, device=first.device)]
        for name in (*whole, *local):
            count = 1 if name in whole else P
            flags.append(given.get(name, flags[0].expand(B, count)))
        for name in local:
            values = tokens[name]
            if name in given:  # whatever fills a hole, even NaN, must not reach the values
                values = values.masked_fill(~given[name].unsqueeze(-1), 0.0)
            parts.append(values + code[1:])
        x = torch.cat(parts, dim=1)
        hidden = torch.cat(flags, dim=1) if given else None
        if hidden is not None and not hidden.is_cuda and bool(hidden.all()):
            hidden = None  # asking a GPU would wait for it
        for block in self.blocks[:-1]:
            x = block(x, None, hidden)
        layout = GridLayout(tiled_buckets(grid, len(local), 1 + len(whole), x.device), 1, 1)
        fused: Tensor = self.blocks[-1](x, code, layout, hidden)
        return fused

    def fuse_restricted(
        self, x: Tensor, code: Tensor, buckets: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Fuse a sequence at some locations only, for pretraining.

        Args:
            x: (B, L, D) tokens with their positions, the class token first.
            code: (B, Q, D) position codes of the queries.
            buckets: (B, Q, L) int64 relative buckets of queries and tokens.
            present: (B, L) bool; tokens that are not present have no influence. None takes all.

        Returns:
            (B, Q, D).
        """
        for block in self.blocks[:-1]:
            x = block(x, None, present)
        combiner = self.blocks[-1]
        assert isinstance(combiner, Combiner)
        return combiner.restricted(x, code, buckets, present)

    def window_tokens(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor] | None = None,
        *,
        patch_m: int,
        keep: str | None = None,
    ) -> Windowed:
        """Encode windows without fusing; see `forward`."""
        check_ground({name: value.shape for name, value in pixels.items()}, self.config)
        valid = valid or {}
        tokens: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        fine: dict[str, Tensor] = {}
        grid: Grid = (0, 0)
        for name, value in pixels.items():
            sensor = self.config.sensor(name)
            px = sensor.patch_side(patch_m, self.config.behaviour) * sensor.subpatch_px
            B = value.shape[0]
            patches = self._encode_window(
                sensor, value, days.get(name), valid.get(name), px, kept=name == keep
            )
            tokens[name] = torch.unflatten(patches.tokens, 0, (B, -1))
            if patches.present is not None:
                present[name] = patches.present.view(B, -1)
            own = (value.shape[-2] // px, value.shape[-1] // px)
            grid = grid if sensor.whole_window else own
            if name == keep:
                fine[name] = self._map(sensor, patches.fine, B, own)
        return Windowed(tokens, present, grid, fine)

    def forward(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor] | None = None,
        *,
        patch_m: int = 10,
        keep: str | None = None,
    ) -> Features:
        """Encode whole windows.

        Args:
            pixels: Sensor to (B, C, H, W) image or (B, T, C, h, w) series, normalised, all of the
                same ground. What does not fill a patch at the right and bottom is left out.
            days: Series to (T,) or (B, T) day numbers.
            valid: Series to (B, T, h, w) or (B, T) bool; None takes everything.
            patch_m: Side of a patch, a multiple of 10 m.
            keep: Sensor whose sub-patch vectors are kept for the dense output.

        Returns:
            The features of the windows.

        Raises:
            ValueError: If sensors do not cover the same ground or do not fit the patch size.
        """
        seen = self.window_tokens(pixels, days, valid, patch_m=patch_m, keep=keep)
        fused = self.fuse(seen.tokens, seen.grid, patch_m, seen.present)
        return Features(fused, seen.grid, seen.fine)

    def _spatial(self, name: str, parts: Subpatches, *, kept: bool) -> Patches:
        step = self.config.sensor(name).subpatch_m
        token, fine = self.spatial_encoder(parts, step, kept=kept)
        return Patches(token, fine, None if parts.present is None else parts.present.any(1))

    def _encode_window(
        self,
        sensor: Sensor,
        value: Tensor,
        days: Tensor | None,
        valid: Tensor | None,
        px: int,
        *,
        kept: bool,
    ) -> Patches:
        """Cut one sensor of windows into patches and encode them: (B * P, ...)."""
        cut = cut_patches(value, px).transpose(0, 1)  # (B, P, ..., p, p)
        P = cut.shape[1]
        rows = cut.flatten(0, 1)
        if sensor.kind == "series" and days is None:
            raise ValueError(f"{sensor.name}: a series needs the days of its dates")
        if days is not None and days.dim() == 2:
            days = days.repeat_interleave(P, 0)
        if valid is not None and valid.dim() == 4:
            valid = cut_patches(valid.unsqueeze(2), px).transpose(0, 1).squeeze(3).flatten(0, 1)
        elif valid is not None:
            valid = valid.repeat_interleave(P, 0)
        return self.encode(sensor.name, rows, days, valid, kept=kept)

    def _parts(self, name: str, rows: Tensor) -> Iterator[slice]:
        """Slice patches so that what lies between two layers stays small without autograd."""
        count = rows.shape[0]
        step = count
        if not torch.is_grad_enabled():
            sensor = self.config.sensor(name)
            subpatches = math.prod(rows.shape[-2:]) // sensor.subpatch_px**2
            each = self.config.width * rows.element_size()
            budget = _GPU_BYTES if rows.is_cuda else _CPU_BYTES
            step = int(budget / ((1 + subpatches) * self.config.mlp_ratio * each))
            if sensor.kind == "series":  # its encoder has slices of its own once it is folded
                step = min(step, 8 * budget // (2 * subpatches * rows.shape[1] * each))
        step = max(step, 1)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def _map(self, sensor: Sensor, fine: Tensor, batch: int, grid: Grid) -> Tensor:
        """Lay sub-patches (B * P, S, D) out as a map (B, rows * e, cols * e, D)."""
        if self.config.behaviour == "corrected":
            fine = cells_to_raster(fine, sensor.cell_side)
        side = math.isqrt(fine.shape[1])
        cells = fine.view(batch, *grid, side, side, -1).transpose(2, 3)
        return cells.reshape(batch, grid[0] * side, grid[1] * side, -1)

    def _check_tokens(self, tokens: Mapping[str, Tensor], local: list[str], grid: Grid) -> None:
        if not local:
            raise ValueError(
                f"a window needs a sensor with patches beside {', '.join(tokens) or 'nothing'}; "
                f"the network has {', '.join(self.config.names)}"
            )
        for name in local:
            if tokens[name].shape[1] != math.prod(grid):
                raise ValueError(
                    f"{name}: {tokens[name].shape[1]} patches in a window of {grid[0]} x {grid[1]}"
                )


def _join(done: list[Patches], *, kept: bool) -> Patches:
    """Join slices; sub-patches that nobody asked for are dropped."""
    tokens = torch.cat([part.tokens for part in done])
    fine = torch.cat([part.fine if kept else part.fine[:, :0] for part in done])
    if all(part.present is None for part in done):
        return Patches(tokens, fine)
    flags = [
        tokens.new_ones(len(part.tokens), dtype=torch.bool)
        if part.present is None
        else part.present
        for part in done
    ]
    return Patches(tokens, fine, torch.cat(flags))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, Block | Combiner):
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if isinstance(module, Block) and module.attn.rpe_k is not None:
            nn.init.zeros_(module.attn.rpe_k.lookup_table_weight)
