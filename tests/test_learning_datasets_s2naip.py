"""AI2-S2-NAIP, in a few tiles of the published layout."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image as Picture

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.datasets.s2naip import NaipExamples
from omnisat_cli.sources.values import Image, Series

TILE, OTHER, FAR = "32612_960_-6049", "32612_961_-6049", "32613_100_-6049"
FINE = ("B02", "B03", "B04", "B08")
COARSE = ("B05", "B06", "B07", "B11", "B12", "B8A")
S2 = ("20200605T180921", "20200412T180909")
HEADER = "projection,col,row,index,scene"


def write_tif(path: Path, pixels: np.ndarray, metres: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = rasterio.Affine(metres, 0, 614400, 0, -metres, -3870720)
    form = {"driver": "GTiff", "crs": "EPSG:32612", "transform": place, "compress": "lzw"}
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", **form, **size) as out:
        out.write(pixels)


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels).save(path)


def naip() -> np.ndarray:
    rows = np.arange(512, dtype=np.int64)
    plane = (rows[:, None] + 3 * rows) % 200 + 1
    return np.stack([plane, plane + 1, plane + 2, plane + 3], axis=-1).astype(np.uint8)


def stack(bands: tuple[str, ...], side: int) -> np.ndarray:
    """Image by image: 1000 a date, the band's number in tens, and the column."""
    numbers = [int(band[1:].replace("8A", "13")) for band in bands]
    planes = [1000 * date + 10 * number for date in (1, 2) for number in numbers]
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint16) // (side // 8), (side, side))
    return np.array(planes, np.uint16)[:, None, None] + ramp


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("naip")
    for tile in (TILE, OTHER, FAR):
        write_png(tmp_path / "naip" / f"{tile}.png", naip())
    write_tif(tmp_path / "sentinel2" / f"{TILE}_8.tif", stack(FINE, 64), 10)
    write_tif(tmp_path / "sentinel2" / f"{TILE}_16.tif", stack(COARSE, 32), 20)
    radar = np.full((2, 64, 64), -14.0, np.float32)
    radar[1] = -21.5
    write_tif(tmp_path / "sentinel1" / f"{TILE}.tif", radar, 10)
    cover = np.full((64, 64), 10, np.uint8)
    cover[:, 32:], cover[:8] = 50, 0
    write_png(tmp_path / "worldcover" / f"{TILE}.png", cover)
    lines = [
        f"32612,960,-6049,{k},S2A_MSIL1C_{day}_N0209_R084_T12SVJ_x" for k, day in enumerate(S2)
    ]
    other = "32610,1,-7000,0,S2A_MSIL1C_20190101T180921_N0209_R084_T12SVJ_x"
    (tmp_path / "sentinel2.csv").write_text("\n".join([HEADER, lines[1], other, lines[0]]) + "\n")
    scene = "S1A_IW_GRDH_1SDV_20200607T011223_20200607T011248_032900_03CF8A_1234"
    (tmp_path / "sentinel1.csv").write_text(f"{HEADER}\n32612,960,-6049,0,{scene}\n")
    return tmp_path


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(published, tmp_path / "naip")


def test_a_window_holds_every_sensor_of_its_place(root: Path) -> None:
    examples = open_dataset("s2-naip", root, options=Options(side=8))
    assert isinstance(examples, NaipExamples)
    assert len(examples) == 3 * 4
    example = examples.example(1)  # upper right quarter of the first tile
    aerial, s2, s1 = (example.sample.data[name] for name in ("naip", "s2", "s1"))
    assert isinstance(aerial, Image)
    assert isinstance(s2, Series)
    np.testing.assert_array_equal(aerial.pixels, naip().transpose(2, 0, 1)[:, :256, 256:])
    assert s2.pixels.shape == (2, 10, 32, 32)
    assert [str(day) for day in s2.dates] == ["2020-04-12", "2020-06-05"]
    numbers = [2, 3, 4, 5, 6, 7, 8, 13, 11, 12]  # B8A is written as 13
    assert s2.pixels[1, :, 0, 0].tolist() == [1000 + 10 * number + 4 for number in numbers]
    assert s2.pixels[0, :, 31, 31].tolist() == [2000 + 10 * number + 7 for number in numbers]
    assert s1.pixels[0, :, 0, 0].tolist() == [-14, -21.5]
    assert {channel.name: channel.units for channel in examples.channels}["s1"] == "db"
    assert example.classes is not None
    assert (example.classes[:8] == 255).all()
    assert (example.classes[8:] == 50).all()


def test_tiles_without_a_sensor_or_labels_lack_them(root: Path) -> None:
    example = open_dataset("s2-naip", root).example(1)
    assert list(example.sample.data) == ["naip"]
    assert example.classes is None


def test_blocks_are_groups_and_lists_are_parts(root: Path) -> None:
    examples = open_dataset("s2-naip", root)
    assert examples.groups.tolist() == [0, 0, 1]
    (root / "train.csv").write_text(f"name,x\n{OTHER},1\n{TILE},2\n")
    train = open_dataset("s2-naip", root, split="train")
    assert len(train) == 2
    again = pickle.loads(pickle.dumps(train)).example(0)
    np.testing.assert_array_equal(
        again.sample.data["s2"].pixels, train.example(0).sample.data["s2"].pixels
    )
    assert len(open_dataset("s2-naip", root, folds=["32613"])) == 1
    with pytest.raises(JobError, match="no zone 32614 there; it has 32612, 32613"):
        open_dataset("s2-naip", root, folds=["32614"])
    with pytest.raises(SourceError, match=r"val\.csv is missing; expected a list of tiles"):
        open_dataset("s2-naip", root, split="val")
    with pytest.raises(JobError, match="no split dev"):
        open_dataset("s2-naip", root, split="dev")


def test_radar_without_values_below_zero_is_power(root: Path) -> None:
    write_tif(root / "sentinel1" / f"{TILE}.tif", np.full((2, 64, 64), 0.1, np.float32), 10)
    assert open_dataset("s2-naip", root, modalities=["s1"]).channels[0].units == "linear"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


def no_picture(path: Path) -> None:
    path.write_text("a picture")


def grey(path: Path) -> None:
    write_png(path, np.zeros((512, 512), np.uint8))


def strange_code(path: Path) -> None:
    write_png(path, np.full((64, 64), 11, np.uint8))


def one_date(path: Path) -> None:
    write_tif(path, stack(FINE, 64)[:4], 10)


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        (f"naip/{TILE}.png", cut_short, "damaged, cut short"),
        (f"naip/{TILE}.png", no_picture, "no PNG"),
        (f"naip/{TILE}.png", grey, "512 px of L, expected 512 × 512 px of RGBA"),
        (f"naip/{TILE}.png", Path.unlink, "missing"),
        (f"worldcover/{TILE}.png", strange_code, "holds 11"),
        (f"sentinel2/{TILE}_8.tif", one_date, r"4 band\(s\).*expected 8"),
        (f"sentinel2/{TILE}_16.tif", Path.unlink, "16.tif"),
        (f"sentinel2/{TILE}_16.tif", cut_short, "damaged"),
    ],
)
def test_damaged_files_are_typed_errors(root: Path, file: str, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    examples = open_dataset("s2-naip", root)
    spoil(root / file)
    with pytest.raises(SourceError, match=said):
        examples.example(0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("projection,col\n1,2\n", "no table of projection"),
        (f"{HEADER}\n32612,960,-6049,zero,S2A_MSIL1C_20200605T18\n", "no table of projection"),
        (f"{HEADER}\n32612,960,-6049,0,S2A_MSIL1C\n", "no date"),
        (f"{HEADER}\n32612,,-6049,0,S2A_MSIL1C_20200605T18\n", "line without projection"),
        (f"{HEADER}\n32612,960,-6049,1,S2A_MSIL1C_20200605T18\n", "does not number the images"),
    ],
)
def test_tables_that_do_not_fit_are_typed_errors(root: Path, text: str, said: str) -> None:
    (root / "sentinel2.csv").write_text(text)
    with pytest.raises(SourceError, match=said):
        open_dataset("s2-naip", root)


def test_missing_parts_of_the_layout_are_named(root: Path) -> None:
    (root / "sentinel2.csv").unlink()
    assert [channel.name for channel in open_dataset("s2-naip", root).channels] == ["naip", "s1"]
    with pytest.raises(SourceError, match=r"sentinel2\.csv is missing; expected AI2-S2-NAIP"):
        open_dataset("s2-naip", root, modalities=["s2"])
    (root / "naip" / "copy.png").touch()
    with pytest.raises(SourceError, match="'copy' is not named like a tile"):
        open_dataset("s2-naip", root)
    with pytest.raises(SourceError, match="naip is missing; expected AI2-S2-NAIP"):
        open_dataset("s2-naip", root / "worldcover")
