"""Parcels of a class map: omnisat against polygonising and simplifying each polygon by itself.

    python benchmarks/parcels.py [SIDE]

Makes a map of SIDE x SIDE pixels of 1 m (default 2500) with wavy fields and 0.2 % of speckle, and
draws its parcels in several ways, each in a process of its own:

    ours      omnisat vectorize --simplify 2 --min-area 50
    smooth    the same with --smooth
    shapes    rasterio: sieve, features.shapes (which is GDALPolygonize), simplify each polygon
    gdal      gdal_sieve.py, gdal_polygonize.py, ogr2ogr -simplify, where the tools are installed

It prints CPU seconds and peak memory of the whole process, imports included, vertices a parcel, and
the ground that is covered twice or not at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize

TOLERANCE_M = 2.0
MIN_AREA_M2 = 50
FIELD_PX = 75
CLASSES = 19


def make_map(path: Path, side: int) -> None:
    """Write fields around random points, their borders bent."""
    rng = np.random.default_rng(0)
    count = (side // FIELD_PX) ** 2
    points = cKDTree(rng.uniform(0, side, (count, 2)))
    bend = [gaussian_filter(rng.normal(size=(side, side)), 12) for _ in range(2)]
    places = np.stack(list(np.mgrid[:side, :side]), axis=-1).astype(np.float32)
    places += np.stack([6 * b / b.std() for b in bend], axis=-1)
    codes = rng.integers(0, CLASSES, count, dtype=np.uint8)[points.query(places)[1]]
    speckle = rng.random((side, side)) < 0.002
    codes[speckle] = rng.integers(0, CLASSES, int(speckle.sum()), dtype=np.uint8)
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": side,
        "width": side,
        "nodata": 255,
        "crs": "EPSG:2154",
        "transform": rasterio.Affine(1, 0, 650_000, 0, -1, 6_830_000),
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(codes, 1)


def draw_ours(path: Path, out: Path) -> None:
    """Draw parcels as `omnisat vectorize --simplify 2 --min-area 50` does."""
    vectorize(path, out, ParcelOptions(simplify_m=TOLERANCE_M, min_area_m2=MIN_AREA_M2))


def draw_smooth(path: Path, out: Path) -> None:
    """Draw parcels as `omnisat vectorize --simplify 2 --min-area 50 --smooth` does."""
    options = ParcelOptions(simplify_m=TOLERANCE_M, min_area_m2=MIN_AREA_M2, smooth=True)
    vectorize(path, out, options)


def draw_plain(path: Path, out: Path) -> None:
    """Sieve, polygonise, simplify each polygon, write."""
    with rasterio.open(path) as file:
        codes = rasterio.features.sieve(file.read(1), MIN_AREA_M2)
        found = rasterio.features.shapes(codes, connectivity=4, transform=file.transform)
        pairs = [(shapely.geometry.shape(shape), code) for shape, code in found]
    polygons = shapely.simplify([shape for shape, _ in pairs], TOLERANCE_M)
    pyogrio.raw.write(
        out,
        geometry=shapely.to_wkb(polygons),
        field_data=[np.array([code for _, code in pairs], np.int32)],
        fields=["class_code"],
        layer="parcels",
        driver="GPKG",
        geometry_type="Polygon",
        crs="EPSG:2154",
    )


def judge(out: Path, side: int) -> str:
    """Return parcels, vertices and faults of a file in words."""
    polygons = shapely.from_wkb(pyogrio.raw.read(out, layer="parcels")[2])
    area, ground = float(shapely.area(polygons).sum()), float(side**2)
    union = float(shapely.area(shapely.union_all(shapely.make_valid(polygons))))
    vertices = int(shapely.get_num_coordinates(polygons).sum())
    invalid = int((~shapely.is_valid(polygons)).sum())
    return (
        f"{len(polygons)} parcels, {vertices / len(polygons):.1f} vertices each, "
        f"{invalid} invalid, "
        f"twice covered {area - union:.4f} m², not covered {ground - union:.4f} m², "
        f"{out.stat().st_size / 1e6:.1f} MB"
    )


def commands(path: Path, folder: Path) -> dict[str, list[list[str]]]:
    """Return what is run for each way; the file that comes out is NAME.gpkg."""
    ours = [sys.executable, __file__]
    ways = {
        name: [[*ours, name, str(path), str(folder / f"{name}.gpkg")]]
        for name in ("ours", "smooth", "shapes")
    }
    tools = [shutil.which(tool) for tool in ("gdal_sieve.py", "gdal_polygonize.py", "ogr2ogr")]
    if all(tools):
        sieve, polygonize, ogr2ogr = map(str, tools)
        sieved, raw = str(folder / "sieved.tif"), str(folder / "raw.gpkg")
        simple = ["-simplify", str(TOLERANCE_M), "-nln", "parcels"]
        ways["gdal"] = [
            [sieve, "-q", "-st", str(MIN_AREA_M2), "-4", str(path), sieved],
            [polygonize, "-q", sieved, "-f", "GPKG", raw, "parcels", "class_code"],
            [ogr2ogr, *simple, str(folder / "gdal.gpkg"), raw],
        ]
    return ways


LAUNCH = """
import os, sys
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(child, 0)
print(status, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
"""A process begins with the peak of the one that starts it, so a small one does."""


def cost(steps: list[list[str]]) -> tuple[float, float]:
    """Run commands one after the other; return CPU seconds and the largest peak in MiB."""
    seconds = peak = 0.0
    for step in steps:
        launch = [sys.executable, "-S", "-c", LAUNCH, *step]
        done = subprocess.run(launch, stdout=subprocess.PIPE, text=True, check=True)
        status, cpu, most = done.stdout.split()[-3:]
        if int(status):
            raise SystemExit(f"{step[0]} failed: {os.waitstatus_to_exitcode(int(status))}")
        seconds += float(cpu)
        peak = max(peak, float(most))
    return seconds, peak


def main() -> None:
    """Make the map, draw it in every way, print a line for each."""
    if len(sys.argv) == 4:
        draw = {"ours": draw_ours, "smooth": draw_smooth, "shapes": draw_plain}[sys.argv[1]]
        draw(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 2500
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_map(folder / "map.tif", side)
        for way, steps in commands(folder / "map.tif", folder).items():
            seconds, peak = cost(steps)
            print(f"{way}: {seconds:.1f} cpu-s, peak {peak:.0f} MiB")
            print(f"  {judge(folder / f'{way}.gpkg', side)}", flush=True)


if __name__ == "__main__":
    main()
