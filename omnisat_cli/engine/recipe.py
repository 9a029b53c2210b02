"""Everything a block needs beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError
from omnisat_cli.modality import modality
from omnisat_cli.outputs.prediction import MAX_MODALITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnisat_cli.networks.seam import Traits
    from omnisat_cli.packs.card import Card, ModalityCard


Channel = int | tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Feed:
    """How the pixels of one source become the input of one encoder.

    Attributes:
        card: What the network expects.
        channels: For each band of the card, its index in the source, or the two whose difference
            it is, or None where the user accepted that the band is missing (it is then filled
            with its mean).
        refine: Source pixels along one patch.
    """

    card: ModalityCard
    channels: tuple[Channel, ...]
    refine: int

    @property
    def name(self) -> str:
        """Name of the modality."""
        return self.card.name

    @property
    def is_series(self) -> bool:
        """Whether the modality has dates."""
        return modality(self.card.name).kind == "series"

    @property
    def is_context(self) -> bool:
        """Whether its pixels are larger than patches: it makes no map alone."""
        return modality(self.card.name).context


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to compute from a sample; the same for every block of a run.

    One anchor pixel is one patch.

    Attributes:
        card: Card of the pack.
        feeds: The modalities of this job, in the order of the card.
        codes: Legend code of each class of the network.
        refine: Output pixels along one patch.
        fine: Whether the network is asked for its finest output.
        implicit_area: Whether ground without any data is outside the area rather than a hole.
        probabilities: Whether class probabilities are kept.
        boundary: Whether the parcel-boundary probability is kept.
    """

    card: Card
    feeds: tuple[Feed, ...]
    codes: tuple[int, ...]
    refine: int
    fine: bool
    implicit_area: bool = False
    probabilities: bool = False
    boundary: bool = False

    @property
    def extra(self) -> dict[str, int]:
        """Optional layers every block of the run has, with their number of bands."""
        layers = {"boundary": 1 if self.boundary else 0}
        layers["probabilities"] = len(self.codes) if self.probabilities else 0
        return {name: bands for name, bands in layers.items() if bands}

    @property
    def counted(self) -> tuple[str, ...]:
        """Modalities whose presence is told, bit by bit: the card's, or the job's of many."""
        if len(self.card.names) <= MAX_MODALITIES:
            return self.card.names
        return tuple(feed.name for feed in self.feeds)

    @property
    def network_refine(self) -> int:
        """Pixels of the network's output along one patch."""
        return whole_ratio(self.card.patch_m, self.card.fine_m if self.fine else self.card.coarse_m)


def whole_ratio(coarse_m: float, fine_m: float) -> int:
    """Return `coarse_m / fine_m` if it is a whole number.

    Raises:
        JobError: If it is not.
    """
    ratio = round(coarse_m / fine_m)
    if ratio < 1 or abs(ratio * fine_m - coarse_m) > 1e-6 * coarse_m:
        raise JobError(f"{fine_m:g} m pixels do not divide {coarse_m:g} m pixels")
    return ratio


def draws_fine(traits: Traits | None, feeds: Sequence[Feed]) -> bool:
    """Whether a modality is given that a network draws its finest output from.

    Args:
        traits: Of the network; None where it sees whole windows.
        feeds: What it is given.
    """
    if traits is not None and traits.fine:
        return any(feed.name in traits.fine for feed in feeds)
    return any(not feed.is_series for feed in feeds)


def output_refine(card: Card, has_fine: bool, resolution: float | None) -> tuple[int, bool]:
    """Choose the output resolution.

    Args:
        card: Card of the pack.
        has_fine: Whether a modality is among the inputs that the finest output is drawn from.
        resolution: Pixel the user asked for in metres, or None for the finest there is.

    Returns:
        Output pixels along one patch, and whether the network's fine output is needed.

    Raises:
        JobError: If the resolution is finer than the data supports or divides no patch.
    """
    finest = card.fine_m if has_fine else card.coarse_m
    wanted = finest if resolution is None else resolution
    if wanted < finest * (1 - 1e-9):
        why = "" if has_fine else " without aerial imagery"
        raise JobError(
            f"--resolution {wanted:g}: {card.name} maps at {finest:g} m{why}; "
            f"finer pixels would be invented. Use --resolution {finest:g}"
        )
    steps = whole_ratio(card.patch_m, finest)
    offered = [finest * k for k in range(1, steps + 1) if steps % k == 0]
    if not any(abs(wanted - side) <= 1e-6 * side for side in offered):
        raise JobError(
            f"--resolution {wanted:g}: the map is made of {card.patch_m:g} m patches, which "
            f"{wanted:g} m pixels do not divide. Use {' or '.join(f'{s:g}' for s in offered)}"
        )
    # Where both outputs have one pixel, the fine one knows more.
    fine = has_fine and (wanted < card.coarse_m * (1 - 1e-9) or card.fine_m >= card.coarse_m)
    return whole_ratio(card.patch_m, wanted), fine
