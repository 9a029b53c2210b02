"""The network a training job asks for: from scratch for what the examples deliver, or a pack's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.learning.data.statistics import make_modality_cards
from omnisat_cli.learning.training.design import (
    choose_size,
    design_encoder,
    design_segmenter,
    window_card,
)
from omnisat_cli.learning.training.design_anysat import ANYSAT_SIZES, design_anysat, design_maps
from omnisat_cli.learning.training.transfer import Transfer, take_weights
from omnisat_cli.modality import modality
from omnisat_cli.networks.anysat_config import CELL_M, AnySatConfig
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenterConfig
from omnisat_cli.networks.configs import OmniSatConfig
from omnisat_cli.networks.dual_stream import DualStreamConfig
from omnisat_cli.networks.seam import PatchLocal
from omnisat_cli.networks.segmenter import SegmenterConfig
from omnisat_cli.networks.table import build_network
from omnisat_cli.networks.tile import AnySatTileConfig, Tile, TileConfig
from omnisat_cli.networks.unet import UNetConfig
from omnisat_cli.networks.utae import UtaeConfig
from omnisat_cli.packs.patch_size import at_patch_size
from omnisat_cli.packs.registry import find_pack, load_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.train import TrainJob
    from omnisat_cli.packs.card import Card, ModalityCard, WindowCard
    from omnisat_cli.packs.registry import Pack

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "omnisat": "OmniSat",
        "omnisat-tile": "OmniSat for whole places",
        "anysat": "AnySat",
        "anysat-tile": "AnySat for whole places",
        "utae": "U-TAE",
        "dual-stream": "Two U-TAE fused late",
        "unet": "U-Net",
    }
)

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


@dataclass(frozen=True, slots=True)
class Learner:
    """A network ready to be trained, and what its card will say.

    Attributes:
        network: On the CPU.
        kind: Entry of the table of networks.
        config: Plain configuration that rebuilds it.
        cards: Its modalities.
        side: Patches along a training window.
        coarse_m: Output pixel without images, in metres.
        fine_m: Output pixel with images, in metres.
        frozen: Parts that do not learn.
        start: Name of the pack it starts from, or None.
        start_digest: Digest of that pack's weights, or None.
        patch_sizes: Other patch sizes of its fine output, in metres: those of that pack.
        transfer: What came over from it, or None.
    """

    network: nn.Module
    kind: str
    config: dict[str, object]
    cards: tuple[ModalityCard, ...]
    side: int
    coarse_m: float
    fine_m: float
    frozen: tuple[nn.Module, ...] = ()
    start: str | None = None
    start_digest: str | None = None
    patch_sizes: tuple[float, ...] = ()
    transfer: Transfer | None = None

    @property
    def title(self) -> str:
        """The network in words."""
        return TITLES[self.kind]

    @property
    def window(self) -> WindowCard:
        """How `predict` lays windows."""
        card = window_card(self.side)
        if not self.labels_places:
            return card
        # One answer a window: between those around it, ground is weighed by how near they are.
        return card.model_copy(update={"overlap": self.side // 2})

    @property
    def labels_places(self) -> bool:
        """Whether it says which classes a whole place holds."""
        return isinstance(self.network, Tile)

    @property
    def whole_windows(self) -> bool:
        """Whether it sees whole windows, so that one real pixel of a patch says something."""
        return not isinstance(self.network, PatchLocal)

    @property
    def has_boundary(self) -> bool:
        """Whether it can learn parcel boundaries."""
        return self.kind == "omnisat"


def design_learner(examples: Examples, job: TrainJob) -> Learner:
    """Build the network of a job; random weights come from torch's generator.

    Raises:
        JobError: If job, network and examples do not fit.
        CheckpointError: If the pack to start from cannot be used.
    """
    if job.start is not None:
        return _from_pack(examples, job, find_pack(job.start))
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


def _side(examples: Examples, job: TrainJob, wanted: int) -> int:
    """Return the side of training windows: as asked for, else what fits the examples."""
    if job.draws.side is not None:
        return job.draws.side
    place = min(examples.example(0).sample.window.shape)
    return place if examples.task == "multilabel" else min(wanted, place)


def _omnisat(examples: Examples, job: TrainJob) -> Learner:
    cards = make_modality_cards(examples, job.modalities)
    patch_m, classes = examples.patch_m, len(examples.legend.classes)
    side = _side(examples, job, _SIDE)
    encoder = design_encoder(cards, patch_m, side, choose_size(job.size))
    if examples.task == "multilabel":
        return _built("omnisat-tile", TileConfig(encoder, classes).to_dict(), cards, side, patch_m)
    config = design_segmenter(encoder, patch_m, classes)
    return _built("omnisat", config.to_dict(), cards, side, patch_m)


def _anysat(examples: Examples, job: TrainJob) -> Learner:
    cards = make_modality_cards(examples, job.modalities)
    patch_m, classes = examples.patch_m, len(examples.legend.classes)
    side = _side(examples, job, _SIDE)
    encoder = design_anysat(cards, job.size)
    if examples.task == "multilabel":
        places = AnySatTileConfig(encoder, classes, round(patch_m), (side, side))
        return _built("anysat-tile", places.to_dict(), cards, side, patch_m)
    config = design_maps(encoder, patch_m, side, classes, _label_side(examples))
    return _built("anysat", config.to_dict(), cards, side, patch_m)


def _label_side(examples: Examples) -> int:
    """Return the pixels of the labels along a patch."""
    example = examples.example(0)
    assert example.classes is not None
    return int(example.classes.shape[0] // example.sample.window.height)


def _utae(examples: Examples, job: TrainJob) -> Learner:
    name = _chosen(examples, job, "series", "utae")[0]
    (card,) = make_modality_cards(examples, (name,))
    side = _side(examples, job, _window_side(examples, card))
    config = _utae_config(job.size, card, len(examples.legend.classes))
    return _built("utae", config.to_dict(), (card,), side, examples.patch_m)


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
    side = _side(examples, job, _window_side(examples, cards[0]))
    streams = tuple(_utae_config(job.size, card, 1) for card in cards)
    config = DualStreamConfig(streams, len(examples.legend.classes), streams[0].out_widths[0])
    return _built("dual-stream", config.to_dict(), cards, side, examples.patch_m)


def _unet(examples: Examples, job: TrainJob) -> Learner:
    name = _chosen(examples, job, "image", "unet")[0]
    (card,) = make_modality_cards(examples, (name,))
    side = _side(examples, job, _SIDE)
    classes = len(examples.legend.classes)
    config = UNetConfig(card.name, len(card.bands), classes, _UNET[job.size])
    return _built("unet", config.to_dict(), (card,), side, examples.patch_m)


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


def _built(
    kind: str,
    config: dict[str, object],
    cards: tuple[ModalityCard, ...],
    side: int,
    patch_m: float,
) -> Learner:
    """Build a network and say at which pixels it maps."""
    coarse_m, fine_m = _output_m(kind, config, cards, patch_m)
    return Learner(build_network(kind, config), kind, config, cards, side, coarse_m, fine_m)


def _output_m(
    kind: str, config: dict[str, object], cards: tuple[ModalityCard, ...], patch_m: float
) -> tuple[float, float]:
    """Return the pixels of the coarse and the fine output in metres."""
    if kind == "omnisat":
        shape = SegmenterConfig.from_dict(config)
        return patch_m / shape.coarse_side, patch_m / shape.fine_side
    if kind == "anysat":
        layout = AnySatSegmenterConfig.from_dict(config)
        return patch_m / layout.coarse_side, patch_m / layout.fine_side
    if kind.endswith("-tile"):
        return patch_m, patch_m
    return cards[0].gsd, cards[0].gsd


def _from_pack(examples: Examples, job: TrainJob, pack: Pack) -> Learner:
    """Rebuild the network of a pack for other classes and take what fits of its weights."""
    card = pack.card
    if job.modalities is not None and set(job.modalities) != set(card.names):
        raise JobError(
            f"--from {pack.folder} has {', '.join(card.names)}; the modalities of a trained "
            f"network cannot be changed to {', '.join(job.modalities)}"
        )
    if card.patch_sizes:
        card = at_patch_size(pack, examples.patch_m).card
    elif card.patch_m != examples.patch_m:
        raise JobError(
            f"--from {pack.folder} has patches of {card.patch_m:g} m, {examples.name} of "
            f"{examples.patch_m:g} m"
        )
    side = _side(examples, job, card.window.size)
    try:
        kind, config = _adapted(examples, card, side)
        learner = _built(kind, config, card.modalities, side, card.patch_m)
    except ValueError as error:
        raise CheckpointError(f"the network of {pack.folder} cannot be built: {error}") from error
    same = not card.pretrained_only and pack.legend.classes == examples.legend.classes
    transfer = take_weights(learner.network, load_weights(pack), same_classes=same)
    return replace(
        learner,
        frozen=_freeze(learner.network, card) if job.freeze else (),
        start=card.name,
        start_digest=card.weights_sha256,
        patch_sizes=_other_sizes(pack.card, card.patch_m) if config.get("fine_sensor") else (),
        transfer=transfer,
    )


def _other_sizes(card: Card, patch_m: float) -> tuple[float, ...]:
    """Return the patch sizes of a pack beside one of them."""
    every = {card.patch_m, *card.patch_sizes}
    return tuple(sorted(every - {patch_m})) if card.patch_sizes else ()


def _adapted(examples: Examples, card: Card, side: int) -> tuple[str, dict[str, object]]:
    """Return kind and configuration of a pack's network for the classes of the examples."""
    kind, config = card.network.kind, dict(card.network.config)
    classes = len(examples.legend.classes)
    if examples.task == "multilabel":
        return _for_places(examples, card, side)
    if kind in ("omnisat", "omnisat-tile"):
        encoder = _omnisat_encoder(card, side)
        if kind == "omnisat-tile":
            return "omnisat", design_segmenter(encoder, card.patch_m, classes).to_dict()
        config["encoder"] = encoder.to_dict()
    if kind in ("anysat", "anysat-tile"):
        return "anysat", _anysat_maps(examples, card, side)
    if kind == "utae":
        widths = UtaeConfig.from_dict(config).out_widths
        config["out_widths"] = [widths[0], classes]
    else:
        config["classes"] = classes
    return kind, config


def _anysat_maps(examples: Examples, card: Card, side: int) -> dict[str, object]:
    """Return an AnySat that draws maps: with the heads of a pack, or new ones for the labels."""
    config, classes = card.network.config, len(examples.legend.classes)
    if card.network.kind == "anysat" and not card.pretrained_only:
        known = {"classes": classes, "grid": [side, side], "fine_only": False}
        if config.get("fine_only") or config.get("coarse_side") == 0:
            known["coarse_side"] = round(card.patch_m) // CELL_M  # the sensor may lack in training
        return {**config, **known}
    plain = config.get("encoder")
    if not isinstance(plain, dict):
        raise CheckpointError(f"the card of {card.name} describes no encoder")
    encoder = AnySatConfig.from_dict(plain)
    return design_maps(encoder, card.patch_m, side, classes, _label_side(examples)).to_dict()


def _for_places(examples: Examples, card: Card, side: int) -> tuple[str, dict[str, object]]:
    """Return kind and configuration of a network that labels whole places with a pack's encoder."""
    kind, config = card.network.kind, card.network.config
    classes = len(examples.legend.classes)
    known = {"hidden": config["hidden"]} if "hidden" in config else {}  # the head a pack has
    if kind in ("omnisat", "omnisat-tile"):
        encoder = _omnisat_encoder(card, side).to_dict()
        return "omnisat-tile", {"encoder": encoder, "classes": classes, **known}
    if kind in ("anysat", "anysat-tile"):
        layout = {"patch_m": round(card.patch_m), "grid": [side, side]}
        own = {"encoder": config.get("encoder"), "classes": classes, **layout, **known}
        return "anysat-tile", AnySatTileConfig.from_dict(own).to_dict()
    raise JobError(
        f"{examples.name} says what whole places hold; that is learned from an OmniSat or AnySat "
        f"pack, and {card.name} is a {kind}"
    )


def _omnisat_encoder(card: Card, side: int) -> OmniSatConfig:
    """Return the encoder of a pack for windows of another side."""
    plain = card.network.config.get("encoder")
    if not isinstance(plain, dict):
        raise CheckpointError(f"the card of {card.name} describes no encoder")
    encoder = OmniSatConfig.from_dict(plain)
    if encoder.grid != (side, side):  # official positions are those of one window
        encoder = replace(encoder, grid=(side, side), position="geographic")
    return encoder


def _freeze(network: nn.Module, card: Card) -> tuple[nn.Module, ...]:
    """Fix the encoder of a network.

    Raises:
        JobError: If it has none of its own.
    """
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise JobError(
            f"--freeze encoder: {card.name} is a {card.network.kind}, whose encoder and decoder "
            "are one; leave --freeze out"
        )
    encoder.requires_grad_(False)
    return (encoder,)
