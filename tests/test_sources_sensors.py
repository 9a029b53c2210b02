"""The sensors beside aerial, SPOT and Sentinel: how their numbers are recognised and delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cube_files as files
import numpy as np
import pytest
import rasterio
import torch
import xarray as xr

from omnisat_cli.engine.encode import normalise
from omnisat_cli.engine.recipe import Feed
from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.job import Input, Job
from omnisat_cli.modality import L8_BANDS, MODALITIES, MODIS_BANDS, modality
from omnisat_cli.packs.card import ModalityCard
from omnisat_cli.sources.clouds import CloudRule
from omnisat_cli.sources.cubes import CubeOptions, describe_cube, open_cube
from omnisat_cli.sources.opening import Wanted, open_input

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.sources.cubes import CubeSource

LEFT, TOP = 499_500.0, 5_599_500.0  # on the lattices of 10, 30 and 250 m
REFLECTANCE = (0.03, 0.05, 0.04, 0.3, 0.2, 0.12, 0.06)
LANDSAT_8 = tuple(f"SR_B{k}" for k in range(1, 8))


def cube(
    folder: Path,
    values: NDArray[np.generic],
    names: tuple[str, ...],
    pixel: float = 30.0,
    **attrs: object,
) -> Path:
    """Save (T, C, H, W) values as one variable a band."""
    dates, _, height, width = values.shape
    y = TOP - (np.arange(height) + 0.5) * pixel
    x = LEFT + (np.arange(width) + 0.5) * pixel
    link = {"grid_mapping": "spatial_ref", **attrs}
    layers = {n: (("time", "y", "x"), values[:, k], link) for k, n in enumerate(names)}
    days = np.datetime64("2023-05-02", "ns") + np.arange(dates) * np.timedelta64(16, "D")
    mapping = ((), np.int32(0), {"crs_wkt": files.WKT})
    dataset = xr.Dataset(layers, coords={"time": days, "y": y, "x": x, "spatial_ref": mapping})
    return files.save(dataset, folder / f"cube{len(list(folder.iterdir()))}.nc")


def land(names: int = 7, size: tuple[int, int] = (6, 5), seed: int = 0) -> NDArray[np.float64]:
    """Reflectance 0-1 of farmland, (3, C, H, W)."""
    rng = np.random.default_rng(seed)
    base = np.array(REFLECTANCE[:names])[None, :, None, None]
    return np.asarray(base * rng.uniform(0.8, 1.2, (3, names, *size)))


def scale_of(source: CubeSource) -> tuple[str, bool]:
    decision = next(d for d in source.decisions if d.topic == "scale")
    return decision.value, decision.warning


def window(pixel: float, size: tuple[int, int]) -> Window:
    return Window(-round(TOP / pixel), round(LEFT / pixel), *size)


LATTICE_30 = Lattice(f"EPSG:{files.EPSG}", 30.0)


PLAIN = tuple(f"B{k}" for k in range(1, 8))


@pytest.mark.parametrize(
    ("names", "attrs"), [(LANDSAT_8, {}), (PLAIN, {"processing_level": "L2SP"})]
)
def test_landsat_collection_2_becomes_reflectance(
    names: tuple[str, ...], attrs: dict[str, object], tmp_path: Path
) -> None:
    truth = land()
    stored = np.round((truth + 0.2) / 2.75e-5).astype(np.uint16)
    stored[0, 3, 0, 0] = 0  # fill in one band alone
    source = open_cube("l8", cube(tmp_path, stored, names, **attrs), LATTICE_30)
    read = source.read(window(30, (6, 5)))
    np.testing.assert_allclose(read.pixels[1:], 1e4 * truth[1:], atol=0.3)
    assert not read.valid[0, 0, 0]
    assert read.valid[:, 1:].all()
    assert scale_of(source) == ("Landsat Collection 2 Level 2: DN × 2.75e-05 - 0.2", False)


def test_landsat_that_is_decoded_by_its_attributes_or_scaled_is_recognised(tmp_path: Path) -> None:
    truth = land(6)
    names = ("blue", "green", "red", "nir08", "swir16", "swir22")
    stored = np.round((truth + 0.2) / 2.75e-5).astype(np.uint16)
    decoded = cube(tmp_path, stored, names, scale_factor=2.75e-5, add_offset=-0.2)
    scaled = cube(tmp_path, (1e4 * truth).astype(np.int16), names)
    for path, word in ((decoded, "0–1 reflectance"), (scaled, "0–10000 scale")):
        source = open_cube("l7", path, LATTICE_30)
        pixels = source.read(window(30, (6, 5))).pixels
        np.testing.assert_allclose(pixels, 1e4 * truth, atol=1.1)
        assert scale_of(source)[0].startswith(word)


def test_landsat_whose_level_nothing_says_is_refused_until_it_is_stated(tmp_path: Path) -> None:
    truth = land()
    stored = np.round((truth + 0.1) / 2e-5).astype(np.uint16)
    path = cube(tmp_path, stored, PLAIN)
    with pytest.raises(SourceError, match=r"say how.*--l8-scale 0.00002 --l8-offset -0.1"):
        open_cube("l8", path, LATTICE_30)
    source = open_cube("l8", cube(tmp_path, stored, PLAIN, product="L1TP"), LATTICE_30)
    assert scale_of(source) == ("Landsat Level 1, top of the atmosphere: DN × 2e-05 - 0.1", True)
    source = open_cube("l8", path, LATTICE_30, CubeOptions(scale=2e-5, offset=-0.1))
    pixels = source.read(window(30, (6, 5))).pixels
    np.testing.assert_allclose(pixels, 1e4 * truth, atol=0.2)
    with pytest.raises(JobError, match=r"--l8-offset -0\.1 needs --l8-scale"):
        open_cube("l8", path, LATTICE_30, CubeOptions(offset=-0.1))


def test_thermal_bands_are_delivered_in_kelvin(tmp_path: Path) -> None:
    stored = np.round((land() + 0.2) / 2.75e-5)
    kelvin = np.full((3, 1, 6, 5), 295.0)
    numbers = np.round((kelvin - 149) / 0.00341802)
    names = (*LANDSAT_8, "ST_B10")
    for thermal in (kelvin, numbers):
        values = np.concatenate([stored, thermal], axis=1).astype(np.uint16)
        source = open_cube("l8", cube(tmp_path, values, names), LATTICE_30)
        assert source.bands == tuple(b for b in L8_BANDS if b not in ("B8", "B9", "B11"))
        pixels = source.read(window(30, (6, 5))).pixels
        np.testing.assert_allclose(pixels[:, -1], 295.0, atol=0.01)
        assert scale_of(source)[0].startswith("Landsat Collection 2")
    values = np.concatenate([stored, np.full((3, 1, 6, 5), 7.0)], axis=1).astype(np.uint16)
    with pytest.raises(SourceError, match="B10 has median 7: neither kelvin"):
        open_cube("l8", cube(tmp_path, values, names), LATTICE_30)


def test_modis_is_divided_by_ten_thousand_however_that_is_written(tmp_path: Path) -> None:
    truth = land()
    stored = np.round(1e4 * truth).astype(np.int16)
    names = tuple(f"sur_refl_b0{k}" for k in range(1, 8))
    lattice = Lattice(f"EPSG:{files.EPSG}", 250.0)
    for attrs in ({}, {"scale_factor": 1e-4}, {"scale_factor": 1e4}):
        path = cube(tmp_path, stored, names, 250.0, **attrs)
        source = open_cube("modis", path, lattice)
        assert source.bands == MODIS_BANDS
        pixels = source.read(window(250, (6, 5))).pixels
        np.testing.assert_allclose(pixels, stored, rtol=1e-4)
    assert "divisor" in scale_of(source)[0]


def test_alos_numbers_become_decibels_and_a_ratio(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    decibels = np.array([-8.0, -14.0])[None, :, None, None] + rng.uniform(-2, 2, (2, 2, 6, 5))
    stored = np.round(10 ** ((decibels + 83) / 20)).astype(np.uint16)
    source = open_cube("alos", cube(tmp_path, stored, ("HH", "HV")), LATTICE_30)
    read = source.read(window(30, (6, 5)))
    np.testing.assert_allclose(read.pixels, decibels, atol=0.01)
    for units, expected in (
        ("db", decibels[:, 0] - decibels[:, 1]),
        ("linear", 10 ** ((decibels[:, 0] - decibels[:, 1]) / 10)),
    ):
        card = ModalityCard(
            name="alos", bands=("HH", "HV", "ratio"), gsd=30, units=units,
            mean=(0.0,) * 3, std=(1.0,) * 3, dates="day-of-year",
        )  # fmt: skip
        valid = torch.ones(2, 1, 6, 5, dtype=torch.bool)
        ready = normalise(Feed(card, (0, 1, (0, 1)), 1), torch.from_numpy(read.pixels), valid)
        np.testing.assert_allclose(ready[:, 2].numpy(), expected, rtol=0.01)
    with pytest.raises(SourceError, match=r"ALOS-2 stored as float32.*--alos-units"):
        open_cube("alos", cube(tmp_path, stored.astype(np.float32), ("HH", "HV")), LATTICE_30)


def test_the_ratio_of_two_polarisations_needs_both_files_bands() -> None:
    assert modality("s1").stored(("VV", "VH", "ratio")) == ("VV", "VH")
    assert modality("alos").stored(("ratio",)) == ("HH", "HV")


def test_a_source_coarser_than_the_lattice_is_brought_onto_it(tmp_path: Path) -> None:
    truth = land()
    stored = np.round((truth + 0.2) / 2.75e-5).astype(np.uint16)
    path = cube(tmp_path, stored, LANDSAT_8)
    source = open_cube("l8", path, files.LATTICE, CubeOptions(gsd=10.0))
    assert source.refine == 1
    read = source.read(window(10, (18, 15)))
    assert read.pixels.shape[2:] == (18, 15)
    assert read.valid.all()
    np.testing.assert_allclose(read.pixels[:, 0, 1::3, 1::3], 1e4 * truth[:, 1], atol=600)
    words = next(d for d in source.decisions if d.topic == "resampling")
    assert words.value.startswith("bilinear")
    assert "its pixels are 30 × 30, those of the lattice 10" in words.because
    with pytest.raises(AlignmentError, match="40 m is not a whole number of 30 m pixels of l8"):
        open_cube("l8", path, Lattice(f"EPSG:{files.EPSG}", 40.0))


def test_quality_bits_of_landsat_and_modis_hide_clouds() -> None:
    known = np.ones(6, bool)
    landsat = np.array([1 << 6, 1, 1 << 3, 1 << 4, 1 << 5, 1 << 7])
    clear, hidden = CloudRule("landsat").apply(landsat, known)
    assert clear.tolist() == [True, False, False, False, False, True]
    assert hidden.tolist() == [False, False, True, True, True, False]
    assert CloudRule("landsat", keep_snow=True).apply(landsat, known)[0].tolist()[4]
    modis = np.array([0, 1, 2, 3, 1 << 2, 1 << 12])
    clear, _ = CloudRule("modis").apply(modis, known)
    assert clear.tolist() == [True, False, False, True, False, False]


def test_a_cube_is_taken_for_the_sensor_of_its_pixel_size(tmp_path: Path) -> None:
    stored = np.round((land(6) + 0.2) / 2.75e-5).astype(np.uint16)
    names = ("blue", "green", "red", "nir", "swir1", "swir2")
    kinds = {10.0: {"s2"}, 30.0: {"l7", "l8"}, 500.0: {"modis"}}
    for pixel, expected in kinds.items():
        assert set(describe_cube(cube(tmp_path, stored, names, pixel)).sensors) == expected


def test_naip_and_aerial_with_elevation_come_through_the_image_reader(tmp_path: Path) -> None:
    path = tmp_path / "tile.tif"
    values = np.random.default_rng(0).integers(1, 255, (5, 40, 40), dtype=np.uint8)
    profile = {"driver": "GTiff", "height": 40, "width": 40, "dtype": "uint8", "crs": files.EPSG}
    place = rasterio.Affine(0.5, 0, LEFT, 0, -0.5, TOP)
    with rasterio.open(path, "w", count=5, transform=place, **profile) as out:
        out.write(values)
        out.descriptions = ("red", "green", "blue", "nir", "elevation")
    entry = Input("aerial", (str(path),))
    job = Job((entry,), "m", tmp_path / "map.tif")
    bands = MODALITIES["aerial-flair"].bands
    source = open_input(entry, files.LATTICE, Wanted("aerial-flair", bands, 0.5), job)
    assert source.bands == ("R", "G", "B", "NIR", "ELEV")
    np.testing.assert_array_equal(source.read(window(10, (2, 2))).pixels, values)
    entry = Input("naip", (str(path),), (("bands", "R,G,B,NIR,-"),))
    source = open_input(entry, files.LATTICE, Wanted("naip", ("R", "G", "B", "NIR"), 1.25), job)
    assert source.refine == 8
    assert source.read(window(10, (2, 2))).pixels.shape == (4, 16, 16)
