from __future__ import annotations

import contextlib
import json
import pickle
import sys
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.errors import AlignmentError, JobError, OmnisatError, SecurityError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.sources.aoi import Area, area_of, read_aoi
from omnisat_cli.sources.area_ground import check_overlap, ground_apart, meets, rasterize_area

if TYPE_CHECKING:
    from pathlib import Path

CRS = "EPSG:2154"
LATTICE = Lattice(CRS, 10.0)
SQUARE = [[700000, 6600000], [701000, 6600000], [701000, 6601000], [700000, 6601000]]
SQUARE.append(SQUARE[0])
LEGACY = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}


def geojson(*geometries: object, crs: object = LEGACY) -> str:
    tree: dict[str, object] = {"type": "FeatureCollection"}
    if crs is not None:
        tree["crs"] = crs
    tree["features"] = [
        {"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries
    ]
    return json.dumps(tree)


def polygon(*rings: object) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": list(rings)}


def save(tmp_path: Path, text: str) -> Path:
    place = tmp_path / "aoi é.geojson"
    place.write_text(text, encoding="utf-8")
    return place


def test_the_old_crs_member_is_honoured(tmp_path: Path) -> None:
    area = read_aoi(save(tmp_path, geojson(polygon(SQUARE))), None, target_crs=CRS)
    assert area.bounds == (700000, 6600000, 701000, 6601000)
    assert area.km2 == 1
    assert area.decisions[0].value == CRS


def test_metres_without_a_crs_are_refused_with_the_flag(tmp_path: Path) -> None:
    place = save(tmp_path, geojson(polygon(SQUARE), crs=None))
    with pytest.raises(AlignmentError, match="--aoi-crs EPSG:2154"):
        read_aoi(place, None, target_crs=CRS)
    assert read_aoi(place, None, target_crs=CRS, aoi_crs="EPSG:2154").km2 == 1


def test_degrees_called_metres_are_refused(tmp_path: Path) -> None:
    ring = [[2, 46], [2.1, 46], [2.1, 46.1], [2, 46]]
    place = save(tmp_path, geojson(polygon(ring)))
    with pytest.raises(AlignmentError, match="--aoi-crs EPSG:4326"):
        read_aoi(place, None, target_crs=CRS)
    with pytest.raises(AlignmentError, match="--bbox-crs EPSG:4326"):
        read_aoi(None, (2, 46, 3, 47), target_crs=CRS)
    area = read_aoi(place, None, target_crs=CRS, aoi_crs="EPSG:4326")
    assert 30 < area.km2 < 50


def test_swapped_degrees_are_refused(tmp_path: Path) -> None:
    ring = [[46, 102], [46.1, 102], [46.1, 102.1], [46, 102]]
    with pytest.raises(AlignmentError, match="swapped"):
        read_aoi(save(tmp_path, geojson(polygon(ring), crs=None)), None, target_crs=CRS)


@pytest.mark.parametrize("driver", ["GPKG", "ESRI Shapefile", "GeoParquet", "GeoJSON"])
def test_every_format_gives_the_same_area(tmp_path: Path, driver: str) -> None:
    frame = geopandas.GeoDataFrame(geometry=[shapely.Polygon(SQUARE)], crs=CRS)
    names = {"GPKG": "a.gpkg", "ESRI Shapefile": "a.shp", "GeoParquet": "a.parquet"}
    place = tmp_path / names.get(driver, "a.geojson")
    if driver == "GeoParquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(place)
    else:
        frame.to_file(place, driver=driver)
    area = read_aoi(place, None, target_crs=CRS)
    np.testing.assert_allclose(area.bounds, (700000, 6600000, 701000, 6601000), atol=1e-6)


def test_geoparquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a.parquet"
    place.write_bytes(b"PAR1" * 10)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match="pip install pyarrow"):
        read_aoi(place, None, target_crs=CRS)


def test_a_shapefile_without_its_prj_is_refused(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(geometry=[shapely.Polygon(SQUARE)], crs=CRS)
    frame.to_file(tmp_path / "a.shp")
    (tmp_path / "a.prj").unlink()
    with pytest.raises(AlignmentError, match=r"\.prj"):
        read_aoi(tmp_path / "a.shp", None, target_crs=CRS)


def test_a_bow_tie_is_repaired_and_said(tmp_path: Path) -> None:
    bow = [[700000, 6600000], [701000, 6601000], [701000, 6600000], [700000, 6601000]]
    area = read_aoi(save(tmp_path, geojson(polygon([*bow, bow[0]]))), None, target_crs=CRS)
    assert area.polygon.is_valid
    assert area.km2 == pytest.approx(0.5)
    assert any(d.warning and "repaired" in d.value for d in area.decisions)


BAD = {
    "null geometry": geojson(None),
    "no feature": geojson(),
    "point": geojson({"type": "Point", "coordinates": [700000, 6600000]}),
    "line": geojson({"type": "LineString", "coordinates": SQUARE}),
    "empty polygon": geojson(polygon()),
    "flat": geojson(polygon([[700000, 6600000], [701000, 6600000], [700000, 6600000]])),
    "NaN": geojson(polygon(SQUARE)).replace("701000", "NaN"),
    "infinite": geojson(polygon(SQUARE)).replace("701000", "1e999"),
    "text": geojson(polygon(SQUARE)).replace("701000", '"x"'),
    "ragged": geojson(polygon([*SQUARE, [1]])),
    "cut": geojson(polygon(SQUARE))[:-40],
    "deep": '{"a":' * 100_000,
    "deep list": geojson(polygon(SQUARE)).replace("[[[", "[" * 100_000),
    "not json": "{hello",
    "empty": "",
    "array": "[1, 2]",
    "other": "<kml/>",
    "crs link": geojson(polygon(SQUARE), crs={"type": "link"}),
    "crs unknown": geojson(polygon(SQUARE), crs={"properties": {"name": "EPSG:999999"}}),
    "two points": geojson(polygon([[700000, 6600000], [701000, 6600000]])),
    "number": geojson(polygon(5)),
}


@pytest.mark.parametrize("case", list(BAD))
def test_malformed_areas_end_in_a_clear_error(tmp_path: Path, case: str) -> None:
    place = save(tmp_path, BAD[case])
    with pytest.raises(SourceError) as caught:
        read_aoi(place, None, target_crs=CRS)
    assert caught.value.exit_code == 3
    assert case == "crs unknown" or str(place) in str(caught.value)


def test_remote_areas_and_disguises_are_refused(tmp_path: Path) -> None:
    for path in ("https://example.com/a.geojson", "/vsicurl/http://x/a.gpkg"):
        with pytest.raises(SecurityError):
            read_aoi(path, None, target_crs=CRS)
    disguised = tmp_path / "a.gpkg"
    disguised.write_text("<OGRVRTDataSource></OGRVRTDataSource>")
    with pytest.raises(SourceError, match="neither"):
        read_aoi(disguised, None, target_crs=CRS)
    (tmp_path / "b.gpkg").write_bytes(b"SQLite format 3\0".ljust(68, b"\0") + b"GPKG" * 50)
    with pytest.raises(SourceError, match="no readable GPKG"):
        read_aoi(tmp_path / "b.gpkg", None, target_crs=CRS)


def test_boxes_are_checked(tmp_path: Path) -> None:
    box = (700000.0, 6600000.0, 701000.0, 6601000.0)
    assert read_aoi(None, box, target_crs=CRS).km2 == 1
    with pytest.raises(JobError, match="LEFT BOTTOM RIGHT TOP"):
        read_aoi(None, (701000, 6600000, 700000, 6601000), target_crs=CRS)
    with pytest.raises(JobError):
        read_aoi(None, (float("nan"), 0, 1, 1), target_crs=CRS)
    with pytest.raises(JobError, match="either"):
        read_aoi(None, None, target_crs=CRS)
    with pytest.raises(JobError, match="either"):
        read_aoi(save(tmp_path, BAD["empty"]), box, target_crs=CRS)
    with pytest.raises(AlignmentError, match="projected"):
        read_aoi(None, (2, 46, 3, 47), target_crs="EPSG:4326")


def test_an_area_far_from_every_input_is_refused_with_the_distance() -> None:
    area = read_aoi(None, (700000, 6600000, 701000, 6601000), target_crs=CRS)
    far = {"aerial": [(710000.0, 6600000.0, 711000.0, 6601000.0)], "s2": []}
    with pytest.raises(AlignmentError, match=r"9 km away.*no ground at all"):
        check_overlap(area, far)
    half = {"aerial": [(700500.0, 6600000.0, 702000.0, 6602000.0)], "s2": far["aerial"]}
    aerial, s2 = check_overlap(area, half)
    assert aerial.value == "aerial covers 50.0% of the area"
    assert s2.warning
    assert "9 km" in s2.because
    assert area_of(half["aerial"], CRS, "aerial").km2 == 3
    with pytest.raises(AlignmentError):
        area_of([], CRS, "nothing")


def test_inputs_that_share_no_ground_are_named() -> None:
    here, beside, far = (0, 0, 100, 100), (100, 0, 200, 100), (50_000, 0, 50_100, 100)
    assert ground_apart({"aerial": [here], "s2": [here, far], "s1": [beside]}) == ()
    assert ground_apart({"aerial": [here]}) == ()
    (apart,) = ground_apart({"aerial": [here], "s2": [beside], "s1": [far]})
    assert apart.warning
    assert apart.value == "s1 lies apart"
    assert "49.8 km from that of the others" in apart.because


def random_area(seed: int) -> Area:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radius = rng.uniform(20, 120, 12)
    ring = np.stack([700_057 + radius * np.cos(angle), 6_600_031 + radius * np.sin(angle)], 1)
    shape = shapely.make_valid(shapely.Polygon(ring))
    hole = shapely.Point(700_057, 6_600_031).buffer(9)
    return Area(shape.difference(hole), CRS, "random")


@given(seed=st.integers(0, 10_000), refine=st.sampled_from([1, 4, 10]))
def test_a_pixel_is_inside_where_its_centre_is(seed: int, refine: int) -> None:
    area = random_area(seed)
    window = LATTICE.window(area.bounds).expanded(2)
    got = rasterize_area(area, LATTICE, window, refine)
    left, _, _, top = LATTICE.bounds(window)
    side = 10.0 / refine
    x = left + side * (np.arange(got.shape[1]) + 0.5)
    y = top - side * (np.arange(got.shape[0]) + 0.5)
    xs, ys = np.meshgrid(x, y)
    near = shapely.distance(area.polygon.boundary, shapely.points(xs, ys)) < 1e-6
    expected = shapely.contains_xy(area.polygon, xs, ys)
    np.testing.assert_array_equal(got | near, expected | near)


@given(seed=st.integers(0, 10_000), row=st.integers(-3, 9), col=st.integers(-3, 9))
def test_the_outline_does_not_depend_on_the_window(seed: int, row: int, col: int) -> None:
    area = random_area(seed)
    window = LATTICE.window(area.bounds).expanded(3)
    whole = rasterize_area(area, LATTICE, window, 5)
    part = Window(window.row + 3 + row, window.col + 3 + col, 7, 5)
    common = part.intersection(window)
    inside = rasterize_area(area, LATTICE, part, 5)[common.refined(5).slices_in(part.refined(5))]
    np.testing.assert_array_equal(inside, whole[common.refined(5).slices_in(window.refined(5))])
    assert meets(area, LATTICE, part) or not rasterize_area(area, LATTICE, part, 5).any()


@given(seed=st.integers(0, 10_000))
def test_neighbouring_areas_share_out_every_pixel_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Half metres put vertices on pixel centres, where a careless rule counts twice or never.
    points = np.round(rng.uniform(0, 100, (6, 2)) * 2) / 2 + (700_000, 6_600_000)
    box = shapely.box(699_990, 6_599_990, 700_110, 6_600_110)
    parts = shapely.get_parts(shapely.delaunay_triangles(shapely.MultiPoint(points)))
    rest = box.difference(shapely.union_all(parts))
    window = LATTICE.window(box.bounds)
    count = np.zeros((window.height * 10, window.width * 10), int)
    for part in [*parts, rest]:
        if part.area > 0:
            count += rasterize_area(Area(part, CRS, ""), LATTICE, window, 10)
    assert (count <= 1).all()
    assert count.sum() >= count.size - 12


def test_blocks_that_only_touch_the_area_do_not_meet_it() -> None:
    area = read_aoi(None, (700000, 6600000, 701000, 6601000), target_crs=CRS)
    inside = LATTICE.window(area.bounds)
    area = pickle.loads(pickle.dumps(area))
    assert meets(area, LATTICE, inside)
    for row, col in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        moved = Window(
            inside.row + row * inside.height, inside.col + col * inside.width, *inside.shape
        )
        assert not meets(area, LATTICE, moved)
        assert not rasterize_area(area, LATTICE, moved, 3).any()
    assert rasterize_area(area, LATTICE, inside, 3).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_a_mutated_area_ends_in_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    place = tmp_path_factory.getbasetemp() / "mutated.geojson"
    rng = np.random.default_rng(seed)
    content = bytearray(geojson(polygon(SQUARE), polygon(SQUARE)).encode())
    for _ in range(int(rng.integers(1, 8))):
        where = int(rng.integers(0, len(content)))
        match int(rng.integers(0, 3)):
            case 0:
                content[where] = int(rng.integers(0, 256))
            case 1:
                del content[where : where + int(rng.integers(1, 40))]
            case _:
                content[where:where] = bytes(rng.choice([*b'[]{},"09e-.N'], 3).astype(np.uint8))
    place.write_bytes(content)
    with contextlib.suppress(OmnisatError):
        read_aoi(place, None, target_crs=CRS)
