"""The network a training job asks for: from scratch for what the examples deliver, or a pack's."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from omnisat_cli.errors import JobError
from omnisat_cli.learning.data.statistics import make_modality_cards
from omnisat_cli.learning.training.design import choose_size, design_encoder, design_segmenter
from omnisat_cli.learning.training.design_anysat import ANYSAT_SIZES, design_anysat, design_maps
from omnisat_cli.learning.training.from_pack import learner_from_pack
from omnisat_cli.learning.training.learner import build_learner, label_side, training_side
from omnisat_cli.modality import modality
from omnisat_cli.networks.dual_stream import DualStreamConfig
from omnisat_cli.networks.tile import AnySatTileConfig, TileConfig
from omnisat_cli.networks.unet import UNetConfig
from omnisat_cli.networks.utae import UtaeConfig
from omnisat_cli.packs.registry import find_pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.learner import Learner
    from omnisat_cli.learning.training.train_job import TrainJob
    from omnisat_cli.packs.card import ModalityCard

_UTAE: Mapping[str, dict[str, object]] = MappingProxyType(
    {
        "tiny": {
            "encoder_widths": (16, 16, 32),
            "decoder_widths": (16, 16, 32),
            "out_widths": (16, 0),
            "heads": 4,
            "attention_width": 32,
        },
        "small": {
            "encoder_widths": (32, 32, 32, 64),
            "decoder_widths": (16, 32, 32, 64),
            "out_widths": (16, 0),
            "heads": 8,
            "attention_width": 128,
        },
        "medium": {
            "encoder_widths": (48, 48, 48, 96),
            "decoder_widths": (24, 24, 48, 96),
            "out_widths": (24, 0),
            "heads": 12,
            "attention_width": 192,
        },
        "official": {
            "encoder_widths": (64, 64, 64, 128),
            "decoder_widths": (32, 32, 64, 128),
            "out_widths": (32, 0),
            "heads": 16,
            "attention_width": 256,
        },
    }
)
"""U-TAE by size; "official" is the published one. The number of classes is put in for the 0."""

_UNET: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "tiny": (8, 16, 32),
        "small": (16, 32, 64, 128),
        "medium": (32, 64, 128, 256),
        "official": (64, 128, 256, 512, 1024),
    }
)

_RATES = (2e-3, 1e-3)  # from scratch, from a pack
_RATE_WIDTH = 64  # of the AnySat that bears them
_SIDE, _PIXELS = 12, 16  # patches, and least pixels along a window, where nothing is said


def design_learner(examples: Examples, job: TrainJob) -> Learner:
    """Build the network of a job; random weights come from torch's generator.

    Raises:
        JobError: If job, network and examples do not fit.
        CheckpointError: If the pack to start from cannot be used.
    """
    if job.start is not None:
        return learner_from_pack(examples, job, find_pack(job.start))
    if examples.task == "multilabel" and job.kind not in ("omnisat", "anysat"):
        raise JobError(
            f"{examples.name} says what whole places hold; only --network omnisat and anysat learn "
            f"that, not {job.kind}"
        )
    choose_size(job.size)
    return _DESIGNS[job.kind](examples, job)


def starting_rate(start: str | None, kind: str, size: str) -> float:
    """Return the learning rate where none is given.

    The wider an AnySat, the less it bears: at the published width this comes near the published
    5e-5 of fine-tuning.
    """
    rate = _RATES[0] if start is None else _RATES[1]
    if start is not None:
        network = find_pack(start).card.network
        kind, plain = network.kind, network.config.get("encoder")
        width = plain.get("width", _RATE_WIDTH) if isinstance(plain, dict) else _RATE_WIDTH
    else:
        choose_size(size)
        width = ANYSAT_SIZES[size].width
    return rate * _RATE_WIDTH / width if kind in ("anysat", "anysat-tile") else rate


def _omnisat(examples: Examples, job: TrainJob) -> Learner:
    cards = make_modality_cards(examples, job.modalities)
    patch_m, classes = examples.patch_m, len(examples.legend.classes)
    side = training_side(examples, job, _SIDE)
    encoder = design_encoder(cards, patch_m, side, choose_size(job.size))
    if examples.task == "multilabel":
        return build_learner(
            "omnisat-tile", TileConfig(encoder, classes).to_dict(), cards, side, patch_m
        )
    config = design_segmenter(encoder, patch_m, classes)
    return build_learner("omnisat", config.to_dict(), cards, side, patch_m)


def _anysat(examples: Examples, job: TrainJob) -> Learner:
    cards = make_modality_cards(examples, job.modalities)
    patch_m, classes = examples.patch_m, len(examples.legend.classes)
    side = training_side(examples, job, _SIDE)
    encoder = design_anysat(cards, job.size)
    if examples.task == "multilabel":
        places = AnySatTileConfig(encoder, classes, round(patch_m), (side, side))
        return build_learner("anysat-tile", places.to_dict(), cards, side, patch_m)
    config = design_maps(encoder, patch_m, side, classes, label_side(examples))
    return build_learner("anysat", config.to_dict(), cards, side, patch_m)


def _utae(examples: Examples, job: TrainJob) -> Learner:
    name = _chosen(examples, job, "series", "utae")[0]
    (card,) = make_modality_cards(examples, (name,))
    side = training_side(examples, job, _window_side(examples, card))
    config = _utae_config(job.size, card, len(examples.legend.classes))
    return build_learner("utae", config.to_dict(), (card,), side, examples.patch_m)


def _dual_stream(examples: Examples, job: TrainJob) -> Learner:
    names = _chosen(examples, job, "series", "dual-stream")
    if len(names) < 2:
        raise JobError(
            f"--network dual-stream fuses two series or more; {examples.name} has {names[0]} only. "
            "Use --network utae"
        )
    cards = make_modality_cards(examples, names)
    sizes = {card.gsd for card in cards}
    if len(sizes) > 1:
        raise JobError(
            "--network dual-stream needs series of one pixel, found "
            + ", ".join(f"{card.name} {card.gsd:g} m" for card in cards)
        )
    side = training_side(examples, job, _window_side(examples, cards[0]))
    streams = tuple(_utae_config(job.size, card, 1) for card in cards)
    config = DualStreamConfig(streams, len(examples.legend.classes), streams[0].out_widths[0])
    return build_learner("dual-stream", config.to_dict(), cards, side, examples.patch_m)


def _unet(examples: Examples, job: TrainJob) -> Learner:
    name = _chosen(examples, job, "image", "unet")[0]
    (card,) = make_modality_cards(examples, (name,))
    side = training_side(examples, job, _SIDE)
    classes = len(examples.legend.classes)
    config = UNetConfig(card.name, len(card.bands), classes, _UNET[job.size])
    return build_learner("unet", config.to_dict(), (card,), side, examples.patch_m)


_DESIGNS: Mapping[str, Callable[[Examples, TrainJob], Learner]] = MappingProxyType(
    {
        "omnisat": _omnisat,
        "anysat": _anysat,
        "utae": _utae,
        "dual-stream": _dual_stream,
        "unet": _unet,
    }
)


def _utae_config(size: str, card: ModalityCard, classes: int) -> UtaeConfig:
    values = dict(_UTAE[size])
    before, _ = cast("tuple[int, int]", values["out_widths"])
    values["out_widths"] = (before, classes)
    return UtaeConfig.from_dict({"modality": card.name, "bands": len(card.bands), **values})


def _window_side(examples: Examples, card: ModalityCard) -> int:
    """Return the patches along a window of enough pixels for networks with several levels."""
    return max(_SIDE, -(-_PIXELS // max(1, round(examples.patch_m / card.gsd))))


def _chosen(examples: Examples, job: TrainJob, kind: str, network: str) -> tuple[str, ...]:
    """Return the modalities of one kind that a network of that kind reads.

    Raises:
        JobError: If there is none, or others were asked for.
    """
    there = [c.name for c in examples.channels if modality(c.name).kind == kind]
    wanted = there if job.modalities is None else list(job.modalities)
    wrong = [name for name in wanted if name not in there]
    if wrong or not wanted:
        raise JobError(
            f"--network {network} reads {kind} modalities; {examples.name} has "
            f"{', '.join(there) or 'none'}, asked for {', '.join(wanted) or 'none'}"
        )
    if network != "dual-stream" and len(wanted) > 1 and job.modalities is not None:
        raise JobError(f"--network {network} reads one modality, not {', '.join(wanted)}")
    return tuple(wanted)
