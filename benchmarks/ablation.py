"""The ablation table of the OmniSat paper, run on simulated landscapes with fixed budgets.

    omnisat simulate worlds/train --seed 1000 --count 16 --size-km 0.64 --aerial-gsd 1
    omnisat simulate worlds/test --seed 9000 --count 3 --size-km 0.64 --aerial-gsd 1
    python benchmarks/ablation.py --train worlds/train --test worlds/test --out ablation

Every variant sees the same number of windows of the same worlds; all are scored on the same unseen
worlds at 10 m, the pixel of the baselines: finer maps by the majority under each pixel. Patches are
20 m with 2 × 2 Sentinel pixels, aerial images have 1 m, so that a processor can train all rows. A
figure that is there is not computed again, so the run may be interrupted; several seeds may run
side by side in the same folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from omnisat_cli.engine.memory import keep_freed_memory
from omnisat_cli.learning.data.batches import Batcher, BatchSpec
from omnisat_cli.learning.data.split import Subset
from omnisat_cli.learning.datasets.request import Options
from omnisat_cli.learning.datasets.table import open_dataset
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.learning.scoring.metrics import Scores
from omnisat_cli.learning.training.lesson import FitSpec
from omnisat_cli.learning.training.objectives import class_logits, majority, seen_truth, truth_under
from omnisat_cli.learning.training.pretrain import PretrainJob, pretrain
from omnisat_cli.learning.training.train import train
from omnisat_cli.learning.training.train_job import Kind, TrainJob
from omnisat_cli.networks.pretraining import PretrainConfig
from omnisat_cli.networks.seam import PatchLocal
from omnisat_cli.networks.table import build_network
from omnisat_cli.packs.registry import Pack, load_weights

PATCH_M = 20.0
SIDE = 8  # patches along a window: 16 Sentinel pixels, what the baselines' levels need
PIXELS = 16  # 10 m pixels along a window
OPTIONS = Options(side=SIDE, patch_m=PATCH_M)
ALL = ("aerial", "s2", "s1")
DROPOUT = {"aerial": 0.35, "s2": 0.3, "s1": 0.3}


@dataclass(frozen=True, slots=True)
class Variant:
    """One row.

    Attributes:
        name: Of the row.
        kind: Network.
        modalities: What it reads.
        pretrained: Whether it starts from a pretraining on the same modalities.
        dropout: Whether modalities are dropped in training.
        labels: Share of the labelled windows.
        published: mIoU on PASTIS that the project's source states, or None.
    """

    name: str
    kind: Kind
    modalities: tuple[str, ...] = ALL
    pretrained: bool = True
    dropout: bool = True
    labels: float = 1.0
    published: float | None = None

    @property
    def slug(self) -> str:
        """Name of its folder."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower())


VARIANTS = (
    Variant("S2 only, U-TAE", "utae", ("s2",), pretrained=False, dropout=False, published=63.1),
    Variant(
        "S1 + S2, dual stream",
        "dual-stream",
        ("s2", "s1"),
        pretrained=False,
        dropout=False,
        published=65.2,
    ),
    Variant("OmniSat", "omnisat", published=67.5),
    Variant("OmniSat without pretraining", "omnisat", pretrained=False, published=64.1),
    Variant("OmniSat without modality dropout", "omnisat", dropout=False, published=65.8),
    Variant("OmniSat without S1", "omnisat", ("aerial", "s2"), published=66.2),
    Variant("OmniSat without aerial", "omnisat", ("s2", "s1"), published=65.9),
    Variant("OmniSat, 10 % of the labels", "omnisat", labels=0.1),
    Variant(
        "OmniSat without pretraining, 10 % of the labels", "omnisat", pretrained=False, labels=0.1
    ),
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What every variant may use.

    Attributes:
        steps: Of supervised training.
        pretraining: Steps without labels.
        batch: Windows a step.
        size: Of the networks, by name.
    """

    steps: int
    pretraining: int
    batch: int
    size: str


@dataclass(frozen=True, slots=True)
class Worlds:
    """Where the simulated scenes lie."""

    train: Path
    test: Path


def fit_spec(steps: int, seed: int) -> FitSpec:
    """Return the training of one seed: no early stopping, no minutes, nothing that differs."""
    return FitSpec(steps=steps, seed=seed, device="cpu", checkpoint_minutes=60.0)


def draws(variant: Variant, budget: Budget) -> BatchSpec:
    """Return how windows are drawn: the same for every variant, but for the dropout."""
    drop = {name: DROPOUT[name] for name in variant.modalities} if variant.dropout else {}
    return BatchSpec(
        budget.batch,
        SIDE,
        keep_dates={"s2": 16, "s1": 16},
        drop=drop,
        drop_region=0.15 if variant.dropout else 0.0,
        balanced=0.5,
    )


def pretrained_pack(
    variant: Variant, seed: int, budget: Budget, worlds: Worlds, out: Path
) -> tuple[Path, float]:
    """Pretrain on the modalities of a variant, or take what is there; returns pack and seconds."""
    folder = out / "packs" / f"pretrained-{'-'.join(variant.modalities)}-{seed}"
    clock = folder.with_suffix(".json")
    if not clock.exists():
        examples = open_dataset(
            "scenes", worlds.train, modalities=variant.modalities, options=OPTIONS
        )
        report = pretrain(
            examples,
            PretrainJob(
                folder,
                fit_spec(budget.pretraining, seed),
                BatchSpec(budget.batch, SIDE, keep_dates={"s2": 16, "s1": 16}),
                PretrainConfig(image_share=0.25),
                size=budget.size,
                modalities=variant.modalities,
                overwrite=True,
            ),
        )
        clock.write_text(json.dumps({"seconds": report.fit.seconds}))
    return folder, float(json.loads(clock.read_text())["seconds"])


def run(variant: Variant, seed: int, budget: Budget, worlds: Worlds, out: Path) -> None:
    """Train and score one variant with one seed, unless its figures are there."""
    result = out / f"{variant.slug}-{seed}.json"
    if result.exists():
        return
    start, before = None, 0.0
    if variant.pretrained:
        pack, before = pretrained_pack(variant, seed, budget, worlds, out)
        start = str(pack)
    examples = open_dataset("scenes", worlds.train, modalities=variant.modalities, options=OPTIONS)
    test = open_dataset("scenes", worlds.test, modalities=variant.modalities, options=OPTIONS)
    job = TrainJob(
        out / "packs" / f"{variant.slug}-{seed}",
        fit_spec(budget.steps, seed),
        draws(variant, budget),
        kind=variant.kind,
        size=budget.size,
        modalities=None if start else variant.modalities,
        start=start,
        label_share=variant.labels,
        overwrite=True,
    )
    # A training ends with a validation; nothing is chosen by it here, so one window is enough.
    report = train(examples, Subset(test, np.arange(1)), job)
    assert report.pack is not None
    found = {
        "variant": variant.name,
        "seed": seed,
        "budget": asdict(budget),
        "seconds": {"pretraining": round(before), "training": round(report.fit.seconds)},
        "places": len(report.material.training),
        "parameters": report.parameters,
        "mIoU": {
            "+".join(names): round(score_at_10m(report.pack, worlds.test, names), 2)
            for names in subsets(variant.modalities)
        },
    }
    result.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{variant.name}, seed {seed}: {found['mIoU']}", flush=True)


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return everything, everything but one, and each alone."""
    without = [tuple(n for n in names if n != left) for left in names]
    parts = dict.fromkeys([names, *without, *((name,) for name in names)])
    return [part for part in parts if part]


def score_at_10m(pack: Pack, test: Path, names: tuple[str, ...]) -> float:
    """Return the mIoU of a pack in per cent on 10 m pixels, shown only some modalities."""
    network = build_network(pack.card.network.kind, pack.card.network.config)
    network.load_state_dict(load_weights(pack))
    network.eval()
    examples = open_dataset("scenes", test, options=OPTIONS)
    spec = BatchSpec(4, SIDE, any_pixel=not isinstance(network, PatchLocal))
    batcher = Batcher(examples, pack.card.modalities, spec, 0)
    K = len(examples.legend.classes)
    counts = np.zeros((K, K), np.int64)
    with torch.no_grad():
        for batch in batcher.ordered(range(len(examples)), 4, names):
            logits = class_logits(network, batch)
            mapped = majority(logits.argmax(1), K, logits.shape[-1] // PIXELS)
            truth = truth_under(seen_truth(batch), torch.Size((len(batch), K, PIXELS, PIXELS)))
            known = truth != UNLABELLED
            flat = torch.bincount(truth[known] * K + mapped[known], minlength=K * K)
            counts += flat.numpy().reshape(K, K)
    return 100 * Scores(counts).miou


def table(out: Path) -> str:
    """Return the figures that are there as Markdown."""
    lines = [
        "| variant | mIoU at 10 m, all it reads | runs | published, PASTIS |",
        "|---|---|---|---|",
    ]
    missing = ["", "| variant, at inference | " + " | ".join(map("+".join, subsets(ALL))) + " |"]
    missing.append("|---" * (1 + len(subsets(ALL))) + "|")
    for variant in VARIANTS:
        found = [json.loads(p.read_text()) for p in sorted(out.glob(f"{variant.slug}-[0-9]*.json"))]
        if not found:
            continue
        figures = spread([run["mIoU"]["+".join(variant.modalities)] for run in found])
        beside = "–" if variant.published is None else f"{variant.published}"
        lines.append(f"| {variant.name} | {figures} | {len(found)} | {beside} |")
        if variant.kind == "omnisat" and variant.modalities == ALL:
            cells = [
                spread([run["mIoU"]["+".join(names)] for run in found]) for names in subsets(ALL)
            ]
            missing.append(f"| {variant.name} | {' | '.join(cells)} |")
    return "\n".join(lines + missing)


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pretraining", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="Only print what is there.")
    args = parser.parse_args()
    if not args.table:
        keep_freed_memory()
        torch.set_num_threads(args.threads)
        args.out.mkdir(parents=True, exist_ok=True)
        budget = Budget(args.steps, args.pretraining, args.batch, args.size)
        begin = time.monotonic()
        for seed in args.seeds:
            for variant in VARIANTS:
                run(variant, seed, budget, Worlds(args.train, args.test), args.out)
        print(f"{(time.monotonic() - begin) / 60:.0f} minutes")
    print(table(args.out))


if __name__ == "__main__":
    main()
