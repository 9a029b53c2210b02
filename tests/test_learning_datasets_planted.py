"""PLANTED, in a few tiles of the layout that the training code of AnySat reads."""

from __future__ import annotations

import json
import pickle
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from planted_files import write_planted
from torch import nn

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.data.batches import Batcher, BatchSpec
from omnisat_cli.learning.data.statistics import make_modality_cards
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.scoring.evaluate_pack import choose_subsets
from omnisat_cli.learning.training.validation import Validation
from omnisat_cli.sources.values import Series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SHAPES = {"s2": (10, 12), "s1": (2, 12), "l7": (6, 4), "alos": (2, 4), "modis": (7, 4)}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    write_planted(root, {"train": {"a1": 0, "b2": 39}, "val": {"c3": 7}})
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return tmp_path


def stored(root: Path, kind: str) -> NDArray[np.generic]:
    with np.load(root / "train" / "b2" / f"b2_{kind}.npz", allow_pickle=False) as file:
        array: NDArray[np.generic] = file["arr_0"]
    return array


def series(root: Path, name: str, **options: float) -> Series:
    examples = open_dataset("planted", root, split="train", options=Options(**options))
    found = examples.example(1).sample.data[name]
    assert isinstance(found, Series)
    return found


def test_a_tile_has_five_sensors_and_one_species(published: Path) -> None:
    examples = open_dataset("planted", published, split="train")
    assert (len(examples), examples.task, examples.patch_m) == (2, "multilabel", 30.0)
    example = examples.example(1)
    for name, (bands, side) in SHAPES.items():
        found = example.sample.data[name]
        assert found.pixels.shape[1:] == (bands, side, side), name
    assert example.sample.window.shape == (4, 4)
    assert example.tags is not None
    names = [entry.name_en for entry in examples.legend.classes]
    assert [names[k] for k in np.flatnonzero(example.tags)] == ["Theobroma cacao"]
    assert len(names) == 40
    assert open_dataset("planted", published).groups.tolist() == [0, 1, 2]


def test_pixels_dates_and_masks_are_as_stored(published: Path) -> None:
    found, raw, mask = (
        series(published, "s2"),
        stored(published, "s2"),
        stored(published, "s2_mask"),
    )
    valid = mask[..., 0].astype(bool)
    np.testing.assert_array_equal(found.valid, valid)
    assert not valid.all()
    pixels = np.moveaxis(raw, -1, 1)
    np.testing.assert_array_equal(np.where(valid[:, None], pixels, 0), found.pixels)
    assert [str(day) for day in found.dates] == ["2016-03-31", "2016-06-30", "2016-09-30"]
    modis = series(published, "modis")
    assert (modis.pixels == modis.pixels[..., :1, :1]).all()


def test_pixels_larger_than_a_patch_are_read_once_a_patch(published: Path) -> None:
    coarse, fine = series(published, "l7"), series(published, "l7", patch_m=10.0)
    np.testing.assert_array_equal(fine.pixels, coarse.pixels.repeat(3, 2).repeat(3, 3))
    assert series(published, "s2", patch_m=10.0).pixels.shape[-1] == 12


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (lambda db: db, lambda db: db),
        (lambda db: 10 ** (db / 10), lambda db: db),
        (lambda db: 10 ** ((db + 83) / 20), lambda db: db),
    ],
    ids=["decibels", "power", "numbers of ALOS-2"],
)
def test_radar_becomes_decibels_however_it_is_stored(
    root: Path,
    written: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    read: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> None:
    rng = np.random.default_rng(3)
    decibels = rng.uniform(-25, -3, (2, 4, 4, 2)).astype(np.float32)
    for tile in ("train/a1", "train/b2", "val/c3"):
        path = root / tile / f"{tile[-2:]}_alos.npz"
        np.savez(path, written(decibels).astype(np.float32))
    found = series(root, "alos")
    expected = np.where(found.valid[:, None], np.moveaxis(read(decibels), -1, 1), 0)
    np.testing.assert_allclose(found.pixels, expected, atol=1e-3)


def test_sensors_can_be_chosen_and_the_set_is_small(published: Path) -> None:
    examples = open_dataset("planted", published, modalities=["l7", "s2"])
    assert [channel.name for channel in examples.channels] == ["s2", "l7"]
    again = pickle.loads(pickle.dumps(examples))
    np.testing.assert_array_equal(again.example(0).tags, examples.example(0).tags)
    for wrong, message in (
        ({"folds": ["1"]}, "no choice of folds"),
        ({"modalities": ["spot"]}, "no modality spot"),
        ({"split": "validation"}, "no split validation"),
        ({"options": Options(patch_m=20)}, "patches of 10 or 30 or 60 m"),
        ({"options": Options(task="segmentation")}, "its task is multilabel"),
    ):
        with pytest.raises(JobError, match=message):
            open_dataset("planted", published, **wrong)  # type: ignore[arg-type]


def hide_objects(folder: Path) -> None:
    np.savez(folder / "b2_s2.npz", np.array([{"a": 1}], object))


def reshape(folder: Path) -> None:
    np.savez(folder / "b2_s2.npz", np.zeros((3, 12, 12, 4), np.float32))


def cut_short(folder: Path) -> None:
    path = folder / "b2_s2.npz"
    path.write_bytes(path.read_bytes()[:200])


def rename(folder: Path) -> None:
    np.savez(folder / "b2_s2_mask.npz", mask=np.ones((3, 12, 12, 1)))


def misdate(folder: Path) -> None:
    np.savez(folder / "b2_s2_timestamp.npz", np.array([0, 1, np.nan]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (hide_objects, "no set of arrays: Object arrays cannot be loaded"),
        (reshape, "arr_0 is 3 × 12 × 12 × 4 of float32, expected n × 12 × 12 × 10"),
        (cut_short, "damaged, cut short"),
        (rename, "holds no array arr_0"),
        (misdate, "no milliseconds"),
        (lambda folder: (folder / "b2_s2_mask.npz").unlink(), "b2_s2_mask.npz is missing"),
    ],
)
def test_damaged_tiles_are_named(root: Path, damage: Callable[[Path], None], message: str) -> None:
    examples = open_dataset("planted", root, split="train", modalities=["s2"])
    damage(root / "train" / "b2")
    with pytest.raises(SourceError, match=message):
        examples.example(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"../b2": 3}, "gives '../b2' the class 3"),
        ({"b2": 40}, "gives 'b2' the class 40"),
        ({"b2": "3"}, "the class '3'"),
        ([1, 2], "no table of classes"),
        ({}, "names no tile"),
    ],
)
def test_tables_of_classes_are_checked(root: Path, content: object, message: str) -> None:
    (root / "train" / "labels2.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=message):
        open_dataset("planted", root, split="train")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"labels2.json is missing; expected PLANTED"):
        open_dataset("planted", tmp_path)


def test_ground_around_is_no_subset_of_its_own() -> None:
    assert choose_subsets("each", ("s2", "modis")) == (("s2", "modis"), ("s2",))
    assert choose_subsets("all", ("s2", "modis")) == (("s2", "modis"), ("s2",))
    with pytest.raises(JobError, match="modis tells of the ground around alone"):
        choose_subsets("s2,modis", ("s2", "modis"))


def test_validation_measures_sensors_that_tell_something_alone(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = open_dataset("planted", published, modalities=["s2", "modis"])
    batcher = Batcher(examples, make_modality_cards(examples), BatchSpec(2), seed=0)
    measured: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        Validation, "_measured", lambda _self, _network, parts: measured.extend(parts) or {}
    )
    Validation(batcher).by_subset(nn.Identity())
    assert measured == [("s2", "modis"), ("s2",)]
