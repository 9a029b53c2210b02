from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from cli_runs import LEFT, TOP, omnisat, write_aerial, write_s1, write_s2

from omnisat_cli.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


def test_images_and_cubes_are_described_with_the_evidence(tmp_path: Path) -> None:
    files = (
        write_aerial(tmp_path / "a.tif"),
        write_s2(tmp_path / "s2.nc"),
        write_s1(tmp_path / "s1"),
    )
    done = omnisat("inspect", *files)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    image, optical, radar = (next(x for x in lines if x.startswith(f"{f} ")) for f in files)
    for part in ("GeoTIFF", "EPSG:2154", "192×192", "1.25 m", "bands R,G,B,NIR"):
        assert part in image
    for part in ("netCDF-4", "24×24", "10 m", "s2 B02", "6 dates 2023-04-01 … 2023-08-04"):
        assert part in optical
    assert "s1 VV,VH" in radar
    assert "already removed" in done.out
    assert "decibels" in done.out
    assert "because " in done.out
    ways = [line.split(maxsplit=3)[3] for line in lines if line.startswith("  give it as ")]
    assert ways == ["--aerial or --spot or --naip", "--s2", "--s1"]
    assert "resampling" not in done.out


def test_rasters_that_are_no_imagery_are_described_too(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    profile = {"driver": "GTiff", "width": 8, "height": 4, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:2154", "transform": rasterio.Affine(1, 0, LEFT, 0, -1, TOP)}
    with rasterio.open(path, "w", **profile, **place, nodata=255) as file:
        file.write(np.zeros((1, 4, 8), np.uint8))
        file.write_colormap(1, {0: (9, 9, 9, 255)})
    done = omnisat("inspect", path)
    assert done.code == 0
    assert "8×4" in done.out
    assert "1 band uint8, nodata 255" in done.out
    assert "a map, not imagery" in done.out


def test_a_file_without_place_is_described_with_the_flag_that_helps(tmp_path: Path) -> None:
    done = omnisat("inspect", write_aerial(tmp_path / "a.tif", crs=None))
    assert done.code == 0
    assert "no CRS" in done.out
    assert "--aerial-crs EPSG:n" in done.out


def test_a_path_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    good = write_aerial(tmp_path / "a.tif")
    bad = tmp_path / "b.tif"
    bad.write_bytes(b"II*\0garbage")
    done = omnisat("inspect", bad, good)
    assert done.code == Exit.REFUSED
    assert str(good) in done.out
    assert str(bad) in done.err
    plain = json.loads(omnisat("inspect", bad, good, "--json").out)
    assert [entry["path"] for entry in plain["files"]] == [str(good)]
    assert plain["files"][0]["usable_as"] == ["--aerial", "--spot", "--naip"]
    assert plain["errors"][0]["path"] == str(bad)


@pytest.mark.parametrize(
    "name",
    [
        "worldcereal_belgium_s1s2_12m/worldcereal_preprocessed_inputs.nc",
        "gfmap_mol_s1s2_april2023/cdse_sentinel2_l2a.nc",
        "ign_rgb_irc_montpellier/test_data_rgb.tif",
        "naip_06m_nir_as_alpha/m_3211605_ne_11_060_20200415.tif",
        "worldcover_2021_n00e006/ESA_WorldCover_10m_2021_v200_N00E006_Map.tif",
    ],
)
def test_real_files_are_described(shared: Path, name: str) -> None:
    path = shared / "real_data" / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    done = omnisat("inspect", path)
    assert (done.code, done.err) == (0, "")
    assert "EPSG:" in done.out.splitlines()[0]
