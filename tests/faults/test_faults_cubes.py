"""Damaged, hostile and incomplete cubes: refused at once, or the damage stays a stated hole."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import cube_files as files
import h5py
import numpy as np
import pytest

from omnisat_cli.errors import Exit, OmnisatError, SecurityError, SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.sources.cubes import CubeOptions, CubeSource, describe_cube, open_cube

if TYPE_CHECKING:
    from pathlib import Path

CHUNKED = {"chunksizes": (1, 64, 64), "zlib": True, "complevel": 4, "fletcher32": True}


@pytest.fixture
def scene() -> files.Scene:
    return files.make_scene(dates=3, size=(64, 64), bands=("B02", "B04", "B08"))


@pytest.fixture
def netcdf(scene: files.Scene, tmp_path: Path) -> Path:
    encoding = dict.fromkeys((*scene.bands, "SCL"), CHUNKED)
    return files.save(files.plain(scene), tmp_path / "cube.nc", encoding)


def corrupt_chunk(path: Path, variable: str, step: int) -> None:
    """Flip bytes in the middle of one compressed chunk."""
    with h5py.File(path) as file:
        chunk = file[variable].id.get_chunk_info(step)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset + chunk.size // 2)
        old = stream.read(16)
        stream.seek(chunk.byte_offset + chunk.size // 2)
        stream.write(bytes(255 - byte for byte in old))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_netcdf_is_refused_on_opening(share: float, netcdf: Path) -> None:
    data = netcdf.read_bytes()
    netcdf.write_bytes(data[: int(len(data) * share)])
    for attempt in (
        lambda: describe_cube(netcdf),
        lambda: open_cube("s2", netcdf, files.LATTICE),
    ):
        with pytest.raises(SourceError) as caught:
            attempt()
        assert caught.value.exit_code == Exit.REFUSED
        assert str(netcdf) in str(caught.value)


def test_a_truncated_classic_netcdf_is_refused(scene: files.Scene, tmp_path: Path) -> None:
    path = files.save_classic(files.plain(scene), tmp_path / "cube.nc")
    data = path.read_bytes()
    for share in (0.01, 0.5, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SourceError):
            open_cube("s2", path, files.LATTICE)


def test_a_corrupt_chunk_fails_with_file_variable_and_place(
    scene: files.Scene, netcdf: Path
) -> None:
    source = open_cube("s2", netcdf, files.LATTICE)
    corrupt_chunk(netcdf, "B04", 1)
    with pytest.raises(SourceError, match=r"cube.nc: B04 cannot be read at .*--on-error hole"):
        source.read(scene.window)
    with pytest.raises(SourceError, match="B04"):
        open_cube("s2", netcdf, files.LATTICE)


def test_a_corrupt_chunk_becomes_one_missing_date_when_asked(
    scene: files.Scene, netcdf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrupt_chunk(netcdf, "B04", 1)
    with caplog.at_level(logging.WARNING):
        source = open_cube("s2", netcdf, files.LATTICE, CubeOptions(on_error="hole"))
        series = source.read(scene.window)
    assert any(f"{scene.days[1]} left out" in message for message in caplog.messages)
    assert [bool(day.any()) for day in series.valid] == [True, False, True]
    assert not series.clouded.any()
    np.testing.assert_array_equal(series.pixels[[0, 2]], scene.pixels[[0, 2]])
    assert (series.pixels[1] == 0).all()


@pytest.mark.parametrize("version", [2, 3])
def test_a_missing_zarr_chunk_is_counted_on_opening(
    version: int, scene: files.Scene, tmp_path: Path
) -> None:
    path = files.save_zarr(files.plain(scene), tmp_path / "cube.zarr", version, (1, 32, 32))
    chunks = ["1.0.1", "2.1.1"] if version == 2 else ["c/1/0/1", "c/2/1/1"]
    for chunk in chunks:
        (path / "B04" / chunk).unlink()
    with pytest.raises(SourceError, match="2 of 12 chunks of B04 are not there"):
        open_cube("s2", path, files.LATTICE)


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_left_out_as_nodata_are_stated(
    version: int, scene: files.Scene, tmp_path: Path
) -> None:
    pixels = scene.pixels.astype(np.float32)
    pixels[1, :, :32, :32] = np.nan
    dataset = files.plain(replace(scene, pixels=pixels))
    path = tmp_path / "cube.zarr"
    keys = (*scene.bands, "SCL")
    encoding = {name: {"chunks": (1, 32, 32)} for name in keys}
    for band in scene.bands:
        encoding[band] |= {"_FillValue": np.float32(np.nan)}
        encoding[band] |= (
            {"write_empty_chunks": False, "fill_value": np.nan} if version == 3 else {}
        )
    dataset.to_zarr(path, zarr_format=version, consolidated=version == 2, encoding=encoding)
    for band in scene.bands:
        chunk = path / band / ("1.0.0" if version == 2 else "c/1/0/0")
        chunk.unlink(missing_ok=True)
    source = open_cube("s2", path, files.LATTICE)
    gaps = [d for d in source.decisions if "chunks of B04 are not there" in d.value]
    assert gaps
    assert gaps[0].warning
    series = source.read(scene.window)
    assert not series.valid[1, :32, :32].any()
    assert series.valid.sum() == 3 * 64 * 64 - 32 * 32


def test_a_damaged_zarr_chunk_is_refused(scene: files.Scene, tmp_path: Path) -> None:
    path = files.save_zarr(files.plain(scene), tmp_path / "cube.zarr", 3, (1, 32, 32))
    source = open_cube("s2", path, files.LATTICE)
    chunk = path / "B04" / "c" / "1" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(SourceError, match="B04 cannot be read"):
        source.read(scene.window)


def test_a_codec_that_runs_code_is_refused(scene: files.Scene, tmp_path: Path) -> None:
    path = files.save_zarr(files.plain(scene), tmp_path / "cube.zarr", 2, (3, 64, 64))
    meta = json.loads((path / "B04" / ".zarray").read_text())
    meta["filters"] = [{"id": "pickle", "protocol": 5}]
    (path / "B04" / ".zarray").write_text(json.dumps(meta))
    with pytest.raises(SecurityError, match="'pickle'"):
        open_cube("s2", path, files.LATTICE)


def test_metadata_that_links_out_of_the_folder_is_refused(
    scene: files.Scene, tmp_path: Path
) -> None:
    path = files.save_zarr(files.plain(scene), tmp_path / "cube.zarr", 3, (3, 64, 64))
    outside = tmp_path / "elsewhere.json"
    shutil.move(path / "B04" / "zarr.json", outside)
    (path / "B04" / "zarr.json").symlink_to(outside)
    with pytest.raises(SecurityError, match="links out"):
        open_cube("s2", path, files.LATTICE)


@pytest.mark.parametrize("trick", ["link", "raw", "virtual"])
def test_hdf5_that_takes_pixels_from_other_files_is_refused(trick: str, tmp_path: Path) -> None:
    path = tmp_path / "cube.nc"
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)))
    with h5py.File(path, "w") as file:
        if trick == "link":
            file["B02"] = h5py.ExternalLink(str(secret), "/B02")
        elif trick == "raw":
            file.create_dataset("B02", (16, 16), "u1", external=[(str(secret), 0, 256)])
        else:
            layout = h5py.VirtualLayout((4, 4), "u1")
            layout[:] = h5py.VirtualSource(str(secret), "B02", (4, 4))
            file.create_virtual_dataset("B02", layout)
    with pytest.raises(SecurityError) as caught:
        open_cube("s2", path, files.LATTICE)
    assert caught.value.exit_code == Exit.SECURITY


def test_a_cube_of_absurd_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nc"
    with h5py.File(path, "w") as file:
        file.create_dataset("B02", (10**9, 10, 10), "u2", chunks=(1, 10, 10))
        for name, size in (("time", 10**9), ("y", 10), ("x", 10)):
            axis = file.create_dataset(name, (size,), "f4", chunks=(10,))
            axis.make_scale(name)
        for k, name in enumerate(("time", "y", "x")):
            file["B02"].dims[k].attach_scale(file[name])
    with pytest.raises(SecurityError, match="claims a side of 1000000000"):
        open_cube("s2", path, files.LATTICE)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "it is empty"),
        (b"CDF\x05" + bytes(60), "CDF-5"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"II*\0" + bytes(60), "TIFF image"),
        (b"<VRTDataset/>", "starts with"),
    ],
)
def test_what_is_no_cube_is_named(head: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "cube.nc"
    path.write_bytes(head)
    with pytest.raises(SourceError, match=words):
        describe_cube(path)


def test_folders_and_absent_files_are_no_cubes(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.nc"):
        with pytest.raises(SourceError):
            describe_cube(path)


def test_random_damage_ends_in_a_typed_error_or_a_series(
    scene: files.Scene, netcdf: Path, tmp_path: Path
) -> None:
    data = netcdf.read_bytes()
    rng = np.random.default_rng(5)
    broken = tmp_path / "broken.nc"
    for _ in range(25):
        bytes_ = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            bytes_[place] ^= int(rng.integers(1, 256))
        broken.unlink(missing_ok=True)
        broken.write_bytes(bytes_)
        try:
            source = open_cube("s2", broken, files.LATTICE)
            series = source.read(scene.window)
        except OmnisatError:
            continue
        assert np.isfinite(series.pixels).all()


def test_threads_may_share_a_source(scene: files.Scene, netcdf: Path) -> None:
    source = open_cube("s2", netcdf, files.LATTICE)
    rng = np.random.default_rng(0)

    def read(corner: tuple[int, int]) -> bool:
        row, col = corner
        window = Window(scene.window.row + row, scene.window.col + col, 16, 16)
        wanted = scene.pixels[:, :, row : row + 16, col : col + 16]
        return bool(np.array_equal(source.read(window).pixels, wanted))

    corners = [tuple(map(int, pair)) for pair in rng.integers(0, 48, (24, 2))]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, corners))


def _mean_of(source: CubeSource, window: Window) -> float:
    return float(source.read(window).pixels.mean())


def test_a_source_travels_to_spawned_processes(scene: files.Scene, netcdf: Path) -> None:
    source = open_cube("s2", netcdf, files.LATTICE)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        mean = pool.apply(_mean_of, (source, scene.window))
    assert mean == _mean_of(source, scene.window)
