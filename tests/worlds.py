"""Small worlds for engine tests: sources made of arrays, cards and toy networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from omnisat_cli.engine.device import Compute
from omnisat_cli.engine.recipe import Feed, Recipe
from omnisat_cli.geo.lattice import Window
from omnisat_cli.networks.seam import Dense, Encoded
from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
from omnisat_cli.sources.values import Image, Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CPU = Compute(torch.device("cpu"), windows=2, cells=1)
EXTENT = Window(-40, 16, 40, 48)
"""Ground on which the worlds have data, in anchor pixels."""


@dataclass(frozen=True)
class World:
    """Data over `extent`; `read` cuts a window, ground outside is not valid."""

    extent: Window
    aerial: NDArray[np.uint8] | None = None
    aerial_valid: NDArray[np.bool_] | None = None
    s2: NDArray[np.float32] | None = None
    s2_valid: NDArray[np.bool_] | None = None
    s2_clouded: NDArray[np.bool_] | None = None
    dates: NDArray[np.datetime64] = field(
        default_factory=lambda: np.array([], dtype="datetime64[D]")
    )
    aerial_refine: int = 4

    def read(self, window: Window) -> dict[str, Image | Series]:
        data: dict[str, Image | Series] = {}
        if self.aerial is not None:
            valid = self.aerial_valid
            if valid is None:
                valid = np.ones(self.aerial.shape[1:], bool)
            data["aerial"] = Image(
                self._cut(self.aerial, window, self.aerial_refine),
                self._cut(valid, window, self.aerial_refine),
            )
        if self.s2 is not None and self.s2_valid is not None:
            clouded = self.s2_clouded
            if clouded is None:
                clouded = np.zeros_like(self.s2_valid)
            data["s2"] = Series(
                self._cut(self.s2, window, 1),
                self.dates,
                self._cut(self.s2_valid, window, 1),
                self._cut(clouded, window, 1),
            )
        return data

    def _cut(self, array: NDArray, window: Window, n: int) -> NDArray:
        out = np.zeros((*array.shape[:-2], *window.refined(n).shape), array.dtype)
        common = window.intersection(self.extent).refined(n)
        if not common.is_empty:
            target = common.slices_in(window.refined(n))
            source = common.slices_in(self.extent.refined(n))
            out[(..., *target)] = array[(..., *source)]
        return out


def random_world(seed: int, extent: Window = EXTENT, dates: int = 5) -> World:
    """A world of noise with clouds, an aerial gap and missing dates."""
    rng = np.random.default_rng(seed)
    h, w = extent.shape
    s2 = rng.normal(2000, 500, (dates, 2, h, w)).astype(np.float32)
    valid = rng.random((dates, h, w)) < 0.6
    aerial = rng.integers(0, 255, (1, 4 * h, 4 * w), dtype=np.uint8)
    aerial_valid = np.ones((4 * h, 4 * w), bool)
    aerial_valid[:, 4 * (w - 11) :] = False
    days = np.datetime64("2024-03-01") + 13 * np.arange(dates)
    return World(extent, aerial, aerial_valid, s2 * valid[:, None], valid, ~valid, days)


def card(**changes: object) -> Card:
    """A card with a 4 px aerial band and two S2 bands, three classes."""
    base: dict[str, object] = {
        "name": "toy",
        "version": "1",
        "summary": "toy",
        "licence": "MIT",
        "source": "test",
        "training": "none",
        "limits": "none",
        "network": NetworkCard(kind="toy", config={}),
        "modalities": (
            ModalityCard(
                name="aerial", bands=("R",), gsd=2.5, units="dn8", mean=(0.0,), std=(1.0,)
            ),
            ModalityCard(
                name="s2",
                bands=("B02", "B03"),
                gsd=10,
                units="reflectance_1e4",
                mean=(2000.0, 2000.0),
                std=(500.0, 500.0),
                dates="day-of-year",
            ),
        ),
        "fine_m": 2.5,
        "window": WindowCard(size=6, overlap=2, cell=4),
        "legend": "toy@1",
        "weights_sha256": "0" * 64,
    }
    return Card.model_validate(base | changes)


def recipe(*names: str, toy: Card | None = None, **changes: object) -> Recipe:
    """A recipe of some of the modalities of `card`."""
    toy = toy or card()
    feeds = tuple(
        Feed(entry, tuple(range(len(entry.bands))), 4 if entry.name == "aerial" else 1)
        for entry in toy.modalities
        if entry.name in names
    )
    fine = "aerial" in names
    options = {"codes": (3, 7, 9), "refine": 4 if fine else 1, "fine": fine} | changes
    return Recipe(card=toy, feeds=feeds, **options)


class ToyNetwork:
    """Patch-local: logits are sums of what is present; no weights."""

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        mean = pixels.mean(dim=(1, 2, 3))[:, None] / 100
        return Encoded(mean, pixels / 100)

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        weight = valid[:, :, None] * (1 + days.expand(valid.shape)[:, :, None] / 366)
        total = (pixels[..., 0, 0] * weight).sum(1) / weight.sum(1)
        return Encoded(total.mean(1, keepdim=True))

    def fuse(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        masked = [tokens[name] * present[name][..., None] for name in tokens]
        total = torch.stack(masked).sum(0)
        # Context: every patch hears a little of the whole window.
        total = total + 0.1 * total.mean(dim=1, keepdim=True)
        return torch.cat([total[:, :1], total], dim=1)

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
    ) -> Dense:
        side = round((fused.shape[1] - 1) ** 0.5)
        grid = fused[:, 1:, 0].reshape(-1, side, side)
        if fine_output:
            grid = grid.repeat_interleave(4, 1).repeat_interleave(4, 2)
            for features in fine.values():
                rows = features[:, :, 0].reshape(-1, side, side, 4, 4)
                grid = grid + rows.permute(0, 1, 3, 2, 4).reshape(grid.shape)
        return Dense(torch.stack([grid, -grid, 0.5 - grid.abs()], dim=1), grid)


class IdentityNetwork:
    """Window-based: the class of a pixel is its value."""

    def predict(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor],
    ) -> Dense:
        values = pixels["aerial"][:, 0]
        classes = torch.arange(3).view(1, 3, 1, 1)
        return Dense(-((values[:, None] - classes) ** 2))
