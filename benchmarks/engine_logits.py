"""Save the blended logits of a job, as the engine hands them to the labelling (K + 1, H, W).

Also the figures of the network at its best: folded modules on tensors that are in memory already.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.engine.encode import encode_sample
from omnisat_cli.engine.fuse import fuse_block, token_predictor, windows_with_data
from omnisat_cli.job import AreaRequest, Execution, Input, Job
from omnisat_cli.networks.seam import PatchLocal
from omnisat_cli.runners.local import load_block, load_mapper
from omnisat_cli.runners.setup import prepare

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from omnisat_cli.engine.fuse import Band


def main() -> None:
    """Run the engine on every block of a job and keep what it computed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("bbox", type=float, nargs=4)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    job = Job(
        inputs=(
            Input("aerial", (str(args.scene / "aerial.tif"),)),
            Input("s2", (str(args.scene / "s2.nc"),), (("cloud_mask", "none"),)),
            Input("s1", (str(args.scene / "s1.nc"),)),
        ),
        model=str(args.pack),
        out=Path("unused.tif"),
        area=AreaRequest(bbox=tuple(args.bbox)),
    )
    execution = Execution(device="cpu", threads=1)
    setup = prepare(job, execution)
    mapper = load_mapper(setup, execution)
    frame = setup.plan.area.refined(setup.recipe.refine)
    total: NDArray[np.float32] | None = None
    assert isinstance(mapper.network, PatchLocal)
    spent = 0.0
    for block in setup.plan.blocks:
        sample = load_block(setup, block).sample
        windows = windows_with_data(setup.plan.tiling, block, np.ones(block.reach.shape, bool))
        begin = time.process_time()
        with mapper.compute.inference():
            tokens = encode_sample(mapper.network, mapper.recipe, sample, mapper.compute)
            predict = token_predictor(mapper.network, mapper.recipe, tokens, block.reach)
            bands = fuse_block(predict, mapper.recipe, mapper.tiling, block, windows, 1)
            logits = _gathered(bands)
        spent += time.process_time() - begin
        if total is None:
            total = np.zeros((len(logits), *frame.shape), np.float32)
        total[:, *block.core.refined(setup.recipe.refine).slices_in(frame)] = logits.numpy()
    if args.out and total is not None:
        np.save(args.out, total)
    print(json.dumps({"network_cpu_s": spent}))


def _gathered(bands: Iterable[Band]) -> torch.Tensor:
    parts = []
    for band in bands:
        assert band.boundary is not None
        parts.append(torch.cat([band.logits, band.boundary[None]]).clone())
    return torch.cat(parts, dim=1)


if __name__ == "__main__":
    main()
