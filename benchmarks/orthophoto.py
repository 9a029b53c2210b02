"""Make what the one-image job needs: an orthophoto and two packs (a U-Net, a null network)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

from omnisat_cli.networks.unet import UNet, UNetConfig
from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
from omnisat_cli.packs.writer import empty_digest, write_pack

GSD = 0.2
PATCH_PX = 128
"""A "patch" of these packs is 25.6 m, so that windows are 4 patches = 512 px, stride 384 px."""
CLASSES = 19
_COLUMN, _ROW = 3 * 8333 + 1, -3 * 83333 + 1  # first patch of the image, from the CRS origin


def write_orthophoto(path: Path, side: int) -> None:
    """Write (4, side, side) uint8 of smooth noise at 0.2 m, tiled and deflated."""
    rng = np.random.default_rng(side)
    transform = Affine(GSD, 0, _COLUMN * PATCH_PX * GSD, 0, -GSD, -_ROW * PATCH_PX * GSD)
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 4, "dtype": "uint8",
        "crs": "EPSG:2154", "transform": transform, "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "zlevel": 1, "interleave": "pixel",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        for row in range(0, side, 512):
            rows = min(512, side - row)
            # Noise of 8 px and of 64 px, 256 levels, repeated: it compresses like an image.
            fine = rng.integers(0, 60, (4, rows // 8 + 1, side // 8 + 1))
            broad = rng.integers(1, 195, (4, rows // 64 + 1, side // 64 + 1))
            image = _spread(fine, 8, rows, side) + _spread(broad, 64, rows, side)
            window = rasterio.windows.Window(0, row, side, rows)
            target.write(image.astype(np.uint8), window=window)
        target.descriptions = ("red", "green", "blue", "nir")


def _spread(cells: np.ndarray, times: int, rows: int, cols: int) -> np.ndarray:
    return cells.repeat(times, 1).repeat(times, 2)[:, :rows, :cols]


def write_packs(folder: Path) -> None:
    """Write `unet` (random weights) and `null` (its weights are one number that nobody reads)."""
    torch.manual_seed(0)
    config = UNetConfig(bands=4, classes=CLASSES)
    network = UNet(config)
    network.train()
    with torch.no_grad():  # batch-norms see values of the right size once
        network(torch.randn(2, 4, 256, 256))
    write_pack(folder / "unet", _card("bench-unet", config, 100.0, 50.0), _legend(),
               network.state_dict())  # fmt: skip
    write_pack(folder / "null", _card("bench-null", config, 0.0, 1.0), _legend(),
               {"unused": torch.zeros(1)})  # fmt: skip


def _card(name: str, config: UNetConfig, mean: float, std: float) -> Card:
    return Card(
        name=name,
        version="1",
        summary="benchmark",
        licence="MIT",
        source="benchmarks/orthophoto.py",
        training="none: random weights",
        limits="says nothing about the ground",
        network=NetworkCard(kind="unet", config=config.to_dict()),
        modalities=(
            ModalityCard(
                name="aerial",
                bands=("R", "G", "B", "NIR"),
                gsd=GSD,
                units="dn8",
                mean=(mean,) * 4,
                std=(std,) * 4,
            ),
        ),
        patch_m=GSD * PATCH_PX,
        coarse_m=GSD * PATCH_PX,
        fine_m=GSD,
        window=WindowCard(size=4, overlap=1, cell=1),
        legend="bench@1",
        weights_sha256=empty_digest(),
    )


def _legend() -> dict[str, object]:
    classes = [
        {
            "code": code,
            "name_en": f"class {code}",
            "name_fr": f"classe {code}",
            "color": f"#{code * 13:02x}{255 - code * 13:02x}80",
        }
        for code in range(CLASSES)
    ]
    return {
        "id": "bench",
        "version": "1",
        "source": "benchmarks/orthophoto.py",
        "licence": "CC0-1.0",
        "classes": classes,
    }


def main() -> None:
    """Write an image or the packs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--packs", type=Path)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--side", type=int, default=5000)
    args = parser.parse_args()
    if args.packs:
        write_packs(args.packs)
    if args.image:
        write_orthophoto(args.image, args.side)


if __name__ == "__main__":
    main()
