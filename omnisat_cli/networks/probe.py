"""What stands on the fused tokens of any patch-local network: the tokens themselves, or a head.

Both give one vector a patch and nothing finer, so the engine encodes each patch once and blends
overlapping windows as it does for maps. A linear head and the blending are both linear: a map of
`Probe` is its head applied to the embeddings that `FusedTokens` writes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isqrt
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from omnisat_cli.networks.configs import build
from omnisat_cli.networks.seam import Dense, Encoded, HasTraits, PatchLocal, Traits

if TYPE_CHECKING:
    from collections.abc import Mapping

    Grid = tuple[int, int]


KIND = "probe"
"""Name of `Probe` in the table of networks."""


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """A network and a linear head on its fused tokens.

    Attributes:
        base: Entry of the table of networks: its encoder and fusion are used.
        base_config: Configuration of that network.
        classes: Classes of the map.
        width: Width of a token of the base.
    """

    base: str
    base_config: Mapping[str, object]
    classes: int
    width: int

    def __post_init__(self) -> None:
        """Refuse what no head can have."""
        for name in ("classes", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"ProbeConfig.{name} must be a whole number above 0: {value!r}")
        if self.base == KIND or not isinstance(self.base_config, dict):
            raise ValueError(f"a probe stands on another network, found {self.base!r}")

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> ProbeConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        return build(cls, plain)


class FusedTokens(nn.Module):
    """A network whose logits are the fused tokens of another one, (B, D, h, w).

    Args:
        base: A patch-local network; its decoder is never run.
    """

    def __init__(self, base: PatchLocal) -> None:
        super().__init__()
        if not isinstance(base, nn.Module):
            raise TypeError(f"{type(base).__name__} is no module")
        self.base = base

    @property
    def traits(self) -> Traits:
        """What to plan with: nothing finer than tokens is kept."""
        own = self.base.traits if isinstance(self.base, HasTraits) else Traits()
        return Traits(own.width, {}, own.pixels)

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode image patches; see `PatchLocal.encode_image`."""
        return Encoded(cast("PatchLocal", self.base).encode_image(name, pixels).tokens)

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        """Encode series of patches; see `PatchLocal.encode_series`."""
        base = cast("PatchLocal", self.base)
        return Encoded(base.encode_series(name, pixels, days, valid).tokens)

    def fuse(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Fuse windows; see `PatchLocal.fuse`."""
        return cast("PatchLocal", self.base).fuse(tokens, present)

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
    ) -> Dense:
        """Lay the fused patches out on their grid; see `PatchLocal.decode`."""
        del fine, present, fine_output  # one vector a patch is all there is
        return Dense(_on_grid(fused))


class Probe(FusedTokens):
    """Another network's encoder and fusion, and a linear head on its fused tokens.

    Args:
        config: Everything needed to build the network again.
        base: The network of `config.base` to stand on.

    Raises:
        ValueError: If that network sees whole windows.
    """

    def __init__(self, config: ProbeConfig, base: nn.Module) -> None:
        if not isinstance(base, PatchLocal):
            raise ValueError(f"a {config.base} network sees whole windows: no probe stands on it")
        super().__init__(base)
        self.config = config
        self.head = nn.Linear(config.width, config.classes)

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
    ) -> Dense:
        """Turn fused windows into logits of whole patches; see `PatchLocal.decode`."""
        del fine, present, fine_output  # patches are the finest a probe knows
        return Dense(_on_grid(self.head(fused)))


def _on_grid(fused: Tensor) -> Tensor:
    """Turn (B, 1 + P, D) into (B, D, h, w) without the class token; windows are square."""
    side = isqrt(fused.shape[1] - 1)
    B, _, D = fused.shape
    return fused[:, 1:].transpose(1, 2).reshape(B, D, side, side)
