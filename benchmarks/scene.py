"""Make what the multimodal job needs: a simulated scene and a pack of the official size."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from omnisat_cli.learning.simulate import Scene, SceneSpec, sim_legend, simulate
from omnisat_cli.learning.simulate.files import write_scene
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.networks.configs import treesat_config
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
from omnisat_cli.packs.writer import empty_digest, write_pack

S2_DATES, S1_DATES = 36, 30
ORIGIN = (640_020, 6_860_040)
"""Upper left corner of the mapped area: a multiple of 60 m, so that no window is cut."""
MARGIN_M = 60
SIDE, PATCH_M = 6, 10
STATISTICS = {
    "aerial": ((100.0,) * 4, (50.0,) * 4),
    "s2": ((2000.0,) * 10, (1000.0,) * 10),
    "s1": ((-12.0, -19.0), (4.0, 4.0)),
}


def write_scene_files(folder: Path, side_m: int) -> None:
    """Write aerial 0.2 m, 36 Sentinel-2 and 30 Sentinel-1 dates of an area and a margin."""
    left, top = ORIGIN
    size = side_m + 2 * MARGIN_M
    spec = SceneSpec(3, size, size, aerial_gsd=0.2, origin=(left - MARGIN_M, top + MARGIN_M))
    write_scene(_thinned(simulate(spec)), folder)


def _thinned(scene: Scene) -> Scene:
    s2 = np.linspace(0, len(scene.s2_dates) - 1, S2_DATES).round().astype(int)
    s1 = np.linspace(0, len(scene.s1_dates) - 1, S1_DATES).round().astype(int)
    return replace(
        scene,
        s2=scene.s2[s2],
        scl=scene.scl[s2],
        s2_dates=scene.s2_dates[s2],
        s1=scene.s1[s1],
        s1_dates=scene.s1_dates[s1],
        s1_orbit=scene.s1_orbit[s1],
    )


def write_omnisat_pack(folder: Path, overlap: int) -> None:
    """Write the TreeSat configuration with a dense head, random weights, windows of 60 m."""
    torch.manual_seed(0)
    encoder = replace(treesat_config(("aerial", "s2", "s1"), side=SIDE), position="geographic")
    config = SegmenterConfig(encoder, classes=len(sim_legend().classes))
    network = OmniSatSegmenter(config)
    with torch.no_grad():  # parameters that start at zero would hide mistakes
        for name, value in network.named_parameters():
            if "lookup_table" in name or name.endswith("bias"):
                value.normal_(0, 0.05)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    gsds = {"aerial": 0.2, "s2": 10.0, "s1": 10.0}
    bands = {"aerial": ("R", "G", "B", "NIR"), "s2": S2_BANDS, "s1": ("VV", "VH")}
    units: dict[str, Literal["dn8", "reflectance_1e4", "db"]] = {
        "aerial": "dn8",
        "s2": "reflectance_1e4",
        "s1": "db",
    }
    card = Card(
        name=f"bench-omnisat-{overlap}",
        version="1",
        summary="benchmark",
        licence="MIT",
        source="benchmarks/scene.py",
        training="none: random weights",
        limits="says nothing about the ground",
        network=NetworkCard(kind="omnisat", config=config.to_dict()),
        modalities=tuple(
            ModalityCard(
                name=name,
                bands=bands[name],
                gsd=gsds[name],
                units=units[name],
                mean=mean,
                std=std,
                dates=None if name == "aerial" else "day-of-year",
            )
            for name, (mean, std) in STATISTICS.items()
        ),
        fine_m=0.4,
        window=WindowCard(size=SIDE, overlap=overlap, cell=SIDE),
        boundary=True,
        legend=f"{sim_legend().id}@{sim_legend().version}",
        weights_sha256=empty_digest(),
    )
    write_pack(folder, card, sim_legend().to_json(), network.state_dict())


def main() -> None:
    """Write a scene or the packs without and with 50 % overlap."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--side-m", type=int, default=240)
    parser.add_argument("--packs", type=Path)
    args = parser.parse_args()
    if args.scene:
        write_scene_files(args.scene, args.side_m)
    if args.packs:
        write_omnisat_pack(args.packs / "overlap-0", 0)
        write_omnisat_pack(args.packs / "overlap-50", SIDE // 2)


if __name__ == "__main__":
    main()
