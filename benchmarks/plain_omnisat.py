"""OmniSat read straight off its specification, and the plain loop over windows around it.

Nothing is folded, cached or shared: every window is cut from the inputs, every patch and every
date is encoded again in every window, keys are projected, the relative bias is gathered. Written
from the text of the specification, for windows in which every modality is there on every date.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import (
    batch_norm,
    conv2d,
    gelu,
    group_norm,
    interpolate,
    layer_norm,
    linear,
    max_pool2d,
)

SIDE, P, D, HEADS, DEPTH = 6, 36, 256, 16, 6
NAMES = ("aerial", "s2", "s1")


class PlainOmniSat:
    """The network as functions of its state dict."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.w = weights

    def window(self, pixels: dict[str, Tensor], days: dict[str, Tensor]) -> Tensor:
        """Return (K + 1, 150, 150) logits of one window, the boundary last."""
        tokens = {}
        tokens["aerial"], stem, middle = self.aerial(pixels["aerial"])
        for name in ("s2", "s1"):
            rows = pixels[name].flatten(2).permute(2, 0, 1)  # (P, T, C), row-major
            tokens[name] = self.series(name, rows, days[name])
        fused = self.fuse(tokens)
        return self.head(fused, stem, middle)

    def aerial(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode (4, 300, 300): tokens (P, D), maps (P, D, 25, 25) and (P, D, 12, 12)."""
        patches = image.view(4, SIDE, 50, SIDE, 50).permute(1, 3, 0, 2, 4).reshape(P, 4, 50, 50)
        k = "encoder.projector_aerial.proj"
        x = conv2d(patches, self.w[f"{k}.0.weight"], self.w[f"{k}.0.bias"], stride=2, padding=1)
        stem = gelu(self.norm(f"{k}.1", x))
        x = middle = self.residual(f"{k}.4", max_pool2d(stem, 2))
        x = self.residual(f"{k}.6", max_pool2d(x, 2))
        x = self.residual(f"{k}.8", max_pool2d(x, 2))
        return max_pool2d(x, 2).flatten(1), stem, middle

    def residual(self, k: str, x: Tensor) -> Tensor:
        """Y = GELU(x + N(conv2(GELU(N(conv1(x)))))), one group-norm used twice."""
        norm = (4, self.w[f"{k}.bn.weight"], self.w[f"{k}.bn.bias"])
        y = gelu(group_norm(conv2d(x, self.w[f"{k}.conv1.weight"], padding=1), *norm))
        return gelu(x + group_norm(conv2d(y, self.w[f"{k}.conv2.weight"], padding=1), *norm))

    def series(self, name: str, x: Tensor, days: Tensor) -> Tensor:
        """Encode (N, T, C) series."""
        k = f"encoder.projector_{name}"
        n, t, _ = x.shape
        x = x.reshape(n * t, -1)
        for i in (0, 4, 8):
            x = self.linear(f"{k}.inconv.{i}", x)
            x = self.norm(f"{k}.inconv.{i + 1}", x).relu()
        x = x.view(n, t, -1)
        if name == "s2":
            weight, bias = self.w[f"{k}.in_norm.weight"], self.w[f"{k}.in_norm.bias"]
            x = group_norm(x.transpose(1, 2), 16, weight, bias).transpose(1, 2)
        place = torch.arange(16)
        angle = days[:, None] / 367 ** (2 * (place // 2) / 16)
        x = x + torch.where(place % 2 == 0, angle.sin(), angle.cos()).float().repeat(1, 16)
        keys = self.linear(f"{k}.attention_heads.fc1_k", x).view(n, t, 16, 8)
        query = self.w[f"{k}.attention_heads.Q"]  # (16, 8)
        score = (keys * query).sum(-1) / math.sqrt(8)  # (N, T, 16)
        weight = score.softmax(1)
        values = x.view(n, t, 16, 16)
        y = (weight[..., None] * values).sum(1).flatten(1)
        for i in (0, 3, 6):
            y = self.linear(f"{k}.mlp.{i}", y)
            y = self.norm(f"{k}.mlp.{i + 1}", y).relu()
        return group_norm(y, 16, self.w[f"{k}.out_norm.weight"], self.w[f"{k}.out_norm.bias"])

    def fuse(self, tokens: dict[str, Tensor]) -> Tensor:
        """Fuse modalities: (1 + P, D)."""
        position = self.w["encoder.pos_embed"][0]
        parts = [self.w["encoder.cls_token"][0] + position[:1]]
        parts += [tokens[name] + position[1:] for name in NAMES]
        x = torch.cat(parts)  # (L, D)
        all_to_all = buckets(len(NAMES), len(NAMES))
        for b in range(DEPTH):
            k = f"encoder.blocks.{b}"
            y = self.layer(f"{k}.norm1", x)
            q, key, v = (
                self.linear(f"{k}.attn.qkv", y).view(len(x), 3, HEADS, -1).permute(1, 2, 0, 3)
            )
            q = q * q.shape[-1] ** -0.5
            y = self.attend(q, key, v, self.bias(f"{k}.attn", q, all_to_all))
            x = x + self.linear(f"{k}.attn.proj", y)
            x = x + self.mlp(k, x)
        k = f"encoder.blocks.{DEPTH}"
        context = self.layer(f"{k}.norm1", x)
        q = split(self.w[f"{k}.attn.q_learned"][0] + self.w[f"{k}.attn.pos_embed"][0])
        key, v = (split(self.linear(f"{k}.attn.{part}", context)) for part in ("wk", "wv"))
        bias = self.bias(f"{k}.attn", q, buckets(1, len(NAMES)))  # from the unscaled queries
        x = self.linear(f"{k}.attn.proj", self.attend(q * q.shape[-1] ** -0.5, key, v, bias))
        return x + self.mlp(k, x)

    def bias(self, k: str, q: Tensor, bucket: Tensor) -> Tensor:
        """bias[h, i, j] = sum_c q[h, i, c] table[c, bucket(i, j)]."""
        table = q @ self.w[f"{k}.rpe_k.lookup_table_weight"][0]  # (H, L, 8)
        return table.gather(2, bucket.expand(len(table), -1, -1))

    def attend(self, q: Tensor, key: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        """Attend and merge heads: (L, D)."""
        weight = (q @ key.transpose(1, 2) + bias).softmax(-1)
        return (weight @ v).transpose(0, 1).flatten(1)

    def mlp(self, k: str, x: Tensor) -> Tensor:
        """MLP behind its normalisation."""
        y = gelu(self.linear(f"{k}.mlp.fc1", self.layer(f"{k}.norm2", x)))
        return self.linear(f"{k}.mlp.fc2", y)

    def head(self, fused: Tensor, stem: Tensor, middle: Tensor) -> Tensor:
        """Dense head of omnisat: fused tokens as context of the encoder's finer maps."""
        fine = conv2d(stem, self.w["fine.aerial.stem.weight"], self.w["fine.aerial.stem.bias"])
        coarse = conv2d(middle, self.w["fine.aerial.middle.weight"])
        fine = fine + interpolate(coarse, size=(25, 25), mode="bilinear", align_corners=False)
        maps = fine.view(SIDE, SIDE, -1, 25, 25).permute(2, 0, 3, 1, 4).reshape(1, -1, 150, 150)
        context = self.linear("head.context", fused[1:]).T.reshape(1, -1, SIDE, SIDE)
        context = interpolate(context, size=(150, 150), mode="bilinear", align_corners=False)
        x = conv2d(maps, self.w["head.conv1.weight"], padding=1)
        x = (self.norm("head.norm1", x) + context).relu()
        x = conv2d(x, self.w["head.conv2.weight"], padding=1)
        x = self.norm("head.norm2", x).relu()
        return conv2d(x, self.w["head.last.weight"], self.w["head.last.bias"])[0]

    def linear(self, k: str, x: Tensor) -> Tensor:
        """Linear layer by its key."""
        return linear(x, self.w[f"{k}.weight"], self.w.get(f"{k}.bias"))

    def layer(self, k: str, x: Tensor) -> Tensor:
        """Layer-norm by its key."""
        return layer_norm(x, (D,), self.w[f"{k}.weight"], self.w[f"{k}.bias"], eps=1e-6)

    def norm(self, k: str, x: Tensor) -> Tensor:
        """Batch-norm by its key, with the statistics of training."""
        mean, var = self.w[f"{k}.running_mean"], self.w[f"{k}.running_var"]
        return batch_norm(x, mean, var, self.w[f"{k}.weight"], self.w[f"{k}.bias"])


def split(x: Tensor) -> Tensor:
    """(L, D) to (H, L, d)."""
    return x.view(len(x), HEADS, -1).transpose(0, 1)


def buckets(queries: int, keys: int) -> Tensor:
    """Bucket of every pair: true distances of patches, the class token apart."""
    cell = torch.arange(P)
    rows, cols = (cell // SIDE).double(), (cell % SIDE).double()
    r = torch.hypot(rows[:, None] - rows, cols[:, None] - cols).round()
    inside = torch.full((P, P), 6)
    inside[r == 0], inside[r == 1], inside[(r == 2) | (r == 3)] = 3, 4, 5
    whole = torch.full((1 + queries * P, 1 + keys * P), 7)
    whole[1:, 1:] = inside.repeat(queries, keys)
    return whole


def ramp(overlap: int, per_patch: int) -> Tensor:
    """Weight of a window along one axis, as omnisat blends."""
    size, rim = SIDE * per_patch, overlap * per_patch
    line = np.ones(size, np.float32)
    if rim:
        line[:rim] = (np.arange(rim) + 0.5) / rim
        line[size - rim :] = line[:rim][::-1]
    return torch.from_numpy(line)


def read_cube(path: Path, bands: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, C, H, W) float32 and (T,) days of the year."""
    with h5netcdf.File(path) as file:
        parts = []
        for band in bands:
            scale = np.float32(np.ravel(file[band].attrs.get("scale_factor", 1))[0])
            parts.append(file[band][:].astype(np.float32) * scale)
        first = np.datetime64(str(file["time"].attrs["units"]).split()[-1])
        dates = first + file["time"][:].astype("timedelta64[D]")
    year = dates.astype("datetime64[Y]").astype("datetime64[D]")
    return np.stack(parts, 1), (dates - year).astype(int) + 1


class Inputs:
    """Cubes in memory, the image read window by window, statistics of the pack."""

    def __init__(self, scene: Path, card: dict[str, list[dict[str, Any]]], margin: int) -> None:
        entries = {entry["name"]: entry for entry in card["modalities"]}
        self.mean = {n: torch.tensor(entries[n]["mean"]).view(-1, 1, 1) for n in NAMES}
        self.std = {n: torch.tensor(entries[n]["std"]).view(-1, 1, 1) for n in NAMES}
        self.cubes, self.days, self.margin = {}, {}, margin
        for name in ("s2", "s1"):
            cube, numbers = read_cube(scene / f"{name}.nc", tuple(entries[name]["bands"]))
            self.cubes[name], self.days[name] = torch.from_numpy(cube), torch.from_numpy(numbers)
        self.image = rasterio.open(scene / "aerial.tif")

    def window(self, row: int, col: int) -> dict[str, Tensor]:
        """Return the normalised pixels of one window; rows and columns count patches."""
        r, c = row + self.margin, col + self.margin
        image = self.image.read(window=Window(c * 50, r * 50, 300, 300))
        pixels = {name: cube[..., r : r + SIDE, c : c + SIDE] for name, cube in self.cubes.items()}
        pixels["aerial"] = torch.from_numpy(image).float()
        return {n: (value - self.mean[n]) / self.std[n] for n, value in pixels.items()}

    def write(self, path: Path, classes: np.ndarray) -> None:
        """Write the class map, 0.4 m."""
        shift = rasterio.Affine.translation(self.margin * 50, self.margin * 50)
        transform = self.image.transform * shift * rasterio.Affine.scale(2)
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": self.image.crs,
                   "width": classes.shape[1], "height": classes.shape[0], "tiled": True,
                   "nodata": 255, "compress": "deflate", "transform": transform}  # fmt: skip
        with rasterio.open(path, "w", **profile) as target:
            target.write(classes, 1)


@torch.no_grad()
def main() -> None:
    """Map an area window by window; optionally keep the logits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--margin-m", type=int, required=True)
    parser.add_argument("--side-m", type=int, required=True)
    parser.add_argument("--logits", type=Path, help="also save the blended logits here (.npy)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    card = json.loads((args.pack / "card.json").read_text())
    network = PlainOmniSat(load_file(args.pack / "weights.safetensors"))
    inputs = Inputs(args.scene, card, args.margin_m // 10)
    side, overlap = args.side_m // 10, card["window"]["overlap"]
    line = ramp(overlap, 25)
    weight = line[:, None] * line
    total = torch.zeros(card_classes(args.pack) + 1, side * 25, side * 25)
    spent = 0.0
    for row in range(-overlap, side, SIDE - overlap):
        for col in range(-overlap, side, SIDE - overlap):
            pixels = inputs.window(row, col)
            begin = time.process_time()
            logits = network.window(pixels, inputs.days)
            spent += time.process_time() - begin
            rows, target_rows = kept(row, side)
            cols, target_cols = kept(col, side)
            part = logits[:, rows, cols] * weight[rows, cols]
            total[:, target_rows, target_cols] += part
    inputs.write(args.out, total[:-1].argmax(0).numpy().astype(np.uint8))
    if args.logits:
        np.save(args.logits, total.numpy())
    print(json.dumps({"network_cpu_s": spent}))


def kept(start: int, side: int) -> tuple[slice, slice]:
    """Return the pixels of a window that lie in the area: in the window and in the area."""
    first, last = max(-start, 0) * 25, min(SIDE, side - start) * 25
    return slice(first, last), slice(start * 25 + first, start * 25 + last)


def card_classes(pack: Path) -> int:
    """Return the number of classes of a pack."""
    return len(json.loads((pack / "legend.json").read_text())["classes"])


if __name__ == "__main__":
    main()
