"""Whole places: learned from any OmniSat or AnySat pack, scored and mapped by the commands."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import torch
from anysat_packs import write_anysat, write_utae
from cli_runs import omnisat
from learning_worlds import ToyExamples, toy_legend
from worlds import card

from omnisat_cli.cli.scoring_dataset import Part
from omnisat_cli.errors import Exit, JobError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.data.batches import BatchSpec
from omnisat_cli.learning.data.statistics import class_counts
from omnisat_cli.learning.datasets import open_dataset
from omnisat_cli.learning.datasets.places import WholePlaces
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.learning.training.lesson import FitSpec, Unwatched
from omnisat_cli.learning.training.train import train
from omnisat_cli.learning.training.train_job import TrainJob
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.packs.card import NetworkCard
from omnisat_cli.packs.registry import load_weights, read_pack
from omnisat_cli.sources.values import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Seasons:
    """Places of 60 m seen by Sentinel-2: class 0 where infrared is bright, class 2 everywhere."""

    count: int = 8
    task: Task = "multilabel"

    name = "seasons"
    channels = (Channel("s2", S2_BANDS, 10.0, "reflectance_1e4", "day-of-year"),)
    patch_m = 10.0
    legend = toy_legend()

    @property
    def groups(self) -> NDArray[np.int64]:
        return np.arange(self.count)

    def __len__(self) -> int:
        return self.count

    def example(self, index: int) -> Example:
        bright = index % 2
        rng = np.random.default_rng(index)
        slope = np.linspace(-1500, 1500, 10)[:, None, None] * (1 if bright else -1)
        pixels = (rng.normal(2000, 100, (2, 10, 6, 6)) + slope).astype(np.float32)
        every = np.ones((2, 6, 6), bool)
        days = np.datetime64("2024-03-01") + 40 * np.arange(2)
        series = Series(pixels, days, every, ~every)
        classes = np.full((60, 60), 3 if bright else 7, np.uint8)
        whole = self.task == "multilabel"
        return Example(
            Sample(Window(0, 0, 6, 6), {"s2": series}),
            None if whole else classes,
            tags=np.array([bright, 0, 1], np.uint8) if whole else None,
        )


def job(out: Path, start: Path, steps: int = 3, **changes: object) -> TrainJob:
    fit = FitSpec(steps=steps, rate=1e-3, device="cpu", validate_every=steps)
    draws = BatchSpec(4, augment=False)
    return TrainJob(out, fit, draws, start=str(start), val_share=0.25, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "start"
    write_anysat(folder, "s2", "s1")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "places"
    report = train(Seasons(), None, job(folder, start, steps=32))
    assert report.transfer is not None
    assert report.transfer.fresh == ("head.mlp.0", "head.mlp.1")
    assert report.transfer.left == ("coarse.mlp.0", "coarse.mlp.1")
    return folder


def test_an_anysat_pack_learns_what_places_hold(trained: Path) -> None:
    card = read_pack(trained).card
    assert card.network.kind == "anysat-tile"
    assert card.whole_places
    assert (card.patch_m, card.coarse_m, card.fine_m, card.place_m) == (10, 10, 10, 60)
    assert (card.window.size, card.window.overlap) == (6, 3)
    assert "AnySat for whole places of s2, s1" in card.summary
    assert "multi-label" in card.summary
    assert card.scores["validation"]["s2"]["F1 weighted"] == 100
    assert set(card.scores["validation"]) == {"s2"}


def test_it_learns_on_for_the_same_classes_and_maps_after_pixels(
    trained: Path, start: Path, tmp_path: Path
) -> None:
    again = train(Seasons(), None, job(tmp_path / "again", trained))
    assert again.transfer is not None
    assert not again.transfer.fresh
    pixels = train(Seasons(task="segmentation"), None, job(tmp_path / "map", trained))
    assert pixels.pack is not None
    card = pixels.pack.card
    assert (card.network.kind, card.whole_places) == ("anysat", False)
    assert (card.coarse_m, card.fine_m) == (10, 10)
    frozen = train(Seasons(), None, job(tmp_path / "frozen", start, freeze=True))
    assert frozen.pack is not None
    before, after = load_weights(read_pack(start)), load_weights(frozen.pack)
    encoder = [key for key in after if key.startswith("encoder.")]
    assert all(torch.equal(before[key], after[key]) for key in encoder)


def test_a_stopped_training_of_places_goes_on_to_the_same_weights(
    start: Path, tmp_path: Path
) -> None:
    stop = threading.Event()

    class StopAtTwo(Unwatched):
        def step(self, step: int, losses: Mapping[str, float]) -> None:
            del losses
            if step == 2:
                stop.set()

    straight = train(Seasons(), None, job(tmp_path / "a", start, steps=5))
    wanted = job(tmp_path / "b", start, steps=5)
    assert train(Seasons(), None, wanted, watch=StopAtTwo(), stop=stop).pack is None
    resumed = train(Seasons(), None, wanted)
    assert straight.pack is not None
    assert resumed.pack is not None
    assert resumed.pack.card.weights_sha256 == straight.pack.card.weights_sha256


def test_other_networks_do_not_label_whole_places(tmp_path: Path) -> None:
    write_utae(tmp_path / "utae")
    with pytest.raises(JobError, match="from an OmniSat or AnySat pack"):
        train(Seasons(), None, job(tmp_path / "none", tmp_path / "utae"))


def test_a_class_is_held_where_it_covers_enough_of_the_ground() -> None:
    class Striped(ToyExamples):
        def example(self, index: int) -> Example:
            classes = np.full((32, 32), 255, np.uint8)
            classes[:3] = 3  # 9.4 % of the ground, though all that is labelled with class 0
            classes[3:5] = 9  # 6.3 %
            return replace(super().example(index), classes=classes)

    places = WholePlaces(Striped(count=3))
    example = places.example(1)
    assert example.tags is not None
    assert example.tags.tolist() == [1, 0, 0]
    assert (example.classes, example.parcels) == (None, None)
    assert class_counts(places).tolist() == [[1, 0, 0]] * 3
    assert (places.task, len(places)) == ("multilabel", 3)
    assert places.name == "whole places of toy"
    np.testing.assert_array_equal(places.groups, [0, 0, 1])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    done = omnisat("simulate", folder, "--count", 2, "--seed", 3, "--size-km", 0.12)
    assert done.code == 0, done.err
    return folder


def test_places_of_scenes_are_learned_scored_and_mapped(scenes: Path, tmp_path: Path) -> None:
    here = ("--dataset", "scenes", "--root", scenes)
    learn = ("--whole-places", "--modalities", "s2", "--steps", 2, "--size", "tiny")
    done = omnisat("train", *here, *learn, "--val-share", 0.5, "--out", tmp_path / "pack", "-q")
    assert done.code == 0, done.err
    card = read_pack(tmp_path / "pack").card
    assert (card.network.kind, card.place_m, card.window.overlap) == ("omnisat-tile", 60, 3)
    done = omnisat("evaluate", "-m", tmp_path / "pack", *here, "-q", "--json")
    assert done.code == 0, done.err
    assert "F1 weighted" in done.out
    one = next(path for path in scenes.iterdir() if path.is_dir())
    words = ("--s2", one / "s2.nc", "-o", tmp_path / "map.tif", "--probabilities")
    done = omnisat("predict", "-m", tmp_path / "pack", *words)
    assert done.code == 0, done.err
    assert "multi-label: any number of classes a place of 60 m" in done.out
    with rasterio.open(tmp_path / "map.tif") as file:
        assert "multi-label" in file.descriptions[0]
        assert file.tags()["labels"] == "multi-label"
        assert (file.res, file.shape) == ((10, 10), (12, 12))
    with rasterio.open(tmp_path / "map.probabilities.tif") as file:
        assert file.descriptions == tuple(
            c.name_en for c in read_pack(tmp_path / "pack").legend.classes
        )
        share = file.read().astype(float) / 250
    assert share.max() <= 1
    assert np.ptp(share.sum(0)) > 0.01  # classes that do not exclude each other
    provenance = json.loads((tmp_path / "map.provenance.json").read_text())
    assert provenance["model"]["multilabel"] is True
    labels = ("--labels", one / "labels.tif", "--s2", one / "s2.nc")
    done = omnisat("evaluate", "-m", tmp_path / "pack", *labels)
    assert (done.code, "labels whole places" in done.err) == (Exit.USAGE, True)
    done = omnisat("train", *labels, "--whole-places", "--out", tmp_path / "none")
    assert (done.code, "is about --dataset" in done.err) == (Exit.USAGE, True)


def test_a_dataset_is_evaluated_in_the_patches_of_the_model(scenes: Path) -> None:
    part = Part("scenes", scenes, split=None, folds=None, side=3)
    for kind in ("omnisat", "omnisat-tile"):
        toy = card(patch_m=20.0, network=NetworkCard(kind=kind, config={}))
        examples = part.open(toy)
        assert (examples.patch_m, examples.example(0).sample.window.shape) == (20, (3, 3))


@pytest.mark.parametrize("network", ["omnisat", "anysat"])
def test_a_real_tile_of_treesatai_is_learned_from(
    network: str, shared: Path, tmp_path: Path
) -> None:
    sample = shared / "real_sample"
    name = "Abies_alba_1_1005_WEFL_NLF"
    if not (sample / f"{name}.h5").exists():
        pytest.skip(f"no tile of TreeSatAI in {sample}")
    for folder, file in (("aerial", f"{name}.tif"), ("sentinel-ts", f"{name}.h5")):
        (tmp_path / folder).mkdir()
        target = file if folder == "aerial" else f"{name}_2020.h5"
        (tmp_path / folder / target).symlink_to(sample / file)
    (tmp_path / "labels").mkdir()
    tags = {f"{name}.tif": [["Abies", 0.93], ["Picea", 0.05]]}
    (tmp_path / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(tags))
    (tmp_path / "train_filenames.lst").write_text(f"{name}.tif\n")
    wanted = ("aerial", "s2", "s1-asc")
    tiles = open_dataset("treesatai-ts", tmp_path, split="train", modalities=wanted)
    fit = FitSpec(steps=1, rate=1e-3, device="cpu")
    draws = BatchSpec(1, keep_dates={"s2": 4, "s1-asc": 4})
    asked = TrainJob(tmp_path / "pack", fit, draws, kind=network, size="tiny")  # type: ignore[arg-type]
    report = train(tiles, tiles, asked)
    assert report.pack is not None
    card = report.pack.card
    assert (card.network.kind, card.place_m) == (f"{network}-tile", 60)
    assert card.names == wanted
    assert card.legend == "treesatai-15@1"
    assert np.isfinite(report.fit.loss["tags"])
    assert report.material.counts.tolist() == [1, *[0] * 14]
