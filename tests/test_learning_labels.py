"""Labels of the user on the lattice, and every way in which they can be wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_worlds import toy_legend

from omnisat_cli.errors import AlignmentError, JobError, SecurityError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.learning.labelling.classes import Codes, choose_scheme, distinct_color
from omnisat_cli.learning.labelling.labels import Ground, LabelRequest, open_labels
from omnisat_cli.sources.vectors import surfaces

CRS = "EPSG:2154"
LATTICE = Lattice(CRS, 10.0)
LEFT, TOP = 700_000, 6_600_000
WINDOW = Window(-TOP // 10, LEFT // 10, 20, 20)
GROUND = Ground(CRS, (LATTICE.bounds(WINDOW),))
SAMPLE = Path(__file__).resolve().parents[1] / "sample_aoi"


def box(col: float, row: float, width: float, height: float) -> shapely.Polygon:
    """Pixels of 1 m from the upper left corner of the ground."""
    return shapely.box(LEFT + col, TOP - row - height, LEFT + col + width, TOP - row)


TWO = [box(0, 0, 50, 40), box(60, 0, 40, 40)]


def save(place: Path, shapes: list[object], codes: list[object], crs: str = CRS) -> str:
    frame = geopandas.GeoDataFrame({"crop": codes, "area_ha": 0.5}, geometry=shapes, crs=crs)
    if place.suffix == ".parquet":
        frame.to_parquet(place)
    else:
        frame.to_file(place)
    return str(place)


def opened(path: str, table: str | None = None, **options: object):
    request = LabelRequest(path, **({"field": "crop"} | options))
    return open_labels([request], [GROUND], table)[0]


def csv(tmp_path: Path, text: str, encoding: str = "utf-8") -> str:
    place = tmp_path / "classes.csv"
    place.write_text(text, encoding=encoding)
    return str(place)


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.geojson", "a.parquet"])
def test_polygons_of_every_format_label_their_pixels(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    crs = "EPSG:4326" if name.endswith("geojson") else CRS
    shapes = geopandas.GeoSeries(TWO, crs=CRS).to_crs(crs)
    labels = opened(save(tmp_path / name, list(shapes), ["wheat", "maize"], crs))
    classes, parcels = labels.burn(LATTICE, WINDOW, 10)
    assert [entry.name_en for entry in labels.legend.classes] == ["maize", "wheat"]
    assert (classes[:40, :50] == 1).all()
    assert (classes[:40, 60:100] == 0).all()
    assert (classes == 255).sum() == 200 * 200 - 90 * 40
    assert sorted(np.unique(parcels)) == [0, 1, 2]
    assert (parcels > 0).sum() == 90 * 40


def test_outlines_drawn_inside_of_fields_are_no_borders(tmp_path: Path) -> None:
    labels = opened(save(tmp_path / "a.gpkg", TWO, [4, 5]), borders=False)
    classes, parcels = labels.burn(LATTICE, WINDOW, 10)
    assert parcels is None
    assert (classes != 255).sum() == 90 * 40


@settings(max_examples=15)
@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([1, 2, 5]))
def test_a_pixel_is_labelled_alike_in_every_window(row: int, col: int, refine: int) -> None:
    labels = random_labels()
    whole, numbers = labels.burn(LATTICE, WINDOW, refine)
    part = Window(WINDOW.row + row, WINDOW.col + col, 8, 8)
    classes, parcels = labels.burn(LATTICE, part, refine)
    cut = part.refined(refine).slices_in(WINDOW.refined(refine))
    np.testing.assert_array_equal(classes, whole[cut])
    np.testing.assert_array_equal(parcels, numbers[cut])


def random_labels():
    from omnisat_cli.learning.labelling.vectors import VectorLabels

    rng = np.random.default_rng(4)
    corners = rng.uniform(10, 190, (12, 2))
    shapes = np.array(
        [shapely.Point(LEFT + x, TOP - y).buffer(rng.uniform(5, 30)) for x, y in corners], object
    )
    numbers = np.arange(1, 13, dtype=np.int32)
    return VectorLabels(toy_legend(), (), shapes, np.repeat([3, 7, 9], 4), numbers, borders=True)


def test_overlapping_polygons_of_different_classes_label_nothing_there(tmp_path: Path) -> None:
    shapes = [box(0, 0, 50, 50), box(40, 0, 50, 50), box(45, 0, 50, 20)]
    labels = opened(save(tmp_path / "a.gpkg", shapes, ["wheat", "maize", "wheat"]))
    classes, _ = labels.burn(LATTICE, WINDOW, 10)
    assert (classes[:50, 40:50] == 255).all()
    assert (classes[:20, 45:90] == 255).all()
    assert (classes[:50, :40] == 1).all()
    assert (classes[20:50, 50:90] == 0).all()
    # 10 × 50 with the first, 45 × 20 with the third.
    said = [d for d in labels.decisions if d.warning]
    assert [d.value for d in said] == ["1400 m² are not labelled"]
    assert "2 pairs" in said[0].because


def test_a_point_labels_its_pixel_or_a_circle(tmp_path: Path) -> None:
    points = [shapely.Point(LEFT + 14, TOP - 4), shapely.Point(LEFT + 104, TOP - 104)]
    path = save(tmp_path / "a.gpkg", points, [4, 5])
    classes, parcels = opened(path).burn(LATTICE, WINDOW, 1)
    assert parcels is None
    assert classes[0, 1] == 4
    assert classes[10, 10] == 5
    assert (classes != 255).sum() == 2
    wide, _ = opened(path, radius_m=12.0).burn(LATTICE, WINDOW, 10)
    assert (wide == 5).sum() == pytest.approx(np.pi * 12**2, rel=0.02)
    with pytest.raises(JobError, match="at least 0 m"):
        opened(path, radius_m=-1.0)


def test_points_of_a_multipoint_are_labels_of_their_own(tmp_path: Path) -> None:
    several = shapely.MultiPoint([(LEFT + 5, TOP - 5), (LEFT + 95, TOP - 95)])
    labels = opened(save(tmp_path / "a.gpkg", [several], [4]))
    classes, _ = labels.burn(LATTICE, WINDOW, 1)
    assert np.argwhere(classes == 4).tolist() == [[0, 0], [9, 9]]


def test_broken_geometries_are_repaired_and_counted(tmp_path: Path) -> None:
    corners = [(0, 0), (40, 40), (40, 0), (0, 40), (0, 0)]
    bow = shapely.Polygon([(LEFT + x, TOP - y) for x, y in corners])
    labels = opened(save(tmp_path / "a.gpkg", [bow, TWO[1]], [4, 5]))
    classes, _ = labels.burn(LATTICE, WINDOW, 10)
    assert (classes == 4).sum() == pytest.approx(800, abs=45)
    assert any("1 features repaired" in d.value for d in labels.decisions)


def test_features_without_code_or_geometry_are_left_out_and_counted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", [*TWO, box(0, 100, 20, 20), None], [1, 2, None, 2])
    labels = opened(path)
    said = " ".join(f"{d.value} {d.because}" for d in labels.decisions)
    assert "1 have no code" in said
    classes, _ = labels.burn(LATTICE, WINDOW, 1)
    # A column of whole numbers with gaps comes as floats: still codes.
    assert set(np.unique(classes)) == {1, 2, 255}


def test_a_column_of_measurements_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", TWO, [1, 2])
    with pytest.raises(JobError, match=r"0\.5.*a measurement, not a class"):
        opened(path, field="area_ha")


@pytest.mark.parametrize(
    ("field", "words"),
    [("Crop", "did you mean crop"), ("zzz", "it has crop, area_ha"), (None, "say which column")],
)
def test_a_missing_field_lists_those_that_are_there(
    tmp_path: Path, field: str | None, words: str
) -> None:
    path = save(tmp_path / "a.gpkg", TWO, [1, 2])
    with pytest.raises(JobError, match=words):
        opened(path, field=field)


def test_lines_are_no_labels(tmp_path: Path) -> None:
    line = shapely.LineString([(LEFT, TOP), (LEFT + 100, TOP - 100)])
    with pytest.raises(SourceError, match="1 LineString"):
        opened(save(tmp_path / "a.gpkg", [line, TWO[0]], [1, 2]))


def test_labels_beside_the_imagery_are_refused_with_the_distance(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", [box(5200, 0, 50, 50)], [1])
    with pytest.raises(AlignmentError, match=r"lie 5 km from the imagery \(x 700000\.\.700200"):
        opened(path)
    around = [box(-500, 0, 50, 50), box(500, 0, 50, 50)]
    with pytest.raises(AlignmentError, match="none of its 2 features lies on the imagery"):
        opened(save(tmp_path / "b.gpkg", around, [1, 2]))


def test_a_crs_that_contradicts_the_coordinates_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", TWO, [1, 2], "EPSG:4326")
    with pytest.raises(AlignmentError, match="--labels-crs EPSG:2154"):
        opened(path)
    assert opened(path, crs="EPSG:2154").legend.codes == (1, 2)


@pytest.mark.parametrize("content", [b"", b"<kml/>", b"SQLite format 3\0junk", b"{hello"])
def test_damaged_files_end_in_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gpkg").write_bytes(content)
    with pytest.raises(SourceError):
        opened(str(tmp_path / "a.gpkg"))
    with pytest.raises(SecurityError):
        opened("https://example.org/a.gpkg")


def test_a_table_merges_names_and_leaves_out(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", [*TWO, box(0, 100, 20, 20)], ["BTH", "BTP", "JAC"])
    table = csv(
        tmp_path,
        "code;class;name_fr;color\nBTH;wheat;blé;#ffcc00\nBTP;wheat;;\nJAC;;;\nMIS;maize;maïs;\n",
        "cp1252",
    )
    labels = opened(path, table)
    classes, _ = labels.burn(LATTICE, WINDOW, 1)
    assert set(np.unique(classes)) == {0, 255}
    assert [(e.name_en, e.name_fr) for e in labels.legend.classes] == [
        ("wheat", "blé"),
        ("maize", "maïs"),
    ]
    assert labels.legend.classes[0].color == "#ffcc00"
    assert any("3 codes become 2 classes, 1 are left out" in d.because for d in labels.decisions)


def test_unknown_codes_are_listed_with_counts_and_a_guess(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gpkg", [*TWO, box(0, 100, 20, 20)], ["BTHH", "BTHH", "MIS"])
    with pytest.raises(JobError, match=r"BTHH \(2 features, did you mean BTH\?\)"):
        opened(path, csv(tmp_path, "code,class\nBTH,wheat\nMIS,maize\n"))


BAD_TABLES = {
    "no columns": ("a,b\n1,2\n", "must name the columns code and class"),
    "two meanings": ("code,class\n1,wheat\n1,maize\n", "in line 2 and for 'maize' in line 3"),
    "no class": ("code,class\n1,\n", "names no class"),
    "no code": ("code,class\n,wheat\n", "line 2: has no code"),
    "colour": ("code,class,color\n1,wheat,red\n", "is not like"),
    "empty": ("", "must name the columns"),
}


@pytest.mark.parametrize("case", list(BAD_TABLES))
def test_tables_that_say_nothing_clear_are_refused(tmp_path: Path, case: str) -> None:
    text, words = BAD_TABLES[case]
    path = save(tmp_path / "a.gpkg", TWO, [1, 2])
    with pytest.raises(SourceError, match=words):
        opened(path, csv(tmp_path, text))


def test_the_legend_of_a_model_is_used_where_the_codes_fit(tmp_path: Path) -> None:
    fits = Codes({"3": 5, "Class 7": 2}, "features", "x")
    scheme = choose_scheme(fits, None, toy_legend())
    assert scheme.legend == toy_legend()
    assert (scheme.code_of("3"), scheme.code_of("class 7")) == (3, 7)
    other = Codes({"3": 5, "8": 2}, "features", "x")
    assert choose_scheme(other, None, toy_legend()).legend.codes == (3, 8)
    with pytest.raises(JobError, match=r"does not know: 8 \(2 features"):
        choose_scheme(other, None, toy_legend(), binding=True)
    table = csv(tmp_path, "code,class\n3,class 9\n8,classe 7\n")
    merged = choose_scheme(other, table, toy_legend())
    assert (merged.code_of("3"), merged.code_of("8")) == (9, 7)


def test_an_identifier_is_no_class() -> None:
    many = Codes({str(n + 1000): 1 for n in range(300)}, "features", "x, field id")
    with pytest.raises(JobError, match="Is it an identifier"):
        choose_scheme(many, None, None)
    with pytest.raises(JobError, match="every value is empty"):
        choose_scheme(Codes({}, "features", "x"), None, None)


def test_generated_colours_are_distinct() -> None:
    assert len({distinct_color(n) for n in range(200)}) == 200


def raster(tmp_path: Path, codes: np.ndarray, crs: str = CRS, **options: object) -> str:
    place = tmp_path / "labels.tif"
    profile = {
        "driver": "GTiff",
        "height": codes.shape[0],
        "width": codes.shape[1],
        "count": 1,
        "dtype": codes.dtype,
        "crs": crs,
        "transform": Affine(1, 0, LEFT, 0, -1, TOP),
    }
    with rasterio.open(place, "w", **(profile | options)) as dataset:
        dataset.write(codes, 1)
    return str(place)


def test_a_raster_labels_the_pixels_under_their_centres(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(1, 4, (180, 150)).astype(np.uint16)
    codes[:10] = 999
    labels = opened(raster(tmp_path, codes, nodata=999), field=None)
    classes, parcels = labels.burn(LATTICE, WINDOW, 10)
    assert parcels is None
    np.testing.assert_array_equal(classes[10:180, :150], codes[10:])
    assert (classes[:10] == 255).all()
    assert (classes[180:] == 255).all()
    coarse, _ = labels.burn(LATTICE, WINDOW, 1)
    np.testing.assert_array_equal(coarse[1:18, :15], codes[15::10, 5::10])
    assert labels.legend.codes == (1, 2, 3)


def test_a_raster_in_another_crs_is_looked_up_point_by_point(tmp_path: Path) -> None:
    codes = np.repeat(np.arange(1, 5, dtype=np.uint8), 25)[None].repeat(100, 0)
    bounds = geopandas.GeoSeries([box(0, 0, 200, 200)], crs=CRS).to_crs(4326).total_bounds
    step = Affine(
        (bounds[2] - bounds[0]) / 100, 0, bounds[0], 0, (bounds[1] - bounds[3]) / 100, bounds[3]
    )
    labels = opened(raster(tmp_path, codes, "EPSG:4326", transform=step), field=None)
    classes, _ = labels.burn(LATTICE, WINDOW, 10)
    share = [(classes == code).mean() for code in (1, 2, 3, 4)]
    np.testing.assert_allclose(share, 0.25, atol=0.02)
    assert (np.diff(classes[100].astype(int)) >= 0).all()


def test_rasters_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    real = np.full((200, 200), 0.25, np.float32)
    with pytest.raises(SourceError, match="a measurement"):
        opened(raster(tmp_path, real), field=None)
    plain = np.ones((200, 200), np.uint8)
    with pytest.raises(JobError, match="its bands are 1"):
        opened(raster(tmp_path, plain))
    with pytest.raises(AlignmentError, match="km from the imagery"):
        opened(raster(tmp_path, plain, transform=Affine(1, 0, 9, 0, -1, 9)), field=None)
    with pytest.raises(AlignmentError, match="no label over the imagery"):
        opened(raster(tmp_path, plain, nodata=1), field=None)


PAM_BAND = '<PAMRasterBand band="{}"><CategoryNames>{}</CategoryNames></PAMRasterBand>'


def test_a_raster_of_several_bands_is_read_where_the_field_names_one(tmp_path: Path) -> None:
    path = raster(tmp_path, np.full((200, 200), 9, np.uint8), count=2)
    with rasterio.open(path, "r+") as file:
        file.write(np.full((200, 200), 4, np.uint8), 2)
        file.set_band_description(2, "crop")
    with pytest.raises(JobError, match=r"has 2 bands; say .*--field 1 \(bands: 1, crop\)"):
        opened(path, field=None)
    bands = (PAM_BAND.format(band, "".join(f"<Category>{name}{n}</Category>" for n in range(10)))
             for band, name in ((1, "soil "), (2, "crop ")))  # fmt: skip
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{''.join(bands)}</PAMDataset>")
    for field, code, name in (("crop", 4, "crop 4"), ("2", 4, "crop 4"), ("1", 9, "soil 9")):
        labels = opened(path, field=field)
        assert (labels.burn(LATTICE, WINDOW, 1)[0] == code).all()
        assert [entry.name_en for entry in labels.legend.classes] == [name]


def test_labels_pickle(tmp_path: Path) -> None:
    labels = opened(save(tmp_path / "a.gpkg", TWO, [4, 5]))
    labels.burn(LATTICE, WINDOW, 1)
    again = pickle.loads(pickle.dumps(labels))
    for one, other in zip(
        labels.burn(LATTICE, WINDOW, 2), again.burn(LATTICE, WINDOW, 2), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def sample_ground() -> tuple[Ground, Window]:
    with rasterio.open(SAMPLE / "labels.tif") as dataset:
        bounds = tuple(dataset.bounds)
    return Ground(CRS, (bounds,)), LATTICE.window(bounds)


def test_truth_and_parcels_of_the_sample_agree() -> None:
    ground, window = sample_ground()
    truth = open_labels([LabelRequest(str(SAMPLE / "labels.tif"))], [ground])[0]
    request = LabelRequest(str(SAMPLE / "parcels.gpkg"), field="class_name")
    fields = open_labels([request], [ground], legend=truth.legend)[0]
    assert fields.legend == truth.legend
    assert "winter wheat" in [entry.name_en for entry in truth.legend.classes]
    classes, _ = truth.burn(LATTICE, window, 5)
    of_fields, parcels = fields.burn(LATTICE, window, 5)
    inside = of_fields != 255
    assert inside.mean() > 0.3
    # Outlines are simplified: pixels along them may differ.
    assert (classes[inside] == of_fields[inside]).mean() > 0.98
    assert len(np.unique(parcels)) > 60


def test_real_parcels_with_an_old_crs_member_are_placed(shared: Path) -> None:
    folder = shared / "real_data" / "parcels_azerbaijan"
    bounds = geopandas.read_file(folder / "test_area_crops.geojson").total_bounds
    ground = Ground("EPSG:32638", (tuple(bounds),))
    lattice = Lattice("EPSG:32638", 10.0)
    crops, cover = (
        open_labels([LabelRequest(str(folder / name), field)], [ground])[0]
        for name, field in (
            ("test_area_crops.geojson", "CROP_TYPE"),
            ("test_area_lulc.geojson", "LULC"),
        )
    )
    assert any("repaired" in d.value for d in cover.decisions)
    window = lattice.window(tuple(bounds))
    classes, parcels = crops.burn(lattice, window, 1)
    known = geopandas.read_file(folder / "test_area_crops.geojson")
    whole = sum(surfaces(shapely.make_valid(s)).area for s in known.geometry) / 100
    assert (classes != 255).sum() == pytest.approx(whole, rel=0.05)
    assert len(np.unique(parcels)) > 90
