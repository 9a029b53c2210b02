"""PASTIS-HD, in tiny files of the published layout."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.datasets.pastis import PastisExamples
from omnisat_cli.sources.values import Image, Series

IDS = {10000: 1, 10003: 4, 10009: 5}
DATES = {"S2": (20180917, 20181012), "S1A": (20180902, 20180908, 20181101), "S1D": (20180904,)}
SPOT = "DATA_SPOT/PASTIS_SPOT6_RVB_1M00_2019"


def write_tile(root: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    arrays = {
        "DATA_S2/S2": rng.integers(100, 5000, (2, 10, 128, 128)).astype(np.int16),
        "DATA_S1A/S1A": rng.uniform(-25, 10, (3, 3, 128, 128)).astype(np.float16),
        "DATA_S1D/S1D": rng.uniform(-25, 10, (1, 3, 128, 128)).astype(np.float16),
        "INSTANCE_ANNOTATIONS/INSTANCES": rng.integers(0, 90, (128, 128)).astype(np.uint16),
    }
    target = np.zeros((3, 128, 128), np.uint8)
    target[0, :64], target[0, 64:, :8], target[0, 100:, 100:] = 3, 19, 18
    arrays["ANNOTATIONS/TARGET"] = target
    for stem, array in arrays.items():
        path = root / f"{stem}_{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    path = root / SPOT / f"SPOT6_RVB_1M00_2019_{number}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    place = rasterio.Affine(1, 0, 600000, 0, -1, 6800000)
    form = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:2154", "transform": place}
    with rasterio.open(path, "w", count=3, height=1280, width=1280, compress="zstd", **form) as out:
        rows = np.arange(1280, dtype=np.int64)
        plane = (rows[:, None] // 8 + rows[None] // 8 * 3 + number) % 251 + 1
        out.write(np.stack([plane, plane + 1, plane + 2]).astype(np.uint8))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pastis")
    features = []
    for number, fold in reversed(IDS.items()):
        write_tile(root, number)
        dates = {
            f"dates-{key}": {str(k): day for k, day in enumerate(days)}
            for key, days in DATES.items()
        }
        row = {"ID_PATCH": number, "Fold": fold, "N_Parcel": 9, "TILE": "t31tfm", **dates}
        shape = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
        features.append({"type": "Feature", "properties": row, "geometry": shape})
    table = {"type": "FeatureCollection", "features": features}
    (root / "metadata.geojson").write_text(json.dumps(table))
    norm = {f"Fold_{k}": {"mean": [k * 100.0] * 10, "std": [50.0] * 10} for k in range(1, 6)}
    (root / "NORM_S2_patch.json").write_text(json.dumps(norm))
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """One tile that a test may spoil."""
    folder = tmp_path / "pastis"
    shutil.copytree(published, folder, ignore=lambda _, names: [n for n in names if "100" in n])
    for path in published.rglob("*_10000.*"):
        shutil.copy(path, folder / path.relative_to(published))
    return folder


def test_a_tile_holds_the_stored_arrays(published: Path) -> None:
    examples = open_dataset("pastis-hd", published, folds=[1])
    example = examples.example(0)
    assert {name: part.pixels.shape for name, part in example.sample.data.items()} == {
        "spot": (3, 1280, 1280),
        "s2": (2, 10, 128, 128),
        "s1-asc": (3, 3, 128, 128),
        "s1-des": (1, 3, 128, 128),
    }
    s2, radar = example.sample.data["s2"], example.sample.data["s1-asc"]
    assert isinstance(s2, Series)
    assert isinstance(radar, Series)
    np.testing.assert_array_equal(s2.pixels, np.load(published / "DATA_S2" / "S2_10000.npy"))
    np.testing.assert_array_equal(radar.pixels, np.load(published / "DATA_S1A/S1A_10000.npy"))
    assert [str(day) for day in s2.dates] == ["2018-09-17", "2018-10-12"]
    assert s2.valid.all()
    assert example.sample.window.shape == (32, 32)  # patches of 40 m
    dates = {channel.name: channel.dates for channel in examples.channels}
    assert dates["s2"] == "days-since-2018-09-01"
    assert examples.channels[-1].bands == ("VV", "VH", "ratio")


def test_void_is_not_labelled_and_background_is_a_class(published: Path) -> None:
    examples = open_dataset("pastis-hd", published, folds=[1])
    example = examples.example(0)
    assert example.classes is not None
    assert example.parcels is not None
    assert example.classes[0, 0] == 3
    assert (example.classes[64:, :8] == 255).all()
    assert example.classes[70, 50] == 0
    assert len(examples.legend.classes) == 20
    stored = np.load(published / "INSTANCE_ANNOTATIONS" / "INSTANCES_10000.npy")
    np.testing.assert_array_equal(example.parcels, stored)


@pytest.mark.parametrize(("patch_m", "side"), [(40, 8), (10, 32)])
def test_windows_cut_every_modality_at_one_place(
    published: Path, patch_m: float, side: int
) -> None:
    options = Options(patch_m=patch_m, side=side)
    examples = open_dataset("pastis-hd", published, folds=[5], options=options)
    assert len(examples) == 16
    example = examples.example(6)  # second row, third column of 320 m windows
    spot, s2 = example.sample.data["spot"], example.sample.data["s2"]
    assert isinstance(spot, Image)
    assert example.sample.window.shape == (side, side)
    stored = np.load(published / "DATA_S2" / "S2_10009.npy")
    np.testing.assert_array_equal(s2.pixels, stored[..., 32:64, 64:96])
    with rasterio.open(published / SPOT / "SPOT6_RVB_1M00_2019_10009.tif") as image:
        np.testing.assert_array_equal(spot.pixels, image.read()[:, 320:640, 640:960])
    assert example.classes is not None
    assert example.classes.shape == (32, 32)
    assert (example.classes == 3).all()


def test_folds_and_parts_are_the_official_ones(published: Path) -> None:
    assert open_dataset("pastis-hd", published).groups.tolist() == [1, 4, 5]
    assert open_dataset("pastis-hd", published, split="train").groups.tolist() == [1]
    assert open_dataset("pastis-hd", published, split="val").groups.tolist() == [4]
    test = open_dataset("pastis-hd", published, folds=["4", "5"])
    assert test.groups.tolist() == [4, 5]
    assert test.name == "pastis-hd folds 4, 5"
    with pytest.raises(JobError, match="no fold 6"):
        open_dataset("pastis-hd", published, folds=[6])
    with pytest.raises(JobError, match="not both"):
        open_dataset("pastis-hd", published, split="train", folds=[1])
    with pytest.raises(SourceError, match="no tile"):
        open_dataset("pastis-hd", published, folds=[2])


def test_the_multilabel_task_names_the_crops_that_occur(published: Path) -> None:
    options = Options(task="multilabel")
    examples = open_dataset("pastis-hd", published, folds=[1], options=options)
    example = examples.example(0)
    assert example.classes is None
    assert example.tags is not None
    assert len(example.tags) == 18
    assert [examples.legend.codes[k] for k in np.flatnonzero(example.tags)] == [3, 18]


def test_labels_are_read_without_imagery(root: Path) -> None:
    examples = open_dataset("pastis-hd", root, folds=[1])
    assert isinstance(examples, PastisExamples)
    shutil.rmtree(root / "DATA_S2")
    labels = examples.labels(0)
    assert labels.classes is not None
    assert not labels.sample.data


def test_published_statistics_are_averaged_over_the_folds_in_use(published: Path) -> None:
    examples = open_dataset("pastis-hd", published, folds=[1, 4])
    assert isinstance(examples, PastisExamples)
    mean, std = examples.published_statistics()["s2"]
    assert mean.tolist() == [250.0] * 10
    assert std.tolist() == [50.0] * 10


def test_older_editions_lack_radar_and_spot(root: Path) -> None:
    for folder in ("DATA_S1A", "DATA_S1D", "DATA_SPOT", "INSTANCE_ANNOTATIONS"):
        shutil.rmtree(root / folder)
    examples = open_dataset("pastis-hd", root, folds=[1])
    assert [channel.name for channel in examples.channels] == ["s2"]
    assert examples.example(0).parcels is None
    with pytest.raises(SourceError, match="DATA_SPOT"):
        open_dataset("pastis-hd", root, folds=[1], modalities=["s2", "spot"])


def test_the_set_pickles_without_pixels(published: Path) -> None:
    examples = open_dataset("pastis-hd", published)
    assert len(pickle.dumps(examples)) < 10_000
    again = pickle.loads(pickle.dumps(examples)).example(2)
    np.testing.assert_array_equal(again.classes, examples.example(2).classes)


def spoil_shape(path: Path) -> None:
    np.save(path, np.load(path)[..., :100])


def spoil_type(path: Path) -> None:
    np.save(path, np.load(path).astype(str))


def spoil_objects(path: Path) -> None:
    np.save(path, np.array([{"code": 1}], dtype=object), allow_pickle=True)


def spoil_length(path: Path) -> None:
    np.save(path, np.load(path)[:1])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("DATA_S2/S2_10000.npy", cut_short, "cut short"),
        ("DATA_S2/S2_10000.npy", spoil_shape, "128 × 100"),
        ("DATA_S2/S2_10000.npy", spoil_type, "kind"),
        ("DATA_S2/S2_10000.npy", spoil_objects, "S2_10000"),
        ("DATA_S1A/S1A_10000.npy", spoil_length, "names 3 dates"),
        ("ANNOTATIONS/TARGET_10000.npy", Path.unlink, "TARGET_10000.npy is missing"),
        ("INSTANCE_ANNOTATIONS/INSTANCES_10000.npy", spoil_shape, "128 × 100"),
        (f"{SPOT}/SPOT6_RVB_1M00_2019_10000.tif", cut_short, "damaged"),
    ],
)
def test_damaged_files_are_typed_errors(root: Path, file: str, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    spoil(root / file)
    with pytest.raises(SourceError, match=said):
        open_dataset("pastis-hd", root, folds=[1]).example(0)


def test_metadata_that_does_not_fit_is_refused(root: Path) -> None:
    path = root / "metadata.geojson"
    table = json.loads(path.read_text())
    for feature in table["features"]:
        del feature["properties"]["dates-S1A"]
    path.write_text(json.dumps(table))
    with pytest.raises(SourceError, match="no dates-S1A for tile 10000"):
        open_dataset("pastis-hd", root, folds=[1])
    path.write_text("{")
    with pytest.raises(SourceError, match="no JSON"):
        open_dataset("pastis-hd", root)
    path.unlink()
    with pytest.raises(SourceError, match=r"metadata\.geojson is missing; expected PASTIS-HD"):
        open_dataset("pastis-hd", root)
