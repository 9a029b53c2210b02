"""Dates however a file writes them: found, sorted, filtered, or refused with what to pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cube_files as files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.sources.cubes import CubeOptions, open_cube
from omnisat_cli.sources.dates import parse_times, read_dates_file

if TYPE_CHECKING:
    from pathlib import Path

DAYS = np.array(["2018-12-31", "2020-02-29", "2023-07-12"], dtype="datetime64[D]")


def since(reference: str, unit: str) -> np.ndarray:
    return (DAYS - np.datetime64(reference, "D")).astype(f"timedelta64[{unit}]").astype(np.int64)


@pytest.mark.parametrize(
    ("values", "units"),
    [
        (since("1990-01-01", "D"), "days since 1990-01-01"),
        (since("1990-01-01", "D") + 0.43, "days since 1990-01-01 00:00:00"),
        (since("1970-01-01", "s") + 37_000, "seconds since 1970-01-01"),
        (since("2000-01-01", "h"), "hours since 2000-01-01T00:00:00Z"),
        (since("1970-01-01", "ms"), "milliseconds since 1970-01-01"),
        (since("2010-01-01", "m"), "minutes since 2010-01-01 00:00:00 UTC"),
    ],
)
def test_cf_times_of_any_unit_are_days(values: np.ndarray, units: str) -> None:
    np.testing.assert_array_equal(parse_times(values, {"units": units}).days, DAYS)


def test_years_and_months_are_steps_of_the_calendar() -> None:
    years = parse_times(np.array([0.0, 3.0]), {"units": "years since 2017-03-01"})
    np.testing.assert_array_equal(years.days, np.array(["2017-03-01", "2020-03-01"], "M8[D]"))
    months = parse_times(np.array([1, 14]), {"units": "months since 2017-01-15"})
    np.testing.assert_array_equal(months.days, np.array(["2017-02-15", "2018-03-15"], "M8[D]"))
    with pytest.raises(SourceError, match="fractions"):
        parse_times(np.array([0.5]), {"units": "years since 2017-03-01"})


@pytest.mark.parametrize(
    "written",
    [
        ["2018-12-31", "2020-02-29", "2023-07-12"],
        ["20181231", "20200229", "20230712"],
        ["2018-12-31T10:50:31Z", "2020-02-29T10:50:31.024Z", "2023-07-12T10:50:31Z"],
        ["2018/12/31", "2020/2/29", "2023/7/12"],
        ["S2A_MSIL2A_20181231T104431_N0211", "S2B_MSIL2A_20200229T104021_N0214",
         "S2B_MSIL2A_20230712T104629_N0509"],
    ],
)  # fmt: skip
def test_dates_written_as_text_are_read(written: list[str]) -> None:
    for values in (np.array(written), np.array(written, dtype="S40"), np.array(written, object)):
        times = parse_times(values, {})
        np.testing.assert_array_equal(times.days, DAYS)
        assert times.zone == ""


@given(st.dates(np.datetime64("1985-01-01").item(), np.datetime64("2099-12-31").item()))
def test_a_day_is_the_same_in_every_form(day: object) -> None:
    wanted = np.array([str(day)], dtype="datetime64[D]")
    plain = int(str(day).replace("-", ""))
    ordinal = (wanted - np.datetime64("1970-01-01")).astype(np.int64) + 719_163
    for values, attributes in (
        (wanted.astype("datetime64[ns]"), {}),
        (np.array([plain]), {}),
        (np.array([plain], dtype=np.float64), {}),
        (ordinal, {}),
        (np.array([f"{day}T23:59:59Z"]), {}),
        ((wanted - np.datetime64("1990-01-01")).astype(int), {"units": "days since 1990-1-1"}),
    ):
        np.testing.assert_array_equal(parse_times(values, attributes).days, wanted)


def test_a_foreign_time_zone_is_dropped_and_named() -> None:
    assert parse_times(np.array(["2023-07-12T23:30:00+02:00"]), {}).zone == "+02:00"


@pytest.mark.parametrize(
    ("values", "attributes", "words"),
    [
        (np.array([12, 45, 190]), {}, "not dates"),
        (np.array([0.5]), {}, "not dates"),
        (np.array(["July"]), {}, "no date in"),
        (np.array(["2023-02-30"]), {}, "not a date of the calendar"),
        (np.array([1.0]), {"units": "days since 2000-01-01", "calendar": "noleap"}, "noleap"),
        (np.array([1.0]), {"units": "fortnights since 2000-01-01"}, "fortnights"),
        (np.array([1.0, np.nan]), {"units": "days since 2000-01-01"}, "1 of 2 dates are missing"),
        (np.array([1, -9]), {"units": "days since 2000-01-01", "_FillValue": -9}, "missing"),
    ],
)
def test_what_is_no_date_is_refused(values: np.ndarray, attributes: dict, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        parse_times(values, attributes)


def test_a_dates_file_replaces_the_time_axis(tmp_path: Path) -> None:
    scene = files.make_scene(dates=3)
    path = files.save(files.plain(scene).drop_vars("time"), tmp_path / "cube.nc")
    with pytest.raises(SourceError, match="pass --dates FILE with 3 lines"):
        open_cube("s2", path, files.LATTICE)
    listed = tmp_path / "dates.txt"
    listed.write_text("# acquisitions\n20230101\n\n2023-02-01,clear\n2023-03-01T10:00:00Z\n")
    source = open_cube("s2", path, files.LATTICE, CubeOptions(dates_file=listed))
    assert source.dates.astype(str).tolist() == ["2023-01-01", "2023-02-01", "2023-03-01"]
    listed.write_text("20230101\n20230102\n")
    with pytest.raises(SourceError, match="lists 2 dates for 3 images"):
        open_cube("s2", path, files.LATTICE, CubeOptions(dates_file=listed))
    listed.write_text("20230101\nyesterday\n20230102\n")
    with pytest.raises(SourceError, match="yesterday"):
        read_dates_file(listed)
    with pytest.raises(SourceError, match="cannot be read"):
        read_dates_file(tmp_path / "absent.txt")


def test_dates_out_of_order_are_sorted_and_this_is_said(tmp_path: Path) -> None:
    scene = files.make_scene(dates=4)
    order = [2, 0, 3, 1]
    path = files.save(files.plain(scene).isel(time=order), tmp_path / "cube.nc")
    source = open_cube("s2", path, files.LATTICE)
    series = source.read(scene.window)
    np.testing.assert_array_equal(series.pixels, scene.pixels)
    np.testing.assert_array_equal(series.dates, scene.days)
    assert any(d.value == "sorted" for d in source.decisions)


def test_duplicate_days_are_refused_then_merged_as_asked(tmp_path: Path) -> None:
    scene = files.make_scene(dates=3)
    pixels = scene.pixels.copy()
    pixels[0, :, 0] = 0  # the first image of the day has no first row
    days = scene.days.copy()
    days[1] = days[0]
    path = files.save(files.plain(replace(scene, pixels=pixels, days=days)), tmp_path / "cube.nc")
    with pytest.raises(SourceError, match=r"1 days have more than one image \(2023-05-02\)"):
        open_cube("s2", path, files.LATTICE)
    first = open_cube("s2", path, files.LATTICE, CubeOptions(duplicate_dates="first"))
    series = first.read(scene.window)
    assert series.pixels.shape[0] == 2
    np.testing.assert_array_equal(series.pixels[0, :, 0], pixels[1, :, 0])
    np.testing.assert_array_equal(series.pixels[0, :, 1:], pixels[0, :, 1:])
    mean = open_cube("s2", path, files.LATTICE, CubeOptions(duplicate_dates="mean"))
    series = mean.read(scene.window)
    np.testing.assert_array_equal(series.pixels[0, :, 0], pixels[1, :, 0])
    np.testing.assert_allclose(
        series.pixels[0, :, 1:], pixels[:2, :, 1:].astype(np.float32).mean(axis=0)
    )
    assert series.valid.all()


def test_a_date_range_keeps_both_ends(tmp_path: Path) -> None:
    scene = files.make_scene(dates=5)
    path = files.save(files.plain(scene), tmp_path / "cube.nc")
    wanted = (str(scene.days[1]), str(scene.days[3]))
    source = open_cube("s2", path, files.LATTICE, CubeOptions(date_range=wanted))
    np.testing.assert_array_equal(source.read(scene.window).pixels, scene.pixels[1:4])
    with pytest.raises(SourceError, match="the file holds 2023-05-02 … 2023-06-11"):
        open_cube("s2", path, files.LATTICE, CubeOptions(date_range=("2024-01-01", "2024-12-31")))
    with pytest.raises(JobError, match="before the first"):
        open_cube("s2", path, files.LATTICE, CubeOptions(date_range=("2024-01-01", "2023-12-31")))
    with pytest.raises(JobError, match="write 2024-01-01/2024-12-31"):
        open_cube("s2", path, files.LATTICE, CubeOptions(date_range=("spring", "summer")))


def test_orbits_are_filtered_where_known_and_refused_where_not(tmp_path: Path) -> None:
    scene = files.make_radar()
    dataset = files.plain(scene, scl=False)
    silent = files.save(dataset, tmp_path / "silent.nc")
    assert len(open_cube("s1", silent, files.LATTICE).dates) == 4
    with pytest.raises(SourceError, match="does not tell the orbit"):
        open_cube("s1-asc", silent, files.LATTICE)
    vouched = open_cube("s1-asc", silent, files.LATTICE, CubeOptions(orbit_stated=True))
    assert len(vouched.dates) == 4
    mixed = dataset.assign_coords(
        {"sat:orbit_state": ("time", ["ascending", "descending", "descending", "ascending"])}
    )
    path = files.save(mixed, tmp_path / "mixed.nc")
    for name, kept in (("s1-asc", [0, 3]), ("s1-des", [1, 2]), ("s1", [0, 1, 2, 3])):
        source = open_cube(name, path, files.LATTICE)
        np.testing.assert_array_equal(source.dates, scene.days[kept])
        np.testing.assert_allclose(
            source.read(scene.window).pixels, 10 * np.log10(scene.pixels[kept]), atol=1e-4
        )
    path = files.save(dataset.assign_attrs(orbit_state="DESCENDING"), tmp_path / "des.nc")
    assert len(open_cube("s1-des", path, files.LATTICE).dates) == 4
    with pytest.raises(SourceError, match="all 4 dates are descending"):
        open_cube("s1-asc", path, files.LATTICE, CubeOptions(orbit_stated=True))
