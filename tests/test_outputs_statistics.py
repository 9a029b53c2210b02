"""Hectares of a map and of zones."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from cli_runs import omnisat
from test_outputs_parcels import LEFT, SIDE, TOP, fields, write_map

from omnisat_cli.errors import AlignmentError, Exit, JobError, SourceError
from omnisat_cli.outputs.area import measure_ground
from omnisat_cli.outputs.statistics import Zones, measure

if TYPE_CHECKING:
    from pathlib import Path


def write_zones(path: Path, names: list[object], shapes: list[object], crs: str) -> Path:
    frame = gpd.GeoDataFrame({"INSEE_COM": names}, geometry=shapes, crs=crs)
    frame.to_file(path, engine="pyogrio")
    return path


def quarters(side: float) -> list[object]:
    """Four pieces that tile a square map of `side` pixels, cut across pixels."""
    middle = side * SIDE / 2.37
    whole = shapely.box(LEFT, TOP - side * SIDE, LEFT + side * SIDE, TOP)
    lines = [
        shapely.LineString([(LEFT + middle, TOP), (LEFT + middle, TOP - 1e3)]),
        shapely.LineString([(LEFT, TOP - middle), (LEFT + 1e3, TOP - middle / 2)]),
    ]
    parts = shapely.get_parts(shapely.polygonize(list(_noded(whole, lines))))
    assert len(parts) == 4
    return list(parts)


def _noded(whole: shapely.Polygon, lines: list[shapely.LineString]) -> list[shapely.LineString]:
    cut = [shapely.intersection(line, whole) for line in lines]
    return list(shapely.get_parts(shapely.union_all([whole.exterior, *cut])))


def test_zones_that_tile_a_map_add_up_to_it(tmp_path: Path) -> None:
    codes = fields(60)
    path = write_map(tmp_path / "map.tif", codes)
    names = ["31001", "31002", "31001", "01003"]
    zones = write_zones(tmp_path / "communes.gpkg", names, quarters(60), "EPSG:2154")
    found = measure(path, Zones(zones, "INSEE_COM"), "flair-15")
    assert [place.name for place in found.zones] == ["31001", "31002", "01003"]
    for k, entry in enumerate(found.total.classes):
        assert entry.pixels == (codes == entry.code).sum()
        assert entry.hectares == pytest.approx(entry.pixels * SIDE**2 / 10_000, abs=1e-6)
        parts = [place.classes[k].hectares for place in found.zones]
        assert sum(parts) == pytest.approx(entry.hectares, abs=1e-5)
    assert sum(e.share or 0 for e in found.zones[1].classes) == pytest.approx(1, abs=1e-5)
    without = sum(place.without for place in found.zones)
    assert without == pytest.approx(found.total.without, abs=1e-5)
    assert found.total.without == pytest.approx((codes == 255).sum() * SIDE**2 / 10_000)


def test_degrees_are_measured_on_the_ellipsoid(tmp_path: Path) -> None:
    codes = np.full((60, 40), 1, np.uint8)
    codes[:30] = 2
    grid = rasterio.Affine(0.01, 0, 2.0, 0, -0.01, 48.0)
    path = write_map(tmp_path / "map.tif", codes, crs="EPSG:4326", transform=grid)
    cut = [shapely.box(2.0, 47.4, 2.235, 48.0), shapely.box(2.235, 47.4, 2.4, 48.0)]
    zones = write_zones(tmp_path / "zones.geojson", ["a", "b"], cut, "EPSG:4326")
    found = measure(path, Zones(zones, "INSEE_COM"))
    assert "ellipsoid" in found.method
    geod = pyproj.Geod(ellps="WGS84")

    def hectares(left: float, bottom: float, right: float, top: float) -> float:
        # Geodesics bend away from parallels: many points keep the outline on the parallel.
        ring = shapely.segmentize(shapely.box(left, bottom, right, top), 0.001)
        return abs(geod.geometry_area_perimeter(ring)[0]) / 10_000

    lower, upper = found.total.classes
    assert (lower.code, upper.code) == (1, 2)
    assert lower.hectares == pytest.approx(hectares(2.0, 47.4, 2.4, 47.7), rel=1e-7)
    assert upper.hectares == pytest.approx(hectares(2.0, 47.7, 2.4, 48.0), rel=1e-7)
    assert lower.hectares > upper.hectares
    part = found.zones[0].classes[1].hectares
    assert part == pytest.approx(hectares(2.0, 47.7, 2.235, 48.0), rel=1e-6)


def test_a_projection_that_stretches_areas_is_told(tmp_path: Path) -> None:
    grid = rasterio.Affine(10, 0, 250_000, 0, -10, 6_100_000)
    path = write_map(tmp_path / "map.tif", fields(20), crs="EPSG:3857", transform=grid)
    found = measure(path)
    assert any("2.2" in remark and "times as large" in remark for remark in found.remarks)
    with rasterio.open(write_map(tmp_path / "l93.tif", fields(20))) as dataset:
        ground = measure_ground(dataset)
    assert (ground.remark, ground.rows[0]) == ("", 0.0004)


def test_zones_that_cannot_be_counted_are_refused_or_told(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(20))
    bow = shapely.Polygon([(LEFT + x, TOP - y) for x, y in ((2, 2), (20, 20), (20, 2), (2, 20))])
    far = shapely.box(LEFT - 500, TOP, LEFT - 400, TOP + 100)
    zones = write_zones(tmp_path / "z.gpkg", [1, 2, None], [bow, far, None], "EPSG:2154")
    found = measure(path, Zones(zones, "INSEE_COM"))
    assert len(found.zones) == 1
    assert found.zones[0].hectares + found.zones[0].without == pytest.approx(162 / 10_000)
    told = " ".join(found.remarks)
    assert "not valid" in told
    assert "off the map" in told
    assert "without a polygon" in told
    with pytest.raises(JobError, match="say with --id"):
        measure(path, Zones(zones))
    with pytest.raises(JobError, match="did you mean INSEE_COM"):
        measure(path, Zones(zones, "insee_com"))
    away = write_zones(tmp_path / "away.gpkg", [2], [far], "EPSG:2154")
    with pytest.raises(AlignmentError, match="--zones-crs"):
        measure(path, Zones(away, "INSEE_COM"))
    odd = write_map(tmp_path / "odd.tif", np.array([[0, 1], [2, 40]], np.uint8))
    with pytest.raises(SourceError, match="does not name: 0, 40"):
        measure(odd, legend="rpg-28")


def test_the_command_writes_csv_and_json_and_shows_the_rest(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(30))
    zones = write_zones(tmp_path / "z.gpkg", list("abcd"), quarters(30), "EPSG:2154")
    words = ("stats", path, "--zones", zones, "--id", "INSEE_COM", "--legend", "flair-15")
    out = tmp_path / "new" / "t.csv"
    done = omnisat(*words, "-o", out)
    assert done.code == Exit.COMPLETE, done.err
    with out.open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["INSEE_COM"] for row in rows[::4]] == ["a", "b", "c", "d", "total"]
    assert omnisat(*words, "-o", out).code == Exit.EXISTS
    assert omnisat(*words, "-o", out, "--overwrite").code == Exit.COMPLETE
    assert omnisat(*words, "-o", tmp_path / "t.xlsx").code == Exit.USAGE
    omnisat(*words, "-o", tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert content == json.loads(omnisat(*words, "--json").out)
    assert len(content["zones"]) == 4
    plain = omnisat("stats", path)
    assert "total: 0.35 ha with a class" in plain.out
    assert "in the plane of EPSG:2154" in plain.out
    assert omnisat("stats", path, "--id", "x").code == Exit.USAGE
