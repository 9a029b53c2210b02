"""The plain loop: read a window, run the network, take the best class, keep the centre.

What one writes without omnisat: rasterio, torch, one pass, the class map in memory, one GeoTIFF at
the end. With `--blend` the overlaps are blended instead (logits of all classes accumulated for the
whole image, the same ramps as omnisat) and the map is the same as omnisat's but for rounding.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from safetensors.torch import load_file

from omnisat_cli.networks.unet import UNet, UNetConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE, STRIDE, CLASSES = 512, 384, 19
HALO = (SIZE - STRIDE) // 2

Network = Callable[[torch.Tensor], torch.Tensor]
Windows = Iterator[tuple[int, int, torch.Tensor]]


def load(pack: Path) -> torch.nn.Module:
    """Return the U-Net of a pack, as trained."""
    network = UNet(UNetConfig(bands=4, classes=CLASSES))
    network.load_state_dict(load_file(pack / "weights.safetensors"))
    return network.eval()


def null(image: torch.Tensor) -> torch.Tensor:
    """First band modulo the classes, as one-hot logits."""
    code = image[:, :1].to(torch.int64).remainder_(CLASSES)
    return torch.zeros(len(image), CLASSES, *image.shape[2:]).scatter_(1, code, 1.0)


def predict_windows(source: rasterio.DatasetReader, network: Network, mean: float,
                    std: float, phase: int) -> Windows:  # fmt: skip
    """Yield every window with its logits (K, 512, 512); outside the image pixels are zero."""
    for row in range(-phase, source.height - phase, STRIDE):
        for col in range(-phase, source.width - phase, STRIDE):
            top, left = max(row, 0), max(col, 0)
            bottom, right = min(row + SIZE, source.height), min(col + SIZE, source.width)
            image = np.zeros((4, SIZE, SIZE), np.float32)
            if bottom > top and right > left:
                inside = Window(left, top, right - left, bottom - top)
                pixels = (source.read(window=inside).astype(np.float32) - mean) / std
                image[:, top - row : bottom - row, left - col : right - col] = pixels
            yield row, col, network(torch.from_numpy(image)[None])[0]


def crop_map(source: rasterio.DatasetReader, windows: Windows) -> NDArray[np.uint8]:
    """Keep the centre of every window, and the rims at the edges of the image."""
    classes = np.zeros((source.height, source.width), np.uint8)
    for row, col, logits in windows:
        best = logits.argmax(0).numpy().astype(np.uint8)
        top, left = (0 if row <= 0 else HALO), (0 if col <= 0 else HALO)
        top, left = max(top, -row), max(left, -col)
        bottom, right = min(SIZE, source.height - row), min(SIZE, source.width - col)
        classes[row + top : row + bottom, col + left : col + right] = best[top:bottom, left:right]
    return classes


def blend_map(source: rasterio.DatasetReader, windows: Windows) -> NDArray[np.uint8]:
    """Blend the overlaps linearly, then take the best class."""
    overlap = SIZE - STRIDE
    ramp = np.ones(SIZE, np.float32)
    ramp[:overlap] = (np.arange(overlap) + 0.5) / overlap
    ramp[SIZE - overlap :] = ramp[:overlap][::-1]
    weight = torch.from_numpy(np.outer(ramp, ramp))
    total = torch.zeros(CLASSES, source.height, source.width)
    for row, col, logits in windows:
        top, left = max(-row, 0), max(-col, 0)
        bottom, right = min(SIZE, source.height - row), min(SIZE, source.width - col)
        if bottom <= top or right <= left:
            continue
        part = (slice(top, bottom), slice(left, right))
        total[:, row + top : row + bottom, col + left : col + right] += (
            logits[:, *part] * weight[part]
        )
    return np.asarray(total.argmax(0).numpy(), np.uint8)


@torch.no_grad()
def main() -> None:
    """Map an image."""
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pack", type=Path, help="pack of a U-Net; without: the null network")
    parser.add_argument("--blend", action="store_true")
    parser.add_argument("--phase", type=int, default=0, help="pixels before the image")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network: Network = load(args.pack) if args.pack else null
    mean, std = (100.0, 50.0) if args.pack else (0.0, 1.0)
    with rasterio.open(args.image) as source:
        windows = predict_windows(source, network, mean, std, args.phase)
        classes = (blend_map if args.blend else crop_map)(source, windows)
        profile = {**source.profile, "count": 1, "nodata": 255, "compress": "deflate"}
    with rasterio.open(args.out, "w", **profile) as target:
        target.write(classes, 1)


if __name__ == "__main__":
    main()
