"""Self-supervised pretraining of OmniSat: contrast between modalities, masked reconstruction.

Source: OmniSat (Astruc et al., ECCV 2024); key names follow the published code. With official
positions the step is the published one, which leaves the last date of every series out. With
geographic positions what is not there (absent modalities, padded or clouded dates) has no part in
any term.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from omnisat_cli.networks.configs import ImageConfig, build
from omnisat_cli.networks.contrast import clip_nce, mil_nce
from omnisat_cli.networks.omnisat import Hiding
from omnisat_cli.networks.reconstruction import (
    ImageDecoder,
    PlainImageDecoder,
    SeriesDecoder,
    attentive_dates,
    standardised_dates,
    standardised_patches,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.networks.image import ImageEncoder, Pools
    from omnisat_cli.networks.omnisat import Grid, OmniSat
    from omnisat_cli.networks.series import SeriesEncoder

Contrast: TypeAlias = Literal["mil-nce", "clip", "none"]


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """What a pretraining step computes; the defaults are the published ones.

    Attributes:
        contrast: "mil-nce" contrasts all modalities of a place together, "clip" pair by pair.
        reconstruct: Reconstruct the pixels of every modality from the fused tokens.
        mask_ratio: Share of the tokens hidden from the trunk.
        temperature: Of the contrast.
        date_filter: Reconstruct only the dates that the encoder attends to most.
        index_bypass: Give the image decoder the places of the encoder's maxima.
        image_share: Share of the image patches reconstructed in a step, drawn at random.
    """

    contrast: Contrast = "mil-nce"
    reconstruct: bool = True
    mask_ratio: float = 0.75
    temperature: float = 0.1
    date_filter: bool = True
    index_bypass: bool = True
    image_share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be computed.

        Raises:
            ValueError: If nothing is left to learn from, or a number is out of range.
        """
        if self.contrast not in ("mil-nce", "clip", "none"):
            raise ValueError(f"contrast {self.contrast!r} is none of mil-nce, clip, none")
        if self.contrast == "none" and not self.reconstruct:
            raise ValueError("neither contrast nor reconstruction: nothing is left to learn from")
        if not 0 < self.mask_ratio < 1 or not 0 < self.image_share <= 1:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} must lie between 0 and 1, image_share "
                f"{self.image_share} above 0 and at most at 1"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0: {self.temperature}")

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> PretrainConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or a value is out of range.
        """
        return build(cls, plain)


@dataclass(frozen=True, slots=True)
class Windows:
    """B windows of P patches.

    Attributes:
        pixels: Modality to (B, P, C, p, p) image or (B, P, T, C, p, p) series, normalised.
        days: Series modality to (B, T) day numbers.
        valid: Series modality to (B, P, T) bool; a date that is not valid has no influence.
        present: Modality to (B, P) bool.
    """

    pixels: Mapping[str, Tensor]
    days: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    present: Mapping[str, Tensor]

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities that some patch has."""
        return tuple(name for name, here in self.present.items() if bool(here.any()))


@dataclass(slots=True)
class Views:
    """What the encoders make of windows.

    Attributes:
        tokens: Modality to (B, P, D), zeros where not present.
        attention: Series modality to (B, T): mean over heads and present patches.
        pools: Image modality to the places of the maxima of its present patches, in their order.
    """

    tokens: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    pools: dict[str, Pools] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fused:
    """What the trunk makes of windows of which most tokens are hidden.

    Attributes:
        windows: What was given.
        views: What the encoders made of it.
        hidden: Modality to (B, P) bool: present, but not shown to the trunk.
        places: (B, P, D) one token a patch.
    """

    windows: Windows
    views: Views
    hidden: Mapping[str, Tensor]
    places: Tensor


class OmniSatPretraining(nn.Module):
    """Encoder, decoders and the token of what is masked.

    Args:
        encoder: The network to pretrain.
        config: What a step computes.
    """

    def __init__(self, encoder: OmniSat, config: PretrainConfig | None = None) -> None:
        super().__init__()
        self.config = config or PretrainConfig()
        self.encoder = encoder
        if not self.config.reconstruct:
            return
        width = encoder.config.width
        image = ImageDecoder if self.config.index_bypass else PlainImageDecoder
        decoders: dict[str, nn.Module] = {
            f"projector_{part.name}": image(part, width)
            if isinstance(part, ImageConfig)
            else SeriesDecoder(part, width)
            for part in encoder.config.modalities
        }
        self.decoder = nn.ModuleDict(decoders)
        self.masked_token = nn.Parameter(torch.zeros(1, 1, width))

    def forward(
        self, windows: Windows, noise: Tensor | None = None, *, grid: Grid | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of a step.

        Args:
            windows: What the network sees.
            noise: (B, M * P) uniform numbers, modality by modality in the network's order, that
                choose what is hidden; drawn if None.
            grid: Rows and columns of the windows; the configured ones by default.

        Returns:
            "contrast" and "reconstruct <modality>" to scalars; their sum is the loss of a step.

        Raises:
            ValueError: If no patch has any modality, or as `OmniSat.fuse`.
        """
        views = self.encode(windows)
        if not views.tokens:
            raise ValueError("no patch of these windows has any modality")
        losses: dict[str, Tensor] = {}
        if self.config.contrast != "none":
            contrast = mil_nce if self.config.contrast == "mil-nce" else clip_nce
            losses["contrast"] = contrast(
                list(views.tokens.values()),
                [windows.present[name] for name in views.tokens],
                temperature=self.config.temperature,
            )
        if self.config.reconstruct:
            fused = self.fuse(windows, views, noise, grid=grid)
            for name in views.tokens:
                loss = self.image_loss if name in views.pools else self.series_loss
                losses[f"reconstruct {name}"] = loss(name, fused)
        return losses

    def encode(self, windows: Windows) -> Views:
        """Encode the present patches of every modality."""
        views = Views()
        for part in self.encoder.config.modalities:
            name = part.name
            here = windows.present.get(name)
            if here is None or not here.any():
                continue
            pixels = windows.pixels[name][here]  # (n, ...)
            encoder = self.encoder.projector(name)
            if isinstance(part, ImageConfig):
                shape = pixels.contiguous(memory_format=torch.channels_last)
                features, views.pools[name] = cast("ImageEncoder", encoder).encode(shape)
                views.tokens[name] = _scattered(features.token, here)
                continue
            token, attention = cast("SeriesEncoder", encoder).encode(
                pixels, windows.days[name][here.nonzero()[:, 0]], _valid(windows, name)[here]
            )
            views.tokens[name] = _scattered(token, here)
            patches = here.sum(1, keepdim=True).clamp(min=1)
            views.attention[name] = _scattered(attention.mean(2), here).sum(1) / patches
        return views

    def hide(self, windows: Windows, names: tuple[str, ...], noise: Tensor) -> dict[str, Tensor]:
        """Choose what the trunk does not see: of the present tokens those of largest noise.

        Args:
            windows: What is present.
            names: Modalities, in the order of the noise.
            noise: (B, M * P) numbers of [0, 1).

        Returns:
            Modality to (B, P) bool.
        """
        present = torch.cat([windows.present[name] for name in names], dim=1)
        rank = noise.masked_fill(~present, 2.0).argsort(1).argsort(1)
        keep = (1 - self.config.mask_ratio) * present.sum(1, keepdim=True)
        hidden = present & (rank >= keep.floor().clamp(min=1))
        return dict(zip(names, hidden.chunk(len(names), dim=1), strict=True))

    def fuse(
        self,
        windows: Windows,
        views: Views,
        noise: Tensor | None = None,
        *,
        grid: Grid | None = None,
    ) -> Fused:
        """Hide tokens and fuse the rest; see `forward`."""
        names = tuple(views.tokens)
        B, P = windows.present[names[0]].shape
        if noise is None:
            noise = torch.rand(B, len(names) * P, device=windows.present[names[0]].device)
        hidden = self.hide(windows, names, noise)
        fused = self.encoder.fuse(
            views.tokens,
            {name: windows.present[name] for name in names},
            grid=grid,
            hiding=Hiding(hidden, self.masked_token),
        )
        return Fused(windows, views, hidden, fused[:, 1:])

    def image_loss(self, name: str, fused: Fused) -> Tensor:
        """Return the mean squared error of the standardised pixels of present patches."""
        here = fused.windows.present[name]
        places, pixels = fused.places[here], fused.windows.pixels[name][here]
        pools = fused.views.pools[name]
        if self.config.image_share < 1:
            count = max(round(self.config.image_share * len(places)), 1)
            some = torch.randperm(len(places), device=places.device)[:count]
            places, pixels = places[some], pixels[some]
            pools = tuple(index[some] for index in pools)  # type: ignore[assignment]
        found: Tensor = self.decoder[f"projector_{name}"](places, pools)
        return (found - standardised_patches(pixels)).square().mean()

    def series_loss(self, name: str, fused: Fused) -> Tensor:
        """Return the mean squared error of the chosen dates in the hidden patches."""
        chosen = self.chosen_dates(name, fused.windows, fused.views)
        window, date = chosen.nonzero(as_tuple=True)  # (K,)
        pixels = fused.windows.pixels[name][window, :, date].flatten(2)  # (K, P, C * p * p)
        usable = _valid(fused.windows, name)[window, :, date] & fused.windows.present[name][window]
        asked, patch = (usable & fused.hidden[name][window]).nonzero(as_tuple=True)  # (n,)
        if len(asked) == 0:
            return fused.places.sum() * 0.0
        target = standardised_dates(pixels, usable)[asked, patch]
        days = fused.windows.days[name][window, date][asked]
        places = fused.places[window[asked], patch]
        found: Tensor = self.decoder[f"projector_{name}"](places, days)
        return (found - target).square().mean()

    def chosen_dates(self, name: str, windows: Windows, views: Views) -> Tensor:
        """Return the dates to reconstruct: (B, T) bool."""
        if self.encoder.config.position == "official":
            days = windows.days[name]
            place = torch.arange(days.shape[1], device=days.device)
            last = torch.where(days != 0, place, 0).amax(1, keepdim=True)
            candidates = place < last
        else:
            candidates = (_valid(windows, name) & windows.present[name].unsqueeze(2)).any(1)
        if not self.config.date_filter:
            return candidates
        return attentive_dates(views.attention[name], candidates)


def _valid(windows: Windows, name: str) -> Tensor:
    """Return (B, P, T) bool; every date where nothing is said."""
    if name in windows.valid:
        return windows.valid[name]
    return torch.ones(windows.pixels[name].shape[:3], dtype=torch.bool, device=_device(windows))


def _device(windows: Windows) -> torch.device:
    return next(iter(windows.present.values())).device


def _scattered(values: Tensor, here: Tensor) -> Tensor:
    """Lay (n, ...) values of present patches into (B, P, ...), zeros elsewhere."""
    whole = values.new_zeros((*here.shape, *values.shape[1:]))
    whole[here] = values
    return whole
