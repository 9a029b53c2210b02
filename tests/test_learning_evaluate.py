"""Maps against label rasters: grids, crosswalks, bad input, reports."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.warp
from shapely import Point, box

from omnisat_cli.errors import AlignmentError, JobError, OutputExistsError, SourceError
from omnisat_cli.learning.labelling import rasters
from omnisat_cli.learning.scoring import evaluate as module
from omnisat_cli.learning.scoring.evaluate import TruthRequest, evaluate_map
from omnisat_cli.learning.scoring.metrics import Scores, adjusted
from omnisat_cli.learning.scoring.report import Report, Result, card_figures
from omnisat_cli.learning.scoring.report_files import check_outputs, write_report
from omnisat_cli.learning.scoring.schemes import (
    NO_COUNTERPART,
    crossed_scheme,
    read_crosswalk,
    scheme_classes,
)
from omnisat_cli.outputs.legend import legend
from omnisat_cli.outputs.products import Category
from omnisat_cli.outputs.sidecars import aux_xml

if TYPE_CHECKING:
    from pathlib import Path

LEFT, TOP = 650_000, 6_830_000
NAMES = ("wheat", "maize", "forest")


def write_raster(
    path: Path, codes: np.ndarray, *, at=(LEFT, TOP), pixel=10.0, crs="EPSG:2154", nodata=255
) -> Path:
    profile = {"driver": "GTiff", "count": 1, "dtype": codes.dtype, "crs": crs, "nodata": nodata}
    place = rasterio.Affine(pixel, 0, at[0], 0, -pixel, at[1])
    height, width = codes.shape
    with rasterio.open(
        path, "w", **profile, height=height, width=width, transform=place
    ) as dataset:
        dataset.write(codes, 1)
    return path


def write_map(folder: Path, codes: np.ndarray, **options: object) -> Path:
    path = write_raster(folder / "map.tif", codes, **options)
    named = [Category(k, name, (10 * k, 0, 0)) for k, name in enumerate(NAMES)]
    path.with_name("map.tif.aux.xml").write_bytes(aux_xml(named, "class"))
    return path


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 3, (40, 50), dtype=np.uint8)


@pytest.fixture
def labels(codes: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.where(rng.random(codes.shape) < 0.7, codes, rng.integers(0, 3, codes.shape)).astype(
        np.uint8
    )


def matrix(report: Report) -> np.ndarray:
    return report.results[0].scores.confusion


def expected(labels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    found = np.zeros((3, 3), int)
    np.add.at(found, (labels.ravel(), codes.ravel()), 1)
    return found


def test_every_pixel_counts_once_however_the_map_is_cut(
    tmp_path: Path, codes: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_map(tmp_path, codes)
    request = TruthRequest(write_raster(tmp_path / "labels.tif", labels))
    whole = evaluate_map(path, request)
    np.testing.assert_array_equal(matrix(whole), expected(labels, codes))
    assert whole.names == NAMES
    assert whole.notes == ()
    monkeypatch.setattr(module, "_SIDE", 7)
    monkeypatch.setattr(rasters, "_MOST_READ", 5)
    np.testing.assert_array_equal(matrix(evaluate_map(path, request)), matrix(whole))


def test_labels_on_a_part_of_the_map_are_found_at_their_place(
    tmp_path: Path, codes: np.ndarray, labels: np.ndarray
) -> None:
    path = write_map(tmp_path, codes)
    part = np.full((60, 20), 255, np.uint8)
    part[5:45] = labels[:, 30:]
    place = (LEFT + 300, TOP + 50)
    report = evaluate_map(path, TruthRequest(write_raster(tmp_path / "l.tif", part, at=place)))
    want = np.zeros((3, 3), int)
    np.add.at(want, (part[5:45, :20].ravel(), codes[:, 30:].ravel()), 1)
    np.testing.assert_array_equal(matrix(report), want)
    found = report.results[0].adjusted
    assert found is not None
    again = adjusted(want, np.bincount(codes.ravel()))
    np.testing.assert_allclose(found.share.value, again.share.value)
    assert report.results[0].hectares == pytest.approx(20)


def test_labels_of_other_pixels_are_taken_at_the_centre_of_those_of_the_map(
    tmp_path: Path, codes: np.ndarray, labels: np.ndarray
) -> None:
    path = write_map(tmp_path, codes)
    fine = labels.repeat(5, 0).repeat(5, 1)
    report = evaluate_map(path, TruthRequest(write_raster(tmp_path / "l.tif", fine, pixel=2.0)))
    np.testing.assert_array_equal(matrix(report), expected(labels, codes))
    assert "nearest label" in report.notes[0]


def test_labels_in_another_crs_are_moved_and_that_is_said(tmp_path: Path) -> None:
    codes = np.zeros((40, 50), np.uint8)
    codes[:, 25:] = 1
    path = write_map(tmp_path, codes)
    left, _bottom, right, top = rasterio.warp.transform_bounds(
        "EPSG:2154", "EPSG:4326", LEFT, TOP - 400, LEFT + 500, TOP
    )
    far = np.full((400, 400), 1, np.uint8)
    labels = write_raster(
        tmp_path / "l.tif", far, at=(left, top), pixel=(right - left) / 400, crs="EPSG:4326",
        nodata=None,
    )  # fmt: skip
    report = evaluate_map(path, TruthRequest(labels))
    assert "EPSG:4326" in report.notes[0]
    found = matrix(report)
    assert found[0].sum() == 0  # ground beyond the labels is not code 0
    assert found[1, 1] == pytest.approx(1000, rel=0.05)
    assert found[1, 0] == pytest.approx(1000, rel=0.05)


def test_labels_elsewhere_are_refused_with_the_distance(
    tmp_path: Path, codes: np.ndarray, labels: np.ndarray
) -> None:
    path = write_map(tmp_path, codes)
    away = write_raster(tmp_path / "l.tif", labels, at=(LEFT + 3500, TOP))
    with pytest.raises(AlignmentError, match=r"do not overlap: they are 3 km apart"):
        evaluate_map(path, TruthRequest(away))


def test_codes_outside_the_classes_are_refused_with_a_way_out(
    tmp_path: Path, codes: np.ndarray, labels: np.ndarray
) -> None:
    path = write_map(tmp_path, codes)
    labels = labels.copy()
    labels[:2] = 9
    place = write_raster(tmp_path / "l.tif", labels)
    with pytest.raises(JobError, match=r"9 \(100 pixels\).*\n.*--ignore 9"):
        evaluate_map(path, TruthRequest(place))
    report = evaluate_map(path, TruthRequest(place, ignore=("9",)))
    assert report.results[0].scores.pixels == 38 * 50


def test_what_cannot_be_compared_is_refused(tmp_path: Path, codes: np.ndarray) -> None:
    path = write_map(tmp_path, codes)
    empty = write_raster(tmp_path / "l.tif", np.full_like(codes, 255))
    with pytest.raises(SourceError, match="labels no pixel"):
        evaluate_map(path, TruthRequest(empty))
    nothing = write_map(tmp_path, np.full_like(codes, 255))
    with pytest.raises(SourceError, match="none of the 2000 labelled pixels"):
        evaluate_map(nothing, TruthRequest(write_raster(tmp_path / "l.tif", codes)))
    strange = write_map(tmp_path, codes + np.uint8(7))
    with pytest.raises(SourceError, match="which its legend does not name"):
        evaluate_map(strange, TruthRequest(tmp_path / "l.tif"))
    no_codes = write_raster(tmp_path / "f.tif", codes.astype(np.float32))
    with pytest.raises(SourceError, match="band 1 is of type float32"):
        evaluate_map(path, TruthRequest(no_codes))
    with pytest.raises(JobError, match="is a raster"):
        evaluate_map(path, TruthRequest(tmp_path / "l.tif", field="CODE"))


def test_labels_of_one_class_are_scored_and_said_to_be(tmp_path: Path, codes: np.ndarray) -> None:
    path = write_map(tmp_path, codes)
    report = evaluate_map(path, TruthRequest(write_raster(tmp_path / "l.tif", 0 * codes)))
    assert any("one class only" in text for text in report.notes)
    assert report.results[0].scores.accuracy == pytest.approx((codes == 0).mean())


def test_holes_of_the_map_are_counted(tmp_path: Path, codes: np.ndarray) -> None:
    holed = codes.copy()
    holed[:10] = 255
    report = evaluate_map(
        write_map(tmp_path, holed), TruthRequest(write_raster(tmp_path / "l.tif", codes))
    )
    assert report.results[0].unmapped == 500
    assert any("500 labelled pixels (25 %)" in text for text in report.notes)


def test_a_map_nothing_names_is_compared_by_its_numbers(tmp_path: Path, codes: np.ndarray) -> None:
    path = write_raster(tmp_path / "plain.tif", codes)
    report = evaluate_map(path, TruthRequest(write_raster(tmp_path / "l.tif", codes)))
    assert report.names == ("class 0", "class 1", "class 2")
    assert report.results[0].scores.accuracy == 1


def test_crops_of_pastis_meet_the_groups_of_the_register() -> None:
    mapped = scheme_classes(legend("pastis-20").classes)
    scheme = read_crosswalk("pastis-20:rpg-28", mapped, "pastis-20@1")
    meadow = scheme.of_map[1]
    assert scheme.of_labels[18] == scheme.of_labels[19] == meadow
    assert scheme.names[meadow] == "Permanent grassland / Temporary grassland"
    assert scheme.of_map[4] == scheme.of_map[6] == scheme.of_labels[3]  # both barleys
    assert scheme.names[scheme.of_map[0]] == NO_COUNTERPART
    assert "Rice" in scheme.note
    with pytest.raises(JobError, match="the map has the legend flair-19@1"):
        read_crosswalk("pastis-20:rpg-28", mapped, "flair-19@1")


def test_a_class_table_may_merge_and_leave_out(tmp_path: Path, codes: np.ndarray) -> None:
    path = write_map(tmp_path, codes)
    table = tmp_path / "cross.csv"
    table.write_text("map,label,name\nwheat,300,crop\n1,300,\nforest,77,wood\n", encoding="utf-8")
    labels = np.where(codes == 2, 77, 300).astype(np.int16)
    place = write_raster(tmp_path / "l.tif", labels, nodata=-1)
    report = evaluate_map(path, TruthRequest(place, crosswalk=str(table)))
    assert report.names == ("crop", "wood")
    assert report.results[0].scores.accuracy == 1
    table.write_text("map,label\nrye,300\n", encoding="utf-8")
    with pytest.raises(JobError, match="line 2: the map has no class 'rye'"):
        evaluate_map(path, TruthRequest(place, crosswalk=str(table)))


def test_a_class_of_the_map_without_counterpart_is_an_error_on_labelled_ground() -> None:
    mapped = scheme_classes(legend("pastis-20").classes)[:4]
    labels = scheme_classes(legend("rpg-28").classes)[:2]
    scheme = crossed_scheme(mapped, labels, [(mapped[2], labels[0])])
    assert scheme.of_map[0] == scheme.of_map[3] == len(scheme.names) - 1
    np.testing.assert_array_equal(scheme.label_classes(np.array([1, 2, 9])), [0, 1, -1])


def a_report(names: tuple[str, ...] = ("wheat", "<script>alert(1)</script>", "$x_1$")) -> Report:
    counts = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    areas = adjusted(counts, np.array([100, 200, 0]))
    result = Result("s2", Scores(counts), 3, areas, 30.0)
    return Report(
        "a & b", "<labels>", names, ("#aa0000", "#00aa00", "#0000aa"), (result,), ("<i>",)
    )


def test_reports_say_everything_in_every_format(tmp_path: Path) -> None:
    report = a_report()
    for name in ("r.json", "r.csv", "r.html"):
        write_report(report, tmp_path / "sub" / name)
    content = json.loads((tmp_path / "sub/r.json").read_text())
    result = content["results"][0]
    assert result["confusion"] == [[8, 2, 0], [1, 9, 0], [0, 0, 0]]
    assert result["per_class"][2]["f1"] is None
    assert result["means"]["accuracy"] == pytest.approx(0.85)
    assert result["adjusted"]["per_class"][0]["hectares"]["value"] == pytest.approx(
        30 * report.results[0].adjusted.share.value[0]
    )
    with (tmp_path / "sub/r.csv").open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["class"], row["figure"]): row["value"] for row in rows}
    assert float(found["wheat", "recall"]) == pytest.approx(0.8)
    assert found["$x_1$", "f1"] == ""
    assert float(found["", "kappa"]) == pytest.approx(0.7)
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == [
        "r.csv", "r.html", "r.json",
    ]  # fmt: skip


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    write_report(a_report(), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "data:image/png;base64," in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;labels&gt;" in page
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")


def test_reports_are_checked_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"ends in \.json, \.csv, \.html"):
        check_outputs([tmp_path / "r.pdf"], overwrite=False)
    (tmp_path / "r.csv").write_text("")
    with pytest.raises(OutputExistsError):
        check_outputs([tmp_path / "r.csv"], overwrite=False)
    check_outputs([tmp_path / "r.csv"], overwrite=True)


def test_figures_of_a_card_are_per_cent_and_defined() -> None:
    figures = card_figures(a_report(("a", "b", "c")))["s2"]
    assert figures["accuracy"] == 85.0
    assert "F1 c" not in figures
    assert all(math.isfinite(value) for value in figures.values())


def write_fields(path: Path, rows: list[tuple[tuple[float, ...], object]], crs: str) -> Path:
    """Write boxes, or points where a rectangle has no size, with a column CODE."""
    shapes = [box(*b) if b[0] < b[2] else Point(b[:2]) for b, _ in rows]
    frame = geopandas.GeoDataFrame({"CODE": [code for _, code in rows]}, geometry=shapes, crs=crs)
    frame.to_file(path, driver="GPKG")
    return path


@pytest.mark.parametrize("corner", [(LEFT, TOP), (LEFT + 3.3, TOP - 4.4)])
def test_polygons_count_the_pixels_whose_centre_they_hold(
    tmp_path: Path, codes: np.ndarray, corner: tuple[float, float]
) -> None:
    path = write_map(tmp_path, codes, at=corner)
    left, top = corner
    rows = [
        ((left + 12, top - 98, left + 98, top - 12), "wheat"),  # centres of columns 1 to 9
        ((left + 200, top - 100, left + 300, top), "Maize"),
        ((left + 405, top - 305, left + 405, top - 305), "2"),  # a point: row 30, column 40
    ]
    fields = write_fields(tmp_path / "fields.gpkg", rows, "EPSG:2154")
    found = matrix(evaluate_map(path, TruthRequest(fields, "CODE")))
    want = np.zeros((3, 3), int)
    np.add.at(want[0], codes[1:10, 1:10].ravel(), 1)
    np.add.at(want[1], codes[:10, 20:30].ravel(), 1)
    want[2, codes[30, 40]] += 1
    np.testing.assert_array_equal(found, want)


def test_polygons_with_unknown_words_are_refused_or_left_out(
    tmp_path: Path, codes: np.ndarray
) -> None:
    path = write_map(tmp_path, codes)
    near, far = (LEFT, TOP - 100, LEFT + 100, TOP), (LEFT + 200, TOP - 100, LEFT + 300, TOP)
    fields = write_fields(tmp_path / "f.gpkg", [(near, "BTH"), (far, "SPL")], "EPSG:2154")
    with pytest.raises(JobError, match=r"BTH \(1 features\), SPL \(1 features\)"):
        evaluate_map(path, TruthRequest(fields, "CODE"))
    table = tmp_path / "classes.csv"
    table.write_text("code,class\nBTH,wheat\nSPL,\n", encoding="utf-8")
    report = evaluate_map(path, TruthRequest(fields, "CODE", classes=str(table)))
    assert report.results[0].scores.pixels == 100
    assert matrix(report)[0].sum() == 100
    cross = tmp_path / "cross.csv"
    cross.write_text("map,label\nwheat,BTH\nmaize,BTH\nforest,SPL\n", encoding="utf-8")
    crossed = evaluate_map(path, TruthRequest(fields, "CODE", crosswalk=str(cross)))
    assert crossed.names == ("BTH", "SPL")
    assert matrix(crossed)[0, 0] == (codes[:10, :10] < 2).sum()
    with pytest.raises(JobError, match="give one of them"):
        TruthRequest(fields, "CODE", crosswalk=str(cross), classes=str(table))


def test_polygons_in_another_crs_lie_where_they_should(tmp_path: Path) -> None:
    codes = np.zeros((40, 50), np.uint8)
    codes[:, 25:] = 1
    path = write_map(tmp_path, codes)
    bounds = rasterio.warp.transform_bounds(
        "EPSG:2154", "EPSG:4326", LEFT + 300, TOP - 200, LEFT + 450, TOP - 50
    )
    fields = write_fields(tmp_path / "f.gpkg", [(bounds, "maize")], "EPSG:4326")
    found = matrix(evaluate_map(path, TruthRequest(fields, "CODE")))
    assert found[1, 1] == found.sum() == pytest.approx(225, rel=0.1)
