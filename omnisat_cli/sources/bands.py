"""Recognise which band is which, what is mask, and how stored numbers become 8-bit values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.modality import canonical_band, flag
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omnisat_cli.modality import Modality

_IRC = re.compile(r"(^|[^a-z])irc([^a-z]|$)")
_IRC_ORDER = ("NIR", "R", "G")
_MASK_WORDS = ("a", "alpha")
_SKIP_WORDS = ("-", "_", "")
_MOST_UNNAMED = 5
"""Bands taken in file order; R, G, B, NIR and elevation is a known product, more is anything."""
_DEPTHS = (8, 10, 11, 12, 14, 16)


class Look(Protocol):
    """Gives a sample of the stored values of a band, counted from 1."""

    def __call__(self, band: int) -> NDArray[np.float64]:
        """Return a flat sample of all files, the same at every run."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What the files say about their bands.

    Attributes:
        path: One of the files, for messages.
        descriptions: One text for each band.
        colours: One colour interpretation for each band.
    """

    path: str
    descriptions: tuple[str, ...]
    colours: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.colours)


@dataclass(frozen=True, slots=True)
class BandMap:
    """Which band of a file is which.

    Attributes:
        bands: Canonical names found, in canonical order.
        indexes: Band of the file (from 1) for each of `bands`.
        alpha: Band that is transparency, or 0.
        decisions: How that was recognised.
    """

    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    alpha: int
    decisions: tuple[Decision, ...]

    def only(self, wanted: Sequence[str] | None) -> BandMap:
        """Keep the wanted bands; all where `wanted` is None."""
        if wanted is None:
            return self
        kept = [pair for pair in zip(self.bands, self.indexes, strict=True) if pair[0] in wanted]
        return BandMap(
            tuple(name for name, _ in kept),
            tuple(index for _, index in kept),
            self.alpha,
            self.decisions,
        )


def map_bands(sensor: Modality, labels: Labels, order: Sequence[str] | None, look: Look) -> BandMap:
    """Recognise the bands of an image.

    By the order given, else by descriptions, else by colours and the file name, else by position.

    Args:
        sensor: The sensor whose bands are looked for.
        labels: What the files say.
        order: Names in file order as the user gave them, or None.
        look: Sample of a band's values, to tell infrared from transparency.

    Raises:
        JobError: If the order given does not fit.
        SourceError: If nothing tells the bands apart.
    """
    if order is not None:
        return _from_order(sensor, labels, order)
    option = flag(sensor.name, "bands")
    names = [canonical_band(sensor, text) if text else None for text in labels.descriptions]
    decisions: list[Decision] = []
    described = [name for name in names if name]
    if len(set(described)) != len(described):
        described, names = [], [None] * labels.count
    alpha = _alpha(sensor, labels, names, look, decisions)
    if described:
        because = f"band descriptions {', '.join(filter(None, labels.descriptions))}"
        decisions.insert(0, _band_decision(names, because, option))
        return _ordered(sensor, names, alpha, decisions)
    names = _from_colours(sensor, labels, (names, alpha), decisions)
    return _ordered(sensor, names, alpha, decisions)


def _from_order(sensor: Modality, labels: Labels, order: Sequence[str]) -> BandMap:
    """Take the order the user gave: names, "A" for a mask, "-" for a band to leave out."""
    option = flag(sensor.name, "bands")
    text = ",".join(order)
    if len(order) > labels.count:
        raise JobError(
            f"{option} {text} names {len(order)} bands, {labels.path} has {labels.count}"
        )
    names: list[str | None] = []
    alpha = 0
    for position, word in enumerate(order, 1):
        if word.strip().lower() in _MASK_WORDS:
            alpha = position
            names.append(None)
        elif word.strip().lower() in _SKIP_WORDS:
            names.append(None)
        else:
            band = canonical_band(sensor, word)
            if band is None:
                raise JobError(
                    f"{option} {text}: {word!r} is no band of {sensor.name}; "
                    f"use {', '.join(sensor.bands)}, A (mask) or - (leave out)"
                )
            names.append(band)
    known = [name for name in names if name]
    if not known or len(set(known)) != len(known):
        raise JobError(f"{option} {text}: each band must be named once, and at least one")
    decision = _band_decision(names, "given on the command line", option)
    return _ordered(sensor, names, alpha, [decision])


def _alpha(
    sensor: Modality,
    labels: Labels,
    names: list[str | None],
    look: Look,
    decisions: list[Decision],
) -> int:
    """Tell whether the band tagged alpha is a mask; infrared is often stored under that tag."""
    tagged = [k for k, colour in enumerate(labels.colours, 1) if colour == "alpha"]
    if not tagged or names[tagged[0] - 1] is not None:
        return 0
    band = tagged[0]
    values = look(band)
    unique = np.unique(values)
    top = 65535.0 if unique.size and unique[-1] > 255 else 255.0
    share = float(np.isin(values, (0.0, top)).mean()) if values.size else 1.0
    low, high = (unique[0], unique[-1]) if unique.size else (0, 0)
    evidence = (
        f"band {band} is tagged alpha; a sample of {values.size} values has min {low:g}, "
        f"max {high:g}, {unique.size} different, {share:.1%} of them 0 or {top:g}"
    )
    option = flag(sensor.name, "bands")
    if share >= 0.99:
        decisions.append(Decision("mask", f"band {band} is transparency", evidence, option))
        return band
    if "NIR" in sensor.bands and band == 4:
        names[band - 1] = "NIR"
        value = f"band {band} is near infrared, not transparency"
    else:
        value = f"band {band} is neither mask nor a band of {sensor.name}: left out"
    decisions.append(Decision("mask", value, evidence, option, warning=True))
    return 0


def _from_colours(
    sensor: Modality,
    labels: Labels,
    found: tuple[list[str | None], int],
    decisions: list[Decision],
) -> list[str | None]:
    """Name bands by file name, colour interpretation or position, and say which."""
    option = flag(sensor.name, "bands")
    names, alpha = [*found[0]], found[1]
    free = [k for k in range(labels.count) if k + 1 != alpha]
    by_colour = {k: canonical_band(sensor, labels.colours[k]) for k in free}
    coloured = [name for name in by_colour.values() if name]
    if _IRC.search(Path(labels.path).stem.lower()) and len(free) >= 3 and "NIR" in sensor.bands:
        names = [None] * labels.count
        for k, name in zip(free, _IRC_ORDER, strict=False):
            names[k] = name
        because = "the file name says IRC (colour infrared); colour tags of such files say R,G,B"
        decisions.insert(0, _band_decision(names, because, option, warning=True))
        return names
    rgb = {"R", "G", "B"} & set(sensor.bands)
    if rgb <= set(coloured) and len(set(coloured)) == len(coloured):
        # Where band 4 is infrared under the tag of alpha, the other tags prove little either.
        doubted = "NIR" in names
        for k, colour in by_colour.items():
            names[k] = colour or names[k]
        because = f"colour tags {', '.join(labels.colours)}"
        fourth = [k for k in free if names[k] is None]
        guess = "NIR" in sensor.bands and "NIR" not in coloured and fourth[:1] == [3]
        if guess:
            names[3] = "NIR"
            because += "; band 4 by its position"
        decisions.insert(0, _band_decision(names, because, option, warning=guess or doubted))
        return names
    if not min(3, len(sensor.bands)) <= len(free) <= _MOST_UNNAMED:
        example = [*sensor.bands, *("-" for _ in free)][: len(free)]
        raise SourceError(
            f"{labels.path}: {len(free)} band(s) without a description or colour that names them "
            f"({', '.join(dict.fromkeys(labels.colours))}); say what they are with {option}, for "
            f"example {option} {','.join(example)}"
        )
    for k, name in zip(free, sensor.bands, strict=False):
        names[k] = name
    because = f"no description or colour tag tells ({', '.join(labels.colours)}): file order"
    decisions.insert(0, _band_decision(names, because, option, warning=True))
    return names


def _ordered(
    sensor: Modality, names: Sequence[str | None], alpha: int, decisions: list[Decision]
) -> BandMap:
    """Put recognised bands into canonical order."""
    found = [name for name in sensor.bands if name in names]
    indexes = tuple(list(names).index(name) + 1 for name in found)
    return BandMap(tuple(found), indexes, alpha, tuple(decisions))


def _band_decision(
    names: Sequence[str | None], because: str, option: str, *, warning: bool = False
) -> Decision:
    shown = ",".join(name or "-" for name in names)
    return Decision("bands", f"{shown} in file order", because, option, warning)


@dataclass(frozen=True, slots=True)
class Depth:
    """How numbers are stored.

    Attributes:
        dtype: Type of the samples.
        bits: Declared bits of a sample, or 0.
        nodata: Value to leave out of the measurement.
        factor: Factor the user gave, or None.
    """

    dtype: str
    bits: int
    nodata: float | None
    factor: float | None


def scale_to_8_bit(sensor: Modality, depth: Depth, bands: Sequence[int], look: Look) -> Decision:
    """Decide by which factor stored numbers become 8-bit values.

    By the factor given, else by the declared bit depth, else by the smallest usual bit depth that
    holds 99.9 % of a fixed sample: one factor for all files, bands and windows.

    Returns:
        A decision whose value ends with the factor, see `factor_of`.

    Raises:
        SourceError: If the numbers look like no image.
    """
    option = flag(sensor.name, "scale")
    if depth.factor is not None:
        return _scale(depth.factor, "given on the command line", option)
    if depth.dtype == "uint8":
        return _scale(1.0, "8-bit values", option)
    if 8 <= depth.bits <= 16:
        return _scale(255 / (2**depth.bits - 1), f"declared as {depth.bits} bits", option)
    values = np.concatenate([look(band) for band in bands])
    values = values[np.isfinite(values)]
    if depth.nodata is not None:
        values = values[values != depth.nodata]
    if not values.size:
        raise SourceError(f"no valid value in a sample of the image; give the factor with {option}")
    low, high = (float(q) for q in np.quantile(values, (0.001, 0.999)))
    evidence = (
        f"{depth.dtype}; a sample of {values.size} values has 99.9 % below {high:g}, "
        f"max {values.max():g}"
    )
    if low < 0 or high > 65535:
        raise SourceError(f"{evidence}, from {low:g}: no image brightness; give {option}")
    if np.issubdtype(np.dtype(depth.dtype), np.floating) and high <= 1.5:
        return _scale(255.0, f"{evidence}: a fraction", option, warning=True)
    if float(values.max()) <= 255:
        return _scale(1.0, f"{evidence}: 8-bit values in a wider type", option)
    bits = next(bits for bits in _DEPTHS if high < 2**bits)
    return _scale(255 / (2**bits - 1), f"{evidence}: {bits} bits", option, warning=True)


def factor_of(decision: Decision) -> float:
    """Return the factor of a scale decision."""
    return float(decision.value.rsplit(" ", 1)[1])


def _scale(factor: float, because: str, option: str, *, warning: bool = False) -> Decision:
    return Decision("scale", f"stored values × {factor!r}", because, option, warning)
