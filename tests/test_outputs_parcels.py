"""Parcels: no gap, no overlap, the same whatever the strips were."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import warnings
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from omnisat_cli.errors import (
    AlignmentError,
    JobError,
    OutputExistsError,
    ResourceError,
    SourceError,
)
from omnisat_cli.outputs.faults import KILLED, VARIABLE
from omnisat_cli.outputs.parcels import writer as writer_module
from omnisat_cli.outputs.parcels.faces import Drawing, PolygonBuilder
from omnisat_cli.outputs.parcels.ground import Pixel
from omnisat_cli.outputs.parcels.regions import Census, Regions, Strip, class_links
from omnisat_cli.outputs.parcels.source import Boundaries
from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize
from omnisat_cli.outputs.products import Category
from omnisat_cli.outputs.sidecars import aux_xml

if TYPE_CHECKING:
    from pathlib import Path

Codes = NDArray[np.uint8]
LEFT, TOP, SIDE = 650_000.0, 6_830_000.0, 2.0

small_maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([1, 1, 2, 3, 255]))
)


def strips(codes: Codes, rows: int) -> list[Strip]:
    right, down = class_links(codes)
    return [
        Strip(top, codes[top : top + rows], right[top : top + rows], down[top : top + rows])
        for top in range(0, len(codes), rows)
    ]


def draw(
    codes: Codes, rows: int, minimum: int = 0, tolerance: float = 0, smooth: float = 0
) -> tuple[Regions, list[int], NDArray[np.object_]]:
    census, labels = Census(codes.shape[1], minimum), Census(codes.shape[1])
    for strip in strips(codes, rows):
        census.add(strip)
    regions = census.finish()
    drawing = Drawing(Pixel(1, 1), tolerance, smooth)
    builder = PolygonBuilder(codes.shape, regions, drawing)
    numbers: list[int] = []
    polygons: list[object] = []
    for strip in strips(codes, rows):
        found, drawn = builder.add(regions.of_label[labels.number(strip)])
        numbers += found.tolist()
        polygons += list(drawn)
    return regions, numbers, np.array(polygons, dtype=object)


def overlap(polygons: NDArray[np.object_]) -> float:
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    pairs = one < other
    common = shapely.intersection(polygons[one[pairs]], polygons[other[pairs]])
    return float(shapely.area(common).sum())


def fields(side: int, seed: int = 0) -> Codes:
    """A smooth map of four classes with a hole in it."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side]
    waves = sum(
        np.sin(rows * a + cols * b + c) for a, b, c in rng.uniform(-0.35, 0.35, (5, 3)) * [1, 1, 9]
    )
    codes = np.digitize(waves, [-1, 0, 1]).astype(np.uint8)
    codes[side // 2 : side // 2 + 5, side // 3 : side // 3 + 7] = 255
    return codes


def write_map(path: Path, codes: Codes, **changes: object) -> Path:
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": codes.shape[0],
        "width": codes.shape[1],
        "nodata": 255,
        "crs": "EPSG:2154",
        "transform": rasterio.Affine(SIDE, 0, LEFT, 0, -SIDE, TOP),
    }
    with rasterio.open(path, "w", **(profile | changes)) as file:
        file.write(codes, 1)
    return path


def layer_of(path: Path) -> str | None:
    return "parcels" if path.suffix == ".gpkg" else None


def feature_count(path: Path) -> int:
    info = pyogrio.read_info(path, layer=layer_of(path), force_feature_count=True)
    return int(info["features"])


def read(path: Path) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.object_]]:
    meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer_of(path))
    return dict(zip(meta["fields"], columns, strict=True)), shapely.from_wkb(geometry)


@given(codes=small_maps, rows=st.integers(1, 4), minimum=st.sampled_from([0, 3]))
@settings(max_examples=30)
def test_pixel_outlines_cover_every_pixel_once(codes: Codes, rows: int, minimum: int) -> None:
    regions, numbers, polygons = draw(codes, rows, minimum)
    assert len(set(numbers)) == regions.count == len(polygons)
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).tolist() == regions.pixels[numbers].tolist()
    assert shapely.area(polygons).sum() == (codes != 255).sum()
    assert overlap(polygons) == 0


@given(
    codes=small_maps,
    rows=st.integers(1, 4),
    minimum=st.sampled_from([0, 3]),
    tolerance=st.sampled_from([0.8, 1.5, 4.0]),
)
@settings(max_examples=30)
def test_simplified_parcels_leave_no_gap_and_do_not_depend_on_the_strips(
    codes: Codes, rows: int, minimum: int, tolerance: float
) -> None:
    regions, numbers, polygons = draw(codes, len(codes), minimum, tolerance)
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()
    assert overlap(polygons) < 1e-9
    outline = float(shapely.area(shapely.union_all(polygons)))
    assert outline == pytest.approx(float(shapely.area(polygons).sum()), abs=1e-9)
    same_regions, same_numbers, same = draw(codes, rows, minimum, tolerance)
    assert same_numbers == numbers
    assert same_regions.first.tolist() == regions.first.tolist()
    assert shapely.to_wkb(same).tolist() == shapely.to_wkb(polygons).tolist()


def test_a_larger_map_is_a_valid_coverage_with_few_corners_in_any_strips() -> None:
    codes = fields(120)
    _, _, exact = draw(codes, 120)
    _, numbers, light = draw(codes, 120, tolerance=1.5)
    assert shapely.coverage_is_valid(light)
    assert shapely.get_num_coordinates(light).sum() < shapely.get_num_coordinates(exact).sum() / 3
    frame = shapely.box(0, 0, 120, 120)
    gap = shapely.area(frame) - shapely.area(light).sum()
    assert gap == pytest.approx(35, abs=15)  # the hole, its corners cut
    for rows in (7, 50):
        _, again, same = draw(codes, rows, tolerance=1.5)
        assert again == numbers
        assert shapely.to_wkb(same).tolist() == shapely.to_wkb(light).tolist()


def test_single_pixels_stay_squares_and_holes_stay_holes() -> None:
    codes = np.ones((5, 5), np.uint8)
    codes[2, 2], codes[0, 0] = 2, 255
    regions, numbers, polygons = draw(codes, 2, tolerance=2)
    by_first = dict(zip(regions.first[numbers].tolist(), polygons, strict=True))
    assert by_first[12].equals(shapely.box(2, 2, 3, 3))
    assert shapely.get_num_interior_rings(by_first[1]) == 1


def test_diagonal_neighbours_are_two_parcels() -> None:
    _, numbers, polygons = draw(np.array([[1, 255], [255, 1]], np.uint8), 1)
    assert len(numbers) == 2
    assert shapely.is_valid(polygons).all()


def test_small_regions_join_the_neighbour_with_the_longest_border() -> None:
    codes = np.array(
        [[1, 1, 1, 2, 2], [1, 3, 3, 2, 2], [1, 1, 1, 2, 2], [255, 255, 255, 255, 4]], np.uint8
    )
    for rows in (1, 2, 4):
        regions, _, _ = draw(codes, rows, minimum=3)
        assert regions.code.tolist()[1:] == [1, 2]
        assert regions.pixels.tolist()[1:] == [9, 7]
        assert regions.first.tolist()[1:] == [0, 3]
    alone = np.array([[255, 5, 255]], np.uint8)
    assert draw(alone, 1, minimum=3)[0].code.tolist()[1:] == [5]


def two_fields(side: int = 40) -> tuple[Codes, Codes]:
    """One class all over, a boundary line from top to bottom with a gap, and a nodata corner."""
    codes, boundary = np.ones((side, side), np.uint8), np.zeros((side, side), np.uint8)
    codes[:3, :3] = 255
    boundary[:, side // 2 - 1 : side // 2 + 1] = 220
    boundary[side // 2 : side // 2 + 2] = 0
    return codes, boundary


def test_a_boundary_with_a_gap_still_parts_two_fields_of_one_class(tmp_path: Path) -> None:
    codes, boundary = two_fields()
    path = write_map(tmp_path / "map.tif", codes)
    write_map(tmp_path / "map.boundary.tif", boundary)
    plain = {"simplify_m": 0.0}
    columns, polygons = read(vectorize(path, tmp_path / "a.gpkg", ParcelOptions(**plain)).out)
    assert sorted(columns["n_px"].tolist()) == [791, 800]
    assert columns["n_px"].sum() == (codes != 255).sum()
    assert overlap(polygons) == 0
    off = ParcelOptions(**plain, boundaries=Boundaries(use=False))
    columns, _ = read(vectorize(path, tmp_path / "b.gpkg", off).out)
    assert columns["n_px"].tolist() == [1591]


def test_the_parcels_of_fields_do_not_depend_on_the_strips(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    codes = fields(60)
    path = write_map(tmp_path / "map.tif", codes)
    edges = np.where(rng.random((60, 60)) < 0.15, 240, 20).astype(np.uint8)
    edge = write_map(tmp_path / "elsewhere.tif", edges)
    drawn = []
    for rows in (60, 9):
        options = ParcelOptions(
            min_area_m2=40, boundaries=Boundaries(path=edge), overwrite=True, strip_rows=rows
        )
        drawn.append(read(vectorize(path, tmp_path / "p.gpkg", options).out))
    (one, first), (other, second) = drawn
    assert one["id"].tolist() == other["id"].tolist()
    assert one["n_px"].sum() == (codes != 255).sum()
    assert shapely.to_wkb(first).tolist() == shapely.to_wkb(second).tolist()
    assert shapely.is_valid(first).all()
    assert overlap(first) < 1e-6


def test_the_fields_say_what_the_rasters_beside_the_map_say(tmp_path: Path) -> None:
    codes = np.array([[0, 0, 1], [0, 0, 255]], np.uint8)
    path = write_map(tmp_path / "map.tif", codes)
    write_map(tmp_path / "map.confidence.tif", np.array([[90, 80, 70], [60, 255, 9]], np.uint8))
    write_map(tmp_path / "map.validity.tif", np.array([[2, 2, 5], [4, 4, 9]], np.uint8))
    provenance = {
        "model": {"name": "net", "version": "2"},
        "legend": {"id": "pastis-20", "version": "none"},
        "dates": {"s2": ["2023-05-01T10:00", "2023-02-03"], "s1": ["2023-09-09"]},
    }
    (tmp_path / "map.provenance.json").write_text(json.dumps(provenance))
    categories = [Category(0, "é & <field>", (1, 2, 3)), Category(1, "forest", (4, 5, 6))]
    (tmp_path / "map.tif.aux.xml").write_bytes(aux_xml(categories, "class"))
    report = vectorize(path, tmp_path / "parcels.gpkg", ParcelOptions(simplify_m=0))
    columns, polygons = read(report.out)
    row = {name: values[list(columns["class_code"]).index(0)] for name, values in columns.items()}
    assert row["class_name"] == "é & <field>"
    assert (row["id"], row["n_px"], row["area_m2"], row["perimeter_m"]) == (1, 4, 16, 16)
    assert row["area_ha"] == 0.0016
    assert row["conf_mean"] == pytest.approx(76.667, abs=1e-3)
    assert row["conf_std"] == pytest.approx(np.std([90, 80, 60]), abs=1e-3)
    assert (row["valid_mean"], row["valid_std"]) == (3, 1)
    assert row["model"] == "net 2"
    assert str(row["date_start"])[:10] == "2023-02-03"
    assert str(row["date_end"])[:10] == "2023-09-09"
    assert shapely.total_bounds(polygons).tolist() == [LEFT, TOP - 4, LEFT + 6, TOP]


def test_the_geopackage_opens_categorised(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(20))
    out = vectorize(path, tmp_path / "p.gpkg", ParcelOptions(legend="flair-15")).out
    with closing(sqlite3.connect(out)) as database:
        name, qml, default = database.execute(
            "SELECT f_table_name, styleQML, useAsDefault FROM layer_styles"
        ).fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
    assert (name, default, version) == ("parcels", 1, 10200)
    assert 'attr="class_code"' in qml
    assert 'label="swimming pool"' in qml
    assert pyogrio.read_info(out, layer="parcels")["crs"] == "EPSG:2154"


@pytest.mark.parametrize("ending", [".fgb", ".geojson"])
def test_other_formats_hold_the_same_parcels(tmp_path: Path, ending: str) -> None:
    path = write_map(tmp_path / "map.tif", fields(30))
    one, first = read(vectorize(path, tmp_path / "p.gpkg").out)
    other, second = read(vectorize(path, tmp_path / f"é p{ending}").out)
    order, order_2 = np.argsort(one["id"]), np.argsort(other["id"])
    assert one["id"][order].tolist() == other["id"][order_2].tolist()
    assert list(one) == list(other)
    close = shapely.equals_exact(first[order], second[order_2], 1e-6, normalize=True)
    assert close.all()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["map.tif", "p.gpkg", f"é p{ending}"]
    )


def test_strips_do_not_change_the_file(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(60))
    options = {"simplify_m": 3.0, "min_area_m2": 40.0}
    one, first = read(vectorize(path, tmp_path / "a.gpkg", ParcelOptions(**options)).out)
    split = ParcelOptions(**options, strip_rows=7)
    other, second = read(vectorize(path, tmp_path / "b.gpkg", split).out)
    assert shapely.to_wkb(first).tolist() == shapely.to_wkb(second).tolist()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".geojson"])
def test_an_empty_map_gives_an_empty_layer(tmp_path: Path, ending: str) -> None:
    path = write_map(tmp_path / "map.tif", np.full((4, 6), 255, np.uint8))
    report = vectorize(path, tmp_path / f"p{ending}")
    assert report.parcels == 0
    assert feature_count(report.out) == 0


def test_one_class_is_one_rectangle(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", np.full((40, 60), 3, np.uint8))
    _, polygons = read(vectorize(path, tmp_path / "p.gpkg", ParcelOptions(strip_rows=9)).out)
    assert polygons[0].equals(shapely.box(LEFT, TOP - 80, LEFT + 120, TOP))
    assert shapely.get_num_coordinates(polygons[0]) == 5


def test_what_cannot_be_vectorised_is_refused_with_a_reason(tmp_path: Path) -> None:
    codes, out = fields(20), tmp_path / "p.gpkg"
    path = write_map(tmp_path / "map.tif", codes)
    with pytest.raises(SourceError, match=r"does not name: 0 \(\d+ px\)"):
        vectorize(path, out, ParcelOptions(legend="rpg-28"))
    with pytest.raises(JobError, match="no such legend"):
        vectorize(path, out, ParcelOptions(legend="nothing"))
    with pytest.raises(JobError, match="ends in none"):
        vectorize(path, tmp_path / "p.shp")
    with pytest.raises(JobError, match="--min-area"):
        ParcelOptions(min_area_m2=float("nan"))
    with pytest.raises(AlignmentError, match="beyond a pole"):
        vectorize(write_map(tmp_path / "deg.tif", codes, crs="EPSG:4326"), out)
    with pytest.raises(AlignmentError, match="no CRS"):
        vectorize(write_map(tmp_path / "no.tif", codes, crs=None), out)
    with pytest.raises(SourceError, match="whole numbers"):
        vectorize(write_map(tmp_path / "float.tif", codes, dtype="float32"), out)
    wide = write_map(tmp_path / "wide.tif", codes.astype(np.uint16) + 300, dtype="uint16")
    with pytest.raises(SourceError, match="0 to 254"):
        vectorize(wide, out)
    write_map(tmp_path / "map.confidence.tif", codes[:-1])
    with pytest.raises(AlignmentError, match="grid"):
        vectorize(path, out)
    assert not out.exists()


def test_an_existing_file_stays_until_it_is_replaced_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write_map(tmp_path / "map.tif", fields(20)), tmp_path / "p.gpkg"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        vectorize(path, out)

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "store_style", full)
        with pytest.raises(ResourceError, match="no space left"):
            vectorize(path, out, ParcelOptions(overwrite=True))
    assert out.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "p.gpkg"]
    vectorize(path, out, ParcelOptions(overwrite=True))
    assert feature_count(out) > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("point", ["mid-mosaic:2", "mid-part", "before-replace"])
def test_a_kill_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    path, out = write_map(tmp_path / "map.tif", fields(20)), tmp_path / "p.gpkg"
    out.write_bytes(b"mine")
    monkeypatch.setenv(VARIABLE, point)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of numpy are idle here
        child = os.fork()
    if not child:
        try:
            vectorize(path, out, ParcelOptions(overwrite=True, strip_rows=5))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    assert out.read_bytes() == b"mine"


def test_a_full_disk_ends_with_a_resource_error(tmp_path: Path) -> None:
    path, out = write_map(tmp_path / "map.tif", fields(60)), tmp_path / "p.gpkg"
    out.write_bytes(b"mine")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(ResourceError, match="no space left"):
            vectorize(path, out, ParcelOptions(overwrite=True, simplify_m=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "p.gpkg"]
