"""The command line of training: from a scene or one's own labels to a map of the new classes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from cli_runs import LEFT, SIDE_M, TOP, omnisat, write_tiny_scene
from shapely import box

from omnisat_cli.cli.learning_options import drop_rates
from omnisat_cli.errors import JobError
from omnisat_cli.learning.simulate import SceneSpec
from omnisat_cli.learning.simulate.files import Layout, write_simulation

if TYPE_CHECKING:
    from pathlib import Path

    from cli_runs import Scene

TINY = ("--size", "tiny", "--side", 4, "--batch", 2, "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Imagery with hand-drawn polygons of two crops in every corner."""
    scene = write_tiny_scene(tmp_path_factory.mktemp("own"))
    shapes, crops = [], []
    for place in range(36):
        row, col = divmod(place, 6)
        x, y = LEFT + 40 * col, TOP - 40 * row
        shapes.append(box(x + 4, y - 36, x + 36, y - 4))
        crops.append(("maize", "wheat")[(row // 2 + col // 2) % 2])
    table = gpd.GeoDataFrame({"crop": crops}, geometry=shapes, crs="EPSG:2154")
    table.to_file(scene.folder / "fields.gpkg")
    return scene


def train(scene: Scene, out: Path, *words: object, labels: str = "fields.gpkg") -> object:
    imagery = ("--aerial", scene.aerial, "--s2", scene.s2)
    told = ("--labels", scene.folder / labels, "--field", "crop")
    return omnisat("train", *imagery, *told, "--out", out, *TINY, *words)


@pytest.fixture(scope="module")
def pack(own: Scene) -> Path:
    outcome = train(own, own.folder / "crops", "--steps", 3, "--licence", "MIT")
    assert outcome.code == 0, outcome.err
    return own.folder / "crops"


def test_own_labels_become_a_pack_and_its_map_names_them(
    own: Scene, pack: Path, tmp_path: Path
) -> None:
    facts = json.loads((pack / "training.json").read_text())
    assert set(facts["inputs"]["files"]) == {"aerial", "s2", "labels"}
    assert json.loads((pack / "card.json").read_text())["licence"] == "MIT"
    out = tmp_path / "map.tif"
    words = ("--aerial", own.aerial, "--s2", own.s2, "--threads", 1)
    mapped = omnisat("predict", "-m", pack, *words, "--out", out)
    assert mapped.code == 0, mapped.err
    with rasterio.open(out) as file:
        found = set(np.unique(file.read(1)).tolist())
    legend = json.loads((pack / "legend.json").read_text())
    assert {entry["name_en"] for entry in legend["classes"]} == {"maize", "wheat"}
    assert found <= {entry["code"] for entry in legend["classes"]} | {255}


def test_the_last_lines_say_what_was_learned_and_what_to_do_next(own: Scene, pack: Path) -> None:
    again = train(own, pack, "--steps", 2)
    assert again.code == 5
    assert "--overwrite" in again.err
    outcome = train(own, pack, "--steps", 2, "--overwrite", "--from", pack, "--json")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    assert said["steps"] == 2
    assert said["scores"]["aerial+s2"]["mIoU"] >= 0
    assert "layers taken from the pack" in outcome.err
    assert "learning from" in outcome.err


def test_a_folder_of_scenes_is_learned_from_scratch(tmp_path: Path) -> None:
    for seed in (3, 4):
        write_simulation(SceneSpec(seed, 160, 160), tmp_path / "sim" / str(seed), Layout())
    words = ("--dataset", "scenes", "--root", tmp_path / "sim", "--place", 8)
    outcome = omnisat(
        "train", *words, "--network", "dual-stream", "--modalities", "s2,s1", "--steps", 2,
        "--out", tmp_path / "pack", *TINY, "--keep-dates", 3,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "s2+s1" in outcome.out
    assert "next: omnisat predict -m" in outcome.out
    scene = tmp_path / "sim" / "3"
    mapped = omnisat(
        "predict", "-m", tmp_path / "pack", "--s2", scene / "s2.nc", "--threads", 1,
        "--out", tmp_path / "map.tif",
    )  # fmt: skip
    assert mapped.code == 0, mapped.err


def test_a_frozen_encoder_needs_a_pack(own: Scene, tmp_path: Path) -> None:
    outcome = train(own, tmp_path / "p", "--freeze", "encoder")
    assert outcome.code == 2
    assert "--from PACK" in outcome.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "nothing to learn from"),
        (("--dataset", "scenes"), 2, "--root"),
        (("--dataset", "scenes", "--root", "/none", "--labels", "x.gpkg"), 2, "give either"),
        (("--dataset", "nothing", "--root", "."), 2, "unknown dataset"),
        (("--aerial", "a.tif", "--labels", "x.gpkg", "--patch", 0), 2, "above 0 m"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    outcome = omnisat("train", "--out", tmp_path / "p", *words)
    assert outcome.code == code
    assert said in outcome.err
    assert not (tmp_path / "p").exists()


def test_a_single_class_and_labels_elsewhere_are_refused(own: Scene, tmp_path: Path) -> None:
    table = gpd.read_file(own.folder / "fields.gpkg")
    table.assign(crop="maize").to_file(own.folder / "one.gpkg")
    outcome = train(own, tmp_path / "p", labels="one.gpkg")
    assert outcome.code in (2, 3)
    assert "one class only" in outcome.err
    table.set_geometry(table.translate(10 * SIDE_M)).to_file(own.folder / "far.gpkg")
    outcome = train(own, tmp_path / "p", labels="far.gpkg")
    assert outcome.code == 3
    assert "km from the imagery" in outcome.err


def test_a_pretrained_pack_maps_nothing_yet(own: Scene, pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pretrained"
    folder.mkdir()
    for path in pack.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"pretrained_only": True}))
    outcome = omnisat("predict", "-m", folder, "--s2", own.s2, "--out", tmp_path / "map.tif")
    assert outcome.code == 2
    assert "knows no classes yet" in outcome.err
    assert train(own, tmp_path / "tuned", "--from", folder, "--steps", 1).code == 0


def test_drop_rates_are_read_for_all_or_one() -> None:
    names = ("aerial", "s2")
    assert drop_rates(["0.3"], names) == {"aerial": 0.3, "s2": 0.3}
    assert drop_rates(["0.3,s2=0.1"], names) == {"aerial": 0.3, "s2": 0.1}
    for text in ("s9=0.1", "much"):
        with pytest.raises(JobError, match="--drop"):
            drop_rates([text], names)
