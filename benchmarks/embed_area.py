"""Embeddings of a square of Sentinel-2 and Sentinel-1: km² a minute, memory, efficiency.

    python benchmarks/embed_area.py --km 1
    python benchmarks/embed_area.py --km 10 --size base --device cuda

A square kilometre is simulated once and repeated. The network is an AnySat of random weights, so
the figures say nothing about maps. "At its best" is the folded network on tensors that are in
memory already: a sample of cells and windows is timed and multiplied by how many of them the square
has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import side_by_side as bench
from timing import median_seconds

ORIGIN = (640_000, 6_860_000)
S2_DATES, S1_DATES = 36, 30
TIMED = 5


def main() -> None:
    """Measure the command, or be a child that makes files or times the network."""
    parser = bench.parser(__doc__)
    parser.add_argument("--km", type=int, default=2, help="side of the square")
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="tiny")
    parser.add_argument("--patch-size", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", choices=("make", "network"), help=argparse.SUPPRESS)
    parser.add_argument("--room", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(repeats=1)
    args = parser.parse_args()
    if args.child:
        {"make": _make, "network": _network}[args.child](args)
        return
    with tempfile.TemporaryDirectory() as name:
        words = ["--room", name, "--threads", args.threads]
        for option in ("km", "size", "patch_size", "device"):
            words += [f"--{option.replace('_', '-')}", getattr(args, option)]
        bench.run(bench.python("embed_area.py", "--child", "make", *words), args.threads)
        room = Path(name)
        command = [sys.executable, "-m", "omnisat_cli", "embed", "-m", str(room / "pack")]
        command += ["--s2", str(room / "s2.nc"), "--s1", str(room / "s1.nc"), "--overwrite", "-q"]
        command += ["-o", str(room / "e.tif"), "--threads", str(args.threads)]
        command += ["--patch-size", str(args.patch_size), "--device", args.device]
        runs = bench.alternate(
            {
                "command": command,
                "network": bench.python("embed_area.py", "--child", "network", *words),
            },
            args.repeats,
            args.threads,
        )
    _report(args, runs)


def _report(args: argparse.Namespace, runs: dict[str, list[bench.Run]]) -> None:
    whole = bench.cpu(runs["command"])
    wall = statistics.median(run.wall_s for run in runs["command"])
    network = statistics.median(float(str(run.said["seconds"])) for run in runs["network"])
    spent = whole if args.device == "cpu" else wall
    area = args.km**2
    bench.table(
        [
            ("figure", "value"),
            ("area", f"{area} km², patches of {args.patch_size} m"),
            ("CPU s of the command", f"{whole:.1f}"),
            ("wall s", f"{wall:.1f}"),
            ("km² a CPU minute", f"{60 * area / whole:.2f}"),
            ("km² a minute", f"{60 * area / wall:.2f}"),
            ("peak MiB", f"{bench.peak(runs['command']):.0f}"),
            ("network at its best, s", f"{network:.1f}"),
            ("efficiency", f"{network / spent:.2f}"),
        ]
    )
    figures = {
        "runs": bench.plain(runs),
        "km2_per_cpu_minute": 60 * area / whole,
        "km2_per_minute": 60 * area / wall,
        "efficiency": network / spent,
    }
    bench.deliver(f"embed_area_{args.size}", args, figures)


def _make(args: argparse.Namespace) -> None:
    """Write s2.nc, s1.nc and a pack."""
    import numpy as np
    import xarray as xr
    from pyproj import CRS

    from omnisat_cli.learning.simulate import SceneSpec, simulate
    from omnisat_cli.modality import S2_BANDS
    from omnisat_cli.packs.adopt import new_anysat

    new_anysat(args.room / "pack", ("s2", "s1"), args.size, None, patch_m=args.patch_size)
    scene = simulate(SceneSpec(3, 1000, 1000, aerial_gsd=1.0, origin=ORIGIN))
    mapping = ((), np.int32(0), {"crs_wkt": CRS.from_epsg(2154).to_wkt()})
    left, top = ORIGIN
    centres = 10 * np.arange(100 * args.km) + 5.0

    def dates(count: int, have: int) -> np.ndarray:
        return np.linspace(0, have - 1, min(count, have)).round().astype(int)

    def save(path: Path, days: np.ndarray, layers: dict[str, np.ndarray]) -> None:
        axes = {"time": days.astype("datetime64[ns]"), "y": top - centres, "x": left + centres}
        shape = (1, args.km, args.km)
        variables = {
            name: (("time", "y", "x"), np.tile(values, shape), {"grid_mapping": "crs"})
            for name, values in layers.items()
        }
        cube = xr.Dataset(variables, coords={**axes, "crs": mapping})
        chunk = {"chunksizes": (1, *(min(256, 100 * args.km),) * 2), "zlib": True, "complevel": 1}
        cube.to_netcdf(path, engine="h5netcdf", encoding=dict.fromkeys(layers, chunk))

    s2, s1 = dates(S2_DATES, len(scene.s2_dates)), dates(S1_DATES, len(scene.s1_dates))
    bands = {band: scene.s2[s2][:, k] for k, band in enumerate(S2_BANDS)}
    save(args.room / "s2.nc", scene.s2_dates[s2], {**bands, "SCL": scene.scl[s2]})
    radar = {band: scene.s1[s1][:, k] for k, band in enumerate(("VV", "VH"))}
    save(args.room / "s1.nc", scene.s1_dates[s1], radar)


def _network(args: argparse.Namespace) -> None:
    """Time a sample of cells and windows and reckon the square."""
    import torch

    from omnisat_cli.engine.device import choose_compute
    from omnisat_cli.engine.memory import keep_freed_memory
    from omnisat_cli.engine.network import load_network
    from omnisat_cli.networks.seam import HasTraits, PatchLocal
    from omnisat_cli.packs.patch_size import at_patch_size
    from omnisat_cli.packs.registry import find_pack

    keep_freed_memory()
    torch.set_num_threads(args.threads)
    pack = at_patch_size(find_pack(str(args.room / "pack")), float(args.patch_size))
    compute = choose_compute(args.device)
    network = load_network(pack, compute)
    assert isinstance(network, PatchLocal)
    assert isinstance(network, HasTraits)
    width = network.traits.width
    window, device = pack.card.window, compute.device
    pixels, side = args.patch_size // 10, 1000 * args.km / args.patch_size
    patches, windows = side**2, (side / (window.size - window.overlap)) ** 2
    # As cloudy as the scene: a date is kept where it is clear.
    clear = {"s2": 0.6, "s1": 1.0}
    cells = window.cell**2 * compute.cells

    def encode() -> None:
        for name, bands, count in (("s2", 10, S2_DATES), ("s1", 3, S1_DATES)):
            kept = round(clear[name] * count)
            values = torch.randn(cells, kept, bands, pixels, pixels, device=device)
            days = torch.arange(kept, device=device) * 10
            valid = torch.ones(cells, kept, dtype=torch.bool, device=device)
            network.encode_series(name, values, days, valid)

    def fuse() -> None:
        shape = (compute.windows, window.size**2)
        tokens = {n: torch.randn(*shape, width, device=device) for n in clear}
        present = {n: torch.ones(shape, dtype=torch.bool, device=device) for n in clear}
        network.fuse(tokens, present)

    with compute.inference():
        each = (
            median_seconds(encode, TIMED, args.device) / cells,
            median_seconds(fuse, TIMED, args.device) / compute.windows,
        )
    print(json.dumps({"seconds": each[0] * patches + each[1] * windows, "each": each}))


if __name__ == "__main__":
    main()
