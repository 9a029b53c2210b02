from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from omnisat_cli.errors import Exit, SecurityError, SourceError
from omnisat_cli.sources.identity import identify, identify_all
from omnisat_cli.sources.safe import RasterLimits, open_raster, prepare_environment

RAW_VRT = """<VRTDataset rasterXSize="64" rasterYSize="64">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativeToVRT="0">{secret}</SourceFilename><ImageOffset>0</ImageOffset>
<PixelOffset>1</PixelOffset><LineOffset>1</LineOffset></VRTRasterBand></VRTDataset>"""


def write_tif(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    settings = {
        "driver": "GTiff",
        "crs": "EPSG:2154",
        "transform": Affine(0.5, 0, 700000, 0, -0.5, 6600000),
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype.name,
        **profile,
    }
    with rasterio.open(path, "w", **settings) as dataset:
        dataset.write(pixels)
    return path


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    pixels = np.arange(3 * 64 * 64, dtype=np.uint8).reshape(3, 64, 64)
    return write_tif(tmp_path / "a.tif", pixels)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    place = tmp_path / "secret.bin"
    place.write_bytes(b"S" * 64 * 64)
    return place


def test_a_vrt_named_as_an_image_is_refused(tmp_path: Path, secret: Path) -> None:
    disguised = tmp_path / "orthophoto.tif"
    disguised.write_text(RAW_VRT.format(secret=secret))
    with pytest.raises(SecurityError, match="VRT") as caught:
        open_raster(disguised)
    assert caught.value.exit_code == Exit.SECURITY == 7


@pytest.mark.parametrize("neighbour", ["a.tif.msk", "a.tif.ovr"])
def test_neighbours_of_an_image_are_never_followed(tif: Path, secret: Path, neighbour: str) -> None:
    tif.with_name(neighbour).write_text(RAW_VRT.format(secret=secret))
    with open_raster(tif) as dataset:
        assert dataset.files == [str(tif)]
        assert dataset.overviews(1) == []
        assert dataset.read_masks(1).all()
        assert not (dataset.read(1, out_shape=(16, 16)) == ord("S")).all()


def test_metadata_that_names_an_overview_elsewhere_is_refused(
    tif: Path, tmp_path: Path, secret: Path
) -> None:
    other = tmp_path / "other.bin"
    other.write_text(RAW_VRT.format(secret=secret))
    with rasterio.open(tif, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(other))
    with pytest.raises(SecurityError, match="overview"):
        open_raster(tif)


@pytest.mark.parametrize(
    "path",
    [
        "https://example.com/a.tif",
        "s3://bucket/a.tif",
        "/vsicurl/https://example.com/a.tif",
        "/vsizip/a.zip/a.tif",
        "zip+https://example.com/a.zip!a.tif",
        "GTIFF_DIR:1:a.tif",
        Path("https://example.com/a.tif"),
        "  /vsimem/a.tif",
    ],
)
def test_remote_and_virtual_paths_are_refused(path: str | Path) -> None:
    with pytest.raises(SecurityError) as caught:
        open_raster(path)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"\x89PNG\r\n\x1a\n", "neither TIFF"), (b"II*\0\x08\0\0\0", "damaged")],
)
def test_files_that_are_no_image_say_so(tmp_path: Path, content: bytes, said: str) -> None:
    place = tmp_path / "x.tif"
    place.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        open_raster(place)


def test_missing_files_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.tif"
    os.mkfifo(pipe)
    for place in (tmp_path / "none.tif", tmp_path, pipe, "a\0b.tif"):
        with pytest.raises(SourceError):
            open_raster(place)


@pytest.mark.parametrize("name", ["é ü.tif", "a#b?c=d.tif", "[x]*.tif", "a!b.tif", "s p.tif"])
def test_odd_names_open(tmp_path: Path, tif: Path, name: str) -> None:
    place = tmp_path / name
    place.write_bytes(tif.read_bytes())
    with open_raster(place) as dataset:
        assert dataset.count == 3


def test_a_sparse_bomb_is_refused_with_its_numbers(tmp_path: Path) -> None:
    place = tmp_path / "bomb.tif"
    size = 200_000
    settings = {
        "driver": "GTiff",
        "height": size,
        "width": size,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:2154",
        "transform": Affine(0.5, 0, 700000, 0, -0.5, 6600000),
    }
    tiles = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True}
    with rasterio.open(place, "w", **settings, **tiles):
        pass
    with pytest.raises(SecurityError, match="limit is 5000"):
        open_raster(place)
    with open_raster(place, RasterLimits(max_expansion=10**9)) as dataset:
        assert dataset.width == size


def test_every_limit_is_checked(tif: Path) -> None:
    for limits in (
        RasterLimits(max_pixels=100),
        RasterLimits(max_bands=2),
        RasterLimits(max_block_bytes=64),
    ):
        with pytest.raises(SecurityError, match="limit"):
            open_raster(tif, limits)


def test_foreign_proj_variables_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJ_LIB", "/opt/conda/share/proj")
    assert prepare_environment() == ("PROJ_LIB",)
    assert "PROJ_LIB" not in os.environ
    assert prepare_environment() == ()


def test_network_drivers_are_gone_and_nothing_is_printed() -> None:
    code = (
        "import omnisat_cli.sources.safe, rasterio\n"
        "with rasterio.Env() as env:\n"
        "    left = {'WMS', 'WCS', 'HTTP', 'STACIT', 'GTI'} & set(env.drivers())\n"
        "assert not left, left\n"
        "from rasterio._env import get_gdal_config\n"
        "assert int(get_gdal_config('GDAL_CACHEMAX')) == 64 * 2**20\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_identity_is_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    assert identify(one).sha256 == identify(two).sha256
    assert not identify(one).sampled
    two.write_bytes(b"diff")
    assert identify(one).sha256 != identify(two).sha256
    assert [i.path for i in identify_all([str(one), str(two)])] == [str(one), str(two)]


def test_large_files_are_sampled_and_say_so(tmp_path: Path) -> None:
    place = tmp_path / "large"
    content = bytearray(3 * 2**20)
    place.write_bytes(content)
    whole = identify(place, whole_up_to=2**20)
    assert whole.sampled
    for position in (0, len(content) - 1):
        content[position] = 1
        place.write_bytes(content)
        assert identify(place, whole_up_to=2**20).sha256 != whole.sha256
        content[position] = 0


def test_a_folder_is_identified_by_names_sizes_and_metadata(tmp_path: Path) -> None:
    store = tmp_path / "cube.zarr"
    (store / "c").mkdir(parents=True)
    (store / "zarr.json").write_text("{}")
    (store / "c" / "0").write_bytes(b"abc")
    first = identify(store)
    assert first.sampled
    assert first.size == 5
    (store / "zarr.json").write_text("[]")
    changed = identify(store)
    (store / "c" / "1").write_bytes(b"")
    assert len({first.sha256, changed.sha256, identify(store).sha256}) == 3
