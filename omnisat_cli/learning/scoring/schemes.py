"""On which classes a map and its labels can be compared: their own, or those of a crosswalk.

A crosswalk says which class of the map stands for which class of the labels. Where one stands for
several, these cannot be told apart and become one class of the comparison.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.labelling.classes import read_table
from omnisat_cli.outputs.legend import legend, shipped_legends
from omnisat_cli.sources.safe import local_path

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.outputs.legend import LegendClass

NO_COUNTERPART = "no counterpart"
_NONE_COLOR = "#808080"
_SIZE_LIMIT = 2**24
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class SchemeClass:
    """One class of the map or of the labels.

    Attributes:
        code: Its value; classes that are known by a name alone have negative codes.
        name: Its name.
        color: "#rrggbb".
        other_name: A second name it is known by, or "".
        groups: Groups of the French land parcel register it belongs to.
    """

    code: int
    name: str
    color: str
    other_name: str = ""
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Scheme:
    """The K classes of a comparison.

    Attributes:
        names: Name of each.
        colors: "#rrggbb" of each.
        of_map: Code of the map to class.
        of_labels: Code of the labels to class.
        label_names: Lower-case name of a class of the labels to its code.
        left_out: Codes of the labels that a table leaves out.
        note: What a reader should know of it, or "".
    """

    names: tuple[str, ...]
    colors: tuple[str, ...]
    of_map: Mapping[int, int]
    of_labels: Mapping[int, int]
    label_names: Mapping[str, int]
    left_out: frozenset[int] = frozenset()
    note: str = ""

    def code_of(self, word: str) -> int | None:
        """Return the code of a class of the labels that is known by a number or a word."""
        number = int(word) if word.removeprefix("-").isdecimal() else None
        if number in self.of_labels or number in self.left_out:
            return number
        return self.label_names.get(word.strip().casefold())

    def label_word(self, code: int) -> str:
        """Return a code of the labels as its user knows it: a number, or a word."""
        names = (name for name, known in self.label_names.items() if known == code)
        return str(code) if code >= 0 else next(names, str(code))

    def refusal(self, unknown: Counter[str], where: str, unit: str) -> str:
        """Say that labels hold what is no class of the comparison.

        Args:
            unknown: What they hold, and how often.
            where: The labels.
            unit: What is counted: "pixels" or "features".
        """
        most = unknown.most_common(_SHOWN)
        shown = ", ".join(f"{word} ({count} {unit})" for word, count in most)
        more = f" and {len(unknown) - len(most)} more" if len(unknown) > len(most) else ""
        known = ", ".join(self.label_word(code) for code in sorted(self.of_labels))
        return (
            f"{where} holds {shown}{more}: no class of the comparison ({known})\n"
            "say what it stands for with --crosswalk FILE.csv, or leave such ground out with "
            f"--ignore {','.join(word for word, _ in most)}"
        )

    def label_classes(self, codes: NDArray[np.integer]) -> NDArray[np.int16]:
        """Return the class of each code of the labels; -1 where it has none."""
        return _looked_up(codes, self.of_labels)

    def map_classes(self, codes: NDArray[np.integer]) -> NDArray[np.int16]:
        """Return the class of each code of the map; -1 where it has none."""
        return _looked_up(codes, self.of_map)


def scheme_classes(classes: Iterable[LegendClass]) -> tuple[SchemeClass, ...]:
    """Return the classes of a legend as classes of a comparison."""
    return tuple(
        SchemeClass(c.code, c.name_en, c.color, c.name_fr, register_groups(c.rpg_group))
        for c in classes
    )


def register_groups(text: str | None) -> frozenset[str]:
    """Read groups of the French land parcel register: "18/19", or "25?" where not confirmed."""
    return frozenset((text or "").replace("?", "").split("/")) - {""}


def own_scheme(classes: Sequence[SchemeClass]) -> Scheme:
    """Compare on the classes of the map: the labels use the same codes or names."""
    places = {entry.code: place for place, entry in enumerate(classes)}
    return Scheme(
        tuple(entry.name for entry in classes),
        tuple(entry.color for entry in classes),
        places,
        places,
        _names(classes),
    )


def crossed_scheme(
    mapped: Sequence[SchemeClass],
    labels: Sequence[SchemeClass],
    pairs: Iterable[tuple[SchemeClass, SchemeClass]],
) -> Scheme:
    """Compare on what a crosswalk leaves distinguishable.

    Args:
        mapped: Classes of the map.
        labels: Classes of the labels.
        pairs: Which class of the map stands for which class of the labels.

    Returns:
        One class for each group of connected classes, in the order of the labels. Classes of the
        map that stand for none are one class more: giving them on labelled ground is an error.
    """
    joined = list(pairs)
    groups = _connected(len(labels), [(m.code, labels.index(to)) for m, to in joined])
    order = list(dict.fromkeys(groups))
    of_labels = {entry.code: order.index(g) for entry, g in zip(labels, groups, strict=True)}
    of_map = {m.code: of_labels[to.code] for m, to in joined}
    lonely = [entry for entry in mapped if entry.code not in of_map]
    of_map |= {entry.code: len(order) for entry in lonely}
    members = [[e for e in labels if of_labels[e.code] == k] for k in range(len(order))]
    names = [" / ".join(entry.name for entry in group) for group in members]
    colors = [group[0].color for group in members]
    notes = []
    if lonely:
        names, colors = [*names, NO_COUNTERPART], [*colors, _NONE_COLOR]
        notes.append(f"{NO_COUNTERPART}: {', '.join(entry.name for entry in lonely)}")
    given = {of_labels[to.code] for _, to in joined}
    never = [name for k, name in enumerate(names[: len(order)]) if k not in given]
    if never:
        notes.append(f"no class of the map stands for: {', '.join(never)}")
    return Scheme(
        tuple(names), tuple(colors), of_map, of_labels, _names(labels), note="; ".join(notes)
    )


def read_crosswalk(text: str, mapped: Sequence[SchemeClass], map_legend: str | None) -> Scheme:
    """Make the scheme of `--crosswalk`.

    Args:
        text: "LEGEND:LEGEND", both shipped, joined by their groups of the French land parcel
            register; or a CSV file with the columns `map` and `label` (codes or names; a class may
            stand on several rows) and, for names of label codes, `name`.
        mapped: Classes of the map.
        map_legend: Id of the legend of the map, where it is known.

    Raises:
        JobError: If a legend does not exist or is not that of the map, or a row names a class the
            map does not have.
        SourceError: If the file cannot be read.
    """
    one, _, other = text.partition(":")
    if other and one in shipped_legends():
        if map_legend is not None and map_legend.partition("@")[0] != one:
            raise JobError(f"--crosswalk {text}: the map has the legend {map_legend}, not {one}")
        labels = scheme_classes(legend(other).classes)
        groups = {c.code: register_groups(c.rpg_group) for c in legend(one).classes}
        nothing: frozenset[str] = frozenset()
        pairs = [
            (m, to) for m in mapped for to in labels if groups.get(m.code, nothing) & to.groups
        ]
        if not pairs:
            raise JobError(f"--crosswalk {text}: no class of {one} has a counterpart in {other}")
        return crossed_scheme(mapped, labels, pairs)
    return _from_table(text, mapped)


def read_class_table(text: str, mapped: Sequence[SchemeClass]) -> Scheme:
    """Make the scheme of `--classes`: the class table that `omnisat train` takes.

    Args:
        text: CSV with the columns code (of the labels) and class (of the map: a code or a name);
            an empty class leaves a code out.
        mapped: Classes of the map.

    Raises:
        JobError: If the table names a class the map does not have.
        SourceError: If it cannot be read or contradicts itself.
    """
    known = _names(mapped) | {str(entry.code): entry.code for entry in mapped}
    base = own_scheme(mapped)
    places: dict[int, int] = {}
    words: dict[str, int] = {}
    left_out: set[int] = set()
    for row in read_table(text):
        code = int(row.code) if row.code.isdecimal() else -1 - len(words)
        words[row.code.casefold()] = code
        if not row.klass:
            left_out.add(code)
        elif row.klass.casefold() in known:
            places[code] = base.of_map[known[row.klass.casefold()]]
        else:
            raise JobError(
                f"{text} line {row.line}: the map has no class {row.klass!r}; where classes of the "
                "map are to be merged, use --crosswalk"
            )
    return replace(base, of_labels=places, label_names=words, left_out=frozenset(left_out))


def _from_table(text: str, mapped: Sequence[SchemeClass]) -> Scheme:
    by_code, by_name = {entry.code: entry for entry in mapped}, _names(mapped)
    labels: dict[str, SchemeClass] = {}
    pairs = []
    for line, row in enumerate(_rows(text), 2):
        source, target = row["map"].strip(), row["label"].strip()
        code = int(source) if source.isdecimal() else by_name.get(source.casefold())
        known = None if code is None else by_code.get(code)
        if source and known is None:
            raise JobError(f"{text} line {line}: the map has no class {source!r}")
        if not target:
            continue
        color = _NONE_COLOR if known is None else known.color
        entry = labels.setdefault(target, _label_class(target, row.get("name"), color, len(labels)))
        if known is not None:
            pairs.append((known, entry))
    if not pairs:
        raise JobError(f"{text}: no row names both a class of the map and one of the labels")
    return crossed_scheme(mapped, tuple(labels.values()), pairs)


def _rows(text: str) -> list[dict[str, str]]:
    path = local_path(text)
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise SourceError(f"{path} is larger than {_SIZE_LIMIT} bytes: no crosswalk")
        with path.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            stream.seek(0)
            table = csv.DictReader(stream, delimiter=";" if ";" in head else ",", restval="")
            rows = list(table)
            columns = table.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"the crosswalk {path} cannot be read: {error}") from error
    if not {"map", "label"} <= set(columns):
        raise SourceError(
            f"the crosswalk {path} has the columns {', '.join(columns) or '(none)'}; "
            "it needs `map` and `label`"
        )
    return rows


def _label_class(target: str, name: str | None, color: str, place: int) -> SchemeClass:
    """Make a class of the labels; one that is known by a text gets a code of its own."""
    code = int(target) if target.isdecimal() else -1 - place
    return SchemeClass(code, (name or "").strip() or target, color, target)


def _names(classes: Sequence[SchemeClass]) -> dict[str, int]:
    names = {entry.other_name.casefold(): entry.code for entry in classes if entry.other_name}
    return names | {entry.name.casefold(): entry.code for entry in classes}


def _connected(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Return the group of each class of the labels: those that share a class of the map."""
    group = list(range(count))
    first: dict[int, int] = {}
    for source, place in edges:
        other = group[first.setdefault(source, place)]
        mine = group[place]
        group = [min(mine, other) if g in (mine, other) else g for g in group]
    return group


def _looked_up(codes: NDArray[np.integer], table: Mapping[int, int]) -> NDArray[np.int16]:
    known = np.array(sorted(table), np.int64)
    classes = np.array([table[int(code)] for code in known], np.int16)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, classes[place], np.int16(-1)).astype(np.int16)
