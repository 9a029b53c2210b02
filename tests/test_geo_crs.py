"""One place names, compares and moves coordinate reference systems."""

from __future__ import annotations

import math

import pyproj
import pytest

from omnisat_cli.errors import AlignmentError
from omnisat_cli.geo.crs import (
    is_geographic,
    is_metric,
    metres,
    metric_crs,
    moved_bounds,
    name_crs,
    same_crs,
    short_crs,
)

UTM_WITH_SHIFT = "+proj=utm +zone=31 +ellps=WGS84 +towgs84=0,0,0,0,0,0,0 +units=m +no_defs"
LOST_LAMBERT = """PROJCS["RGF93 / EPSG:2154",GEOGCS["unknown",
DATUM["Not_specified_based_on_GRS_1980_spheroid",
SPHEROID["GRS 1980",6378137,298.257222101]],PRIMEM["Greenwich",0],
UNIT["degree",0.0174532925199433]],PROJECTION["Lambert_Conformal_Conic_2SP"],
PARAMETER["latitude_of_origin",46.5],
PARAMETER["central_meridian",3],PARAMETER["standard_parallel_1",49],
PARAMETER["standard_parallel_2",44],PARAMETER["false_easting",700000],
PARAMETER["false_northing",6600000],UNIT["metre",1]]"""


@pytest.mark.parametrize(
    "text",
    [
        "EPSG:2154",
        "epsg:2154",
        "urn:ogc:def:crs:EPSG::2154",
        pyproj.CRS.from_epsg(2154).to_wkt(),
        pyproj.CRS.from_epsg(2154).to_wkt("WKT1_ESRI"),
        "EPSG:2154+5720",
    ],
)
def test_one_system_has_one_name_however_it_is_written(text: str) -> None:
    assert name_crs(text) == ("EPSG:2154", "")


def test_a_datum_shift_of_wkt_1_hides_no_code() -> None:
    bound = pyproj.CRS.from_user_input(UTM_WITH_SHIFT)
    assert bound.is_bound
    name, _ = name_crs(bound.to_wkt())
    assert not pyproj.CRS.from_user_input(name).is_bound


def test_a_lost_datum_is_recognised_by_the_projection_and_said() -> None:
    name, remark = name_crs(LOST_LAMBERT)
    assert name == "EPSG:2154"
    assert "1 cm" in remark


def test_what_has_no_code_keeps_its_wkt_and_a_short_name() -> None:
    own = LOST_LAMBERT.replace('meridian",3]', 'meridian",3.1]').replace("EPSG:2154", "ours")
    name, remark = name_crs(own)
    assert name.startswith("PROJCRS")
    assert remark == ""
    assert len(short_crs(name)) < 24
    assert short_crs("EPSG:2154") == "EPSG:2154"


@pytest.mark.parametrize("text", ["EPSG:banana", "EPSG:999999", "", "PROJCRS[", "\ud800"])
def test_what_is_no_crs_is_refused_with_the_way_to_say_it(text: str) -> None:
    with pytest.raises(AlignmentError, match="EPSG:n"):
        name_crs(text)


def test_units_are_told_apart() -> None:
    assert [is_metric(crs) for crs in ("EPSG:2154", "EPSG:4326", "EPSG:2263")] == [
        True,
        False,
        False,
    ]
    assert [is_geographic(crs) for crs in ("EPSG:2154", "EPSG:4326")] == [False, True]
    assert same_crs("EPSG:4326", "OGC:CRS84")  # they differ in the order of their axes
    assert not same_crs("EPSG:4326", "EPSG:2154")


def test_a_pixel_is_measured_in_metres_whatever_its_unit() -> None:
    assert metres("EPSG:2154", 0.2, 0.3, 6.6e6) == 0.3
    assert metres("EPSG:2263", 1.0, 1.0, 0.0) == pytest.approx(0.3048, rel=1e-4)  # feet
    degree = 6_371_008.8 * math.pi / 180
    assert metres("EPSG:4326", 1.0, 0.1, 60.0) == pytest.approx(degree / 2)


def test_bounds_move_and_come_back_larger() -> None:
    bounds = (700000.0, 6600000.0, 701000.0, 6601000.0)
    assert moved_bounds(bounds, "EPSG:2154", "EPSG:2154") is bounds
    back = moved_bounds(moved_bounds(bounds, "EPSG:2154", "EPSG:4326"), "EPSG:4326", "EPSG:2154")
    assert back[0] <= bounds[0] + 1e-6 < bounds[2] <= back[2] + 1e-6
    with pytest.raises(AlignmentError, match="does not exist in EPSG:2154"):
        moved_bounds((1e9, 1e9, 2e9, 2e9), "EPSG:32631", "EPSG:2154")


def test_degrees_get_the_utm_zone_they_lie_in() -> None:
    assert metric_crs("EPSG:2154", (0, 0, 1, 1)) == "EPSG:2154"
    assert metric_crs("EPSG:4326", (2.9, 46, 3.1, 47)) == "EPSG:32631"
    assert metric_crs("EPSG:4326", (179, -20, 180, -19)) == "EPSG:32760"
