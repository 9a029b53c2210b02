"""Peak memory against the size of the area: a 5 km and a 20 km square.

    python benchmarks/memory.py
    python benchmarks/memory.py --km 1 4        # quick

Aerial image at 2 m and six Sentinel-2 dates at 10 m, both made of repeated tiles (little disk), and
a patch-local network that costs next to nothing: what is measured is omnisat, not a network. Aim:
the peak grows by at most 10 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import side_by_side as bench

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CLASSES, DATES, GSD, PX = 19, 6, 2.0, 5
LEFT, TOP = 600_000, 6_900_000


def main() -> None:
    """Measure both sizes, or be a child that makes files or maps them."""
    parser = bench.parser(__doc__)
    parser.add_argument("--km", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--child", choices=("make", "map"), help=argparse.SUPPRESS)
    parser.add_argument("--room", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(repeats=1)
    args = parser.parse_args()
    if args.child:
        {"make": _make, "map": _map}[args.child](args.room, args.km[0])
        return
    figures: dict[str, object] = {}
    peaks: list[float] = []
    rows: list[tuple[str, ...]] = [("side", "peak MiB", "growth", "CPU s", "wall s")]
    for km in args.km:
        with tempfile.TemporaryDirectory() as name:
            common = ("--room", name, "--km", km)
            bench.run(bench.python("memory.py", "--child", "make", *common), args.threads)
            words = bench.python("memory.py", "--child", "map", *common)
            runs = bench.alternate({f"{km} km": words}, args.repeats, args.threads)
        group = runs[f"{km} km"]
        peaks.append(bench.peak(group))
        rows.append(
            (f"{km} km", f"{peaks[-1]:.0f}", f"{peaks[-1] / peaks[0]:.2f}",
             f"{bench.cpu(group):.0f}", f"{group[0].wall_s:.0f}")
        )  # fmt: skip
        figures[f"{km} km"] = bench.plain(runs)
    bench.table(rows)
    figures["growth"] = peaks[-1] / peaks[0]
    bench.deliver("memory", args, figures)


def _make(room: Path, km: int) -> None:
    """Write the images and the pack."""
    import h5netcdf
    import numpy as np
    import rasterio
    import torch
    from rasterio.crs import CRS
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
    from omnisat_cli.packs.writer import empty_digest, write_pack

    rng = np.random.default_rng(0)
    side = km * 500
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 4, "dtype": "uint8",
               "crs": "EPSG:2154", "transform": from_origin(LEFT, TOP, GSD, GSD), "tiled": True,
               "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1,
               "interleave": "pixel"}  # fmt: skip
    tile = rng.integers(1, 255, (4, 512, 512), np.uint8) & 0xF8 | 1
    with rasterio.open(room / "aerial.tif", "w", **profile) as target:
        for row in range(0, side, 512):
            rows = min(512, side - row)
            strip = np.tile(tile, (1, 1, side // 512 + 1))[:, :rows, :side]
            target.write(strip, window=Window(0, row, side, rows))
        target.descriptions = ("red", "green", "blue", "nir")
    cells = km * 100
    with h5netcdf.File(room / "s2.nc", "w") as file:
        file.dimensions = {"time": DATES, "y": cells, "x": cells}
        time = file.create_variable("time", ("time",), data=np.arange(DATES) * 30)
        time.attrs.update({"units": "days since 2023-03-01", "calendar": "standard",
                           "standard_name": "time"})  # fmt: skip
        for name, start, step in (("y", TOP - 5, -10), ("x", LEFT + 5, 10)):
            axis = file.create_variable(
                name, (name,), data=start + step * np.arange(cells, dtype=float)
            )
            axis.attrs.update({"units": "metre", "standard_name": f"projection_{name}_coordinate"})
        grid = file.create_variable("spatial_ref", (), np.int32)
        grid.attrs["crs_wkt"] = CRS.from_epsg(2154).to_wkt()
        values = np.tile(rng.integers(300, 5000, (100, 100)).astype(np.uint16), (km, km))
        for band in ("B02", "B03", "B04", "B08"):
            cube = file.create_variable(
                band, ("time", "y", "x"), np.uint16, chunks=(1, 100, 100), compression="gzip",
                compression_opts=1, fillvalue=0,
            )  # fmt: skip
            cube.attrs["grid_mapping"] = "spatial_ref"
            for date in range(DATES):
                cube[date] = values + date
    card = Card(
        name="bench-cheap", version="1", summary="benchmark", licence="MIT",
        source="benchmarks/memory.py", training="none", limits="says nothing about the ground",
        network=NetworkCard(kind="omnisat", config={}),
        modalities=(
            ModalityCard(name="aerial", bands=("R", "G", "B", "NIR"), gsd=GSD, units="dn8",
                         mean=(0.0,) * 4, std=(255.0,) * 4),
            ModalityCard(name="s2", bands=("B02", "B03", "B04", "B08"), gsd=10.0,
                         units="reflectance_1e4", mean=(0.0,) * 4, std=(1e4,) * 4,
                         dates="day-of-year"),
        ),
        fine_m=GSD, window=WindowCard(size=16, overlap=4, cell=8), legend="bench@1",
        weights_sha256=empty_digest(),
    )  # fmt: skip
    classes = [
        {"code": k, "name_en": f"class {k}", "name_fr": f"classe {k}",
         "color": f"#{k * 13:02x}8080"} for k in range(CLASSES)
    ]  # fmt: skip
    legend = {"id": "bench", "version": "1", "source": "benchmarks", "licence": "CC0-1.0",
              "classes": classes}  # fmt: skip
    write_pack(room / "cheap", card, legend, {"unused": torch.zeros(1)})


def _map(room: Path, km: int) -> None:  # noqa: ARG001 - the files say how large the area is
    """Run the command line with a network that costs next to nothing."""
    import torch
    from torch import nn

    from omnisat_cli.__main__ import main as command_line
    from omnisat_cli.engine import network
    from omnisat_cli.networks.seam import Dense, Encoded

    class Cheap(nn.Module):
        """Patch-local: tokens are means, logits a fixed mixture of what came in."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("unused", torch.zeros(1))

        def encode_image(self, name: str, pixels: Tensor) -> Encoded:  # noqa: ARG002
            return Encoded(pixels.mean((2, 3)).repeat(1, 16), pixels.repeat(1, 4, 1, 1))

        def encode_series(
            self,
            name: str,  # noqa: ARG002
            pixels: Tensor,
            days: Tensor,  # noqa: ARG002
            valid: Tensor,  # noqa: ARG002
        ) -> Encoded:
            return Encoded(pixels[..., 0, 0].mean(1).repeat(1, 16))

        def fuse(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
            parts = [tokens[name] * present[name][..., None] for name in tokens]
            total = torch.stack(parts).sum(0)
            return torch.cat([total[:, :1], total], 1)

        def decode(
            self,
            fused: Tensor,
            fine: Mapping[str, Tensor],
            present: Mapping[str, Tensor],  # noqa: ARG002
            *,
            fine_output: bool,  # noqa: ARG002
        ) -> Dense:
            maps = fine["aerial"].view(-1, 16, 16, 16, PX, PX).permute(0, 3, 1, 4, 2, 5)
            maps = maps.reshape(-1, 16, 16 * PX, 16 * PX)
            return Dense(torch.cat([maps, maps[:, : CLASSES - 16]], 1) + fused.mean())

    setattr(network, "build_network", lambda _kind, _config: Cheap())  # noqa: B010
    setattr(network, "fold_for_inference", lambda module: module)  # noqa: B010
    sys.argv = [
        "omnisat", "predict", "--aerial", str(room / "aerial.tif"), "--s2", str(room / "s2.nc"),
        "--model", str(room / "cheap"), "-o", str(room / "map.tif"), "--threads", "1",
        "--device", "cpu", "--quiet",
    ]  # fmt: skip
    command_line()


if __name__ == "__main__":
    main()
