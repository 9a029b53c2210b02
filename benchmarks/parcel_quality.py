"""Panoptic quality of parcels on simulated scenes: what boundaries add, and where the loss lies.

    python benchmarks/parcel_quality.py [--model omnisat-demo] [--seed 9000] [--count 6]

Simulates worlds that no bundled model has learned from (seeds from 9000), maps them as `predict`
does, draws parcels as `vectorize` does, and scores them as `evaluate --parcels` does, all scenes
together. The class map and the boundary are those of the model or the true ones, so that it shows
which of them loses what:

    regions        connected regions of one class, no boundary
    fields         told apart by the boundary

Each with the same smallest area. Ground that no reference parcel covers (verges, gardens, margins)
is real grassland in these scenes; figures are given with such ground unknown (void) and counted as
background, where a verge drawn as a parcel is wrong.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio

from omnisat_cli.learning.data.windows import borders
from omnisat_cli.learning.scoring.parcel_files import ParcelFiles, read_pair
from omnisat_cli.learning.scoring.parcel_scores import Panoptic, ParcelRules, score_parcels
from omnisat_cli.learning.simulate import LEGEND_FILE, SceneSpec, simulate
from omnisat_cli.learning.simulate.files import write_scene
from omnisat_cli.outputs.parcels.source import Boundaries
from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize

MODEL, TRUE = "model", "true"
WAYS = (
    ("regions", MODEL, None),
    ("fields", MODEL, MODEL),
    ("fields", MODEL, TRUE),
    ("regions", TRUE, None),
    ("fields", TRUE, MODEL),
    ("fields", TRUE, TRUE),
)
CERTAIN = 250


def make_scene(folder: Path, seed: int, side: int, model: str) -> None:
    """Simulate a world, map it, and write the true boundary on the grid of the map."""
    scene = simulate(SceneSpec(seed, side, side, aerial_gsd=0.5))
    write_scene(scene, folder)
    words = ["--aerial", "aerial.tif", "--s2", "s2.nc", "--s1", "s1.nc", "--boundary", "-q"]
    command = [sys.executable, "-m", "omnisat_cli", "predict", *words, "-m", model]
    subprocess.run([*command, "--out", "model.tif"], cwd=folder, check=True)
    with rasterio.open(folder / "labels.tif") as file:
        profile = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": 1,
            "height": file.height,
            "width": file.width,
            "crs": file.crs,
            "transform": file.transform,
            "nodata": 255,
        }
        classes = file.read(1)
    layers = {
        "true.tif": classes,
        "true.boundary.tif": CERTAIN * (borders(scene.parcel_ids, scene.truth) == 1),
    }
    for name, values in layers.items():
        with rasterio.open(folder / name, "w", **profile) as file:
            file.write(values.astype(np.uint8), 1)


def score(
    folder: Path, way: tuple[str, str, str | None], min_area: float, rules: ParcelRules
) -> dict[str, Panoptic]:
    """Draw the parcels of a scene in one way and score them."""
    _, classes, boundary = way
    use = Boundaries(boundary is not None, folder / f"{boundary}.boundary.tif")
    options = ParcelOptions(
        min_area_m2=min_area, boundaries=use, overwrite=True, legend=str(LEGEND_FILE)
    )
    out = folder / f"{classes}-{boundary}.gpkg"
    if not out.exists():
        vectorize(folder / f"{classes}.tif", out, options)
    pair = read_pair(ParcelFiles(out, folder / "parcels.gpkg", "class_code"))
    return score_parcels(pair.predicted, pair.reference, rules).by_class


def added(parts: list[dict[str, Panoptic]]) -> dict[str, Panoptic]:
    """Add the counts of several scenes."""
    total: dict[str, Panoptic] = {}
    for name in sorted({name for part in parts for name in part}):
        rows = [part[name] for part in parts if name in part]
        total[name] = Panoptic(
            sum(row.found for row in rows),
            sum(row.false for row in rows),
            sum(row.missed for row in rows),
            sum(row.iou for row in rows),
        )
    return total


def line(counts: dict[str, Panoptic]) -> str:
    """Return the figures of all scenes in words."""
    rows = list(counts.values())
    found, false, missed = (
        sum(getattr(row, name) for row in rows) for name in ("found", "false", "missed")
    )
    means = [100 * np.mean([getattr(row, name) for row in rows]) for name in ("pq", "sq", "rq")]
    return (
        f"PQ {means[0]:.1f} SQ {means[1]:.1f} RQ {means[2]:.1f}  "
        f"found {found}, false {false}, missed {missed}"
    )


def main() -> None:
    """Simulate, map, draw, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="omnisat-demo")
    parser.add_argument("--seed", type=int, default=9000)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--min-area", type=float, default=300)
    parser.add_argument("--classes", action="store_true", help="print every class too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(args.seed + k) for k in range(args.count)]
        for folder in folders:
            make_scene(folder, int(folder.name), args.side, args.model)
        for elsewhere in ("void", "background"):
            print(f"ground without reference parcels: {elsewhere}")
            rules = ParcelRules(elsewhere=elsewhere)
            for way in WAYS:
                parts = [score(folder, way, args.min_area, rules) for folder in folders]
                counts = added(parts)
                words = f"{way[0]}, {way[1]} classes"
                words += f", {way[2]} boundary" if way[2] else ""
                print(f"  {words:40} {line(counts)}", flush=True)
                for code, row in counts.items() if args.classes else ():
                    print(f"    class {code}: PQ {100 * row.pq:.1f} {row}")


if __name__ == "__main__":
    main()
