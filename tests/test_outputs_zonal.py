"""Covered parts of pixels, and what polygons hold of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from test_outputs_parcels import LEFT, SIDE, TOP, fields, write_map

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.outputs import zonal
from omnisat_cli.outputs.coverage import Edges, by_strip, cover
from omnisat_cli.outputs.zonal import open_layers, sum_up

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ROWS, COLS = 9, 12


def some_polygons(seed: int, count: int = 12) -> NDArray[np.object_]:
    """Discs, rings, boxes on pixel borders, slivers, pairs: inside, astride and outside."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        x, y = rng.uniform(-4, COLS + 4), rng.uniform(-4, ROWS + 4)
        disc = shapely.Point(x, y).buffer(rng.uniform(0.1, 5), quad_segs=int(rng.integers(1, 5)))
        left, top, right, bottom = np.round(disc.bounds)
        sliver = shapely.LineString([(x, y), (y, x)]).buffer(0.01, cap_style="flat")
        found.append(
            (
                disc,
                disc.difference(shapely.Point(x, y).buffer(0.4)),
                shapely.box(left, top, right + 1, bottom + 1),
                sliver if sliver.area else disc,
                shapely.union(disc, shapely.box(COLS - x, 0, COLS - x + 0.5, ROWS)),
                None,
            )[number % 6]
        )
    return np.array(found, dtype=object)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, ROWS))
@settings(max_examples=40)
def test_the_covered_part_of_a_pixel_is_the_area_of_the_intersection(seed: int, rows: int) -> None:
    polygons = some_polygons(seed)
    found = np.zeros((len(polygons), ROWS * COLS + 1))
    tops = np.arange(0, ROWS, rows)
    for number, edges in by_strip(Edges.of(polygons), tops, ROWS):
        top = int(tops[number])
        covered = cover(edges, (top, min(ROWS, top + rows)), COLS)
        place = (covered.spread(covered.polygon), covered.pixel + top * COLS)
        np.add.at(found, place, covered.part)
    cells = [shapely.box(x, y, x + 1, y + 1) for y in range(ROWS) for x in range(COLS)]
    expected = shapely.area(shapely.intersection(polygons[:, None], np.array(cells)[None]))
    np.testing.assert_allclose(found[:, :-1], np.nan_to_num(expected), atol=1e-9)
    assert not found[:, -1].any()


def ground(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Bring polygons from pixels to the CRS of `write_map`."""
    moved: NDArray[np.object_] = shapely.transform(
        polygons, lambda xy: xy * [SIDE, -SIDE] + [LEFT, TOP]
    )
    return moved


def test_sums_are_those_of_exactextract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import geopandas as gpd
    from exactextract import exact_extract

    codes = fields(60)
    sure = np.random.default_rng(1).integers(0, 101, codes.shape).astype(np.uint8)
    sure[codes == 255] = 255
    path = write_map(tmp_path / "map.tif", codes)
    beside = write_map(tmp_path / "map.confidence.tif", sure)
    rng = np.random.default_rng(2)
    polygons = shapely.buffer(shapely.points(rng.uniform(0, 60, (40, 2))), rng.uniform(0.1, 9, 40))
    monkeypatch.setattr(zonal, "_STRIP_PIXELS", 16 * 60)
    with open_layers(path) as layers:
        found = sum_up(layers, polygons, np.arange(4))
    frame = gpd.GeoDataFrame(geometry=ground(polygons), crs="EPSG:2154")
    table = exact_extract(str(path), frame, ["unique", "frac", "count"], output="pandas")
    for row, (unique, part, count) in enumerate(
        zip(table["unique"], table["frac"], table["count"], strict=True)
    ):
        expected = np.zeros(4)
        expected[np.asarray(unique, int)] = np.asarray(part) * count
        np.testing.assert_allclose(found.pixels[row], expected, atol=1e-4)
    table = exact_extract(str(beside), frame, ["mean", "stdev"], output="pandas")
    np.testing.assert_allclose(found.measures["confidence"].mean(), table["mean"], atol=1e-3)
    np.testing.assert_allclose(found.measures["confidence"].std(), table["stdev"], atol=1e-3)


def test_sums_do_not_depend_on_the_strips_nor_on_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_map(tmp_path / "map.tif", fields(50))
    polygons = some_polygons(4, 18)
    with open_layers(path) as layers:
        whole = sum_up(layers, polygons, np.arange(4)).pixels
        monkeypatch.setattr(zonal, "_STRIP_PIXELS", 1)
        parted = sum_up(layers, polygons, np.arange(4)).pixels
        alone = np.concatenate(
            [sum_up(layers, polygons[i : i + 1], np.arange(4)).pixels for i in range(18)]
        )
    np.testing.assert_allclose(parted, whole, atol=1e-9)
    np.testing.assert_allclose(alone, whole, atol=1e-9)


def test_a_map_that_cannot_be_summed_up_is_refused(tmp_path: Path) -> None:
    codes = fields(20)
    for name, changes, error in (
        ("float.tif", {"dtype": "float32"}, SourceError),
        ("nowhere.tif", {"crs": None}, AlignmentError),
    ):
        path = write_map(tmp_path / name, codes, **changes)
        with pytest.raises(error), open_layers(path):
            pass
    path = write_map(tmp_path / "map.tif", codes)
    write_map(tmp_path / "map.confidence.tif", codes[:-1])
    with pytest.raises(AlignmentError, match="grid"), open_layers(path):
        pass
    wide = write_map(tmp_path / "wide.tif", codes.astype(np.uint16) + 300, dtype="uint16")
    with open_layers(wide) as layers, pytest.raises(SourceError, match="0 to 254"):
        layers.histogram()
