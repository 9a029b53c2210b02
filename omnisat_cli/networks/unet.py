"""A plain U-Net on one image modality: the window-based baseline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.configs import build
from omnisat_cli.networks.seam import Dense

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """A U-Net.

    Attributes:
        modality: Image modality it reads.
        bands: Bands of the image.
        classes: Classes of the map.
        widths: Channels of the levels, finest first; each level halves the map.
    """

    modality: str = "aerial"
    bands: int = 4
    classes: int = 19
    widths: tuple[int, ...] = (16, 32, 64, 128, 176)

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        object.__setattr__(self, "widths", tuple(self.widths))
        sizes = (self.bands, self.classes, *self.widths)
        if len(self.widths) < 2 or any(not isinstance(n, int) or n < 1 for n in sizes):
            raise ValueError(f"bands, classes and at least two widths above 0, found {sizes}")

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> UNetConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or a value has the wrong type or range.
        """
        return build(cls, plain)


class _Level(nn.Sequential):
    """Two 3 x 3 convolutions, each with batch-norm and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        layers: list[nn.Module] = []
        for width in (before, after):
            layers += [
                nn.Conv2d(width, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """Encoder and decoder with skips; `forward` keeps the size of the window."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.down = nn.ModuleList(
            _Level(before, after)
            for before, after in zip((config.bands, *widths[:-1]), widths, strict=True)
        )
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.widen = nn.ModuleList(
            nn.ConvTranspose2d(deep, out, 2, stride=2) for deep, out in pairs
        )
        self.up = nn.ModuleList(_Level(2 * out, out) for _, out in pairs)
        self.last = nn.Conv2d(widths[0], config.classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Segment (B, C, h, w) images into (B, K, h, w) logits; any h and w."""
        step = 2 ** (len(self.down) - 1)
        height, width = image.shape[-2:]
        x = functional.pad(image, (0, -width % step, 0, -height % step))
        skips = []
        for level, down in enumerate(self.down):
            x = down(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for widen, up, skip in zip(self.widen, self.up, skips[-2::-1], strict=True):
            x = up(torch.cat([skip, widen(x)], dim=1))
        logits: Tensor = self.last(x)
        return logits[..., :height, :width]

    def predict(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],  # noqa: ARG002 - images have no days
        valid: Mapping[str, Tensor],
    ) -> Dense:
        """Predict windows; see `WindowBased.predict`. Pixels that are not valid count as zero."""
        image = pixels[self.config.modality]
        flags = valid.get(self.config.modality)
        if flags is not None and not bool(flags.all()):
            image = image.masked_fill(~flags.unsqueeze(1), 0.0)
        return Dense(self(image))
