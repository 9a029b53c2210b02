"""Scores of parcels on cases whose answers are known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.learning.scoring.parcel_files import ParcelFiles, read_pair
from omnisat_cli.learning.scoring.parcel_scores import (
    Panoptic,
    ParcelRules,
    ParcelSet,
    plain_scores,
    score_parcels,
)

if TYPE_CHECKING:
    from pathlib import Path

    from shapely.geometry.base import BaseGeometry

Case = list[tuple[str, "BaseGeometry"]]
X, Y = 650_000.0, 6_830_000.0


def box(left: float, bottom: float, right: float, top: float) -> BaseGeometry:
    return shapely.box(X + left, Y + bottom, X + right, Y + top)


def parcels(case: Case) -> ParcelSet:
    return ParcelSet(
        np.array([shape for _, shape in case], object), np.array([name for name, _ in case], str)
    )


def squares(classes: str = "aabb") -> Case:
    """Squares of 10 m in a row."""
    return [(name, box(10 * k, 0, 10 * k + 10, 10)) for k, name in enumerate(classes)]


def test_equal_parcels_score_one() -> None:
    scores = score_parcels(parcels(squares()), parcels(squares()))
    assert scores.by_class == {"a": Panoptic(2, 0, 0, 2.0), "b": Panoptic(2, 0, 0, 2.0)}
    assert scores.mean("pq") == scores.mean("sq") == scores.mean("rq") == 1
    assert scores.outlines.f_score == 1
    cut = scores.segmentation
    assert (cut.over, cut.under, cut.distance, cut.split, cut.merged) == (0, 0, 0, 0, 0)
    assert json.loads(json.dumps(plain_scores(scores)))["pq"] == 1


def test_panoptic_quality_by_hand() -> None:
    reference: Case = squares("aab")
    predicted: Case = [
        ("a", box(0, 0, 10, 8)),  # IoU 0.8 with the first
        ("a", box(10, 0, 15, 10)),  # IoU 0.5 with the second: not more than a half
        ("b", box(20, 0, 30, 10)),
        ("b", box(100, 0, 110, 10)),  # nothing there
        ("c", box(200, 0, 210, 10)),  # a class that is not judged
    ]
    scores = score_parcels(parcels(predicted), parcels(reference))
    assert scores.by_class["a"] == Panoptic(1, 1, 1, pytest.approx(0.8))
    assert scores.by_class["b"] == Panoptic(1, 1, 0, pytest.approx(1.0))
    assert scores.by_class["a"].pq == pytest.approx(0.8 * 1 / 2)
    assert scores.mean("pq") == pytest.approx((0.8 / 2 + 1 / 1.5) / 2)
    assert scores.together.rq == pytest.approx(2 / (2 + 1 + 0.5))
    assert scores.any_class == Panoptic(2, 3, 1, pytest.approx(1.8))
    assert scores.unjudged == 1


def test_the_wrong_class_finds_a_parcel_only_where_classes_do_not_matter() -> None:
    scores = score_parcels(parcels(squares("abb")), parcels(squares("abc")))
    assert scores.by_class["b"] == Panoptic(1, 1, 0, 1.0)
    assert scores.by_class["c"] == Panoptic(0, 0, 1, 0.0)
    assert scores.any_class.rq == 1
    assert scores.mean("pq") == pytest.approx((1 + 1 / 1.5 + 0) / 3)


def test_void_parcels_take_ground_and_predictions_out_of_the_count() -> None:
    reference: Case = [*squares("ab"), ("19", box(20, 0, 40, 10))]
    predicted: Case = [
        ("a", box(0, 0, 10, 10)),
        ("b", box(10, 0, 25, 10)),  # 5 m of it on void ground: IoU 1 with the second
        ("a", box(25, 0, 40, 10)),  # finds the void parcel: not counted
    ]
    rules = ParcelRules(void=frozenset({"19"}))
    scores = score_parcels(parcels(predicted), parcels(reference), rules)
    assert scores.by_class == {"a": Panoptic(1, 0, 0, 1.0), "b": Panoptic(1, 0, 0, 1.0)}
    assert scores.ignored == 1
    strict = score_parcels(parcels(predicted), parcels(reference))
    assert strict.by_class["a"].false == 1


def test_ground_without_reference_is_background_or_unknown() -> None:
    predicted: Case = [*squares("aab"), ("b", box(0, 50, 10, 60)), ("b", box(25, 0, 45, 10))]
    reference: Case = squares("aab")
    assert score_parcels(parcels(predicted), parcels(reference)).by_class["b"].false == 2
    lenient = ParcelRules(elsewhere="void")
    scores = score_parcels(parcels(predicted), parcels(reference), lenient)
    assert scores.by_class["b"] == Panoptic(1, 0, 0, 1.0)
    assert scores.ignored == 2
    strict = score_parcels(parcels(predicted), parcels(reference))
    assert scores.outlines.precision > strict.outlines.precision
    several = parcels([("a", shapely.MultiPolygon([shape for _, shape in predicted[3:]]))])
    assert score_parcels(several, parcels(reference)).outlines.precision < 0.3


def test_splitting_is_over_and_merging_is_under_segmentation() -> None:
    halves: Case = [("a", box(0, 0, 5, 10)), ("a", box(5, 0, 10, 10))]
    whole: Case = [("a", box(0, 0, 10, 10))]
    split = score_parcels(parcels(halves), parcels(whole)).segmentation
    assert (split.over, split.under, split.split, split.merged) == (0.5, 0, 1, 0)
    merged = score_parcels(parcels(whole), parcels(halves)).segmentation
    assert (merged.over, merged.under, merged.split, merged.merged) == (0, 0.5, 0, 1)
    assert merged.distance == split.distance == pytest.approx(0.5 / np.sqrt(2))
    nothing = score_parcels(parcels([("a", box(50, 0, 60, 10))]), parcels(whole)).segmentation
    assert (nothing.over, nothing.under) == (1, 0)


def test_outlines_agree_within_the_tolerance_only() -> None:
    inner = box(100, 100, 120, 120)
    frame: Case = [("a", box(0, 0, 1, 1)), ("a", box(299, 299, 300, 300))]  # too near to count
    reference = parcels([*frame, ("a", inner)])
    for shift in (2.9, 3.5):
        moved = box(100, 100 + shift, 120, 120 + shift)
        scores = score_parcels(parcels([*frame, ("a", moved)]), reference).outlines
        # off are a side of 20 m, its opposite between the corners, and the ends of the two others
        away = 0 if shift < 3 else 20 + 14 + 2 * (shift - 3)
        assert scores.precision == pytest.approx((80 - away) / 80, abs=0.02)
        assert scores.recall == pytest.approx(scores.precision, abs=0.02)


def test_without_classes_parcels_are_compared_as_such() -> None:
    bare = ParcelSet(parcels(squares()).polygons)
    scores = score_parcels(bare, parcels(squares()))
    assert scores.by_class == {}
    assert scores.mean("pq") == 1


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_figures_stay_in_their_range_and_do_not_depend_on_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some(count: int) -> Case:
        corner, size = rng.uniform(0, 80, (count, 2)), rng.uniform(2, 40, (count, 2))
        return [
            (str(rng.choice(["a", "b"])), box(*at, *(at + by)))
            for at, by in zip(corner, size, strict=True)
        ]

    ones, others = some(6), some(5)
    scores = score_parcels(parcels(ones), parcels(others))
    figures = plain_scores(scores)
    for name in ("pq", "sq", "rq", "over_segmentation", "under_segmentation", "split", "merged"):
        value = figures[name]
        assert isinstance(value, float)
        assert 0 <= value <= 1
    turned = plain_scores(score_parcels(parcels(ones[::-1]), parcels(others[::-1])))
    assert turned["pq"] == figures["pq"]
    assert turned["any_class"] == figures["any_class"]


def write(path: Path, case: Case, crs: str | None = "EPSG:2154", name: str = "class_code") -> Path:
    geopandas.GeoDataFrame(
        {name: [int(c) if c.isdecimal() else c for c, _ in case]},
        geometry=[shape for _, shape in case],
        crs=crs,
    ).to_file(path)
    return path


def test_files_are_brought_to_one_crs_and_repaired(tmp_path: Path) -> None:
    crossed = shapely.Polygon([(X + 40, Y), (X + 50, Y + 10), (X + 50, Y), (X + 40, Y + 10)])
    case: Case = [*squares("1122"), ("2", crossed)]
    reference = write(tmp_path / "reference.gpkg", case, name="CODE_GROUP")
    geopandas.read_file(reference).to_crs("EPSG:4326").to_file(tmp_path / "degrees.gpkg")
    predicted = write(tmp_path / "predicted.fgb", squares("1122"))
    pair = read_pair(ParcelFiles(predicted, tmp_path / "degrees.gpkg", field="CODE_GROUP"))
    assert pair.crs == "EPSG:2154"
    assert pair.reference.repaired == 1
    assert any("1 invalid" in note for note in pair.notes)
    scores = score_parcels(pair.predicted, pair.reference)
    assert scores.by_class["1"] == Panoptic(2, 0, 0, pytest.approx(2, abs=1e-5))
    assert scores.by_class["2"].missed == 1
    both = ParcelFiles(
        tmp_path / "degrees.gpkg", tmp_path / "degrees.gpkg", "CODE_GROUP", "CODE_GROUP"
    )
    pair = read_pair(both)
    assert shapely.area(pair.reference.polygons[0]) == pytest.approx(100, rel=0.01)


def test_names_serve_where_codes_do_not(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"class_code": [7, 10], "class_name": ["winter wheat", "maize"]},
        geometry=[shape for _, shape in squares("ab")],
        crs="EPSG:2154",
    )
    frame.to_file(tmp_path / "p.gpkg", layer="parcels")
    crops: Case = squares(["winter wheat", "maize"])  # type: ignore[arg-type]
    reference = write(tmp_path / "r.geojson", crops, name="crop")
    pair = read_pair(ParcelFiles(tmp_path / "p.gpkg", reference, "crop"))
    assert score_parcels(pair.predicted, pair.reference).mean("pq") == pytest.approx(1, abs=1e-6)
    assert read_pair(ParcelFiles(tmp_path / "p.gpkg", reference)).reference.classes is None


def test_files_that_cannot_be_compared_are_refused_with_a_reason(tmp_path: Path) -> None:
    good = write(tmp_path / "good.gpkg", squares("1122"))
    with pytest.raises(JobError, match="has no column 'crop'; it has class_code"):
        read_pair(ParcelFiles(good, good, "crop"))
    with pytest.raises(JobError, match="none is common"):
        read_pair(ParcelFiles(good, write(tmp_path / "other.gpkg", squares("55"))))
    far: Case = [("1", shapely.box(X + 9000, Y, X + 9010, Y + 10))]
    with pytest.raises(AlignmentError, match="do not meet"):
        read_pair(ParcelFiles(good, write(tmp_path / "far.gpkg", far)))
    with pytest.warns(UserWarning, match="crs"):
        nowhere = write(tmp_path / "none.fgb", squares("11"), crs=None)
    with pytest.raises(AlignmentError, match="no CRS"):
        read_pair(ParcelFiles(good, nowhere))
    lines: Case = [("1", shapely.LineString([(X, Y), (X + 9, Y)]))]
    with pytest.raises(SourceError, match="holds no parcel"):
        read_pair(ParcelFiles(good, write(tmp_path / "lines.gpkg", lines)))
    with pytest.raises(SourceError, match="no such file"):
        read_pair(ParcelFiles(good, tmp_path / "absent.gpkg"))
    (tmp_path / "bad.gpkg").write_bytes(b"SQLite format 3\0 and nothing")
    with pytest.raises(SourceError, match="is neither GeoJSON"):
        read_pair(ParcelFiles(good, tmp_path / "bad.gpkg"))
    rules = ParcelRules(void=frozenset({"a", "b"}))
    with pytest.raises(JobError, match="nothing to score"):
        score_parcels(parcels(squares()), parcels(squares()), rules)
