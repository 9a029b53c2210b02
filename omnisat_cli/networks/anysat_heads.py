"""Maps from AnySat's features: the published segmentation heads as one layer.

Source: AnySat (Astruc et al., CVPR 2025); key names follow the published code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Order = Literal["pixel", "class"]


class MapHead(nn.Module):
    """One linear layer a cell that gives the logits of all its pixels.

    On dense features with one pixel a cell it is the published crop head, with 10 pixels a cell the
    head of 0.2 m imagery; on patch features, `order="class"`, the published naive head.

    Args:
        width: Width of the features of a cell.
        classes: Classes K of the map.
        pixels: Pixels of the map along a cell.
        order: Which of pixels and classes is outermost among the outputs of the layer.
    """

    def __init__(self, width: int, classes: int, pixels: int = 1, order: Order = "pixel") -> None:
        super().__init__()
        self.classes, self.pixels, self.order = classes, pixels, order
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes * pixels**2))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, h, w, E) to logits (B, K, h * pixels, w * pixels)."""
        B, h, w, _ = features.shape
        n = self.pixels
        logits: Tensor = self.mlp(features)
        if self.order == "pixel":
            cells = logits.view(B, h, w, n, n, self.classes).permute(0, 5, 1, 3, 2, 4)
        else:
            cells = logits.view(B, h, w, self.classes, n, n).permute(0, 3, 1, 4, 2, 5)
        return torch.reshape(cells, (B, self.classes, h * n, w * n))
