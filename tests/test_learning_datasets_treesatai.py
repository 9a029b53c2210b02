"""TreeSatAI-Time-Series, in tiny files of the published layout and in one real tile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.sources.values import Image, Series

LABELS = {
    "Abies_alba_1_1_NLF.tif": [["Abies", 0.9], ["Picea", 0.08]],
    "Acer_spec_2_2_NLF.tif": [["Acer", 0.95], ["Tilia", 0.07]],
    "Tilia_spec_3_3_NLF.tif": [["Tilia", 1.0]],
    "Cleared_0_4_NLF.tif": [["Fagus", 0.05]],
}
PARTS = {"train": [0, 3], "val": [1], "test": [2]}
NAME = "Abies_alba_1_1_NLF"


def write_tile(root: Path, name: str, *, year: int = 2020) -> None:
    rng = np.random.default_rng(len(name))
    stem = name.removesuffix(".tif")
    (root / "aerial").mkdir(parents=True, exist_ok=True)
    (root / "sentinel-ts").mkdir(exist_ok=True)
    place = rasterio.Affine(0.2, 0, 565642.6, 0, -0.2, 5770980.4)
    form = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:25832", "transform": place}
    with rasterio.open(
        root / "aerial" / f"{stem}.tif", "w", count=4, height=304, width=304, **form
    ) as out:
        out.write(rng.integers(1, 255, (4, 304, 304), np.uint8))
    with h5py.File(root / "sentinel-ts" / f"{stem}_{year}.h5", "w") as file:
        optical = rng.uniform(100, 5000, (3, 10, 6, 6)).astype(np.float32)
        masks = np.zeros((3, 2, 6, 6), np.float32)
        masks[1, 1, :3] = 80
        file["sen-2-data"], file["sen-2-masks"] = optical, masks
        file["sen-2-products"] = [
            f"S2A_MSIL2A_{day}T102211_N0213_R065_T32UNC_x".encode()
            for day in ("20200105", "20200301", "20201230")
        ]
        for key, orbit in (("asc", "A"), ("des", "D")):
            radar = rng.uniform(0.01, 0.3, (4, 2, 6, 6)).astype(np.float32)
            file[f"sen-1-{key}-data"] = radar
            days = ("20200106", "20200106", "20200401", "20200112")
            file[f"sen-1-{key}-products"] = [
                f"S1{orbit}_IW_GRDH_1SDV_{day}T052211_x".encode() for day in days
            ]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("treesat")
    for name in LABELS:
        write_tile(root, name)
    (root / "labels").mkdir()
    (root / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(LABELS))
    (root / "split").mkdir()
    for part, rows in PARTS.items():
        lines = [list(LABELS)[row] for row in rows]
        (root / "split" / f"{part}_filenames.lst").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "treesat"))


def test_parts_and_genera_are_the_published_ones(published: Path) -> None:
    everything = open_dataset("treesatai-ts", published)
    assert len(everything) == 3  # the fourth has no genus above 7 %
    train = open_dataset("treesatai-ts", published, split="train")
    assert len(train) == 1
    assert train.name == "treesatai-ts train"
    tags = train.example(0).tags
    assert tags is not None
    names = [entry.name_en for entry in train.legend.classes]
    assert [names[k] for k in np.flatnonzero(tags)] == ["Abies", "Picea"]
    val = open_dataset("treesatai-ts", published, split="val").example(0).tags
    assert val is not None
    assert [names[k] for k in np.flatnonzero(val)] == ["Acer"]  # exactly 7 % does not count


def test_pixels_are_as_stored_and_the_aerial_is_cut_in_the_centre(published: Path) -> None:
    examples = open_dataset("treesatai-ts", published, split="train")
    data = examples.example(0).sample.data
    bands = {channel.name: channel.bands for channel in examples.channels}
    assert bands["aerial"] == ("NIR", "G", "B", "R")
    assert bands["s2"] == S2_BANDS
    with rasterio.open(published / "aerial" / f"{NAME}.tif") as image:
        stored = image.read()
    aerial, s2 = data["aerial"], data["s2"]
    assert isinstance(aerial, Image)
    assert isinstance(s2, Series)
    np.testing.assert_array_equal(aerial.pixels, stored[:, 2:302, 2:302])
    with h5py.File(published / "sentinel-ts" / f"{NAME}_2020.h5") as file:
        np.testing.assert_array_equal(s2.pixels, file["sen-2-data"][:])
    assert s2.valid.all()
    assert s2.dates.tolist() == np.array(
        ["2020-01-05", "2020-03-01", "2020-12-30"], "datetime64[D]"
    ).tolist()  # fmt: skip


def test_radar_dates_are_in_order_and_frames_of_one_day_stay_apart(published: Path) -> None:
    examples = open_dataset("treesatai-ts", published, split="train", modalities=["s1-asc", "s1"])
    data = examples.example(0).sample.data
    one, both = data["s1-asc"], data["s1"]
    assert isinstance(one, Series)
    assert isinstance(both, Series)
    assert [str(day) for day in one.dates] == [
        *("2020-01-06", "2020-01-06", "2020-01-12", "2020-04-01"),
    ]
    assert len(both.dates) == 8
    with h5py.File(published / "sentinel-ts" / f"{NAME}_2020.h5") as file:
        np.testing.assert_array_equal(one.pixels[2], file["sen-1-asc-data"][3])


def test_missing_radar_pixels_get_the_mean_and_empty_dates_go(root: Path) -> None:
    with h5py.File(root / "sentinel-ts" / f"{NAME}_2020.h5", "r+") as file:
        radar = file["sen-1-asc-data"][:]
        radar[0, 1, 2, 3] = np.nan
        radar[2, 0] = np.nan
        file["sen-1-asc-data"][:] = radar
    series = open_dataset("treesatai-ts", root, split="train").example(0).sample.data["s1-asc"]
    assert isinstance(series, Series)
    assert [str(day) for day in series.dates] == ["2020-01-06", "2020-01-06", "2020-01-12"]
    assert series.pixels[0, 1, 2, 3] == pytest.approx(np.nanmean(radar[0, 1]), rel=1e-5)
    assert series.valid.all()


def test_clouds_are_masked_only_on_demand(published: Path) -> None:
    options = Options(clouds="mask")
    s2 = open_dataset("treesatai-ts", published, split="train", options=options).example(0)
    series = s2.sample.data["s2"]
    assert isinstance(series, Series)
    assert not series.valid[1, :3].any()
    assert series.valid[1, 3:].all()
    np.testing.assert_array_equal(series.clouded, ~series.valid)


def test_renamed_layouts_are_read_too(root: Path) -> None:
    """The folders of the official training code, and those of the original archive."""
    (root / "sentinel-ts").rename(root / "sentinel")
    for path in (root / "sentinel").iterdir():
        path.rename(path.with_name(path.name.replace("_2020", "")))
    for path in (root / "split").iterdir():
        path.rename(root / path.name)
    (root / "aerial").rename(root / "60m")
    (root / "aerial").mkdir()
    (root / "60m").rename(root / "aerial" / "60m")
    assert set(open_dataset("treesatai-ts", root, split="val").example(0).sample.data) == {
        *("aerial", "s2", "s1-asc", "s1-des"),
    }


def test_without_the_aerial_folder_there_are_only_series(root: Path) -> None:
    shutil.rmtree(root / "aerial")
    examples = open_dataset("treesatai-ts", root, split="train")
    assert [channel.name for channel in examples.channels] == ["s2", "s1-asc", "s1-des"]
    with pytest.raises(SourceError, match="aerial is missing"):
        open_dataset("treesatai-ts", root, split="train", modalities=["aerial"])


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("split/val_filenames.lst", "val_filenames.lst"),
        ("labels/TreeSatBA_v9_60m_multi_labels.json", "TreeSatBA_v9_60m_multi_labels.json"),
        ("sentinel-ts/Acer_spec_2_2_NLF_2020.h5", "Acer_spec_2_2_NLF_<year>.h5"),
        ("aerial/Acer_spec_2_2_NLF.tif", "Acer_spec_2_2_NLF.tif"),
    ],
)
def test_a_missing_file_is_named(root: Path, gone: str, named: str) -> None:
    (root / gone).unlink()
    with pytest.raises(SourceError, match=named):
        open_dataset("treesatai-ts", root, split="val")


def test_damaged_files_are_typed_errors(root: Path) -> None:
    examples = open_dataset("treesatai-ts", root, split="train")
    h5, tif = root / "sentinel-ts" / f"{NAME}_2020.h5", root / "aerial" / f"{NAME}.tif"
    whole = h5.read_bytes()
    h5.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="no TreeSatAI time series"):
        examples.example(0)
    h5.write_bytes(whole)
    with h5py.File(h5, "r+") as file:
        del file["sen-2-data"]
        file["sen-2-data"] = np.zeros((3, 10, 5, 6), np.float32)
    with pytest.raises(SourceError, match="shape"):
        examples.example(0)
    with h5py.File(h5, "r+") as file:
        del file["sen-2-data"]
        file["sen-2-data"] = np.zeros((3, 10, 6, 6), np.int16)
    with pytest.raises(SourceError, match="int16"):
        examples.example(0)
    tif.write_bytes(tif.read_bytes()[:5000])
    with pytest.raises(SourceError, match="damaged"):
        examples.example(0)


def test_requests_that_do_not_fit_are_refused(published: Path) -> None:
    with pytest.raises(JobError, match="it has train, val, test"):
        open_dataset("treesatai-ts", published, split="validation")
    with pytest.raises(JobError, match="task is multilabel"):
        open_dataset("treesatai-ts", published, options=Options(task="segmentation"))
    with pytest.raises(JobError, match="no choice of folds"):
        open_dataset("treesatai-ts", published, folds=[1])


def test_the_real_tile_loads_as_one(shared: Path, published: Path, tmp_path: Path) -> None:
    """Beside each other as they are here, and in the published folders."""
    name = "Abies_alba_1_1005_WEFL_NLF"
    sample = shared / "real_sample"
    plain = open_dataset("treesatai-ts", sample).example(0)
    assert plain.tags is None
    lengths = {"s2": 146, "s1-asc": 60, "s1-des": 86}
    assert {
        key: len(part.dates) for key, part in plain.sample.data.items() if isinstance(part, Series)
    } == lengths
    for folder, file in (("aerial", f"{name}.tif"), ("sentinel-ts", f"{name}_2020.h5")):
        (tmp_path / folder).mkdir()
        shutil.copy(sample / f"{name}{Path(file).suffix}", tmp_path / folder / file)
    (tmp_path / "train_filenames.lst").write_text(f"{name}.tif\n")
    labels = {f"{name}.tif": [["Abies", 0.93]]}
    (tmp_path / "TreeSatBA_v9_60m_multi_labels.json").write_text(json.dumps(labels))
    examples = open_dataset("treesatai-ts", tmp_path, split="train")
    example = examples.example(0)
    assert example.tags is not None
    assert example.tags.tolist() == [1] + [0] * 14
    for key, part in example.sample.data.items():
        np.testing.assert_array_equal(part.pixels, plain.sample.data[key].pixels)
    # 20 m bands come in pairs of equal columns: so the fourth band is B05 and the seventh is B08.
    s2 = example.sample.data["s2"].pixels
    pairs = (s2[..., 0] == s2[..., 1]).mean(axis=(0, 2))
    assert pairs[S2_BANDS.index("B05")] > 0.9
    assert pairs[S2_BANDS.index("B08")] < 0.1
