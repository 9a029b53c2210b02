"""Does the memory that parcels take depend on the size of the map?

    python benchmarks/parcels_memory.py [--side 10000] [--times 20]

Draws the parcels of a map of SIDE x SIDE pixels with about 50 000 parcels, and of one with TIMES as
many rows and so TIMES the parcels, each in a process of its own, and prints CPU seconds and peak
memory. The maps are made strip by strip and written as tiled GeoTIFF; the fields are sheared
rectangles with ragged borders, so that every border has corners and none is short.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.windows import Window

from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIELD_PX = 45
"""Side of a field: 222 x 222 of them on 10 000 x 10 000 pixels."""

STRIP = 512
CLASSES = 19


def make_map(path: Path, height: int, width: int) -> None:
    """Write a map strip by strip; what a pixel shows follows from its place alone."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": height,
        "width": width,
        "nodata": 255,
        "crs": "EPSG:2154",
        "transform": rasterio.Affine(1, 0, 600_000, 0, -1, 6_900_000),
        "tiled": True,
        "blockxsize": STRIP,
        "blockysize": STRIP,
        "compress": "deflate",
        "BIGTIFF": "YES",
    }
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, height, STRIP):
            rows = np.arange(top, min(top + STRIP, height))[:, None]
            cols = np.arange(width)[None, :]
            file.write(codes_at(rows, cols), 1, window=Window(0, top, width, len(rows)))


def codes_at(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return class codes: waves bend the borders, a hash of the field gives the class."""
    down = rows + 6 * np.sin(cols / 31) + 2 * np.sin(cols / 7.3)
    across = cols + 6 * np.sin(rows / 37) + 2 * np.sin(rows / 5.9)
    row, col = (down // FIELD_PX).astype(np.int64), (across // FIELD_PX).astype(np.int64)
    mixed = (row * 2_654_435_761 + col * 40_503) ^ (row >> 3) * 97
    # neighbours differ: the class steps by 1 along a row and by 5 down a column, plus a hash of 3
    code = (col + 5 * row + 7 * (mixed % 3)) % CLASSES
    codes: NDArray[np.uint8] = code.astype(np.uint8)
    return codes


def peak_mib() -> float:
    """Return the most memory this process has had (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) / 1024


def main() -> None:
    """Make each map, draw it in a process of its own, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--draw", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.draw:
        source, out = args.draw
        before, begin = peak_mib(), time.process_time()
        report = vectorize(source, out, ParcelOptions(simplify_m=2.0, min_area_m2=200))
        seconds = time.process_time() - begin
        print(
            f"{report.parcels} parcels, {seconds:.0f} cpu-s, peak {peak_mib():.0f} MiB "
            f"({before:.0f} MiB before the first row)"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, args.times):
            path, out = Path(folder) / "map.tif", Path(folder) / "parcels.gpkg"
            make_map(path, args.side * times, args.side)
            command = [sys.executable, __file__, "--draw", str(path), str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{args.side * times} x {args.side}: {done.stdout.strip()}", flush=True)
            path.unlink()
            out.unlink()


if __name__ == "__main__":
    main()
