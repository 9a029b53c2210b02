"""Several datasets in one training: other sensors, scales and batches from step to step.

A mixture is described by a TOML file, one table a dataset, with the fields of `Member`;
`geoplex.toml` beside this file is one.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.data.batches import Batch, Batcher, BatchSpec
from omnisat_cli.learning.data.statistics import make_modality_cards
from omnisat_cli.learning.datasets.request import Options
from omnisat_cli.learning.datasets.table import open_dataset
from omnisat_cli.modality import modality
from omnisat_cli.networks.anysat_config import CELL_M
from omnisat_cli.networks.jepa_masks import BlockSpec, draw_masks

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.networks.anysat_jepa import JepaMasks
    from omnisat_cli.packs.card import ModalityCard

EXAMPLE = Path(__file__).with_name("geoplex.toml")
"""The published mixture, to be copied and changed."""

_SIZE_LIMIT = 2**20
_FIRST_DRAWS = 1024


class Member(BaseModel):
    """One dataset of a mixture.

    Attributes:
        name: Of the table of datasets.
        root: Folder it lies in.
        weight: How often it is drawn, against the others.
        scales: Sides of a patch in steps of 10 m; one of them is drawn for a step.
        batch: Windows a step.
        side: Side of a window in patches of the dataset; None = its own.
        patch_m: Side of these patches; None = its own.
        split: Official part; None = everything.
        folds: Official folds; empty = all.
        modalities: Sensors that are read; None = all.
        keep_dates: Most dates of a series shown at once; None = all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    root: Path
    weight: Annotated[float, Field(gt=0)] = 1.0
    scales: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (1,)
    batch: Annotated[int, Field(gt=0)] = 8
    side: Annotated[int, Field(gt=0)] | None = None
    patch_m: Annotated[float, Field(gt=0)] | None = None
    split: str | None = None
    folds: tuple[str, ...] = ()
    modalities: tuple[str, ...] | None = None
    keep_dates: Annotated[int, Field(gt=0)] | None = None

    def open(self) -> Examples:
        """Open the dataset.

        Raises:
            JobError: If something of it is unknown.
            SourceError: If files are missing or damaged.
        """
        return open_dataset(
            self.name,
            self.root,
            split=self.split,
            folds=self.folds or None,
            modalities=self.modalities,
            options=Options(side=self.side, patch_m=self.patch_m),
        )


class _File(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Annotated[tuple[Member, ...], Field(min_length=1)]


def read_mixture(path: Path) -> tuple[Member, ...]:
    """Read the description of a mixture; it names data, never code.

    Raises:
        SourceError: If the file cannot be read.
        JobError: If something in it is unknown, missing or out of range.
    """
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise SourceError(f"{path} is larger than {_SIZE_LIMIT} bytes: not a mixture")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the mixture {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{path} is no TOML: {error}") from error
    try:
        members = _File.model_validate(content).dataset
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise JobError(f"{path}: {where}: {first['msg']}") from error
    return tuple(
        member.model_copy(update={"root": path.parent / member.root}) for member in members
    )


@dataclass(frozen=True, slots=True)
class Part:
    """A member with its examples."""

    member: Member
    examples: Examples

    @property
    def side_m(self) -> float:
        """Side of a window in metres."""
        own = self.member.side or min(self.examples.example(0).sample.window.shape)
        return own * self.examples.patch_m


@dataclass(frozen=True, slots=True)
class MixedBatch:
    """A batch of one dataset of a mixture.

    Attributes:
        batch: Its windows.
        member: Which dataset.
        patch_m: Side of a patch in metres, drawn for the step.
        masks: What is predicted, and from what.
    """

    batch: Batch
    member: str
    patch_m: int
    masks: JepaMasks

    def to(self, device: torch.device | str) -> MixedBatch:
        """Return the batch on a device."""
        masks = replace(
            self.masks,
            context=self.masks.context.to(device),
            targets=tuple(target.to(device) for target in self.masks.targets),
        )
        return replace(self, batch=self.batch.to(device), masks=masks)


@dataclass
class Mixture:
    """Draws a dataset, a scale, windows and masks for every step, from its number alone.

    Args:
        parts: The datasets.
        cards: How modalities reach the network; one card for all datasets.
        seed: Of the draws.
        blocks: How masks are drawn.
        min_dates: Fewest clear dates that make a series present.
        augment: Whether windows are turned and mirrored at random.

    Raises:
        JobError: If windows of a dataset cannot be cut into patches of one of its scales, or the
            datasets do not fit the cards.
    """

    parts: tuple[Part, ...]
    cards: tuple[ModalityCard, ...]
    seed: int
    blocks: BlockSpec = field(default_factory=BlockSpec)
    min_dates: int = 1
    augment: bool = True

    def __post_init__(self) -> None:
        weights = np.array([part.member.weight for part in self.parts])
        self._steps = np.cumsum(weights / weights.sum())
        self._drawn: NDArray[np.int64] = np.empty(0, np.int64)
        self._sides = [part.side_m for part in self.parts]
        for part, side in zip(self.parts, self._sides, strict=True):
            _check_scales(part.member, side)
        self._batchers = [self._batcher(part) for part in self.parts]

    def batch(self, number: int) -> MixedBatch:
        """Draw the batch of a step; the same for the same number, whatever was drawn before."""
        which, before = self._place(number)
        member = self.parts[which].member
        rng = np.random.default_rng([self.seed, number, 1])
        patch_m = CELL_M * int(rng.choice(member.scales))
        grid = round(self._sides[which] // patch_m)
        batch = self._batchers[which].batch(before)
        masks = draw_masks((grid, grid), len(batch), rng, self.blocks)
        return MixedBatch(batch, member.name, patch_m, masks)

    def _place(self, number: int) -> tuple[int, int]:
        """Return the dataset of a step, and how often it was drawn before."""
        if number >= len(self._drawn):
            # A generator gives the same first numbers however many are asked for.
            count = max(_FIRST_DRAWS, 2 * number)
            draws = np.random.default_rng([self.seed, 0]).random(count)
            self._drawn = np.searchsorted(self._steps, draws).clip(max=len(self.parts) - 1)
        which = int(self._drawn[number])
        return which, int((self._drawn[:number] == which).sum())

    def _batcher(self, part: Part) -> Batcher:
        keep = part.member.keep_dates
        series = [card.name for card in self.cards if modality(card.name).kind == "series"]
        spec = BatchSpec(
            part.member.batch,
            part.member.side,
            keep_dates=dict.fromkeys(series, keep) if keep else {},
            augment=self.augment,
            min_dates=self.min_dates,
            any_pixel=True,
        )
        return Batcher(part.examples, self.cards, spec, self.seed)


def _check_scales(member: Member, side_m: float) -> None:
    for scale in member.scales:
        count = side_m / (CELL_M * scale)
        if count != round(count) or count < 2:
            raise JobError(
                f"{member.name}: windows of {side_m:g} m hold {count:.3g} patches of "
                f"{CELL_M * scale} m a side (scale {scale}); at least 2, and a whole number, are "
                "needed"
            )


def pooled_cards(parts: tuple[Part, ...]) -> tuple[ModalityCard, ...]:
    """State how the modalities of a mixture reach one network.

    Statistics are those of the datasets together, each by its weight.

    Raises:
        JobError: If two datasets have a modality in other pixels or bands.
    """
    found: dict[str, list[tuple[ModalityCard, float]]] = {}
    for part in parts:
        for card in make_modality_cards(part.examples):
            found.setdefault(card.name, []).append((card, part.member.weight))
    return tuple(_pooled(cards) for cards in found.values())


def _pooled(cards: list[tuple[ModalityCard, float]]) -> ModalityCard:
    """Pool the statistics of one modality; decibels where some are decibels."""
    bands = _common_bands([card for card, _ in cards])
    radar = any(card.units == "db" for card, _ in cards)
    told = [(card, weight) for card, weight in cards if not radar or card.units == "db"]
    share = np.array([weight for _, weight in told])
    share = (share / share.sum())[:, None]
    places = [[card.bands.index(band) for band in bands] for card, _ in told]
    means = np.array([np.take(card.mean, at) for (card, _), at in zip(told, places, strict=True)])
    deviations = [np.take(card.std, at) for (card, _), at in zip(told, places, strict=True)]
    mean = (share * means).sum(0)
    variance = (share * (np.square(deviations) + (means - mean) ** 2)).sum(0)
    first, dates = told[0][0], {card.dates for card, _ in told}
    return first.model_copy(
        update={
            "bands": bands,
            "mean": tuple(float(f"{value:.6g}") for value in mean),
            "std": tuple(float(f"{value:.6g}") for value in np.sqrt(variance)),
            "dates": first.dates if len(dates) == 1 else "day-of-year",
        }
    )


def _common_bands(cards: list[ModalityCard]) -> tuple[str, ...]:
    """Return the bands that one network reads of a modality, in the order of the first dataset.

    A band that follows from others is left out where a dataset does not hold it.

    Raises:
        JobError: If two datasets have it in other pixels or bands.
    """
    first, derived = cards[0], modality(cards[0].name).derived
    bands = tuple(
        band
        for band in first.bands
        if band not in derived or all(band in card.bands for card in cards)
    )
    for card in cards:
        same = {*card.bands} - {*derived} == {*bands} - {*derived}
        if not same or abs(card.gsd - first.gsd) > 1e-6 * first.gsd:
            raise JobError(
                f"{card.name} has {', '.join(first.bands)} at {first.gsd:g} m in one dataset, "
                f"{', '.join(card.bands)} at {card.gsd:g} m in another: one network cannot read "
                "both; choose `modalities` that agree"
            )
    return bands
