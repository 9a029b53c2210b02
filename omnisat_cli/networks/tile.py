"""OmniSat with a tile head: which classes a whole window holds, as in the published TreeSatAI."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from omnisat_cli.networks.configs import OmniSatConfig, build
from omnisat_cli.networks.heads import TileHead
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.seam import Encoded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.networks.omnisat import Grid


@dataclass(frozen=True, slots=True)
class TileConfig:
    """An OmniSat encoder with a tile head.

    Attributes:
        encoder: The encoder.
        classes: Labels.
        hidden: Widths of the head's hidden layers; None = a plain linear layer.
    """

    encoder: OmniSatConfig
    classes: int
    hidden: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that no head can have."""
        if self.hidden is not None:
            object.__setattr__(self, "hidden", tuple(self.hidden))
        sizes = (self.classes, *(self.hidden or ()))
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in sizes):
            raise ValueError(f"classes and hidden widths must be above 0, found {sizes}")

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {**asdict(self), "encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> TileConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        encoder = plain.get("encoder")
        if not isinstance(encoder, dict):
            raise ValueError(f"'encoder' must be a table, found {encoder!r}")
        return build(cls, {**plain, "encoder": OmniSatConfig.from_dict(encoder)})


class OmniSatTile(nn.Module):
    """Encoder and tile head; it labels windows and draws no map.

    Args:
        config: Everything needed to build the network again.
    """

    def __init__(self, config: TileConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = OmniSat(config.encoder)
        self.head = TileHead(config.encoder.width, config.classes, config.hidden)

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode image patches; see `PatchLocal.encode_image`."""
        return Encoded(self.encoder.encode_image(name, pixels).token)

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

    def label(self, fused: Tensor) -> Tensor:
        """Return the logits (B, K) of the classes a fused window (B, 1 + P, D) holds."""
        logits: Tensor = self.head(fused)
        return logits
