"""Legends: which code means what, in which colour. Data in `legends/*.json`, never code."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from omnisat_cli.errors import CheckpointError, JobError

NODATA = 255
"""Code of pixels without a class. Never 0: in several legends 0 is a class."""

_FOLDER = Path(__file__).parent / "legends"
_SIZE_LIMIT = 2**20
_NAME_LIMIT = 200
_COLOR = re.compile(r"#[0-9a-f]{6}")
_UNPRINTABLE = ("C", "Zl", "Zp")
"""Control, format and surrogate characters, line separators: illegal in XML or able to disguise
a name (bidirectional overrides)."""

RGB = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LegendClass:
    """One class.

    Attributes:
        code: Value in the map, 0 to 254.
        name_en: English name.
        name_fr: French name.
        color: "#rrggbb".
        parent: Name of the broader class, if the source has one.
        rpg_group: Group of the French land parcel register, where a crosswalk exists; a trailing
            "?" marks one that is not confirmed.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    code: int
    name_en: str
    name_fr: str
    color: str
    parent: str | None = None
    rpg_group: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.code < NODATA:
            raise ValueError(f"class code {self.code} is not in 0…{NODATA - 1}")
        if not _COLOR.fullmatch(self.color):
            raise ValueError(f"class {self.code}: color {self.color!r} is not like '#1a2b3c'")
        for text in (self.name_en, self.name_fr, self.parent, self.rpg_group):
            if text is not None:
                _check_text(text, f"class {self.code}")

    @property
    def rgb(self) -> RGB:
        """Red, green and blue, 0 to 255."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue

    def name(self, language: str) -> str:
        """Return the French name for "fr", else the English one."""
        return self.name_fr if language == "fr" else self.name_en


@dataclass(frozen=True, slots=True)
class Legend:
    """A class scheme. The k-th logit of a network means `classes[k]`.

    Attributes:
        id: Identifier a model card names.
        version: Version of the scheme.
        source: Where codes, names and colours come from.
        licence: Licence of the scheme.
        classes: The classes, in the order of the logits.
        nodata: Always 255.
        note: What a user should know of it.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    id: str
    version: str
    source: str
    licence: str
    classes: tuple[LegendClass, ...]
    nodata: int = NODATA
    note: str = ""

    def __post_init__(self) -> None:
        for text in (self.id, self.version, self.source, self.licence):
            _check_text(text, "legend")
        if self.nodata != NODATA:
            raise ValueError(f"nodata is {self.nodata}; it must be {NODATA}")
        if not self.classes:
            raise ValueError("a legend needs at least one class")
        codes = [entry.code for entry in self.classes]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise ValueError(f"codes used twice: {', '.join(map(str, twice))}")

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes in the order of the logits."""
        return tuple(entry.code for entry in self.classes)

    @property
    def label(self) -> str:
        """`id@version`."""
        return f"{self.id}@{self.version}"

    def by_code(self) -> dict[int, LegendClass]:
        """Return the classes by code, ascending."""
        return {entry.code: entry for entry in sorted(self.classes, key=lambda c: c.code)}

    def to_json(self) -> dict[str, object]:
        """Return the content of a legend file."""
        content = asdict(self)
        content["classes"] = [
            {key: value for key, value in asdict(entry).items() if value is not None}
            for entry in self.classes
        ]
        return content


def load_legend(path: Path) -> Legend:
    """Read and check a legend file.

    Raises:
        CheckpointError: If it is missing, too large, or not a legend.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        size = path.stat().st_size
        if size > _SIZE_LIMIT:
            raise CheckpointError(f"{path} has {size} bytes; a legend has at most {_SIZE_LIMIT}")
        return TypeAdapter(Legend).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CheckpointError(
            f"the legend {path} cannot be used: {where}: {first['msg']}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"the legend {path} cannot be read: {error}") from error


@lru_cache
def legend(name: str) -> Legend:
    """Return a shipped legend.

    Raises:
        JobError: If none has this id.
    """
    if name not in shipped_legends():
        known = ", ".join(shipped_legends())
        raise JobError(f"no legend {name!r}; this version ships {known}")
    return load_legend(_FOLDER / f"{name}.json")


def shipped_legends() -> tuple[str, ...]:
    """Return the ids of the legends that come with the program."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def _check_text(text: str, where: str) -> None:
    if not text.strip() or len(text) > _NAME_LIMIT:
        raise ValueError(
            f"{where}: a text must have 1 to {_NAME_LIMIT} characters, got {len(text)}"
        )
    bad = next((c for c in text if unicodedata.category(c).startswith(_UNPRINTABLE)), None)
    if bad is not None:
        raise ValueError(f"{where}: character U+{ord(bad):04X} is not allowed in a text")
