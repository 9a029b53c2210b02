"""Dates of a series, however a file writes them: CF time, ISO text, YYYYMMDD, product names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}
_UNIT_WORDS = {
    "s": "second",
    "sec": "second",
    "secs": "second",
    "min": "minute",
    "mins": "minute",
    "h": "hour",
    "hr": "hour",
    "hrs": "hour",
    "d": "day",
    "millisecond": "ms",
    "milliseconds": "ms",
    "ms": "ms",
    "msec": "ms",
    "microsecond": "us",
    "microseconds": "us",
    "us": "us",
    "nanosecond": "ns",
    "nanoseconds": "ns",
    "ns": "ns",
}
_FRACTIONS = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_CALENDARS = ("", "standard", "gregorian", "proleptic_gregorian")
_TEXT = re.compile(
    r"(?<!\d)(?P<y>(?:19|20)\d\d)(?:(?P<sep>[-/.])(?P<m>\d{1,2})(?P=sep)(?P<d>\d{1,2})|"
    r"(?P<mm>\d\d)(?P<dd>\d\d))(?!\d)"
    r"(?:[T ](?P<hour>\d{1,2}):?(?P<minute>\d\d)(?::?(?P<second>\d\d))?(?:\.\d+)?"
    r"(?P<zone>\s*(?:Z|UTC|[+-]\d\d:?\d\d))?)?"
)
_FIRST_ORDINAL, _LAST_ORDINAL = 693_596, 766_645  # 1900-01-01, 2100-01-01 counted from year 1
_FIRST_PLAIN, _LAST_PLAIN = 19_000_101, 21_001_231


@dataclass(frozen=True, slots=True)
class Times:
    """Acquisition days in the order of the file.

    Attributes:
        days: (T,) datetime64[D].
        how: What the file says, in words ("CF time, days since 1990-01-01").
        zone: A time zone that was dropped, or "".
    """

    days: NDArray[np.datetime64]
    how: str
    zone: str = ""


def parse_times(values: NDArray[np.generic], attributes: Mapping[str, object]) -> Times:
    """Read a time coordinate as stored, without any decoding.

    Args:
        values: (T,) numbers, text, or datetime64.
        attributes: Attributes of the coordinate ("units", "calendar", "_FillValue").

    Raises:
        SourceError: If the values are no dates, or a date is missing.
    """
    if np.issubdtype(values.dtype, np.datetime64):
        return _checked(Times(values.astype("datetime64[D]"), "datetime64"))
    if values.dtype.kind in "SUOT":
        return _checked(_from_text([_text(value) for value in values.tolist()]))
    units = str(attributes.get("units", ""))
    if " since " in units:
        return _checked(_from_cf(values.astype(np.float64), units, attributes))
    return _checked(_from_plain_numbers(values))


def read_dates_file(path: Path) -> Times:
    """Read one date per line from a text file; blank lines and lines that open with # are skipped.

    Raises:
        SourceError: If the file cannot be read or a line holds no date.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"dates file {path} cannot be read: {error}") from error
    wanted = [line for line in (raw.strip() for raw in lines) if line and not line.startswith("#")]
    try:
        times = _from_text(wanted)
    except SourceError as error:
        raise SourceError(f"dates file {path}: {error}") from None
    return _checked(Times(times.days, f"dates file {path.name}", times.zone))


def _checked(times: Times) -> Times:
    missing = int(np.isnat(times.days).sum())
    if missing:
        raise SourceError(
            f"{missing} of {len(times.days)} dates are missing (not a time); "
            "give one date per line with --dates FILE"
        )
    return times


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _parse_one(text: str) -> tuple[np.datetime64, str]:
    """Find the first date in a text; return it to the second, and the time zone as written."""
    match = _TEXT.search(text)
    if match is None:
        raise SourceError(f"no date in {text[:80]!r}; write dates as 2024-07-12 or 20240712")
    part = match.groupdict()
    clock = f"{int(part.get('hour') or 0):02d}:{part.get('minute') or '00'}:" + (
        part.get("second") or "00"
    )
    try:
        month, day = int(part["m"] or part["mm"]), int(part["d"] or part["dd"])
        stamp = np.datetime64(f"{part['y']}-{month:02d}-{day:02d}T{clock}", "s")
    except ValueError:
        raise SourceError(f"{text[:80]!r} is not a date of the calendar") from None
    return stamp, (part.get("zone") or "").strip()


def _from_text(texts: list[str]) -> Times:
    stamps, zones = [], set()
    for text in texts:
        stamp, zone = _parse_one(text)
        stamps.append(stamp)
        zones.add(zone)
    days = np.array(stamps, dtype="datetime64[s]").astype("datetime64[D]")
    # UTC is what every product uses: only another zone could move a date.
    foreign = sorted(zones - {"", "Z", "UTC", "+00:00", "+0000", "-00:00"})
    return Times(days, "dates written as text", foreign[0] if foreign else "")


def _from_cf(values: NDArray[np.float64], units: str, attributes: Mapping[str, object]) -> Times:
    calendar = str(attributes.get("calendar", "")).lower()
    if calendar not in _CALENDARS:
        raise SourceError(
            f"the time axis uses the calendar {calendar!r}, which has no real dates; "
            "give one date per line with --dates FILE"
        )
    word, _, reference = units.partition(" since ")
    unit = _unit(word)
    start, zone = _parse_one(reference)
    fill = attributes.get("_FillValue")
    known = np.isfinite(values)
    if isinstance(fill, int | float | np.number):
        known &= values != float(fill)
    days = np.full(values.shape, np.datetime64("NaT", "D"))
    if unit in ("month", "year"):
        days[known] = _calendar_steps(values[known], start, 12 if unit == "year" else 1, units)
    else:
        seconds = values[known] * (_SECONDS.get(unit) or _FRACTIONS[unit])
        days[known] = (start + np.round(seconds).astype("timedelta64[s]")).astype("datetime64[D]")
    utc = zone in ("", "Z", "UTC", "+00:00", "+0000", "-00:00")
    return Times(days, f"CF time, {units}", "" if utc else zone)


def _unit(word: str) -> str:
    plain = word.strip().lower()
    unit = _UNIT_WORDS.get(plain, plain.removesuffix("s"))
    if unit not in _SECONDS and unit not in _FRACTIONS and unit not in ("month", "year"):
        raise SourceError(f"the time axis counts in {word!r}, which is not a unit of time we know")
    return unit


def _calendar_steps(
    values: NDArray[np.float64], start: np.datetime64, months_each: int, units: str
) -> NDArray[np.datetime64]:
    """Step whole months or years: these have no fixed length in seconds."""
    if not np.array_equal(values, np.round(values)):
        raise SourceError(
            f"the time axis has fractions in {units!r}, so the days are not defined; "
            "give one date per line with --dates FILE"
        )
    month = start.astype("datetime64[M]")
    day = start.astype("datetime64[D]") - month.astype("datetime64[D]")
    stepped = month + values.astype(np.int64) * months_each
    return np.asarray(stepped.astype("datetime64[D]") + day, dtype="datetime64[D]")


def _from_plain_numbers(values: NDArray[np.generic]) -> Times:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size and np.array_equal(numbers, np.round(numbers)):
        low, high = numbers.min(), numbers.max()
        if low >= _FIRST_PLAIN and high <= _LAST_PLAIN:
            found = _from_text([str(int(number)) for number in numbers])
            return Times(found.days, "whole numbers read as YYYYMMDD")
        if low >= _FIRST_ORDINAL and high <= _LAST_ORDINAL:
            shift = numbers.astype(np.int64) - 719_163  # ordinal of 1970-01-01
            return Times(shift.astype("datetime64[D]"), "whole numbers read as ordinal days")
    sample = ", ".join(f"{number:g}" for number in numbers[:3])
    raise SourceError(
        f"the time axis holds {sample} … without a unit (days since …): not dates; "
        "give one date per line with --dates FILE"
    )
