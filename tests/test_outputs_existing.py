"""Parcels of the user: kept as they are, with what the map says of them."""

from __future__ import annotations

import csv
import json
import resource
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from test_outputs_parcels import LEFT, SIDE, TOP, write_map

from omnisat_cli.errors import (
    AlignmentError,
    JobError,
    OutputExistsError,
    ResourceError,
    SourceError,
)
from omnisat_cli.outputs.parcels.declared import key_of, read_crosswalk
from omnisat_cli.outputs.parcels.existing import ExistingOptions, judge_parcels
from omnisat_cli.outputs.parcels.names import ParcelClass

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

# The map: 20 x 20 pixels of 2 m. Left half meadow (1), right half wheat (2), a hole below.
MEADOW, WHEAT = 1, 2


def make_codes() -> np.ndarray:
    codes = np.full((20, 20), MEADOW, np.uint8)
    codes[:, 10:] = WHEAT
    codes[18:] = 255
    return codes


def at(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """A rectangle in pixels of the map."""
    return shapely.box(
        LEFT + left * SIDE, TOP - bottom * SIDE, LEFT + right * SIDE, TOP - top * SIDE
    )


@pytest.fixture
def area(tmp_path: Path) -> Path:
    path = write_map(tmp_path / "map.tif", make_codes())
    sure = np.full((20, 20), 80, np.uint8)
    sure[:, 10:] = 60
    write_map(tmp_path / "map.confidence.tif", sure)
    return path


def write(
    path: Path, shapes: list[object], crs: str | None = "EPSG:2154", **columns: object
) -> Path:
    frame = gpd.GeoDataFrame(columns or {"n": range(len(shapes))}, geometry=shapes, crs=crs)
    frame.to_file(path, engine="pyogrio")
    return path


def table(path: Path) -> pd.DataFrame:
    return pyogrio.read_dataframe(path, layer="parcels")


def judge(path: Path, parcels: Path, **options: object) -> pd.DataFrame:
    options = {"legend": "pastis-20", "overwrite": True} | options
    report = judge_parcels(path, parcels, path.with_name("out.gpkg"), ExistingOptions(**options))
    return table(report.out)


def test_each_parcel_gets_its_class_and_keeps_what_it_had(area: Path, tmp_path: Path) -> None:
    shapes = [
        at(1, 1, 5, 5),
        at(8, 2, 18, 4),
        at(9.4, 0, 10.4, 1),
        at(3, 17, 4, 19),
        at(12.1, 3.1, 12.2, 3.2),
    ]
    ids = ["007", "a;b", "ü", "9", "10"]
    parcels = write(tmp_path / "rpg.gpkg", shapes, ID_PARCEL=ids)
    found = judge(area, parcels)
    assert found["ID_PARCEL"].tolist() == ids
    assert found.geometry.to_wkb().tolist() == [shapely.to_wkb(shape) for shape in shapes]
    assert found["pred_code"].tolist() == [1, 2, 1, 1, 2]
    assert found["pred_name"].tolist()[1] == "Soft winter wheat"
    assert found["pred_share"].tolist() == [1, 0.8, 0.6, 1, 1]
    assert found["share_meadow"].tolist() == [1, 0.2, 0.6, 1, 0]
    assert found["share_soft_winter_wheat"].tolist() == [0, 0.8, 0.4, 0, 1]
    assert found["n_px"].tolist() == [16, 20, 1, 1, 0.01]
    assert found["mapped"].tolist() == [1, 1, 1, 0.5, 1]
    assert found["conf_mean"].tolist() == [80, 64, 72, 80, 60]
    assert found["conf_std"].tolist() == pytest.approx([0, 8, 9.798, 0, 0], abs=1e-3)
    assert "valid_mean" not in found


def test_identifiers_of_a_geopackage_stay(area: Path, tmp_path: Path) -> None:
    parcels = write(tmp_path / "rpg.gpkg", [at(0, 0, 2, 2), at(3, 3, 5, 5), at(6, 6, 8, 8)])
    with closing(sqlite3.connect(parcels)) as database, database:
        for (trigger,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'rpg'"
        ).fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        database.execute("DROP TABLE rtree_rpg_geom")
        database.execute("DELETE FROM gpkg_extensions")
        database.execute("UPDATE rpg SET fid = 2000 WHERE fid = 2")
    options = ExistingOptions(legend="pastis-20")
    out = judge_parcels(area, parcels, tmp_path / "out.gpkg", options).out
    assert pyogrio.read_dataframe(out, layer="parcels", fid_as_index=True).index.tolist() == [
        1,
        3,
        2000,
    ]


def test_the_geopackage_is_coloured_by_prediction(area: Path, tmp_path: Path) -> None:
    parcels = write(tmp_path / "rpg.geojson", [at(0, 0, 2, 2)], pred_code=["mine"], geom=["x"])
    found = judge(area, parcels)
    assert found["pred_code"].tolist() == ["mine"]
    assert found["geom"].tolist() == ["x"]
    assert found["pred_code_2"].tolist() == [1]
    with closing(sqlite3.connect(tmp_path / "out.gpkg")) as database:
        column, qml = database.execute(
            "SELECT f_geometry_column, styleQML FROM layer_styles"
        ).fetchone()
        shape = database.execute("SELECT column_name FROM gpkg_geometry_columns").fetchone()
    assert (column,) == shape == ("geom_2",)
    assert 'attr="pred_code_2"' in qml
    assert 'label="Meadow"' in qml


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".shp", ".fgb", ".parquet"])
def test_parcels_come_in_any_format_and_crs(area: Path, tmp_path: Path, ending: str) -> None:
    frame = gpd.GeoDataFrame(
        {"id": ["a", "b"]}, geometry=[at(1, 1, 5, 5), at(12, 1, 15, 5)], crs="EPSG:2154"
    ).to_crs("EPSG:4326")
    parcels = tmp_path / f"rpg{ending}"
    if ending == ".parquet":
        frame.to_parquet(parcels, write_covering_bbox=True)
    else:
        frame.to_file(parcels, engine="pyogrio")
    found = judge(area, parcels).set_index("id")
    assert found.loc[["a", "b"], "pred_code"].tolist() == [1, 2]
    assert found.crs == "EPSG:4326"
    # GeoJSON rounds degrees to 1e-7, which is some millimetres.
    assert found.loc[["a", "b"], "n_px"].tolist() == pytest.approx([16, 12], abs=0.1)
    before = frame.set_index("id").loc[["a", "b"]].geometry
    after = found.loc[["a", "b"]].geometry
    assert shapely.equals_exact(before, after, 1e-7, normalize=True).all()


def test_faulty_parcels_are_counted_and_kept(area: Path, tmp_path: Path) -> None:
    corners = [(LEFT + x, TOP - y) for x, y in ((2, 2), (10, 10), (10, 2), (2, 10))]
    bow = shapely.Polygon(corners)
    shapes = [at(0, 0, 2, 2), bow, at(-50, 0, -40, 5), at(2, 18.5, 4, 19), None, at(1, 1, 1, 4)]
    parcels = write(tmp_path / "rpg.gpkg", shapes)
    options = ExistingOptions(legend="pastis-20")
    report = judge_parcels(area, parcels, tmp_path / "out.gpkg", options)
    assert (report.parcels, report.repaired, report.outside, report.absent) == (6, 1, 2, 2)
    found = table(report.out)
    assert found["pred_code"].tolist()[:2] == [1, 1]
    assert found["pred_code"].isna().tolist() == [False, False, True, True, True, True]
    assert found["n_px"].tolist()[1] == 8  # both wings
    assert shapely.to_wkb(found.geometry[1]) == shapely.to_wkb(bow)


def test_declarations_are_compared_and_the_surest_doubts_come_first(
    area: Path, tmp_path: Path
) -> None:
    shapes = [at(0, 0, 4, 4), at(8, 2, 18, 4), at(12, 6, 16, 9), at(1, 9, 5, 12), at(5, 5, 6, 6)]
    parcels = write(
        tmp_path / "rpg.gpkg",
        shapes,
        ID=list("abcde"),
        NAME=["PRAIRIE ", "corn", "meadow", "Blé tendre d'hiver", None],
        CODE_GROUP=["18", "1", "18", "19", "99"],
        CODE=[1.0, 3.0, 2.0, 2.0, 0.0],
        RPG=["PPH", "MIS", "PPH", "BTH", "XXX"],
    )
    found = judge(area, parcels, declared="NAME", suspects=tmp_path / "s.csv")
    assert found["agrees"].fillna("").tolist() == ["yes", "no", "no", "no", ""]
    assert found["decl_share"].tolist()[:4] == [1, 0, 0, 0]
    with (tmp_path / "s.csv").open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["ID"], row["score"]) for row in rows] == [
        ("d", "60.6"),
        ("c", "45.45"),
        ("b", "37.37"),
    ]
    groups = judge(area, parcels, declared="CODE_GROUP")
    assert groups["agrees"].fillna("").tolist() == ["yes", "yes", "no", "yes", ""]
    codes = judge(area, parcels, declared="CODE")
    assert codes["agrees"].tolist() == ["yes", "no", "yes", "no", "no"]
    walk = tmp_path / "walk.csv"
    walk.write_text("code;classe\nPPH;Prairie|Corn\nMIS;3\nBTH;2\n", encoding="utf-8")
    crossed = judge(area, parcels, declared="RPG", crosswalk=walk)
    assert crossed["agrees"].fillna("").tolist() == ["yes", "no", "no", "no", ""]


def test_a_crosswalk_may_be_json_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    classes = {2: ParcelClass(2, "wheat", "blé", None, (1, 2, 3))}
    path = tmp_path / "walk.json"
    path.write_text(json.dumps({"BTH": ["wheat"], "BTP": 2}), encoding="utf-8")
    assert read_crosswalk(path, classes) == {"bth": {2}, "btp": {2}}
    for name, text, said in (
        ("a.csv", "BTH,2\nMIS,7\n", "line 2: '7' is no class"),
        ("b.csv", "BTH\n", "one column"),
        ("c.json", "[1]", "no JSON object"),
        ("d.csv", "", "says nothing"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(SourceError, match=said):
            read_crosswalk(tmp_path / name, classes)


def test_values_are_compared_without_case_accents_and_decimals() -> None:
    assert key_of(" Blé  tendre ") == key_of("BLE TENDRE") == "ble tendre"
    assert key_of(18.0) == key_of("18") == "18"
    assert key_of(float("nan")) is key_of(None) is key_of("") is None


def test_what_cannot_be_judged_is_refused_with_a_reason(area: Path, tmp_path: Path) -> None:
    good = write(tmp_path / "rpg.gpkg", [at(0, 0, 2, 2)], crop=["maize?"])
    out = tmp_path / "new.gpkg"

    def refused(error: type[Exception], said: str, parcels: Path, **options: object) -> None:
        with pytest.raises(error, match=said):
            judge_parcels(area, parcels, out, ExistingOptions(legend="pastis-20", **options))

    nowhere = write(tmp_path / "no.shp", [at(0, 0, 2, 2)])
    nowhere.with_suffix(".prj").unlink()
    refused(AlignmentError, "--parcels-crs", nowhere)
    degrees = write(tmp_path / "deg.gpkg", [at(0, 0, 2, 2)], crs="EPSG:32631")
    refused(AlignmentError, "none of its 1 polygons lies on the map", degrees)
    refused(SourceError, "Point features", write(tmp_path / "p.gpkg", [shapely.Point(1, 2)]))
    refused(SourceError, "no feature", write(tmp_path / "none.gpkg", []))
    (tmp_path / "empty.gpkg").write_bytes(b"")
    refused(SourceError, "is empty", tmp_path / "empty.gpkg")
    (tmp_path / "cut.gpkg").write_bytes(good.read_bytes()[:5000])
    refused(SourceError, "no readable GPKG", tmp_path / "cut.gpkg")
    refused(SourceError, "no such file", tmp_path / "nothing.gpkg")
    refused(JobError, "did you mean crop", good, declared="Crop_")
    refused(JobError, "--crosswalk FILE", good, declared="crop")
    gpd.GeoDataFrame({"l": [["a"]]}, geometry=[at(0, 0, 2, 2)], crs="EPSG:2154").to_parquet(
        tmp_path / "lists.parquet"
    )
    refused(JobError, "holds lists", tmp_path / "lists.parquet", declared="l")
    refused(JobError, "needs --declared", good, suspects=tmp_path / "s.csv")
    odd = write_map(tmp_path / "odd.tif", np.full((20, 20), 40, np.uint8))
    with pytest.raises(SourceError, match=r"does not name: 40 \(400 px\)"):
        judge_parcels(odd, good, out, ExistingOptions(legend="flair-13"))
    assert not out.exists()


def test_two_layers_must_be_told_apart(area: Path, tmp_path: Path) -> None:
    both = write(tmp_path / "rpg.gpkg", [at(0, 0, 2, 2)])
    gpd.GeoDataFrame({"b": [1]}, geometry=[at(12, 0, 14, 2)], crs="EPSG:2154").to_file(
        both, layer="other", engine="pyogrio"
    )
    with pytest.raises(JobError, match="--parcels-layer rpg"):
        judge(area, both)
    assert judge(area, both, layer="other")["pred_code"].tolist() == [2]
    with pytest.raises(JobError, match="has rpg, other"):
        judge(area, both, layer="third")


def test_existing_files_stay_until_they_are_replaced_as_a_whole(area: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [at(x, y, x + 0.5, y + 0.5) for x, y in rng.uniform(0, 19, (400, 2))]
    parcels = write(tmp_path / "rpg.gpkg", shapes, crop=["corn"] * 400)
    out, listed = tmp_path / "out.gpkg", tmp_path / "s.csv"
    out.write_bytes(b"mine")
    listed.write_bytes(b"mine")
    options = {"legend": "pastis-20", "declared": "crop", "suspects": listed}
    with pytest.raises(OutputExistsError, match="--overwrite"):
        judge_parcels(area, parcels, out, ExistingOptions(**options))
    with pytest.raises(OutputExistsError, match="--suspects other"):
        judge_parcels(area, parcels, tmp_path / "o.gpkg", ExistingOptions(**options))
    with pytest.raises(JobError, match="the input itself"):
        judge_parcels(area, parcels, parcels, ExistingOptions(**options, overwrite=True))
    names = sorted(p.name for p in tmp_path.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (60_000, 20_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(ResourceError, match="no space left"):
                judge_parcels(area, parcels, out, ExistingOptions(**options, overwrite=True))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert out.read_bytes() == listed.read_bytes() == b"mine"
        assert sorted(p.name for p in tmp_path.iterdir()) == names
    report = judge_parcels(area, parcels, out, ExistingOptions(**options, overwrite=True))
    assert report.agreement["no"] + report.agreement[""] == len(table(out)) == 400


def test_an_empty_map_gives_no_class(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", np.full((20, 20), 255, np.uint8))
    parcels = write(tmp_path / "rpg.gpkg", [at(0, 0, 2, 2)])
    report = judge_parcels(path, parcels, tmp_path / "out.fgb")
    assert (report.parcels, report.outside) == (1, 1)
    assert pyogrio.read_dataframe(report.out)["pred_code"].isna().all()


def test_real_parcels_with_faults_are_repaired_for_the_computation_only(
    tmp_path: Path, shared: Path
) -> None:
    parcels = shared / "real_data" / "parcels_azerbaijan" / "test_area_lulc.geojson"
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, (240, 150)).astype(np.uint8)
    place = rasterio.Affine(100, 0, 729_000, 0, -100, 4_413_000)
    path = write_map(tmp_path / "map.tif", codes, crs="EPSG:32638", transform=place)
    report = judge_parcels(path, parcels, tmp_path / "out.gpkg")
    assert (report.parcels, report.repaired, report.outside) == (1704, 5, 0)
    found, before = table(report.out), gpd.read_file(parcels)
    assert found.geometry.to_wkb().equals(before.geometry.to_wkb())
    for name in before.columns.drop("geometry"):
        assert found[name].equals(before[name])
    ratio = found["n_px"] * 100 * 100 / shapely.area(shapely.make_valid(before.geometry.to_numpy()))
    assert np.abs(ratio - 1)[found["n_px"] > 1].max() < 0.01
