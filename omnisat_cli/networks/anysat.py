"""AnySat: any sensors of one place, at any scale, to one vector a patch.

Source: "AnySat: One Earth Observation Model for Many Resolutions, Scales, and Modalities" (Astruc
et al., CVPR 2025). State-dict keys are those of the published release.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.anysat_encoders import (
    Attention,
    Block,
    HeadAttention,
    ImageProjector,
    SeriesProjector,
    SpatialEncoder,
    Subpatches,
    cells_to_raster,
    grid_layout,
    position_code,
)
from omnisat_cli.networks.attention import Mlp, attend
from omnisat_cli.networks.image import cut_patches
from omnisat_cli.networks.relative import GridLayout, RelativeBias, kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from omnisat_cli.networks.anysat_config import AnySatConfig, Sensor

Grid = tuple[int, int]
Output = Literal["tile", "patch", "dense", "all"]
# Widest activation of the patches encoded at once without autograd.
_CPU_BYTES = 1 << 22
_GPU_BYTES = 1 << 29


@dataclass(frozen=True, slots=True)
class Patches:
    """Patches of one sensor after the spatial encoder.

    Attributes:
        tokens: (N, D) one vector a patch.
        fine: (N, S, D) one vector a sub-patch, in the order of the published code.
        present: (N,) bool, patches with anything valid; None for all.
    """

    tokens: Tensor
    fine: Tensor
    present: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Windowed:
    """Windows after their encoders, before they are fused.

    Attributes:
        tokens: Sensor to (B, P, D); sensors with one pixel a window (B, 1, D).
        present: Sensor to (B, P) bool, for sensors that are not valid everywhere.
        grid: Rows and columns of patches.
        fine: As in `Features`.
    """

    tokens: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    grid: Grid
    fine: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Features:
    """What AnySat makes of a batch of windows.

    Attributes:
        tokens: (B, 1 + P, D): the window, then its patches row by row.
        grid: Rows and columns of patches.
        fine: Sensor to (B, rows * e, cols * e, D) sub-patch vectors laid out as a map, for the
            sensor that was kept.
    """

    tokens: Tensor
    grid: Grid
    fine: Mapping[str, Tensor]

    @property
    def tile(self) -> Tensor:
        """(B, D) one vector a window."""
        return self.tokens[:, 0]

    @property
    def patch(self) -> Tensor:
        """(B, rows, cols, D) one vector a patch."""
        return torch.unflatten(self.tokens[:, 1:], 1, self.grid)

    def dense(self, name: str) -> Tensor:
        """Join the patch vector to every sub-patch vector: (B, rows * e, cols * e, 2 D).

        Raises:
            ValueError: If the sensor was not kept.
        """
        if name not in self.fine:
            kept = ", ".join(self.fine) or "none"
            raise ValueError(f"sub-patches of {name!r} were not kept (kept: {kept}); use `keep`")
        fine = self.fine[name]
        side = fine.shape[1] // self.grid[0]
        coarse = self.patch.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return torch.cat([coarse, fine], dim=-1)

    def output(self, kind: Output, name: str | None = None) -> Tensor:
        """Return an output by its published name.

        Args:
            kind: "tile" (B, D), "patch" (B, rows, cols, D), "dense" (B, h, w, 2 D) or "all"
                (B, 1 + P, D).
            name: Sensor of a dense output; the one that was kept by default.
        """
        if kind == "tile":
            return self.tile
        if kind == "patch":
            return self.patch
        if kind == "all":
            return self.tokens
        return self.dense(name or next(iter(self.fine), ""))


class _CrossAttention(nn.Module):
    """Attention of one query a patch, and one for the window, over the tokens of all sensors."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.q_learned = nn.Parameter(torch.zeros(1, 1, width))
        self.wk = nn.Linear(width, width)
        self.wv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.rpe_k = RelativeBias(width // heads)

    def forward(
        self, context: Tensor, code: Tensor, layout: GridLayout, present: Tensor | None
    ) -> Tensor:
        """Attend: (B, L, D) context to (B, 1 + P, D), one query a row of `code`."""
        B = context.shape[0]
        q = self._split(self.q_learned + code)  # (1, H, 1 + P, d)
        k, v = self._split(self.wk(context)), self._split(self.wv(context))
        table = self.rpe_k(q[:, :1]).expand(B, -1, -1, -1)  # of the queries before scaling
        q = (q * self.scale).expand(B, -1, -1, -1)
        y = attend((q, k, v), table, layout, present, 0.0)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out

    def restricted(
        self, context: Tensor, code: Tensor, buckets: Tensor, present: Tensor | None
    ) -> Tensor:
        """Attend from some locations: codes (B, Q, D), buckets (B, Q, L), to (B, Q, D)."""
        q = self._split(self.q_learned + code)
        k, v = self._split(self.wk(context)), self._split(self.wv(context))
        bias = self.rpe_k(q[:, :1]).gather(3, buckets.unsqueeze(1))  # (B, 1, Q, L)
        if present is not None:
            bias = bias.masked_fill(~present[:, None, None], float("-inf"))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 2, (self.heads, -1)).transpose(1, 2)  # (B, H, L, d)


class _Combiner(nn.Module):
    """Fuse the tokens of all sensors into one a patch; no residual around the attention."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), 0.0)

    def forward(
        self, x: Tensor, code: Tensor, layout: GridLayout, present: Tensor | None
    ) -> Tensor:
        """Fuse (B, L, D) into (B, 1 + P, D)."""
        x = self.attn(self.norm1(x), code, layout, present)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def restricted(
        self, x: Tensor, code: Tensor, buckets: Tensor, present: Tensor | None
    ) -> Tensor:
        """Fuse (B, L, D) at some locations only; see `_CrossAttention.restricted`."""
        x = self.attn.restricted(self.norm1(x), code, buckets, present)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


@kept
def _tiled_buckets(grid: Grid, copies: int, prefix: int, device: torch.device) -> Tensor:
    """Lay queries of one grid out over `prefix` tokens without position and tiled grids."""
    one = grid_layout(*grid, device).one_hot  # (P, buckets, 1 + P)
    return torch.cat([one[..., :1]] * prefix + [one[..., 1:]] * copies, dim=2)


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
        blocks.append(_Combiner(width, heads, config.mlp_ratio))
        self.blocks = nn.ModuleList(blocks)
        self.apply(_initialise)
        combiner = self.blocks[-1]
        assert isinstance(combiner, _Combiner)
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
        layout = GridLayout(_tiled_buckets(grid, len(local), 1 + len(whole), x.device), 1, 1)
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
        assert isinstance(combiner, _Combiner)
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


def check_ground(shapes: Mapping[str, torch.Size], config: AnySatConfig) -> None:
    """Refuse windows whose sensors do not cover the same ground.

    Args:
        shapes: Sensor to the shape of its pixels.
        config: The network.

    Raises:
        ValueError: If a shape has the wrong number of axes or bands, or the ground differs.
    """
    grounds: dict[str, tuple[float, float]] = {}
    for name, shape in shapes.items():
        sensor = config.sensor(name)
        axes = 4 if sensor.kind == "image" else 5
        if len(shape) != axes or shape[-3] != sensor.bands:
            raise ValueError(
                f"{name}: expected {axes} axes with {sensor.bands} bands, found {tuple(shape)}"
            )
        if sensor.whole_window:
            if tuple(shape[-2:]) != (1, 1):
                raise ValueError(f"{name}: one pixel a window, found {shape[-2]} x {shape[-1]}")
            continue
        grounds[name] = (shape[-2] * sensor.gsd_m, shape[-1] * sensor.gsd_m)
    if not grounds:
        return
    first, expected = next(iter(grounds.items()))
    for name, found in grounds.items():
        if max(abs(a - b) for a, b in zip(found, expected, strict=True)) > 1e-6:
            raise ValueError(
                f"{name} covers {found[0]:g} x {found[1]:g} m, {first} {expected[0]:g} x "
                f"{expected[1]:g} m; give windows of the same ground"
            )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, Block | _Combiner):
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if isinstance(module, Block) and module.attn.rpe_k is not None:
            nn.init.zeros_(module.attn.rpe_k.lookup_table_weight)
