"""Maps in degrees: metres by latitude, areas on the ellipsoid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely

from omnisat_cli.errors import AlignmentError
from omnisat_cli.outputs.parcels.ground import Degrees
from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

STEP = 1 / 1200
LEGEND = "10  Tree cover\n20  Shrubland\n100 Moss and lichen\n"


def write(path: Path, codes: NDArray[np.uint8], top: float, crs: str = "EPSG:4326") -> Path:
    """Write a map as ESA WorldCover is: 0 = none, a palette, the legend in the tags."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=1,
        height=codes.shape[0],
        width=codes.shape[1],
        nodata=0,
        crs=crs,
        transform=rasterio.Affine(STEP, 0, 6.0, 0, -STEP, top),
    ) as file:
        file.write(codes, 1)
        file.write_colormap(1, {10: (0, 100, 0), 20: (255, 187, 34)})
        file.update_tags(legend=LEGEND)
    return path


def read(path: Path) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.object_]]:
    meta, _, shapes, columns = pyogrio.raw.read(path, layer="parcels")
    return dict(zip(meta["fields"], columns, strict=True)), shapely.from_wkb(shapes)


def squares(side: int = 40) -> NDArray[np.uint8]:
    codes = np.full((side, side), 10, np.uint8)
    codes[:4] = 0
    codes[10:20, 10:30] = 20
    codes[30, 35] = 20
    return codes


def test_areas_and_outlines_are_those_of_the_ellipsoid(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", squares(), 60.0)
    columns, polygons = read(vectorize(path, tmp_path / "p.gpkg").out)
    geod = pyproj.Geod(ellps="WGS84")
    for row, polygon in enumerate(polygons):
        area, _ = geod.geometry_area_perimeter(shapely.orient_polygons(polygon))
        outline = sum(geod.geometry_length(ring) for ring in shapely.get_rings(polygon))
        assert columns["area_m2"][row] == pytest.approx(area, abs=0.006)
        assert columns["perimeter_m"][row] == pytest.approx(outline, abs=0.006)
    inner = list(columns["n_px"]).index(200)
    # at 60 degrees a degree of longitude is half as long
    assert columns["area_ha"][inner] == pytest.approx(200 * 92.85 * 46.5 / 1e4, rel=0.01)
    assert sorted(columns["class_name"].tolist()) == ["Shrubland", "Shrubland", "Tree cover"]


def test_the_smallest_area_is_in_square_metres_at_every_latitude(tmp_path: Path) -> None:
    codes = np.full((60, 40), 10, np.uint8)
    codes[5:7, 5:7] = 20
    for top, stays in ((0.02, True), (70.0, False)):
        path = write(tmp_path / f"{top}.tif", codes, top)
        found = []
        for rows in (60, 6):
            options = ParcelOptions(min_area_m2=25_000, strip_rows=rows, overwrite=True)
            report = vectorize(path, tmp_path / "p.gpkg", options)
            found.append((report.parcels, report.by_class))
            hectares = sum(area for _, _, area in report.by_class)
            area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(
                shapely.segmentize(shapely.box(6, top - 60 * STEP, 6 + 40 * STEP, top), STEP)
            )
            assert hectares == pytest.approx(abs(area) / 1e4, rel=1e-6)
        assert found[0] == found[1]
        assert found[0][0] == 1 + stays


def test_the_tolerance_is_in_metres(tmp_path: Path) -> None:
    codes = np.full((60, 60), 10, np.uint8)
    for row in range(60):
        codes[row, : 30 + row // 12] = 20  # a border that steps by one pixel now and then
    corners = {}
    for top in (0.02, 80.0):
        path = write(tmp_path / f"{top}.tif", codes, top)
        options = ParcelOptions(simplify_m=30.0, overwrite=True)
        _, polygons = read(vectorize(path, tmp_path / "p.gpkg", options).out)
        corners[top] = int(shapely.get_num_coordinates(polygons).sum())
    assert corners[80.0] < corners[0.02]  # 16 m a pixel in the north, 93 m at the equator


def test_a_pixel_is_as_large_as_its_parallel_says() -> None:
    ground = Degrees(1.0, STEP, STEP, 2400, pyproj.Geod(ellps="WGS84"))
    assert ground.pixel == pytest.approx(111_319.49 / 1200, rel=1e-4)  # across, at the equator
    height, width = ground.sizes(np.array([1200]))[0]
    assert (height, width) == (pytest.approx(92.145, rel=1e-3), pytest.approx(92.766, rel=1e-3))


def test_grids_that_are_not_in_degrees_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", squares(), 120.0)
    with pytest.raises(AlignmentError, match="beyond a pole"):
        vectorize(path, tmp_path / "p.gpkg")
    grads = write(tmp_path / "grads.tif", squares(), 50.0, "EPSG:4807")
    with pytest.raises(AlignmentError, match="grad"):
        vectorize(grads, tmp_path / "p.gpkg")


def test_a_map_without_any_class_gives_no_parcels(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", np.zeros((30, 30), np.uint8), 10.0)
    report = vectorize(path, tmp_path / "p.gpkg", ParcelOptions(min_area_m2=10, strip_rows=7))
    assert (report.parcels, report.by_class) == (0, ())
