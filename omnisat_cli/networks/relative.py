"""Relative position bias: Euclidean buckets, contextual on the query, shared tables.

Source: "Rethinking and Improving Relative Position Encoding for Vision Transformer" (Wu et al.,
2021), the Euclidean variant with alpha 1.9, beta 3.8, gamma 15.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKETS = 8
_FIRST = 3  # the Euclidean rule never gives a lower bucket
_PREFIX = 7
_TILED_BYTES = 1 << 25
_TABLES = 64
_ALPHA, _BETA, _GAMMA = 1.9, 3.8, 15.2
P = ParamSpec("P")


def kept(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep the tables that a function makes.

    In a plain dictionary: a compiler reads it, where it would build again what `lru_cache` holds.
    """
    made: dict[object, Tensor] = {}

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        key = (args, tuple(kwargs.items()))
        table = made.get(key)
        if table is None:
            if len(made) >= _TABLES:
                made.clear()
            with torch.inference_mode(False):  # training may follow
                made[key] = table = make(*args, **kwargs)
        return table

    return get


def distance_bucket(distance: Tensor) -> Tensor:
    """Return the bucket of whole distances between grid cells.

    Args:
        distance: Rounded Euclidean distances, cells, any shape.

    Returns:
        Same shape, int64: 3 for 0, 4 for 1, 5 for 2 and 3, 6 beyond.
    """
    far = torch.log(distance.clamp(min=1) / _ALPHA) / math.log(_GAMMA / _ALPHA)
    far = (_ALPHA + far * (_BETA - _ALPHA)).round().clamp(max=_BETA)
    return torch.where(distance <= _ALPHA, distance, far).long() + int(_BETA)


def grid_buckets(rows: int, cols: int, prefix: int) -> Tensor:
    """Return the bucket of every pair of tokens of a grid behind prefix tokens.

    Args:
        rows: Rows of the grid.
        cols: Columns of the grid.
        prefix: Tokens before the grid; they have a bucket of their own with everything.

    Returns:
        (L, L) int64 with L = prefix + rows * cols.
    """
    row = torch.arange(rows).repeat_interleave(cols).double()
    col = torch.arange(cols).repeat(rows).double()
    square = (row[:, None] - row).square() + (col[:, None] - col).square()
    inside = distance_bucket(square.sqrt().round())
    return functional.pad(inside, (prefix, 0, prefix, 0), value=_PREFIX)


@dataclass(frozen=True)
class SequenceLayout:
    """Tokens whose positions are inferred from the length of the sequence, as published.

    The last `floor(sqrt(L))²` tokens are read as a square picture, whatever they are.

    Attributes:
        buckets: (L, L) uint8.
    """

    buckets: Tensor

    @classmethod
    def of_length(cls, length: int) -> SequenceLayout:
        """Lay a sequence out.

        Raises:
            ValueError: If the length is a perfect square: the published code stops there.
        """
        side = math.isqrt(length)
        if side * side == length:
            raise ValueError(
                f"official positions are undefined for {length} = {side}² tokens; "
                "use position='geographic'"
            )
        return cls(grid_buckets(side, side, length - side * side).to(torch.uint8))

    def to(self, device: torch.device) -> SequenceLayout:
        """Return the layout on a device."""
        return SequenceLayout(self.buckets.to(device))

    def bias(self, table: Tensor, start: int, stop: int) -> Tensor:
        """Return the bias of some queries.

        Args:
            table: (B, H, L, 8) from `RelativeBias`.
            start: First query.
            stop: Query after the last.

        Returns:
            (B, H, stop - start, L).
        """
        index = self.buckets[start:stop].long()
        chunk = table[:, :, start:stop]
        return chunk.gather(3, index.expand(*chunk.shape[:2], *index.shape))


@dataclass(frozen=True)
class GridLayout:
    """A class token, then one token a patch for each of several modalities.

    Every token has the position of its patch, so the pairwise buckets are those of one grid, and
    the bias of a query repeats once a modality. One matrix product with one-hot buckets a patch is
    several times faster than a gather over all pairs, forwards and backwards.

    Attributes:
        one_hot: (P, 5, 1 + P) used bucket of each patch with the class token and every patch,
            or (P, 5, 1 + M' * P) once tiled over the key modalities.
        query_copies: Modalities M among the queries.
        key_copies: Modalities M' among the keys.
    """

    one_hot: Tensor
    query_copies: int
    key_copies: int

    @classmethod
    def of_grid(cls, rows: int, cols: int) -> GridLayout:
        """Lay out a window of one modality."""
        used = grid_buckets(rows, cols, 1)[1:] - _FIRST
        one_hot = functional.one_hot(used, BUCKETS - _FIRST).transpose(1, 2)
        return cls(one_hot.float().contiguous(), 1, 1)

    def with_copies(self, queries: int, keys: int) -> GridLayout:
        """Return this layout of one modality for several among queries and keys."""
        assert self.key_copies == 1, "tile the layout of one modality"
        one_hot = self.one_hot
        if one_hot.numel() * 4 * keys <= _TILED_BYTES:
            one_hot = _tile(one_hot, keys)
        return GridLayout(one_hot, queries, keys)

    def to(self, device: torch.device) -> GridLayout:
        """Return the layout on a device."""
        return GridLayout(self.one_hot.to(device), self.query_copies, self.key_copies)

    @property
    def patches(self) -> int:
        """Patches of the window."""
        return self.one_hot.shape[0]

    def bias(self, table: Tensor, start: int, stop: int, hidden: Tensor | None = None) -> Tensor:
        """Return the bias of the queries of some patches.

        Args:
            table: (B, H, 1 + M * P, 8) from `RelativeBias`; B may be 1 for all windows.
            start: First patch.
            stop: Patch after the last.
            hidden: (B, 1 + M' * P) 0 for keys that are present, -inf for the others.

        Returns:
            (B, H * M, stop - start, 1 + M' * P) with M query and M' key modalities.
        """
        B, H = table.shape[:2]
        count, heads = stop - start, H * self.query_copies
        rows = table[:, :, 1:, _FIRST:].reshape(B, heads, self.patches, -1)[:, :, start:stop]
        rows = rows.permute(2, 0, 1, 3).reshape(count, B * heads, -1)
        one_hot = self.one_hot[start:stop].to(rows.dtype)  # (p, 5, ...)
        tiled = one_hot.shape[2] > 1 + self.patches or self.key_copies == 1
        if hidden is not None and tiled and hidden.shape[0] == B:
            base = hidden.to(rows.dtype).repeat_interleave(heads, 0)  # (B * heads, L')
            bias = torch.baddbmm(base, rows, one_hot)
            hidden = None
        else:
            bias = torch.bmm(rows, one_hot)
        bias = bias.view(count, B, heads, -1).permute(1, 2, 0, 3)  # (B, heads, p, ...)
        bias = bias if tiled else _tile(bias, self.key_copies)
        return bias if hidden is None else bias + hidden[:, None, None].to(bias.dtype)


def _tile(cells: Tensor, copies: int) -> Tensor:
    """Repeat all but the first entry of the last axis."""
    if copies == 1:
        return cells
    return torch.cat([cells, *[cells[..., 1:]] * (copies - 1)], dim=-1)


class RelativeBias(nn.Module):
    """The learned table: one vector a bucket, shared by all heads.

    Args:
        head_width: Width of a head.
    """

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.lookup_table_weight = nn.Parameter(torch.zeros(1, head_width, BUCKETS))

    def forward(self, q: Tensor) -> Tensor:
        """Return the bias of every bucket: queries (B, H, L, d) to (B, H, L, 8)."""
        return q @ self.lookup_table_weight[0]
