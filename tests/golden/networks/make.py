"""Write the golden outputs of the networks: `python tests/golden/networks/make.py`.

Weights and inputs are drawn from names, so that only outputs are stored. Run it when a network is
meant to change, and say so in the commit.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig

FILE = Path(__file__).with_name("segmenter.json")
PATCHES, DATES = 12, 5


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normals that belong to a name."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))


def fill(network: nn.Module) -> None:
    """Draw every weight and statistic from its key."""
    for key, value in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        noise = drawn(key, tuple(value.shape))
        if key.endswith("running_var"):
            noise = (0.2 * noise).exp()
        elif value.dim() < 2:
            noise = 0.1 * noise + (1.0 if key.endswith("weight") else 0.0)
        else:
            noise = noise / max(value.numel() / value.shape[0], 4.0) ** 0.5
        value.copy_(noise)


def network() -> OmniSatSegmenter:
    """Build a geographic network of three modalities on a window that is not square."""
    series = {"widths_in": (16, 32), "widths_out": (32, 32), "heads": 4}
    parts = (
        ImageConfig("aerial", 4, 20),
        SeriesConfig("s2", 10, in_norm=True, **series),  # type: ignore[arg-type]
        SeriesConfig("s1", 2, **series),  # type: ignore[arg-type]
    )
    built = OmniSatSegmenter(SegmenterConfig(OmniSatConfig(32, 2, 4, (3, 4), parts), 3)).eval()
    with torch.no_grad():
        fill(built)
    return built


@torch.inference_mode()
def outputs() -> dict[str, list[float]]:
    """Run the network on drawn inputs with dates and patches missing."""
    built = network()
    days = torch.arange(DATES) * 60 + 15
    valid = drawn("valid", (PATCHES, DATES)) > -0.5
    valid[:, 1] = True
    image = built.encode_image("aerial", drawn("aerial", (PATCHES, 4, 20, 20)))
    tokens = {"aerial": image.tokens}
    for name, bands in (("s2", 10), ("s1", 2)):
        pixels = drawn(name, (PATCHES, DATES, bands, 1, 1))
        tokens[name] = built.encode_series(name, pixels, days, valid).tokens
    present = {name: drawn(f"{name} present", (1, PATCHES)) > -0.7 for name in tokens}
    fused = built.fuse({name: value[None] for name, value in tokens.items()}, present)
    assert image.fine is not None
    coarse, fine = built.decode_both(fused, {"aerial": image.fine[None]}, present)
    assert coarse.boundary is not None
    found = {f"token {name}": value[2, ::4] for name, value in tokens.items()}
    found |= {"fused": fused[0, ::3, ::8], "coarse": coarse.logits, "boundary": coarse.boundary}
    found["fine"] = fine.logits[0, :, ::7, ::9]
    return {key: value.flatten().tolist() for key, value in found.items()}


if __name__ == "__main__":
    rounded = {key: [round(x, 6) for x in values] for key, values in outputs().items()}
    FILE.write_text(json.dumps(rounded, indent=None, separators=(",", ":")) + "\n")
