"""`omnisat evaluate`: maps, models on imagery, models on datasets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from cli_runs import LEFT, SIDE_M, TOP, Scene, omnisat, write_lively_scene

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_lively_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def labels(scene: Scene) -> Path:
    """Random labels of 5 m on the eastern half of the scene."""
    path = scene.folder / "labels.tif"
    codes = np.random.default_rng(0).integers(0, 3, (48, 24), dtype=np.uint8)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:2154", "nodata": 255}
    place = rasterio.Affine(5, 0, LEFT + SIDE_M / 2, 0, -5, TOP)
    with rasterio.open(path, "w", **profile, height=48, width=24, transform=place) as dataset:
        dataset.write(codes, 1)
    return path


def test_a_model_on_imagery_scores_as_its_map_does(
    scene: Scene, labels: Path, tmp_path: Path
) -> None:
    assert scene.predict(tmp_path / "map.tif", "--s2", scene.s2).code == 0
    common = ("--labels", labels, "--json")
    of_map = omnisat("evaluate", tmp_path / "map.tif", *common)
    of_model = omnisat("evaluate", "-m", scene.pack, "--s2", scene.s2, "--threads", 1, *common)
    assert (of_map.code, of_model.code) == (0, 0)
    one, two = json.loads(of_map.out), json.loads(of_model.out)
    assert one["results"][0]["confusion"] == two["results"][0]["confusion"]
    assert one["results"][0]["pixels"] == 12 * 24
    assert one["classes"] == ["building", "field", "forest"]
    # The lower half of the scene alone, in a grid that is not that of the imagery.
    box = ("--bbox", LEFT, TOP - SIDE_M, LEFT + SIDE_M, TOP - SIDE_M / 2, "--bbox-crs", "EPSG:2154")
    words = ("-m", scene.pack, "--s2", scene.s2, "--threads", 1, *box, "--crs", "EPSG:3035")
    moved = omnisat("evaluate", *words, *common)
    assert moved.code == 0, moved.err
    other = json.loads(moved.out)
    assert 0.4 < other["results"][0]["pixels"] / (12 * 24) < 0.6
    assert "EPSG:3035" in other["notes"][0]


def test_every_subset_of_the_imagery_is_scored_and_the_card_says_so(
    scene: Scene, labels: Path, tmp_path: Path
) -> None:
    run = omnisat(
        "evaluate", "-m", scene.pack, "--s2", scene.s2, "--s1", scene.s1, "--labels", labels,
        "--subsets", "all", "--update-card", "east", "--out", tmp_path / "r.csv", "--threads", 1,
    )  # fmt: skip
    assert run.code == 0
    rows = [line.split()[0] for line in run.out.splitlines()[2:5]]
    assert rows == ["s2+s1", "s2", "s1"]
    card = json.loads((scene.pack / "card.json").read_text())
    assert set(card["scores"]["east"]) == {"s2+s1", "s2", "s1"}
    assert "nothing" in card["scores"]  # figures of other test sets stay
    assert (tmp_path / "r.csv").exists()


def test_flags_that_do_not_belong_together_are_refused(scene: Scene, labels: Path) -> None:
    cases = (
        ((), "nothing to evaluate"),
        (("map.tif",), "--labels FILE"),
        (("map.tif", "-m", "omnisat-demo"), "not both"),
        (("-m", "omnisat-demo"), "--dataset NAME"),
        (("map.tif", "--labels", labels, "--split", "test"), "--dataset, which is missing"),
        (("map.tif", "--labels", labels, "--crs", "EPSG:2154"), "--crs: about a --model with imag"),
        (("map.tif", "--labels", labels, "--update-card", "x"), "--model, which is missing"),
        (("map.tif", "--labels", labels, "--subsets", "all"), "--model, which is missing"),
        (("-m", scene.pack, "--s2", scene.s2, "--labels", labels, "--subsets", "s9"), "none of s2"),
    )
    for words, message in cases:
        run = omnisat("evaluate", *words)
        assert run.code == 2, run.err
        assert message in run.err


def test_labels_elsewhere_end_with_3(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "far.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:2154"}
    place = rasterio.Affine(5, 0, LEFT + 50_000, 0, -5, TOP)
    with rasterio.open(path, "w", **profile, height=8, width=8, transform=place) as dataset:
        dataset.write(np.zeros((8, 8), np.uint8), 1)
    run = omnisat("evaluate", "-m", scene.pack, "--s2", scene.s2, "--labels", path)
    assert run.code == 3
    assert "km apart" in run.err
