"""For tests of the command line: a tiny pack with random weights and a tiny scene."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import rioxarray  # noqa: F401 - gives cubes their .rio
import torch
import xarray as xr
from typer.testing import CliRunner

from omnisat_cli.cli.app import app
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
from omnisat_cli.packs.writer import empty_digest, write_pack

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.outputs.legend import Legend

LEFT, TOP, SIDE_M = 650_000, 6_830_000, 240
CLASSES = ("building", "field", "forest")
LEGEND: dict[str, object] = {
    "id": "tiny",
    "version": "1",
    "source": "made for tests",
    "licence": "MIT",
    "classes": [
        {"code": code, "name_en": name, "name_fr": name, "color": color}
        for code, (name, color) in enumerate(
            zip(CLASSES, ("#aa0000", "#00aa00", "#0000aa"), strict=True)
        )
    ],
}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


def omnisat(*words: object) -> Outcome:
    """Run a command in this process, and leave logging as it was."""
    logger = logging.getLogger("omnisat_cli")
    level, handlers = logger.level, list(logger.handlers)
    try:
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    finally:
        logger.setLevel(level)
        logger.handlers = handlers
        logging.captureWarnings(False)
    return Outcome(result.exit_code, result.stdout, result.stderr)


def tiny_card(classes: int = len(CLASSES), **changes: object) -> Card:
    """Return the card of a network with aerial (2.5 m), s2 and s1."""
    series = {"widths_in": (8, 16), "widths_out": (16, 16), "heads": 4, "key_width": 4}
    config = SegmenterConfig(
        encoder=OmniSatConfig(
            width=16,
            depth=1,
            heads=2,
            grid=(8, 8),
            modalities=(
                ImageConfig("aerial", 4, 8),
                SeriesConfig("s2", len(S2_BANDS), in_norm=True, **series),
                SeriesConfig("s1", 2, **series),
            ),
        ),
        classes=classes,
        fine_channels=4,
        head_width=8,
    )
    plain: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "summary": "random weights",
        "licence": "MIT",
        "source": "made for tests",
        "training": "none",
        "limits": "none of its classes mean anything",
        "network": NetworkCard(kind="omnisat", config=config.to_dict()),
        "modalities": (
            _modality("aerial", ("R", "G", "B", "NIR"), 1.25, "dn8", (120.0, 50.0)),
            _modality("s2", S2_BANDS, 10.0, "reflectance_1e4", (2000.0, 1000.0)),
            _modality("s1", ("VV", "VH"), 10.0, "db", (-14.0, 4.0)),
        ),
        "fine_m": 2.5,
        "window": WindowCard(size=8, overlap=2, cell=4),
        "boundary": True,
        "legend": "tiny@1",
        "scores": {"nothing": {"aerial+s2+s1": {"mIoU": 12.5, "F1 field": 20.0}}},
        "weights_sha256": empty_digest(),
    }
    return Card.model_validate(plain | changes)


def _modality(
    name: str, bands: tuple[str, ...], gsd: float, units: str, numbers: tuple[float, float]
) -> ModalityCard:
    mean, std = numbers
    return ModalityCard.model_validate(
        {
            "name": name,
            "bands": bands,
            "gsd": gsd,
            "units": units,
            "mean": (mean,) * len(bands),
            "std": (std,) * len(bands),
            "dates": None if name == "aerial" else "day-of-year",
        }
    )


def tiny_weights(card: Card) -> dict[str, torch.Tensor]:
    """Return weights that are the same in every run."""
    torch.manual_seed(0)
    network = OmniSatSegmenter(SegmenterConfig.from_dict(card.network.config))
    return network.state_dict()


def write_tiny_pack(folder: Path, legend: Legend | None = None) -> Path:
    """Write the pack, with another legend if one is given, and return its folder."""
    card, content = tiny_card(), LEGEND
    if legend is not None:
        card, content = tiny_card(len(legend.classes), legend=legend.label), legend.to_json()
    write_pack(folder, card, content, tiny_weights(card))
    return folder


def write_aerial(path: Path, side_m: int = SIDE_M, crs: str | None = "EPSG:2154") -> Path:
    """Write an RGB + NIR image of 2.5 m pixels."""
    side = round(side_m / 1.25)
    pixels = np.random.default_rng(0).integers(1, 255, (4, side, side), dtype=np.uint8)
    profile = {
        "driver": "GTiff",
        "width": side,
        "height": side,
        "count": 4,
        "dtype": "uint8",
        "crs": crs,
        "transform": rasterio.Affine(1.25, 0, LEFT, 0, -1.25, TOP),
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.descriptions = ("R", "G", "B", "NIR")
    return path


def write_cube(path: Path, bands: tuple[str, ...], low: float, high: float) -> Path:
    """Write a netCDF cube as odc-stac does, with six dates; S2 gets an SCL layer."""
    side, days = SIDE_M // 10, 6
    rng = np.random.default_rng(1)
    time = np.datetime64("2023-04-01", "ns") + np.arange(days) * np.timedelta64(25, "D")
    centres = 10 * np.arange(side) + 5
    axes = {"time": time, "y": TOP - centres, "x": LEFT + centres}
    data = {
        name: (("time", "y", "x"), rng.uniform(low, high, (days, side, side)).astype(np.float32))
        for name in bands
    }
    cube = xr.Dataset(data, coords=axes)
    if "B02" in bands:
        cube["SCL"] = (("time", "y", "x"), np.full((days, side, side), 4, np.uint8))
    cube = cube.rio.write_crs("EPSG:2154")
    cube.to_netcdf(path, engine="h5netcdf")
    return path


def write_s2(path: Path, bands: tuple[str, ...] = S2_BANDS) -> Path:
    """Write a Sentinel-2 cube."""
    return write_cube(path, bands, 300, 3000)


def write_s1(path: Path) -> Path:
    """Write a Sentinel-1 cube in dB."""
    return write_cube(path, ("VV", "VH"), -20, -8)


@dataclass(frozen=True)
class Scene:
    """A folder with a pack and imagery."""

    folder: Path

    @property
    def pack(self) -> Path:
        return self.folder / "pack"

    @property
    def aerial(self) -> Path:
        return self.folder / "aerial.tif"

    @property
    def s2(self) -> Path:
        return self.folder / "s2.nc"

    @property
    def s1(self) -> Path:
        return self.folder / "s1.nc"

    def predict(self, out: Path, *words: object) -> Outcome:
        """Map with the tiny pack on one thread."""
        return omnisat("predict", "-m", self.pack, "--threads", 1, "-o", out, *words)


def write_tiny_scene(folder: Path, legend: Legend | None = None) -> Scene:
    """Write pack, aerial.tif, s2.nc and s1.nc."""
    write_tiny_pack(folder / "pack", legend)
    write_aerial(folder / "aerial.tif")
    write_s2(folder / "s2.nc")
    write_s1(folder / "s1.nc")
    return Scene(folder)


def write_lively_scene(folder: Path) -> Scene:
    """Write the tiny scene with a pack whose maps vary, so that mixed-up blocks would show."""
    scene = write_tiny_scene(folder)
    write_lively_pack(scene.pack)
    return scene


def write_lively_pack(folder: Path) -> Path:
    """Write the tiny pack with stronger weights: fresh ones give one class everywhere."""
    card = tiny_card()
    weights = {
        key: value * 3 if value.ndim > 1 and value.is_floating_point() else value
        for key, value in tiny_weights(card).items()
    }
    write_pack(folder, card, LEGEND, weights)
    return folder
