from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from outputs_runs import World
from PIL import Image

from omnisat_cli.geo.lattice import Window
from omnisat_cli.outputs import quicklook
from omnisat_cli.outputs.products import class_categories
from omnisat_cli.outputs.quicklook import Caption, draw_quicklook

if TYPE_CHECKING:
    from pathlib import Path


def picture(out: Path) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], list[float]]:
    with Image.open(out.with_name(f"{out.stem}.quicklook.png")) as image:
        pixels = np.asarray(image.convert("RGB"))
    world = out.with_name(f"{out.stem}.quicklook.pgw").read_text().split()
    return pixels, [float(value) for value in world]


@pytest.mark.parametrize(
    "area", [(3, 3), (40, 52), (300, 4), (4, 300), (2400, 200)], ids=lambda a: f"{a[0]}x{a[1]}"
)
def test_the_picture_lies_on_the_ground_where_the_map_lies(
    tmp_path: Path, area: tuple[int, int]
) -> None:
    world = World(area=Window(-680010, 65003, *area), block=1024, refine=1)
    out = tmp_path / "map.tif"
    world.run(out)
    pixels, (dx, rx, ry, dy, x0, y0) = picture(out)
    assert max(pixels.shape) <= 2048
    assert (rx, ry) == (0, 0)
    assert dx == pytest.approx(-dy, rel=0.01)
    truth = {}
    for block in world.plan.blocks:
        truth.update({block.core: world.predict(block).classes})
    dice = np.random.default_rng(0)
    hits = tries = 0
    for _ in range(200):
        row = int(dice.integers(area[0])) + world.area.row
        col = int(dice.integers(area[1])) + world.area.col
        core = next(c for c in truth if c.contains(Window(row, col, 1, 1)))
        code = truth[core][row - core.row, col - core.col]
        if code == 255:
            continue
        px = round((col * 10 + 5 - x0) / dx)
        py = round((-row * 10 - 5 - y0) / dy)
        wanted = world.legend.by_code()[int(code)].rgb
        tries += 1
        hits += tuple(pixels[py, px]) == wanted
    # Overviews vote, so single pixels of a shrunk map may differ; an unshrunk one is exact.
    assert hits >= tries * (0.7 if max(area) > 2000 else 1)


def test_a_font_without_accents_draws_plain_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(block=64)
    out = tmp_path / "map.tif"
    world.run(out)
    quicklook._font.cache_clear()
    monkeypatch.setattr(quicklook, "_FONTS", ())
    assert quicklook._legible("Blé d'été, œuvre…") == "Ble d'ete, oeuvre..."
    categories = class_categories(world.legend, "fr")
    caption = Caption("été " * 40, ("ligne",), categories, dict.fromkeys(range(20), 5), 7)
    drawn = draw_quicklook(out, tmp_path / "map.presence.tif", caption)
    assert drawn.png.startswith(b"\x89PNG")
    quicklook._font.cache_clear()


def test_more_classes_than_fit_are_counted(tmp_path: Path) -> None:
    world = World(block=64)
    out = tmp_path / "map.tif"
    world.run(out)
    categories = class_categories(world.legend, "en") * 12
    many = tuple(type(c)(value, f"{c.name} {value}", c.rgb) for value, c in enumerate(categories))
    caption = Caption("many", (), many, dict.fromkeys(range(240), 1), 1)
    rows = quicklook._legend_rows(caption)
    assert rows[-1][1] == f"and {241 - len(rows) + 1} more"
    drawn = draw_quicklook(out, tmp_path / "map.presence.tif", caption)
    assert len(drawn.png) > 0


@pytest.mark.parametrize(
    ("longest", "length"), [(1.0, 1), (9.9, 5), (19, 10), (25, 20), (1234, 1000), (0.3, 0.2)]
)
def test_the_scale_bar_has_a_round_length(longest: float, length: float) -> None:
    assert quicklook._round_length(longest) == pytest.approx(length)
