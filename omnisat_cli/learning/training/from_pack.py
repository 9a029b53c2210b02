"""The network of a pack, to be trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.learning.training.design import design_segmenter
from omnisat_cli.learning.training.design_anysat import design_maps
from omnisat_cli.learning.training.learner import build_learner, label_side, training_side
from omnisat_cli.learning.training.transfer import take_weights
from omnisat_cli.networks.anysat_config import CELL_M, AnySatConfig
from omnisat_cli.networks.configs import OmniSatConfig
from omnisat_cli.networks.tile import AnySatTileConfig
from omnisat_cli.networks.utae import UtaeConfig
from omnisat_cli.packs.patch_size import at_patch_size
from omnisat_cli.packs.registry import load_weights

if TYPE_CHECKING:
    from torch import nn

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.learner import Learner
    from omnisat_cli.learning.training.train_job import TrainJob
    from omnisat_cli.packs.card import Card
    from omnisat_cli.packs.registry import Pack


def learner_from_pack(examples: Examples, job: TrainJob, pack: Pack) -> Learner:
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
    side = training_side(examples, job, card.window.size)
    try:
        kind, config = _adapted(examples, card, side)
        learner = build_learner(kind, config, card.modalities, side, card.patch_m)
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
    return design_maps(encoder, card.patch_m, side, classes, label_side(examples)).to_dict()


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
