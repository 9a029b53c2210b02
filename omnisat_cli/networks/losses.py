"""Losses of dense and multi-label training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = 255


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    dice_weight: float = 1.0,
) -> Tensor:
    """Cross-entropy plus Dice over the labelled pixels.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W) int64 classes; `IGNORED` pixels take no part.
        class_weights: (K,) weights of the cross-entropy, or None.
        dice_weight: Weight of the Dice term.

    Returns:
        Scalar; 0 where no pixel is labelled.
    """
    known = labels != IGNORED
    total = functional.cross_entropy(
        logits, labels, weight=class_weights, ignore_index=IGNORED, reduction="sum"
    )
    weights = known if class_weights is None else class_weights[labels.masked_fill(~known, 0)]
    count = (weights * known).sum().clamp(min=torch.finfo(logits.dtype).tiny)
    return total / count + dice_weight * dice_loss(logits, labels)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the Dice coefficient, averaged over the classes that the labels contain.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W) int64 classes; `IGNORED` pixels take no part.

    Returns:
        Scalar; 0 where no pixel is labelled.
    """
    known = labels != IGNORED
    K = logits.shape[1]
    rows = logits.movedim(1, -1)[known]  # (n, K)
    probs = rows.softmax(-1)
    truth = functional.one_hot(labels[known], K).to(probs.dtype)
    overlap, size = (probs * truth).sum(0), truth.sum(0)
    score = 2 * overlap / (probs.sum(0) + size).clamp(min=1e-6)
    here = (size > 0).to(probs.dtype)
    return ((1 - score) * here).sum() / here.sum().clamp(min=1)


def boundary_loss(logits: Tensor, labels: Tensor, *, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of parcel boundaries.

    Args:
        logits: (B, H, W).
        labels: (B, H, W) numbers: 1 boundary, 0 not, `IGNORED` takes no part.
        positive_weight: Weight of boundary pixels, which are rare.

    Returns:
        Scalar mean over the labelled pixels; 0 where there is none.
    """
    known = labels != IGNORED
    found, truth = logits[known], labels[known].to(logits.dtype)
    weight = logits.new_tensor(positive_weight)
    total = functional.binary_cross_entropy_with_logits(
        found, truth, pos_weight=weight, reduction="sum"
    )
    return total / known.sum().clamp(min=1)


def multilabel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of tile labels: (B, K) logits and (B, K) multi-hot labels."""
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
