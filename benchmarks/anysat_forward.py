"""AnySat's forward pass: the published procedure, written plainly, against omnisat's.

    python benchmarks/anysat_forward.py --size tiny
    python benchmarks/anysat_forward.py --size base --side 6 --batch 4 --aerial

Same random weights, same random windows of Sentinel-2 and Sentinel-1 (and aerial) series, float32,
CPU seconds a forward. "plain" is benchmarks/plain_anysat.py in a process as it is; "omnisat" is the
folded network in a process set up as omnisat sets it up. The two processes alternate; the second
also runs the plain procedure once and compares. On a machine with a GPU

    python benchmarks/anysat_forward.py --device cuda --bf16 --compile --side 16 --batch 32

times both there (seconds of the clock): the plain procedure as it is, in float32; `--bf16` and
`--compile` are what omnisat adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import TYPE_CHECKING

import side_by_side as bench
from timing import median_seconds

if TYPE_CHECKING:
    from torch import Tensor

    Windows = dict[str, Tensor]

FORMS = ("plain", "omnisat")


def main() -> None:
    """Measure both forms, or be a child that measures one."""
    parser = bench.parser(__doc__)
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="tiny")
    parser.add_argument("--side", type=int, default=16, help="patches of 10 m along a window")
    parser.add_argument("--batch", type=int, default=1, help="windows a forward")
    parser.add_argument("--dates", type=int, default=40)
    parser.add_argument("--aerial", action="store_true", help="also 0.2 m images")
    parser.add_argument("--forwards", type=int, default=3, help="timed forwards a process")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="omnisat's form in mixed precision")
    parser.add_argument("--compile", action="store_true", help="omnisat's form through a compiler")
    parser.add_argument("--child", choices=FORMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(args)
        return
    words = []
    for name in ("size", "side", "batch", "dates", "forwards", "device", "threads"):
        words += [f"--{name}", getattr(args, name)]
    words += [f"--{name}" for name in ("aerial", "bf16", "compile") if getattr(args, name)]
    commands = {form: bench.python("anysat_forward.py", "--child", form, *words) for form in FORMS}
    runs = bench.alternate(commands, args.repeats, args.threads)
    medians = {
        name: statistics.median(float(str(run.said["seconds"])) for run in group)
        for name, group in runs.items()
    }
    said = runs["omnisat"][0].said
    ratio = medians["plain"] / medians["omnisat"]
    unit = "CPU s" if args.device == "cpu" else "s"
    rows: list[tuple[str, ...]] = [("form", f"{unit} a forward", "times as fast", "peak MiB")]
    for form in FORMS:
        speed = medians["plain"] / medians[form]
        rows.append((form, f"{medians[form]:.3f}", f"{speed:.2f}", f"{bench.peak(runs[form]):.0f}"))
    bench.table(rows)
    print(f"largest difference {said['difference']:.1e} of values up to {said['largest']:.1f}")
    figures = {"runs": bench.plain(runs), "median_s": medians, "ratio": ratio}
    bench.deliver(f"anysat_forward_{args.size}", args, figures)


def _child(args: argparse.Namespace) -> None:
    from dataclasses import replace

    import plain_anysat
    import torch

    from omnisat_cli.engine.memory import keep_freed_memory
    from omnisat_cli.networks.anysat_config import SENSORS, hub_config
    from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
    from omnisat_cli.networks.fold import fold_for_inference

    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)  # the plain procedure makes its tables wherever it runs
    if args.child == "omnisat":
        keep_freed_memory()
    names = ("aerial", "s2", "s1") if args.aerial else ("s2", "s1")
    config = replace(hub_config(args.size), sensors=tuple(SENSORS[name] for name in names))
    torch.manual_seed(0)
    segmenter = AnySatSegmenter(AnySatSegmenterConfig(config, 1)).eval().to(args.device)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    pixels, days = _window(args, names)
    state = {key: value.detach() for key, value in segmenter.encoder.state_dict().items()}

    def plain() -> torch.Tensor:
        return plain_anysat.forward(state, pixels, days, 1, config.heads)

    said: dict[str, float] = {}
    run = plain
    with torch.inference_mode():
        if args.child == "omnisat":
            reference = plain()
            folded = fold_for_inference(segmenter).encoder
            assert isinstance(folded, torch.nn.Module)
            network = torch.compile(folded) if args.compile else folded

            def run() -> torch.Tensor:
                with torch.autocast(reference.device.type, torch.bfloat16, enabled=args.bf16):
                    tokens: torch.Tensor = network(pixels, days, patch_m=10).tokens
                    return tokens

            difference = (run() - reference).abs().max()
            said = {"difference": float(difference), "largest": float(reference.abs().max())}
        said["seconds"] = median_seconds(run, args.forwards, args.device)
    print(json.dumps(said))


def _window(args: argparse.Namespace, names: tuple[str, ...]) -> tuple[Windows, Windows]:
    import torch

    generator = torch.Generator("cpu").manual_seed(1)
    shapes = {
        "aerial": (args.batch, 4, 50 * args.side, 50 * args.side),
        "s2": (args.batch, args.dates, 10, args.side, args.side),
        "s1": (args.batch, args.dates, 3, args.side, args.side),
    }
    pixels = {
        name: torch.randn(shapes[name], generator=generator, device="cpu").to(args.device)
        for name in names
    }
    line = torch.linspace(1, 360, args.dates).long()
    return pixels, {name: line for name in names if name != "aerial"}


if __name__ == "__main__":
    main()
