"""Weights of one network for another: by name, where they fit, and a list of those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

_POSITIONS = "pos_embed"
_CLASSES = (
    "head.coarse.",
    "head.last.",
    "coarse.",
    "out_conv.",
    "last.",
    "head.head.",
    "head.mlp.",
)
"""Layers that end in classes, in any of our networks."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What came over.

    Attributes:
        loaded: Layers that were taken.
        fresh: Layers that start at random.
        left: Layers of the pack that found no place.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """What to say of it."""
        lines = [f"{len(self.loaded)} layers taken from the pack"]
        if self.fresh:
            lines.append(f"{len(self.fresh)} new: {', '.join(self.fresh)}")
        if self.left:
            lines.append(f"{len(self.left)} of the pack do not fit: {', '.join(self.left)}")
        return tuple(lines)


def take_weights(
    network: nn.Module, weights: Mapping[str, Tensor], *, same_classes: bool
) -> Transfer:
    """Load into a network what fits of a pack's weights.

    Args:
        network: Changed in place.
        weights: State dict of the pack.
        same_classes: Whether both mean the same classes; if not, layers that end in classes start
            at random even where their shapes agree.

    Raises:
        JobError: If nothing fits.
    """
    own = network.state_dict()
    taken: dict[str, Tensor] = {}
    for key, value in own.items():
        given = weights.get(key)
        if given is None or (not same_classes and key.startswith(_CLASSES)):
            continue
        if given.shape != value.shape and key.endswith(_POSITIONS):
            given = _resampled(given, value.shape)
        if given.shape == value.shape:
            taken[key] = given
    if not taken:
        raise JobError(
            "nothing of the pack fits the network; train from scratch with --network instead"
        )
    network.load_state_dict(taken, strict=False)
    return Transfer(
        _layers(taken),
        _layers([key for key in own if key not in taken]),
        _layers([key for key in weights if key not in taken]),
    )


def _layers(keys: Mapping[str, Tensor] | list[str]) -> tuple[str, ...]:
    """Return the layers that tensors belong to, in order."""
    return tuple(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))


def _resampled(position: Tensor, shape: torch.Size) -> Tensor:
    """Bring learned positions (1, 1 + P, D) of a square window to another one."""
    if position.dim() != 3 or position.shape[-1] != shape[-1]:
        return position
    before, after = (round((n - 1) ** 0.5) for n in (position.shape[1], shape[1]))
    if before**2 + 1 != position.shape[1] or after**2 + 1 != shape[1]:
        return position
    grid = torch.unflatten(position[:, 1:].transpose(1, 2), 2, (before, before))
    grid = nn.functional.interpolate(grid, size=(after, after), mode="bilinear")
    return torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], 1)
