"""Scenes of `omnisat simulate` as something to learn from."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from omnisat_cli.errors import AlignmentError, JobError, OmnisatError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.datasets.cache import ByteCache
from omnisat_cli.learning.datasets.scenes import SceneExamples
from omnisat_cli.learning.datasets.windows import cut_of
from omnisat_cli.learning.simulate import Scene, SceneSpec, simulate
from omnisat_cli.learning.simulate.files import write_scene
from omnisat_cli.sources.values import Image, Series

SIDE_M = 160


@pytest.fixture(scope="module")
def scenes() -> tuple[Scene, ...]:
    return tuple(simulate(SceneSpec(seed, SIDE_M, SIDE_M)) for seed in (3, 12))


@pytest.fixture(scope="module")
def root(scenes: tuple[Scene, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for scene in scenes:
        write_scene(scene, folder / str(scene.spec.seed))
    return folder


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """One scene that a test may spoil."""
    return Path(shutil.copytree(root / "3", tmp_path / "all" / "3")).parent


def test_a_window_holds_the_pixels_and_the_truth_of_its_ground(
    root: Path, scenes: tuple[Scene, ...]
) -> None:
    examples = open_dataset("scenes", root, options=Options(side=4))
    assert len(examples) == 2 * 16
    assert [(c.name, c.gsd) for c in examples.channels] == [("aerial", 0.5), ("s2", 10), ("s1", 10)]
    example = examples.example(16 + 6)  # scene 12: second row, third column of windows
    scene = scenes[1]
    aerial, s2, s1 = (example.sample.data[name] for name in ("aerial", "s2", "s1"))
    assert isinstance(aerial, Image)
    assert isinstance(s2, Series)
    assert isinstance(s1, Series)
    assert aerial.pixels.shape == (4, 80, 80)
    assert s2.pixels.dtype == np.float32
    cells = (slice(4, 8), slice(8, 12))
    own = np.isin(scene.s2_dates, s2.dates)
    expected = scene.s2[own][..., *cells] * s2.valid[:, None]
    np.testing.assert_array_equal(s2.pixels, expected)
    np.testing.assert_allclose(s1.pixels, scene.s1[..., *cells], atol=0.011)  # stored in 0.02 dB
    metres = (slice(40, 80), slice(80, 120))
    np.testing.assert_array_equal(example.classes, scene.truth[metres])
    close = np.abs(aerial.pixels.astype(int) - scene.aerial[:, 80:160, 160:240])
    assert close.mean() < 8  # JPEG
    left, top = scene.origin
    assert (example.sample.window.row, example.sample.window.col) == (
        -top // 10 + 4,
        left // 10 + 8,
    )


def test_parcels_are_those_of_the_scene(root: Path, scenes: tuple[Scene, ...]) -> None:
    examples = open_dataset("scenes", root, modalities=["aerial"], options=Options(side=16))
    parcels = examples.example(0).parcels
    assert parcels is not None
    own = scenes[0].parcel_ids
    both = (parcels > 0) & (own > 0)
    assert both.mean() > 0.5
    np.testing.assert_array_equal(parcels[both], own[both])


def test_windows_of_one_scene_are_one_group(root: Path) -> None:
    examples = open_dataset("scenes", root, options=Options(side=12, stride=2))
    assert examples.groups.tolist() == [0] * 9 + [1] * 9


def test_strides_leave_no_ground_out() -> None:
    cut = cut_of(4, 3, 12)
    rows = [cut.window(9, 4, index).row for index in range(cut.count(9, 4))]
    assert rows == [0, 3, 5]
    with pytest.raises(JobError, match="leaves ground"):
        cut_of(4, 5, 12)


def test_examples_pickle_small_and_read_the_same(root: Path) -> None:
    examples = open_dataset("scenes", root, modalities=["aerial"], options=Options(side=4))
    first = examples.example(7)
    again = pickle.loads(pickle.dumps(examples))
    assert len(pickle.dumps(examples)) < 10_000
    for name, part in again.example(7).sample.data.items():
        np.testing.assert_array_equal(part.pixels, first.sample.data[name].pixels)


def test_labels_are_read_without_imagery(copy: Path) -> None:
    examples = open_dataset("scenes", copy, options=Options(side=4))
    whole = examples.example(5)
    (copy / "3" / "s2.nc").unlink()
    again = open_dataset("scenes", copy, options=Options(side=4))
    assert isinstance(again, SceneExamples)
    labels = again.labels(5)
    np.testing.assert_array_equal(labels.classes, whole.classes)
    np.testing.assert_array_equal(labels.parcels, whole.parcels)
    assert labels.sample.window == whole.sample.window
    assert not labels.sample.data


def test_editing_an_example_does_not_change_the_next_reading(root: Path) -> None:
    examples = open_dataset("scenes", root, modalities=["aerial"], options=Options(side=4))
    first = examples.example(0).sample.data["aerial"].pixels
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(examples.example(0).sample.data["aerial"].pixels, kept)


def test_an_orbit_can_be_asked_for(root: Path, scenes: tuple[Scene, ...]) -> None:
    examples = open_dataset("scenes", root, modalities=["s1-asc"], options=Options(side=4))
    series = examples.example(0).sample.data["s1-asc"]
    assert isinstance(series, Series)
    assert len(series.dates) == (scenes[0].s1_orbit == "ascending").sum()


def test_a_split_is_a_folder_of_scenes(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "12", tmp_path / "test" / "12")
    examples = open_dataset("scenes", tmp_path, split="test", options=Options(side=8))
    assert len(examples) == 4
    assert examples.name.startswith("scenes test (1 in ")


def test_a_scene_without_aerial_or_parcels_lacks_just_these(copy: Path) -> None:
    (copy / "3" / "aerial.tif").unlink()
    (copy / "3" / "parcels.gpkg").unlink()
    example = open_dataset("scenes", copy, options=Options(side=4)).example(0)
    assert set(example.sample.data) == {"s2", "s1"}
    assert example.parcels is None


def test_missing_truth_is_named(copy: Path) -> None:
    (copy / "3" / "labels.tif").unlink()
    with pytest.raises(SourceError, match=r"labels\.tif is missing"):
        open_dataset("scenes", copy)


def test_a_folder_without_scenes_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"<scene>/labels\.tif"):
        open_dataset("scenes", tmp_path)
    with pytest.raises(SourceError, match="is no folder"):
        open_dataset("scenes", tmp_path / "none")


def test_requests_that_do_not_fit_are_refused(root: Path) -> None:
    with pytest.raises(JobError, match="unknown dataset 'scene'"):
        open_dataset("scene", root)
    with pytest.raises(JobError, match="no choice of folds"):
        open_dataset("scenes", root, folds=[1])
    with pytest.raises(JobError, match="no modality spot"):
        open_dataset("scenes", root, modalities=["spot"])
    with pytest.raises(JobError, match="patches of 10 or 20 or 40 m"):
        open_dataset("scenes", root, options=Options(patch_m=15))
    with pytest.raises(SourceError, match="ask for a smaller side"):
        open_dataset("scenes", root, options=Options(side=17))


@pytest.mark.parametrize("name", ["labels.tif", "aerial.tif", "s2.nc", "parcels.gpkg"])
def test_a_truncated_file_is_a_typed_error(copy: Path, name: str) -> None:
    path = copy / "3" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    wanted = ["s2" if name == "s2.nc" else "aerial"]
    with pytest.raises(OmnisatError):
        open_dataset("scenes", copy, modalities=wanted, options=Options(side=16)).example(0)


def test_truth_of_another_type_legend_or_place_is_refused(copy: Path) -> None:
    path = copy / "3" / "labels.tif"
    with rasterio.open(path) as truth:
        profile, classes = dict(truth.profile), truth.read()
    with rasterio.open(path, "w", **{**profile, "dtype": "int16"}) as out:
        out.write(classes.astype(np.int16))
    with pytest.raises(SourceError, match="int16"):
        open_dataset("scenes", copy, modalities=["aerial"]).example(0)
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.full_like(classes, 77))
    with pytest.raises(SourceError, match=r"codes \[77\]"):
        open_dataset("scenes", copy, modalities=["aerial"]).example(0)
    moved = profile["transform"] @ rasterio.Affine.translation(0.4, 0)
    with rasterio.open(path, "w", **{**profile, "transform": moved}) as out:
        out.write(classes)
    with pytest.raises(AlignmentError, match="do not lie on patches of 10 m"):
        open_dataset("scenes", copy)


def test_the_cache_drops_what_was_used_longest_ago() -> None:
    loaded: list[int] = []

    def load(key: int) -> bytes:
        loaded.append(key)
        return bytes(10)

    cache: ByteCache[bytes] = ByteCache(25, len)
    for key in (1, 2, 1, 3, 1, 2):
        cache.get(key, load)
    assert loaded == [1, 2, 3, 2]
