"""SICKLE, in a few samples of the published layout."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.sources.values import Series

if TYPE_CHECKING:
    from pathlib import Path

TABLE = (
    "UNIQUE_ID,PLOT_ID,SPLIT,STANDARD_SEASON,YEAR,SOWING_DAY,HARVESTING_DAY",
    "4,17,train,jun-nov,2018,20,140",
    "9,17,train,jan-may,2019,20,140",
    "12,30,val,jun-nov,2018,20,140",
)
S2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
L8 = (*tuple(f"SR_B{k}" for k in range(1, 8)), "ST_B10")


def write_image(path: Path, bands: tuple[str, ...], side: int, base: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.arange(side, dtype=np.float32)
    planes = {band: base + 10 * k + ramp[:, None] + 0 * ramp for k, band in enumerate(bands)}
    np.savez(path, **planes)  # type: ignore[arg-type]


def write_mask(path: Path) -> None:
    layers = np.zeros((6, 32, 32), np.float32)
    layers[0, :8], layers[1, :8] = 17, 1  # paddy
    layers[0, 8:16], layers[1, 8:16] = 17, 5  # another crop
    layers[0, 16:24], layers[1, 16:24] = 30, 1  # a plot of another split
    path.parent.mkdir(parents=True, exist_ok=True)
    place = rasterio.Affine(10, 0, 0, 0, -10, 0)
    form = {"driver": "GTiff", "dtype": "float32", "crs": "EPSG:32644", "transform": place}
    with rasterio.open(path, "w", count=6, height=32, width=32, **form) as out:
        out.write(layers)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sickle_dataset_tabular.csv").write_text("\n".join(TABLE))
    for number in (4, 9, 12):
        write_mask(tmp_path / "masks" / "10m" / f"{number}.tif")
        for kind in ("S2", "S1", "L8"):
            (tmp_path / "images" / kind / "npy" / str(number)).mkdir(parents=True)
    images = tmp_path / "images"
    write_image(images / "S2/npy/4/20180705T050649_20180705T050650_T44PKV.npz", S2, 33, 1000)
    write_image(images / "S2/npy/4/T44PKV_20180620T050649.npz", S2, 32, 2000)
    write_image(images / "S2/npy/4/20190705T050649_20190705T050650_T44PKV.npz", S2, 32, 1)
    name = "S1A_IW_GRDH_1SDV_20180702T003112_20180702T003137_022604.npz"
    write_image(images / "S1/npy/4" / name, ("VV", "VH"), 32, -40)
    write_image(images / "L8/npy/4/LC08_142053_20180711.npz", L8, 11, 20000)
    write_image(images / "L8/npy/4/LC08_142053_20180727.npz", L8[1:], 11, 20000)
    return tmp_path


def test_a_sample_holds_the_season_at_ten_metres(root: Path) -> None:
    example = open_dataset("sickle", root, split="train").example(0)
    s2, s1, l8 = (example.sample.data[name] for name in ("s2", "s1", "l8"))
    assert isinstance(s2, Series)
    assert isinstance(l8, Series)
    assert s2.pixels.shape == (2, 10, 32, 32)
    assert [str(day) for day in s2.dates] == ["2018-06-20", "2018-07-05"]
    assert s2.pixels[0, 0, 0, 0] == 2010  # B2 is the second band
    assert s2.pixels[0, 7, 0, 0] == 2080  # B8A
    assert s2.pixels[1, 0, :, 0].tolist() == [1010 + k * 33 // 32 for k in range(32)]
    assert s1.pixels[0, :, 0, 0].tolist() == [-40, -30]
    assert l8.pixels.shape == (1, 7, 32, 32)  # the other image lacks a band
    np.testing.assert_allclose(l8.pixels[0, 0, 0, 0], (20000 * 2.75e-5 - 0.2) * 1e4, rtol=1e-6)


def test_plots_of_the_split_are_labelled(root: Path) -> None:
    example = open_dataset("sickle", root, split="train").example(0)
    assert example.classes is not None
    assert example.parcels is not None
    assert (example.classes[:8] == 0).all()
    assert (example.classes[8:16] == 1).all()
    assert (example.classes[16:] == 255).all()
    assert np.unique(example.parcels).tolist() == [0, 17]
    val = open_dataset("sickle", root, split="val").example(0)
    assert val.classes is not None
    assert not val.sample.data
    assert (val.classes[16:24] == 0).all()
    assert (val.classes[:16] == 255).all()


def test_seasons_of_a_plot_are_one_group(root: Path) -> None:
    examples = open_dataset("sickle", root, options=Options(patch_m=40, side=4))
    assert examples.groups.tolist() == [0] * 8 + [1] * 4
    again = pickle.loads(pickle.dumps(examples)).example(1)
    assert again.sample.data["s2"].pixels.shape == (2, 10, 16, 16)
    assert open_dataset("sickle", root, modalities=["s1"]).channels[0].bands == ("VV", "VH")
    with pytest.raises(JobError, match="no split dev"):
        open_dataset("sickle", root, split="dev")
    with pytest.raises(JobError, match="fewer than 64"):
        open_dataset("sickle", root, options=Options(side=64))


@pytest.mark.parametrize(
    ("planes", "said"),
    [
        ({band: np.zeros((2, 3, 4)) for band in ("VV", "VH")}, "2 × 3 × 4"),
        ({band: np.zeros((3, 4), "U3") for band in ("VV", "VH")}, "kind"),
        ({band: np.array([[{}]], object) for band in ("VV", "VH")}, "damaged"),
    ],
)
def test_images_that_do_not_fit_are_typed_errors(
    root: Path, planes: dict[str, np.ndarray], said: str
) -> None:
    (path,) = (root / "images/S1/npy/4").iterdir()
    np.savez(path, **planes)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=said):
        open_dataset("sickle", root, split="train").example(0)


def test_missing_and_short_files_are_typed_errors(root: Path) -> None:
    (path,) = (root / "images/S1/npy/4").iterdir()
    whole = path.read_bytes()
    examples = open_dataset("sickle", root, split="train")
    path.write_bytes(whole[:500])
    with pytest.raises(SourceError, match="damaged, cut short"):
        examples.example(0)
    path.rename(path.with_name("VV_VH.npz"))
    with pytest.raises(SourceError, match="not named like a product"):
        examples.example(0)
    (root / "masks/10m/9.tif").unlink()
    with pytest.raises(SourceError, match=r"9\.tif is missing.*ask for train or val"):
        open_dataset("sickle", root)
    (root / "sickle_dataset_tabular.csv").write_text("UNIQUE_ID,PLOT_ID\n1,2\n")
    with pytest.raises(SourceError, match="no column SPLIT, STANDARD_SEASON, YEAR"):
        open_dataset("sickle", root)
    (root / "sickle_dataset_tabular.csv").write_text("\n".join((TABLE[0], "a,b,c,d,e,f,g")))
    with pytest.raises(SourceError, match="no table of samples"):
        open_dataset("sickle", root)
    (root / "sickle_dataset_tabular.csv").unlink()
    with pytest.raises(SourceError, match=r"tabular\.csv is missing"):
        open_dataset("sickle", root)
