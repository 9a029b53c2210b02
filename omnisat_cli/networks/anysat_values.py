"""What goes through AnySat: patches of a sensor, windows of patches, and what it makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.networks.anysat_config import AnySatConfig

Grid = tuple[int, int]
Output = Literal["tile", "patch", "dense", "all"]


@dataclass(frozen=True, slots=True)
class Patches:
    """Patches of one sensor after the spatial encoder.

    Attributes:
        tokens: (N, D) one vector a patch.
        fine: (N, S, D) one vector a sub-patch, in the order of the published code.
        present: (N,) bool, patches with anything valid; None for all.
    """

    tokens: Tensor
    fine: Tensor
    present: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Windowed:
    """Windows after their encoders, before they are fused.

    Attributes:
        tokens: Sensor to (B, P, D); sensors with one pixel a window (B, 1, D).
        present: Sensor to (B, P) bool, for sensors that are not valid everywhere.
        grid: Rows and columns of patches.
        fine: As in `Features`.
    """

    tokens: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    grid: Grid
    fine: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Features:
    """What AnySat makes of a batch of windows.

    Attributes:
        tokens: (B, 1 + P, D): the window, then its patches row by row.
        grid: Rows and columns of patches.
        fine: Sensor to (B, rows * e, cols * e, D) sub-patch vectors laid out as a map, for the
            sensor that was kept.
    """

    tokens: Tensor
    grid: Grid
    fine: Mapping[str, Tensor]

    @property
    def tile(self) -> Tensor:
        """(B, D) one vector a window."""
        return self.tokens[:, 0]

    @property
    def patch(self) -> Tensor:
        """(B, rows, cols, D) one vector a patch."""
        return torch.unflatten(self.tokens[:, 1:], 1, self.grid)

    def dense(self, name: str) -> Tensor:
        """Join the patch vector to every sub-patch vector: (B, rows * e, cols * e, 2 D).

        Raises:
            ValueError: If the sensor was not kept.
        """
        if name not in self.fine:
            kept = ", ".join(self.fine) or "none"
            raise ValueError(f"sub-patches of {name!r} were not kept (kept: {kept}); use `keep`")
        fine = self.fine[name]
        side = fine.shape[1] // self.grid[0]
        coarse = self.patch.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return torch.cat([coarse, fine], dim=-1)

    def output(self, kind: Output, name: str | None = None) -> Tensor:
        """Return an output by its published name.

        Args:
            kind: "tile" (B, D), "patch" (B, rows, cols, D), "dense" (B, h, w, 2 D) or "all"
                (B, 1 + P, D).
            name: Sensor of a dense output; the one that was kept by default.
        """
        if kind == "tile":
            return self.tile
        if kind == "patch":
            return self.patch
        if kind == "all":
            return self.tokens
        return self.dense(name or next(iter(self.fine), ""))


def check_ground(shapes: Mapping[str, torch.Size], config: AnySatConfig) -> None:
    """Refuse windows whose sensors do not cover the same ground.

    Args:
        shapes: Sensor to the shape of its pixels.
        config: The network.

    Raises:
        ValueError: If a shape has the wrong number of axes or bands, or the ground differs.
    """
    grounds: dict[str, tuple[float, float]] = {}
    for name, shape in shapes.items():
        sensor = config.sensor(name)
        axes = 4 if sensor.kind == "image" else 5
        if len(shape) != axes or shape[-3] != sensor.bands:
            raise ValueError(
                f"{name}: expected {axes} axes with {sensor.bands} bands, found {tuple(shape)}"
            )
        if sensor.whole_window:
            if tuple(shape[-2:]) != (1, 1):
                raise ValueError(f"{name}: one pixel a window, found {shape[-2]} x {shape[-1]}")
            continue
        grounds[name] = (shape[-2] * sensor.gsd_m, shape[-1] * sensor.gsd_m)
    if not grounds:
        return
    first, expected = next(iter(grounds.items()))
    for name, found in grounds.items():
        if max(abs(a - b) for a, b in zip(found, expected, strict=True)) > 1e-6:
            raise ValueError(
                f"{name} covers {found[0]:g} x {found[1]:g} m, {first} {expected[0]:g} x "
                f"{expected[1]:g} m; give windows of the same ground"
            )
