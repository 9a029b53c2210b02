"""`omnisat pretrain` from imagery of one's own to a pack, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cli_runs import LEFT, SIDE_M, TOP, Outcome, Scene, omnisat, write_tiny_scene

from omnisat_cli.errors import Exit
from omnisat_cli.packs.registry import read_pack


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_tiny_scene(tmp_path_factory.mktemp("scene"))


def pretrain(scene: Scene, out: Path, *words: object) -> Outcome:
    imagery = ("--aerial", scene.aerial, "--s2", scene.s2, "--s1", scene.s1)
    budget = ("--steps", 2, "--batch", 2, "--side", 4, "--size", "tiny", "--threads", 1)
    return omnisat("pretrain", *imagery, *budget, "--device", "cpu", "-o", out, *words)


def test_imagery_becomes_a_pack_and_the_pack_goes_on(scene: Scene, tmp_path: Path) -> None:
    first = pretrain(scene, tmp_path / "first", "--image-share", 0.5, "--json")
    assert first.code == Exit.COMPLETE, first.err
    found = json.loads(first.out)
    assert (found["steps"], found["ended"]) == (2, "steps")
    terms = {"contrast", "reconstruct aerial", "reconstruct s2", "reconstruct s1"}
    assert set(found["losses"]) == {*terms, "loss"}
    card = read_pack(tmp_path / "first").card
    assert card.pretrained_only
    assert "50% of the image patches a step" in card.training
    with (tmp_path / "first" / "training.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2

    mapped = omnisat(
        "predict", "-m", tmp_path / "first", "--s2", scene.s2, "-o", tmp_path / "map.tif"
    )
    assert mapped.code == Exit.USAGE, mapped.err
    assert "omnisat train --from" in mapped.err

    more = ("--from", tmp_path / "first", "--contrast", "none", "--no-date-filter")
    second = pretrain(scene, tmp_path / "second", *more)
    assert second.code == Exit.COMPLETE, second.err
    assert "omnisat train --from" in second.out
    assert "continued from first" in read_pack(tmp_path / "second").card.training


def write_labels(folder: Path) -> None:
    """Make a scene of the dataset `scenes` of a folder with imagery."""
    side = SIDE_M // 10
    transform = rasterio.Affine(10, 0, LEFT, 0, -10, TOP)
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:2154", "nodata": 255}
    with rasterio.open(
        folder / "labels.tif", "w", **profile, width=side, height=side, transform=transform
    ) as file:
        file.write(np.full((side, side), 255, np.uint8), 1)


def test_anysat_learns_from_imagery_and_from_a_mixture(scene: Scene, tmp_path: Path) -> None:
    joint = ("--network", "anysat", "--predictor-depth", 1)
    first = pretrain(scene, tmp_path / "first", *joint, "--scales", "1,2")
    assert first.code == Exit.COMPLETE, first.err
    card = read_pack(tmp_path / "first").card
    assert card.network.kind == "anysat"
    assert "patches of 10, 20 m" in card.training

    write_labels(scene.folder)
    mix = tmp_path / "mix.toml"
    lines = (f'root = "{scene.folder}"', 'name = "scenes"', "side = 4", "batch = 1")
    tables = ["\n".join(("[[dataset]]", *lines, f"scales = [{scale}]")) for scale in (1, 2)]
    mix.write_text("\n".join(tables))
    budget = ("--steps", 2, "--device", "cpu", "--threads", 1, "--size", "tiny")
    words = ("--mix", mix, "--contrast", "none", "--keep", "student", *budget, "--json")
    second = omnisat("pretrain", *joint, *words, "-o", tmp_path / "second")
    assert second.code == Exit.COMPLETE, second.err
    assert set(json.loads(second.out)["losses"]) == {"predict", "loss"}
    assert "the student's weights" in read_pack(tmp_path / "second").card.training


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--contrast", "none", "--no-reconstruct"), "nothing is left to learn from"),
        (("--dataset", "scenes", "--root", "."), "both are given"),
        (("--split", "train"), "--split is about --dataset"),
        (("--image-share", "0"), "image_share 0.0"),
        (("--modalities", "s2,spot"), "not spot"),
        (("--scales", "1,2"), "--scales is about --network anysat"),
        (("--network", "anysat", "--image-share", "0.5"), "--image-share is about"),
        (("--network", "anysat", "--contrast", "clip"), "mil-nce or none"),
        (("--network", "anysat", "--drop", "0.3"), "--drop is about"),
        (("--network", "anysat", "--scales", "1,x"), "--scales 1,x: write whole numbers"),
        (("--network", "anysat", "--scales", "3"), "hold 1.33 patches"),
        (("--network", "anysat", "--momentum", "2"), "momentum 2.0"),
        (("--network", "anysat", "--mix", "mix.toml"), "described in mix.toml alone"),
    ],
)
def test_contradictions_end_before_anything_is_computed(
    scene: Scene, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    outcome = pretrain(scene, tmp_path / "pack", *words)
    assert outcome.code == Exit.USAGE
    assert message in outcome.err
    assert not (tmp_path / "pack").exists()


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    outcome = omnisat("pretrain", "-o", tmp_path / "pack")
    assert outcome.code == Exit.USAGE
    assert "neither is given" in outcome.err


def test_the_published_mixture_can_be_shown_and_read_again(tmp_path: Path) -> None:
    outcome = omnisat("pretrain", "--mix-example")
    assert outcome.code == Exit.COMPLETE
    mix = tmp_path / "mix.toml"
    mix.write_text(outcome.out)
    again = omnisat("pretrain", "--network", "anysat", "--mix", mix, "-o", tmp_path / "pack")
    assert again.code == Exit.REFUSED
    assert f"{tmp_path / 'Planted'} is no folder" in again.err
