"""Parcels of a class map: omnisat against polygonising and simplifying each polygon by itself.

    python benchmarks/parcels.py [SIDE]

Makes a map of SIDE x SIDE pixels of 1 m (default 2500) with wavy fields and 0.2 % of speckle, draws
its parcels in both ways, each in a process of its own, and prints CPU seconds, the memory it took
beyond the libraries, vertices a parcel, and the ground that is covered twice or not at all.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
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
    places = np.stack(np.mgrid[:side, :side], axis=-1).astype(np.float32)
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


def peak_mb() -> float:
    """Return the most memory this process has had (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) / 1024


def main() -> None:
    """Make the map, draw it in both ways, print a line for each."""
    if len(sys.argv) == 4:
        draw = {"ours": draw_ours, "plain": draw_plain}[sys.argv[1]]
        before, begin = peak_mb(), time.process_time()
        draw(Path(sys.argv[2]), Path(sys.argv[3]))
        seconds = time.process_time() - begin
        taken = peak_mb() - before
        print(f"{seconds:.1f} cpu-s, {taken:.0f} MB more than the libraries")
        return
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 2500
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.tif"
        make_map(path, side)
        for name in ("ours", "plain"):
            out = Path(folder) / f"{name}.gpkg"
            command = [sys.executable, __file__, name, str(path), str(out)]
            cost = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"{name}: {cost.strip()}\n  {judge(out, side)}")


if __name__ == "__main__":
    main()
