"""Decoders of pretraining: the pixels of a modality from the fused token of each place.

Source: OmniSat (Astruc et al., ECCV 2024); key names follow the published code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisat_cli.networks.image import pooled_sides
from omnisat_cli.networks.series import day_encoding

if TYPE_CHECKING:
    from omnisat_cli.networks.configs import ImageConfig, SeriesConfig
    from omnisat_cli.networks.image import Pools

_EPS = 1e-6
ATTENTIVE = 0.75
"""Share of the dates that the date filter leaves out: those the encoder attends to least."""


class SeriesDecoder(nn.Module):
    """One linear layer from a place and a day to the pixels of that date.

    Args:
        config: The encoder's.
        width: Width of the fused token.
    """

    def __init__(self, config: SeriesConfig, width: int) -> None:
        super().__init__()
        self.period = config.period
        # Kept for the published key; days beyond the table are encoded by the same formula.
        self.temp_encoding = nn.Embedding(config.period, width)
        self.temp_encoding.weight.requires_grad_(False)
        with torch.no_grad():
            days = torch.arange(config.period)
            self.temp_encoding.weight.copy_(day_encoding(days, width, config.period))
        self.decode = nn.Sequential(nn.Linear(width, config.bands * config.patch_px**2))

    def forward(self, places: Tensor, days: Tensor) -> Tensor:
        """Decode: (..., D) tokens and (...) days to (..., C * p * p)."""
        code = day_encoding(days, places.shape[-1], self.period)
        pixels: Tensor = self.decode(places + code)
        return pixels


class Unpool(nn.Module):
    """Put values back where a pool found them; zeros elsewhere.

    Args:
        side: Side of the map before the pool.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Spread (N, D, s, s) over (N, D, side, side)."""
        out = x.new_zeros(*x.shape[:2], self.side**2)
        out = out.scatter(2, index.flatten(2), x.flatten(2))
        return torch.unflatten(out, 2, (self.side, self.side))


class ImageDecoder(nn.Module):
    """Undo the image encoder's pools with its own indices (the index bypass).

    Args:
        config: The encoder's.
        width: Width of the fused token.
    """

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        sides = pooled_sides(config.patch_px)[:4]
        layers: list[nn.Module] = []
        for side in reversed(sides):
            layers += [Unpool(side), nn.ConvTranspose2d(width, width, 3, padding=1, bias=False)]
        layers[-1] = _doubling(width, config.bands, sides[0], config.patch_px)
        self.decode = nn.ModuleList(layers)

    def forward(self, places: Tensor, pools: Pools) -> Tensor:
        """Decode: (N, D) tokens to (N, C, p, p)."""
        x = places[:, :, None, None]
        for step, index in enumerate(reversed(pools)):
            x = self.decode[2 * step](x, index)
            x = self.decode[2 * step + 1](x)
        return x


class PlainImageDecoder(nn.Module):
    """Five transposed convolutions that know nothing of the encoder's pools (ablation).

    Args:
        config: The encoder's.
        width: Width of the fused token.
    """

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        sides = (1, *reversed(pooled_sides(config.patch_px)[:4]), config.patch_px)
        channels = (*[width] * 5, config.bands)
        self.decode = nn.Sequential(
            *[
                _doubling(before, after, *step)
                for (before, after), step in zip(pairwise(channels), pairwise(sides), strict=True)
            ]
        )

    def forward(self, places: Tensor, pools: Pools) -> Tensor:  # noqa: ARG002 - as `ImageDecoder`
        """Decode: (N, D) tokens to (N, C, p, p)."""
        pixels: Tensor = self.decode(places[:, :, None, None])
        return pixels


def _doubling(before: int, after: int, small: int, large: int) -> nn.ConvTranspose2d:
    """Return the transposed convolution that brings maps of one side to another."""
    if small == large:
        return nn.ConvTranspose2d(before, after, 3, padding=1)
    if large > 2 * small + 1:
        assert small == 1, "only the last pool leaves more than half"
        return nn.ConvTranspose2d(before, after, large)
    odd = large - 2 * small  # -1, 0 or 1
    padding = 0 if odd == 1 else 1
    return nn.ConvTranspose2d(
        before, after, 3, stride=2, padding=padding, output_padding=1 if odd == 0 else 0
    )


def attentive_dates(attention: Tensor, candidates: Tensor) -> Tensor:
    """Choose the dates that the encoder attends to most: the date filter.

    Args:
        attention: (B, T) mean attention of each date.
        candidates: (B, T) bool dates that may be chosen.

    Returns:
        (B, T) bool: candidates strictly above the 75th percentile of the candidates (linear
        interpolation), and in any case those of the highest attention.
    """
    known = attention.detach().float().masked_fill(~candidates, float("nan"))
    limit = known.nanquantile(ATTENTIVE, dim=1, keepdim=True)
    top = known.masked_fill(~candidates, -1.0).amax(1, keepdim=True)
    return candidates & ((known > limit) | (known == top))


def standardised_dates(pixels: Tensor, usable: Tensor) -> Tensor:
    """Standardise each date over its usable patches and all their values.

    Args:
        pixels: (K, P, E) values of dates.
        usable: (K, P) bool patches that hold real values.

    Returns:
        (K, P, E); zeros where not usable. The variance is the unbiased one.
    """
    mask = usable.unsqueeze(-1)
    x = pixels.float().masked_fill(~mask, 0.0)
    count = usable.sum(1)[:, None, None] * pixels.shape[-1]
    mean = x.sum((1, 2), keepdim=True) / count.clamp(min=1)
    centred = (x - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum((1, 2), keepdim=True) / (count - 1).clamp(min=1)
    return centred * (variance + _EPS).rsqrt()


def standardised_patches(pixels: Tensor) -> Tensor:
    """Standardise each patch (N, C, p, p) over its channels and pixels, unbiased variance."""
    x = pixels.float()
    variance, mean = torch.var_mean(x, (1, 2, 3), keepdim=True)
    return (x - mean) * (variance + _EPS).rsqrt()
