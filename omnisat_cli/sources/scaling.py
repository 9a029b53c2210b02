"""From stored numbers to canonical units: fill values, CF scaling, the -1000 offset, decibels.

Everything is recognised from metadata *and* measured on a sample, stated, and can be overruled.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.modality import flag
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.modality import Modality

RadarUnits = Literal["auto", "db", "linear", "amplitude"]
Transfer = Literal["affine", "power", "amplitude"]

OFFSET = -1000.0
"""What processing baseline 04.00 (January 2022) added to raw values, with the sign to undo it."""

BASELINE_04 = np.datetime64("2022-01-25", "D")
FLOOR_DB = -50.0
_EMPTY_POWER = 1e-8
"""Linear power (-80 dB) below which a pixel is the empty edge of a frame, not dark ground."""
_AMPLITUDE_DB = 83.0
"""WorldCereal stores S1, and JAXA ALOS-2, as uint16 with dB = 20 log10(DN) - 83."""

_SATURATED = 65534.0
_ASSUMED_FILLS = {
    "u2": (65535.0,),
    "i2": (-32768.0, -10000.0, -9999.0),
    "i4": (65535.0, -32768.0, -10000.0, -9999.0),
    "u4": (65535.0,),
    "f4": (65535.0, -32768.0, -10000.0, -9999.0),
    "f8": (65535.0, -32768.0, -10000.0, -9999.0),
}
"""By type: numbers that chains use for "no data" and that no reflectance or backscatter is."""

# Blue over clear land is 200–900 (reflectance × 10 000) in vegetation and soil; raw values of
# baseline 04.00 lie 1000 higher and nothing on Earth brings them below that by more than noise.
_DARK_WITHOUT_OFFSET = 900.0
_DARK_WITH_OFFSET = 950.0
_CLEAR_LAND_LIMIT = 2800.0


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one variable stores numbers.

    Attributes:
        unsigned: Whether signed integers hold unsigned values (`_Unsigned`).
        declared: Fill values the file declares.
        assumed: Fill values it does not declare, but that no measurement can be.
        scale: CF scale_factor.
        offset: CF add_offset.
    """

    unsigned: bool
    declared: tuple[float, ...]
    assumed: tuple[float, ...]
    scale: float = 1.0
    offset: float = 0.0

    def numbers(self, raw: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the stored numbers with their true sign."""
        if self.unsigned and raw.dtype.kind == "i":
            return raw.view(raw.dtype.str.replace("i", "u"))
        return raw

    def decode(self, raw: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return CF-decoded values and where they are data."""
        stored = self.numbers(raw)
        values = stored.astype(np.float32)
        data = np.isfinite(values)
        for fill in (*self.declared, *self.assumed):
            data &= values != np.float32(fill)
        if self.scale != 1.0 or self.offset != 0.0:
            values *= np.float32(self.scale)
            values += np.float32(self.offset)
        return values, data


def find_encoding(dtype: np.dtype[np.generic], attributes: Mapping[str, object]) -> Encoding:
    """Read the encoding of a variable from its type and attributes."""
    unsigned = str(attributes.get("_Unsigned", "")).lower() == "true" and dtype.kind == "i"
    code = f"{'u' if unsigned else dtype.kind}{dtype.itemsize}"
    declared: list[float] = []
    for key in ("_FillValue", "missing_value", "nodata", "nodatavals", "_nodata"):
        declared += _as_floats(attributes.get(key))
    if unsigned:
        declared = [fill + 2.0 ** (8 * dtype.itemsize) if fill < 0 else fill for fill in declared]
    finite = tuple(dict.fromkeys(fill for fill in declared if np.isfinite(fill)))
    assumed = tuple(fill for fill in _ASSUMED_FILLS.get(code, ()) if fill not in finite)
    scale = _as_floats(attributes.get("scale_factor")) or [1.0]
    offset = _as_floats(attributes.get("add_offset")) or [0.0]
    return Encoding(unsigned, finite, assumed, scale[0], offset[0])


def _as_floats(value: object) -> list[float]:
    if value is None:
        return []
    try:
        return [float(number) for number in np.atleast_1d(np.asarray(value)).tolist()]
    except (TypeError, ValueError):
        return []


@dataclass(frozen=True, slots=True)
class Scaling:
    """From CF-decoded values to the canonical unit of a sensor.

    Attributes:
        transfer: "affine", "power" (linear backscatter) or "amplitude" (scaled integers).
        gain: Factor of the affine transfer.
        offsets: Per stored date, added after the gain; empty where none.
        shift: Added after the gain at every date.
        least: Smallest decoded value that is data.
    """

    transfer: Transfer
    gain: float = 1.0
    offsets: tuple[float, ...] = ()
    shift: float = 0.0
    least: float = -math.inf

    def apply(
        self, values: NDArray[np.float32], data: NDArray[np.bool_], steps: slice
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Convert (T, h, w) values of the stored dates `steps`; return them and where valid."""
        if self.transfer == "affine":
            if self.least > -math.inf:
                data = data & (values >= self.least)
            if self.gain != 1.0 or self.shift:
                values = values * np.float32(self.gain) + np.float32(self.shift)
            if self.offsets:
                shift = np.array(self.offsets[steps], dtype=np.float32)
                values = values + shift[:, None, None]
            return values, data
        data = data & (values > _EMPTY_POWER)
        if self.transfer == "amplitude":
            data &= values < _SATURATED
            decibels = 20 * np.log10(np.where(data, values, 1)) - _AMPLITUDE_DB
        else:
            decibels = 10 * np.log10(np.where(data, values, 1))
        return np.maximum(decibels, FLOOR_DB).astype(np.float32), data


@dataclass(frozen=True, slots=True)
class BandSample:
    """A sample of a cube for measuring: a few dates, spread windows.

    Attributes:
        bands: Canonical names.
        days: (n,) days of the sampled dates.
        steps: (n,) their indices among the stored dates.
        values: (n, C, pixels) CF-decoded values.
        data: (n, C, pixels) whether they are data.
        clear: (n, pixels) whether no mask drops them.
    """

    bands: tuple[str, ...]
    days: NDArray[np.datetime64]
    steps: NDArray[np.intp]
    values: NDArray[np.float32]
    data: NDArray[np.bool_]
    clear: NDArray[np.bool_]

    def usable(self) -> NDArray[np.float32]:
        """Every value that is data and clear; every value that is data where none is clear."""
        good = self.data & self.clear[:, None]
        return self.values[good if good.any() else self.data]


def radar_scaling(
    sensor: str, sample: BandSample, stored: str, declared_units: str, asked: RadarUnits
) -> tuple[Scaling, Decision]:
    """Tell decibels, linear power and scaled amplitudes (WorldCereal, ALOS-2) apart.

    Args:
        sensor: Name in the table of sensors.
        sample: Sample of its bands.
        stored: Type as stored, true sign ("uint16", "float32").
        declared_units: The `units` attribute, or "".
        asked: What the user states.

    Raises:
        SourceError: If the measurement fits none, or contradicts the declared units.
    """
    values, option = sample.usable(), flag(sensor, "units")
    median = float(np.median(values)) if values.size else float("nan")
    low = float(values.min()) if values.size else float("nan")
    found = asked
    if asked == "auto":
        found = _measured_units(sensor, stored, (median, low, values.size))
    said = "db" if re.search(r"\bdb\b|decibel", declared_units.lower()) else ""
    if asked == "auto" and said and found != said:
        raise SourceError(
            f"the units attribute says {declared_units!r}, but the values have median {median:.4g} "
            f"and minimum {low:.4g}, which is {found}; pass {option} db or {option} {found}"
        )
    because = "as asked" if asked != "auto" else f"{stored}, median {median:.4g}, minimum {low:.4g}"
    if found == "db":
        return Scaling("affine"), Decision("scale", "decibels", because, option)
    if found == "linear":
        value = f"linear power → dB, floor {FLOOR_DB:g} dB"
        return Scaling("power"), Decision("scale", value, because, option)
    saturated = int((values == _SATURATED).sum())
    value = f"scaled amplitude → 20 log10(DN) - {_AMPLITUDE_DB:g} dB"
    because += f", that is {20 * np.log10(max(median, 1.0)) - _AMPLITUDE_DB:.1f} dB"
    because += f"; {saturated} saturated samples (65534) dropped" if saturated else ""
    return Scaling("amplitude"), Decision("scale", value, because, option)


_RADARS = {"alos": "ALOS-2"}


def _measured_units(sensor: str, stored: str, measured: tuple[float, float, int]) -> RadarUnits:
    """Tell the units from the stored type and the median, minimum and count of a sample."""
    median, low, count = measured
    radar, option = _RADARS.get(sensor, "Sentinel-1"), flag(sensor, "units")
    if not count:
        raise SourceError(
            f"{radar}: the sample holds no data, so dB and linear cannot be told apart; "
            f"pass {option} db, linear or amplitude"
        )
    if low < 0 and -45 < median < 5:
        return "db"
    if low >= 0 and median < 2:
        return "linear"
    if stored == "uint16" and -40 < 20 * np.log10(max(median, 1.0)) - _AMPLITUDE_DB < 10:
        return "amplitude"
    raise SourceError(
        f"{radar} stored as {stored} with median {median:.4g} and minimum {low:.4g} is neither "
        "dB (-45 to 5), linear power (below 2) nor scaled amplitude (uint16); "
        f"pass {option} db, linear or amplitude if you know"
    )


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
    numbers = _as_floats(value)
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


def empty_everywhere(
    raw: Mapping[str, NDArray[np.generic]], data: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Where every band is exactly zero: no ground reflects nothing in all of them."""
    zero = np.ones_like(data)
    for values in raw.values():
        zero &= values == 0
    return zero & data


def nodata_decision(
    sensor: Modality, encodings: Mapping[str, Encoding], raw: Mapping[str, NDArray[np.generic]]
) -> Decision:
    """State which stored values mean "no data", and how often a sample holds the undeclared."""
    declared = sorted({fill for entry in encodings.values() for fill in entry.declared})
    counts: dict[float, int] = {}
    total = 0
    for band, values in raw.items():
        numbers = encodings[band].numbers(values)
        total += numbers.size
        for fill in encodings[band].assumed:
            counts[fill] = counts.get(fill, 0) + int((numbers == fill).sum())
    seen = {fill: count for fill, count in counts.items() if count}
    if declared or not seen:
        value = ", ".join(f"{fill:g}" for fill in declared) or "none declared"
        because = "declared by the file" if declared else f"no known fill value in {total} samples"
        if not seen:
            return Decision("nodata", value, because)
        declared_words = f"{value} declared; "
    else:
        declared_words = ""
    value = ", ".join(f"{fill:g}" for fill in seen)
    shares = ", ".join(f"{count / total:.1%} of the samples are exactly {fill:g}"
                       for fill, count in seen.items())  # fmt: skip
    impossible = "reflectance" if sensor.units == "reflectance_1e4" else "backscatter"
    because = f"{declared_words}{shares}, which no {impossible} is"
    return Decision("nodata", value, because, warning=True)
