"""What packs of published networks share: where tensors come from, and a pack not yet written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omnisat_cli.errors import CheckpointError
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.packs.card import Card, ModalityCard

if TYPE_CHECKING:
    from torch import Tensor

    from omnisat_cli.packs.norms import Norm

Tensors = Mapping[str, "Tensor"]

UNTRAINED = Legend(
    "untrained", "1", "omnisat", "MIT", (LegendClass(0, "untrained", "non entraîné", "#808080"),),
    note="The legend of packs whose head is untrained.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """Where tensors come from.

    Attributes:
        name: Name of the pack.
        file: What the tensors were read from, with its digest.
        norms: Statistics the user gave; they win over published ones.
    """

    name: str
    file: str
    norms: Mapping[str, Norm] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A pack that is not written yet."""

    card: Card
    legend: Legend
    weights: dict[str, Tensor]


def modality_card(name: str, bands: tuple[str, ...], norm: Norm, **rest: object) -> ModalityCard:
    """Return the card of a modality.

    Args:
        name: Name in the table of sensors.
        bands: Bands of the network's channels.
        norm: Their statistics.
        **rest: Other fields of the card.

    Raises:
        CheckpointError: If the statistics have another number of bands.
    """
    if len(norm.mean) != len(bands):
        raise CheckpointError(
            f"{name} has the bands {', '.join(bands)}, its statistics {len(norm.mean)} means"
        )
    return ModalityCard.model_validate(
        {"name": name, "bands": bands, "mean": norm.mean, "std": norm.std, **rest}
    )
