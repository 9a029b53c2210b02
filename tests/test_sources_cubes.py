"""Cubes of every layout give the same series; what they hold is recognised, stated, or refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import cube_files as files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.sources.cubes import CubeOptions, CubeSource, describe_cube, open_cube

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.sources.values import Decision

LAYOUTS = ("plain", "y up", "odc", "openeo", "stackstac", "unnamed", "classic", "zarr 2", "zarr 3")


def write(layout: str, scene: files.Scene, folder: Path) -> Path:
    path = folder / f"{layout}.cube"
    if layout.startswith("zarr"):
        return files.save_zarr(files.plain(scene), path, int(layout[-1]))
    if layout == "classic":
        return files.save_classic(files.plain(scene), path)
    makers = {"plain": files.plain, "odc": files.odc, "openeo": files.openeo,
              "stackstac": files.stackstac, "unnamed": files.unnamed_array}  # fmt: skip
    dataset = files.plain(scene, y_up=True) if layout == "y up" else makers[layout](scene)
    return files.save(dataset, path)


def said(source: CubeSource, topic: str) -> Decision:
    found = [decision for decision in source.decisions if decision.topic == topic]
    assert found, f"nothing said about {topic}"
    return found[-1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_series(layout: str, tmp_path: Path) -> None:
    scene = files.make_scene(bands=files.BANDS)
    source = open_cube("s2", write(layout, scene, tmp_path), files.LATTICE)
    series = source.read(scene.window)
    np.testing.assert_array_equal(series.pixels, scene.pixels.astype(np.float32))
    np.testing.assert_array_equal(series.dates, scene.days)
    assert series.pixels.dtype == np.float32
    assert series.dates.dtype == np.dtype("datetime64[D]")
    assert series.valid.all()
    assert not series.clouded.any()
    assert source.bands == files.BANDS
    assert source.footprints == (files.LATTICE.bounds(scene.window),)
    assert said(source, "resampling").value == "none"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cube_is_described_before_a_lattice_exists(layout: str, tmp_path: Path) -> None:
    scene = files.make_scene(bands=files.BANDS)
    facts = describe_cube(write(layout, scene, tmp_path))
    assert facts.crs == "EPSG:32631"
    assert facts.bounds == files.LATTICE.bounds(scene.window)
    assert facts.gsd == (10.0, 10.0)
    assert facts.shape == (4, 9, 7)
    assert dict(facts.sensors) == {"s2": files.BANDS}
    assert facts.problems == ()
    np.testing.assert_array_equal(facts.days, scene.days)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> tuple[files.Scene, CubeSource]:
    scene = files.make_scene(dates=5, size=(40, 30))
    path = tmp_path_factory.mktemp("cube") / "cube.nc"
    files.save(files.plain(scene, y_up=True), path)
    return scene, open_cube("s2", path, files.LATTICE)


@given(row=st.integers(-20, 50), col=st.integers(-20, 40), height=st.integers(0, 60),
       width=st.integers(0, 50))  # fmt: skip
def test_a_window_is_a_slice_of_the_cube(
    cube: tuple[files.Scene, CubeSource], row: int, col: int, height: int, width: int
) -> None:
    scene, source = cube
    padded = np.zeros((5, 3, 240, 230), dtype=np.float32)
    padded[:, :, 100:140, 100:130] = scene.pixels
    series = source.read(Window(scene.window.row + row, scene.window.col + col, height, width))
    rows, cols = slice(100 + row, 100 + row + height), slice(100 + col, 100 + col + width)
    np.testing.assert_array_equal(series.pixels, padded[:, :, rows, cols])
    np.testing.assert_array_equal(series.valid, padded[:, 0, rows, cols] > 0)


def test_a_source_pickles_small_and_reopens(cube: tuple[files.Scene, CubeSource]) -> None:
    scene, source = cube
    packed = pickle.dumps(source)
    assert len(packed) < 20_000
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.read(scene.window).pixels, source.read(scene.window).pixels)
    assert again.decisions == source.decisions


def test_an_anchor_of_60_m_gives_six_pixels_each_way(tmp_path: Path) -> None:
    scene = replace(files.make_scene(size=(12, 12)), left=600_000.0, top=5_600_040.0)
    path = files.save(files.plain(scene), tmp_path / "cube.nc")
    lattice = Lattice("EPSG:32631", 60.0)
    source = open_cube("s2", path, lattice)
    assert source.refine == 6
    series = source.read(lattice.window(source.footprints[0]))
    np.testing.assert_array_equal(series.pixels, scene.pixels)


def test_pixels_without_data_are_zero_and_not_valid(tmp_path: Path) -> None:
    scene = files.make_scene()
    pixels = scene.pixels.copy()
    pixels[1, 1, 2, 2] = 0  # one dark band is data
    pixels[2, :, 4, 4] = 0  # nothing at all is not
    pixels[0, 2] = 65535  # a whole image of one band
    path = files.save(files.plain(replace(scene, pixels=pixels)), tmp_path / "cube.nc")
    series = open_cube("s2", path, files.LATTICE).read(scene.window)
    assert not series.valid[0].any()
    assert (series.pixels[0] == 0).all()
    assert series.valid[1].all()
    assert not series.valid[2, 4, 4]
    assert series.valid[2].sum() == 62


def test_undeclared_65535_is_stated_with_its_share(tmp_path: Path) -> None:
    scene = files.make_scene()
    pixels = scene.pixels.copy()
    pixels[0] = 65535
    path = files.save(files.plain(replace(scene, pixels=pixels)), tmp_path / "cube.nc")
    decision = said(open_cube("s2", path, files.LATTICE), "nodata")
    assert decision.warning
    assert decision.value == "65535"
    assert "25.0% of the samples" in decision.because


@pytest.mark.parametrize("attribute", ["_FillValue", "missing_value", "nodata"])
def test_declared_fill_values_are_masked(attribute: str, tmp_path: Path) -> None:
    scene = files.make_scene()
    pixels = scene.pixels.astype(np.int16)
    pixels[:, 2, 3, 3] = -7
    dataset = files.plain(replace(scene, pixels=pixels))
    for band in scene.bands:
        dataset[band].attrs[attribute] = np.int16(-7)
    series = open_cube("s2", files.save(dataset, tmp_path / "a.nc"), files.LATTICE).read(
        scene.window
    )
    assert not series.valid[:, 3, 3].any()
    assert series.valid.sum() == 4 * 62


def test_infinite_and_missing_numbers_are_masked(tmp_path: Path) -> None:
    scene = files.make_scene()
    pixels = scene.pixels.astype(np.float32)
    pixels[0, 0, 0, 0], pixels[1, 2, 1, 1] = np.nan, np.inf
    path = files.save(files.plain(replace(scene, pixels=pixels)), tmp_path / "cube.nc")
    series = open_cube("s2", path, files.LATTICE).read(scene.window)
    assert np.isfinite(series.pixels).all()
    assert not series.valid[0, 0, 0]
    assert not series.valid[1, 1, 1]
    assert series.valid.sum() == 4 * 63 - 2


def test_scene_classes_split_clear_clouded_and_empty(tmp_path: Path) -> None:
    scene = files.make_scene(dates=12, size=(8, 8))
    scl = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None], (12, 8, 8))
    path = files.save(files.plain(replace(scene, scl=scl)), tmp_path / "cube.nc")
    series = open_cube("s2", path, files.LATTICE).read(scene.window)
    clear = {k for k in range(12) if series.valid[k].all()}
    clouded = {k for k in range(12) if series.clouded[k].all()}
    assert clear == {4, 5, 6, 7}
    assert clouded == {2, 3, 8, 9, 10, 11}
    assert not (series.valid & series.clouded).any()
    snow = open_cube("s2", path, files.LATTICE, CubeOptions(keep_snow=True)).read(scene.window)
    assert snow.valid[11].all()
    every = open_cube("s2", path, files.LATTICE, CubeOptions(cloud_mask="none"))
    assert every.read(scene.window).valid.all()
    assert said(every, "mask").warning


def test_max_cloud_leaves_cloudy_dates_out_and_counts_them(tmp_path: Path) -> None:
    scene = files.make_scene(dates=4)
    scl = scene.scl.copy()
    scl[1], scl[2, :3] = 9, 8
    path = files.save(files.plain(replace(scene, scl=scl)), tmp_path / "cube.nc")
    source = open_cube("s2", path, files.LATTICE, CubeOptions(max_cloud=20))
    np.testing.assert_array_equal(source.dates, scene.days[[0, 3]])
    assert "2 of 4 dates" in said(source, "clouds").value
    with pytest.raises(JobError, match="needs a cloud mask"):
        open_cube("s2", path, files.LATTICE, CubeOptions(max_cloud=20, cloud_mask="none"))


def test_a_cube_without_mask_runs_with_a_warning(tmp_path: Path) -> None:
    scene = files.make_scene()
    path = files.save(files.plain(scene, scl=False), tmp_path / "cube.nc")
    decision = said(open_cube("s2", path, files.LATTICE), "mask")
    assert decision.warning
    assert "confidence will be optimistic" in decision.value


def test_a_mask_of_unknown_meaning_is_refused_until_stated(tmp_path: Path) -> None:
    scene = files.make_scene()
    ones = np.ones_like(scene.scl)
    ones[:, 0] = 0
    dataset = files.plain(replace(scene, scl=ones)).rename({"SCL": "mask"})
    path = files.save(dataset, tmp_path / "cube.nc")
    with pytest.raises(SourceError, match="mask of clouds or of clear"):
        open_cube("s2", path, files.LATTICE)
    clouds = open_cube("s2", path, files.LATTICE, CubeOptions(cloud_mask="mask:cloud"))
    np.testing.assert_array_equal(clouds.read(scene.window).valid, ones == 0)
    clear = open_cube("s2", path, files.LATTICE, CubeOptions(cloud_mask="mask:valid"))
    np.testing.assert_array_equal(clear.read(scene.window).valid, ones == 1)


def test_several_sensors_in_one_file_are_told_apart(tmp_path: Path) -> None:
    optical, radar = files.make_scene(), files.make_radar()
    dataset = files.plain(optical).assign(files.plain(radar, scl=False).data_vars)
    dataset["slope"] = (("y", "x"), np.zeros((9, 7), dtype=np.float32))
    path = files.save(dataset, tmp_path / "cube.nc")
    assert dict(describe_cube(path).sensors) == {"s2": files.FEW, "s1": ("VV", "VH")}
    s2, s1 = (open_cube(name, path, files.LATTICE) for name in ("s2", "s1"))
    np.testing.assert_array_equal(s2.read(optical.window).pixels, optical.pixels)
    np.testing.assert_allclose(s1.read(radar.window).pixels, 10 * np.log10(radar.pixels), atol=1e-4)
    assert any("not used" in d.value and "slope" in d.value for d in s1.decisions)


def test_missing_bands_are_delivered_as_found_or_substituted(tmp_path: Path) -> None:
    scene = files.make_scene(bands=tuple(band for band in files.BANDS if band != "B8A"))
    path = files.save(files.plain(scene), tmp_path / "cube.nc")
    assert open_cube("s2", path, files.LATTICE).bands == scene.bands
    options = CubeOptions(substitutes={"B8A": "B08"})
    source = open_cube("s2", path, files.LATTICE, options)
    assert source.bands == files.BANDS
    pixels = source.read(scene.window).pixels
    np.testing.assert_array_equal(pixels[:, 7], scene.band("B08"))
    np.testing.assert_array_equal(pixels[:, 8], scene.band("B11"))
    assert any(d.warning and "B8A is a copy of B08" in d.value for d in source.decisions)
    with pytest.raises(JobError, match="must be a missing band"):
        open_cube("s2", path, files.LATTICE, CubeOptions(substitutes={"B02": "B08"}))


def test_names_win_over_positions_and_unnamed_bands_need_them(tmp_path: Path) -> None:
    scene = files.make_scene(bands=files.BANDS)
    order = [3, 1, 0, 2, 9, 8, 7, 6, 5, 4]
    shuffled = files.plain(scene)[[scene.bands[k] for k in order]]
    path = files.save(shuffled, tmp_path / "named.nc")
    series = open_cube("s2", path, files.LATTICE).read(scene.window)
    np.testing.assert_array_equal(series.pixels, scene.pixels)
    numbered = files.unnamed_array(scene).assign_coords(band=np.arange(1, 11))
    path = files.save(numbered, tmp_path / "numbered.nc")
    with pytest.raises(SourceError, match="--s2-bands"):
        open_cube("s2", path, files.LATTICE)
    source = open_cube("s2", path, files.LATTICE, CubeOptions(bands=files.BANDS))
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)
    with pytest.raises(SourceError, match="3 band names were given for 10 layers"):
        open_cube("s2", path, files.LATTICE, CubeOptions(bands=files.BANDS[:3]))


def test_unknown_names_are_listed(tmp_path: Path) -> None:
    dataset = files.plain(files.make_scene(bands=("B02", "B03")), scl=False)
    path = files.save(dataset.rename({"B02": "lst", "B03": "evi"}), tmp_path / "cube.nc")
    with pytest.raises(SourceError, match=r"among the layers found: lst, evi.*--s2-bands"):
        open_cube("s2", path, files.LATTICE)
    assert "lst, evi" in describe_cube(path).problems[0]


def test_one_band_twice_is_refused(tmp_path: Path) -> None:
    dataset = files.plain(files.make_scene())
    dataset["blue"] = dataset["B02"]
    with pytest.raises(SourceError, match="two layers are B02: 'B02' and 'blue'"):
        open_cube("s2", files.save(dataset, tmp_path / "cube.nc"), files.LATTICE)


def test_swapped_red_and_infrared_are_warned_about(tmp_path: Path) -> None:
    dataset = files.plain(files.make_scene()).rename({"B04": "B08", "B08": "B04"})
    source = open_cube("s2", files.save(dataset, tmp_path / "cube.nc"), files.LATTICE)
    assert any(d.topic == "bands" and d.warning and "below red" in d.because
               for d in source.decisions)  # fmt: skip


def test_an_image_modality_is_no_cube(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="aerial is an image"):
        open_cube("aerial", tmp_path, files.LATTICE)


def test_a_cube_without_crs_is_refused_until_stated(tmp_path: Path) -> None:
    scene = files.make_scene()
    path = files.save(files.plain(scene, wkt=""), tmp_path / "cube.nc")
    with pytest.raises(AlignmentError, match="--cube-crs"):
        open_cube("s2", path, files.LATTICE)
    assert describe_cube(path).crs == ""
    source = open_cube("s2", path, files.LATTICE, CubeOptions(crs="EPSG:32631"))
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)
    with pytest.raises(AlignmentError, match="not a CRS"):
        open_cube("s2", path, files.LATTICE, CubeOptions(crs="EPSG:banana"))


@pytest.mark.parametrize("holder", ["attribute crs", "attribute epsg", "coordinate", "cf", "proj"])
def test_the_crs_is_found_wherever_tools_put_it(holder: str, tmp_path: Path) -> None:
    scene = files.make_scene()
    dataset = files.plain(scene, wkt="").drop_vars("spatial_ref")
    if holder == "attribute crs":
        dataset.attrs["crs"] = "epsg:32631"
    elif holder == "attribute epsg":
        dataset["B02"].attrs["epsg"] = 32631
    elif holder == "coordinate":
        dataset = dataset.assign_coords(epsg=32631)
    elif holder == "proj":
        dataset.attrs["proj:code"] = "EPSG:32631"
    else:
        from pyproj import CRS

        dataset["utm"] = ((), np.int8(0), CRS.from_epsg(32631).to_cf())
        del dataset["utm"].attrs["crs_wkt"]
        dataset["B02"].attrs["grid_mapping"] = "utm"
    for name in dataset.data_vars:
        if holder != "cf":
            dataset[name].attrs.pop("grid_mapping", None)
    facts = describe_cube(files.save(dataset, tmp_path / "cube.nc"))
    assert facts.crs == "EPSG:32631" or facts.crs.startswith("PROJCRS")


def test_corner_coordinates_are_recognised_by_the_transform(tmp_path: Path) -> None:
    scene = files.make_scene()
    dataset = files.plain(scene)
    dataset = dataset.assign_coords(x=dataset.x - 5, y=dataset.y + 5)
    path = files.save(dataset, tmp_path / "corner.nc")
    source = open_cube("s2", path, files.LATTICE)
    assert said(source, "grid").warning  # nothing proves corners, but it smells of them
    assert said(source, "resampling").value != "none"
    stated = open_cube("s2", path, files.LATTICE, CubeOptions(pixels="corner"))
    np.testing.assert_array_equal(stated.read(scene.window).pixels, scene.pixels)
    dataset["spatial_ref"].attrs["GeoTransform"] = f"{scene.left} 10 0 {scene.top} 0 -10"
    found = open_cube("s2", files.save(dataset, tmp_path / "declared.nc"), files.LATTICE)
    np.testing.assert_array_equal(found.read(scene.window).pixels, scene.pixels)
    dataset["spatial_ref"].attrs["GeoTransform"] = f"{scene.left + 33} 10 0 {scene.top} 0 -10"
    with pytest.raises(AlignmentError, match="contradicts itself"):
        open_cube("s2", files.save(dataset, tmp_path / "contra.nc"), files.LATTICE)


def test_irregular_coordinates_are_refused(tmp_path: Path) -> None:
    dataset = files.plain(files.make_scene())
    x = dataset.x.values.copy()
    x[3] += 4
    with pytest.raises(AlignmentError, match="not regular"):
        open_cube("s2", files.save(dataset.assign_coords(x=x), tmp_path / "cube.nc"), files.LATTICE)


def test_float32_coordinates_still_align(tmp_path: Path) -> None:
    scene = files.make_scene()
    dataset = files.plain(scene)
    dataset = dataset.assign_coords(x=dataset.x.astype("f4"), y=(dataset.y + 0.3).astype("f4"))
    source = open_cube("s2", files.save(dataset, tmp_path / "cube.nc"), files.LATTICE)
    assert said(source, "resampling").value == "none"
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)


def test_coordinates_may_be_missing_where_a_transform_is_there(tmp_path: Path) -> None:
    scene = files.make_scene()
    dataset = files.plain(scene).drop_vars(["x", "y"])
    with pytest.raises(AlignmentError, match="no coordinates"):
        open_cube("s2", files.save(dataset, tmp_path / "none.nc"), files.LATTICE)
    dataset["spatial_ref"].attrs["GeoTransform"] = f"{scene.left} 10 0 {scene.top} 0 -10"
    source = open_cube("s2", files.save(dataset, tmp_path / "cube.nc"), files.LATTICE)
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)


def test_one_date_without_time_dimension_reads(tmp_path: Path) -> None:
    scene = files.make_scene(dates=1)
    path = files.save(files.plain(scene).isel(time=0), tmp_path / "cube.nc")
    source = open_cube("s2", path, files.LATTICE)
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)
    np.testing.assert_array_equal(source.dates, scene.days)


def test_bands_in_a_group_are_read_from_there(tmp_path: Path) -> None:
    scene = files.make_scene()
    path = tmp_path / "cube.zarr"
    files.plain(scene).to_zarr(path, group="measurements/r10m", zarr_format=3, consolidated=False)
    with pytest.raises(SourceError, match="--cube-group"):
        open_cube("s2", path, files.LATTICE)
    source = open_cube("s2", path, files.LATTICE, CubeOptions(group="measurements/r10m"))
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels)


def test_a_band_the_model_does_not_use_hides_no_pixel(tmp_path: Path) -> None:
    scene = files.make_scene(bands=("B02", "B04", "B05", "B08", "B11"))
    dataset = files.plain(scene)
    for spot, band in enumerate(("B05", "B11")):
        dataset[band] = dataset[band].astype(np.float32)
        dataset[band][:, spot, spot] = np.nan
    path = files.save(dataset, tmp_path / "a.nc")
    everything = open_cube("s2", path, files.LATTICE).read(scene.window)
    assert not everything.valid[:, [0, 1], [0, 1]].any()
    options = CubeOptions(wanted=("B04", "B11"))
    source = open_cube("s2", path, files.LATTICE, options)
    series = source.read(scene.window)
    assert source.bands == ("B04", "B11")
    np.testing.assert_array_equal(series.pixels[:, 0], scene.band("B04") * series.valid)
    assert series.valid[:, 0, 0].all()
    assert not series.valid[:, 1, 1].any()
    unused = [d.value for d in source.decisions if "does not use" in d.because]
    assert unused == ["not used: B02, B05, B08"]


def test_a_copied_band_is_read_though_it_is_not_wanted_itself(tmp_path: Path) -> None:
    scene = files.make_scene(bands=("B02", "B04", "B08"))
    path = files.save(files.plain(scene), tmp_path / "a.nc")
    options = CubeOptions(wanted=("B04", "B8A"), substitutes={"B8A": "B08"})
    source = open_cube("s2", path, files.LATTICE, options)
    assert source.bands == ("B04", "B8A")
    np.testing.assert_array_equal(source.read(scene.window).pixels[:, 1], scene.band("B08"))


def test_both_orbits_of_a_radar_name_the_flag_they_share(tmp_path: Path) -> None:
    scene = files.make_scene()
    path = files.save(files.plain(scene), tmp_path / "a.nc")
    with pytest.raises(SourceError, match="--s1-bands"):
        open_cube("s1-asc", path, files.LATTICE)
