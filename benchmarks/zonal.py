"""Parcels that exist, judged by a class map: omnisat against exactextract and against rasterising.

    python benchmarks/zonal.py [SIDE [PARCELS]]

Makes a map of SIDE x SIDE pixels of 1 m (default 2500) with its confidence, and PARCELS parcels
that tile it (default: one a thousand pixels), a hundredth of them strips 0.3 m wide. Each way runs
in a process of its own and gives the class of every parcel, the share of every class, mean and
deviation of the confidence. omnisat reads and writes whole GeoPackages, all columns and a style;
the others read the parcels and keep their table. Prints CPU seconds, the memory taken beyond the
libraries, parcels without a class, and how many parcels have the class exactextract gives them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = 19
FIELD_PX = 40
STRIP_ROWS = 1024


def make(folder: Path, side: int, count: int) -> None:
    """Write map.tif, map.confidence.tif and parcels.gpkg."""
    rng = np.random.default_rng(0)
    cells = -(-side // FIELD_PX)
    fields = rng.integers(0, CLASSES, (cells, cells), dtype=np.uint8)
    codes = fields.repeat(FIELD_PX, 0).repeat(FIELD_PX, 1)[:side, :side].copy()
    speckle = rng.random((side, side), dtype=np.float32) < 0.05
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
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
    }
    sure = rng.integers(40, 100, (side, side), dtype=np.uint8)
    for name, pixels in (("map.tif", codes), ("map.confidence.tif", sure)):
        with rasterio.open(folder / name, "w", **profile) as file:
            file.write(pixels, 1)
    pyogrio.raw.write(
        folder / "parcels.gpkg",
        geometry=shapely.to_wkb(make_parcels(rng, side, count)),
        field_data=[np.arange(count).astype(str).astype(object)],
        fields=["ID_PARCEL"],
        layer="rpg",
        driver="GPKG",
        geometry_type="Polygon",
        crs="EPSG:2154",
    )


def make_parcels(rng: np.random.Generator, side: int, count: int) -> NDArray[np.object_]:
    """Return cells around random points with bent borders, and some thin strips."""
    thin = count // 100
    points = shapely.multipoints(rng.uniform(0, side, (count - thin, 2)))
    frame = shapely.box(0, 0, side, side)
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=frame))
    cells = shapely.intersection(shapely.segmentize(cells, 4.0), frame)
    cells = shapely.transform(
        cells, lambda xy: xy + np.sin(xy[:, ::-1] / 7) * ((xy > 0) & (xy < side))
    )
    cells = cells[shapely.is_valid(cells) & (shapely.get_type_id(cells) == 3)]
    begin = rng.uniform(60, side - 60, (count - len(cells), 2))
    lines = shapely.linestrings(np.stack([begin, begin + rng.uniform(-50, 50, begin.shape)], 1))
    parcels = np.concatenate([cells, shapely.buffer(lines, 0.15, cap_style="flat")])
    placed: NDArray[np.object_] = shapely.transform(
        parcels, lambda xy: xy * [1, -1] + [650_000, 6_830_000]
    )
    return placed


def judge_ours(folder: Path) -> NDArray[np.int64]:
    """Run what `omnisat vectorize --parcels-in` runs."""
    from omnisat_cli.outputs.parcels.existing import judge_parcels

    out = folder / "ours.gpkg"
    judge_parcels(folder / "map.tif", folder / "parcels.gpkg", out)
    code = pyogrio.read_dataframe(out, layer="parcels", columns=["pred_code"], read_geometry=False)
    return np.asarray(code["pred_code"].fillna(255), int)


def judge_exactextract(folder: Path) -> NDArray[np.int64]:
    """Ask exactextract, one raster after the other, with its quicker strategy."""
    from exactextract import exact_extract

    parcels = pyogrio.read_dataframe(folder / "parcels.gpkg", layer="rpg")
    ways = {"strategy": "raster-sequential", "output": "pandas"}
    table = exact_extract(
        folder / "map.tif", parcels, ["majority", "unique", "frac", "count"], **ways
    )
    exact_extract(folder / "map.confidence.tif", parcels, ["mean", "stdev"], **ways)
    return np.asarray(table["majority"].fillna(255), int)


def judge_rasterised(folder: Path) -> NDArray[np.int64]:
    """Burn the numbers of the parcels into strips and count: pixel centres only."""
    shapes = shapely.from_wkb(pyogrio.raw.read(folder / "parcels.gpkg", layer="rpg")[2])
    tree = shapely.STRtree(shapes)
    count = len(shapes)
    classes, sums = np.zeros((count, CLASSES)), np.zeros((3, count))
    with (
        rasterio.open(folder / "map.tif") as file,
        rasterio.open(folder / "map.confidence.tif") as sure,
    ):
        for top in range(0, file.height, STRIP_ROWS):
            rows = min(STRIP_ROWS, file.height - top)
            window = ((top, top + rows), (0, file.width))
            grid = file.window_transform(window)
            ground = shapely.box(*rasterio.transform.array_bounds(rows, file.width, grid))
            near = np.sort(tree.query(ground))
            number = rasterio.features.rasterize(
                zip(shapes[near], near + 1, strict=True),
                out_shape=(rows, file.width),
                transform=grid,
                dtype="int32",
            ).ravel()
            inside = number > 0
            parcel = number[inside].astype(np.int64) - 1
            code = file.read(1, window=window).ravel()[inside]
            key = parcel * CLASSES + code
            classes += np.bincount(key, minlength=count * CLASSES).reshape(count, CLASSES)
            value = sure.read(1, window=window).ravel()[inside].astype(float)
            for place, power in enumerate((value**0, value, value**2)):
                sums[place] += np.bincount(parcel, power, count)
    return np.where(classes.sum(axis=1) > 0, classes.argmax(axis=1), 255)


WAYS = {"ours": judge_ours, "exactextract": judge_exactextract, "rasterised": judge_rasterised}


def peak_mb() -> float:
    """Return the most memory this process has had (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) / 1024


def main() -> None:
    """Make the files, judge them in all ways, print a line for each."""
    if len(sys.argv) == 4 and sys.argv[1] in WAYS:
        folder = Path(sys.argv[2])
        before, begin = peak_mb(), time.process_time()
        codes = WAYS[sys.argv[1]](folder)
        seconds = time.process_time() - begin
        np.save(folder / sys.argv[3], codes)
        print(f"{seconds:.1f} cpu-s, {peak_mb() - before:.0f} MB more than the libraries")
        return
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 2500
    count = int(sys.argv[2]) if len(sys.argv) > 2 else side**2 // 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, side, count)
        print(f"{side}² pixels, {count} parcels")
        costs = {
            way: subprocess.run(
                [sys.executable, __file__, way, name, f"{way}.npy"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for way in WAYS
        }
        found = {way: np.load(folder / f"{way}.npy") for way in WAYS}
        for way, cost in costs.items():
            same = (found[way] == found["exactextract"]).mean()
            empty = int((found[way] == 255).sum())
            print(f"{way}: {cost}, {empty} without a class, {same:.4%} as exactextract")


if __name__ == "__main__":
    main()
