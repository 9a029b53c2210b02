"""Parcels in the formats and words of others."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from test_outputs_parcels import LEFT, SIDE, TOP, fields, read, write_map

from omnisat_cli.errors import ResourceError
from omnisat_cli.outputs.parcels import geoparquet
from omnisat_cli.outputs.parcels.columns import Fields
from omnisat_cli.outputs.parcels.existing import judge_parcels
from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize

if TYPE_CHECKING:
    from pathlib import Path

CORE = [
    *("id", "collection", "category", "metrics:area", "metrics:perimeter"),
    *("determination:method", "determination:datetime", "determination:details"),
]


def write_all(folder: Path) -> Path:
    """A map with confidence, validity and provenance."""
    codes = fields(60)
    path = write_map(folder / "map.tif", codes)
    write_map(folder / "map.confidence.tif", np.where(codes == 255, 255, 77).astype(np.uint8))
    write_map(folder / "map.validity.tif", np.where(codes == 255, 255, 12).astype(np.uint8))
    provenance = {
        "model": {"name": "net", "version": "2"},
        "legend": {"id": "flair-15", "version": "1"},
        "dates": {"s2": ["2023-05-01T10:00", "2023-09-03"]},
    }
    (folder / "map.provenance.json").write_text(json.dumps(provenance))
    return path


def test_geoparquet_holds_the_same_parcels_in_the_columns_of_fiboa(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geoparquet, "_ROW_GROUP", 20)
    path = write_all(tmp_path)
    columns, polygons = read(vectorize(path, tmp_path / "p.gpkg").out)
    out = vectorize(path, tmp_path / "p.parquet", ParcelOptions(strip_rows=7)).out
    found = gpd.read_parquet(out)
    assert found.crs == "EPSG:2154"
    assert found.columns[: len(CORE)].tolist() == CORE
    assert found["id"].tolist() == columns["id"].astype(str).tolist()
    assert shapely.to_wkb(found.geometry).tolist() == shapely.to_wkb(polygons).tolist()
    assert found["metrics:area"].tolist() == pytest.approx(columns["area_m2"].tolist())
    assert found["class_name"].tolist() == columns["class_name"].tolist()
    assert set(found["determination:method"]) == {"auto-imagery"}
    assert str(found["determination:datetime"][0]) == "2023-09-03 23:59:59+00:00"
    assert found["category"][0].tolist() == ["other"]
    assert "net 2" in found["determination:details"][0]
    with pq.ParquetFile(out) as file:
        assert file.num_row_groups > 1
        geo = json.loads(file.metadata.metadata[b"geo"])
        collection = json.loads(file.metadata.metadata[b"collection"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert geo["columns"]["geometry"]["bbox"] == shapely.total_bounds(polygons).tolist()
    assert collection["collection"] == "map"
    assert any("fiboa" in url for url in collection["schemas"]["map"])


def test_the_bounds_of_geoparquet_let_a_reader_skip(tmp_path: Path) -> None:
    out = vectorize(write_all(tmp_path), tmp_path / "p.parquet").out
    corner = (LEFT, TOP - 10 * SIDE, LEFT + 10 * SIDE, TOP)
    near, whole = gpd.read_parquet(out, bbox=corner), gpd.read_parquet(out)
    expected = whole[whole.geometry.bounds.apply(lambda b: _meets(b, corner), axis=1)]
    assert 0 < len(near) < len(whole)
    assert near["id"].tolist() == expected["id"].tolist()


def _meets(box: object, corner: tuple[float, ...]) -> bool:
    left, bottom, right, top = corner
    return bool(box.minx <= right and box.maxx >= left and box.miny <= top and box.maxy >= bottom)


def test_all_columns_can_be_had_in_geoparquet(tmp_path: Path) -> None:
    path = write_all(tmp_path)
    columns, _ = read(vectorize(path, tmp_path / "p.gpkg").out)
    out = vectorize(path, tmp_path / "p.parquet", ParcelOptions(fields=Fields.FULL)).out
    found = gpd.read_parquet(out)
    assert found.columns.tolist() == [*columns, "geometry"]
    for name in ("id", "class_code", "conf_mean", "n_px", "perimeter_m"):
        assert found[name].tolist() == columns[name].tolist()
    with pq.ParquetFile(out) as file:
        assert b"collection" not in file.metadata.metadata


@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".geojson", ".parquet"])
def test_parcels_can_look_like_those_of_oso(tmp_path: Path, ending: str) -> None:
    path = write_all(tmp_path)
    out = vectorize(path, tmp_path / f"p{ending}", ParcelOptions(fields=Fields.OSO)).out
    found = (
        gpd.read_parquet(out)
        if ending == ".parquet"
        else pyogrio.read_dataframe(out, layer="parcels" if ending == ".gpkg" else None)
    )
    assert found.columns.tolist() == [
        *("Classe", "Validmean", "Validstd", "Confidence", "Aire", "geometry")
    ]
    assert (found["Validmean"][0], found["Validstd"][0], found["Confidence"][0]) == (12, 0, 77)
    assert found["Aire"].tolist() == pytest.approx(found.geometry.area.tolist(), abs=0.01)
    if ending == ".gpkg":
        with closing(sqlite3.connect(out)) as database:
            (qml,) = database.execute("SELECT styleQML FROM layer_styles").fetchone()
        assert 'attr="Classe"' in qml


def test_fiboa_columns_fit_a_geopackage(tmp_path: Path) -> None:
    path = write_all(tmp_path)
    out = vectorize(path, tmp_path / "p.gpkg", ParcelOptions(fields=Fields.FIBOA)).out
    found = pyogrio.read_dataframe(out, layer="parcels")
    assert found.columns[: len(CORE)].tolist() == CORE
    assert set(found["category"]) == {"other"}


def test_an_empty_map_gives_an_empty_geoparquet(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", np.full((4, 6), 255, np.uint8))
    found = gpd.read_parquet(vectorize(path, tmp_path / "p.parquet").out)
    assert len(found) == 0
    assert found.crs == "EPSG:2154"


def test_parcels_of_the_user_become_geoparquet_as_they_are(tmp_path: Path) -> None:
    path = write_all(tmp_path)
    box = shapely.box(LEFT + 2, TOP - 12, LEFT + 12, TOP - 2)
    high = shapely.force_3d(shapely.MultiPolygon([box]), 7.5)
    source = gpd.GeoDataFrame(
        {"bbox": ["mine", "b", "c"]}, geometry=[high, box, None], crs="EPSG:2154"
    )
    source.to_parquet(tmp_path / "rpg.parquet")
    out = judge_parcels(path, tmp_path / "rpg.parquet", tmp_path / "out.parquet").out
    found = gpd.read_parquet(out)
    assert found["bbox"].tolist() == ["mine", "b", "c"]
    assert shapely.to_wkb(found.geometry).tolist() == shapely.to_wkb(source.geometry).tolist()
    assert found["pred_code"].isna().tolist() == [False, False, True]
    again = judge_parcels(path, out, tmp_path / "again.parquet")
    assert "pred_code" in again.renamed
    assert not [name for name in gpd.read_parquet(again.out).columns if name.startswith("bbox_")]


def test_a_full_disk_leaves_the_geoparquet_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write_all(tmp_path), tmp_path / "p.parquet"
    out.write_bytes(b"mine")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(ResourceError, match="no space left"):
            vectorize(path, out, ParcelOptions(overwrite=True))
    assert out.read_bytes() == b"mine"
    assert not list(tmp_path.glob(".*"))
