"""Multimodal job: `omnisat predict` against a plain loop that transcribes the specification.

    python benchmarks/multimodal.py                     # 240 m square, 3 turns
    python benchmarks/multimodal.py --side-m 960        # nearly 1 km², slow

Aerial image at 0.2 m, 36 Sentinel-2 dates, 30 Sentinel-1 dates, the TreeSat configuration at its
official size (width 256, depth 6, 16 heads) with a dense head, geographic positions, random
weights, windows of 60 m without overlap and with 50 %. The plain loop (plain_omnisat.py) encodes
everything again in every window. The blended logits of both are compared.
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

LEFT, TOP, MARGIN_M = 640_020, 6_860_040, 60

_COMPARE = """
import json, sys
import numpy as np
a, b = (np.load(path) for path in sys.argv[1:])
same = float((a[:-1].argmax(0) == b[:-1].argmax(0)).mean())
print(json.dumps({"largest difference": float(np.abs(a - b).max()),
                  "largest logit": float(np.abs(a).max()), "equal classes": same}))
"""


def main() -> None:
    """Measure both overlaps."""
    parser = bench.parser(__doc__)
    parser.add_argument("--side-m", type=int, default=240, help="a multiple of 60")
    parser.add_argument("--scene", type=Path, help="keep or reuse the simulated files here")
    args = parser.parse_args()
    rows: list[tuple[str, ...]] = [
        ("overlap", "run", "CPU s", "of which network", "peak MiB", "against plain")
    ]
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        scene = args.scene or room / "scene"
        made = [] if (scene / "s1.nc").exists() else ["--scene", scene, "--side-m", args.side_m]
        subprocess.run(bench.python("scene.py", "--packs", room, *made), check=True)
        for overlap in (0, 50):
            print(f"{args.side_m} m square, {overlap} % overlap", flush=True)
            commands = _commands(room, scene, overlap, args)
            runs = bench.alternate(commands, args.repeats, args.threads)
            same = _difference(room, scene, overlap, args)
            figures[f"overlap {overlap} %"] = {"runs": bench.plain(runs), "answer": same}
            for kind, group in runs.items():
                ratio = bench.cpu(runs["plain"]) / bench.cpu(group)
                network = group[0].said.get("network_cpu_s")
                rows.append(
                    (f"{overlap} %", kind, f"{bench.cpu(group):.1f}",
                     f"{network:.1f}" if isinstance(network, float) else "",
                     f"{bench.peak(group):.0f}", f"{ratio:.2f}")
                )  # fmt: skip
            print(same, flush=True)
    bench.table(rows)
    bench.deliver("multimodal", args, figures)


def bbox(side_m: int) -> list[str]:
    """Return the mapped area as words of a command line."""
    return [str(edge) for edge in (LEFT, TOP - side_m, LEFT + side_m, TOP)]


def command_line(room: Path, scene: Path, overlap: int, args: argparse.Namespace) -> list[str]:
    """Return the omnisat command of the job."""
    return [
        sys.executable, "-m", "omnisat_cli", "predict", "--aerial", str(scene / "aerial.tif"),
        "--s2", str(scene / "s2.nc"), "--s1", str(scene / "s1.nc"), "--cloud-mask", "none",
        "--bbox", *bbox(args.side_m), "--model", str(room / f"overlap-{overlap}"),
        "-o", str(room / f"map-{overlap}.tif"), "--threads", str(args.threads),
        "--device", "cpu", "--overwrite", "--quiet",
    ]  # fmt: skip


def plain_line(
    room: Path, scene: Path, overlap: int, args: argparse.Namespace, *more: object
) -> list[str]:
    """Return the command of the plain loop."""
    return bench.python(
        "plain_omnisat.py", scene, room / f"overlap-{overlap}", room / f"plain-{overlap}.tif",
        "--margin-m", MARGIN_M, "--side-m", args.side_m, *more,
    )  # fmt: skip


def _commands(
    room: Path, scene: Path, overlap: int, args: argparse.Namespace
) -> dict[str, list[str]]:
    return {
        "plain": plain_line(room, scene, overlap, args),
        "omnisat": command_line(room, scene, overlap, args),
    }


def _difference(
    room: Path, scene: Path, overlap: int, args: argparse.Namespace
) -> dict[str, object]:
    plain, ours = room / "plain.npy", room / "ours.npy"
    bench.run(plain_line(room, scene, overlap, args, "--logits", plain), args.threads)
    pack = room / f"overlap-{overlap}"
    words = (scene, pack, *bbox(args.side_m), "--out", ours)
    bench.run(bench.python("engine_logits.py", *words), args.threads)
    command = [sys.executable, "-c", _COMPARE, str(plain), str(ours)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    answer: dict[str, object] = json.loads(said)
    return answer


if __name__ == "__main__":
    main()
