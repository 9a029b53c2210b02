"""Packs of AnySat: sizes read off the tensors, bands and statistics as they were published.

Source: AnySat (Astruc et al., CVPR 2025).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import torch

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.modality import L7_BANDS, L8_BANDS, MODIS_BANDS, S2_BANDS
from omnisat_cli.networks.anysat_config import (
    SENSORS,
    AnySatConfig,
    Behaviour,
    TrunkAttention,
)
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
from omnisat_cli.packs.norms import Norm
from omnisat_cli.packs.published import UNTRAINED, Origin, Parcel, Tensors, modality_card
from omnisat_cli.packs.published_utae import PASTIS_NORM
from omnisat_cli.packs.writer import empty_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from omnisat_cli.networks.anysat_config import Sensor

Part = Literal["teacher", "student"]
Data = Literal["treesat", "pastis"]


@dataclass(frozen=True, slots=True)
class Forms:
    """What the keys of a checkpoint do not say.

    Attributes:
        behaviour: See `AnySatConfig`.
        trunk_attention: See `AnySatConfig`.
        data: Data it was trained on last, which says how series are read: PASTIS has radar in
            decibels and counts days from September.
    """

    behaviour: Behaviour = "corrected"
    trunk_attention: TrunkAttention = "tokens"
    data: Data = "treesat"


_RADAR = ("VV", "VH", "ratio")
ANYSAT_BANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "aerial": ("NIR", "G", "B", "R"),  # the order of the files it was trained on
        "aerial-flair": ("R", "G", "B", "NIR", "ELEV"),
        "spot": ("R", "G", "B"),
        "naip": ("R", "G", "B", "NIR"),
        "s2": S2_BANDS,
        "s1-asc": ("VV", "VH"),
        "s1": _RADAR,
        "alos": ("HH", "HV", "ratio"),
        "l7": L7_BANDS,
        "l8": L8_BANDS,
        "modis": MODIS_BANDS,
    }
)
"""Sensor of AnySat to the bands of its channels."""

_AERIAL_NORM = Norm(
    (150.89349, 92.713890, 84.854378, 80.704239), (36.764923, 27.624987, 22.479450, 26.733688)
)
_S1_NORM = Norm((3.2893014, -3.6829388, 0.61162734), (40.111523, 40.535335, 1.0343183))
_S2_NORM = Norm(
    (4304.3296, 4159.2666, 4057.7766, 4328.9512, 4571.2212,
     4644.8711, 4837.2471, 4700.2578, 2823.2644, 2319.9702),
    (3537.9976, 3324.2349, 3270.0701, 3250.5300, 2897.3914,
     2754.4971, 2821.5215, 2625.9524, 1731.5630, 1549.3029),
)  # fmt: skip
ANYSAT_NORMS: Mapping[str, Norm] = MappingProxyType(
    {"aerial": _AERIAL_NORM, "s2": _S2_NORM, "s1": _S1_NORM}
)
"""The only statistics that were published: those of TreeSatAI, in the demonstration notebook."""

_KNOWN: Mapping[Data, tuple[Mapping[str, Norm], str]] = {
    "treesat": (ANYSAT_NORMS, "TreeSatAI"),
    "pastis": (
        {
            "s2": PASTIS_NORM,
            "s1": Norm((-10.930951, -17.348515, 6.4175119), (3.2859664, 3.2129524, 3.3421085)),
        },
        "fold 1 of PASTIS",
    ),
}
"""Statistics where none are given: of PASTIS as TorchGeo quotes them."""

ANYSAT_SIZES = (20, 30, 40, 60, 80, 120, 160)
"""Patch sizes beside 10 m, metres; the scales of its pretraining and their like."""

_SOURCE = "github.com/gastruc/AnySat (Astruc et al., CVPR 2025)"


def anysat_parcel(
    tensors: Tensors,
    origin: Origin,
    *,
    modalities: tuple[str, ...] = (),
    patch_m: int = 10,
    part: Part = "teacher",
    forms: Forms = Forms(),
) -> Parcel:
    """Make a pack of a published AnySat encoder; its head is untrained.

    Args:
        tensors: `AnySat.pth`, `AnySat_full.pth` or a checkpoint of its training.
        origin: Where they come from.
        modalities: Sensors to keep; all whose statistics are known where none is named.
        patch_m: The pack's own patch size.
        part: Which of two networks a full checkpoint gives.
        forms: Which of the forms of the published network it is.

    Raises:
        CheckpointError: If they are no AnySat, or statistics are missing.
        JobError: If the patch size is none of an AnySat.
    """
    encoder = anysat_encoder(tensors, part)
    held = tuple(
        name for name in SENSORS if f"projector_{name}.{_FIRST[SENSORS[name].kind]}" in encoder
    )
    known, where = _KNOWN[forms.data]
    norms = {**known, **origin.norms}
    names = modalities or tuple(name for name in held if name in norms)
    _check_names(names, held, norms)
    network = replace(
        anysat_config(encoder, tuple(SENSORS[name] for name in names)),
        behaviour=forms.behaviour,
        trunk_attention=forms.trunk_attention,
    )
    try:
        config = AnySatSegmenterConfig(network, classes=1, patch_m=patch_m)
    except ValueError as error:
        raise JobError(f"--patch-size {patch_m}: {error}") from error
    kept = {
        key: value
        for key, value in encoder.items()
        if not key.startswith("projector_") or key.split(".")[0][len("projector_") :] in names
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        fresh = AnySatSegmenter(config).state_dict()
    weights = {f"encoder.{key}": value for key, value in kept.items()}
    weights |= {key: value for key, value in fresh.items() if key.startswith("coarse.")}
    own = [name for name in names if name not in origin.norms]
    card = _anysat_card(config, origin, {name: norms[name] for name in names})
    if forms.data == "pastis":
        card = card.model_copy(update={"modalities": tuple(map(_of_pastis, card.modalities))})
    card = card.model_copy(
        update={
            "licence": "MIT",
            "source": f"{_SOURCE}; {origin.file}",
            "training": "published weights, see the source"
            + (f"; statistics of {', '.join(own)} are those of {where}" if own else "")
            + f"; {forms.behaviour} behaviour, attention between {forms.trunk_attention}",
        }
    )
    return Parcel(card, UNTRAINED, weights)


_FIRST = {"image": "patch_embed.weight", "series": "patch_embed.inconv.0.weight"}
_BLOCK = re.compile(r"blocks\.(\d+)\.norm1\.weight")
_SPATIAL = re.compile(r"spatial_encoder\.predictor_blocks\.(\d+)\.norm1\.weight")


def anysat_encoder(tensors: Tensors, part: Part) -> dict[str, Tensor]:
    """Take the keys of one encoder out of a checkpoint, under their published names.

    Raises:
        CheckpointError: If there is none.
    """
    own = ("target_encoder.", "model.target_encoder.")
    others = ("model.encoder.", "encoder.", "model.model.", "model.", "")
    for prefix in (*own, *others) if part == "teacher" else (*others, *own):
        found = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if "spatial_encoder.cls_token" in found:
            return {
                key: value
                for key, value in found.items()
                if key.split(".")[0].startswith(
                    ("projector_", "spatial_encoder", "blocks", "cls_token")
                )
            }
    raise CheckpointError(
        f"no AnySat encoder among {len(tensors)} tensors: none is called "
        f"…spatial_encoder.cls_token; found {', '.join(list(tensors)[:4])} …"
    )


def anysat_config(encoder: Tensors, sensors: tuple[Sensor, ...]) -> AnySatConfig:
    """Read the sizes of an encoder off its tensors.

    Raises:
        CheckpointError: If they make no AnySat.
    """
    width = encoder["cls_token"].shape[-1]
    blocks = [int(found[1]) for key in encoder if (found := _BLOCK.fullmatch(key))]
    spatial = [int(found[1]) for key in encoder if (found := _SPATIAL.fullmatch(key))]
    table = next((v for k, v in encoder.items() if k.endswith("rpe_k.lookup_table_weight")), None)
    if table is None or not blocks or not spatial:
        raise CheckpointError("the tensors hold no blocks of an AnySat")
    try:
        return AnySatConfig(
            width, max(blocks), width // table.shape[1], max(spatial) + 1, sensors=sensors
        )
    except ValueError as error:
        raise CheckpointError(f"the tensors make no AnySat: {error}") from error


def _check_names(names: tuple[str, ...], held: tuple[str, ...], norms: Mapping[str, Norm]) -> None:
    absent = [name for name in names if name not in held]
    if absent or not names:
        raise CheckpointError(
            f"the checkpoint has no projector of {', '.join(absent) or 'a sensor we have'}; it has "
            f"{', '.join(held) or 'none'}"
        )
    silent = [name for name in names if name not in norms]
    if silent:
        raise CheckpointError(
            f"no statistics of {', '.join(silent)} were published: give means and deviations of "
            f"your imagery with --norm FILE.json, or leave them out with --modalities; published "
            f"are {', '.join(ANYSAT_NORMS)}"
        )


def fresh_anysat(
    config: AnySatConfig, origin: Origin, *, patch_m: int = 10, seed: int = 0
) -> Parcel:
    """Make a pack of an AnySat with random weights: to pretrain, or to try a machine with.

    Raises:
        CheckpointError: If statistics are missing.
    """
    norms = {**ANYSAT_NORMS, **origin.norms}
    _check_names(config.names, config.names, norms)
    whole = AnySatSegmenterConfig(config, classes=1, patch_m=patch_m)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        weights = AnySatSegmenter(whole).state_dict()
    card = _anysat_card(whole, origin, {name: norms[name] for name in config.names})
    return Parcel(card, UNTRAINED, dict(weights))


def _anysat_card(config: AnySatSegmenterConfig, origin: Origin, norms: Mapping[str, Norm]) -> Card:
    names = config.encoder.names
    wide = f"{config.encoder.width} wide, {config.encoder.depth} blocks"
    return Card(
        name=origin.name,
        version="1",
        summary=f"AnySat encoder, {wide}: {', '.join(names)}",
        licence="not stated",
        source=origin.file,
        training="none: random weights",
        limits="The head is untrained. Make embeddings with `omnisat embed`, or train on labels.",
        network=NetworkCard(kind="anysat", config=config.to_dict()),
        modalities=tuple(_anysat_modality(config.encoder.sensor(n), norms[n]) for n in names),
        patch_m=config.patch_m,
        patch_sizes=tuple(s for s in (10, *ANYSAT_SIZES) if s != config.patch_m),
        coarse_m=config.patch_m,
        fine_m=config.patch_m,
        window=WindowCard(size=config.grid[0]),
        legend=UNTRAINED.label,
        pretrained_only=True,
        weights_sha256=empty_digest(),
    )


def _of_pastis(card: ModalityCard) -> ModalityCard:
    """Return how a modality is read that was trained on PASTIS."""
    if card.dates is None:
        return card
    units = "db" if card.units == "linear" else card.units
    return card.model_copy(update={"dates": "days-since-september", "units": units})


def _anysat_modality(sensor: Sensor, norm: Norm) -> ModalityCard:
    bands = ANYSAT_BANDS[sensor.name]
    radar = {"VV", "HH"} & set(bands)
    return modality_card(
        sensor.name,
        bands,
        norm,
        gsd=sensor.gsd_m,
        units="dn8" if sensor.kind == "image" else "linear" if radar else "reflectance_1e4",
        dates=None if sensor.kind == "image" else "day-of-year",
    )
