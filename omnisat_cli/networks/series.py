"""Encoder of time series: attention over the dates of one patch.

Source: the lightweight temporal attention encoder (Garnot and Landrieu, 2020) as OmniSat (Astruc
et al., ECCV 2024) changed it; key names follow its code. Dates that are not valid are left out of
every statistic and get no weight, which the published code does not do (call without `valid` for
its behaviour).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from omnisat_cli.networks.configs import SeriesConfig


def day_encoding(days: Tensor, width: int, period: int) -> Tensor:
    """Encode days as sines and cosines.

    Args:
        days: Day numbers, any shape.
        width: Width of the code.
        period: Base of the wavelengths.

    Returns:
        (..., width) float32: sines at even entries, cosines at odd ones.
    """
    entry = torch.arange(width, device=days.device)
    exponent = 2 * torch.div(entry, 2, rounding_mode="floor").float() / width
    angle = days.float().unsqueeze(-1) / torch.pow(torch.tensor(float(period)), exponent)
    return torch.where(entry % 2 == 0, angle.sin(), angle.cos())


class DateAttention(nn.Module):
    """Fixed learned queries, one a head, against projected keys."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__()
        self.heads, self.key_width = config.heads, config.key_width
        self.Q = nn.Parameter(torch.empty(config.heads, config.key_width))
        self.fc1_k = nn.Linear(config.widths_in[-1], config.heads * config.key_width)
        nn.init.normal_(self.Q, std=math.sqrt(2.0 / config.key_width))
        nn.init.normal_(self.fc1_k.weight, std=math.sqrt(2.0 / config.key_width))

    def forward(self, x: Tensor) -> Tensor:
        """Score dates: (N, T, E) to (N, T, heads)."""
        keys = torch.unflatten(self.fc1_k(x), -1, (self.heads, self.key_width))
        return torch.sum(keys * self.Q, -1) / math.sqrt(self.key_width)


def _stack(widths: tuple[int, ...], dropout: float | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        if dropout is not None:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class SeriesEncoder(nn.Module):
    """Series of patches to tokens."""

    def __init__(self, config: SeriesConfig) -> None:
        super().__init__()
        self.config = config
        width = config.widths_in[-1]
        inputs = config.bands * config.patch_px**2
        self.inconv = _stack((inputs, *config.widths_in), config.dropout)
        self.in_norm = nn.GroupNorm(config.heads, width) if config.in_norm else None
        self.attention_heads = DateAttention(config)
        self.mlp = _stack((width, *config.widths_out), None)
        self.out_norm = nn.GroupNorm(config.heads, config.widths_out[-1])

    def forward(self, pixels: Tensor, days: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode series.

        Args:
            pixels: (N, T, C, p, p), or (N, T, C) for patches of one pixel.
            days: (T,) or (N, T) day numbers.
            valid: (N, T) bool, at least one date a row; None takes every date.

        Returns:
            (N, D).
        """
        return self.encode(pixels, days, valid)[0]

    def encode(
        self, pixels: Tensor, days: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode series and return the attention too: (N, D) and (N, T, heads)."""
        if valid is not None and bool(valid.all()):
            valid = None
        x = self._dates(pixels.flatten(2), valid)  # (N, T, E)
        if self.in_norm is not None:
            x = date_group_norm(x, self.in_norm, valid)
        heads = self.config.heads
        code = day_encoding(days, x.shape[-1] // heads, self.config.period)
        x = x + code.to(x.dtype).repeat(*[1] * days.dim(), heads)
        score = self.attention_heads(x)
        if valid is not None:
            # Finite, so that a row without any valid date stays finite and can be masked later.
            score = score.masked_fill(~valid.unsqueeze(-1), torch.finfo(score.dtype).min)
        weight = score.softmax(1)  # (N, T, heads)
        dropped = functional.dropout(weight, self.config.attention_dropout, self.training)
        values = torch.unflatten(x, -1, (heads, -1))  # (N, T, heads, E / heads)
        pooled = torch.einsum("nth,nthe->nhe", dropped, values).flatten(1)
        y = functional.dropout(self.mlp(pooled), self.config.dropout, self.training)
        return self.out_norm(y), weight

    def _dates(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Run the per-date layers on the valid rows; the others become zeros."""
        rows = x.flatten(0, 1)
        if valid is None:
            done: Tensor = self.inconv(rows)
            return done.view(*x.shape[:2], -1)
        index = valid.flatten().nonzero().squeeze(1)
        part: Tensor = self.inconv(rows[index])
        out = part.new_zeros(rows.shape[0], part.shape[1]).index_copy(0, index, part)
        return out.view(*x.shape[:2], -1)


def date_group_norm(x: Tensor, norm: nn.GroupNorm, valid: Tensor | None) -> Tensor:
    """Normalise each group of channels over all valid dates of a patch.

    Args:
        x: (N, T, E); rows that are not valid must be zero.
        norm: Groups and affine of the normalisation.
        valid: (N, T) bool or None for all.

    Returns:
        (N, T, E); rows that are not valid are meaningless.
    """
    if valid is None:
        return norm(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]
    y = torch.unflatten(x.float(), -1, (norm.num_groups, -1))  # (N, T, G, E/G)
    weight = valid[:, :, None, None].to(y.dtype)
    count = (weight.sum(1, keepdim=True) * y.shape[-1]).clamp(min=1)
    mean = y.sum((1, 3), keepdim=True) / count
    centred = (y - mean) * weight
    variance = centred.square().sum((1, 3), keepdim=True) / count
    y = (centred * (variance + norm.eps).rsqrt()).flatten(2)
    return (y * norm.weight + norm.bias).to(x.dtype)
