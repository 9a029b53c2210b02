"""One picture of the map, with its legend, for people without GIS software."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.outputs.prediction import NONE, Hole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from omnisat_cli.outputs.legend import RGB
    from omnisat_cli.outputs.prediction import Bytes
    from omnisat_cli.outputs.products import Category

MAX_SIDE = 2048
_MARGIN = 28
_PANEL = 380
_FOOT = 64
_SMALL_MAP = 900
"""Maps smaller than this are enlarged by a whole factor."""
_ROW = 28
_SWATCH = 18
_FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "arial.ttf")
_INK: RGB = (34, 34, 34)
_PALE: RGB = (110, 110, 110)
_PAPER: RGB = (255, 255, 255)
_HOLE: RGB = (205, 205, 205)
_HATCH: RGB = (150, 150, 150)


@dataclass(frozen=True, slots=True)
class Caption:
    """What the picture says beside the map.

    Attributes:
        title: First line.
        lines: Smaller lines below it.
        categories: Classes.
        pixels: Pixels of each class value in the whole map.
        holes: Pixels without a class, in the whole map.
    """

    title: str
    lines: tuple[str, ...]
    categories: tuple[Category, ...]
    pixels: Mapping[int, int]
    holes: int


@dataclass(frozen=True, slots=True)
class Quicklook:
    """The picture and the six lines that place it on the ground."""

    png: bytes
    world: bytes


@dataclass(frozen=True, slots=True)
class _View:
    """The map as it is drawn: (h, w, 3) colours and the sides of a drawn pixel in CRS units."""

    colors: Bytes
    left: float
    top: float
    across: float
    down: float
    crs: str


def draw_quicklook(map_path: Path, presence_path: Path, caption: Caption) -> Quicklook:
    """Draw the map with legend, shares, scale bar and north arrow.

    Args:
        map_path: Class map with overviews.
        presence_path: Presence raster on the same grid: it tells holes from the outside.
        caption: Words, classes and counts.

    Returns:
        A PNG of at most 2048 × 2048 pixels, north up, and its world file.
    """
    from PIL import Image, ImageDraw

    view = _view(map_path, presence_path, caption.categories)
    height, width = view.colors.shape[:2]
    rows = _legend_rows(caption)
    panel_height = 2 * _MARGIN + 40 + 22 * len(caption.lines) + _ROW * (len(rows) + 1)
    size = (
        3 * _MARGIN + width + _PANEL,
        min(MAX_SIDE, max(2 * _MARGIN + height + _FOOT, panel_height)),
    )
    canvas = Image.new("RGB", size, _PAPER)
    canvas.paste(Image.fromarray(view.colors), (_MARGIN, _MARGIN))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((_MARGIN - 1, _MARGIN - 1, _MARGIN + width, _MARGIN + height), outline=_PALE)
    _draw_panel(pen, _MARGIN * 2 + width, caption, rows, size[1])
    _draw_scale(pen, view, _MARGIN + height + 18)
    _draw_north(pen, _MARGIN + width - 12, _MARGIN + height + 14)
    stream = io.BytesIO()
    canvas.save(stream, "PNG")
    return Quicklook(stream.getvalue(), _world(view))


def _view(map_path: Path, presence_path: Path, categories: Sequence[Category]) -> _View:
    from omnisat_cli.sources.safe import open_raster

    with open_raster(map_path) as dataset, open_raster(presence_path) as beside:
        full = (dataset.height, dataset.width)
        room = (MAX_SIDE - 2 * _MARGIN - _FOOT, MAX_SIDE - 3 * _MARGIN - _PANEL)
        shrink = min(1.0, room[0] / full[0], room[1] / full[1])
        shape = tuple(max(1, int(side * shrink)) for side in full)
        grow = max(1, _SMALL_MAP // max(shape))
        classes = dataset.read(1, out_shape=shape)
        presence = beside.read(1, out_shape=shape)
        bounds = dataset.bounds
        crs = dataset.crs.to_string() if dataset.crs.to_epsg() else dataset.crs.wkt[8:60]
    colors = _paint(classes, presence, categories).repeat(grow, 0).repeat(grow, 1)
    across = (bounds.right - bounds.left) / colors.shape[1]
    down = (bounds.top - bounds.bottom) / colors.shape[0]  # both sides are rounded to pixels
    return _View(colors, bounds.left, bounds.top, across, down, crs)


def _paint(classes: Bytes, presence: Bytes, categories: Sequence[Category]) -> Bytes:
    """Return (h, w, 3) colours: classes, hatched holes, white outside."""
    table: NDArray[np.uint8] = np.full((256, 3), _PAPER, np.uint8)
    for category in categories:
        table[category.value] = category.rgb
    colors = table[classes]
    hole = (classes == NONE) & (presence != Hole.OUTSIDE)
    rows, cols = np.ogrid[: classes.shape[0], : classes.shape[1]]
    stripe = np.asarray((rows + cols) % 8 < 2)
    colors[hole] = _HOLE
    colors[hole & stripe] = _HATCH
    return colors


def _legend_rows(caption: Caption) -> list[tuple[RGB, str, str]]:
    """Return (colour, name, share) of the classes that occur, the largest first."""
    total = max(1, sum(caption.pixels.values()) + caption.holes)
    present = [c for c in caption.categories if caption.pixels.get(c.value)]
    present.sort(key=lambda c: -caption.pixels[c.value])
    rows = [(c.rgb, c.name, _share(caption.pixels[c.value] / total)) for c in present]
    if caption.holes:
        rows.append((_HOLE, "no class", _share(caption.holes / total)))
    room = (MAX_SIDE - 2 * _MARGIN - 40 - 22 * len(caption.lines)) // _ROW - 2
    if len(rows) > room:
        rows = [*rows[: room - 1], (_PAPER, f"and {len(rows) - room + 1} more", "")]
    return rows


@lru_cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    """Return a font of the system, or the one Pillow carries, which lacks accents."""
    from PIL import ImageFont

    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _legible(text: str) -> str:
    """Return a text the font can draw: without accents where it has none."""
    accented = _font(16).getmask("é").getbbox() != _font(16).getmask("\uffff").getbbox()
    if accented:
        return text
    plain = unicodedata.normalize("NFKD", text.replace("œ", "oe").replace("…", "..."))
    return plain.encode("ascii", "ignore").decode()


def _share(part: float) -> str:
    return "< 0.1 %" if part < 0.001 else f"{part:.1%}".replace("%", " %")


def _draw_panel(
    pen: ImageDraw, left: int, caption: Caption, rows: list[tuple[RGB, str, str]], height: int
) -> None:
    large, small = _font(26), _font(16)
    pen.text((left, _MARGIN - 4), _fit(pen, caption.title, 26, _PANEL), _INK, large)
    y = _MARGIN + 40
    for line in caption.lines:
        pen.text((left, y), _fit(pen, line, 16, _PANEL), _PALE, small)
        y += 22
    y += _ROW // 2
    for color, name, share in rows:
        if y + _ROW > height:
            break
        box = (left, y, left + _SWATCH * 1.5, y + _SWATCH)
        pen.rectangle(box, fill=color, outline=_PALE if share else _PAPER)
        pen.text((left + 40, y - 1), _fit(pen, name, 16, _PANEL - 130), _INK, small)
        pen.text((left + _PANEL, y - 1), share, _INK, small, anchor="ra")
        y += _ROW


def _fit(pen: ImageDraw, text: str, size: int, width: int) -> str:
    """Cut a text that is too wide."""
    font, text, dots = _font(size), _legible(text), _legible("…")
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(text + dots, font) > width:
        text = text[:-1]
    return text + dots


def _draw_scale(pen: ImageDraw, view: _View, y: int) -> None:
    font = _font(16)
    metres = _round_length(view.colors.shape[1] * view.across / 4)
    length = metres / view.across
    left = float(_MARGIN)
    for part in range(4):
        fill = _INK if part % 2 == 0 else _PAPER
        box = (left + length * part / 4, y, left + length * (part + 1) / 4, y + 7)
        pen.rectangle(box, fill=fill, outline=_INK)
    words = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    pen.text((left + length + 10, y - 7), words, _INK, font)
    pen.text((left, y + 16), _legible(view.crs), _PALE, font)


def _draw_north(pen: ImageDraw, x: int, y: int) -> None:
    pen.polygon([(x, y), (x - 8, y + 24), (x, y + 18), (x + 8, y + 24)], fill=_INK)
    pen.text((x - 14, y + 12), "N", _INK, _font(18), anchor="rm")


def _round_length(longest: float) -> float:
    """Return the largest 1, 2 or 5 × 10ⁿ that does not exceed a length."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def _world(view: _View) -> bytes:
    """Return the world file: the centre of the first pixel of the picture, margin included."""
    x = view.left + (0.5 - _MARGIN) * view.across
    y = view.top - (0.5 - _MARGIN) * view.down
    lines = (view.across, 0.0, 0.0, -view.down, x, y)
    return "".join(f"{value:.10f}\n" for value in lines).encode()
