"""Encoder of image patches: a small CNN that sees one patch at a time.

Source: OmniSat (Astruc et al., ECCV 2024), the aerial projector; key names follow its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from omnisat_cli.networks.configs import ImageConfig

GROUPS = 4
Pools = tuple[Tensor, Tensor, Tensor, Tensor]
"""(N, D, s, s) flat index of each maximum in the map before each pool; the last is 1 x 1."""


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the encoder makes of N patches.

    Attributes:
        token: (N, D).
        stem: (N, D, p/2, p/2) map after the strided convolution.
        middle: (N, D, p/4, p/4) map after the first residual block.
    """

    token: Tensor
    stem: Tensor
    middle: Tensor


def cut_patches(image: Tensor, side: int) -> Tensor:
    """Cut images into patches, row-major; a remainder at the right or bottom is dropped.

    Args:
        image: (..., C, H, W).
        side: Side of a patch, pixels.

    Returns:
        (P, ..., C, side, side) with the patches moved to the front.
    """
    rows, cols = image.shape[-2] // side, image.shape[-1] // side
    image = image[..., : rows * side, : cols * side]
    image = torch.unflatten(image, -1, (cols, side))
    image = torch.unflatten(image, -3, (rows, side))  # (..., h, p, w, p)
    return image.movedim((-4, -2), (0, 1)).flatten(0, 1)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions; one normalisation used after both, as published."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.GroupNorm(GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps (N, D, s, s)."""
        y = functional.gelu(self.bn(self.conv1(x)))
        return functional.gelu(x + self.bn(self.conv2(y)))


class ImageEncoder(nn.Module):
    """Patches to tokens.

    A strided stem, then three residual blocks with a 2 x 2 max-pool before each and one at the
    end. A pool is skipped once the map is a single pixel; what is larger than one pixel at the end
    is reduced by its maximum. Patches of 40 and 50 pixels take every pool and end at one pixel.

    Args:
        config: Bands and patch size.
        width: Width of maps and token.
    """

    def __init__(self, config: ImageConfig, width: int) -> None:
        super().__init__()
        self.proj = nn.ModuleList(
            [
                nn.Conv2d(config.bands, width, 3, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.GELU(),
                nn.MaxPool2d(2),
                ResidualBlock(width),
                nn.MaxPool2d(2),
                ResidualBlock(width),
                nn.MaxPool2d(2),
                ResidualBlock(width),
                nn.MaxPool2d(2),
            ]
        )

    def encode(self, patches: Tensor) -> tuple[ImageFeatures, Pools]:
        """Encode patches (N, C, p, p) and say where each pool found its maxima."""
        x = patches
        for layer in self.proj[:3]:
            x = layer(x)
        stem = middle = x
        pools = []
        for index in (3, 5, 7):
            x, found = pool_with_indices(x)
            pools.append(found)
            x = self.proj[index + 1](x)
            middle = x if index == 3 else middle
        x, found = pool_with_indices(x)
        best = x.flatten(2).argmax(2, keepdim=True)  # of what is larger than one pixel
        pools.append(found.flatten(2).gather(2, best).unsqueeze(3))
        token = x.flatten(2).gather(2, best).squeeze(2)
        return ImageFeatures(token, stem, middle), (pools[0], pools[1], pools[2], pools[3])

    def forward(self, patches: Tensor) -> ImageFeatures:
        """Encode patches (N, C, p, p)."""
        x = patches
        for layer in self.proj[:3]:
            x = layer(x)
        stem = middle = x
        for index in (3, 5, 7):
            x = pool(x)
            x = self.proj[index + 1](x)
            middle = x if index == 3 else middle
        return ImageFeatures(pool(x).amax((2, 3)), stem, middle)


def pool(x: Tensor) -> Tensor:
    """Halve maps by their maximum unless they are a single pixel already."""
    return functional.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x


def pool_with_indices(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool as `pool` does and return the flat index of each maximum in its map as well."""
    if min(x.shape[-2:]) > 1:
        pooled, index = functional.max_pool2d(x, 2, return_indices=True)
        return pooled, index
    places = torch.arange(x.shape[-2] * x.shape[-1], device=x.device)
    return x, places.view(x.shape[-2:]).expand(x.shape)


def pooled_sides(patch_px: int) -> tuple[int, ...]:
    """Return the side of the map after the stem and after each of the four pools."""
    sides = [(patch_px + 1) // 2]
    for _ in range(4):
        sides.append(max(sides[-1] // 2, 1))
    return tuple(sides)


def as_patches(image: Tensor, side: int) -> Tensor:
    """Cut (B, C, H, W) images into (B * P, C, side, side) patches, sample by sample."""
    return torch.flatten(cut_patches(image, side).transpose(0, 1), 0, 1)
