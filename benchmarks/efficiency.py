"""Efficiency: the network at its best ÷ the whole command, multimodal job, CPU seconds.

    python benchmarks/efficiency.py

"At its best": the folded modules of omnisat on tensors that are in memory already, every patch
encoded once, every window fused and blended once, nothing read, labelled or written. The rest of
the command is importing, opening, reading, labelling, storing and exporting. Start-up is a fixed
cost, so the figure grows with the area; it is given with and without it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import multimodal
import side_by_side as bench


def main() -> None:
    """Measure the command, the network and the start-up in turn."""
    parser = bench.parser(__doc__)
    parser.add_argument("--side-m", type=int, default=480, help="a multiple of 60")
    parser.add_argument("--overlap", type=int, choices=(0, 50), default=50)
    parser.add_argument("--scene", type=Path, help="keep or reuse the simulated files here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        scene = args.scene or room / "scene"
        made = [] if (scene / "s1.nc").exists() else ["--scene", scene, "--side-m", args.side_m]
        subprocess.run(bench.python("scene.py", "--packs", room, *made), check=True)
        pack, box = room / f"overlap-{args.overlap}", multimodal.bbox(args.side_m)
        commands = {
            "command": multimodal.command_line(room, scene, args.overlap, args),
            "network": bench.python("engine_logits.py", scene, pack, *box),
            "start": [sys.executable, "-c", "import omnisat_cli.runners.predict"],
        }
        runs = bench.alternate(commands, args.repeats, args.threads)
    whole, start = bench.cpu(runs["command"]), bench.cpu(runs["start"])
    spent = sorted(float(str(run.said["network_cpu_s"])) for run in runs["network"])
    network = spent[len(spent) // 2]
    rest = whole - network - start
    bench.table(
        [
            ("part", "CPU s", "share"),
            ("whole command", f"{whole:.1f}", "1.00"),
            ("network at its best", f"{network:.1f}", f"{network / whole:.2f}"),
            ("imports", f"{start:.1f}", f"{start / whole:.2f}"),
            ("open, read, label, store, export", f"{rest:.1f}", f"{rest / whole:.2f}"),
        ]
    )
    print(f"efficiency {network / whole:.2f}, without imports {network / (whole - start):.2f}")
    figures = {
        "runs": bench.plain(runs),
        "efficiency": network / whole,
        "efficiency without imports": network / (whole - start),
    }
    bench.deliver("efficiency", args, figures)


if __name__ == "__main__":
    main()
