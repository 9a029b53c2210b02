"""From the codes found in labels to classes: by a table, the legend of a model, or anew."""

from __future__ import annotations

import colorsys
import csv
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError, SecurityError, SourceError
from omnisat_cli.outputs.legend import NODATA, Legend, LegendClass
from omnisat_cli.sources.safe import local_path
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_CLASSES = NODATA
_MAX_TABLE = 2**22
_SHOWN = 12
_COLUMNS = ("code", "class", "name_en", "name_fr", "color")
_GOLDEN = 0.618033988749895


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the codes of labels mean.

    Attributes:
        legend: The classes.
        classes: Code, as lower-case text, to the legend code; None = left out on purpose.
        decisions: How it came about.
    """

    legend: Legend
    classes: Mapping[str, int | None]
    decisions: tuple[Decision, ...] = ()

    def code_of(self, word: str) -> int:
        """Return the legend code of a code of the labels; 255 where it is left out."""
        found = self.classes[word.casefold()]
        return NODATA if found is None else found


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a class table; empty texts where a cell is empty."""

    line: int
    code: str
    klass: str
    name_en: str
    name_fr: str
    color: str


@dataclass(frozen=True, slots=True)
class Codes:
    """What was found in labels.

    Attributes:
        counts: Code, as text, to how often it occurs.
        unit: What is counted: "features" or "pixels".
        where: The file and its column, for messages.
        names: Code to a name the file gives it.
    """

    counts: Mapping[str, int]
    unit: str
    where: str
    names: Mapping[str, str] = field(default_factory=dict)


def choose_scheme(
    codes: Codes, table: str | Path | None, legend: Legend | None, *, binding: bool = False
) -> Scheme:
    """Decide what the codes of labels mean.

    Args:
        codes: What was found.
        table: CSV with columns code, class and optionally name_en, name_fr, color; or None.
        legend: Legend of a model, used where the codes fit, or None.
        binding: Whether it must be that legend.

    Raises:
        JobError: If codes are unknown, there are too many, or the legend does not fit.
        SourceError: If the table cannot be read or contradicts itself.
    """
    if not codes.counts:
        raise JobError(f"{codes.where}: no class code over the imagery: every value is empty")
    if table is not None:
        rows = read_table(table)
        _refuse_unknown(codes, [row.code for row in rows], str(table))
        return _from_table(rows, str(table), legend, binding=binding)
    if legend is not None:
        known = _known_words(legend)
        fitting = {code.casefold(): known.get(code.casefold()) for code in codes.counts}
        if all(value is not None for value in fitting.values()):
            because = f"all {len(fitting)} codes of {codes.where} are among its classes"
            return Scheme(legend, fitting, (_decided(legend.label, because),))
        if binding:
            _refuse_unknown(codes, list(known), f"the legend {legend.label}")
    return _new_scheme(codes)


def _known_words(legend: Legend) -> dict[str, int]:
    """Return what a class may be called in labels: its code, or one of its names."""
    words: dict[str, int] = {}
    for entry in legend.classes:
        for word in (str(entry.code), entry.name_en, entry.name_fr):
            words.setdefault(word.casefold(), entry.code)
    return words


def _refuse_unknown(codes: Codes, known: Sequence[str], where: str) -> None:
    """Refuse codes that nothing is known of, with what might have been meant."""
    lower = {word.casefold(): word for word in known}
    unknown = sorted(
        (code for code in codes.counts if code.casefold() not in lower),
        key=lambda code: (-codes.counts[code], code),
    )
    if not unknown:
        return
    listed = []
    for code in unknown[:_SHOWN]:
        near = get_close_matches(code.casefold(), lower, n=1)
        meant = f", did you mean {lower[near[0]]}?" if near else ""
        listed.append(f"{code} ({codes.counts[code]} {codes.unit}{meant})")
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise JobError(
        f"{codes.where}: codes that {where} does not know: {', '.join(listed)}{more}. Add them to "
        "the class table; an empty class leaves a code out"
    )


def read_table(table: str | Path) -> tuple[Row, ...]:
    """Read a class table: CSV, separated by comma, semicolon or tab.

    Raises:
        SourceError: If it is no such table, or a code stands for two classes.
        SecurityError: If it is absurdly large.
    """
    place = local_path(table)
    if not place.is_file():
        raise SourceError(f"{place}: is no file; give a CSV with the columns code and class")
    if place.stat().st_size > _MAX_TABLE:
        raise SecurityError(
            f"{place}: {place.stat().st_size} bytes, the limit for a class table is {_MAX_TABLE}"
        )
    raw = place.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # what spreadsheets write
    lines = text.splitlines()
    head = lines[0] if lines else ""
    separator = max(",;\t", key=head.count)
    try:
        cells = list(csv.reader(lines, delimiter=separator))
    except csv.Error as error:
        raise SourceError(f"{place}: is no readable CSV ({error})") from error
    names = [cell.strip().casefold() for cell in cells[0]] if cells else []
    unknown = [name for name in names if name not in _COLUMNS]
    if "code" not in names or "class" not in names or unknown:
        raise SourceError(
            f"{place}: its first line is {head[:80]!r}; it must name the columns code and class, "
            "and may name name_en, name_fr and color"
        )
    rows = []
    for line, entry in enumerate(cells[1:], 2):
        row = dict(zip(names, (cell.strip() for cell in entry), strict=False))
        if any(row.values()):
            rows.append(_row(row, line, place))
    return _consistent(rows, place)


def _row(row: Mapping[str, str], line: int, place: Path) -> Row:
    if not row.get("code"):
        raise SourceError(f"{place}, line {line}: has no code")
    color = row.get("color", "").lower()
    digits = color.removeprefix("#")
    if color and not (len(digits) == 6 and all(c in "0123456789abcdef" for c in digits)):
        raise SourceError(f"{place}, line {line}: color {color!r} is not like '#1a2b3c'")
    return Row(
        line,
        row["code"],
        row.get("class", ""),
        row.get("name_en", ""),
        row.get("name_fr", ""),
        f"#{digits}" if color else "",
    )


def _consistent(rows: Sequence[Row], place: Path) -> tuple[Row, ...]:
    """Check that every code stands for one class; drop repeated lines."""
    seen: dict[str, Row] = {}
    for row in rows:
        before = seen.setdefault(row.code.casefold(), row)
        if before.klass != row.klass:
            raise SourceError(
                f"{place}: code {row.code} stands for {before.klass or 'nothing'!r} in line "
                f"{before.line} and for {row.klass or 'nothing'!r} in line {row.line}"
            )
    if not any(row.klass for row in seen.values()):
        raise SourceError(f"{place}: names no class; fill the column class")
    return tuple(seen.values())


def _from_table(rows: Sequence[Row], table: str, legend: Legend | None, *, binding: bool) -> Scheme:
    """Make classes out of a table: those of a legend where all fit, new ones otherwise."""
    wanted = list(dict.fromkeys(row.klass for row in rows if row.klass))
    merged = f"{sum(bool(row.klass) for row in rows)} codes become {len(wanted)} classes"
    left_out = sum(not row.klass for row in rows)
    because = f"{table}: {merged}, {left_out} are left out"
    if legend is not None:
        known = _known_words(legend)
        if all(klass.casefold() in known for klass in wanted):
            codes = {klass: known[klass.casefold()] for klass in wanted}
            return Scheme(legend, _of_rows(rows, codes), (_decided(legend.label, because),))
        if binding:
            missing = [klass for klass in wanted if klass.casefold() not in known]
            raise JobError(
                f"{table}: the legend {legend.label} has no class {', '.join(missing[:_SHOWN])}"
            )
    if len(wanted) > MOST_CLASSES:
        raise JobError(f"{table}: {len(wanted)} classes, at most {MOST_CLASSES} are possible")
    made = _codes_of(wanted)
    entries = [_entry(klass, made[klass], index, rows) for index, klass in enumerate(wanted)]
    entries.sort(key=lambda entry: entry.code)
    decision = _decided(f"{len(entries)} classes", because)
    return Scheme(_made_legend(entries, table), _of_rows(rows, made), (decision,))


def _of_rows(rows: Sequence[Row], codes: Mapping[str, int]) -> dict[str, int | None]:
    return {row.code.casefold(): codes[row.klass] if row.klass else None for row in rows}


def _decided(value: str, because: str) -> Decision:
    return Decision("legend", value, because, "--classes")


def _made_legend(entries: Sequence[LegendClass], where: str) -> Legend:
    source = f"made of the labels {Path(where).name}"[:200]
    return Legend("labels", "1", source, "that of the labels", tuple(entries))


def _codes_of(words: Sequence[str]) -> dict[str, int]:
    """Number classes: by themselves where all are whole numbers in range, else in their order."""
    if all(word.isascii() and word.isdigit() and int(word) < NODATA for word in words):
        numbers = [int(word) for word in words]
        if len(set(numbers)) == len(numbers):
            return dict(zip(words, numbers, strict=True))
    return {word: index for index, word in enumerate(words)}


def _entry(klass: str, code: int, index: int, rows: Sequence[Row]) -> LegendClass:
    same = [row for row in rows if row.klass == klass]
    plain = f"class {klass}" if klass.isdigit() else klass
    english = next((row.name_en for row in same if row.name_en), plain)
    french = next((row.name_fr for row in same if row.name_fr), english)
    color = next((row.color for row in same if row.color), distinct_color(index))
    return _legend_class(code, english, french, color)


def _legend_class(code: int, english: str, french: str, color: str) -> LegendClass:
    try:
        return LegendClass(code, english, french, color)
    except ValueError as error:
        raise JobError(f"the labels name a class that no legend can hold: {error}") from error


def _new_scheme(codes: Codes) -> Scheme:
    """Make one class of every code."""
    words = sorted(codes.counts, key=_natural)
    if len(words) > MOST_CLASSES:
        raise JobError(
            f"{codes.where}: {len(words)} different values ({', '.join(words[:5])}, …); at most "
            f"{MOST_CLASSES} classes are possible. Is it an identifier? Name the column of the "
            "classes, or merge codes with a class table"
        )
    made = _codes_of(words)
    entries = []
    for index, word in enumerate(words):
        plain = f"class {word}" if word.isdigit() else word
        name = codes.names.get(word) or plain
        entries.append(_legend_class(made[word], name, name, distinct_color(index)))
    because = f"one for each code found in {codes.where}"
    decision = _decided(f"{len(entries)} classes", because)
    classes = {word.casefold(): code for word, code in made.items()}
    return Scheme(_made_legend(entries, codes.where), classes, (decision,))


def _natural(word: str) -> tuple[int, float, str]:
    """Numbers by value before words by alphabet."""
    number = word.removeprefix("-")
    return (0, float(word), word) if number.isascii() and number.isdigit() else (1, 0.0, word)


def distinct_color(index: int) -> str:
    """Return the colour of the n-th class; neighbours in the list differ clearly."""
    hue = (0.08 + index * _GOLDEN) % 1
    light, strong = ((0.55, 0.85), (0.85, 0.75), (0.7, 0.5))[index // 2 % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, strong, light))
    return f"#{red:02x}{green:02x}{blue:02x}"
