"""AnySat with heads for maps, behind the patch-local seam of the engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisat_cli.networks.anysat import AnySat
from omnisat_cli.networks.anysat_config import CELL_M, AnySatConfig
from omnisat_cli.networks.anysat_encoders import cells_to_raster
from omnisat_cli.networks.anysat_heads import MapHead
from omnisat_cli.networks.configs import build
from omnisat_cli.networks.seam import Dense, Encoded, Traits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from omnisat_cli.networks.anysat_values import Grid, Patches


@dataclass(frozen=True, slots=True)
class AnySatLayout:
    """An AnySat whose windows are cut into patches of one size.

    Attributes:
        encoder: The AnySat.
        classes: Classes of its head.
        patch_m: Side of a patch, metres, a multiple of 10.
        grid: Rows and columns of patches of a window.
    """

    encoder: AnySatConfig
    classes: int
    patch_m: int = 10
    grid: Grid = (16, 16)

    def __post_init__(self) -> None:
        """Refuse what no window can have."""
        object.__setattr__(self, "grid", (int(self.grid[0]), int(self.grid[1])))
        sizes = (self.classes, *self.grid)
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in sizes):
            raise ValueError(f"classes and grid must be above 0, found {sizes}")
        if self.patch_m < CELL_M or self.patch_m % CELL_M:
            raise ValueError(f"a patch is a multiple of {CELL_M} m, found {self.patch_m} m")
        if not any(self.patch_px(s.name) and not s.whole_window for s in self.encoder.sensors):
            raise ValueError(
                f"none of {', '.join(self.encoder.names)} has patches of {self.patch_m} m"
            )

    def patch_px(self, name: str) -> int:
        """Return the pixels of a sensor along a patch; 0 where it cannot be cut so."""
        sensor = self.encoder.sensor(name)
        try:
            return sensor.patch_side(self.patch_m, self.encoder.behaviour) * sensor.subpatch_px
        except ValueError:
            return 0

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {**asdict(self), "encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        encoder = plain.get("encoder")
        if not isinstance(encoder, dict):
            raise ValueError(f"'encoder' must be a table, found {encoder!r}")
        return build(cls, {**plain, "encoder": AnySatConfig.from_dict(encoder)})


@dataclass(frozen=True, slots=True)
class AnySatSegmenterConfig(AnySatLayout):
    """An AnySat that maps classes.

    Attributes:
        coarse_side: Pixels of the coarse output along a patch; 0 for none.
        fine_sensor: Sensor whose sub-patches give the fine output; None for coarse output only.
        fine_pixels: Pixels of the fine output along one of its sub-patches.
        fine_only: Leave the coarse output out: it belongs to patches of another size.
        scales: Further patch sizes, metres, whose logits are averaged with those of `patch_m`.
    """

    coarse_side: int = 1
    fine_sensor: str | None = None
    fine_pixels: int = 1
    fine_only: bool = False
    scales: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no window can have."""
        AnySatLayout.__post_init__(self)  # `super()` does not see through slots
        object.__setattr__(self, "scales", tuple(self.scales))
        sides = (self.coarse_side + 1, self.fine_pixels)
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in sides):
            raise ValueError(f"pixels must be above 0, found {self.coarse_side} and {sides[1]}")
        if self.fine_sensor is not None and self.encoder.sensor(self.fine_sensor).whole_window:
            raise ValueError(f"{self.fine_sensor} has one pixel a window and no finer output")
        if self.needs_fine and self.fine_sensor is None:
            raise ValueError("without a coarse output a sensor must give the fine one")
        if not self.needs_fine and self.fine_side % self.coarse_side:
            raise ValueError(
                f"{self.fine_side} fine pixels along a patch are no whole multiple of "
                f"{self.coarse_side} coarse ones"
            )
        self._check_scales()

    def _check_scales(self) -> None:
        """Refuse patch sizes that cannot be averaged with the own one."""
        wrong = [size for size in self.scales if size >= self.patch_m or self.patch_m % size]
        if wrong:
            raise ValueError(f"patches of {wrong[0]} m do not divide those of {self.patch_m} m")
        if not self.scales:
            return
        if not self.needs_fine:
            raise ValueError("only the fine output is averaged over patch sizes: set fine_only")
        for sensor in self.encoder.sensors:
            if sensor.whole_window:
                raise ValueError(f"{sensor.name} has no patches of several sizes")
            for size in self.scales:
                sensor.patch_side(size, self.encoder.behaviour)

    @property
    def needs_fine(self) -> bool:
        """Whether ground without the fine sensor has no answer."""
        return self.fine_only or self.coarse_side == 0

    @property
    def fine_side(self) -> int:
        """Pixels along a patch at the finest output."""
        if self.fine_sensor is None:
            return self.coarse_side
        sensor = self.encoder.sensor(self.fine_sensor)
        return sensor.patch_side(self.patch_m, self.encoder.behaviour) * self.fine_pixels


class AnySatPatches(nn.Module):
    """Encoder and fusion behind the `PatchLocal` interface; what stands on them is up to a head.

    A sensor of one pixel a window (MODIS) comes as one pixel a patch, brought onto the patches by
    whoever reads it; its token of a window is the mean over the patches where it is present, which
    is the published token where they all show the same pixel.

    Args:
        config: Encoder, patches and window.
    """

    def __init__(self, config: AnySatLayout) -> None:
        super().__init__()
        self.layout = config
        self.encoder = AnySat(config.encoder)

    @property
    def traits(self) -> Traits:
        """What to plan a run with."""
        layout = self.layout
        pixels = {name: layout.patch_px(name) for name in layout.encoder.names}
        return Traits(layout.encoder.width, {}, {n: px for n, px in pixels.items() if px})

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode image patches; see `PatchLocal.encode_image`."""
        return Encoded(self.encoder.encode(name, pixels, kept=False).tokens)

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        """Encode series of patches; see `PatchLocal.encode_series`."""
        return Encoded(self.encoder.encode(name, pixels, days, valid, kept=False).tokens)

    def fuse(
        self,
        tokens: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        grid: Grid | None = None,
    ) -> Tensor:
        """Fuse windows; see `PatchLocal.fuse`. `grid` when the window is not the configured one."""
        return self._fused(tokens, present, grid or self.layout.grid, self.layout.patch_m)

    def _fused(
        self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor], grid: Grid, patch_m: int
    ) -> Tensor:
        """Fuse windows of a grid of patches of some size."""
        names = [name for name in tokens if bool(present[name].any())]
        local = [n for n in tokens if not self.layout.encoder.sensor(n).whole_window]
        if not set(names) & set(local):
            names += local[:1]  # nowhere present: the window needs its patches all the same
        given = {name: tokens[name] for name in names}
        flags = {name: present[name] for name in names}
        for name in names:
            if name not in local:
                given[name] = _window_token(tokens[name], present[name])
                flags[name] = present[name].any(1, keepdim=True)
        masks = {name: mask for name, mask in flags.items() if not bool(mask.all())}
        return self.encoder.fuse(given, grid, patch_m, masks)


class AnySatSegmenter(AnySatPatches):
    """AnySat and its heads for maps.

    Args:
        config: Everything needed to build the network again.
    """

    def __init__(self, config: AnySatSegmenterConfig) -> None:
        super().__init__(config)
        self.config = config
        width = config.encoder.width
        self.coarse = (
            None
            if config.coarse_side == 0
            else MapHead(width, config.classes, config.coarse_side, "class")
        )
        self.fine = (
            None
            if config.fine_sensor is None
            else MapHead(2 * width, config.classes, config.fine_pixels)
        )

    @property
    def traits(self) -> Traits:
        """What to plan a run with."""
        config = self.config
        if config.fine_sensor is None:
            return super().traits
        side = config.fine_side // config.fine_pixels
        fine = {config.fine_sensor: config.encoder.width * side**2}
        needed = (config.fine_sensor,) if config.needs_fine else ()
        return replace(super().traits, fine=fine, needed=needed)

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode image patches; see `PatchLocal.encode_image`."""
        kept = name == self.config.fine_sensor
        return self._encoded(name, self.encoder.encode(name, pixels, kept=kept))

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        """Encode series of patches; see `PatchLocal.encode_series`."""
        kept = name == self.config.fine_sensor
        return self._encoded(name, self.encoder.encode(name, pixels, days, valid, kept=kept))

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
        grid: Grid | None = None,
    ) -> Dense:
        """Turn fused windows into logits; see `PatchLocal.decode`."""
        patches = torch.unflatten(fused[:, 1:], 1, grid or self.config.grid)  # (B, h, w, D)
        name = self.config.fine_sensor
        if self.config.needs_fine:
            assert name is not None
            return Dense(self._fine_logits(patches, fine[name]))
        assert self.coarse is not None
        coarse: Tensor = self.coarse(patches)
        if not fine_output:
            return Dense(coarse)
        times = self.config.fine_side // self.config.coarse_side
        coarse = coarse.repeat_interleave(times, 2).repeat_interleave(times, 3)
        if name is None or name not in fine:
            return Dense(coarse)
        logits = self._fine_logits(patches, fine[name])
        if bool(present[name].all()):
            return Dense(logits)
        where = torch.unflatten(present[name], 1, patches.shape[1:3])
        times = self.config.fine_side
        where = where.repeat_interleave(times, 1).repeat_interleave(times, 2)
        return Dense(torch.where(where.unsqueeze(1), logits, coarse))

    def _fine_logits(self, patches: Tensor, fine: Tensor) -> Tensor:
        """Join patches (B, h, w, D) to their sub-patches (B, P, D, f, f): (B, K, H, W)."""
        assert self.fine is not None
        cells = torch.unflatten(fine, 1, patches.shape[1:3]).permute(0, 1, 4, 2, 5, 3)
        cells = cells.flatten(3, 4).flatten(1, 2)  # (B, rows * f, cols * f, D)
        side = fine.shape[-1]
        own = patches.repeat_interleave(side, 1).repeat_interleave(side, 2)
        logits: Tensor = self.fine(torch.cat([own, cells], dim=-1))
        return logits

    def _encoded(self, name: str, patches: Patches) -> Encoded:
        if name != self.config.fine_sensor:
            return Encoded(patches.tokens)
        sensor = self.config.encoder.sensor(name)
        fine = cells_to_raster(patches.fine, sensor.cell_side).transpose(1, 2)  # (N, D, S)
        side = round(fine.shape[2] ** 0.5)
        return Encoded(patches.tokens, torch.unflatten(fine, 2, (side, side)))


def _window_token(tokens: Tensor, present: Tensor) -> Tensor:
    """Average the tokens (B, P, D) of the patches that are present (B, P): (B, 1, D)."""
    count = present.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
    held = tokens.masked_fill(~present.unsqueeze(2), 0.0)
    return held.sum(1, keepdim=True) / count.unsqueeze(2).to(tokens.dtype)
