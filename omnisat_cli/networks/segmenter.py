"""OmniSat with a dense head: the network of our own packs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from omnisat_cli.networks.configs import OmniSatConfig, build
from omnisat_cli.networks.heads import DenseHead, FineProjection
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.seam import Dense, Encoded, Traits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.networks.omnisat import Grid


@dataclass(frozen=True, slots=True)
class SegmenterConfig:
    """An OmniSat encoder with a dense head.

    Attributes:
        encoder: The encoder.
        classes: Classes of the map.
        coarse_side: Coarse pixels along a patch: 1 for 10 m patches and 4 for 40 m give 10 m.
        fine_channels: Channels of the finer maps kept a patch.
        head_width: Channels of the dense head's convolutions.
    """

    encoder: OmniSatConfig
    classes: int
    coarse_side: int = 1
    fine_channels: int = 16
    head_width: int = 32

    def __post_init__(self) -> None:
        """Refuse sizes that no head can have."""
        for name in ("classes", "coarse_side", "fine_channels", "head_width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"SegmenterConfig.{name} must be a whole number above 0: {value!r}"
                )

    @property
    def fine_sides(self) -> dict[str, int]:
        """Image modality to the side of its finer maps, pixels a patch."""
        return {part.name: part.fine_side for part in self.encoder.images}

    @property
    def fine_side(self) -> int:
        """Pixels along a patch at the finest output; `coarse_side` without image modalities."""
        return max(self.fine_sides.values(), default=self.coarse_side)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {**asdict(self), "encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> SegmenterConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        encoder = plain.get("encoder")
        if not isinstance(encoder, dict):
            raise ValueError(f"'encoder' must be a table, found {encoder!r}")
        return build(cls, {**plain, "encoder": OmniSatConfig.from_dict(encoder)})


class OmniSatSegmenter(nn.Module):
    """Encoder and dense head behind the `PatchLocal` interface.

    Args:
        config: Everything needed to build the network again.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = OmniSat(config.encoder)
        self.fine = nn.ModuleDict(
            {
                part.name: FineProjection(config.encoder.width, config.fine_channels)
                for part in config.encoder.images
            }
        )
        self.head = DenseHead(
            config.encoder.width,
            config.classes,
            coarse_side=config.coarse_side,
            fine_sides=config.fine_sides,
            channels=config.fine_channels,
            hidden=config.head_width,
        )

    @property
    def traits(self) -> Traits:
        """What to plan a run with."""
        config = self.config
        return Traits(
            config.encoder.width,
            {name: config.fine_channels * side**2 for name, side in config.fine_sides.items()},
            {part.name: part.patch_px for part in config.encoder.modalities},
        )

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode image patches; see `PatchLocal.encode_image`."""
        features = self.encoder.encode_image(name, pixels)
        return Encoded(features.token, self.fine[name](features))

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        """Encode series of patches; see `PatchLocal.encode_series`."""
        return Encoded(self.encoder.encode_series(name, pixels, days, valid))

    def fuse(
        self,
        tokens: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        grid: Grid | None = None,
    ) -> Tensor:
        """Fuse windows; see `PatchLocal.fuse`. `grid` when the window is not the configured one."""
        return self.encoder.fuse(tokens, present, grid=grid)

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
        grid = grid or self.config.encoder.grid
        logits = self.head.coarse_logits(fused, grid)
        if fine_output:
            logits = self.head.fine_logits(fused, fine, present, logits, grid)
        return self.head.dense(logits)

    def decode_both(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        grid: Grid | None = None,
    ) -> tuple[Dense, Dense]:
        """Return the coarse and the fine output of one pass, for training on both."""
        grid = grid or self.config.encoder.grid
        coarse = self.head.coarse_logits(fused, grid)
        logits = self.head.fine_logits(fused, fine, present, coarse, grid)
        return self.head.dense(coarse), self.head.dense(logits)
