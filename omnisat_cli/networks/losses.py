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


def boundary_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    positive_weight: float = 1.0,
    emphasis: Tensor | None = None,
    dice_weight: float = 0.0,
) -> Tensor:
    """Binary cross-entropy of parcel boundaries, plus Dice.

    Args:
        logits: (B, H, W).
        labels: (B, H, W) numbers: 1 boundary, 0 not, `IGNORED` takes no part.
        positive_weight: Weight of boundary pixels, which are rare.
        emphasis: (B, H, W) weight of each pixel, from `boundary_emphasis`; None = 1.
        dice_weight: Weight of one minus the Dice coefficient of all labelled pixels.

    Returns:
        Scalar mean over the labelled pixels; 0 where there is none.
    """
    known = labels != IGNORED
    found, truth = logits[known], labels[known].to(logits.dtype)
    weight = logits.new_tensor(positive_weight)
    total = functional.binary_cross_entropy_with_logits(
        found,
        truth,
        weight=None if emphasis is None else emphasis[known].to(logits.dtype),
        pos_weight=weight,
        reduction="sum",
    )
    loss = total / known.sum().clamp(min=1)
    if not dice_weight:
        return loss
    share = found.sigmoid()
    size = (share**2).sum() + truth.sum()
    return loss + dice_weight * (1 - (2 * (share * truth).sum() + 1) / (size + 1))


def boundary_emphasis(
    boundary: Tensor, classes: Tensor, weight: float, *, reach: int = 4, most: float = 0.65
) -> Tensor:
    """Weigh up the boundaries that the classes beside them do not show.

    Between two classes a network finds a boundary anyway; between two fields of one class it is a
    margin one to three pixels wide, in the simulated scenes a tenth of the boundary pixels.

    Args:
        boundary: (B, H, W), 1 on boundaries.
        classes: (B, H, W) int64 classes; `IGNORED` pixels count for none.
        weight: Weight of a boundary pixel whose surroundings are mostly of one class; others: 1.
        reach: The surroundings are a square that reaches this many pixels.
        most: Share of the surroundings that one class has there.

    Returns:
        (B, H, W) float32.
    """
    size = 2 * reach + 1
    here = torch.unique(classes)
    largest = torch.zeros(boundary.shape, device=boundary.device)
    for code in here[here != IGNORED]:
        same = (classes == code).float().unsqueeze(1)
        share = functional.avg_pool2d(same, size, 1, reach, count_include_pad=False).squeeze(1)
        largest = torch.maximum(largest, share)
    faint = (boundary == 1) & (largest >= most)
    return torch.where(faint, float(weight), 1.0)


def multilabel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of tile labels: (B, K) logits and (B, K) multi-hot labels."""
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
