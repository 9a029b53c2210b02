"""`omnisat vectorize`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import shapely
from cli_runs import omnisat, write_tiny_scene
from test_outputs_parcels import LEFT, TOP, feature_count, fields, read, write_map

from omnisat_cli.cli.parcels import ParcelWish
from omnisat_cli.cli.vectorize import square_metres
from omnisat_cli.errors import AlignmentError, Exit, JobError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_map_becomes_parcels_and_a_second_run_asks_before_it_replaces(tmp_path: Path) -> None:
    path, out = write_map(tmp_path / "map.tif", fields(30)), tmp_path / "new" / "parcels.gpkg"
    done = omnisat("vectorize", path, "-o", out, "--legend", "flair-15", "--min-area", "0.01ha")
    assert done.code == Exit.COMPLETE, done.err
    assert out.exists()
    assert "parcels" in done.out
    assert "building" in done.out
    again = omnisat("vectorize", path, "-o", out)
    assert again.code == Exit.EXISTS
    assert "[exit 5]" in again.err
    replaced = omnisat("vectorize", path, "-o", out, "--overwrite", "--simplify", 0, "--json")
    assert replaced.code == Exit.COMPLETE
    content = json.loads(replaced.out)
    assert content["simplify_m"] == 0
    assert sum(row["parcels"] for row in content["classes"]) == content["parcels"]
    other = tmp_path / "p.parquet"
    assert omnisat("vectorize", path, "-o", other, "--fields", "oso").code == Exit.COMPLETE
    assert "Aire" in gpd.read_parquet(other).columns


def test_smooth_parcels_have_more_corners(tmp_path: Path) -> None:
    path, out = write_map(tmp_path / "map.tif", fields(30)), tmp_path / "parcels.fgb"
    counts = []
    for words in ((), ("--smooth",)):
        done = omnisat("vectorize", path, "-o", out, "--overwrite", *words)
        assert done.code == Exit.COMPLETE, done.err
        counts.append(int(shapely.get_num_coordinates(read(out)[1]).sum()))
    assert counts[1] > counts[0]


def test_a_map_without_names_says_so(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(20))
    done = omnisat("vectorize", path, "-o", tmp_path / "p.fgb")
    assert done.code == Exit.COMPLETE
    assert "class 1" in done.out
    assert "--legend" in done.err


def test_wrong_requests_end_with_their_codes(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(20))
    assert omnisat("vectorize", path, "-o", tmp_path / "p.txt").code == Exit.USAGE
    assert omnisat("vectorize", path, "-o", tmp_path / "p.fgb", "--min-area", "x").code == 2
    both = omnisat("vectorize", path, "-o", tmp_path / "p.fgb", "--no-boundary", "--boundary", path)
    assert both.code == Exit.USAGE
    assert omnisat("vectorize", tmp_path / "none.tif", "-o", tmp_path / "p.fgb").code == 3


def test_predict_draws_parcels_with_the_boundary_of_its_model(tmp_path: Path) -> None:
    scene = write_tiny_scene(tmp_path)
    out, parcels = tmp_path / "out" / "map.tif", tmp_path / "out" / "parcels.gpkg"
    words = ("--aerial", scene.aerial, "--s2", scene.s2)
    refused = scene.predict(out, *words, "--parcels", tmp_path / "parcels.shp")
    assert refused.code == Exit.USAGE
    assert not out.parent.exists()
    done = scene.predict(out, *words, "--parcels", parcels, "--json")
    assert done.code == Exit.COMPLETE, done.err
    said = json.loads(done.out)["parcels"]
    assert said["boundary"] == str(tmp_path / "out" / "map.boundary.tif")
    assert said["parcels"] == feature_count(parcels) > 0
    assert omnisat("vectorize", out, "-o", tmp_path / "again.gpkg").code == Exit.COMPLETE
    assert feature_count(tmp_path / "again.gpkg") == said["parcels"]


def test_predict_judges_parcels_and_says_how_to_finish_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_tiny_scene(tmp_path)
    out, judged = tmp_path / "out" / "map.tif", tmp_path / "out" / "p.gpkg"
    box = shapely.box(LEFT + 20, TOP - 60, LEFT + 80, TOP - 20)
    rpg = tmp_path / "my rpg.gpkg"
    gpd.GeoDataFrame({"id": [7]}, geometry=[box], crs="EPSG:2154").to_file(rpg, engine="pyogrio")
    words = ("--aerial", scene.aerial, "--parcels", judged, "--parcels-in", rpg)
    assert scene.predict(out, "--aerial", scene.aerial, "--parcels-in", rpg).code == Exit.USAGE
    assert not out.parent.exists()
    done = scene.predict(out, *words, "--json")
    assert done.code == Exit.COMPLETE, done.err
    assert json.loads(done.out)["parcels"]["parcels"] == 1
    assert not out.with_name("map.boundary.tif").exists()
    far = gpd.read_file(rpg).translate(9e4, 0)
    gpd.GeoDataFrame({"id": [7]}, geometry=far).to_file(rpg, engine="pyogrio")
    wish = ParcelWish(judged.with_name("q.gpkg"), rpg)
    with pytest.raises(AlignmentError, match="none of its 1 polygons lies on the map"):
        wish.fulfil(out, str(scene.pack))
    told = capsys.readouterr().err.splitlines()
    said = next(line for line in told if "omnisat vectorize" in line)
    box_again = gpd.GeoDataFrame({"id": [7]}, geometry=[box], crs="EPSG:2154")
    box_again.to_file(rpg, engine="pyogrio")
    finished = omnisat(*shlex.split(said)[1:])
    assert finished.code == Exit.COMPLETE, finished.err


def test_areas_have_units() -> None:
    assert square_metres("1000") == square_metres("1000 m2") == square_metres("0.1ha") == 1000
    with pytest.raises(JobError, match="hectares"):
        square_metres("1 acre")


def test_parcels_of_the_user_are_judged_by_the_map(tmp_path: Path) -> None:
    codes = np.full((20, 20), 1, np.uint8)
    path = write_map(tmp_path / "map.tif", codes)
    shapes = [shapely.box(LEFT + 2, TOP - 10, LEFT + 10, TOP - 2), shapely.box(0, 0, 1, 1)]
    frame = gpd.GeoDataFrame({"crop": ["wheat", "oats"]}, geometry=shapes, crs="EPSG:2154")
    frame.to_file(tmp_path / "rpg.gpkg", engine="pyogrio")
    words = ("vectorize", path, "--parcels-in", tmp_path / "rpg.gpkg", "--legend", "pastis-20")
    (tmp_path / "walk.csv").write_text("wheat,2\n", encoding="utf-8")
    crop = ("--declared", "crop", "--crosswalk", tmp_path / "walk.csv")
    done = omnisat(*words, "-o", tmp_path / "a.gpkg", *crop, "--suspects", tmp_path / "s.csv")
    assert done.code == Exit.COMPLETE, done.err
    assert "2 parcels, 1 with a class" in done.out
    assert "agree with crop: 0 of 1 (0.0%), 1 open" in done.out
    assert "oats (1)" in done.err
    assert "off the map" in done.err
    again = omnisat(*words, "-o", tmp_path / "a.gpkg", "--json")
    assert again.code == Exit.EXISTS
    told = omnisat(*words, "-o", tmp_path / "b.gpkg", *crop, "--json")
    assert json.loads(told.out)["agreement"]["no"] == 1
    idle = omnisat(*words, "-o", tmp_path / "c.gpkg", "--simplify", 2)
    assert idle.code == Exit.USAGE
    assert "--simplify 2.0: does nothing" in idle.err
    alone = omnisat("vectorize", path, "-o", tmp_path / "c.gpkg", "--declared", "crop")
    assert alone.code == Exit.USAGE
