"""Several series side by side, fused late: the baseline of Sentinel-1 with Sentinel-2.

Each series has a U-TAE of its own; their maps of features are joined just before the classes.

Source: late fusion as in "Multi-Modal Temporal Attention Models for Crop Mapping from Satellite
Time Series" (Garnot, Landrieu and Chehata, 2022), with features that are zero where a series
has no date.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from omnisat_cli.networks.configs import build
from omnisat_cli.networks.seam import Dense
from omnisat_cli.networks.utae import UTAE, UtaeConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class DualStreamConfig:
    """Several U-TAE and what joins them.

    Attributes:
        streams: One for each series; their `out_widths` are not used.
        classes: Classes of the map.
        width: Channels after the features are joined.
    """

    streams: tuple[UtaeConfig, ...]
    classes: int
    width: int = 32

    def __post_init__(self) -> None:
        """Refuse what cannot be joined."""
        object.__setattr__(self, "streams", tuple(self.streams))
        names = self.modalities
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError(f"two or more different series are needed, found {names}")
        for size in (self.classes, self.width):
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"classes and width must be whole numbers above 0, found {size!r}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The series, in the order of the streams."""
        return tuple(stream.modality for stream in self.streams)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {**asdict(self), "streams": [stream.to_dict() for stream in self.streams]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> DualStreamConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        streams = plain.get("streams")
        if not isinstance(streams, list | tuple):
            raise ValueError(f"'streams' must be a list, found {streams!r}")
        return build(cls, {**plain, "streams": tuple(UtaeConfig.from_dict(s) for s in streams)})


class DualStream(nn.Module):
    """A `WindowBased` network of several series, any of which may be missing anywhere.

    Args:
        config: Everything needed to build the network again.
    """

    def __init__(self, config: DualStreamConfig) -> None:
        super().__init__()
        self.config = config
        self.streams = nn.ModuleDict()
        for part in config.streams:
            stream = UTAE(part)
            stream.out_conv = nn.Identity()  # type: ignore[assignment] # its features are wanted
            self.streams[part.modality] = stream
        features = sum(part.decoder_widths[0] for part in config.streams)
        self.join = nn.Sequential(
            nn.Conv2d(features, config.width, 3, padding=1, bias=False),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(config.width, config.classes, 1)

    def predict(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor],
    ) -> Dense:
        """Predict windows; see `WindowBased.predict`. A series may be missing.

        Raises:
            ValueError: If every series is.
        """
        given = [name for name in self.config.modalities if name in pixels]
        if not given:
            raise ValueError(f"none of {', '.join(self.config.modalities)} is given")
        B, _, _, *size = pixels[given[0]].shape
        maps = []
        for part in self.config.streams:
            name = part.modality
            if name not in pixels:
                empty = (B, part.decoder_widths[0], *size)
                maps.append(pixels[given[0]].new_zeros(empty))
                continue
            maps.append(self._features(name, pixels, days, valid.get(name)))
        logits: Tensor = self.last(self.join(torch.cat(maps, 1)))
        return Dense(logits)

    def _features(
        self,
        name: str,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Tensor | None,
    ) -> Tensor:
        """Return the features (B, C, H, W) of a series, zero at pixels without any date."""
        stream = self.streams[name]
        assert isinstance(stream, UTAE)
        flags = {} if valid is None else {name: valid}
        features = stream.predict(pixels, days, flags).logits
        if valid is None:
            return features
        return features.masked_fill(~valid.any(1).unsqueeze(1), 0.0)
