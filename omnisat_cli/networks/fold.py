"""The same networks arranged for inference: fewer operations, the same numbers.

Exact algebra only. Batch-norm goes into the linear layer or convolution before it. The queries of
the temporal encoder are constants, so keys never exist: query and key projection become one matrix
from channels to heads, the encoding of the days becomes a table of scores and of values, and what
is constant over dates drops out of the softmax. On a CPU everything runs in slices that stay in
the cache, images channels-last.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisat_cli.networks.anysat_encoders import PixelSeries, SeriesProjector
from omnisat_cli.networks.anysat_segmenter import AnySatPatches
from omnisat_cli.networks.dual_stream import DualStream
from omnisat_cli.networks.fold_image import FoldedImage, fold_conv
from omnisat_cli.networks.fold_series import (
    FoldedPixels,
    FoldedSeries,
    fold_linear,
    norm_scale,
    slice_rows,
)
from omnisat_cli.networks.image import ImageEncoder, ImageFeatures
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.probe import Probe
from omnisat_cli.networks.seam import Dense, Encoded, PatchLocal
from omnisat_cli.networks.segmenter import OmniSatSegmenter
from omnisat_cli.networks.series import SeriesEncoder
from omnisat_cli.networks.tile import OmniSatTile
from omnisat_cli.networks.unet import UNet
from omnisat_cli.networks.utae import UTAE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnisat_cli.networks.heads import DenseHead
    from omnisat_cli.networks.omnisat import Grid


def fold_for_inference(network: nn.Module) -> nn.Module:
    """Rearrange a trained network for inference.

    Args:
        network: An `OmniSatSegmenter`, `OmniSat`, `OmniSatTile`, `AnySatSegmenter`, `AnySatTile`,
            `UNet`, `UTAE`, `DualStream` or `Probe`; it is not changed.

    Returns:
        A network with the same interface whose results differ by rounding only. It cannot be
        trained.

    Raises:
        ValueError: If the network is of another kind.
    """
    for kinds, fold in _FORMS:
        if isinstance(network, kinds):
            return fold(network).eval()
    raise ValueError(f"no inference form of {type(network).__name__}")


def _fold_probe(probe: Probe) -> Probe:
    base = fold_for_inference(probe.base)
    assert isinstance(base, PatchLocal)
    folded = Probe(probe.config, base)
    folded.head = copy.deepcopy(probe.head)
    return folded.requires_grad_(False)


def _fold_anysat(network: AnySatPatches) -> AnySatPatches:
    folded = copy.deepcopy(network)
    for part in folded.modules():
        if isinstance(part, SeriesProjector):
            assert isinstance(part.patch_embed, PixelSeries)
            part.patch_embed = FoldedPixels(part.patch_embed)
    return folded.requires_grad_(False)


def _fold_encoders(network: OmniSat) -> OmniSat:
    folded = copy.deepcopy(network)
    for name in network.config.names:
        encoder = network.projector(name)
        part: nn.Module
        if isinstance(encoder, SeriesEncoder):
            part = FoldedSeries(encoder)
        else:
            assert isinstance(encoder, ImageEncoder)
            config = next(image for image in network.config.images if image.name == name)
            part = FoldedImage(encoder, config.patch_px)
        folded.add_module(f"projector_{name}", part)
    return folded.requires_grad_(False)


class FoldedSegmenter(nn.Module):
    """An `OmniSatSegmenter` arranged for inference, behind the same `PatchLocal` interface."""

    def __init__(self, network: OmniSatSegmenter) -> None:
        super().__init__()
        self.config = network.config
        self.encoder = _fold_encoders(network.encoder)
        self.fine = copy.deepcopy(network.fine)
        self.head = _fold_head(network.head)
        self.traits = network.traits
        self.requires_grad_(False)

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode image patches; see `PatchLocal.encode_image`."""
        width, channels = self.config.encoder.width, self.config.fine_channels
        side = self.config.fine_sides[name]
        N = pixels.shape[0]
        tokens = pixels.new_empty(N, width)
        fine = pixels.new_empty(N, channels, side, side)
        rows = slice_rows(side * side * width * pixels.element_size(), pixels, 16)
        for start in range(0, N, rows):
            part = slice(start, start + rows)
            features = self.encoder.encode_image(name, pixels[part])
            tokens[part] = features.token
            fine[part] = self.fine[name](features)
        return Encoded(tokens, fine)

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        """Encode series of patches; see `PatchLocal.encode_series`."""
        return Encoded(self.encoder.encode_series(name, pixels, days, valid))

    def fuse(
        self,
        tokens: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        grid: Grid | None = None,
    ) -> Tensor:
        """Fuse windows; see `PatchLocal.fuse`."""
        return self.encoder.fuse(tokens, present, grid=grid)

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
        grid: Grid | None = None,
    ) -> Dense:
        """Turn fused windows into logits; see `PatchLocal.decode`."""
        grid = grid or self.config.encoder.grid
        logits = self.head.coarse_logits(fused, grid)
        if fine_output:
            logits = self.head.fine_logits(fused, fine, present, logits, grid)
        return self.head.dense(logits)


class _ImageTokens(nn.Module):
    """A `FoldedImage` of which only the tokens are kept, patches a slice at a time."""

    def __init__(self, image: FoldedImage) -> None:
        super().__init__()
        self.image = image

    def forward(self, patches: Tensor) -> ImageFeatures:
        """Encode patches (N, C, p, p); the finer features are empty."""
        side, width = self.image.side, self.image.stem.out_features
        rows = slice_rows(side * side * width * patches.element_size(), patches, 16)
        tokens = torch.cat([self.image(part).token for part in torch.split(patches, rows)])
        nothing = tokens.new_empty(0, width, side, side)
        return ImageFeatures(tokens, nothing, nothing)


def _fold_tile(network: OmniSatTile) -> OmniSatTile:
    folded = copy.deepcopy(network)
    folded.encoder = _fold_encoders(network.encoder)
    for part in network.config.encoder.images:
        image = folded.encoder.projector(part.name)
        assert isinstance(image, FoldedImage)
        folded.encoder.add_module(f"projector_{part.name}", _ImageTokens(image))
    return folded.requires_grad_(False)


def _fold_head(head: DenseHead) -> DenseHead:
    folded = copy.deepcopy(head)
    if not head.fine_sides:
        return folded
    folded.conv1 = fold_conv(head.conv1, head.norm1)
    folded.conv2 = fold_conv(head.conv2, head.norm2)
    folded.norm1 = nn.Identity()  # type: ignore[assignment]
    folded.norm2 = nn.Identity()  # type: ignore[assignment]
    return folded


def _fold_unet(network: UNet) -> UNet:
    folded = copy.deepcopy(network)
    for level in [*folded.down, *folded.up]:
        assert isinstance(level, nn.Sequential)
        for index in range(0, len(level), 3):
            conv = level[index]
            assert isinstance(conv, nn.Conv2d)
            level[index] = fold_conv(conv, level[index + 1])
            level[index + 1] = nn.Identity()
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded.requires_grad_(False)


def _fold_stacks(network: nn.Module) -> nn.Module:
    """Fold the batch-norms of U-TAE, after the dates are pooled; those before are group-norms."""
    folded = copy.deepcopy(network)
    stacks = [layer for layer in folded.modules() if isinstance(layer, nn.Sequential)]
    for stack in stacks:
        for index, norm in enumerate(stack):
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                stack[index - 1] = _fold_any(stack[index - 1], norm)
                stack[index] = nn.Identity()
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded.requires_grad_(False)


def _fold_any(layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fold_linear(layer, norm)
    if isinstance(layer, nn.ConvTranspose2d):
        return _fold_transposed(layer, norm)
    assert isinstance(layer, nn.Conv2d)
    return fold_conv(layer, norm)


def _fold_transposed(conv: nn.ConvTranspose2d, norm: nn.Module) -> nn.ConvTranspose2d:
    scale, shift = norm_scale(norm)
    folded = copy.deepcopy(conv)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
    with torch.no_grad():
        folded.weight.copy_(conv.weight.double() * scale[:, None, None])
        folded.bias = nn.Parameter((bias * scale + shift).to(conv.weight.dtype))
    return folded


_FORMS: tuple[tuple[tuple[type[nn.Module], ...], Callable[..., nn.Module]], ...] = (
    ((OmniSatSegmenter,), FoldedSegmenter),
    ((OmniSat,), _fold_encoders),
    ((OmniSatTile,), _fold_tile),
    ((AnySatPatches,), _fold_anysat),
    ((UNet,), _fold_unet),
    ((UTAE, DualStream), _fold_stacks),
    ((Probe,), _fold_probe),
)
"""Networks to what makes their inference form."""
