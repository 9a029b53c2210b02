"""What a network is asked for on a batch: losses for training, classes for validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from omnisat_cli.learning.data.batches import whole
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.networks.losses import (
    boundary_emphasis,
    boundary_loss,
    multilabel_loss,
    segmentation_loss,
)
from omnisat_cli.networks.seam import Dense, HasTraits, PatchLocal, WindowBased
from omnisat_cli.networks.tile import Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnisat_cli.learning.data.batches import Batch

Tokens = dict[str, Tensor]
"""Modality to what its encoder gives for the patches of windows."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much the terms of the loss count; the finest output counts 1.

    Attributes:
        coarse: Coarse output of patch-local networks.
        boundary: Parcel boundaries, where borders are known.
        boundary_faint: A pixel on a boundary between neighbours of one class, against any other:
            these are what parcels need and what classes do not show.
        boundary_dice: Dice of boundaries, beside their cross-entropy.
        dice: Dice, beside the cross-entropy.
        classes: (K,) of each class in the cross-entropy, or None for equal ones.
    """

    coarse: float = 0.5
    boundary: float = 1.0
    boundary_faint: float = 5.0
    boundary_dice: float = 0.5
    dice: float = 1.0
    classes: tuple[float, ...] | None = None


class Objective:
    """The losses of one network; their sum is minimised.

    Args:
        network: A patch-local segmenter, a window-based network or a tile classifier.
        weights: Of the terms.
    """

    def __init__(self, network: nn.Module, weights: Weights | None = None) -> None:
        self.network = network
        self.weights = weights or Weights()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted losses of a batch; 0 where it shows the network nothing."""
        network = self.network
        if _blind(network, batch):
            return {"fine": sum((p.sum() * 0.0 for p in network.parameters()), torch.tensor(0.0))}
        if isinstance(network, Tile):
            assert batch.tags is not None
            logits = tag_logits(network, batch)
            return {"tags": multilabel_loss(logits.float(), batch.tags)}
        if isinstance(network, PatchLocal):
            return self._local(network, batch)
        assert isinstance(network, WindowBased)
        return self._window(network, batch)

    def _local(self, network: PatchLocal, batch: Batch) -> dict[str, Tensor]:
        coarse, fine = decode_batch(network, batch)
        truth = seen_truth(batch)
        weights = self.weights
        losses = {"fine": self._classes(fine.logits, truth)}
        two_heads = isinstance(network, HasTraits) and bool(network.traits.fine)
        if two_heads or coarse.logits.shape != fine.logits.shape:
            losses["coarse"] = weights.coarse * self._classes(coarse.logits, truth)
        if fine.boundary is not None:
            losses["boundary"] = weights.boundary * self._borders(fine, batch)
        return losses

    def _borders(self, fine: Dense, batch: Batch) -> Tensor:
        assert fine.boundary is not None
        target = boundary_under(batch.boundary, fine.boundary.shape[-1])
        target = torch.where(_spread(_some(batch), target, batch.side), target, UNLABELLED)
        classes = truth_under(batch.truth, fine.logits.shape)
        return boundary_loss(
            fine.boundary.float(),
            target,
            emphasis=boundary_emphasis(target, classes, self.weights.boundary_faint),
            dice_weight=self.weights.boundary_dice,
        )

    def _window(self, network: WindowBased, batch: Batch) -> dict[str, Tensor]:
        dense = predict_windows(network, batch)
        return {"fine": self._classes(dense.logits, seen_truth(batch))}

    def _classes(self, logits: Tensor, truth: Tensor) -> Tensor:
        given = self.weights.classes
        return segmentation_loss(
            logits.float(),  # sums over all pixels of a batch are too long for half precision
            truth_under(truth, logits.shape),
            class_weights=None if given is None else logits.new_tensor(given, dtype=torch.float32),
            dice_weight=self.weights.dice,
        )


def class_logits(network: nn.Module, batch: Batch) -> Tensor:
    """Return the logits (B, K, H, W) of the finest output a network has."""
    if isinstance(network, PatchLocal):
        return decode_batch(network, batch)[1].logits
    assert isinstance(network, WindowBased)
    return predict_windows(network, batch).logits


def tag_logits(network: Tile, batch: Batch, encoded: tuple[Tokens, Tokens] | None = None) -> Tensor:
    """Return the logits (B, K) of the classes a window holds; see `mapped_classes`."""
    every, _ = encoded or encode_batch(network, batch)
    tokens = {name: values for name, values in every.items() if name in batch.present}
    return network.label(network.fuse(tokens, {name: batch.present[name] for name in tokens}))


def shows_something(batch: Batch) -> Tensor:
    """Return which windows (B,) of a batch show any patch of any modality."""
    return torch.stack([mask.any(1) for mask in batch.present.values()]).any(0)


def decode_batch(network: PatchLocal, batch: Batch) -> tuple[Dense, Dense]:
    """Run a patch-local network; returns its coarse and its fine output."""
    return decode_tokens(network, encode_batch(network, batch), batch)


def decode_tokens(
    network: PatchLocal, encoded: tuple[Tokens, Tokens], batch: Batch
) -> tuple[Dense, Dense]:
    """Fuse and decode what `encode_batch` gave of a batch, or of one that shows more than this."""
    tokens = {name: values for name, values in encoded[0].items() if name in batch.present}
    fine = {name: values for name, values in encoded[1].items() if name in batch.present}
    present = {name: batch.present[name] for name in tokens}
    fused = network.fuse(tokens, present)
    both = getattr(network, "decode_both", None)
    if both is not None:
        return cast("tuple[Dense, Dense]", both(fused, fine, present))
    return (
        network.decode(fused, fine, present, fine_output=False),
        network.decode(fused, fine, present, fine_output=True),
    )


def encode_batch(network: PatchLocal, batch: Batch) -> tuple[Tokens, Tokens]:
    """Encode the present patches of a batch.

    Returns:
        Modality to tokens (B, P, D), and image modality to finer features (B, P, F, f, f); zeros
        where not present. Modalities that no patch has are absent.
    """
    tokens: Tokens = {}
    fine: Tokens = {}
    for name, present in batch.present.items():
        if not present.any():
            continue
        if name in batch.days:
            windows = present.nonzero()[:, 0]
            encoded = network.encode_series(
                name,
                batch.pixels[name][present],
                batch.days[name][windows],
                batch.valid[name][present],
            )
        else:
            encoded = network.encode_image(name, batch.pixels[name][present])
        tokens[name] = _scattered(encoded.tokens, present)
        if encoded.fine is not None:
            fine[name] = _scattered(encoded.fine, present)
    return tokens, fine


def predict_windows(network: WindowBased, batch: Batch) -> Dense:
    """Run a window-based network on what the windows of a batch hold."""
    pixels, valid = {}, {}
    for name in batch.pixels:
        pixels[name], valid[name] = whole(batch, name)
    return network.predict(pixels, batch.days, valid)


def seen_truth(batch: Batch) -> Tensor:
    """Return the truth (B, H, W), 255 where no modality is present: nothing can be learned."""
    truth = batch.truth
    return torch.where(_spread(_some(batch), truth, batch.side), truth, UNLABELLED)


def truth_under(truth: Tensor, shape: torch.Size) -> Tensor:
    """Return the truth on the pixels of an output: the majority, or repeated where it is coarser.

    Args:
        truth: (B, H, W) classes, 255 = none.
        shape: Of the logits (B, K, h, w).
    """
    K, w = shape[1], shape[-1]
    W = truth.shape[-1]
    if w == W:
        return truth
    if W % w == 0:
        return majority(truth, K, W // w)
    return _nearest(truth, w)


def boundary_under(boundary: Tensor, w: int) -> Tensor:
    """Return boundaries (B, H, W) on w × w pixels: 1 where one runs through, 255 unknown."""
    W = boundary.shape[-1]
    if w == W:
        return boundary
    if W % w:
        return _nearest(boundary, w)
    known = boundary != UNLABELLED
    side = W // w
    edge = torch.nn.functional.max_pool2d(boundary.masked_fill(~known, 0.0), side)
    some = torch.nn.functional.max_pool2d(known.to(boundary.dtype), side) > 0
    return torch.where(some, edge, float(UNLABELLED))


def majority(truth: Tensor, classes: int, side: int) -> Tensor:
    """Return the most frequent class of the truth pixels under each coarse pixel.

    Args:
        truth: (B, H, W) classes, 255 = none.
        classes: Classes K.
        side: Truth pixels along a coarse pixel.

    Returns:
        (B, H / side, W / side); 255 where no truth pixel has a class.
    """
    B, H, W = truth.shape
    h, w = H // side, W // side
    cut = truth.view(B, h, side, w, side).transpose(2, 3).reshape(B, h, w, side * side)
    counts = torch.nn.functional.one_hot(cut.clamp(max=classes), classes + 1).sum(3)[..., :classes]
    return torch.where(counts.sum(-1) > 0, counts.argmax(-1), UNLABELLED)


def mapped_classes(
    network: nn.Module, batch: Batch, encoded: tuple[Tokens, Tokens] | None = None
) -> Tensor:
    """Return the class (B, H, W) a network gives to each pixel of the truth.

    Args:
        network: A network that maps.
        batch: What it is shown.
        encoded: What `encode_batch` gave, where it is known.
    """
    if encoded is None or not isinstance(network, PatchLocal):
        logits = class_logits(network, batch)
    else:
        logits = decode_tokens(network, encoded, batch)[1].logits
    return _nearest(logits.argmax(1), batch.truth.shape[-1])


def showing(batch: Batch, names: Sequence[str]) -> Batch:
    """Return a batch that shows some of its modalities."""
    return replace(
        batch,
        pixels={name: batch.pixels[name] for name in names if name in batch.pixels},
        present={name: batch.present[name] for name in names if name in batch.present},
    )


def accuracy_mask(batch: Batch) -> Tensor:
    """Return (B, H, W) bool: labelled pixels where some modality is present."""
    return seen_truth(batch) != UNLABELLED


def _blind(network: nn.Module, batch: Batch) -> bool:
    """Whether a batch holds none of the modalities that a network reads."""
    config = getattr(network, "config", None)
    single = getattr(config, "modality", None)  # window-based networks of one modality
    several = (single,) if isinstance(single, str) else getattr(config, "modalities", None)
    names = batch.present if several is None else [n for n in several if n in batch.present]
    return not any(bool(batch.present[name].any()) for name in names)


def _nearest(values: Tensor, w: int) -> Tensor:
    """Read (B, H, W) at the centres of w × w pixels."""
    W = values.shape[-1]
    if w == W:
        return values
    place = (torch.arange(w, device=values.device) * 2 + 1) * W // (2 * w)
    return values[:, place][:, :, place]


def _some(batch: Batch) -> Tensor:
    """Return (B, P): the patches where any modality is present."""
    if not batch.present:
        return torch.zeros(len(batch), batch.side**2, dtype=torch.bool, device=batch.truth.device)
    return torch.stack(list(batch.present.values())).any(0)


def _spread(patches: Tensor, like: Tensor, side: int) -> Tensor:
    """Repeat (B, P) of a square window over (B, H, W) pixels."""
    return _nearest(patches.view(-1, side, side), like.shape[-1])


def _scattered(values: Tensor, present: Tensor) -> Tensor:
    whole_shape = (*present.shape, *values.shape[1:])
    out = values.new_zeros(whole_shape)
    mask = present.view(*present.shape, *[1] * (values.dim() - 1)).expand_as(out)
    return out.masked_scatter(mask, values)
