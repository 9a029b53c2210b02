"""Sentinel temporal encoder: the published form against the folded one.

    python benchmarks/series_encoder.py

2 048 pixels × 36 dates of 10 bands, official widths, float32, CPU seconds a forward. "official" is
the published sequence of layers, all pixels at once, in a process as it is; "folded" is what
omnisat runs, in a process set up as omnisat sets it up. The two processes alternate.
"""

from __future__ import annotations

import argparse
import json
import statistics

import side_by_side as bench
from timing import median_seconds


def main() -> None:
    """Measure both forms, or be a child that measures one."""
    parser = bench.parser(__doc__)
    parser.add_argument("--pixels", type=int, default=2048)
    parser.add_argument("--dates", type=int, default=36)
    parser.add_argument("--forwards", type=int, default=7, help="timed forwards a process")
    parser.add_argument("--child", choices=("official", "folded"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(args)
        return
    words = ("--pixels", args.pixels, "--dates", args.dates, "--forwards", args.forwards)
    commands = {
        form: bench.python("series_encoder.py", "--child", form, *words)
        for form in ("official", "folded")
    }
    runs = bench.alternate(commands, args.repeats, args.threads)
    medians = {
        name: statistics.median(float(str(run.said["cpu_s"])) for run in group)
        for name, group in runs.items()
    }
    said = runs["folded"][0].said
    ratio = medians["official"] / medians["folded"]
    bench.table(
        [
            ("form", "CPU s", "against official"),
            ("official", f"{medians['official']:.3f}", "1.00"),
            ("folded", f"{medians['folded']:.3f}", f"{ratio:.2f}"),
            ("matrix products alone", f"{said['products_cpu_s']:.3f}", ""),
        ]
    )
    print(f"largest difference {said['difference']:.1e} of values up to {said['largest']:.1f}")
    figures = {"runs": bench.plain(runs), "median_cpu_s": medians, "ratio": ratio}
    bench.deliver("series_encoder", args, figures)


def _child(args: argparse.Namespace) -> None:
    import torch

    from omnisat_cli.engine.memory import keep_freed_memory
    from omnisat_cli.networks.configs import SeriesConfig
    from omnisat_cli.networks.fold_series import FoldedSeries
    from omnisat_cli.networks.series import SeriesEncoder

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    official = SeriesEncoder(SeriesConfig("s2", 10, in_norm=True)).eval()
    pixels = torch.randn(args.pixels, args.dates, 10, 1, 1)
    days = torch.linspace(1, 360, args.dates).long()
    said: dict[str, float] = {}
    folded = FoldedSeries(official).eval()
    if args.child == "folded":
        keep_freed_memory()
    with torch.inference_mode():
        if args.child == "folded":
            one, two = official(pixels, days), folded(pixels, days)
            said = {"difference": float((one - two).abs().max()), "largest": float(one.abs().max())}
            rows = pixels.view(-1, 10)

            def products() -> None:
                for start in range(0, len(rows), 1024):
                    y = rows[start : start + 1024]
                    for layer in folded.dates:
                        assert isinstance(layer, torch.nn.Linear)
                        y = layer(y)

            said["products_cpu_s"] = median_seconds(products, args.forwards)
        form = folded if args.child == "folded" else official
        said["cpu_s"] = median_seconds(lambda: form(pixels, days), args.forwards)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
