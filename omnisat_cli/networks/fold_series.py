"""Temporal encoders arranged for inference: no keys, cheap norms, slices that stay in the cache."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.series import SeriesEncoder, day_encoding

_CPU_BYTES = 1 << 20  # widest activation of a slice, about one core's second-level cache
_GPU_BYTES = 1 << 28
_FLAT = 1e-8  # a slope this small against its offset changes nothing


def slice_rows(bytes_each: int, like: Tensor, least: int) -> int:
    """Return how many rows of so many bytes are computed at once."""
    budget = _GPU_BYTES if like.is_cuda else _CPU_BYTES
    return max(budget // bytes_each, least)


def norm_scale(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a batch-norm as float64 scale and shift."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def fold_linear(linear: nn.Linear, norm: nn.Module) -> nn.Linear:
    """Return one linear layer equal to a linear layer and a batch-norm."""
    scale, shift = norm_scale(norm)
    folded = nn.Linear(linear.in_features, linear.out_features)
    with torch.no_grad():
        folded.weight.copy_(linear.weight.double() * scale[:, None])
        folded.bias.copy_(linear.bias.double() * scale + shift)
    return folded.to(linear.weight.device)


class FoldedSeries(nn.Module):
    """A `SeriesEncoder` whose keys, queries and batch-norms are folded away."""

    score: Tensor
    day_score: Tensor

    def __init__(self, encoder: SeriesEncoder) -> None:
        super().__init__()
        config = self.config = encoder.config
        self.dates = self._folded(encoder.inconv, step=4)
        self.after = self._folded(encoder.mlp, step=3)
        self.in_norm = copy.deepcopy(encoder.in_norm)
        self.out_norm = copy.deepcopy(encoder.out_norm)
        attention = encoder.attention_heads
        keys = attention.fc1_k.weight.double().view(config.heads, config.key_width, -1)
        score = torch.einsum("hk,hke->he", attention.Q.double(), keys)
        score = score / math.sqrt(config.key_width)  # (heads, E)
        day_score = score.view(config.heads, config.heads, -1).sum(1)  # the code repeats a head
        if encoder.in_norm is not None:
            score = score * encoder.in_norm.weight.double()
        self.register_buffer("score", score.detach().to(attention.Q.dtype))
        self.register_buffer("day_score", day_score.detach().to(attention.Q.dtype))

    def forward(self, pixels: Tensor, days: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode series; see `SeriesEncoder.forward`."""
        x = pixels.flatten(2)
        if valid is not None:
            some = valid.any(0)
            if not bool(some.all()):  # dates that no patch has
                x, days, valid = x[:, some], days[..., some], valid[:, some]
        width = self.config.widths_in[-1]
        code = day_encoding(days, width // self.config.heads, self.config.period).to(x.dtype)
        scores = code @ self.day_score.T  # (T, heads) or (N, T, heads)
        rows = slice_rows(x.shape[1] * width * x.element_size(), x, 16)
        buffers = _Buffers(rows * x.shape[1])
        pooled = []
        for start in range(0, x.shape[0], rows):
            part = slice(start, start + rows)
            shared = days.dim() == 1
            pooled.append(
                self._pool(
                    x[part],
                    code if shared else code[part],
                    scores if shared else scores[part],
                    None if valid is None else valid[part],
                    buffers,
                )
            )
        y = torch.cat(pooled) if len(pooled) > 1 else pooled[0]
        for layer in self.after:
            y = self._advance(None, layer, y, buffers)
        token: Tensor = self.out_norm(y)
        return token

    def _folded(self, stack: nn.Sequential, step: int) -> nn.ModuleList:
        """Return the layers of a stack whose every `step`-th module is linear."""
        return nn.ModuleList(
            fold_linear(_linear(stack[index]), stack[index + 1])
            for index in range(0, len(stack), step)
        )

    def _advance(self, key: int | None, layer: nn.Module, x: Tensor, buffers: _Buffers) -> Tensor:
        """Apply a layer; into a reused buffer where it has a key."""
        if key is None:
            y: Tensor = layer(x)
            return y.relu_()
        return buffers.affine(key, layer, x).relu_()

    def _pool(
        self,
        x: Tensor,
        code: Tensor,
        scores: Tensor,
        valid: Tensor | None,
        buffers: _Buffers,
    ) -> Tensor:
        """Attend over the dates of a slice: (n, T, C) to (n, E)."""
        heads = self.config.heads
        if valid is not None and bool(valid.all()):
            valid = None
        u = self._layers(x, valid, buffers)  # (n, T, E)
        weight = self.score.expand(u.shape[0], -1, -1)
        scale = None
        if self.in_norm is not None:
            u, scale = _centre(u, valid, self.in_norm, buffers)
            weight = self.score * scale[:, None]
        score = torch.bmm(weight, u.transpose(1, 2)) + scores.transpose(-1, -2)  # (n, heads, T)
        if valid is not None:
            score = score.masked_fill(~valid[:, None], torch.finfo(score.dtype).min)
        attention = score.softmax(-1)
        every = torch.bmm(attention, u).view(-1, heads, heads, u.shape[-1] // heads)
        own = every.diagonal(dim1=1, dim2=2).transpose(1, 2)  # (n, heads, E / heads)
        pooled = own.flatten(1)
        if self.in_norm is not None and scale is not None:
            pooled = torch.addcmul(self.in_norm.bias, pooled, scale * self.in_norm.weight)
        return pooled + torch.matmul(attention, code).flatten(1)

    def _layers(self, x: Tensor, valid: Tensor | None, buffers: _Buffers) -> Tensor:
        """Run the per-date layers on the valid rows; the others become zeros."""
        y = x.flatten(0, 1)
        index = None if valid is None else valid.flatten().nonzero().squeeze(1)
        if index is not None:
            y = y[index]
        for number, layer in enumerate(self.dates):
            y = self._advance(number, layer, y, buffers)
        if index is not None:
            rows = x.shape[0] * x.shape[1]
            y = buffers.take("scattered", rows, y).zero_().index_copy_(0, index, y)
        return y.view(x.shape[0], x.shape[1], -1)


def _reuses(like: Tensor) -> bool:
    """Whether buffers pay: not on a GPU, and a compiler lays memory out itself."""
    return not like.is_cuda and not torch.compiler.is_compiling()


class _Buffers:
    """Reused outputs of the slices of one call; on a CPU fresh pages cost more than the sums."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.made: dict[object, Tensor] = {}

    def take(self, key: object, rows: int, like: Tensor) -> Tensor:
        """Return an uninitialised (rows, width of `like`) tensor that the next slice reuses."""
        if not _reuses(like):
            return like.new_empty(rows, like.shape[1])
        if key not in self.made:
            self.made[key] = like.new_empty(self.rows, like.shape[1])
        return self.made[key][:rows]

    def affine(self, key: object, layer: nn.Module, x: Tensor) -> Tensor:
        """Apply a linear layer."""
        assert isinstance(layer, nn.Linear)
        if not _reuses(x):
            return functional.linear(x, layer.weight, layer.bias)
        out = self.take(key, x.shape[0], layer.bias.unsqueeze(0))
        return torch.addmm(layer.bias, x, layer.weight.t(), out=out)


def _centre(
    u: Tensor, valid: Tensor | None, norm: nn.GroupNorm, buffers: _Buffers
) -> tuple[Tensor, Tensor]:
    """Subtract the mean of each group in place; return it and 1 / deviation per channel (n, E)."""
    n, T, E = u.shape
    each = E // norm.num_groups
    ones = u.new_ones(1, 1, T).expand(n, 1, T) if valid is None else valid[:, None].to(u.dtype)
    count = (ones.sum(2) * each).clamp(min=1)  # (n, 1)
    mean = torch.bmm(ones, u).view(n, -1, each).sum(2) / count  # (n, groups); others are zero rows
    u = u.sub_(mean.repeat_interleave(each, 1).unsqueeze(1))
    rows = u.view(n * T, E)
    square = torch.mul(rows, rows, out=buffers.take("square", n * T, rows)).view(n, T, E)
    square = torch.bmm(ones, square).view(n, -1, each).sum(2) / count
    return u, (square + norm.eps).rsqrt().repeat_interleave(each, 1)


def _linear(module: nn.Module) -> nn.Linear:
    assert isinstance(module, nn.Linear)
    return module


class _Affine(nn.Module):
    """What is left of a group-norm after its clamp: a factor and an offset a channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows (N, C) in place."""
        return torch.addcmul(self.shift, x, self.scale, out=x)


class _Grouped(nn.Module):
    """A linear layer and a group-norm over the channels of each row, then ReLU, up to `rest`.

    The mean of a group goes into the matrix, so only its length is left to compute. And as
    relu(w z + b) = w clamp(z, low, high) + shift, one pass is left of norm and ReLU; the affine
    `rest` of it goes into the next matrix.
    """

    low: Tensor
    high: Tensor

    def __init__(self, linear: nn.Linear, norm: nn.GroupNorm, before: _Affine | None) -> None:
        super().__init__()
        self.each, self.eps = norm.num_channels // norm.num_groups, norm.eps
        weight, bias = linear.weight.double(), linear.bias.double()
        if before is not None:
            weight, bias = weight * before.scale.double(), bias + weight @ before.shift.double()
        self.linear = copy.deepcopy(linear)
        with torch.no_grad():
            self.linear.weight.copy_(self._centred(weight))
            self.linear.bias.copy_(self._centred(bias))
        w, b = norm.weight.detach().double(), norm.bias.detach().double()
        flat = w.abs() <= _FLAT * b.abs()
        edge = torch.where(flat, 0.0, -b / torch.where(flat, 1.0, w))
        low = torch.where(flat | (w > 0), edge, -math.inf)
        high = torch.where(flat | (w < 0), edge, math.inf)
        dtype = linear.weight.dtype
        self.register_buffer("low", low.to(dtype))
        self.register_buffer("high", high.to(dtype))
        scale, shift = torch.where(flat, 0.0, w), torch.where(flat, b.relu(), b)
        self.rest = _Affine(scale.to(dtype), shift.to(dtype))

    def _centred(self, rows: Tensor) -> Tensor:
        groups = torch.unflatten(rows, 0, (-1, self.each))
        return (groups - groups.mean(1, keepdim=True)).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows (N, C)."""
        return self.finish(self.linear(x))

    def finish(self, y: Tensor) -> Tensor:
        """Norm and clamp in place what the matrix gave."""
        groups = torch.unflatten(y, 1, (-1, self.each))
        square = torch.linalg.vector_norm(groups, dim=2, keepdim=True).square_()
        groups.mul_(square.div_(self.each).add_(self.eps).rsqrt_())
        return y.clamp_(self.low, self.high)


class FoldedPixels(FoldedSeries):
    """A `PixelSeries` whose keys and queries are folded away, its group-norms made cheap."""

    def _folded(self, stack: nn.Sequential, step: int) -> nn.ModuleList:
        layers: list[nn.Module] = []
        rest = None
        for index in range(0, len(stack), step):
            norm = stack[index + 1]
            assert isinstance(norm, nn.GroupNorm)
            layer = _Grouped(_linear(stack[index]), norm, rest)
            layers.append(layer)
            rest = layer.rest
        assert rest is not None
        return nn.ModuleList([*layers, rest])

    def _advance(self, key: int | None, layer: nn.Module, x: Tensor, buffers: _Buffers) -> Tensor:
        if isinstance(layer, _Grouped) and key is not None:
            return layer.finish(buffers.affine(key, layer.linear, x))
        y: Tensor = layer(x)
        return y
