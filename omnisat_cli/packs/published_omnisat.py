"""Packs of checkpoints that the published training code of OmniSat wrote.

No weights of OmniSat were published; these are what people train with that code. Its networks take
raw values, so the cards state no statistics.

Source: OmniSat (Astruc et al., ECCV 2024), github.com/gastruc/OmniSat.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from omnisat_cli.errors import CheckpointError
from omnisat_cli.modality import S2_BANDS, modality
from omnisat_cli.networks.configs import (
    OfficialSize,
    OmniSatConfig,
    Position,
    flair_config,
    pastis_config,
    treesat_config,
)
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.networks.tile import TileConfig
from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
from omnisat_cli.packs.norms import Norm
from omnisat_cli.packs.published import UNTRAINED, Origin, Parcel, Tensors, modality_card
from omnisat_cli.packs.writer import empty_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from omnisat_cli.networks.configs import ImageConfig, SeriesConfig
    from omnisat_cli.outputs.legend import Legend

Dataset = Literal["treesat", "pastis", "flair"]
_SOURCE = "github.com/gastruc/OmniSat, trained by the giver of the file"


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How the published code reads a dataset.

    Attributes:
        config: Its networks.
        patch_m: Side of a patch, metres.
        image: What it calls aerial imagery, in our table, with its bands in channel order.
        radar: Bands of a radar date.
        radar_units: Their unit.
        dates: How dates become numbers.
    """

    config: Callable[..., OmniSatConfig]
    patch_m: int
    image: tuple[str, tuple[str, ...]]
    radar: tuple[str, ...]
    radar_units: str
    dates: str


_RECIPES: Mapping[str, _Recipe] = {
    "treesat": _Recipe(
        treesat_config, 10, ("aerial", ("NIR", "G", "B", "R")), ("VV", "VH"), "linear",
        "day-of-year",
    ),
    "pastis": _Recipe(
        pastis_config, 40, ("spot", ("R", "G", "B")), ("VV", "VH", "ratio"), "db",
        "days-since-september",
    ),
    "flair": _Recipe(
        flair_config, 10, ("aerial-flair", ("R", "G", "B", "NIR", "ELEV")), ("VV", "VH"), "linear",
        "day-of-year",
    ),
}  # fmt: skip

_POSITIONS: Mapping[Position, str] = {
    "official": "positions as published; modalities that lack are masked",
    "geographic": "positions are geographic here, those it was trained with are not: fine-tune "
    "before relying on it",
}

_PROJECTOR = re.compile(r"projector_([^.]+)\.")
_MAX_DATES = 50
"""Longer series were cut to that many dates at random; ours keep the clearest."""


def omnisat_parcel(
    tensors: Tensors,
    origin: Origin,
    dataset: Dataset,
    legend: Legend | None = None,
    *,
    positions: Position = "official",
) -> Parcel:
    """Make a pack of a checkpoint of the published training code.

    Args:
        tensors: From pretraining, fine-tuning or training from scratch.
        origin: Where they come from.
        dataset: What it was trained on, which says how inputs are read.
        legend: Labels of a trained head; without it the head is left out.
        positions: "official" runs as published; "geographic" gives every token the place of its
            patch, which the weights have not seen where there are several modalities.

    Raises:
        CheckpointError: If they are no such network, or have no head to label with.
    """
    recipe = _RECIPES[dataset]
    encoder = _encoder(tensors)
    config = _config(encoder, recipe)
    names = {part.name: _ours(part.name, recipe) for part in config.modalities}
    config = replace(
        config,
        position=positions,
        modalities=tuple(replace(part, name=names[part.name]) for part in config.modalities),
    )
    weights = {f"encoder.{_renamed(key, names)}": value for key, value in encoder.items()}
    head = _head(tensors)
    side = config.grid[0]
    card = Card(
        name=origin.name,
        version="1",
        summary=f"OmniSat trained on {dataset}: {', '.join(names.values())}",
        licence="not stated",
        source=f"{_SOURCE}; {origin.file}",
        training=f"weights of the published code; {_POSITIONS[positions]}",
        limits="Ground like that it was trained on.",
        network=NetworkCard(kind="", config={}),
        modalities=tuple(_card(part, recipe) for part in config.modalities),
        patch_m=recipe.patch_m,
        coarse_m=10.0,
        fine_m=10.0,
        window=WindowCard(size=side, overlap=side // 3),
        legend=UNTRAINED.label,
        weights_sha256=empty_digest(),
    )
    if legend is None:
        return _start(card, config, weights)
    if not head:
        raise CheckpointError(
            f"{origin.file} holds no head that {legend.label} could name the classes of; leave "
            "--legend out"
        )
    return _tile(card, config, {**weights, **head}, legend)


def _tile(card: Card, config: OmniSatConfig, weights: dict[str, Tensor], legend: Legend) -> Parcel:
    """Make a pack that says which classes a place holds."""
    widths = _widths(weights, "head.mlp.")
    hidden = widths[:-1] if widths else None
    whole = TileConfig(config, len(legend.classes), hidden)
    network = NetworkCard(kind="omnisat-tile", config=whole.to_dict())
    window = card.window.model_copy(update={"overlap": card.window.size // 2})
    changes = {"network": network, "legend": legend.label, "window": window}
    return Parcel(card.model_copy(update=changes), legend, weights)


def _start(card: Card, config: OmniSatConfig, weights: dict[str, Tensor]) -> Parcel:
    """Make a pack with an untrained head for maps."""
    whole = SegmenterConfig(config, 1, coarse_side=round(card.patch_m / 10))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        fresh = OmniSatSegmenter(whole).state_dict()
    rest = {key: value for key, value in fresh.items() if not key.startswith("encoder.")}
    changes = {
        "network": NetworkCard(kind="omnisat", config=whole.to_dict()),
        "fine_m": card.patch_m / whole.fine_side,
        "boundary": True,
        "pretrained_only": True,
        "limits": "The head is untrained: train it on labels with `omnisat train --from`.",
    }
    return Parcel(card.model_copy(update=changes), UNTRAINED, {**weights, **rest})


def _encoder(tensors: Tensors) -> dict[str, Tensor]:
    """Take the encoder out of a checkpoint of any stage."""
    for prefix in ("model.encoder.", "model.model.", "encoder.", "model.", ""):
        found = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if "pos_embed" in found:
            return {
                key: value
                for key, value in found.items()
                if key.split(".")[0] in ("cls_token", "pos_embed", "blocks")
                or key.startswith("projector_")
            }
    raise CheckpointError(
        f"no OmniSat encoder among {len(tensors)} tensors: none is called …pos_embed; found "
        f"{', '.join(list(tensors)[:4])} …"
    )


def _head(tensors: Tensors) -> dict[str, Tensor]:
    """Take the head that labels places, under the names of ours."""
    head = {}
    for key, value in tensors.items():
        if key.startswith("model.head.0."):
            head[f"head.head.0.{key.removeprefix('model.head.0.')}"] = value
        elif key.startswith("model.mlp.mlp."):
            head[f"head.mlp.{key.removeprefix('model.mlp.mlp.')}"] = value
    return head


def _config(encoder: Mapping[str, Tensor], recipe: _Recipe) -> OmniSatConfig:
    """Read the sizes of a network off its tensors.

    Raises:
        CheckpointError: If they make no network of the published code.
    """
    found = (_PROJECTOR.match(key) for key in encoder)
    held = {match[1] for match in found if match}
    order = [name for name in ("aerial", "s2", "s1", "s1-asc", "s1-des") if name in held]
    names = (*order, *sorted(held - set(order)))
    width, side = encoder["cls_token"].shape[-1], math.isqrt(encoder["pos_embed"].shape[1] - 1)
    series = next((name for name in names if name != "aerial"), None)
    depth = max((int(key.split(".")[1]) for key in encoder if key.startswith("blocks.")), default=0)
    table = encoder.get("blocks.0.attn.rpe_k.lookup_table_weight")
    hidden = encoder.get("blocks.0.mlp.fc1.weight")
    if table is None or hidden is None or not names:
        raise CheckpointError("the tensors hold no blocks or no projectors of an OmniSat")
    size = OfficialSize(width, depth, width // table.shape[1], mlp_ratio=hidden.shape[0] / width)
    if series is not None:
        inner = f"projector_{series}."
        queries = encoder[f"{inner}attention_heads.Q"]
        size = replace(
            size,
            widths_in=_widths(encoder, f"{inner}inconv."),
            widths_out=_widths(encoder, f"{inner}mlp."),
            series_heads=queries.shape[0],
            key_width=queries.shape[1],
        )
    try:
        return recipe.config(names, side=side, size=size)
    except ValueError as error:
        raise CheckpointError(f"the tensors make no OmniSat: {error}") from error


def _widths(tensors: Mapping[str, Tensor], prefix: str) -> tuple[int, ...]:
    """Return the output widths of the linear layers of a stack, in their order."""
    layers = {
        int(key.removeprefix(prefix).split(".")[0]): value.shape[0]
        for key, value in tensors.items()
        if key.startswith(prefix) and key.endswith(".weight") and value.ndim == 2
    }
    return tuple(layers[index] for index in sorted(layers))


def _ours(name: str, recipe: _Recipe) -> str:
    """Return our name of a modality of the published code.

    Raises:
        CheckpointError: If we have none.
    """
    if name == "aerial":
        return recipe.image[0]
    if name not in ("s2", "s1", "s1-asc", "s1-des"):
        raise CheckpointError(
            f"the checkpoint has a projector of {name}, which no reader delivers; train it without"
        )
    return name


def _renamed(key: str, names: Mapping[str, str]) -> str:
    return _PROJECTOR.sub(lambda found: f"projector_{names[found[1]]}.", key, count=1)


def _card(part: ImageConfig | SeriesConfig, recipe: _Recipe) -> ModalityCard:
    sensor = modality(part.name)
    if sensor.kind == "image":
        bands, rest = recipe.image[1], {"units": "dn8", "dates": None}
    elif part.name == "s2":
        bands, rest = S2_BANDS, {"units": "reflectance_1e4", "dates": recipe.dates}
    else:
        bands, rest = recipe.radar, {"units": recipe.radar_units, "dates": recipe.dates}
    if sensor.kind == "series":
        rest["max_dates"] = _MAX_DATES  # type: ignore[assignment]
    norm = Norm((0.0,) * len(bands), (1.0,) * len(bands))
    return modality_card(part.name, bands, norm, gsd=recipe.patch_m / part.patch_px, **rest)
