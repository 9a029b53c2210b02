"""A legend as the style and colour files that GIS software reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from omnisat_cli.errors import JobError, OutputExistsError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.outputs.parcels.names import ParcelClass
from omnisat_cli.outputs.parcels.style import vector_qml
from omnisat_cli.outputs.products import class_categories
from omnisat_cli.outputs.sidecars import csv_table, qml, sld

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ENDINGS: Final = (".qml", ".sld", ".clr", ".csv", ".json")
_NAME_LIMIT: Final = 200


def export_legend(
    scheme: Legend, out: Path, language: str = "en", *, column: str | None = None
) -> bytes:
    """Return the file that the ending of a path asks for.

    .qml is a QGIS style, .sld one for OGC servers, .clr a colour map of ESRI software, .csv a table
    and .json a legend file that `--legend` takes.

    Args:
        scheme: The legend.
        out: The path.
        language: Language of the names in styles: "en" or "fr".
        column: Column of class codes, for a style of polygons; None for one of rasters.

    Raises:
        JobError: If there is no such format, or none for polygons.
    """
    ending = out.suffix.lower()
    if ending not in ENDINGS:
        raise JobError(f"legends are written as {', '.join(ENDINGS)}: {out} ends in none of them")
    if column is not None:
        if ending != ".qml":
            raise JobError(f"--column {column}: styles of polygons are written as .qml, not {out}")
        return vector_qml(_parcel_classes(scheme, language), column).encode()
    categories = class_categories(scheme, language)
    if ending == ".qml":
        return qml(categories)
    if ending == ".sld":
        return sld(categories, scheme.id)
    if ending == ".clr":
        return _clr(scheme, language)
    return _table(scheme) if ending == ".csv" else disk.to_json(scheme.to_json())


def write_legend(content: bytes, out: Path, *, overwrite: bool) -> None:
    """Write an exported legend; the file is complete or absent.

    Raises:
        OutputExistsError: If it is there already and must not be replaced.
    """
    if out.exists() and not overwrite:
        raise OutputExistsError(
            f"{out} exists\nkeep it:    -o other{out.suffix}\nreplace it: --overwrite"
        )
    with disk.disk_errors(out, f"writing {out.name}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        disk.write_atomic(out, content)


def legend_of(classes: Iterable[ParcelClass], name: str, source: str) -> Legend:
    """Make a legend of what a map says of its own classes.

    Args:
        classes: The classes, at least one.
        name: Identifier.
        source: Where they come from.
    """
    return Legend(
        id=name[:_NAME_LIMIT],
        version="1",
        source=source[:_NAME_LIMIT],
        licence="that of the map",
        classes=tuple(
            LegendClass(
                code=entry.code,
                name_en=entry.name,
                name_fr=entry.name_fr or entry.name,
                color="#{:02x}{:02x}{:02x}".format(*entry.rgb),
                rpg_group=entry.rpg_group,
            )
            for entry in classes
        ),
    )


def _parcel_classes(scheme: Legend, language: str) -> list[ParcelClass]:
    return [
        ParcelClass(code, entry.name(language), entry.name_fr, entry.rpg_group, entry.rgb)
        for code, entry in scheme.by_code().items()
    ]


def _clr(scheme: Legend, language: str) -> bytes:
    """Return lines of value, red, green, blue and name, as ESRI software and QGIS read them."""
    lines = [
        f"{code} {red} {green} {blue} {entry.name(language)}"
        for code, entry in scheme.by_code().items()
        for red, green, blue in [entry.rgb]
    ]
    return ("\n".join(lines) + "\n").encode()


def _table(scheme: Legend) -> bytes:
    header = ("code", "name_en", "name_fr", "color", "parent", "rpg_group")
    rows = [
        (code, entry.name_en, entry.name_fr, entry.color, entry.parent or "", entry.rpg_group or "")
        for code, entry in scheme.by_code().items()
    ]
    return csv_table(header, rows)
