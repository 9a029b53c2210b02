"""Lay out an AnySat for what a set of examples delivers: sensors from cards, heads from labels."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError
from omnisat_cli.modality import modality
from omnisat_cli.networks.anysat_config import CELL_M, SENSORS, AnySatConfig, Sensor, hub_config
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenterConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.packs.card import ModalityCard

_SUBPATCH_PX = 10  # side of a sub-patch of an image that is aimed at, as published

ANYSAT_SIZES: Mapping[str, AnySatConfig] = MappingProxyType(
    {
        "tiny": AnySatConfig(64, 1, 4),
        "small": AnySatConfig(128, 3, 4),
        "medium": hub_config("tiny"),
        "official": hub_config("base"),
    }
)
"""Sizes by name: "official" is the only one with published weights."""


def design_anysat(cards: tuple[ModalityCard, ...], size: str) -> AnySatConfig:
    """Return an AnySat for some modalities.

    Raises:
        JobError: If there is no such size, or the pixels of an image do not divide 10 m.
    """
    if size not in ANYSAT_SIZES:
        raise JobError(f"--size {size}: there are {', '.join(ANYSAT_SIZES)}")
    return replace(ANYSAT_SIZES[size], sensors=tuple(design_sensor(card) for card in cards))


def design_sensor(card: ModalityCard) -> Sensor:
    """Return how AnySat cuts a modality: as published where it is the published sensor.

    Raises:
        JobError: If the pixels of an image do not divide 10 m.
    """
    known, sensor = SENSORS.get(card.name), modality(card.name)
    if known is not None and known.bands == len(card.bands) and known.gsd_m == card.gsd:
        return known
    if sensor.kind == "series":
        return Sensor(
            card.name,
            "series",
            len(card.bands),
            card.gsd,
            in_norm=sensor.units == "reflectance_1e4" and not sensor.context,
            whole_window=sensor.context,
        )
    count = round(CELL_M / card.gsd)
    if count < 1 or not math.isclose(count * card.gsd, CELL_M, rel_tol=1e-6):
        raise JobError(
            f"{card.name}: pixels of {card.gsd:g} m do not divide the {CELL_M} m cells of AnySat"
        )
    side = min(_divisors(count), key=lambda side: abs(math.log(side / _SUBPATCH_PX)))
    return Sensor(card.name, "image", len(card.bands), card.gsd, side)


def design_maps(
    encoder: AnySatConfig, patch_m: float, side: int, classes: int, label_side: int
) -> AnySatSegmenterConfig:
    """Return an AnySat with heads for maps.

    Where only patches are known a map has 10 m pixels (the published naive head). The sub-patches
    of one sensor give a finer or surer answer where it is present (the published dense head): those
    of the finest image, else of the first series. They are drawn in pixels no finer than the
    labels. Even one sub-patch a patch helps: patches alone must learn first where they look.

    Args:
        encoder: The AnySat.
        patch_m: Side of a patch in metres.
        side: Patches along a window.
        classes: Classes of the map.
        label_side: Pixels of the labels along a patch.

    Raises:
        JobError: If the encoder has no such patches.
    """
    try:
        plain = AnySatSegmenterConfig(encoder, classes, round(patch_m), (side, side))
    except ValueError as error:
        raise JobError(str(error)) from error
    cells = plain.patch_m // CELL_M
    plain = replace(plain, coarse_side=cells)
    for sensor in sorted(encoder.sensors, key=lambda s: s.gsd_m if s.kind == "image" else math.inf):
        parts = 0 if sensor.whole_window else plain.patch_px(sensor.name) // sensor.subpatch_px
        fitting = [n for n in _divisors(sensor.subpatch_px) if n == 1 or parts * n <= label_side]
        fine = parts * max(fitting)
        if fine and fine >= cells and fine % cells == 0:
            return replace(plain, fine_sensor=sensor.name, fine_pixels=max(fitting))
    return plain


def _divisors(count: int) -> list[int]:
    return [side for side in range(1, count + 1) if count % side == 0]
