"""What a set of examples looks like: how often classes occur, how its bands are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.packs.card import ModalityCard
from omnisat_cli.sources.values import Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Channel, Example, Examples
    from omnisat_cli.sources.values import Series

MOST_EXAMPLES = 256
"""Examples read for the statistics of the bands; more change the third digit at most."""

Weighting = Literal["none", "inverse-sqrt", "inverse"]
_FLAT = 1e-3
"""Least deviation of a band: dividing by that of a constant one would blow up its noise."""


@runtime_checkable
class LabelsAlone(Protocol):
    """A set of examples that can read labels without imagery."""

    def labels(self, index: int) -> Example:
        """Read the labels of one place; its sample may be empty."""


def labels_of(examples: Examples, index: int) -> Example:
    """Read an example for its labels alone, the short way where there is one."""
    if isinstance(examples, LabelsAlone):
        return examples.labels(index)
    return examples.example(index)


def class_counts(examples: Examples) -> NDArray[np.int64]:
    """Count the labelled pixels of each class in each example; reads all labels once.

    Returns:
        (N, K) pixels, or 0 and 1 where the examples have tags; classes in the order of the
        legend.
    """
    codes = np.array(examples.legend.codes)
    counts = np.zeros((len(examples), len(codes)), np.int64)
    for index in range(len(examples)):
        example = labels_of(examples, index)
        if example.classes is not None:
            counts[index] = np.bincount(example.classes.ravel(), minlength=256)[codes]
        elif example.tags is not None:
            counts[index] = example.tags > 0
    return counts


def class_weights(
    counts: NDArray[np.int64], weighting: Weighting, cap: float = 10.0
) -> NDArray[np.float32]:
    """Weigh classes by how rare they are.

    Args:
        counts: (K,) labelled pixels or places of each class.
        weighting: "inverse" of the frequency, of its square root, or none.
        cap: Largest weight; 1 / cap is the smallest.

    Returns:
        (K,) float32: 1 for a class of average frequency and for those that do not occur.
    """
    weights = np.ones(len(counts), np.float32)
    some = counts > 0
    if weighting == "none" or not some.any():
        return weights
    power = 1.0 if weighting == "inverse" else 0.5
    ratio = counts[some].mean() / counts[some]
    weights[some] = np.clip(ratio**power, 1 / cap, cap)
    return weights


def make_modality_cards(
    examples: Examples,
    names: Sequence[str] | None = None,
    max_dates: Mapping[str, int] | None = None,
) -> tuple[ModalityCard, ...]:
    """Measure a set of examples and state how its modalities reach a network.

    At most `MOST_EXAMPLES` are read, evenly spread over the set: the same set gives the same card.

    Args:
        examples: Places to learn from, without those that are kept for validation.
        names: The modalities wanted, in this order; None takes all.
        max_dates: Series to the longest one the network will be trained on.

    Raises:
        JobError: If a modality is wanted that the examples do not have.
        SourceError: If a modality has no valid pixel.
    """
    channels = {channel.name: channel for channel in examples.channels}
    wanted = list(channels) if names is None else list(names)
    missing = [name for name in wanted if name not in channels]
    if missing or not wanted:
        raise JobError(
            f"{examples.name} has {', '.join(channels)}, not {', '.join(missing) or 'nothing'}"
        )
    moments = {name: _Moments(len(channels[name].bands)) for name in wanted}
    count = min(len(examples), MOST_EXAMPLES)
    for index in np.linspace(0, len(examples) - 1, count).round().astype(int):
        data = examples.example(int(index)).sample.data
        for name in wanted:
            if name in data:
                moments[name].add(data[name])
    return tuple(
        _card(channels[name], moments[name], (max_dates or {}).get(name), examples.name)
        for name in wanted
    )


class _Moments:
    """Sums over valid pixels, band by band."""

    def __init__(self, bands: int) -> None:
        self.count = 0
        self.mean = np.zeros(bands)
        self.spread = np.zeros(bands)

    def add(self, values: Image | Series) -> None:
        """Add the valid pixels; means are merged, so that no large sums are subtracted."""
        axis = 0 if isinstance(values, Image) else 1
        rows = np.moveaxis(values.pixels, axis, -1)[values.valid].astype(np.float64)  # (n, C)
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        total = self.count + len(rows)
        shift = mean - self.mean
        self.spread += ((rows - mean) ** 2).sum(axis=0)
        self.spread += shift**2 * self.count * len(rows) / total
        self.mean += shift * len(rows) / total
        self.count = total


def _card(channel: Channel, moments: _Moments, longest: int | None, where: str) -> ModalityCard:
    if moments.count == 0:
        raise SourceError(
            f"{where}: {channel.name} has no valid pixel in any of the examples that were read; "
            "leave the modality out or check its files"
        )
    deviation = np.sqrt(moments.spread / moments.count)
    least = _FLAT * np.maximum(np.abs(moments.mean), _FLAT)
    return ModalityCard(
        name=channel.name,
        bands=channel.bands,
        gsd=channel.gsd,
        units=channel.units,
        mean=_digits(moments.mean),
        std=_digits(np.maximum(deviation, least)),
        dates=channel.dates,
        max_dates=longest,
    )


def _digits(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Six significant digits: cards are read by people."""
    return tuple(float(f"{value:.6g}") for value in values)
