"""What the codes of a class map mean: from its own files, from a legend, or as plain numbers."""

from __future__ import annotations

import colorsys
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.outputs.legend import Legend, legend, load_legend, shipped_legends
from omnisat_cli.outputs.provenance import provenance_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rasterio.io import DatasetReader

    from omnisat_cli.outputs.legend import RGB

_LOG = logging.getLogger(__name__)

_SIZE_LIMIT = 2**28
_GOLDEN = 0.618034
_LINES_LIMIT = 2**16
_LINE = re.compile(r"\s*(\d{1,3})\s*[:=;,\t ]\s*(\S.*?)\s*")
_VALUE, _NAME, _RED, _GREEN, _BLUE = "5", "2", "6", "7", "8"
"""GDALRATFieldUsage of the columns of an attribute table."""


@dataclass(frozen=True, slots=True)
class ParcelClass:
    """One class as the parcels name it.

    Attributes:
        code: Value in the map.
        name: Name in the language of the map.
        name_fr: French name, where a legend states it.
        rpg_group: Group of the French land parcel register, where a legend states it.
        rgb: Colour.
    """

    code: int
    name: str
    name_fr: str | None
    rpg_group: str | None
    rgb: RGB


@dataclass(frozen=True, slots=True)
class Origin:
    """What the provenance of a map says of all its parcels.

    Attributes:
        model: Name and version of the model.
        dates: First and last day of the imagery, ISO.
        legend: `id@version`.
    """

    model: str | None = None
    dates: tuple[str, str] | None = None
    legend: str | None = None


def read_origin(path: Path) -> Origin:
    """Read the provenance beside a class map; an empty one where there is none.

    Raises:
        SourceError: If it is there but cannot be read.
    """
    place = provenance_path(path)
    if not place.exists():
        return Origin()
    try:
        if place.stat().st_size > _SIZE_LIMIT:
            raise SourceError(f"{place} is larger than {_SIZE_LIMIT} bytes: not a provenance file")
        content = json.loads(place.read_bytes())
        model, scheme = content["model"], content["legend"]
        days = sorted(str(day)[:10] for used in content["dates"].values() for day in used)
        return Origin(
            model=f"{model['name']} {model['version']}",
            dates=(days[0], days[-1]) if days else None,
            legend=f"{scheme['id']}@{scheme['version']}",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{place} lies beside the map but is no provenance file ({error!r}); "
            "repair or remove it"
        ) from error


def find_names(
    dataset: DatasetReader, path: Path, origin: Origin, wanted: str | None
) -> dict[int, ParcelClass] | None:
    """Find the names of the classes of a map.

    Args:
        dataset: The open map.
        path: Its path.
        origin: From `read_origin`.
        wanted: Id of a shipped legend or path of a legend file; None to look beside the map.

    Returns:
        The classes by code; None if nothing names them.

    Raises:
        JobError: If the legend that was asked for does not exist.
        SourceError: If the sidecar of the map is damaged.
    """
    if wanted is not None:
        return _of_legend(_wanted(wanted))
    name, _, version = (origin.legend or "").partition("@")
    if name in shipped_legends() and legend(name).version == version:
        return _of_legend(legend(name))
    named = _from_sidecar(path.with_name(f"{path.name}.aux.xml"))
    if not named:
        tags = dataset.tags(1)
        named = {
            int(key[6:]): (text, None)
            for key, text in tags.items()
            if key.startswith("class_") and key[6:].isdecimal()
        }
    named = named or _from_lines(dataset.tags().get("legend", ""))
    if not named:
        return None
    table = _colors(dataset)
    return {
        code: ParcelClass(code, text, None, None, rgb or table.get(code) or _spread(code))
        for code, (text, rgb) in sorted(named.items())
    }


def _from_lines(text: str) -> dict[int, tuple[str, RGB | None]]:
    """Read a legend of lines such as "10  Tree cover", as ESA WorldCover carries in its tags."""
    found = [_LINE.fullmatch(line) for line in text[:_LINES_LIMIT].splitlines() if line.strip()]
    if not found or None in found:
        return {}
    return {int(line[1]): (line[2], None) for line in found if line is not None}


def numbered(codes: list[int], dataset: DatasetReader) -> dict[int, ParcelClass]:
    """Name classes by their number, in the colours of the map where it has some."""
    table = _colors(dataset)
    return {
        code: ParcelClass(code, f"class {code}", None, None, table.get(code) or _spread(code))
        for code in codes
    }


def _wanted(name: str) -> Legend:
    if name in shipped_legends():
        return legend(name)
    if Path(name).is_file():
        return load_legend(Path(name))
    known = ", ".join(shipped_legends())
    raise JobError(f"--legend {name}: no such file, and no such legend among {known}")


def _of_legend(scheme: Legend) -> dict[int, ParcelClass]:
    return {
        code: ParcelClass(code, entry.name_en, entry.name_fr, entry.rpg_group, entry.rgb)
        for code, entry in scheme.by_code().items()
    }


def _from_sidecar(path: Path) -> dict[int, tuple[str, RGB | None]]:
    """Read the attribute table, else the category names, of a GDAL sidecar."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise SourceError(f"{path} is larger than {_SIZE_LIMIT} bytes: not a GDAL sidecar")
        root = fromstring(path.read_bytes())
        usage = [node.findtext("Usage") for node in root.findall(".//FieldDefn")]
        rows = [[cell.text or "" for cell in row.findall("F")] for row in root.findall(".//Row")]
        if {_VALUE, _NAME} <= set(usage):
            return dict(_row(dict(zip(usage, row, strict=True))) for row in rows)
        names = [node.text or "" for node in root.findall(".//CategoryNames/Category")]
        return {code: (text, None) for code, text in enumerate(names) if text}
    except (OSError, ValueError, KeyError, ParseError, DefusedXmlException) as error:
        raise SourceError(
            f"{path} cannot be read ({error}); repair or remove it, or use --legend"
        ) from error


def _row(cells: Mapping[str | None, str]) -> tuple[int, tuple[str, RGB | None]]:
    color = None
    if {_RED, _GREEN, _BLUE} <= set(cells):
        red, green, blue = (int(float(cells[part])) & 255 for part in (_RED, _GREEN, _BLUE))
        color = red, green, blue
    return int(float(cells[_VALUE])), (cells[_NAME], color)


def _colors(dataset: DatasetReader) -> dict[int, RGB]:
    try:
        table = dataset.colormap(1)
    except ValueError:  # it has none
        return {}
    return {code: (red, green, blue) for code, (red, green, blue, *_) in table.items()}


def _spread(value: int) -> RGB:
    """Return a colour far from those of neighbouring values."""
    red, green, blue = colorsys.hsv_to_rgb(value * _GOLDEN % 1, 0.55, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)
