"""Scale, offset and decibels: metadata and measurement agree, or the cube is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cube_files as files
import numpy as np
import pytest
import xarray as xr

from omnisat_cli.errors import SourceError
from omnisat_cli.sources.clouds import CloudRule, find_mask, settle_rule
from omnisat_cli.sources.cubes import CubeOptions, CubeSource, open_cube

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.sources.values import Decision


def said(source: CubeSource, topic: str) -> Decision:
    return next(d for d in source.decisions if d.topic == topic)


def saved(scene: files.Scene, folder: Path, **attrs: object) -> Path:
    dataset = files.plain(scene)
    for band in scene.bands:
        dataset[band].attrs |= attrs
    return files.save(dataset, folder / f"cube{len(list(folder.iterdir()))}.nc")


def test_an_offset_already_removed_is_measured_and_said(tmp_path: Path) -> None:
    source = open_cube("s2", saved(files.make_scene(), tmp_path), files.LATTICE)
    decision = said(source, "offset")
    assert decision.value == "already removed"
    assert decision.because.startswith("blue median on 2023-0")
    assert "(raw values would be near 1" in decision.because
    assert decision.option == "--s2-offset"


def test_raw_values_lose_the_offset_by_measurement(tmp_path: Path) -> None:
    scene = files.make_scene()
    path = saved(replace(scene, pixels=scene.pixels + np.uint16(1000)), tmp_path)
    source = open_cube("s2", path, files.LATTICE)
    assert said(source, "offset").value == "add -1000"
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)


@pytest.mark.parametrize(
    ("name", "value", "raw"),
    [
        ("earthsearch:boa_offset_applied", "True", False),
        ("boa_offset_applied", 0, True),
        ("BOA_ADD_OFFSET", -1000, True),
        ("BOA_ADD_OFFSET", 0, False),
        ("s2:processing_baseline", "05.09", True),
        ("processing_baseline", "02.14", False),
        ("processing_baseline", "N0400", True),
    ],
)
def test_metadata_and_measurement_must_agree(
    name: str, value: object, raw: bool, tmp_path: Path
) -> None:
    scene = replace(files.make_scene(), attrs={name: value})
    shifted = replace(scene, pixels=scene.pixels + np.uint16(1000))
    right, wrong = (shifted, scene) if raw else (scene, shifted)
    source = open_cube("s2", saved(right, tmp_path), files.LATTICE)
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)
    assert "agrees" in said(source, "offset").because
    with pytest.raises(SourceError, match=r"blue median on .* is \d+.*--s2-offset 0 or") as caught:
        open_cube("s2", saved(wrong, tmp_path), files.LATTICE)
    assert caught.value.exit_code == 3


def test_an_offset_stated_by_the_user_wins_with_a_warning(tmp_path: Path) -> None:
    scene = replace(files.make_scene(), attrs={"boa_offset_applied": "False"})
    path = saved(scene, tmp_path)
    source = open_cube("s2", path, files.LATTICE, CubeOptions(offset=0.0))
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)
    assert not said(source, "offset").warning
    source = open_cube("s2", path, files.LATTICE, CubeOptions(offset=-1000.0))
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels - 1000.0)
    assert said(source, "offset").warning


def test_a_series_across_january_2022_may_hold_both_kinds(tmp_path: Path) -> None:
    scene = files.make_scene(dates=6)
    days = np.array(["2021-05-01", "2021-06-01", "2021-07-01", "2022-05-01", "2022-06-01",
                     "2022-07-01"], dtype="datetime64[D]")  # fmt: skip
    pixels = scene.pixels.copy()
    pixels[3:] += 1000
    path = saved(replace(scene, days=days, pixels=pixels), tmp_path)
    source = open_cube("s2", path, files.LATTICE)
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)
    values = [d.value for d in source.decisions if d.topic == "offset"]
    assert values[0].startswith("already removed (3 dates 2021-05-01")
    assert values[1].startswith("add -1000 (3 dates 2022-05-01")


def test_a_baseline_for_each_date_is_followed(tmp_path: Path) -> None:
    scene = files.make_scene(dates=4)
    pixels = scene.pixels.copy()
    pixels[[1, 3]] += 1000
    dataset = files.plain(replace(scene, pixels=pixels)).assign_coords(
        {"s2:processing_baseline": ("time", ["03.01", "05.10", "03.01", "05.10"])}
    )
    source = open_cube("s2", files.save(dataset, tmp_path / "cube.nc"), files.LATTICE)
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)


def test_bright_land_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    scene = files.make_scene()
    path = saved(replace(scene, pixels=(scene.pixels * 0.3 + 3200).astype(np.uint16)), tmp_path)
    with pytest.raises(SourceError, match=r"cannot be told.*--s2-offset 0 or --s2-offset -1000"):
        open_cube("s2", path, files.LATTICE)


def test_clouds_do_not_decide_the_offset(tmp_path: Path) -> None:
    scene = files.make_scene(dates=3)
    pixels, scl = scene.pixels.copy(), scene.scl.copy()
    pixels[:2] = 6000
    scl[:2] = 9
    path = saved(replace(scene, pixels=pixels, scl=scl), tmp_path)
    assert "2023-05-22" in said(open_cube("s2", path, files.LATTICE), "offset").because


def test_reflectance_from_0_to_1_is_scaled(tmp_path: Path) -> None:
    scene = files.make_scene()
    path = saved(replace(scene, pixels=(scene.pixels / 1e4).astype(np.float32)), tmp_path)
    source = open_cube("s2", path, files.LATTICE)
    np.testing.assert_allclose(source.read(scene.window).pixels, scene.pixels, atol=0.01)
    assert "0–1 reflectance" in said(source, "scale").value


def test_cf_scale_and_offset_are_decoded_in_reflectance_units(tmp_path: Path) -> None:
    scene = files.make_scene()
    raw = replace(scene, pixels=scene.pixels + np.uint16(1000))
    path = saved(raw, tmp_path, scale_factor=1e-4, add_offset=-0.1)
    source = open_cube("s2", path, files.LATTICE)
    np.testing.assert_allclose(source.read(scene.window).pixels, scene.pixels, atol=0.01)
    assert "add_offset attribute agrees" in said(source, "offset").because


@pytest.mark.parametrize("factor", [1e-2, 40])
def test_values_of_no_known_scale_are_refused_until_stated(factor: float, tmp_path: Path) -> None:
    scene = files.make_scene()
    path = saved(
        replace(scene, pixels=scene.pixels.astype(np.float32) * np.float32(factor)), tmp_path
    )
    with pytest.raises(SourceError, match="--s2-scale"):
        open_cube("s2", path, files.LATTICE)
    source = open_cube("s2", path, files.LATTICE, CubeOptions(scale=1e-4 / factor))
    np.testing.assert_allclose(source.read(scene.window).pixels, scene.pixels, rtol=1e-5)


def radar(pixels: np.ndarray, folder: Path, units: str = "") -> Path:
    dataset = files.plain(files.make_radar(pixels), scl=False)
    for band in ("VV", "VH"):
        dataset[band].attrs["units"] = units
    return files.save(dataset, folder / f"s1_{len(list(folder.iterdir()))}.nc")


LINEAR = files.make_radar().pixels
DECIBELS = (10 * np.log10(LINEAR)).astype(np.float32)


def test_linear_power_becomes_decibels_with_a_floor(tmp_path: Path) -> None:
    linear = LINEAR.copy()
    linear[0, 0, 0, 0], linear[0, 0, 0, 1], linear[0, 0, 0, 2] = 1e-7, 0.0, 1e-12
    path = radar(linear, tmp_path)
    source = open_cube("s1", path, files.LATTICE)
    series = source.read(files.make_radar().window)
    assert series.pixels[0, 0, 0, 0] == -50
    np.testing.assert_array_equal(series.valid[0, 0, :4], [True, False, False, True])
    np.testing.assert_allclose(series.pixels[1:], DECIBELS[1:], atol=1e-4)
    assert said(source, "scale").value.startswith("linear power")


def test_decibels_stay(tmp_path: Path) -> None:
    source = open_cube("s1", radar(DECIBELS, tmp_path, "dB"), files.LATTICE)
    np.testing.assert_array_equal(source.read(files.make_radar().window).pixels, DECIBELS)


def test_scaled_amplitudes_become_decibels(tmp_path: Path) -> None:
    stored = np.round(10 ** ((DECIBELS + 83) / 20)).astype(np.uint16)
    stored[0, 0, 0, 0], stored[0, 1, 0, 1], stored[1, 0, 0, 0] = 65534, 65535, 0
    source = open_cube("s1", radar(stored, tmp_path), files.LATTICE)
    series = source.read(files.make_radar().window)
    np.testing.assert_allclose(series.pixels[2:], DECIBELS[2:], atol=0.02)
    assert series.valid.sum() == 4 * 63 - 3
    assert not series.valid[0, 0, :2].any()
    assert "1 saturated samples" in said(source, "scale").because


def test_units_that_contradict_the_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--s1-units db or --s1-units linear"):
        open_cube("s1", radar(LINEAR, tmp_path, "dB"), files.LATTICE)
    stated = CubeOptions(units="linear")
    open_cube("s1", radar(LINEAR, tmp_path, "dB"), files.LATTICE, stated)
    with pytest.raises(SourceError, match="neither dB"):
        open_cube("s1", radar((LINEAR * 1000).astype(np.float32), tmp_path), files.LATTICE)


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (["B02", "S2-L2A-SCL", "CLM"], "auto", ("S2-L2A-SCL", "scl")),
        (["B02", "CLM"], "auto", ("CLM", "cloud")),
        (["B02", "QAI"], "auto", ("QAI", "qai")),
        (["B02", "mask"], "auto", ("mask", None)),
        (["B02"], "auto", None),
        (["SCL"], "none", None),
        (["B02", "own"], "own:valid", ("own", "valid")),
    ],
)
def test_masks_are_found_by_name(
    names: list[str], asked: str, found: tuple[str, str | None] | None
) -> None:
    assert find_mask(names, asked) == found


def test_masks_of_each_convention_split_their_numbers() -> None:
    known = np.ones(6, dtype=bool)
    numbers = np.array([0, 1, 2, 8, 16, 512])
    clear, hidden = CloudRule("qai").apply(numbers, known)
    np.testing.assert_array_equal(clear, [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(hidden, [0, 0, 1, 1, 1, 0])
    clear, hidden = CloudRule("probability").apply(np.array([0, 39, 40, 100, 3, 90]), known)
    np.testing.assert_array_equal(clear, [1, 1, 0, 0, 1, 0])
    clear, _ = CloudRule("cloud").apply(
        np.array([0, np.nan, 1, 2, 0, 255]), known & [1, 0, 1, 1, 1, 1]
    )
    np.testing.assert_array_equal(clear, [1, 0, 0, 0, 1, 0])


def test_class_numbers_beyond_the_scene_classes_are_refused() -> None:
    with pytest.raises(SourceError, match="scene classes end at 11"):
        settle_rule(("SCL", "scl"), np.array([4, 5, 255]), False)


def test_a_mask_without_dates_holds_for_all(tmp_path: Path) -> None:
    scene = files.make_scene()
    dataset = files.plain(scene, scl=False)
    water = np.zeros((9, 7), dtype=np.uint8)
    water[2] = 1
    dataset["cloud_mask"] = xr.DataArray(water, dims=("y", "x"))
    source = open_cube("s2", files.save(dataset, tmp_path / "cube.nc"), files.LATTICE)
    series = source.read(scene.window)
    assert not series.valid[:, 2].any()
    assert series.valid.sum() == 4 * 56
