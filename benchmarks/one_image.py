"""One-image job: `omnisat predict` against a plain rasterio loop around the same U-Net.

    python benchmarks/one_image.py                      # 5 000² and 10 000², 3 turns
    python benchmarks/one_image.py --sides 2000 --repeats 1

4-band uint8 orthophoto at 0.2 m, 19 classes, 1.45 M-parameter U-Net, windows of 512 px laid every
384 px. With the null network (class = first band modulo 19) the maps must be equal, and what is
left of the CPU time is the program's own cost. omnisat also writes confidence, validity, presence,
overviews, a quick-look and provenance, all of which the plain loop goes without.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import side_by_side as bench

if TYPE_CHECKING:
    import argparse

ORIGIN_PATCH = 1
"""The image begins one patch (128 px) after a window of the lattice, three of which it cuts."""

_COMPARE = """
import json, sys
import numpy, rasterio
from rasterio.windows import from_bounds
with rasterio.open(sys.argv[1]) as one, rasterio.open(sys.argv[2]) as two:
    a = one.read(1)
    b = two.read(1, window=from_bounds(*one.bounds, transform=two.transform).round_lengths()
                 .round_offsets())
print(json.dumps({"equal": float((a == b).mean()), "pixels": a.size}))
"""


def main() -> None:
    """Measure every size."""
    parser = bench.parser(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10000], help="pixels")
    parser.add_argument("--large-repeats", type=int, default=1, help="turns beyond 5 000²")
    parser.add_argument("--null-only", action="store_true")
    parser.add_argument("--blend", action="store_true", help="also a plain loop that blends")
    args = parser.parse_args()
    rows: list[tuple[str, ...]] = [("image", "run", "CPU s", "peak MiB", "against plain")]
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        subprocess.run(bench.python("orthophoto.py", "--packs", room), check=True)
        for side in args.sides:
            image = room / f"{side}.tif"
            command = bench.python("orthophoto.py", "--image", image, "--side", side)
            subprocess.run(command, check=True)
            repeats = args.repeats if side <= 5000 else min(args.repeats, args.large_repeats)
            print(f"{side} x {side} px", flush=True)
            runs = bench.alternate(_commands(room, image, args), repeats, args.threads)
            equal = {
                kind: _equal(room / f"plain-{kind}.tif", room / f"omnisat-{kind}.tif")
                for kind in ("null", "unet")
                if (room / f"plain-{kind}.tif").exists() and (room / f"omnisat-{kind}.tif").exists()
            }
            if (room / "plain-blend.tif").exists():
                equal["blend"] = _equal(room / "plain-blend.tif", room / "omnisat-unet.tif")
            figures[str(side)] = {"runs": bench.plain(runs), "equal": equal}
            for kind, group in runs.items():
                plain = runs.get(f"plain-{kind.split('-')[1]}")
                ratio = f"{bench.cpu(plain) / bench.cpu(group):.2f}" if plain else ""
                rows.append(
                    (str(side), kind, f"{bench.cpu(group):.1f}", f"{bench.peak(group):.0f}", ratio)
                )
            rows += [
                (str(side), f"equal pixels, {k}", f"{v:.6f}", "", "") for k, v in equal.items()
            ]
    bench.table(rows)
    bench.deliver("one_image", args, figures)


def _commands(room: Path, image: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    common: list[object] = [
        "predict", "--aerial", image, "--threads", args.threads, "--device", "cpu", "--overwrite",
        "--quiet",
    ]  # fmt: skip
    threads = ["--threads", args.threads, "--phase", 128 * ORIGIN_PATCH]
    commands = {
        "plain-null": bench.python("plain_one_image.py", image, room / "plain-null.tif", *threads),
        "omnisat-null": bench.python(
            "null_predict.py", *common, "--model", room / "null", "-o", room / "omnisat-null.tif"
        ),
    }
    if args.null_only:
        return commands
    pack = ["--pack", room / "unet"]
    plain = ("plain_one_image.py", image)
    commands["plain-unet"] = bench.python(*plain, room / "plain-unet.tif", *pack, *threads)
    if args.blend:
        commands["plain-blend"] = bench.python(
            *plain, room / "plain-blend.tif", *pack, *threads, "--blend"
        )
    commands["omnisat-unet"] = [
        sys.executable, "-m", "omnisat_cli", *map(str, common), "--model", str(room / "unet"),
        "-o", str(room / "omnisat-unet.tif"),
    ]  # fmt: skip
    return commands


def _equal(one: Path, two: Path) -> float:
    command = [sys.executable, "-c", _COMPARE, str(one), str(two)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(said)["equal"])


if __name__ == "__main__":
    main()
