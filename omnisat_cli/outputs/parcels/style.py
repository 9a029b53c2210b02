"""The QGIS style of parcels, stored inside the GeoPackage."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omnisat_cli.outputs.parcels.names import ParcelClass

_TABLE = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
  f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)"""
_CONTENTS = """
INSERT INTO gpkg_contents (table_name, data_type, identifier)
VALUES ('layer_styles', 'attributes', 'layer_styles')"""
_STYLE = """
INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column,
  styleName, styleQML, styleSLD, useAsDefault, description, owner)
VALUES ('', '', ?, ?, 'classes', ?, '', 1, 'classes by name and colour', '')"""


def store_style(
    path: Path,
    layer: str,
    classes: Sequence[ParcelClass],
    columns: tuple[str, str] = ("class_code", "geom"),
) -> None:
    """Put a default style into a GeoPackage: one category a class, with its name and colour.

    Args:
        path: The GeoPackage.
        layer: Its layer.
        classes: The classes.
        columns: Columns of the class codes and of the geometries.

    Raises:
        sqlite3.Error: If the file cannot be written.
    """
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(_TABLE)
        database.execute(_CONTENTS)
        style = vector_qml(classes, columns[0])
        database.execute(_STYLE, (layer, columns[1], style))


def vector_qml(classes: Sequence[ParcelClass], column: str = "class_code") -> str:
    """Return the QGIS style of polygons with class codes in a column."""
    root = Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = SubElement(
        root,
        "renderer-v2",
        {
            "type": "categorizedSymbol",
            "attr": column,
            "symbollevels": "0",
            "forceraster": "0",
        },
    )
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for number, entry in enumerate(classes):
        SubElement(
            categories,
            "category",
            {
                "value": str(entry.code),
                "label": entry.name,
                "symbol": str(number),
                "render": "true",
            },
        )
        symbol = SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1")
        layer = SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
        )
        options = SubElement(layer, "Option", type="Map")
        for key, text in _fill(entry):
            SubElement(options, "Option", name=key, type="QString", value=text)
    SubElement(root, "blendMode").text = "0"
    SubElement(root, "layerGeometryType").text = "2"
    indent(root)
    content: str = tostring(root, encoding="unicode")
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + content


def _fill(entry: ParcelClass) -> list[tuple[str, str]]:
    red, green, blue = entry.rgb
    return [
        ("color", f"{red},{green},{blue},255"),
        ("outline_color", "60,60,60,255"),
        ("outline_style", "solid"),
        ("outline_width", "0.1"),
        ("outline_width_unit", "MM"),
        ("style", "solid"),
    ]
