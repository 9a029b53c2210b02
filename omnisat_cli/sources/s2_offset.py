"""How Sentinel-2 values become reflectance × 10 000: their factor, and the offset of -1000.

Metadata and measurement are brought together; where they contradict, the user is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.sources.encoding import as_floats
from omnisat_cli.sources.scaling import Scaling
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.sources.scaling import BandSample

OFFSET = -1000.0
"""What processing baseline 04.00 (January 2022) added to raw values, with the sign to undo it."""

BASELINE_04 = np.datetime64("2022-01-25", "D")

# Blue over clear land is 200–900 (reflectance × 10 000) in vegetation and soil; raw values of
# baseline 04.00 lie 1000 higher and nothing on Earth brings them below that by more than noise.
_DARK_WITHOUT_OFFSET = 900.0
_DARK_WITH_OFFSET = 950.0
_CLEAR_LAND_LIMIT = 2800.0


@dataclass(frozen=True, slots=True)
class OffsetHint:
    """What metadata says about the offset still in the values, per stored date.

    Attributes:
        offsets: (T,) what to add; NaN where metadata says nothing.
        source: Where it was said.
    """

    offsets: NDArray[np.float64]
    source: str


def s2_scaling(
    sample: BandSample,
    days: NDArray[np.datetime64],
    hint: OffsetHint | None,
    asked: tuple[float | None, float | None],
) -> tuple[Scaling, tuple[Decision, ...]]:
    """Decide how Sentinel-2 values become reflectance × 10 000.

    Args:
        sample: Sample of the bands.
        days: (T,) day of every stored date.
        hint: What the metadata says about the offset, if anything.
        asked: Scale and offset the user states (None: find out).

    Raises:
        SourceError: If values fit no known scale, or metadata and measurement contradict.
    """
    scale, offset = asked
    gain, decision = _s2_gain(sample, scale)
    if offset is not None:
        offsets = tuple([offset] * len(days)) if offset else ()
        return Scaling("affine", gain, offsets), (decision, _stated_offset(offset, sample, gain))
    offsets_found, decisions = _s2_offsets(sample, days, hint, gain)
    return Scaling("affine", gain, offsets_found), (decision, *decisions)


def _stated_offset(offset: float, sample: BandSample, gain: float) -> Decision:
    """Take the offset as asked, and warn where the values speak against it."""
    blue = _measure_blue(sample, np.ones(len(sample.days), dtype=bool), gain)
    against = blue is not None and blue.verdict not in (None, offset)
    because = f"as asked, though {blue.words()}" if blue and against else "as asked"
    return Decision("offset", _offset_words(offset), because, "--s2-offset", warning=against)


def _s2_gain(sample: BandSample, scale: float | None) -> tuple[float, Decision]:
    option = "--s2-scale"
    if scale is not None:
        return scale * 1e4, Decision("scale", f"× {scale:g} is reflectance", "as asked", option)
    values = sample.usable()
    if not values.size:
        because = "the sample holds no data; 0–10000 is what Sentinel-2 products use"
        return 1.0, Decision("scale", "0–10000 scale", because, option, warning=True)
    high, median = (float(np.percentile(values, q)) for q in (98, 50))
    because = f"median {median:.4g}, 98 % below {high:.4g}"
    if high <= 3:
        return 1e4, Decision("scale", "0–1 reflectance, × 10000", because, option)
    if high < 40 or median > 20_000:
        raise SourceError(
            f"Sentinel-2 values with {because} are neither reflectance (0–1) nor 0–10000; "
            "this may not be L2A. If it is, state the factor to reflectance: --s2-scale 0.0001"
        )
    return 1.0, Decision("scale", "0–10000 scale", because, option)


def _s2_offsets(
    sample: BandSample, days: NDArray[np.datetime64], hint: OffsetHint | None, gain: float
) -> tuple[tuple[float, ...], tuple[Decision, ...]]:
    """Decide apart for what metadata tells apart, and for products before and since 2022-01-25."""
    offsets = np.zeros(len(days))
    decisions = []
    parts = _kinds_of_dates(days, hint)
    for part, told in parts:
        measured = _measure_blue(sample, part[sample.steps], gain)
        offsets[part], decision = _settle(told, measured, hint.source if hint else "")
        if len(parts) > 1:
            period = f"{int(part.sum())} dates {days[part].min()} … {days[part].max()}"
            decision = replace(decision, value=f"{decision.value} ({period})")
        decisions.append(decision)
    return (tuple(float(v) for v in offsets) if offsets.any() else ()), tuple(decisions)


def _kinds_of_dates(
    days: NDArray[np.datetime64], hint: OffsetHint | None
) -> list[tuple[NDArray[np.bool_], float | None]]:
    """Split the stored dates into those that share one offset, with what metadata says of it."""
    said = hint.offsets if hint is not None else np.full(len(days), np.nan)
    parts: list[tuple[NDArray[np.bool_], float | None]] = [
        (said == value, float(value)) for value in np.unique(said[np.isfinite(said)])
    ]
    silent = np.isnan(said)
    eras = (silent & (days < BASELINE_04), silent & (days >= BASELINE_04))
    return parts + [(era, None) for era in eras if era.any()]


@dataclass(frozen=True, slots=True)
class _Blue:
    """The measurement behind the offset decision, reflectance × 10 000 before any offset."""

    band: str
    day: str
    median: float
    dark: float

    @property
    def verdict(self) -> float | None:
        """The offset still to add: 0, -1000, or None where it cannot be told."""
        if self.dark < _DARK_WITHOUT_OFFSET or self.median < _DARK_WITHOUT_OFFSET:
            return 0.0
        if self.dark >= _DARK_WITH_OFFSET and 1000 <= self.median <= _CLEAR_LAND_LIMIT:
            return OFFSET
        return None

    def words(self) -> str:
        return f"{self.band} median on {self.day} is {self.median:.0f}"


_COLOURS = {"B02": "blue", "B03": "green", "B04": "red"}


def _measure_blue(sample: BandSample, dates: NDArray[np.bool_], gain: float) -> _Blue | None:
    """Median of the bluest band over clear land, on the greenest of the sampled dates."""
    band = next((name for name in (*_COLOURS, *sample.bands) if name in sample.bands), None)
    if band is None:
        return None
    blue = sample.bands.index(band)
    ranked = []
    for k in np.flatnonzero(dates):
        good = sample.data[k].all(axis=0) & sample.clear[k]
        if good.sum() < max(16, good.size // 100):
            continue
        ranked.append((_greenness(sample, int(k), good), int(k), good))
    if not ranked:
        return None
    _, best, good = max(ranked, key=lambda entry: entry[:2])
    values = sample.values[best, blue, good] * gain
    dark = float(np.percentile(values, 2))
    colour = _COLOURS.get(band, band)
    return _Blue(colour, str(sample.days[best]), float(np.median(values)), dark)


def _greenness(sample: BandSample, k: int, good: NDArray[np.bool_]) -> float:
    """Median NDVI of a date; without red and near infrared, how dark its first band is."""
    if "B04" in sample.bands and "B08" in sample.bands:
        red = sample.values[k, sample.bands.index("B04"), good].astype(np.float64)
        nir = sample.values[k, sample.bands.index("B08"), good].astype(np.float64)
        total = np.where(red + nir > 0, red + nir, np.inf)
        return float(np.median((nir - red) / total))
    return -float(np.median(sample.values[k, 0, good]))


def _offset_words(offset: float) -> str:
    return "already removed" if offset == 0 else f"add {offset:g}"


def _settle(told: float | None, measured: _Blue | None, source: str) -> tuple[float, Decision]:
    """Bring metadata and measurement together, or refuse."""
    option = "--s2-offset"
    verdict = measured.verdict if measured is not None else None
    if told is not None and verdict is not None and told != verdict and measured is not None:
        raise SourceError(
            f"the -1000 offset of Sentinel-2: {source} says {_offset_words(told)}, but "
            f"{measured.words()} and the darkest 2 % lie at {measured.dark:.0f}, which means "
            f"{_offset_words(verdict)}; pass --s2-offset 0 or --s2-offset -1000"
        )
    if verdict is not None and measured is not None:
        other = measured.median - OFFSET if verdict == 0 else measured.median + OFFSET
        state = "raw values" if verdict == 0 else "values without the offset"
        because = f"{measured.words()} ({state} would be near {other:.0f})"
        because += f", and {source} agrees" if told is not None else ""
        return verdict, Decision("offset", _offset_words(verdict), because, option)
    if told is not None:
        why = measured.words() + ", which tells nothing" if measured else "no clear land to measure"
        return told, Decision("offset", _offset_words(told), f"{source} ({why})", option)
    if measured is None:
        because = "no clear land to measure and no metadata: assumed"
        return 0.0, Decision("offset", _offset_words(0.0), because, option, warning=True)
    raise SourceError(
        f"the -1000 offset of Sentinel-2 cannot be told: {measured.words()}, the darkest 2 % lie "
        f"at {measured.dark:.0f} (bright land without the offset, or land with it), and no "
        "metadata speaks of it; pass --s2-offset 0 or --s2-offset -1000"
    )


def offset_hint(
    attributes: Sequence[Mapping[str, object]],
    per_date: Mapping[str, Sequence[object]],
    steps: int,
    decoded_offset: bool,
) -> OffsetHint | None:
    """Collect what metadata says about the offset.

    Args:
        attributes: Attribute tables, most specific first.
        per_date: Name to one value a date (coordinates along time).
        steps: Number of stored dates.
        decoded_offset: Whether the CF add_offset of the bands is not zero: decoding removes it.
    """
    if decoded_offset:
        return OffsetHint(np.zeros(steps), "the add_offset attribute")
    for key, rule in _HINTS:
        for name, values in per_date.items():
            if _plain(name) == key and len(values) == steps:
                return OffsetHint(np.array([rule(v) for v in values]), f"{name} of each date")
        for table in attributes:
            for name, value in table.items():
                told = rule(value) if _plain(name) == key else np.nan
                if np.isfinite(told):
                    return OffsetHint(np.full(steps, told), f"attribute {name} = {value}")
    return None


def _plain(name: str) -> str:
    return name.rsplit(":", 1)[-1].lower()


def _from_applied(value: object) -> float:
    return 0.0 if str(value).strip().lower() in ("true", "1", "yes", "1.0") else OFFSET


def _from_add_offset(value: object) -> float:
    numbers = as_floats(value)
    return numbers[0] if numbers and numbers[0] in (0.0, OFFSET) else float("nan")


def _from_baseline(value: object) -> float:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    match = re.fullmatch(r"N?(\d{1,2})\.?(\d\d?)?", text.strip(), re.IGNORECASE)
    if match is None:
        return float("nan")
    return OFFSET if int(match[1]) >= 4 else 0.0


_HINTS = (
    ("boa_offset_applied", _from_applied),
    ("boa_add_offset", _from_add_offset),
    ("processing_baseline", _from_baseline),
)
