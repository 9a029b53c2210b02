"""Packs of U-TAE with the weights that were published for PASTIS.

Source: Garnot and Landrieu, ICCV 2021; weights: Zenodo record 5172293.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from omnisat_cli.errors import CheckpointError
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.networks.utae import UtaeConfig
from omnisat_cli.outputs.legend import legend as shipped_legend
from omnisat_cli.packs.card import Card, NetworkCard, WindowCard
from omnisat_cli.packs.norms import Norm
from omnisat_cli.packs.published import Origin, Parcel, Tensors, modality_card
from omnisat_cli.packs.writer import empty_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOURCE = "zenodo.org/records/5172293, github.com/VSainteuf/utae-paps (Garnot and Landrieu)"


PASTIS_NORM = Norm(
    (1165.93982, 1375.65344, 1429.21912, 1764.79883, 2719.27319,
     3063.61182, 3205.90186, 3319.10962, 2422.90430, 1639.37036),
    (1942.61560, 1881.92346, 1959.37988, 1867.22400, 1754.58508,
     1769.40466, 1784.86060, 1767.71008, 1458.96362, 1299.28333),
)  # fmt: skip
"""Statistics of Sentinel-2 in fold 1 of PASTIS, as TorchGeo quotes its NORM_S2_patch.json."""

_MAX_DATES = 61
"""Longest series of PASTIS."""

_NAMES = {
    "encoder_widths": "encoder_widths",
    "decoder_widths": "decoder_widths",
    "out_conv": "out_widths",
    "n_head": "heads",
    "d_model": "attention_width",
    "d_k": "key_width",
}
"""Name of a size in the published configuration to that of ours."""

UTAE_FOLDS = {1: (1, 2, 3), 2: (2, 3, 4), 3: (3, 4, 5), 4: (4, 5, 1), 5: (5, 1, 2)}
"""Folds of PASTIS that each published checkpoint was trained on; the next two are val and test."""


def utae_parcel(
    tensors: Tensors, origin: Origin, sizes: Mapping[str, object], *, fold: int | None = None
) -> Parcel:
    """Make a pack of a published U-TAE.

    Args:
        tensors: The `state_dict` of model.pth.tar.
        origin: Where they come from; without norms of "s2" those of one fold of PASTIS are taken.
        sizes: Content of conf.json; empty for the published sizes.
        fold: Which of the five networks it is, for the card.

    Raises:
        CheckpointError: If they are no U-TAE of PASTIS.
    """
    legend = shipped_legend("pastis-20")
    try:
        known = {_NAMES[k]: _sizes(v) for k, v in sizes.items() if k in _NAMES}
        config = UtaeConfig.from_dict(known)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the configuration makes no U-TAE: {error}") from error
    if config.classes != len(legend.classes):
        raise CheckpointError(
            f"a U-TAE of {config.classes} classes is none of PASTIS, which has "
            f"{len(legend.classes)}; convert it with --card and --legend"
        )
    statistics = "the training folds" if fold else "all folds"
    if "s2" not in origin.norms:
        statistics = "fold 1 of PASTIS; --norm NORM_S2_patch.json gives those of the training folds"
    which = "" if fold is None else f", fold {fold} (trained on folds {UTAE_FOLDS[fold]})"
    card = Card(
        name=origin.name,
        version="1",
        summary="20 crop classes from a year of Sentinel-2: U-TAE trained on PASTIS",
        licence="MIT",
        source=f"{_SOURCE}; {origin.file}",
        training=f"published weights{which}; statistics of {statistics}",
        limits="Metropolitan France, seasons like 2018-2019, dates from September to November of "
        "the next year. Clouds were not masked in training. Class 19 means nothing on the ground.",
        network=NetworkCard(kind="utae", config=config.to_dict()),
        modalities=(
            modality_card(
                "s2",
                S2_BANDS,
                origin.norms.get("s2", PASTIS_NORM),
                gsd=10.0,
                units="reflectance_1e4",
                dates="days-since-september",
                max_dates=_MAX_DATES,
            ),
        ),
        window=WindowCard(size=128, overlap=32, cell=8),
        legend=legend.label,
        weights_sha256=empty_digest(),
    )
    return Parcel(card, legend, dict(tensors))


def _sizes(value: object) -> object:
    """Read "[64,64,64,128]", as the published configurations write lists."""
    if not isinstance(value, str):
        return value
    return tuple(int(text) for text in re.findall(r"\d+", value))
