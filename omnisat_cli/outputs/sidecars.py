"""Files beside a raster that tell GIS software the names and colours of its values.

The XML is built by a library, so a class name cannot break out of its place.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from omnisat_cli.outputs.products import Category

_INTEGER, _TEXT = 0, 2
_RAT_COLUMNS = (
    ("Value", _INTEGER, 5),
    ("Class", _TEXT, 2),
    ("Red", _INTEGER, 6),
    ("Green", _INTEGER, 7),
    ("Blue", _INTEGER, 8),
    ("Alpha", _INTEGER, 9),
)
"""Name, GDALRATFieldType and GDALRATFieldUsage of each column."""

_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins with one of these."""


def aux_xml(categories: Sequence[Category], description: str) -> bytes:
    """Return the GDAL sidecar: category names and a thematic attribute table for band 1.

    Args:
        categories: By ascending value.
        description: Description of the band.
    """
    root = Element("PAMDataset")
    band = SubElement(root, "PAMRasterBand", band="1")
    SubElement(band, "Description").text = description
    names = SubElement(band, "CategoryNames")
    by_value = {category.value: category.name for category in categories}
    for value in range(max(by_value) + 1):
        SubElement(names, "Category").text = by_value.get(value, "")
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_RAT_COLUMNS):
        column = SubElement(table, "FieldDefn", index=str(index))
        SubElement(column, "Name").text = name
        SubElement(column, "Type").text = str(kind)
        SubElement(column, "Usage").text = str(usage)
    for index, category in enumerate(categories):
        row = SubElement(table, "Row", index=str(index))
        for cell in (category.value, category.name, *category.rgb, 255):
            SubElement(row, "F").text = str(cell)
    # GDAL takes the first node for the root: a declaration would hide the whole file from it.
    return _xml(root)


def qml(categories: Sequence[Category]) -> bytes:
    """Return the QGIS style: a paletted renderer with a label and a colour for each value."""
    root = Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    renderer = SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    palette = SubElement(renderer, "colorPalette")
    for category in categories:
        SubElement(
            palette,
            "paletteEntry",
            value=str(category.value),
            label=category.name,
            color=_hex(category),
            alpha="255",
        )
    SubElement(pipe, "rasterresampler", maxOversampling="2")
    SubElement(root, "blendMode").text = "0"
    doctype = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return doctype + _xml(root)


def sld(categories: Sequence[Category], name: str) -> bytes:
    """Return the style for GeoServer and other OGC servers."""
    root = Element(
        "StyledLayerDescriptor",
        {"version": "1.0.0", "xmlns": "http://www.opengis.net/sld"},
    )
    layer = SubElement(root, "NamedLayer")
    SubElement(layer, "Name").text = name
    rule = layer
    for step in ("UserStyle", "FeatureTypeStyle", "Rule", "RasterSymbolizer"):
        rule = SubElement(rule, step)
    colors = SubElement(rule, "ColorMap", type="values")
    for category in categories:
        SubElement(
            colors,
            "ColorMapEntry",
            color=_hex(category),
            quantity=str(category.value),
            label=category.name,
        )
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + _xml(root)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV file (UTF-8 with signature, so that spreadsheets read accents)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([csv_cell(cell) for cell in row] for row in rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode("utf-8")


def csv_cell(value: object) -> object:
    """Return a cell no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(_DANGEROUS):
        return "'" + value
    return value


def _hex(category: Category) -> str:
    return "#{:02x}{:02x}{:02x}".format(*category.rgb)


def _xml(root: Element) -> bytes:
    indent(root)
    text: str = tostring(root, encoding="unicode")
    return text.encode() + b"\n"
