"""Student and teacher of AnySat, step by step.

Source: AnySat (Astruc et al., CVPR 2025). The teacher takes a small part of the student after every
step, with the weights that the step began with.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from omnisat_cli.networks.anysat_jepa import (
    AnySatJepa,
    JepaDraws,
    Seen,
    follow,
    jepa_loss,
    take_rows,
    teacher_momentum,
    teacher_rows,
)
from omnisat_cli.networks.configs import build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.networks.anysat import AnySat
    from omnisat_cli.networks.anysat_jepa import JepaMasks, Recipe


@dataclass(frozen=True, slots=True)
class JepaConfig:
    """What a pretraining step of AnySat computes.

    Attributes:
        depth: Blocks of the predictor.
        heads: Its heads.
        momentum: Share of the old teacher at the first step; it rises to 1 at the last.
        contrast: Contrast the sensors too.
        recipe: "official" is the published step: locations shifted by one here and there, a
            teacher with dropout, and what is not valid counts as the mean of its band.
    """

    depth: int = 4
    heads: int = 16
    momentum: float = 0.996
    contrast: bool = True
    recipe: Recipe = "corrected"

    def __post_init__(self) -> None:
        """Refuse what cannot be computed.

        Raises:
            ValueError: If a number is out of range or the recipe unknown.
        """
        if self.depth < 1 or self.heads < 1:
            raise ValueError(f"depth {self.depth} and heads {self.heads} must be above 0")
        if not 0 < self.momentum <= 1:
            raise ValueError(f"momentum {self.momentum} must be above 0 and at most 1")
        if self.recipe not in ("corrected", "official"):
            raise ValueError(f"recipe {self.recipe!r} is none of corrected, official")

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> JepaConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or a value is out of range.
        """
        return build(cls, plain)


@dataclass(frozen=True, slots=True)
class View:
    """Whole windows of one place a row, of one dataset.

    Attributes:
        pixels: Sensor to pixels, as `AnySat.forward` takes them.
        days: Series to (B, T) day numbers.
        seen: What of it is real.
        patch_m: Side of a patch, metres.
    """

    pixels: Mapping[str, Tensor]
    days: Mapping[str, Tensor]
    seen: Seen
    patch_m: int


class AnySatPretraining(nn.Module):
    """Student, teacher and the count of the steps that were done.

    Args:
        encoder: The network to pretrain.
        config: What a step computes.
        steps: Steps after which the teacher stands still.
    """

    steps_done: Tensor

    def __init__(self, encoder: AnySat, config: JepaConfig, steps: int) -> None:
        super().__init__()
        self.config, self.steps = config, steps
        self.student = AnySatJepa(encoder, config.depth, config.heads, recipe=config.recipe)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; that of the teacher stays off but in the official recipe."""
        super().train(mode)
        self.teacher.train(mode and self.config.recipe == "official")
        return self

    def forward(self, view: View, masks: JepaMasks) -> dict[str, Tensor]:
        """Compute the losses of a step and, in training, move the teacher.

        Args:
            view: Windows.
            masks: What is predicted, and from what.

        Returns:
            "predict" and, unless left out, "contrast" to scalars.

        Raises:
            ValueError: If no sensor of the windows has patches.
        """
        official = self.config.recipe == "official"
        seen = Seen({}, {}) if official else view.seen
        rows, there = teacher_rows(
            self.teacher, view.pixels, view.days, patch_m=view.patch_m, seen=seen
        )
        targets = torch.cat([take_rows(rows, target) for target in masks.targets])
        asked = torch.cat([there.gather(1, target) for target in masks.targets])
        draws = self.draw(view, masks)
        step = self.student(view.pixels, view.days, masks, draws, patch_m=view.patch_m, seen=seen)
        losses = {"predict": jepa_loss(step.predicted, targets, None if asked.all() else asked)}
        if self.config.contrast:
            losses["contrast"] = step.contrast
        if self.training:
            momentum = teacher_momentum(int(self.steps_done), self.steps, self.config.momentum)
            follow(self.teacher, self.student.encoder, momentum)
            self.steps_done += 1
        return losses

    def draw(self, view: View, masks: JepaMasks) -> JepaDraws:
        """Draw the random numbers of a step."""
        config, device = self.student.encoder.config, masks.context.device
        local = [name for name in view.pixels if not config.sensor(name).whole_window]
        if not local:
            raise ValueError(f"no sensor of {', '.join(view.pixels)} has patches of its own")
        B, K = masks.context.shape
        return JepaDraws(
            {name: torch.rand(days.shape, device=device) for name, days in view.days.items()},
            torch.randint(len(local), (B, K), device=device),
            torch.rand(B, len(local) * K, device=device),
        )

    @property
    def untouched(self) -> float:
        """Share of the teacher's first weights that is still in it."""
        share = 1.0
        for step in range(int(self.steps_done)):
            share *= teacher_momentum(step, self.steps, self.config.momentum)
        return share
