"""Which stored dates of a cube are used: found, filtered, sorted, duplicates settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.sources.dates import Times, parse_times, read_dates_file
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from numpy.typing import NDArray

    from omnisat_cli.sources.cube_layout import Dims

Duplicates = Literal["refuse", "first", "mean"]

_SCALAR_NAMES = ("time", "t", "date", "datetime", "start_datetime", "time_coverage_start")
_ORBIT_NAMES = ("orbit_state", "sat:orbit_state", "orbit_pass", "orbit_direction", "pass")
_ORBITS = {"s1-asc": "ascending", "s1-des": "descending"}


@dataclass(frozen=True, slots=True)
class Calendar:
    """Output dates and the stored dates they are made of.

    Attributes:
        groups: For each output date, indices of stored dates.
        days: ISO days, ascending, one a group.
    """

    groups: tuple[tuple[int, ...], ...]
    days: tuple[str, ...]


def find_times(dataset: xr.Dataset, dims: Dims, file: Path | None) -> Times:
    """Find the day of every stored date: a dates file, the time coordinate, or a lone date.

    Raises:
        SourceError: If there is none, or a dates file has another count.
    """
    count = int(dataset.sizes.get(dims.time, 1))
    if file is not None:
        times = read_dates_file(file)
        if len(times.days) != count:
            raise SourceError(f"{file} lists {len(times.days)} dates for {count} images")
        return times
    if dims.time and dims.time in dataset.variables:
        coordinate = dataset[dims.time]
        if coordinate.dims == (dims.time,):
            return parse_times(coordinate.values, _named(coordinate.attrs))
    if not dims.time:
        for name in _SCALAR_NAMES:
            if name in dataset.variables and dataset[name].size == 1:
                variable = dataset[name]
                return parse_times(variable.values.reshape(1), _named(variable.attrs))
            if name in dataset.attrs:
                return parse_times(np.array([str(dataset.attrs[name])]), {})
    held = ", ".join(f"{dim} ({size})" for dim, size in dataset.sizes.items())
    raise SourceError(
        f"no dates: no time coordinate among the dimensions {held}; "
        f"pass --dates FILE with {count} lines, one date each (2024-07-12)"
    )


def _named(attributes: dict[str, object]) -> dict[str, object]:
    return {str(key): value for key, value in attributes.items()}


def find_orbits(dataset: xr.Dataset, dims: Dims, steps: int) -> list[str] | None:
    """Find the orbit direction of every stored date; None where the file does not tell."""
    for name in _ORBIT_NAMES:
        if name in dataset.variables:
            variable = dataset[name]
            if variable.dims == (dims.time,) or variable.size == 1:
                values = [_direction(value) for value in variable.values.ravel().tolist()]
                if all(values):
                    return values * steps if len(values) == 1 else values
    tables = [dataset.attrs, *(entry.attrs for entry in dataset.variables.values())]
    for table in tables:
        for name in _ORBIT_NAMES:
            direction = _direction(table.get(name, ""))
            if direction:
                return [direction] * steps
    return None


def _direction(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    plain = text.strip().lower()
    if plain in ("a", "asc") or plain.startswith("ascend"):
        return "ascending"
    return "descending" if plain in ("d", "des", "desc") or plain.startswith("descend") else ""


def keep_orbit(
    sensor: str, orbits: list[str] | None, stated: bool, steps: int
) -> tuple[NDArray[np.bool_], tuple[Decision, ...]]:
    """Select the stored dates of the orbit that a modality names.

    Args:
        sensor: "s1-asc" and "s1-des" name an orbit; others take every date.
        orbits: Direction of every stored date, if the file tells.
        stated: Whether the user vouches that the file holds that orbit.
        steps: Number of stored dates.

    Raises:
        SourceError: If the orbit is unknown, or the file holds none of it.
    """
    wanted = _ORBITS.get(sensor)
    everything = np.ones(steps, dtype=bool)
    if wanted is None:
        if orbits is None or sensor != "s1":
            return everything, ()
        counts = [f"{orbits.count(word)} {word}" for word in sorted(set(orbits))]
        return everything, (Decision("orbit", "both in one series", ", ".join(counts)),)
    option = f"--{sensor}"
    if orbits is None:
        if not stated:
            raise SourceError(
                f"{wanted} dates were asked for, but the file does not tell the orbit of its "
                f"{steps} dates (no orbit_state); pass a file of one orbit as {option} FILE, or "
                "all dates as --s1 FILE"
            )
        value = f"all {steps} dates are {wanted}"
        return everything, (Decision("orbit", value, "as stated; the file does not tell", option),)
    keep = np.array([orbit == wanted for orbit in orbits])
    if not keep.any():
        raise SourceError(
            f"{wanted} dates were asked for, but all {steps} dates are {orbits[0]} "
            "by the file's orbit_state"
        )
    value = f"{int(keep.sum())} of {steps} dates are {wanted}"
    return keep, (Decision("orbit", value, "orbit_state of the file", option),)


def choose_dates(
    times: Times,
    keep: NDArray[np.bool_],
    date_range: tuple[str, str] | None,
    duplicates: Duplicates,
) -> tuple[Calendar, tuple[Decision, ...]]:
    """Filter and sort the stored dates, and settle days that occur twice.

    Args:
        times: Day of every stored date.
        keep: (T,) which of them may be used.
        date_range: First and last day, both included; None: all.
        duplicates: What becomes of several images of one day.

    Raises:
        SourceError: If no date is left, or a day occurs twice and nothing was said about it.
        JobError: If the range is none.
    """
    days = times.days
    used = keep & _within(days, date_range)
    if not used.any():
        span = f"{days.min()} … {days.max()}" if len(days) else "nothing"
        wanted = " … ".join(date_range) if date_range else "all dates"
        raise SourceError(f"no date left: {wanted} was asked for, the file holds {span}")
    order = np.flatnonzero(used)[np.argsort(days[used], kind="stable")]
    decisions = [_dates_decision(times, order)]
    if (np.diff(days[used].astype(np.int64)) < 0).any():
        decisions.append(Decision("dates", "sorted", "the file does not store them in order"))
    if times.zone:
        because = f"the file writes {times.zone}; the day is kept as written"
        decisions.append(Decision("dates", "time zone dropped", because, "--dates FILE", True))
    unique = np.unique(days[order])
    groups = tuple(tuple(int(k) for k in order[days[order] == day]) for day in unique)
    doubled = [str(day) for day, group in zip(unique, groups, strict=True) if len(group) > 1]
    if doubled:
        decisions.append(_duplicates_decision(doubled, duplicates))
    return Calendar(groups, tuple(str(day) for day in unique)), tuple(decisions)


def _within(days: NDArray[np.datetime64], date_range: tuple[str, str] | None) -> NDArray[np.bool_]:
    if date_range is None:
        return np.ones(len(days), dtype=bool)
    try:
        first, last = (np.datetime64(text, "D") for text in date_range)
    except ValueError:
        raise JobError(f"--dates {'/'.join(date_range)}: write 2024-01-01/2024-12-31") from None
    if last < first:
        raise JobError(f"--dates {first}/{last}: the last day lies before the first")
    return np.asarray((days >= first) & (days <= last), dtype=bool)


def _dates_decision(times: Times, order: NDArray[np.intp]) -> Decision:
    days = times.days[order]
    value = f"{len(order)} dates {days[0]} … {days[-1]}"
    rest = len(times.days) - len(order)
    because = times.how + (f"; {rest} of {len(times.days)} stored dates left out" if rest else "")
    return Decision("dates", value, because, "--dates")


def _duplicates_decision(doubled: list[str], duplicates: Duplicates) -> Decision:
    listed = ", ".join(doubled[:5]) + (" …" if len(doubled) > 5 else "")
    if duplicates == "refuse":
        raise SourceError(
            f"{len(doubled)} days have more than one image ({listed}); pass "
            "--duplicate-dates first (the first valid one wins, pixel by pixel) or mean"
        )
    word = "averaged" if duplicates == "mean" else "the first valid image wins, pixel by pixel"
    value = f"{len(doubled)} days with several images: {word}"
    return Decision("dates", value, listed, "--duplicate-dates")
