"""Losses of supervised training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = 255


def segmentation_loss(logits: Tensor, truth: Tensor, *, dice_weight: float = 1.0) -> Tensor:
    """Return cross-entropy plus soft Dice.

    Args:
        logits: (B, K, H, W).
        truth: (B, H, W) int64 classes; 255 is ignored.
        dice_weight: Weight of the Dice term.

    Returns:
        Scalar; 0 where nothing is labelled.

    Source: Milletari et al., "V-Net" (2016) for Dice, here averaged over the classes that occur.
    """
    known = truth != IGNORE
    if not bool(known.any()):
        return logits.sum() * 0.0
    cross = functional.cross_entropy(logits, truth, ignore_index=IGNORE)
    return cross + dice_weight * dice_loss(logits, truth)


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return one minus the soft Dice of each class that occurs, averaged over them."""
    K = logits.shape[1]
    known = (truth != IGNORE).unsqueeze(1)
    shares = logits.softmax(1) * known
    target = (
        functional.one_hot(truth.masked_fill(truth == IGNORE, 0), K).permute(0, 3, 1, 2) * known
    )
    overlap = (shares * target).sum((0, 2, 3))
    total = shares.sum((0, 2, 3)) + target.sum((0, 2, 3))
    occurs = target.sum((0, 2, 3)) > 0
    dice: Tensor = (2 * overlap + 1) / (total + 1)
    return 1 - dice[occurs].mean()


def boundary_loss(logits: Tensor, target: Tensor, *, positive_weight: float = 3.0) -> Tensor:
    """Return binary cross-entropy of the boundary map; boundaries are rare and weigh more.

    Args:
        logits: (B, H, W).
        target: (B, H, W), 1 on boundaries, 0 elsewhere, 255 ignored.
        positive_weight: Weight of boundary pixels.
    """
    known = target != IGNORE
    if not bool(known.any()):
        return logits.sum() * 0.0
    weight = torch.tensor(positive_weight, device=logits.device)
    return functional.binary_cross_entropy_with_logits(
        logits[known], target[known], pos_weight=weight
    )


def multilabel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return binary cross-entropy of (B, K) logits against (B, K) 0/1 labels."""
    return functional.binary_cross_entropy_with_logits(logits, target)
