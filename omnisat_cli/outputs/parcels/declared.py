"""What farmers declared, in the classes of a map."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from omnisat_cli.errors import JobError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from omnisat_cli.outputs.parcels.names import ParcelClass
    from omnisat_cli.sources.polygons import PolygonFile

_SIZE_LIMIT = 16 * 2**20
_SHOWN = 8
_GROUP_COLUMN = re.compile(r"gro?u?pe?|grp")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_SEVERAL = re.compile(r"[|/+]")


@dataclass(frozen=True, slots=True)
class Declared:
    """A column of declarations and what its values mean.

    Attributes:
        column: Name of the column.
        meaning: Codes of the classes that agree with a value, by `key_of` the value.
        how: How values became classes, in words.
        unknown: (value, features) of values without a class, the most frequent first.
    """

    column: str
    meaning: Mapping[str, frozenset[int]]
    how: str
    unknown: tuple[tuple[str, int], ...]


def key_of(value: object) -> str | None:
    """Return how values are compared: without case, accents, and ".0"; None for no value."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None
    text = unicodedata.normalize("NFKD", str(value)).strip().casefold()
    text = "".join(c for c in text if not unicodedata.combining(c)).replace("\u2019", "'")
    whole = _WHOLE.fullmatch(text)
    return (whole[1] if whole else " ".join(text.split())) or None


def read_declared(
    source: PolygonFile,
    column: str,
    classes: Mapping[int, ParcelClass],
    crosswalk: Path | None = None,
) -> Declared:
    """Find out what the values of a column mean.

    Values are class names, else groups of the French land parcel register where the column is named
    so and the legend knows groups, else class codes; a crosswalk file overrules all of them.

    Args:
        source: The polygons.
        column: Name of the column.
        classes: Classes of the map by code.
        crosswalk: CSV or JSON file from value to class.

    Raises:
        JobError: If there is no such column, or none of its values means a class.
        SourceError: If the crosswalk cannot be read.
    """
    source.check_column(column, "--declared")
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for batch in source.batches([column], geometry=False):
        values = batch.column(column)
        if pa.types.is_nested(values.type):
            raise JobError(f"--declared {column}: holds lists or objects, not one crop a parcel")
        for entry in values.value_counts().to_pylist():
            key = key_of(entry["values"])
            if key is not None:
                counts[key] += entry["counts"]
                shown.setdefault(key, str(entry["values"]))
    if not counts:
        raise JobError(f"--declared {column}: is empty in all {source.count} features")
    if crosswalk is not None:
        meaning, how = read_crosswalk(crosswalk, classes), f"crosswalk {crosswalk}"
    else:
        meaning, how = _best(column, counts, classes)
    if not any(key in meaning for key in counts):
        values = ", ".join(shown[key] for key, _ in counts.most_common(_SHOWN))
        names = ", ".join(f"{c.code} {c.name}" for c in list(classes.values())[:_SHOWN])
        raise JobError(
            f"--declared {column}: none of its {len(counts)} values ({values}) is a class of the "
            f"map ({names}, …)\ngive --crosswalk FILE.csv with lines like: "
            f"{shown[counts.most_common(1)[0][0]]},{next(iter(classes.values())).name}"
        )
    unknown = tuple((shown[key], n) for key, n in counts.most_common() if key not in meaning)
    used = {key: meaning[key] for key in counts if key in meaning}
    return Declared(column, used, how, unknown)


def _best(
    column: str, counts: Mapping[str, int], classes: Mapping[int, ParcelClass]
) -> tuple[dict[str, frozenset[int]], str]:
    """Choose the reading that explains most features; the first of equals."""
    readings = [(_by_name(classes), "class names"), (_by_code(classes), "class codes")]
    groups = _by_group(classes)
    if groups and _GROUP_COLUMN.search(column.casefold()):
        readings.insert(0, (groups, "groups of the French land parcel register"))
    return max(
        readings, key=lambda reading: sum(n for key, n in counts.items() if key in reading[0])
    )


def _by_name(classes: Mapping[int, ParcelClass]) -> dict[str, frozenset[int]]:
    pairs = [(name, c.code) for c in classes.values() for name in (c.name, c.name_fr)]
    return _collected((key_of(name), code) for name, code in pairs)


def _by_code(classes: Mapping[int, ParcelClass]) -> dict[str, frozenset[int]]:
    return {str(code): frozenset({code}) for code in classes}


def _by_group(classes: Mapping[int, ParcelClass]) -> dict[str, frozenset[int]]:
    """Read groups like "18/19" (either) and "25?" (not confirmed)."""
    return _collected(
        (group.strip(" ?"), entry.code)
        for entry in classes.values()
        for group in (entry.rpg_group or "").split("/")
    )


def _collected(pairs: Iterable[tuple[str | None, int]]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for key, code in pairs:
        if key:
            found.setdefault(key, set()).add(code)
    return {key: frozenset(codes) for key, codes in found.items()}


def read_crosswalk(path: Path, classes: Mapping[int, ParcelClass]) -> dict[str, frozenset[int]]:
    """Read a file that says which declared value means which classes.

    CSV (comma, semicolon or tab): value, class; a class is a code or a name, several are parted by
    "|" or stand on lines of their own; a first line of titles is passed over. JSON: an object.

    Raises:
        SourceError: If it cannot be read or names a class the map does not have.
    """
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise SourceError(f"{path} is larger than {_SIZE_LIMIT} bytes: not a crosswalk")
        text = path.read_text("utf-8-sig")
        rows = _json_rows(text) if path.suffix.lower() == ".json" else _csv_rows(text)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise SourceError(f"--crosswalk {path}: cannot be read ({error})") from error
    known = _by_name(classes) | _by_code(classes)
    pairs: list[tuple[str | None, int]] = []
    for number, (value, target) in enumerate(rows, 1):
        codes = known.get(key_of(target) or "") or _several(target, known)
        if codes is None and number > 1:
            names = ", ".join(f"{c.code} {c.name}" for c in list(classes.values())[:_SHOWN])
            raise SourceError(
                f"--crosswalk {path}, line {number}: {target!r} is no class of the map ({names}, …)"
            )
        pairs += [(key_of(value), code) for code in codes or ()]
    if not pairs:
        raise SourceError(
            f"--crosswalk {path}: says nothing; write lines of declared value and class, e.g. BTH,2"
        )
    return _collected(pairs)


def _several(target: str, known: Mapping[str, frozenset[int]]) -> frozenset[int] | None:
    """Read several classes parted by "|", "/" or "+"."""
    parts = [known.get(key_of(part) or "") for part in _SEVERAL.split(target)]
    return None if None in parts else frozenset().union(*(part or () for part in parts))


def _csv_rows(text: str) -> list[tuple[str, str]]:
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(row)]
    short = next((row for row in rows if len(row) < 2), None)
    if short is not None:
        raise ValueError(f"a line has one column only: {short[0][:40]!r}")
    return [(row[0], row[1]) for row in rows]


def _json_rows(text: str) -> list[tuple[str, str]]:
    tree = json.loads(text)
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    rows = [("", "")]  # in place of the titles of a CSV file
    for value, target in tree.items():
        targets = target if isinstance(target, list) else [target]
        rows += [(value, str(one)) for one in targets]
    return rows
