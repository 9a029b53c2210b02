"""Projectors of AnySat and its spatial encoder: one patch of any sensor, side and scale.

Source: AnySat (Astruc et al., CVPR 2025); key names follow the published code.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.attention import Mlp, attend
from omnisat_cli.networks.relative import GridLayout, RelativeBias, kept
from omnisat_cli.networks.series import SeriesEncoder

if TYPE_CHECKING:
    from omnisat_cli.networks.anysat_config import AnySatConfig, Sensor
    from omnisat_cli.networks.configs import SeriesConfig


@dataclass(frozen=True, slots=True)
class Subpatches:
    """Sub-patches of patches after a projector.

    Attributes:
        values: (N, S, D), image sub-patches cell by cell of 10 m as published.
        present: (N, S) bool, or None if all are.
    """

    values: Tensor
    present: Tensor | None = None


@kept
def position_code(rows: int, cols: int, step: float, width: int, device: torch.device) -> Tensor:
    """Encode the positions of a grid behind a class token by fixed sines and cosines.

    Args:
        rows: Rows of the grid.
        cols: Columns of the grid.
        step: Distance of neighbours; the first has coordinate 0.
        width: Width of the code, a multiple of 4.
        device: Where the code lies; codes are kept, so that a call costs nothing.

    Returns:
        (1 + rows * cols, width) float32, row 0 zero: first half the column, second half the row.
    """

    def along(count: int) -> Tensor:
        omega = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
        angle = torch.arange(count, dtype=torch.float64)[:, None] * step * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    row = along(rows).repeat_interleave(cols, 0)
    col = along(cols).repeat(rows, 1)
    code = torch.cat([col, row], dim=1)
    return functional.pad(code, (0, 0, 1, 0)).float().to(device)


def grid_layout(rows: int, cols: int, device: torch.device) -> GridLayout:
    """Lay out a class token and one token a cell; kept like the codes."""
    return GridLayout(_grid_buckets(rows, cols, device), 1, 1)


@kept
def _grid_buckets(rows: int, cols: int, device: torch.device) -> Tensor:
    return GridLayout.of_grid(rows, cols).to(device).one_hot


def cells_to_raster(values: Tensor, cell_side: int) -> Tensor:
    """Reorder sub-patches from cell by cell to row by row.

    Args:
        values: (..., S, D) with S = (scale * cell_side)².
        cell_side: Sub-patches along a cell.

    Returns:
        Same shape.
    """
    side = round(values.shape[-2] ** 0.5)
    scale = side // cell_side
    if scale == 1 or cell_side == 1:
        return values
    cells = torch.unflatten(values, -2, (scale, scale, cell_side, cell_side))
    return cells.transpose(-4, -3).flatten(-5, -2)


class ImageProjector(nn.Module):
    """Sub-patches of an image to vectors."""

    def __init__(self, config: AnySatConfig, sensor: Sensor) -> None:
        super().__init__()
        width, px = config.width, sensor.subpatch_px
        self.cell_side = sensor.cell_side
        self.patch_embed = nn.Conv2d(sensor.bands, width, px, px, bias=False)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((width, 2 * width, width)):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
        self.mlp = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Subpatches:
        """Project patches (N, C, p, p)."""
        # One product over gathered rows; the convolution it is takes several times longer.
        sides = (-1, self.cell_side, self.patch_embed.stride[0])
        cut = torch.unflatten(torch.unflatten(pixels, 3, sides), 2, sides)  # (N, C, r, i, y, ...)
        rows = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(5).flatten(1, 4)  # (N, S, C * y * x)
        return Subpatches(self.mlp(functional.linear(rows, self.patch_embed.weight.flatten(1))))


class PixelSeries(SeriesEncoder):
    """The temporal encoder of one pixel, with group-norm where OmniSat has batch-norm."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__(config)
        self.inconv = _group_stack((config.bands, *config.widths_in), config.dropout)
        self.mlp = _group_stack((config.widths_in[-1], *config.widths_out), None)


def _group_stack(widths: tuple[int, ...], dropout: float | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.GroupNorm(4, after), nn.ReLU()]
        if dropout is not None:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class SeriesProjector(nn.Module):
    """Pixels of a series to vectors.

    Pixels that are not valid at a date are left out of everything; the official behaviour writes
    the learned `pad_parameter` in their place.
    """

    def __init__(self, config: AnySatConfig, sensor: Sensor) -> None:
        super().__init__()
        self.behaviour = config.behaviour
        self.patch_embed: nn.Module = PixelSeries(config.series(sensor))
        self.pad_parameter = nn.Parameter(torch.zeros(()))

    def forward(self, pixels: Tensor, days: Tensor, valid: Tensor | None) -> Subpatches:
        """Project patches of series.

        Args:
            pixels: (N, T, C, p, p).
            days: (T,) or (N, T).
            valid: (N, T) or (N, T, p, p) bool, or None for all.
        """
        N, T, _, p, _ = pixels.shape
        rows = pixels.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (N * p * p, T, C)
        each = days if days.dim() == 1 else days.repeat_interleave(p * p, 0)
        flags = None
        if valid is not None and not bool(valid.all()):
            flags = valid.reshape(N, T, *valid.shape[2:] or (1, 1)).expand(N, T, p, p)
            flags = flags.permute(0, 2, 3, 1).flatten(0, 2)  # (N * p * p, T)
        if flags is not None and self.behaviour == "official":
            rows, flags = torch.where(flags.unsqueeze(2), rows, self.pad_parameter), None
        values = torch.unflatten(self.patch_embed(rows, each, flags), 0, (N, -1))
        present = None if flags is None else flags.any(1).view(N, -1)
        return Subpatches(values, None if present is None or bool(present.all()) else present)


class Attention(nn.Module):
    """Self-attention; `biased` adds a relative bias from the query of head 0 to every head.

    One head's bias for all is what the published weights were trained with.
    """

    def __init__(self, width: int, heads: int, *, biased: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rpe_k = RelativeBias(width // heads) if biased else None

    def forward(self, x: Tensor, layout: GridLayout | None, present: Tensor | None) -> Tensor:
        """Attend: (B, L, D) tokens, (B, L) bool presence, to (B, L, D)."""
        B, L, D = x.shape
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.rpe_k is not None:
            assert layout is not None
            q = q * self.scale
            y = attend((q, k, v), self.rpe_k(q[:, :1]), layout, present, 0.0)
        else:
            mask = None if present is None else present[:, None, None]
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(B, L, D))
        return out

    def first(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Return the first row of `forward`: (B, L, D) tokens, (B, L) bool, to (B, 1, D).

        It has one bucket with every token, a constant, which softmax ignores; likewise the bias of
        the keys. Keys and values of the tokens are never made: the query goes through the matrix
        of the keys instead, and the mean of the tokens through that of the values.
        """
        B, _, D = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        keys, values = weight[D:].view(2, self.heads, -1, D)  # (H, d, D) each
        q = functional.linear(x[:, 0], weight[:D], bias[:D]).view(B, self.heads, -1)
        q = torch.matmul(q.transpose(0, 1), keys).transpose(0, 1).unsqueeze(1)  # (B, 1, H, D)
        mask = None if present is None else present[:, None, None]
        rows = x.unsqueeze(1)
        y = functional.scaled_dot_product_attention(q, rows, rows, attn_mask=mask, scale=self.scale)
        y = torch.matmul(y.squeeze(1).transpose(0, 1), values.transpose(1, 2))  # (H, B, d)
        out: Tensor = self.proj(y.transpose(0, 1).reshape(B, 1, D) + bias[2 * D :])
        return out


class HeadAttention(Attention):
    """Attention between the heads of each token: the release's flash branch by its contract."""

    def forward(
        self,
        x: Tensor,
        layout: GridLayout | None,  # noqa: ARG002 - no token sees another
        present: Tensor | None,  # noqa: ARG002
    ) -> Tensor:
        """Transform (B, L, D) tokens, each alone."""
        B, L, D = x.shape
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, -1).permute(2, 0, 1, 3, 4)
        y = functional.scaled_dot_product_attention(q, k, v)  # (B, L, H, d)
        out: Tensor = self.proj(y.reshape(B, L, D))
        return out


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, attention: Attention, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio), 0.0)

    def forward(
        self, x: Tensor, layout: GridLayout | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Transform tokens (B, L, D)."""
        x = x + self.attn(self.norm1(x), layout, present)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def first(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Transform the first token alone: (B, L, D) to (B, 1, D)."""
        y = x[:, :1] + self.attn.first(self.norm1(x), present)
        z: Tensor = y + self.mlp(self.norm2(y))
        return z


class SpatialEncoder(nn.Module):
    """Transformer over the sub-patches of one patch, shared by all sensors."""

    def __init__(self, config: AnySatConfig) -> None:
        super().__init__()
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.predictor_blocks = nn.ModuleList(
            Block(width, Attention(width, config.heads, biased=True), config.mlp_ratio, 1e-5)
            for _ in range(config.spatial_blocks)
        )
        self.predictor_norm = nn.LayerNorm(width)

    def forward(
        self, parts: Subpatches, step_m: float, *, kept: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Encode patches.

        Args:
            parts: Sub-patches of square patches.
            step_m: Ground distance of neighbouring sub-patches, metres.
            kept: Return the sub-patch vectors; none of them otherwise.

        Returns:
            (N, D) patch vectors and (N, S, D) sub-patch vectors in the order of `parts`.
        """
        x = parts.values
        N, S, D = x.shape
        side = round(S**0.5)
        code = position_code(side, side, step_m, D, x.device).to(x.dtype)
        x = torch.cat([self.cls_token.expand(N, -1, -1), x + code[1:]], dim=1)
        present = None
        if parts.present is not None:
            present = functional.pad(parts.present, (1, 0), value=True)
        layout = grid_layout(side, side, x.device)
        *before, last = self.predictor_blocks
        for block in before:
            x = block(x, layout, present)
        assert isinstance(last, Block)
        # In training every parameter stays in the graph.
        whole = kept or torch.is_grad_enabled()
        x = last(x, layout, present) if whole else last.first(x, present)
        x = self.predictor_norm(x)
        return x[:, 0], x[:, 1:]
