"""Which classes a whole window holds: an encoder and a head on its class token.

As in the published experiments on TreeSatAI. Such a network labels places, and maps them as well:
what it says of a window is given to all of its ground, and the engine blends overlapping windows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isqrt
from typing import TYPE_CHECKING

from torch import Tensor, nn

from omnisat_cli.networks.anysat_segmenter import AnySatLayout, AnySatPatches
from omnisat_cli.networks.configs import OmniSatConfig, build
from omnisat_cli.networks.heads import TileHead
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.seam import Dense, Encoded, Traits

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
        _settle_hidden(self)

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


@dataclass(frozen=True, slots=True)
class AnySatTileConfig(AnySatLayout):
    """An AnySat encoder with a tile head.

    Attributes:
        hidden: Widths of the head's hidden layers after a normalisation; None = a plain linear
            layer. The published head has a normalisation and no hidden layer.
    """

    hidden: tuple[int, ...] | None = ()

    def __post_init__(self) -> None:
        """Refuse sizes that no head or window can have."""
        AnySatLayout.__post_init__(self)  # `super()` does not see through slots
        _settle_hidden(self)


def _settle_hidden(config: TileConfig | AnySatTileConfig) -> None:
    if config.hidden is not None:
        object.__setattr__(config, "hidden", tuple(config.hidden))
    sizes = (config.classes, *(config.hidden or ()))
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in sizes):
        raise ValueError(f"classes and hidden widths must be above 0, found {sizes}")


class _WholePlaces:
    """The half of a network that says what a fused window holds; a class may be there or not."""

    head: TileHead

    def label(self, fused: Tensor) -> Tensor:
        """Return the logits (B, K) of the classes a fused window (B, 1 + P, D) holds."""
        logits: Tensor = self.head(fused)
        return logits

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
    ) -> Dense:
        """Give the logits of a window to each of its patches; see `PatchLocal.decode`."""
        del fine, present, fine_output  # one answer a window is all there is
        side = isqrt(fused.shape[1] - 1)
        return Dense(self.label(fused)[:, :, None, None].expand(-1, -1, side, side))


class AnySatTile(_WholePlaces, AnySatPatches):
    """AnySat and a tile head.

    Args:
        config: Everything needed to build the network again.
    """

    def __init__(self, config: AnySatTileConfig) -> None:
        super().__init__(config)
        self.config = config
        self.head = TileHead(config.encoder.width, config.classes, config.hidden)


class OmniSatTile(_WholePlaces, nn.Module):
    """OmniSat and a tile head.

    Args:
        config: Everything needed to build the network again.
    """

    def __init__(self, config: TileConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = OmniSat(config.encoder)
        self.head = TileHead(config.encoder.width, config.classes, config.hidden)

    @property
    def traits(self) -> Traits:
        """What to plan a run with."""
        encoder = self.config.encoder
        pixels = {part.name: part.patch_px for part in encoder.modalities}
        return Traits(encoder.width, {}, pixels)

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


Tile = OmniSatTile | AnySatTile
"""A network that says which classes a whole place holds."""
