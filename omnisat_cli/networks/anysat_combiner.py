"""How AnySat fuses the tokens of its sensors: one query a patch over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.anysat_encoders import grid_layout
from omnisat_cli.networks.attention import Mlp, attend
from omnisat_cli.networks.relative import GridLayout, RelativeBias, kept

if TYPE_CHECKING:
    from omnisat_cli.networks.anysat_values import Grid


class CrossAttention(nn.Module):
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


class Combiner(nn.Module):
    """Fuse the tokens of all sensors into one a patch; no residual around the attention."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = CrossAttention(width, heads)
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
        """Fuse (B, L, D) at some locations only; see `CrossAttention.restricted`."""
        x = self.attn.restricted(self.norm1(x), code, buckets, present)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


@kept
def tiled_buckets(grid: Grid, copies: int, prefix: int, device: torch.device) -> Tensor:
    """Lay queries of one grid out over `prefix` tokens without position and tiled grids."""
    one = grid_layout(*grid, device).one_hot  # (P, buckets, 1 + P)
    return torch.cat([one[..., :1]] * prefix + [one[..., 1:]] * copies, dim=2)
