"""Attention blocks of the OmniSat trunk and its combiner, with presence masks.

Source: OmniSat (Astruc et al., ECCV 2024); key names follow the published code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.relative import GridLayout, RelativeBias, SequenceLayout

if TYPE_CHECKING:
    from collections.abc import Callable

Layout: TypeAlias = GridLayout | SequenceLayout

# Elements of the bias held at once without autograd. On a CPU small enough for the cache.
_CPU_ELEMENTS = 1 << 20
_GPU_ELEMENTS = 1 << 27


def attend(
    qkv: tuple[Tensor, Tensor, Tensor],
    table: Tensor,
    layout: Layout,
    present: Tensor | None,
    dropout: float,
) -> Tensor:
    """Attend with relative bias, a slice of the queries at a time.

    Args:
        qkv: Scaled queries (B, H, L, d), keys and values (B, H, L', d).
        table: (B, H, L, 8) bias of every bucket; a first axis of 1 is shared by the batch.
        layout: Positions of queries and keys.
        present: (B, L') bool; keys that are not present get no weight. One a row must be.
        dropout: Rate on the attention weights.

    Returns:
        (B, H, L, d).
    """
    hidden = None
    if present is not None:
        hidden = torch.zeros(present.shape, dtype=qkv[0].dtype, device=present.device)
        hidden = hidden.masked_fill_(~present, float("-inf"))
    if isinstance(layout, GridLayout):
        return _attend_grid(qkv, table, layout, hidden, dropout)
    q, k, v = qkv
    per_query = q.shape[0] * q.shape[1] * k.shape[2]
    parts = [
        _sdpa(q[:, :, start:stop], k, v, _masked(layout.bias(table, start, stop), hidden), dropout)
        for start, stop in _slices(q.shape[2], per_query, q)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _masked(bias: Tensor, hidden: Tensor | None) -> Tensor:
    """Add -inf at the keys (B, L') that are not present."""
    return bias if hidden is None else bias + hidden[:, None, None]


def _attend_grid(
    qkv: tuple[Tensor, Tensor, Tensor],
    table: Tensor,
    layout: GridLayout,
    hidden: Tensor | None,
    dropout: float,
) -> Tensor:
    q, k, v = qkv
    B, H, _, d = q.shape
    M, P = layout.query_copies, layout.patches
    # The class query has one bucket with every key: a constant, which softmax ignores.
    mask = None if hidden is None else hidden[:, None, None]
    first = _sdpa(q[:, :, :1], k, v, mask, dropout)
    # Each query modality as heads of its own: the bias then needs no copy into another order.
    patches = q[:, :, 1:].reshape(B, H * M, P, d)
    if M > 1:
        k, v = k.repeat_interleave(M, 1), v.repeat_interleave(M, 1)
    parts = [
        _sdpa(patches[:, :, start:stop], k, v, layout.bias(table, start, stop, hidden), dropout)
        for start, stop in _slices(P, B * H * M * k.shape[2], q)
    ]
    rest = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    return torch.cat([first, rest.reshape(B, H, M * P, d)], dim=2)


def _slices(count: int, elements_each: int, like: Tensor) -> list[tuple[int, int]]:
    if torch.is_grad_enabled():  # autograd keeps every slice, so slicing saves nothing
        return [(0, count)]
    budget = _GPU_ELEMENTS if like.is_cuda else _CPU_ELEMENTS
    step = max(budget // max(elements_each, 1), 8)
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    if torch.is_grad_enabled() and bias is not None and not q.is_cuda:
        # The fused kernel of the CPU gives no gradient of the bias; its fallback is slower.
        logits = torch.matmul(q, k.transpose(2, 3)).add_(bias)
        weight = functional.dropout(logits.softmax(-1), dropout, dropout > 0)
        return torch.matmul(weight, v)
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, dropout_p=dropout, scale=1.0
    )


class SelfAttention(nn.Module):
    """Multi-head self-attention with relative bias on the scaled queries."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rpe_k = RelativeBias(width // heads)

    def forward(self, x: Tensor, layout: Layout, present: Tensor | None) -> Tensor:
        """Attend: (B, L, D) tokens, (B, L) bool presence, to (B, L, D)."""
        B, L, D = x.shape
        qkv = self.qkv(x).view(B, L, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, d) each
        q = q * self.scale
        dropout = self.dropout if self.training else 0.0
        y = attend((q, k, v), self.rpe_k(q), layout, present, dropout)
        y = self.proj(y.transpose(1, 2).reshape(B, L, D))
        return functional.dropout(y, self.dropout, self.training)


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token."""
        x = functional.dropout(functional.gelu(self.fc1(x)), self.dropout, self.training)
        return functional.dropout(self.fc2(x), self.dropout, self.training)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, *, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), dropout)

    def forward(self, x: Tensor, layout: Layout, present: Tensor | None) -> Tensor:
        """Transform tokens (B, L, D)."""
        rate = self.drop_path if self.training else 0.0
        x = x + drop_path(self.attn(self.norm1(x), layout, present), rate)
        return x + drop_path(self.mlp(self.norm2(x)), rate)


class CrossAttention(nn.Module):
    """Attention of one learned query a patch, and one for the class, over all tokens."""

    def __init__(self, width: int, heads: int, patches: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.scale = (width // heads) ** -0.5
        self.q_learned = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, width))
        self.wk = nn.Linear(width, width)
        self.wv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.rpe_k = RelativeBias(width // heads)

    def forward(
        self,
        context: Tensor,
        layout: GridLayout,
        present: Tensor | None,
        resample: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Attend: (B, L, D) context to (B, 1 + P, D).

        Args:
            context: Normalised tokens of all modalities.
            layout: One query modality, as many key modalities as the context has.
            present: (B, L) bool.
            resample: Brings (1, 1 + P, D) learned positions to the window's grid.
        """
        B, _, D = context.shape
        q = self._split(self.q_learned + resample(self.pos_embed))  # (1, H, 1 + P, d)
        k, v = self._split(self.wk(context)), self._split(self.wv(context))
        dropout = self.dropout if self.training else 0.0
        table = self.rpe_k(q)  # the published bias takes the queries before scaling
        q = (q * self.scale).expand(B, -1, -1, -1)
        y = attend((q, k, v), table, layout, present, dropout)
        y = self.proj(y.transpose(1, 2).reshape(B, -1, D))
        return functional.dropout(y, self.dropout, self.training)

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 2, (self.heads, -1)).transpose(1, 2)  # (B, H, L, d)


class Combiner(nn.Module):
    """Fuse the tokens of all modalities into one a patch; no residual around the attention."""

    def __init__(
        self,
        width: int,
        heads: int,
        patches: int,
        mlp_ratio: float,
        *,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = CrossAttention(width, heads, patches, dropout)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio), dropout)

    def forward(
        self,
        x: Tensor,
        layout: GridLayout,
        present: Tensor | None,
        resample: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Fuse (B, 1 + M * P, D) into (B, 1 + P, D)."""
        rate = self.drop_path if self.training else 0.0
        x = drop_path(self.attn(self.norm1(x), layout, present, resample), rate)
        return x + drop_path(self.mlp(self.norm2(x)), rate)


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Zero whole samples at a rate and scale the others up (stochastic depth)."""
    if rate == 0.0:
        return x
    keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - rate)
    return x * keep / (1 - rate)
