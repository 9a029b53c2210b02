"""`omnisat pretrain` from imagery of one's own to a pack, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest
from cli_runs import Outcome, Scene, omnisat, write_tiny_scene

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

    more = ("--from", tmp_path / "first", "--contrast", "none", "--no-date-filter")
    second = pretrain(scene, tmp_path / "second", *more)
    assert second.code == Exit.COMPLETE, second.err
    assert "omnisat train --from" in second.out
    assert "continued from first" in read_pack(tmp_path / "second").card.training


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--contrast", "none", "--no-reconstruct"), "nothing is left to learn from"),
        (("--dataset", "scenes", "--root", "."), "both are given"),
        (("--split", "train"), "--split is about --dataset"),
        (("--image-share", "0"), "image_share 0.0"),
        (("--modalities", "s2,spot"), "not spot"),
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
