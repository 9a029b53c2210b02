"""Lay out an OmniSat network for what a set of examples delivers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError
from omnisat_cli.modality import modality
from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.segmenter import SegmenterConfig
from omnisat_cli.packs.card import WindowCard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.networks.configs import ModalityConfig
    from omnisat_cli.packs.card import ModalityCard

_COARSE_M = 10.0  # output pixel where only series exist
_PERIODS: Mapping[str, int] = MappingProxyType(
    {"day-of-year": 367, "days-since-2018-09-01": 734}
)  # as published


@dataclass(frozen=True, slots=True)
class Size:
    """How large a network is.

    Attributes:
        width: Width of every token.
        depth: Self-attention blocks before the combiner.
        heads: Heads of the trunk.
        widths_in: Widths of the layers of a series before attention over its dates.
        widths_out: Widths after it.
        dropout: Rate in series encoders and trunk.
        drop_path: Stochastic depth of the last block.
    """

    width: int
    depth: int
    heads: int
    widths_in: tuple[int, ...]
    widths_out: tuple[int, ...]
    dropout: float = 0.0
    drop_path: float = 0.1


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "tiny": Size(32, 2, 4, (16, 32, 32), (32, 64, 32)),
        "small": Size(64, 3, 4, (32, 64, 64), (64, 128, 64)),
        "medium": Size(128, 4, 8, (32, 64, 128), (128, 256, 128), 0.1),
        "official": Size(256, 6, 16, (32, 128, 256), (256, 512, 256), 0.2, 0.2),
    }
)
"""Sizes by name: "small" is that of the demonstration model, "official" the published one."""


def choose_size(name: str) -> Size:
    """Look a size up.

    Raises:
        JobError: If there is none of that name.
    """
    if name not in SIZES:
        raise JobError(f"--size {name}: there are {', '.join(SIZES)}")
    return SIZES[name]


def design_encoder(
    cards: tuple[ModalityCard, ...], patch_m: float, side: int, size: Size
) -> OmniSatConfig:
    """Return the encoder for some modalities.

    Args:
        cards: How they reach the network, in its order.
        patch_m: Side of a patch in metres.
        side: Patches along a window.
        size: How large it is.

    Raises:
        JobError: If a pixel does not divide the patch.
    """
    return OmniSatConfig(
        size.width,
        size.depth,
        size.heads,
        (side, side),
        tuple(_part(card, patch_m, size) for card in cards),
        dropout=size.dropout,
        drop_path=size.drop_path,
    )


def _part(card: ModalityCard, patch_m: float, size: Size) -> ModalityConfig:
    pixels = round(patch_m / card.gsd)
    if pixels < 1 or abs(pixels * card.gsd - patch_m) > 1e-6 * patch_m:
        raise JobError(f"{card.name}: pixels of {card.gsd:g} m do not divide {patch_m:g} m patches")
    if card.dates is None:
        return ImageConfig(card.name, len(card.bands), pixels)
    return SeriesConfig(
        card.name,
        len(card.bands),
        pixels,
        in_norm=modality(card.name).units == "reflectance_1e4",
        period=_PERIODS[card.dates],
        widths_in=size.widths_in,
        widths_out=size.widths_out,
        dropout=size.dropout,
        attention_dropout=size.dropout / 2,
    )


def design_segmenter(encoder: OmniSatConfig, patch_m: float, classes: int) -> SegmenterConfig:
    """Return an encoder with a dense head: 10 m from series, half the image pixel from images."""
    fine = max((part.fine_side for part in encoder.images), default=0)
    wanted = max(round(patch_m / _COARSE_M), 1)
    coarse = math.gcd(fine, wanted)  # the finer output is a whole multiple of the coarse one
    return SegmenterConfig(encoder, classes, coarse_side=coarse)


def window_card(side: int) -> WindowCard:
    """Return how `predict` lays windows: a third of each is shared with its neighbours."""
    return WindowCard(size=side, overlap=side // 3, cell=8)
