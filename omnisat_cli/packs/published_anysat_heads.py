"""Heads that the training code of AnySat leaves on an encoder: for maps and for whole places.

Source: AnySat (Astruc et al., CVPR 2025), its heads of PASTIS and FLAIR.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.networks.anysat_config import CELL_M
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenterConfig
from omnisat_cli.networks.tile import AnySatTileConfig
from omnisat_cli.packs.card import NetworkCard, WindowCard
from omnisat_cli.packs.published import Parcel, Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from omnisat_cli.outputs.legend import Legend

_PREFIXES = ("model.head.", "model.mlp.mlp.", "mlp.mlp.", "head.")
_LAYERS = tuple(f"{index}.{part}" for index in (0, 1) for part in ("weight", "bias"))


def with_head(parcel: Parcel, tensors: Tensors, legend: Legend, place_m: int) -> Parcel:
    """Put the trained head of a checkpoint in the place of a pack's untrained one.

    Its sizes say what it is: on patches and sub-patches joined (2 D wide) the dense head of PASTIS
    or, with many pixels a sub-patch, that of 0.2 m imagery; on patches (D wide) the naive head, or
    with one answer a class that of whole places.

    Args:
        parcel: From `anysat_parcel`, with the patch size the head was trained at.
        tensors: The same checkpoint.
        legend: Classes of the head.
        place_m: Side of the places it labels, where it labels places.

    Raises:
        CheckpointError: If there is no such head.
        JobError: If a place is no whole number of patches.
    """
    head = _head(tensors)
    start = AnySatSegmenterConfig.from_dict(parcel.card.network.config)
    width, classes = start.encoder.width, len(legend.classes)
    inner, answers = (head["1.weight"].shape[1], head["1.weight"].shape[0]) if head else (0, 0)
    side = math.isqrt(answers // classes)
    if inner == 2 * width and answers == classes * side**2:
        config = replace(start, coarse_side=0, fine_sensor=_kept(start, side), fine_pixels=side)
        name = "fine"
    elif inner == width and answers == classes * side**2 and side == start.patch_m // CELL_M > 1:
        config, name = replace(start, coarse_side=side), "coarse"
    else:
        return _places(parcel, head, legend, place_m)
    config = replace(config, classes=classes)
    kept = {key: value for key, value in parcel.weights.items() if key.startswith("encoder.")}
    pixel = start.patch_m / config.fine_side
    changes = {
        "network": NetworkCard(kind="anysat", config=config.to_dict()),
        "patch_sizes": parcel.card.patch_sizes if name == "fine" else (),
        "coarse_m": pixel,
        "fine_m": pixel,
        "legend": legend.label,
        "pretrained_only": False,
        "limits": "Ground like that it was trained on. Maps are blended from overlapping windows, "
        "not from the crops of the published evaluation.",
    }
    named = {f"{name}.mlp.{key}": value for key, value in head.items()}
    return Parcel(parcel.card.model_copy(update=changes), legend, {**kept, **named})


def _places(parcel: Parcel, head: Tensors, legend: Legend, place_m: int) -> Parcel:
    """Make a pack that labels whole places.

    Raises:
        CheckpointError: If the head does not label places.
        JobError: If a place is no whole number of patches.
    """
    start = AnySatSegmenterConfig.from_dict(parcel.card.network.config)
    side, rest = divmod(place_m, start.patch_m)
    if rest or side < 1:
        raise JobError(f"--place {place_m}: no whole number of patches of {start.patch_m} m")
    width, classes = start.encoder.width, len(legend.classes)
    shapes = [tuple(value.shape) for value in head.values()]
    if shapes != [(width,), (width,), (classes, width), (classes,)]:
        found = ", ".join(f"{key} {shape}" for key, shape in zip(head, shapes, strict=True))
        raise CheckpointError(
            f"the checkpoint has no head that labels places with the {classes} classes of "
            f"{legend.label}: expected a normalisation of {width} and a linear layer to {classes}, "
            f"found {found or 'none'}"
        )
    config = AnySatTileConfig(start.encoder, classes, start.patch_m, (side, side), hidden=())
    changes = {
        "network": NetworkCard(kind="anysat-tile", config=config.to_dict()),
        "patch_sizes": (),
        "window": WindowCard(size=side, overlap=side // 2),
        "legend": legend.label,
        "pretrained_only": False,
        "limits": "Ground like that it was trained on.",
    }
    kept = {key: value for key, value in parcel.weights.items() if key.startswith("encoder.")}
    named = {f"head.mlp.{key}": value for key, value in head.items()}
    return Parcel(parcel.card.model_copy(update=changes), legend, {**kept, **named})


def _head(tensors: Tensors) -> dict[str, Tensor]:
    """Take a normalisation and one linear layer; {} where the head is something else."""
    for prefix in _PREFIXES:
        found = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if set(found) == set(_LAYERS):
            return {key: found[key] for key in _LAYERS}
    return {}


def _kept(config: AnySatSegmenterConfig, pixels: int) -> str:
    """Return the sensor whose sub-patches a dense head joins: the published choice.

    Raises:
        CheckpointError: If there is none.
    """
    sensors = config.encoder.sensors
    if pixels > 1:
        names = [s.name for s in sensors if s.kind == "image" and s.subpatch_px == pixels]
        names.sort(key=lambda name: config.encoder.sensor(name).gsd_m)
    else:
        series = [s.name for s in sensors if s.kind == "series" and not s.whole_window]
        names = sorted(series, key=lambda name: name != "s2")
    if not names:
        raise CheckpointError(
            f"the head gives {pixels} × {pixels} pixels a sub-patch, and none of "
            f"{', '.join(config.encoder.names)} has such sub-patches"
        )
    return names[0]
