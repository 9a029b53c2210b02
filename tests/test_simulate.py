from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 - gives xarray its .rio
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from typer.testing import CliRunner

from omnisat_cli.errors import JobError, OutputExistsError
from omnisat_cli.learning.simulate import (
    Scene,
    SceneSpec,
    fields,
    layout,
    sentinel1,
    sentinel2,
    sim_legend,
    simulate,
    simulate_tiles,
    spectra,
    weather,
)
from omnisat_cli.learning.simulate.files import (
    FILES,
    Gap,
    Layout,
    read_gap,
    refuse_existing,
    write_scene,
    write_scenes,
)
from omnisat_cli.learning.simulate.landscape import Landscape, landscape
from omnisat_cli.learning.simulate.legend import CLASS_OF_COVER, Cover
from omnisat_cli.learning.simulate.phenology import calendar, canopy
from omnisat_cli.learning.simulate.values import Frame

if TYPE_CHECKING:
    from pathlib import Path

SPEC = SceneSpec(seed=2096, width_m=320, height_m=300, aerial_gsd=1.0)
CLEAR = (4, 5, 6, 7)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulate(SPEC)


@pytest.fixture(scope="module")
def written(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(scene, folder, Layout(Gap("east", 0.25), Gap("south", 0.4)))
    return folder


def fields_of(cover: Cover, count: int = 40) -> Landscape:
    """Many fields of one cover, without a place."""
    return Landscape(
        frame=Frame(0, 0, 10, 10),
        cover=np.full(count, int(cover)),
        key=np.arange(count) * 7919 + 13,
        angle=np.zeros(count),
        centre=np.full((count, 2), 650_000.0),
        parcel=np.arange(1, count + 1, dtype=np.int32),
        shapes=np.array([], object),
        crowns=(),
        houses=(),
        markings=(),
    )


def ndvi_of(cover: Cover, days: np.ndarray, seed: int = 3) -> np.ndarray:
    land = fields_of(cover)
    state = canopy(seed, land, calendar(seed, land), days)
    mean = spectra.reflectance(seed, land, state, np.full(len(days), 0.4)).mean
    return np.median((mean[..., 6] - mean[..., 2]) / (mean[..., 6] + mean[..., 2]), axis=0)


def radar_of(cover: Cover, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    land, year = fields_of(cover), weather.radar_year(seed, 2023)
    dates = calendar(seed, land)
    state = canopy(seed, land, dates, year.days)
    level = sentinel1.backscatter(seed, land, dates, state, year, np.full(len(year.days), 0.5))
    return year.days, np.median(level, axis=0)


def between(days: np.ndarray, values: np.ndarray, first: int, last: int) -> float:
    return float(values[(days >= first) & (days <= last)].mean())


def test_a_scene_has_the_shapes_and_types_it_states(scene: Scene) -> None:
    dates, passes = len(scene.s2_dates), len(scene.s1_dates)
    assert scene.aerial.shape == (4, 300, 320)
    assert scene.s2.shape == (dates, 10, 30, 32)
    assert scene.scl.shape == (dates, 30, 32)
    assert scene.s1.shape == (passes, 2, 30, 32)
    assert scene.truth.shape == scene.parcel_ids.shape == (300, 320)
    assert (scene.aerial.dtype, scene.s2.dtype, scene.scl.dtype) == (np.uint8, np.uint16, np.uint8)
    assert (scene.s1.dtype, scene.truth.dtype) == (np.float32, np.uint8)
    assert scene.parcel_ids.dtype == np.int32
    assert 25 <= dates <= 60
    assert passes in (60, 61)


def test_the_same_seed_gives_the_same_scene_and_another_seed_another(scene: Scene) -> None:
    again = simulate(SPEC)
    for name in ("aerial", "s2", "scl", "s1", "truth", "parcel_ids", "s2_dates"):
        np.testing.assert_array_equal(getattr(scene, name), getattr(again, name))
    other = simulate(replace(SPEC, seed=5, width_m=60, height_m=60, origin=scene.origin))
    assert not np.array_equal(other.truth, scene.truth[:60, :60])


def test_two_windows_of_one_world_agree_where_they_overlap(scene: Scene) -> None:
    left, top = scene.origin
    inner = replace(SPEC, width_m=110, height_m=90, origin=(left + 130, top - 70))
    part = simulate(inner)
    metres, cells = np.s_[..., 70:160, 130:240], np.s_[..., 7:16, 13:24]
    np.testing.assert_array_equal(part.truth, scene.truth[metres])
    np.testing.assert_array_equal(part.scl, scene.scl[cells])
    assert np.abs(part.aerial.astype(int) - scene.aerial[metres]).max() <= 1
    assert np.abs(part.s2.astype(int) - scene.s2[cells]).max() <= 1
    np.testing.assert_allclose(part.s1, scene.s1[cells], atol=1e-3)


@pytest.fixture(scope="module")
def pieces() -> list[Scene]:
    return list(simulate_tiles(SPEC, 200))


def test_pieces_keep_the_parcel_numbers_of_the_whole(scene: Scene, pieces: list[Scene]) -> None:
    left, top = scene.origin
    assert len(pieces) == 4
    for piece in pieces:
        row, col = top - piece.origin[1], piece.origin[0] - left
        rows, cols = piece.parcel_ids.shape
        whole = scene.parcel_ids[row : row + rows, col : col + cols]
        np.testing.assert_array_equal(piece.parcel_ids, whole)


def test_dates_are_strictly_ascending_and_of_the_year(scene: Scene) -> None:
    for dates in (scene.s2_dates, scene.s1_dates):
        assert dates.dtype == np.dtype("datetime64[D]")
        assert (np.diff(dates) > np.timedelta64(0, "D")).all()
        assert {str(day)[:4] for day in dates} == {"2023"}
    assert set(scene.s1_orbit) == {"ascending", "descending"}
    assert np.datetime64("2023-07-01") <= scene.aerial_date <= np.datetime64("2023-08-31")


def test_values_lie_in_their_physical_range(scene: Scene) -> None:
    assert scene.s2.min() >= 1
    assert scene.s2.max() < 15_000
    assert scene.aerial.min() >= 1
    assert -40 < scene.s1.min() < scene.s1.max() < 25
    assert set(np.unique(scene.scl)) <= {3, 4, 5, 6, 7, 8, 9, 10}
    assert set(np.unique(scene.truth)) <= set(sim_legend().codes)


def test_parcels_are_the_numbered_pixels_with_their_class(scene: Scene) -> None:
    assert {parcel.id for parcel in scene.parcels} == set(np.unique(scene.parcel_ids)) - {0}
    for parcel in scene.parcels:
        inside = scene.parcel_ids == parcel.id
        assert set(scene.truth[inside]) == {parcel.class_code}
        assert inside.sum() <= parcel.geometry.area + parcel.geometry.length


@pytest.fixture(scope="module")
def countryside() -> Landscape:
    frame = SceneSpec(10, 2200, 2200).frame
    return landscape(10, frame, frame)


def test_every_class_appears_within_a_few_square_kilometres(countryside: Landscape) -> None:
    seen = countryside.painted(fields.Pixels(countryside.frame, 5.0))
    assert np.unique(countryside.classes[seen]).tolist() == list(sim_legend().codes)


def test_parcels_have_the_areas_of_real_farmland(countryside: Landscape) -> None:
    shapes = countryside.shapes[countryside.parcel > 0]
    hectares = shapely.area(shapes) / 1e4
    assert 0.5 < np.median(hectares) < 3
    assert hectares.max() < 25


def test_neighbouring_districts_state_the_same_road() -> None:
    site = (1444, 15140)
    for border in layout.borders(8, site, layout.cell(8, site)):
        back = layout.borders(8, border.other, layout.cell(8, border.other))
        twin = next(other for other in back if other.other == site)
        assert (twin.width, twin.cover, twin.key) == (border.width, border.cover, border.key)
        np.testing.assert_allclose(np.sort(twin.ends, 0), np.sort(border.ends, 0), atol=1e-6)


def test_barley_ripens_two_to_three_weeks_before_wheat() -> None:
    days = np.arange(120.0, 220.0)
    half = [days[np.argmax(ndvi_of(crop, days) < 0.5)] for crop in (Cover.BARLEY, Cover.WHEAT)]
    assert 12 <= half[1] - half[0] <= 24


def test_winter_cereals_look_alike_in_the_middle_of_july() -> None:
    day = np.array([203.0])
    assert abs(ndvi_of(Cover.BARLEY, day) - ndvi_of(Cover.WHEAT, day))[0] < 0.1


def test_crops_are_green_in_their_own_season() -> None:
    day = {name: np.array([float(value)]) for name, value in (("april", 110), ("july", 200))}
    for crop in (Cover.WHEAT, Cover.BARLEY, Cover.RAPESEED):
        assert ndvi_of(crop, day["april"])[0] > 0.55, "rapeseed in flower looks less green"
        assert ndvi_of(crop, day["july"])[0] < 0.45
    for crop in (Cover.MAIZE, Cover.SUNFLOWER, Cover.BEET):
        assert ndvi_of(crop, day["april"])[0] < 0.35
        assert ndvi_of(crop, day["july"])[0] > 0.7


def test_rapeseed_flowers_yellow_in_april() -> None:
    land, days = fields_of(Cover.RAPESEED), np.array([85.0, 110.0])
    state = canopy(3, land, calendar(3, land), days)
    mean = np.median(spectra.reflectance(3, land, state, np.full(2, 0.4)).mean, axis=0)
    blue, green, red = mean[1, :3] - mean[0, :3]
    assert min(green, red) > 0.03
    assert green > 2 * blue


def test_backscatter_follows_the_crop_stages_of_the_literature() -> None:
    days, wheat = radar_of(Cover.WHEAT)
    assert between(days, wheat[:, 0], 125, 150) < between(days, wheat[:, 0], 20, 60) - 3
    days, maize = radar_of(Cover.MAIZE)
    assert between(days, maize[:, 1], 200, 240) > between(days, maize[:, 1], 100, 130) + 3
    days, rape = radar_of(Cover.RAPESEED)
    ratio = rape[:, 1] - rape[:, 0]
    assert between(days, ratio, 150, 175) > between(days, ratio, 20, 50) + 1.5
    days, forest = radar_of(Cover.DECIDUOUS)
    assert np.ptp(forest[:, 0]) < 3
    _, water = radar_of(Cover.WATER)
    assert water[:, 0].mean() < -16


def test_speckle_has_the_looks_of_a_ground_range_product() -> None:
    frame = Frame(0, 0, 1000, 1000)
    pixels = fields.Pixels(frame, 10)
    painted = np.zeros((1000, 1000), np.int32)
    parts = sentinel2.shares(painted, pixels, 1)
    year = weather.radar_year(1, 2023)
    level = np.full((1, len(year.days), 2), -10.0, np.float32)
    power = 10 ** (sentinel1.observe_radar(1, parts, level, year) / 10)
    ratio = power / power.mean(axis=(2, 3), keepdims=True)
    # texture adds a little variance to that of 4.4 looks
    assert 3.6 < 1 / ratio.var() < 4.8
    assert abs(10 * np.log10(power.mean()) + 10) < 0.3


def test_clouds_are_bright_and_mostly_labelled(scene: Scene) -> None:
    clear = np.isin(scene.scl, CLEAR)
    assert 0.2 < clear.mean() < 0.75
    blue = scene.s2[:, 0]
    assert np.median(blue[scene.scl == 9]) > 4 * np.median(blue[clear])
    assert np.percentile(blue[clear], 99.9) > 1500, "the labels are as imperfect as Sen2Cor's"


def test_shares_of_surfaces_sum_to_one() -> None:
    painted = np.random.default_rng(0).integers(0, 5, (60, 40)).astype(np.int32)
    parts = sentinel2.shares(painted, fields.Pixels(Frame(0, 60, 40, 60), 10), 5)
    np.testing.assert_allclose(parts.matrix.sum(axis=1), 1, rtol=1e-5)
    mixed = parts.mix(np.arange(5, dtype=np.float32))
    np.testing.assert_allclose(mixed[0, 0], painted[:10, :10].mean(), rtol=1e-5)


@given(
    seed=st.integers(0, 2**40),
    spacing=st.floats(2, 500),
    right=st.integers(0, 60),
    down=st.integers(0, 60),
)
def test_noise_depends_on_the_place_alone(seed: int, spacing: float, right: int, down: int) -> None:
    whole = fields.Pixels(Frame(650_000, 6_850_000, 80, 80), 1.0)
    part = fields.Pixels(Frame(650_000 + right, 6_850_000 - down, 80 - right, 80 - down), 1.0)
    expected = fields.smooth(seed, 1, whole, spacing)[down:, right:]
    np.testing.assert_allclose(fields.smooth(seed, 1, part, spacing), expected, atol=2e-5)


def test_uniform_numbers_never_reach_zero_or_one() -> None:
    edges = fields._to_unit(np.array([0, 2**32 - 1], np.uint32))
    assert 0 < edges[0] < edges[1] < 1


def test_noise_has_unit_variance() -> None:
    pixels = fields.Pixels(Frame(0, 0, 2000, 2000), 5.0)
    assert abs(fields.smooth(1, 2, pixels, 20.0).std() - 1) < 0.05
    assert abs(fields.white(1, 2, pixels.rows, pixels.cols).mean() - 0.5) < 0.01


def test_every_cover_has_a_class_and_the_legend_counts_from_zero() -> None:
    assert len(CLASS_OF_COVER) == len(Cover)
    assert set(CLASS_OF_COVER) == set(sim_legend().codes)
    assert sim_legend().codes == tuple(range(15))


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"width_m": 645},
        {"height_m": 0},
        {"aerial_gsd": 0.3},
        {"aerial_gsd": 0.1},
        {"aerial_gsd": 0.0},
        {"year": 1990},
        {"origin": (5, 10)},
    ],
)
def test_an_impossible_scene_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(JobError):
        replace(SPEC, **wrong)


def test_the_aerial_file_ends_where_the_flight_did(written: Path, scene: Scene) -> None:
    with rasterio.open(written / "aerial.tif") as file:
        assert file.crs.to_epsg() == 2154
        assert (file.width, file.height, file.count, file.nodata) == (240, 300, 4, None)
        assert (file.transform.c, file.transform.f) == scene.origin
        assert file.descriptions == ("red", "green", "blue", "nir")
        assert file.colorinterp[3] is not ColorInterp.alpha
        error = np.abs(file.read().astype(int) - scene.aerial[:, :, :240])
    assert error.mean() < 4, "JPEG"


def test_the_cubes_open_in_xarray_with_crs_and_pixel_centres(written: Path, scene: Scene) -> None:
    left, top = scene.origin
    for name, dates in (("s2", scene.s2_dates), ("s1", scene.s1_dates)):
        with xr.open_dataset(written / f"{name}.nc", engine="h5netcdf") as cube:
            assert cube.rio.crs.to_epsg() == 2154
            assert cube.rio.bounds() == (left, top - 300, left + 320, top)
            assert cube.x[0] == left + 5
            assert cube.y[0] == top - 5
            np.testing.assert_array_equal(cube.time.values.astype("datetime64[D]"), dates)


def test_the_cubes_hold_the_scene(written: Path, scene: Scene) -> None:
    with xr.open_dataset(written / "s2.nc", engine="h5netcdf", mask_and_scale=False) as cube:
        np.testing.assert_array_equal(cube.B8A.values, scene.s2[:, 7])
        np.testing.assert_array_equal(cube.SCL.values, scene.scl)
        assert cube.B02.attrs["_FillValue"] == 0
    with xr.open_dataset(written / "s1.nc", engine="h5netcdf") as cube:
        np.testing.assert_allclose(cube.VH.values[:, :18], scene.s1[:, 1, :18], atol=0.0101)
        assert np.isnan(cube.VH.values[:, 18:]).all()
        assert cube.orbit_state.values.tolist() == scene.s1_orbit.tolist()


def test_the_truth_files_carry_names_and_colours(written: Path, scene: Scene) -> None:
    with rasterio.open(written / "labels.tif") as file:
        np.testing.assert_array_equal(file.read(1), scene.truth)
        assert file.nodata == 255
        assert file.colormap(1)[3][:3] == sim_legend().classes[3].rgb
    assert "winter barley" in (written / "labels.tif.aux.xml").read_text(encoding="utf-8")
    parcels = gpd.read_file(written / "parcels.gpkg")
    assert parcels.crs.to_epsg() == 2154
    assert parcels["id"].tolist() == [parcel.id for parcel in scene.parcels]
    assert parcels.geometry.is_valid.all()


def test_the_area_lies_inside_the_scene_and_states_its_crs(written: Path, scene: Scene) -> None:
    area = gpd.read_file(written / "aoi.geojson")
    assert area.crs.to_epsg() == 2154
    left, bottom, right, top = scene.spec.frame.bounds
    assert shapely.box(left, bottom, right, top).contains(area.geometry[0])
    crs = json.loads((written / "aoi.geojson").read_text())["crs"]
    assert crs["properties"]["name"] == "urn:ogc:def:crs:EPSG::2154"


def test_pieces_write_the_same_series_and_truth_as_the_whole(
    written: Path, pieces: list[Scene], tmp_path: Path
) -> None:
    gaps = Layout(Gap("east", 0.25), Gap("south", 0.4))
    write_scenes(SPEC, pieces, tmp_path, gaps)
    for name in ("s2.nc", "s1.nc"):
        with (
            xr.open_dataset(tmp_path / name, engine="h5netcdf") as joined,
            xr.open_dataset(written / name, engine="h5netcdf") as whole,
        ):
            xr.testing.assert_allclose(joined, whole, atol=1.1 if name == "s2.nc" else 0.021)
    both = [gpd.read_file(folder / "parcels.gpkg") for folder in (tmp_path, written)]
    np.testing.assert_allclose(both[0].area, both[1].area, rtol=1e-6)


def test_the_same_scene_is_written_as_the_same_bytes(
    written: Path, scene: Scene, tmp_path: Path
) -> None:
    write_scene(scene, tmp_path, Layout(Gap("east", 0.25), Gap("south", 0.4)))
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name


def test_an_existing_scene_is_not_replaced_unasked(written: Path, tmp_path: Path) -> None:
    refuse_existing(tmp_path)
    with pytest.raises(OutputExistsError, match=r"aerial\.tif"):
        refuse_existing(written)


@pytest.mark.parametrize("text", ["east", "up:20", "east:0", "east:100", "east:x", "north:-5"])
def test_a_gap_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="gap"):
        read_gap(text)


@given(side=st.sampled_from(["north", "south", "east", "west"]), share=st.floats(0.1, 0.9))
def test_a_gap_leaves_part_of_the_frame(side: str, share: float) -> None:
    frame = Frame(600_000, 6_800_000, 800, 1000)
    seen = Gap(side, share).seen(frame)
    assert shapely.box(*frame.bounds).contains(shapely.box(*seen.bounds))
    lost = 1 - seen.width * seen.height / (frame.width * frame.height)
    assert abs(lost - share) < 0.05


def test_the_command_writes_a_scene_and_refuses_to_write_it_twice(tmp_path: Path) -> None:
    import typer

    from omnisat_cli.cli.simulate import simulate as command

    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "made"
    words = [str(out), "--seed", "3", "--size-km", "0.1", "--aerial-gsd", "1"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert isinstance(CliRunner().invoke(app, words).exception, OutputExistsError)
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
