"""Supervised training of a segmenter on windows: cross-entropy + Dice, modality dropout."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omnisat_cli.networks.losses import boundary_loss, segmentation_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from omnisat_cli.learning.batches import Batch
    from omnisat_cli.networks.segmenter import OmniSatSegmenter

log = logging.getLogger(__name__)
IGNORE = 255


@dataclass(frozen=True, slots=True)
class FitSpec:
    """How long and how fast.

    Attributes:
        steps: Optimiser steps.
        batch: Windows a step.
        rate: Highest learning rate; linear warm-up over 5 % of the steps, then cosine decay.
        weight_decay: Of AdamW.
        boundary_weight: Of the parcel-boundary loss.
        coarse_weight: Of the loss on the coarse output.
        minutes: Stop decaying towards `steps` and finish within this time, or None.
    """

    steps: int
    batch: int
    rate: float = 2e-3
    weight_decay: float = 0.02
    boundary_weight: float = 0.3
    coarse_weight: float = 0.5
    minutes: float | None = None


def fit(
    network: OmniSatSegmenter,
    draw: Callable[[int], Batch],
    spec: FitSpec,
    on_step: Callable[[int, dict[str, float]], None] = lambda _step, _losses: None,
) -> None:
    """Train a network in place.

    Args:
        network: Untrained or pretrained, on its device; left in training mode.
        draw: Gives a batch of windows.
        spec: Budget and rates.
        on_step: Told the losses of each step.
    """
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=spec.rate, weight_decay=spec.weight_decay
    )
    network.train()
    begin = time.monotonic()
    for step in range(spec.steps):
        done = step / spec.steps
        if spec.minutes is not None:
            done = max(done, (time.monotonic() - begin) / 60 / spec.minutes)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = spec.rate * _schedule(done)
        losses = training_losses(network, draw(spec.batch))
        total = (
            losses["fine"]
            + spec.coarse_weight * losses["coarse"]
            + spec.boundary_weight * losses["boundary"]
        )
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        on_step(step, {name: float(value.detach()) for name, value in losses.items()})


def training_losses(network: OmniSatSegmenter, batch: Batch) -> dict[str, Tensor]:
    """Run one batch forward.

    Returns:
        "fine", "coarse" and "boundary": scalar losses.
    """
    tokens, fine = encode_batch(network, batch)
    fused = network.fuse(tokens, batch.present)
    coarse, dense = network.decode_both(fused, fine, batch.present)
    some = torch.stack(list(batch.present.values())).any(0)  # (B, P)
    truth = torch.where(_spread(some, batch.truth), batch.truth, IGNORE)
    assert dense.boundary is not None
    return {
        "fine": segmentation_loss(dense.logits, truth),
        "coarse": segmentation_loss(coarse.logits, majority(truth, coarse.logits.shape)),
        "boundary": boundary_loss(dense.boundary, batch.boundary),
    }


def encode_batch(
    network: OmniSatSegmenter, batch: Batch
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Encode the present patches of a batch.

    Returns:
        Modality to tokens (B, P, D), and image modality to finer features (B, P, F, f, f); zeros
        where not present. Modalities that no patch has are absent.
    """
    tokens: dict[str, Tensor] = {}
    fine: dict[str, Tensor] = {}
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


def majority(truth: Tensor, shape: torch.Size) -> Tensor:
    """Return the most frequent class of the truth pixels under each coarse pixel.

    Args:
        truth: (B, H, W) classes, 255 = none.
        shape: Of the coarse logits (B, K, h, w).

    Returns:
        (B, h, w); 255 where no truth pixel has a class.
    """
    B, K, h, w = shape
    side = truth.shape[-1] // w
    cut = truth.view(B, h, side, w, side).transpose(2, 3).reshape(B, h, w, side * side)
    counts = torch.nn.functional.one_hot(cut.clamp(max=K), K + 1).sum(3)[..., :K]
    best = counts.argmax(-1)
    return torch.where(counts.sum(-1) > 0, best, IGNORE)


def _schedule(done: float) -> float:
    warm = 0.05
    if done < warm:
        return done / warm + 1e-3
    return 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def _scattered(values: Tensor, present: Tensor) -> Tensor:
    whole = values.new_zeros((*present.shape, *values.shape[1:]))
    return whole.masked_scatter(
        present.view(*present.shape, *[1] * (values.dim() - 1)).expand_as(whole), values
    )


def _spread(patches: Tensor, like: Tensor) -> Tensor:
    """Repeat (B, P) of a square window over (B, H, W) pixels."""
    side = math.isqrt(patches.shape[1])
    times = like.shape[-1] // side
    return patches.view(-1, side, side).repeat_interleave(times, 1).repeat_interleave(times, 2)
