"""Cubes that other tools wrote, from public repositories: read as their READMEs describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.sources.cubes import CubeOptions, CubeSource, describe_cube, open_cube
from omnisat_cli.sources.treesatai import convert_treesatai

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.sources.values import Series

UTM31 = Lattice("EPSG:32631", 10.0)


def everything(source: CubeSource, lattice: Lattice) -> Series:
    return source.read(lattice.window(source.footprints[0]))


def words(source: CubeSource, topic: str) -> str:
    return "; ".join(f"{d.value}: {d.because}" for d in source.decisions if d.topic == topic)


@pytest.fixture
def belgium(shared: Path) -> Path:
    folder = shared / "real_data" / "worldcereal_belgium_s1s2_12m"
    return folder / "worldcereal_preprocessed_inputs.nc"


def test_worldcereal_optical_months_without_data_are_holes(belgium: Path) -> None:
    facts = describe_cube(belgium)
    assert facts.crs == "EPSG:32631"
    assert facts.shape == (12, 100, 100)
    assert set(facts.sensors) == {"s2", "s1"}
    assert "slope" in facts.other_layers
    source = open_cube("s2", belgium, UTM31, CubeOptions(substitutes={"B8A": "B08"}))
    series = everything(source, UTM31)
    assert series.pixels.shape == (12, 10, 100, 100)
    assert series.valid.mean(axis=(1, 2)).tolist() == [1, 0, 0, *[1] * 9]
    np.testing.assert_array_equal(series.pixels[:, 6], series.pixels[:, 7])
    assert words(source, "offset").startswith("already removed: blue median on 2021-")
    assert "65535" in words(source, "nodata")
    assert words(source, "resampling").startswith("none")


def test_worldcereal_radar_is_decibels(belgium: Path) -> None:
    source = open_cube("s1", belgium, UTM31)
    series = everything(source, UTM31)
    assert series.valid.all()
    medians = np.median(series.pixels, axis=(0, 2, 3))
    np.testing.assert_allclose(medians, [-9.9, -16.6], atol=0.1)
    with pytest.raises(SourceError, match="does not tell the orbit"):
        open_cube("s1-des", belgium, UTM31)


def test_worldcereal_maps_are_no_cubes(belgium: Path) -> None:
    path = belgium.with_name("worldcereal_cropland_classification.nc")
    facts = describe_cube(path)
    assert facts.crs == ""
    assert len(facts.problems) == 3
    with pytest.raises(SourceError):
        open_cube("s2", path, UTM31)


def test_openeo_acquisitions_keep_the_two_clear_dates(shared: Path) -> None:
    folder = shared / "real_data" / "gfmap_mol_s1s2_april2023"
    optical = open_cube("s2", folder / "cdse_sentinel2_l2a.nc", UTM31)
    series = everything(optical, UTM31)
    clear = series.valid.mean(axis=(1, 2)) > 0.5
    assert series.dates[clear].astype(str).tolist() == ["2023-04-05", "2023-04-15"]
    assert not (series.valid & series.clouded).any()
    assert optical.bands == ("B04", "B08", "B11")
    radar = open_cube("s1", folder / "cdse_sentinel1_grd.nc", UTM31)
    backscatter = everything(radar, UTM31)
    assert len(backscatter.dates) == 10
    assert 0.99 < backscatter.valid.mean() < 1
    assert "saturated" in words(radar, "scale")
    assert backscatter.pixels[:, 0][backscatter.valid].max() < 14


@pytest.mark.parametrize(("number", "outside"), [(0, 0.64), (5, 0.23)])
def test_laea_fields_are_warped_and_their_outside_is_empty(
    number: int, outside: float, shared: Path
) -> None:
    path = shared / "real_data" / "gfmap_puglia_laea_polygons" / f"openEO_{number}.nc"
    facts = describe_cube(path)
    assert facts.crs == "EPSG:3035"
    assert len(facts.days) == 19
    for lattice in (Lattice("EPSG:3035", 10.0), Lattice("EPSG:32633", 10.0)):
        source = open_cube("s2", path, lattice)
        series = everything(source, lattice)
        kept = series.valid[0].sum() / (facts.shape[1] * facts.shape[2])
        assert kept == pytest.approx(1 - outside, abs=0.02)
        assert (series.valid == series.valid[0]).mean() > 0.99
        assert series.pixels.max() < 15_000
        assert "bilinear" in words(source, "resampling")


def test_a_cube_masked_with_nan_keeps_its_own_holes(shared: Path) -> None:
    path = shared / "real_data" / "fusets_spain_field_2019" / "raw_s2_ndvi_field.nc"
    lattice = Lattice("EPSG:32630", 10.0)
    source = open_cube("s2", path, lattice)
    series = everything(source, lattice)
    assert source.bands == ("B04", "B08")
    assert len(series.dates) == 33
    assert 1 - series.valid.mean(axis=(1, 2)).max() == pytest.approx(0.27, abs=0.02)
    assert (series.valid.mean(axis=(1, 2)) < 0.1).sum() == 2
    assert np.isfinite(series.pixels).all()
    with pytest.raises(AlignmentError):
        open_cube("s2", path, lattice, CubeOptions(crs="EPSG:0"))


def test_a_treesatai_tile_is_placed_under_its_aerial(shared: Path, tmp_path: Path) -> None:
    tile = shared / "real_sample" / "Abies_alba_1_1005_WEFL_NLF"
    with pytest.raises(SourceError, match="plain HDF5"):
        describe_cube(tile.with_suffix(".h5"))
    paths = convert_treesatai(tile.with_suffix(".h5"), tile.with_suffix(".tif"), tmp_path)
    assert [path.name for path in paths] == ["s2.nc", "s1_asc.nc", "s1_des.nc", "s1.nc"]
    lattice = Lattice("EPSG:25832", 10.0)
    source = open_cube("s2", paths[0], lattice)
    assert source.footprints == ((565_643.0, 5_770_920.0, 565_703.0, 5_770_980.0),)
    series = everything(source, lattice)
    assert series.pixels.shape == (146, 10, 6, 7)
    best = series.valid.reshape(146, -1).sum(axis=1)
    assert best.max() == 36
    assert 60 <= (best == 36).sum() <= 80
    assert "3.00 and 0.00 beside multiples of 10" in words(source, "resampling")
    first = CubeOptions(duplicate_dates="first")
    ascending = everything(open_cube("s1-asc", paths[1], lattice), lattice)
    assert len(ascending.dates) == 60
    both = everything(open_cube("s1-asc", paths[3], lattice, first), lattice)
    np.testing.assert_array_equal(both.pixels, ascending.pixels)
    with pytest.raises(SourceError, match="25 days have more than one image"):
        open_cube("s1-des", paths[2], lattice)
    descending = open_cube("s1-des", paths[2], lattice, first)
    assert len(descending.dates) == 61
    window = Window(0, 0, 2, 2)
    assert not descending.read(window).valid.any()
