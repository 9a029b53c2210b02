"""The loss of parcel boundaries, and which of them it weighs up."""

from __future__ import annotations

import math

import pytest
import torch

from omnisat_cli.networks.losses import IGNORED, boundary_emphasis, boundary_loss


def fields() -> tuple[torch.Tensor, torch.Tensor]:
    """Class 7 with a margin of class 6 at column 10; class 8 from column 20 on."""
    classes = torch.full((1, 24, 32), 7)
    classes[..., 10] = 6
    classes[..., 20:] = 8
    boundary = torch.zeros(1, 24, 32)
    boundary[..., 9:12] = 1
    boundary[..., 19:21] = 1
    return boundary, classes


def test_margins_inside_a_class_are_weighed_up_and_class_edges_are_not() -> None:
    boundary, classes = fields()
    weight = boundary_emphasis(boundary, classes, 5.0)
    assert (weight[..., 9:12] == 5).all()
    assert (weight[..., 19:21] == 1).all()
    assert (weight[boundary == 0] == 1).all()
    assert (boundary_emphasis(boundary, torch.full_like(classes, IGNORED), 5.0) == 1).all()


def test_weights_and_dice_enter_the_loss_as_written() -> None:
    truth = torch.tensor([[[1.0, 0.0, IGNORED]]])
    logits = torch.zeros(1, 1, 3)
    plain = boundary_loss(logits, truth)
    assert plain == pytest.approx(math.log(2))
    heavy = boundary_loss(logits, truth, emphasis=torch.tensor([[[5.0, 1.0, 9.0]]]))
    assert heavy == pytest.approx(3 * math.log(2))
    # shares of 0.5: Dice (2 * 0.5 + 1) / (0.5 + 1 + 1)
    assert boundary_loss(logits, truth, dice_weight=2.0) - plain == pytest.approx(2 * (1 - 2 / 2.5))
    nothing = boundary_loss(logits, torch.full_like(truth, IGNORED), dice_weight=1.0)
    assert nothing == pytest.approx(0)


def test_a_better_boundary_has_a_lower_loss() -> None:
    boundary, classes = fields()
    weight = boundary_emphasis(boundary, classes, 5.0)
    losses = [
        float(boundary_loss(slope * (boundary - 0.5), boundary, emphasis=weight, dice_weight=0.5))
        for slope in (-4, 0, 4, 8)
    ]
    assert losses == sorted(losses, reverse=True)
