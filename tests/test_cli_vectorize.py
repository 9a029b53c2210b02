"""`omnisat vectorize`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli_runs import omnisat, write_tiny_scene
from test_outputs_parcels import feature_count, fields, write_map

from omnisat_cli.cli.vectorize import square_metres
from omnisat_cli.errors import Exit, JobError

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


def test_areas_have_units() -> None:
    assert square_metres("1000") == square_metres("1000 m2") == square_metres("0.1ha") == 1000
    with pytest.raises(JobError, match="hectares"):
        square_metres("1 acre")
