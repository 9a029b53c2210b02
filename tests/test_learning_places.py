"""Whole places: learned from any OmniSat or AnySat pack, and mapped."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from anysat_packs import write_anysat, write_utae
from learning_worlds import toy_legend

from omnisat_cli.errors import JobError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.data.batches import BatchSpec
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.learning.training.lesson import FitSpec, Unwatched
from omnisat_cli.learning.training.train import TrainJob, train
from omnisat_cli.modality import S2_BANDS
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
        pixels = (rng.normal(2000, 100, (4, 10, 6, 6)) + slope).astype(np.float32)
        every = np.ones((4, 6, 6), bool)
        days = np.datetime64("2024-03-01") + 40 * np.arange(4)
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
    report = train(Seasons(), None, job(folder, start, steps=40))
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
    trained: Path, start: Path, tmp_path: Path
) -> None:
    stop = threading.Event()

    class StopAtFour(Unwatched):
        def step(self, step: int, losses: Mapping[str, float]) -> None:
            del losses
            if step == 4:
                stop.set()

    wanted = job(tmp_path / "places", start, steps=40)
    assert train(Seasons(), None, wanted, watch=StopAtFour(), stop=stop).pack is None
    resumed = train(Seasons(), None, wanted)
    assert resumed.pack is not None
    assert resumed.pack.card.weights_sha256 == read_pack(trained).card.weights_sha256


def test_other_networks_do_not_label_whole_places(tmp_path: Path) -> None:
    write_utae(tmp_path / "utae")
    with pytest.raises(JobError, match="from an OmniSat or AnySat pack"):
        train(Seasons(), None, job(tmp_path / "none", tmp_path / "utae"))
