"""Floods and forest loss on simulated land: simulate, train, evaluate, by the commands users type.

    python benchmarks/events.py [--folder out/events] [--train 12] [--test 4] [--steps 250]

Every model is scored on worlds it has never seen, once with all dates and once with those before
the event alone: what it finds then it has not seen happen. Between them stands the trivial map: no
water anywhere; all forest kept, and everything else right. Simulated worlds and packs that are in
the folder are not made again, so the run may be interrupted.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from side_by_side import deliver, parser, run, table

SIDE_KM = 0.64
TRAIN_SEED, TEST_SEED = 1000, 9000
WINDOWS = ("--place", "16", "--side", "16", "--batch", "4", "--validate-every", "125")

Matrix = list[list[int]]
"""Pixels: rows are what is true, columns what is mapped."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happens.

    Attributes:
        name: As `omnisat simulate --event` takes it.
        before: Days on which it has not happened yet in any world.
        keep_dates: Random dates of a series shown at once in training; 0 = all.
        trivial: Name of the trivial map.
        gives: Class that it gives to each class, code by code.
    """

    name: str
    before: str
    keep_dates: int
    trivial: str
    gives: tuple[int, ...]


EVENTS = (
    Event("flood", "2023-01-01/2023-10-31", 0, "no water anywhere", (0, 0)),
    Event("clearing", "2023-01-01/2023-04-15", 20, "all forest kept", (0, 1, 1)),
)
NETWORKS = {
    "U-TAE, S1": (("s1",), ("--network", "utae")),
    "two U-TAE, S2 and S1": (("s2", "s1"), ("--network", "dual-stream")),
}


def omnisat(*words: object) -> list[str]:
    """Return a command."""
    return [sys.executable, "-m", "omnisat_cli", *(str(word) for word in words)]


def simulated(event: Event, folder: Path, seed: int, count: int) -> Path:
    """Make worlds, or take what is there."""
    if not (folder / str(seed + count - 1) / "labels.tif").exists():
        words = ("--event", event.name, "--seed", seed, "--count", count, "--size-km", SIDE_KM)
        run(omnisat("simulate", folder, *words, "--overwrite"), 1)
    return folder


def trained(event: Event, network: str, folder: Path, steps: int) -> tuple[Path, float]:
    """Train a network, or take what is there; return the pack and the CPU seconds it took."""
    sensors, words = NETWORKS[network]
    pack = folder / "-".join(network.lower().replace(",", "").split())
    clock = pack.with_suffix(".json")
    if not clock.exists():
        source = ("--dataset", "scenes", "--root", folder / "train")
        what = ("--modalities", ",".join(sensors), *words, "--size", "tiny", "--steps", steps)
        seen = ("--keep-dates", event.keep_dates, *WINDOWS, "--threads", 1, "--overwrite")
        done = run(omnisat("train", *source, *what, *seen, "--out", pack), 1)
        clock.write_text(json.dumps({"cpu_s": done.cpu_s}))
        print(f"  {event.name}: {network} trained in {done.cpu_s:.0f} CPU s", flush=True)
    return pack, json.loads(clock.read_text())["cpu_s"]


def scored(pack: Path, scene: Path, sensors: tuple[str, ...], dates: str | None) -> Matrix:
    """Map a world and compare it with the truth."""
    report = scene / f"{pack.name}-{(dates or 'all').replace('/', '-')}.json"
    if not report.exists():
        imagery = [word for name in sensors for word in (f"--{name}", scene / f"{name}.nc")]
        period = ("--dates", dates) if dates else ()
        labels = ("--labels", scene / "labels.tif", "--threads", 1, "--out", report)
        run(omnisat("evaluate", "-m", pack, *imagery, *period, *labels), 1)
    matrix: Matrix = json.loads(report.read_text())["results"][0]["confusion"]
    return matrix


def total(matrices: list[Matrix]) -> Matrix:
    """Add up."""
    return [
        [sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)
    ]


def trivial(matrix: Matrix, event: Event) -> Matrix:
    """Return what the trivial map scores on the same truth."""
    empty = [[0] * len(matrix) for _ in matrix]
    for code, row in enumerate(matrix):
        empty[code][event.gives[code]] = sum(row)
    return empty


def row(title: tuple[str, ...], matrix: Matrix) -> tuple[str, ...]:
    """Return IoU of each class, F1 of the last, accuracy, in per cent."""
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    hits = [line[code] for code, line in enumerate(matrix)]
    sizes = [sum(line) for line in matrix]
    ious = [h / (s + c - h) for h, s, c in zip(hits, sizes, columns, strict=True)]
    f1 = 2 * hits[-1] / (sizes[-1] + columns[-1])
    figures = (*ious, f1, sum(hits) / sum(sizes))
    return (*title, *(f"{100 * value:.1f}" for value in figures))


def benchmark(event: Event, folder: Path, counts: tuple[int, int], steps: int) -> dict[str, object]:
    """Run one event and print its table."""
    simulated(event, folder / "train", TRAIN_SEED, counts[0])
    simulated(event, folder / "test", TEST_SEED, counts[1])
    scenes = [folder / "test" / str(TEST_SEED + n) for n in range(counts[1])]
    legend = json.loads((scenes[0] / "legend.json").read_text())
    names = [entry["name_en"] for entry in legend["classes"]]
    head = ("model", "dates", *(f"IoU {name}" for name in names), f"F1 {names[-1]}", "accuracy")
    rows, figures = [head], {}
    for network, (sensors, _) in NETWORKS.items():
        pack, seconds = trained(event, network, folder, steps)
        for title, dates in (("all", None), ("before", event.before)):
            matrix = total([scored(pack, scene, sensors, dates) for scene in scenes])
            rows.append(row((network, title), matrix))
            figures[f"{network}, {title}"] = {"confusion": matrix, "training_cpu_s": seconds}
        if len(rows) == 3:
            rows.append(row((event.trivial, ""), trivial(matrix, event)))
    print(f"\n{event.name}, per cent")
    table(rows)
    return {"classes": names, "rows": rows, **figures}


def main() -> None:
    """Run both events."""
    options = parser(__doc__)
    options.add_argument("--folder", type=Path, default=Path("out/events"))
    options.add_argument("--train", type=int, default=12, help="worlds to learn from")
    options.add_argument("--test", type=int, default=4, help="worlds to score on")
    options.add_argument("--steps", type=int, default=250, help="of every training")
    args = options.parse_args()
    counts = (args.train, args.test)
    figures: dict[str, object] = {
        event.name: benchmark(event, args.folder / event.name, counts, args.steps)
        for event in EVENTS
    }
    deliver("events", args, figures)


if __name__ == "__main__":
    main()
