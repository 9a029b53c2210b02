"""From labels to a pack: networks, transfer, split, resume, refusals."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from learning_worlds import ToyExamples

from omnisat_cli.engine.device import Compute
from omnisat_cli.engine.network import load_network
from omnisat_cli.errors import JobError, OutputExistsError, ResumeError, SourceError
from omnisat_cli.learning.data.batches import BatchSpec
from omnisat_cli.learning.training.lesson import FitSpec, Unwatched
from omnisat_cli.learning.training.train import train
from omnisat_cli.learning.training.train_job import TrainJob
from omnisat_cli.learning.training.transfer import take_weights
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.packs.registry import load_weights, read_pack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Example

CPU = Compute(torch.device("cpu"), 1, 1)


def job(out: Path, **changes: object) -> TrainJob:
    fit = FitSpec(steps=4, rate=5e-3, device="cpu")
    return replace(TrainJob(out, fit, BatchSpec(2, 4), size="tiny", val_share=0.4), **changes)


@dataclass(frozen=True)
class Renamed(ToyExamples):
    """The same places with other classes."""

    @cached_property
    def legend(self) -> Legend:  # type: ignore[override]
        classes = [LegendClass(c, f"kind {c}", f"genre {c}", "#112233") for c in (3, 7, 9)]
        return Legend("renamed", "1", "test", "MIT", (*classes, replace(classes[0], code=11)))


@dataclass(frozen=True)
class Bright(ToyExamples):
    """Places whose class is how bright they are: easy to learn."""

    def example(self, index: int) -> Example:
        made = super().example(index)
        pixels = made.sample.data["aerial"].pixels[0]
        return replace(made, classes=np.where(pixels < 75, 3, 9).astype(np.uint8))


@dataclass(frozen=True)
class Painted(ToyExamples):
    """Places whose labels are all one code."""

    code: int = 3

    def example(self, index: int) -> Example:
        made = super().example(index)
        assert made.classes is not None
        return replace(made, classes=np.full_like(made.classes, self.code))


@dataclass(frozen=True)
class Alone(ToyExamples):
    """Places of one spatial block."""

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        return np.zeros(self.count, np.int64)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "Toy pack"
    fit = FitSpec(steps=30, rate=5e-3, device="cpu", validate_every=10)
    train(Bright(), None, job(folder, fit=fit, licence="MIT"))
    return folder


def test_the_pack_says_what_it_learned_and_from_what(pack: Path) -> None:
    card = read_pack(pack).card
    assert card.name == "toy-pack"
    assert (card.licence, card.legend, card.boundary) == ("MIT", "toy@1", True)
    assert (card.patch_m, card.coarse_m, card.fine_m) == (10, 10, 5)
    assert "30 steps" in card.training
    assert "seed 0" in card.training
    assert set(card.scores["validation"]) == {"aerial+s2", "aerial", "s2"}
    facts = json.loads((pack / "training.json").read_text())
    assert facts["run"]["steps"] == 30
    assert facts["training"]["rate"] == 5e-3
    rows = (pack / "training.csv").read_text().splitlines()
    assert len(rows) == 1 + 30 + 3
    assert sorted(path.name for path in pack.parent.iterdir()) == ["Toy pack"]


def test_an_easy_truth_is_learned(pack: Path) -> None:
    rows = [line.split(",") for line in (pack / "training.csv").read_text().splitlines()]
    column = rows[0].index("loss")
    losses = [float(row[column]) for row in rows[1:] if row[column]]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert read_pack(pack).card.scores["validation"]["aerial+s2"]["accuracy"] > 70


@pytest.mark.parametrize("kind", ["omnisat", "anysat", "utae", "unet"])
def test_every_network_becomes_a_pack_that_the_engine_takes(tmp_path: Path, kind: str) -> None:
    report = train(ToyExamples(), None, job(tmp_path / "pack", kind=kind))
    assert report.pack is not None
    load_network(report.pack, CPU)
    card = report.pack.card
    assert card.network.kind == kind
    assert card.fine_m == {"omnisat": 5, "anysat": 2.5, "utae": 10, "unet": 2.5}[kind]
    assert report.fit.busy > 0


def test_a_pack_is_trained_on_for_the_same_classes(tmp_path: Path, pack: Path) -> None:
    report = train(ToyExamples(), None, job(tmp_path / "next", start=str(pack)))
    assert report.transfer is not None
    assert not report.transfer.fresh
    assert not report.transfer.left
    assert report.pack is not None
    assert report.pack.card.modalities == read_pack(pack).card.modalities


def test_other_classes_get_new_last_layers(tmp_path: Path, pack: Path) -> None:
    report = train(Renamed(), None, job(tmp_path / "next", start=str(pack)))
    assert report.transfer is not None
    assert report.transfer.fresh == ("head.coarse", "head.last")
    assert report.transfer.left == ("head.coarse", "head.last")
    assert report.pack is not None
    assert report.pack.card.legend == "renamed@1"
    assert report.pack.card.network.config["classes"] == 4


def test_a_window_of_another_size_keeps_the_learned_positions(tmp_path: Path, pack: Path) -> None:
    draws = BatchSpec(2, 8)
    report = train(ToyExamples(), None, job(tmp_path / "next", start=str(pack), draws=draws))
    assert report.transfer is not None
    assert not report.transfer.fresh
    assert report.pack is not None
    assert report.pack.card.window.size == 8


def test_a_frozen_encoder_does_not_move(tmp_path: Path, pack: Path) -> None:
    report = train(Renamed(), None, job(tmp_path / "next", start=str(pack), freeze=True))
    assert report.pack is not None
    before, after = load_weights(read_pack(pack)), load_weights(report.pack)
    encoder = [key for key in after if key.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(before[key], after[key]) for key in encoder)
    assert not torch.equal(before["head.conv1.weight"], after["head.conv1.weight"])
    with pytest.raises(JobError, match="give --from"):
        job(tmp_path / "none", freeze=True)


def test_labels_of_whole_places_are_learned_and_tile_packs_become_maps(tmp_path: Path) -> None:
    places = ToyExamples(task="multilabel")
    report = train(places, None, job(tmp_path / "tile"))
    assert report.pack is not None
    assert report.pack.card.network.kind == "omnisat-tile"
    assert "F1 macro" in report.scores["aerial+s2"]
    dense = train(ToyExamples(), None, job(tmp_path / "dense", start=str(tmp_path / "tile")))
    assert dense.pack is not None
    assert dense.pack.card.network.kind == "omnisat"
    with pytest.raises(JobError, match="only --network omnisat"):
        train(places, None, job(tmp_path / "no", kind="utae"))


@pytest.mark.parametrize("kind", ["omnisat", "anysat"])
def test_a_stopped_training_goes_on_to_the_same_pack(tmp_path: Path, kind: str) -> None:
    stop = threading.Event()

    class StopAtOne(Unwatched):
        def step(self, step: int, losses: Mapping[str, float]) -> None:
            if step == 1:
                stop.set()

    draws = BatchSpec(2, 4, drop={"aerial": 0.5}, balanced=0.5)
    straight = train(ToyExamples(), None, job(tmp_path / "a", draws=draws, kind=kind))
    broken = job(tmp_path / "b", draws=draws, kind=kind)
    halted = train(ToyExamples(), None, broken, watch=StopAtOne(), stop=stop)
    assert halted.fit.ended == "stopped"
    assert halted.pack is None
    assert not (tmp_path / "b").exists()
    with pytest.raises(ResumeError, match=r"draws\.size: was 2, now 3"):
        train(ToyExamples(), None, replace(broken, draws=replace(draws, size=3)))
    resumed = train(ToyExamples(), None, broken)
    assert straight.pack is not None
    assert resumed.pack is not None
    assert straight.pack.card.weights_sha256 == resumed.pack.card.weights_sha256


def test_a_pack_that_is_there_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    train(ToyExamples(), None, job(tmp_path / "pack"))
    before = read_pack(tmp_path / "pack").card.weights_sha256
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(ToyExamples(), None, job(tmp_path / "pack"))
    fit = FitSpec(steps=2, device="cpu", seed=5)
    train(ToyExamples(), None, job(tmp_path / "pack", fit=fit, overwrite=True))
    assert read_pack(tmp_path / "pack").card.weights_sha256 != before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(OutputExistsError, match="no model pack"):
        train(ToyExamples(), None, job(tmp_path / "full", overwrite=True))


def test_fewer_labels_keep_every_class(tmp_path: Path) -> None:
    report = train(ToyExamples(count=12), None, job(tmp_path / "pack", label_share=0.3))
    assert len(report.material.training) < 5
    assert (report.material.counts > 0).all()
    assert len(set(report.material.training.groups) & set(report.material.validation.groups)) == 0


@pytest.mark.parametrize(
    ("examples", "changes", "words"),
    [
        (Painted(), {}, "one class only"),
        (Painted(code=255), {}, "no labelled pixel"),
        (Alone(), {}, "one spatial block"),
        (ToyExamples(), {"kind": "dual-stream"}, "two series or more"),
        (
            ToyExamples(only=("aerial",)),
            {"kind": "utae", "modalities": ("aerial",)},
            "reads series",
        ),
        (ToyExamples(), {"size": "huge"}, "--size huge"),
        (ToyExamples(), {"draws": BatchSpec(2, 40)}, "at most 8"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    tmp_path: Path, examples: ToyExamples, changes: dict[str, object], words: str
) -> None:
    with pytest.raises((SourceError, JobError), match=words):
        train(examples, None, job(tmp_path / "pack", **changes))
    assert not (tmp_path / "pack").exists()


def test_validation_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be compared"):
        train(ToyExamples(), Renamed(), job(tmp_path / "pack"))
    few = job(tmp_path / "pack", val_places=2)
    report = train(ToyExamples(), ToyExamples(count=4), few)
    assert len(report.material.validation) == 2
    assert len(report.material.training) == 6


def test_a_network_that_takes_nothing_is_refused() -> None:
    with pytest.raises(JobError, match="nothing of the pack fits"):
        take_weights(torch.nn.Linear(2, 2), {"other": torch.ones(1)}, same_classes=True)
