"""Tiny AnySat and U-TAE packs with random weights, for tests of the engine and the commands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from omnisat_cli.networks.anysat_config import SENSORS, AnySatConfig
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.networks.utae import UTAE, UtaeConfig
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.packs.card import NetworkCard, WindowCard
from omnisat_cli.packs.norms import Norm
from omnisat_cli.packs.published import Origin
from omnisat_cli.packs.published_anysat import ANYSAT_BANDS, anysat_encoder, fresh_anysat
from omnisat_cli.packs.published_utae import utae_parcel
from omnisat_cli.packs.writer import write_pack

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.packs.registry import Pack

CLASSES = Legend(
    "three", "1", "tests", "MIT",
    tuple(LegendClass(k, f"class {k}", f"classe {k}", f"#{k}0{k}0{k}0") for k in range(3)),
)  # fmt: skip
_LEVELS = {
    "aerial": (120.0, 50.0),
    "aerial-flair": (120.0, 50.0),
    "spot": (120.0, 50.0),
    "naip": (120.0, 50.0),
    "s1": (0.1, 0.1),
    "s1-asc": (0.1, 0.1),
    "alos": (0.1, 0.1),
}


def norms(*names: str) -> dict[str, Norm]:
    made = {}
    for name in names:
        mean, std = _LEVELS.get(name, (2000.0, 1000.0))
        count = len(ANYSAT_BANDS[name])
        made[name] = Norm((mean,) * count, (std,) * count)
    return made


def anysat_config(*names: str) -> AnySatConfig:
    return AnySatConfig(64, 1, 2, sensors=tuple(SENSORS[name] for name in names))


def write_anysat(
    folder: Path, *names: str, patch_m: int = 10, fine: str | None = None, coarse: int = 1
) -> Pack:
    """Write a pack that maps three classes with random weights."""
    origin = Origin("tiny-anysat", "random weights", norms(*names))
    parcel = fresh_anysat(anysat_config(*names), origin, patch_m=patch_m)
    config = AnySatSegmenterConfig(
        anysat_config(*names), 3, patch_m, (4, 4), coarse_side=coarse, fine_sensor=fine
    )
    torch.manual_seed(0)
    network = AnySatSegmenter(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert anysat_encoder(network.state_dict(), "teacher")
    card = parcel.card.model_copy(
        update={
            "network": NetworkCard(kind="anysat", config=config.to_dict()),
            "window": WindowCard(size=4, overlap=1, cell=2),
            "coarse_m": patch_m / coarse,
            "fine_m": patch_m / config.fine_side,
            "legend": CLASSES.label,
            "pretrained_only": False,
        }
    )
    return write_pack(folder, card, CLASSES.to_json(), network.state_dict())


def write_utae(folder: Path) -> Pack:
    """Write a small U-TAE of PASTIS with random weights."""
    sizes = {
        "encoder_widths": "[16,16]", "decoder_widths": "[16,16]", "out_conv": "[16,20]",
        "n_head": 4, "d_model": 16, "d_k": 4,
    }  # fmt: skip
    config = UtaeConfig(
        encoder_widths=(16, 16), decoder_widths=(16, 16), out_widths=(16, 20), heads=4,
        attention_width=16,
    )  # fmt: skip
    torch.manual_seed(0)
    parcel = utae_parcel(
        UTAE(config).state_dict(), Origin("tiny-utae", "random weights", norms("s2")), sizes, fold=1
    )
    parcel = replace(
        parcel,
        card=parcel.card.model_copy(update={"window": WindowCard(size=16, overlap=4, cell=4)}),
    )
    return write_pack(folder, parcel.card, parcel.legend.to_json(), parcel.weights)
