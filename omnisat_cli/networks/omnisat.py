"""OmniSat: one encoder a modality, a shared transformer, one fused token a patch.

Source: "OmniSat: Self-Supervised Modality Fusion for Earth Observation" (Astruc et al., ECCV 2024).
State-dict keys are those of the published code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.attention import Block, Combiner, Layout
from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.image import ImageEncoder, ImageFeatures, as_patches, cut_patches
from omnisat_cli.networks.relative import GridLayout, SequenceLayout
from omnisat_cli.networks.series import SeriesEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

Grid = tuple[int, int]
_SLICE = 16  # patches encoded at once by `window_tokens`


@dataclass(frozen=True, slots=True)
class Hiding:
    """Tokens that the trunk must not see, for pretraining.

    Attributes:
        hidden: Modality to (B, P) bool.
        token: (1, 1, D) what stands in their place, without any position.
    """

    hidden: Mapping[str, Tensor]
    token: Tensor


class OmniSat(nn.Module):
    """The encoder. `encode_image` and `encode_series` are patch-local, `fuse` sees a window.

    Args:
        config: Sizes, modalities and position mode.
    """

    def __init__(self, config: OmniSatConfig) -> None:
        super().__init__()
        self.config = config
        width, patches = config.width, math.prod(config.grid)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, width))
        for part in config.modalities:
            encoder: nn.Module
            if isinstance(part, ImageConfig):
                encoder = ImageEncoder(part, width)
            else:
                encoder = SeriesEncoder(part)
            self.add_module(f"projector_{part.name}", encoder)
        last = max(config.depth - 1, 1)
        rates = [config.drop_path * index / last for index in range(config.depth)]
        size = (width, config.heads)
        blocks: list[nn.Module] = [
            Block(*size, config.mlp_ratio, dropout=config.dropout, drop_path=rate) for rate in rates
        ]
        blocks.append(
            Combiner(
                *size,
                patches,
                config.mlp_ratio,
                dropout=config.dropout,
                drop_path=config.combiner_drop_path,
            )
        )
        self.blocks = nn.ModuleList(blocks)
        self._layouts: dict[tuple[object, ...], Layout] = {}
        self.apply(_initialise)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        combiner = self.blocks[-1]
        nn.init.trunc_normal_(combiner.attn.q_learned, std=0.02)  # type: ignore[union-attr,arg-type]
        nn.init.trunc_normal_(combiner.attn.pos_embed, std=0.02)  # type: ignore[union-attr,arg-type]

    def projector(self, name: str) -> nn.Module:
        """Return the encoder of a modality."""
        self.config.modality(name)
        return self.get_submodule(f"projector_{name}")

    def encode_image(self, name: str, pixels: Tensor) -> ImageFeatures:
        """Encode image patches (N, C, p, p)."""
        features: ImageFeatures = self.projector(name)(pixels)
        return features

    def encode_series(
        self, name: str, pixels: Tensor, days: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Encode series of patches (N, T, C, p, p) to (N, D); see `SeriesEncoder.forward`."""
        token: Tensor = self.projector(name)(pixels, days, valid)
        return token

    def fuse(
        self,
        tokens: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        *,
        grid: Grid | None = None,
        hiding: Hiding | None = None,
    ) -> Tensor:
        """Fuse the tokens of windows.

        Official positions depend on the length of the sequence. So a modality that is missing where
        presence is told keeps its place there, masked: the positions stay those of training.

        Args:
            tokens: Modality to (B, P, D), row-major; modalities may be left out.
            present: Modality to (B, P) bool; tokens that are not present have no influence. None
                takes all.
            grid: Rows and columns of the window; the configured ones by default. Learned positions
                are resampled bilinearly to another grid.
            hiding: Tokens to replace, for pretraining; they stay in the sequence.

        Returns:
            (B, 1 + P, D): the class token, then the fused patches.

        Raises:
            ValueError: If no modality is given, or the number of patches is not the grid's.
        """
        grid = self._check_grid(tokens, grid)
        official = self.config.position == "official"
        if official and present is not None and hiding is None:
            tokens, present = self._completed(tokens, present)
        names = [name for name in self.config.names if name in tokens]
        masks: dict[str, Tensor] = {}
        if present is not None:
            masks = {name: present[name] for name in names if not bool(present[name].all())}
        if masks and not official:
            some = [name for name in names if name not in masks or bool(masks[name].any())]
            names = some or names[:1]  # a window without anything keeps one masked modality
            masks = {name: mask for name, mask in masks.items() if name in names}
        x, mask = self._sequence({name: tokens[name] for name in names}, masks, grid, hiding)
        window = self._grid_layout(grid, (len(names), len(names)), x.device)
        trunk = self._official(x) if official else window
        for block in self.blocks[:-1]:
            x = block(x, trunk, mask)
        fused: Tensor = self.blocks[-1](
            x,
            self._grid_layout(grid, (1, len(names)), x.device),
            mask,
            lambda p: self._resample(p, grid),
        )
        return fused

    def forward(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Encode whole windows.

        Args:
            pixels: Modality to (B, C, H, W) image or (B, T, C, h, w) series.
            days: Series modality to (T,) or (B, T) day numbers.
            valid: Series modality to (B, T, h, w) bool for patches of one pixel, or (B, T).

        Returns:
            (B, 1 + P, D).
        """
        valid = valid or {}
        tokens = {
            name: self.window_tokens(name, pixels[name], days.get(name), valid.get(name))
            for name in self.config.names
            if name in pixels
        }
        return self.fuse(tokens)

    def window_tokens(
        self, name: str, pixels: Tensor, days: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        """Cut a modality of whole windows into patches and encode them: (B, P, D)."""
        part = self.config.modality(name)
        B = pixels.shape[0]
        if isinstance(part, ImageConfig):
            patches = as_patches(pixels, part.patch_px)
            # Without autograd in slices: whole windows of full-width maps take gigabytes.
            slices = [patches] if torch.is_grad_enabled() else torch.split(patches, _SLICE)
            # Channels-last is the faster layout of small convolutions.
            slices = [piece.contiguous(memory_format=torch.channels_last) for piece in slices]
            tokens = torch.cat([self.encode_image(name, piece).token for piece in slices])
            return torch.unflatten(tokens, 0, (B, -1))
        series = pixels.unsqueeze(1) if pixels.dim() == 4 else pixels
        rows, dates, flags = series_rows(part, series, days, valid)
        return torch.unflatten(self.encode_series(name, rows, dates, flags), 0, (B, -1))

    def _check_grid(self, tokens: Mapping[str, Tensor], grid: Grid | None) -> Grid:
        grid = grid or self.config.grid
        if not tokens:
            raise ValueError(f"no modality given; the network has {', '.join(self.config.names)}")
        for name, value in tokens.items():
            self.config.modality(name)
            if value.shape[1] != math.prod(grid):
                raise ValueError(
                    f"{name}: {value.shape[1]} patches in a window of {grid[0]} x {grid[1]}; "
                    "give `grid`"
                )
        return grid

    def _completed(
        self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Give every modality of the network tokens; those that are not there are not present."""
        first, name = next(iter(tokens.values())), next(iter(tokens))
        nowhere = torch.zeros_like(present[name])
        names = self.config.names
        return (
            {each: tokens.get(each, torch.zeros_like(first)) for each in names},
            {each: present.get(each, nowhere) for each in names},
        )

    def _sequence(
        self,
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        grid: Grid,
        hiding: Hiding | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, 1 + M * P, D) tokens with positions and their (B, 1 + M * P) presence."""
        position = self._resample(self.pos_embed, grid)
        parts = []
        for name, values in tokens.items():
            part = values
            if name in masks:  # whatever fills a hole, even NaN, must not reach the values
                part = part.masked_fill(~masks[name].unsqueeze(-1), 0.0)
            part = part + position[:, 1:]
            if hiding is not None:
                part = torch.where(hiding.hidden[name].unsqueeze(-1), hiding.token, part)
            parts.append(part)
        B = next(iter(tokens.values())).shape[0]
        first = (self.cls_token + position[:, :1]).expand(B, -1, -1)
        x = torch.cat([first, *parts], dim=1)
        if not masks:
            return x, None
        every = torch.ones(B, math.prod(grid), dtype=torch.bool, device=x.device)
        flags = [every[:, :1], *(masks.get(name, every) for name in tokens)]
        return x, torch.cat(flags, dim=1)

    def _resample(self, position: Tensor, grid: Grid) -> Tensor:
        """Bring (1, 1 + P, D) learned positions to another grid, the class row untouched."""
        if grid == self.config.grid:
            return position
        patches = torch.unflatten(position[:, 1:].transpose(1, 2), 2, self.config.grid)
        patches = functional.interpolate(patches, size=grid, mode="bilinear", align_corners=False)
        return torch.cat([position[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)

    def _grid_layout(self, grid: Grid, copies: Grid, device: torch.device) -> GridLayout:
        """Return the layout of a window with numbers of query and key modalities."""
        key = ("grid", grid, copies, device)
        if key not in self._layouts:
            self._layouts[key] = GridLayout.of_grid(*grid).with_copies(*copies).to(device)
        layout = self._layouts[key]
        assert isinstance(layout, GridLayout)
        return layout

    def _official(self, x: Tensor) -> Layout:
        key = ("sequence", x.shape[1], x.device)
        if key not in self._layouts:
            self._layouts[key] = SequenceLayout.of_length(x.shape[1]).to(x.device)
        return self._layouts[key]


def series_rows(
    part: SeriesConfig, series: Tensor, days: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cut series of windows into one row a patch.

    Args:
        part: The modality.
        series: (B, T, C, h, w).
        days: (T,) or (B, T); not needed where the modality has a fixed day.
        valid: (B, T), or (B, T, h, w): a date is valid in a patch if all its pixels are.

    Returns:
        (B * P, T, C, p, p) pixels, (T,) or (B * P, T) days, (B * P, T) valid or None.

    Raises:
        ValueError: If days are missing.
    """
    B, T = series.shape[:2]
    cut = cut_patches(series, part.patch_px).transpose(0, 1)  # (B, P, T, C, p, p)
    P = cut.shape[1]
    if part.day is not None:
        days = torch.full((T,), part.day, device=series.device)
    if days is None:
        raise ValueError(f"{part.name}: a series needs the days of its dates")
    if days.dim() == 2:
        days = days.repeat_interleave(P, dim=0)
    if valid is not None and valid.dim() == 4:
        whole = cut_patches(valid.unsqueeze(2), part.patch_px).transpose(0, 1)
        valid = whole.flatten(3).all(3).flatten(0, 1)
    elif valid is not None:
        valid = valid.repeat_interleave(P, dim=0)
    assert valid is None or valid.shape == (B * P, T)
    return cut.flatten(0, 1), days, valid


def _initialise(module: nn.Module) -> None:
    if isinstance(module, Block | Combiner):
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
