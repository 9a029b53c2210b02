"""FLAIR #1, #2 and HUB, in tiny files of the published layouts."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.datasets.flair import FlairExamples
from omnisat_cli.sources.values import Image, Series

PATCHES = {"000001": "D006_2020", "000002": "D004_2021", "000009": "D012_2019"}
CENTROIDS = {"000001": [20, 31], "000002": [18, 25], "000009": [20, 20]}
HUB = ("D006-2020", "D012-2019")
COLUMNS = np.arange(512) // 52


def write_tif(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    form = {"driver": "GTiff", "dtype": pixels.dtype, "crs": "EPSG:2154", "compress": "zstd"}
    place = rasterio.Affine(0.2, 0, 900000, 0, -0.2, 6300000)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, transform=place, **form
    ) as out:
        out.write(pixels)


def picture(bands: int, seed: int) -> np.ndarray:
    rows = np.arange(512)
    plane = (rows[:, None] // 4 + rows[None] // 4 * 3 + seed) % 200
    return np.stack([plane + band for band in range(bands)]).astype(np.uint8)


def write_two(root: Path, number: str, domain: str) -> None:
    test = domain.startswith("D012")
    kinds = {
        kind: root / (f"flair_2_{kind}_test" if test else f"flair_{kind}_train") / domain / "Z1_NN"
        for kind in ("aerial", "labels", "sen")
    }
    write_tif(kinds["aerial"] / "img" / f"IMG_{number}.tif", picture(5, int(number)))
    classes = np.broadcast_to(COLUMNS + 7, (1, 512, 512)).astype(np.uint8)  # 7 to 16
    write_tif(kinds["labels"] / "msk" / f"MSK_{number}.tif", classes)
    folder = kinds["sen"] / "sen"
    folder.mkdir(parents=True)
    stem = f"SEN2_sp_{domain}-Z1_NN"
    rng = np.random.default_rng(int(number))
    np.save(folder / f"{stem}_data.npy", rng.integers(1, 9000, (2, 10, 40, 50)).astype(np.uint16))
    masks = np.zeros((2, 2, 40, 50), np.uint8)
    masks[0, 1, :, :30] = 75
    np.save(folder / f"{stem}_masks.npy", masks)
    days = ("20210313", "20210114")
    lines = [f"S2A_MSIL2A_{day}T105411_N0214_R051_T31TFJ" for day in days]
    (folder / f"{stem}_products.txt").write_text("\n".join(lines) + "\n")


def write_hub(root: Path, domain: str) -> None:
    rng = np.random.default_rng(len(domain))
    patch = f"{domain}_{{}}/AA-S1-3/{domain}_{{}}_AA-S1-3_1-2.tif"
    cosia = np.broadcast_to(COLUMNS + 9, (1, 512, 512)).astype(np.uint8)  # 9 to 18
    lpis = np.broadcast_to(np.array([1, 2, 3])[:, None, None], (3, 512, 512)).astype(np.uint8)
    masks = np.zeros((6, 10, 10), np.uint16)
    masks[3, :5] = 40  # cloud of the second date
    radar = rng.uniform(0.01, 0.4, (4, 10, 10)).astype(np.float32)
    for name, pixels in (
        ("AERIAL_RGBI", picture(4, 3)),
        ("AERIAL_LABEL-COSIA", cosia),
        ("ALL_LABEL-LPIS", lpis),
        ("SENTINEL2_TS", rng.integers(1, 9000, (30, 10, 10)).astype(np.uint16)),
        ("SENTINEL2_MSK-SC", masks),
        ("SENTINEL1-ASC_TS", radar),
        ("SENTINEL1-DESC_TS", 10 * np.log10(radar)),
    ):
        write_tif(root / patch.format(name, name), pixels)


def write_table(path: Path, columns: dict[str, list[str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    names = [f"{domain}_AA-S1-3_1-2" for domain in HUB]
    table = gpd.GeoDataFrame(
        {"patch_id": names, **columns}, geometry=[shapely.Point(0, 0)] * 2, crs="EPSG:2154"
    )
    table.to_file(path, driver="GPKG")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flair")
    for number, domain in PATCHES.items():
        write_two(root, number, domain)
    centres = {f"IMG_{number}.tif": centre for number, centre in CENTROIDS.items()}
    (root / "flair-2_centroids_sp_to_patch.json").write_text(json.dumps(centres))
    return root


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    for domain in HUB:
        write_hub(root, domain)
    folder = root / "GLOBAL_ALL_MTD"
    dates = {"s2": ["20200110", "20200301", "20201224"], "s1": ["20200105", "20200609"]}
    for name, key in (("SENTINEL2", "s2"), ("SENTINEL1-ASC", "s1"), ("SENTINEL1-DESC", "s1")):
        text = json.dumps({str(k + 1): day for k, day in enumerate(dates[key])})
        write_table(folder / f"GLOBAL_{name}_MTD_DATES.gpkg", {"acquisition_dates": [text] * 2})
    parts = {"split_1": ["train", "test"], "split_2": ["valid", "train"]}
    write_table(folder / "GLOBAL_ALL_MTD_SPLIT.gpkg", parts)
    return root


@pytest.fixture
def spoiled(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "flair"))


@pytest.fixture
def spoiled_hub(hub: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(hub, tmp_path / "hub"))


def test_a_patch_is_the_centre_of_image_mask_and_super_area(two: Path) -> None:
    examples = open_dataset("flair", two, split="train")
    assert len(examples) == 1
    assert examples.channels[0].bands == ("R", "G", "B", "NIR", "ELEV")
    example = examples.example(0)
    aerial, s2 = example.sample.data["aerial-flair"], example.sample.data["s2"]
    assert isinstance(aerial, Image)
    assert isinstance(s2, Series)
    np.testing.assert_array_equal(aerial.pixels, picture(5, 1)[:, 6:506, 6:506])
    stored = np.load(next((two / "flair_sen_train" / "D006_2020").rglob("*_data.npy")))
    np.testing.assert_array_equal(s2.pixels, stored[::-1, :, 15:25, 26:36])  # dates in order
    assert [str(day) for day in s2.dates] == ["2021-01-14", "2021-03-13"]
    assert s2.valid.all()
    assert example.classes is not None
    assert example.classes.shape == (500, 500)
    assert np.unique(example.classes).tolist() == [7, 8, 9, 10, 11, 12, 13]


def test_all_nineteen_classes_can_be_kept(two: Path) -> None:
    examples = open_dataset("flair", two, split="train", options=Options(legend="flair-19"))
    classes = examples.example(0).classes
    assert classes is not None
    assert np.unique(classes).tolist() == list(range(7, 17))
    with pytest.raises(JobError, match="flair-13 or flair-19, not flair-15"):
        open_dataset("flair", two, options=Options(legend="flair-15"))


def test_windows_lie_on_one_ground(two: Path) -> None:
    examples = open_dataset("flair", two, split="train", options=Options(side=5))
    whole = open_dataset("flair", two, split="train").example(0)
    assert len(examples) == 4
    last = examples.example(3)
    aerial, full = last.sample.data["aerial-flair"], whole.sample.data["aerial-flair"]
    np.testing.assert_array_equal(aerial.pixels, full.pixels[:, 250:, 250:])
    np.testing.assert_array_equal(
        last.sample.data["s2"].pixels, whole.sample.data["s2"].pixels[..., 5:, 5:]
    )
    assert last.classes is not None
    assert whole.classes is not None
    np.testing.assert_array_equal(last.classes, whole.classes[250:, 250:])


def test_clouds_are_masked_only_on_demand(two: Path) -> None:
    examples = open_dataset("flair", two, split="train", options=Options(clouds="mask"))
    s2 = examples.example(0).sample.data["s2"]
    assert isinstance(s2, Series)
    assert s2.valid[0].all()
    assert not s2.valid[1, :, :4].any()  # columns 26 to 29 of the super-area
    assert s2.valid[1, :, 4:].all()
    np.testing.assert_array_equal(s2.clouded, ~s2.valid)


def test_parts_are_folders_and_the_published_validation_domains(two: Path) -> None:
    def domains(**part: object) -> list[str]:
        examples = open_dataset("flair", two, modalities=["s2"], **part)  # type: ignore[arg-type]
        assert isinstance(examples, FlairExamples)
        return [patch.domain for patch in examples.patches]

    assert domains() == ["D004_2021", "D006_2020", "D012_2019"]
    assert domains(split="val") == ["D004_2021"]
    assert domains(split="test") == ["D012_2019"]
    assert domains(folds=["D006_2020"]) == ["D006_2020"]
    with pytest.raises(JobError, match="no domain D099"):
        domains(folds=["D099"])
    groups = open_dataset("flair", two, options=Options(side=5)).groups
    assert groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_lists_in_the_root_make_the_parts(spoiled: Path) -> None:
    line = (
        "../flair_aerial_train/D006_2020/Z1_NN/img/IMG_000001.tif,"
        "../flair_labels_train/D006_2020/Z1_NN/msk/MSK_000001.tif\n"
    )
    (spoiled / "flair-1-paths-val.csv").write_text(line)
    examples = open_dataset("flair", spoiled, split="val")
    assert isinstance(examples, FlairExamples)
    assert [patch.domain for patch in examples.patches] == ["D006_2020"]


def test_the_first_edition_has_no_series(spoiled: Path) -> None:
    shutil.rmtree(spoiled / "flair_sen_train")
    (spoiled / "flair-2_centroids_sp_to_patch.json").unlink()
    examples = open_dataset("flair", spoiled, split="train")
    assert set(examples.example(0).sample.data) == {"aerial-flair"}
    plain = open_dataset("flair", spoiled, split="train", modalities=["aerial"]).example(0)
    assert plain.sample.data["aerial"].pixels.shape == (4, 500, 500)
    with pytest.raises(SourceError, match="flair_sen_train is missing"):
        open_dataset("flair", spoiled, split="train", modalities=["s2"])


def test_the_multilabel_task_names_the_classes_of_the_whole_patch(two: Path) -> None:
    examples = open_dataset("flair", two, split="train", options=Options(task="multilabel"))
    tags = examples.example(0).tags
    assert tags is not None
    assert [examples.legend.codes[k] for k in np.flatnonzero(tags)] == list(range(7, 14))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("flair_aerial_train/D006_2020/**/IMG_000001.tif", "damaged"),
        ("flair_labels_train/D006_2020/**/MSK_000001.tif", "damaged"),
        ("flair_sen_train/D006_2020/**/*_data.npy", "cut short"),
        ("flair_sen_train/D006_2020/**/*_products.txt", "names 1 products for 2"),
        ("flair-2_centroids*.json", "no JSON"),
    ],
)
def test_truncated_files_are_typed_errors(spoiled: Path, pattern: str, said: str) -> None:
    path = next(spoiled.glob(pattern))
    path.write_bytes(path.read_bytes()[: min(60, path.stat().st_size // 2)])
    with pytest.raises(SourceError, match=said):
        open_dataset("flair", spoiled, split="train").example(0)


def test_files_of_another_form_are_typed_errors(spoiled: Path) -> None:
    examples = open_dataset("flair", spoiled, split="train")
    mask = next(spoiled.glob("flair_labels_train/D006_2020/**/MSK_*.tif"))
    write_tif(mask, np.full((1, 512, 512), 77, np.uint8))
    with pytest.raises(SourceError, match=r"codes \[77\]"):
        examples.example(0)
    write_tif(mask, np.ones((1, 500, 512), np.uint8))
    with pytest.raises(SourceError, match="500 × 512 px; expected"):
        examples.example(0)
    image = next(spoiled.glob("flair_aerial_train/D006_2020/**/IMG_*.tif"))
    write_tif(image, picture(5, 1).astype(np.uint16))
    with pytest.raises(SourceError, match="uint16"):
        examples.example(0)
    centres = spoiled / "flair-2_centroids_sp_to_patch.json"
    centres.write_text(json.dumps({"IMG_000001.tif": [3, 31]}))
    write_tif(image, picture(5, 1))
    with pytest.raises(SourceError, match="leaves the super-area"):
        open_dataset("flair", spoiled, split="train").example(0)
    image.unlink()
    with pytest.raises(SourceError, match=r"IMG_000001\.tif: no such file"):
        examples.example(0)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="flair_aerial_train is missing; expected FLAIR"):
        open_dataset("flair", tmp_path)
    with pytest.raises(SourceError, match="flair_2_aerial_test is missing"):
        open_dataset("flair", tmp_path, split="test")


def test_a_patch_of_the_hub_holds_its_stacks(hub: Path) -> None:
    examples = open_dataset("flair", hub, split="train")
    assert len(examples) == 1
    units = {channel.name: channel.units for channel in examples.channels}
    assert units == {
        **{"aerial": "dn8", "s2": "reflectance_1e4", "s1-asc": "linear", "s1-des": "db"},
    }
    example = examples.example(0)
    s2 = example.sample.data["s2"]
    assert isinstance(s2, Series)
    with rasterio.open(next(hub.glob("D006-2020_SENTINEL2_TS/**/*.tif"))) as file:
        np.testing.assert_array_equal(s2.pixels, file.read().reshape(3, 10, 10, 10))
    assert [str(day) for day in s2.dates] == ["2020-01-10", "2020-03-01", "2020-12-24"]
    aerial = example.sample.data["aerial"].pixels
    np.testing.assert_array_equal(aerial, picture(4, 3)[:, 6:506, 6:506])
    assert example.classes is not None
    assert np.unique(example.classes).tolist() == [9, 10, 11, 12, 13, 14, 255]


def test_the_hub_has_crops_and_cloud_masks(hub: Path) -> None:
    options = Options(legend="flair-lpis-23", clouds="mask")
    examples = open_dataset("flair", hub, folds=["D012-2019"], options=options)
    example = examples.example(0)
    assert example.classes is not None
    assert (example.classes == 1).all()
    s2 = example.sample.data["s2"]
    assert isinstance(s2, Series)
    assert not s2.valid[1, :5].any()
    assert s2.valid[1, 5:].all()


def test_the_hub_has_official_splits(hub: Path) -> None:
    def count(**part: object) -> int:
        return len(open_dataset("flair", hub, modalities=["s2"], **part))  # type: ignore[arg-type]

    assert count() == 2
    assert count(split="test") == 1
    assert count(split="val", folds=["split_2"]) == 1
    with pytest.raises(SourceError, match="no patch"):
        count(split="val")
    with pytest.raises(SourceError, match="no split_3 by patch_id"):
        count(split="val", folds=["split_3"])
    with pytest.raises(JobError, match="folds are domains"):
        count(folds=["split_1"])


def test_hub_sets_pickle_and_read_again(hub: Path) -> None:
    examples = open_dataset("flair", hub)
    again = pickle.loads(pickle.dumps(examples)).example(1)
    np.testing.assert_array_equal(
        again.sample.data["s2"].pixels, examples.example(1).sample.data["s2"].pixels
    )


def test_hub_files_that_do_not_fit_are_typed_errors(spoiled_hub: Path) -> None:
    examples = open_dataset("flair", spoiled_hub, split="train")
    s2 = next(spoiled_hub.glob("D006-2020_SENTINEL2_TS/**/*.tif"))
    write_tif(s2, np.ones((29, 10, 10), np.uint16))
    with pytest.raises(SourceError, match="29 bands, not 10 for each of the 3 dates"):
        examples.example(0)
    write_tif(s2, np.ones((30, 9, 10), np.uint16))
    with pytest.raises(SourceError, match="9 × 10 px"):
        examples.example(0)
    s2.unlink()
    with pytest.raises(SourceError, match="no such file"):
        examples.example(0)
    table = spoiled_hub / "GLOBAL_ALL_MTD" / "GLOBAL_SENTINEL2_MTD_DATES.gpkg"
    table.write_bytes(b"no database")
    with pytest.raises(SourceError, match="acquisition_dates"):
        open_dataset("flair", spoiled_hub)
    table.unlink()
    with pytest.raises(SourceError, match=r"GLOBAL_SENTINEL2_MTD_DATES\.gpkg is missing"):
        open_dataset("flair", spoiled_hub)
    (spoiled_hub / "GLOBAL_ALL_MTD" / "GLOBAL_ALL_MTD_SPLIT.gpkg").unlink()
    with pytest.raises(SourceError, match=r"GLOBAL_ALL_MTD_SPLIT\.gpkg is missing"):
        open_dataset("flair", spoiled_hub, split="train")
