"""Train the bundled demonstration model on simulated landscapes and measure it on unseen ones.

    python -m omnisat_cli.learning.demo_model --out models/omnisat-demo --minutes 38

Training worlds have seeds from 1000, test worlds from 9000; `sample_aoi/` is another seed still.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch

from omnisat_cli.engine.device import choose_compute
from omnisat_cli.engine.memory import keep_freed_memory
from omnisat_cli.engine.recipe import Feed
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.crops import CLEAR_SCL, CropSampler, CropSpec
from omnisat_cli.learning.fit import FitSpec, fit
from omnisat_cli.learning.mapping import SampleMapper
from omnisat_cli.learning.metrics import Scores, confusion
from omnisat_cli.learning.simulate import SceneSpec, sim_legend, simulate
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.packs.card import Card, ModalityCard, NetworkCard, WindowCard
from omnisat_cli.packs.writer import empty_digest, write_pack
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate import Scene
    from omnisat_cli.networks.seam import PatchLocal

log = logging.getLogger(__name__)
Scalar = TypeVar("Scalar", bound=np.generic)

TRAIN_SEED, TEST_SEED = 1000, 9000
AERIAL_GSD = 0.5
WIDTH = 64


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is simulated and trained."""

    scenes: int
    tests: int
    scene_m: int
    minutes: float
    steps: int
    batch: int


def network_config(classes: int) -> SegmenterConfig:
    """Return the architecture of the demonstration model."""
    series = SeriesConfig(
        "s2",
        len(S2_BANDS),
        in_norm=True,
        widths_in=(32, 64, WIDTH),
        widths_out=(WIDTH, 2 * WIDTH, WIDTH),
        dropout=0.0,
        attention_dropout=0.0,
    )
    return SegmenterConfig(
        encoder=OmniSatConfig(
            width=WIDTH,
            depth=3,
            heads=4,
            grid=(12, 12),
            modalities=(
                ImageConfig("aerial", 4, round(10 / AERIAL_GSD)),
                series,
                replace(series, name="s1", bands=2, in_norm=False),
            ),
            drop_path=0.1,
        ),
        classes=classes,
    )


def make_card(config: SegmenterConfig, scenes: list[Scene]) -> Card:
    """Write the card of the demonstration model; statistics come from the training scenes."""
    legend = sim_legend()
    aerial = np.concatenate([s.aerial.reshape(4, -1)[:, ::97] for s in scenes], axis=1)
    s1 = np.concatenate([s.s1.transpose(1, 0, 2, 3).reshape(2, -1)[:, ::13] for s in scenes], 1)
    s2 = np.concatenate([_clear_pixels(s)[:, ::13] for s in scenes], axis=1)
    return Card(
        name="omnisat-demo",
        version="1",
        summary="OmniSat trained on simulated farmland: aerial 0.5 m, Sentinel-2, Sentinel-1",
        licence="MIT",
        source="omnisat, `python -m omnisat_cli.learning.demo_model`",
        training="",
        limits=(
            "Learned from synthetic landscapes only. It shows what omnisat does; its classes on "
            "real imagery are not to be relied upon. Real use needs a model trained on real labels."
        ),
        network=NetworkCard(kind="omnisat", config=config.to_dict()),
        modalities=(
            _modality("aerial", ("R", "G", "B", "NIR"), AERIAL_GSD, "dn8", aerial),
            _modality("s2", S2_BANDS, 10.0, "reflectance_1e4", s2),
            _modality("s1", ("VV", "VH"), 10.0, "db", s1),
        ),
        fine_m=1.0,
        window=WindowCard(size=12, overlap=4, cell=8),
        boundary=True,
        legend=f"{legend.id}@{legend.version}",
        weights_sha256=empty_digest(),
    )


def _modality(
    name: str, bands: tuple[str, ...], gsd: float, units: str, values: NDArray[np.generic]
) -> ModalityCard:
    return ModalityCard.model_validate(
        {
            "name": name,
            "bands": bands,
            "gsd": gsd,
            "units": units,
            "mean": tuple(round(float(v), 3) for v in values.mean(axis=1, dtype=float)),
            "std": tuple(round(float(v), 3) for v in values.std(axis=1, dtype=float)),
            "dates": None if name == "aerial" else "day-of-year",
        }
    )


def _clear_pixels(scene: Scene) -> NDArray[np.generic]:
    clear = np.isin(scene.scl, CLEAR_SCL)
    return scene.s2.transpose(1, 0, 2, 3)[:, clear]


def make_scenes(seed: int, count: int, side_m: int) -> list[Scene]:
    """Simulate `count` worlds with consecutive seeds."""
    begin = time.monotonic()
    scenes = [
        simulate(SceneSpec(seed + k, side_m, side_m, aerial_gsd=AERIAL_GSD)) for k in range(count)
    ]
    log.info("simulated %d scenes from seed %d in %.0f s", count, seed, time.monotonic() - begin)
    return scenes


def train(
    config: SegmenterConfig, card: Card, scenes: list[Scene], budget: Budget
) -> OmniSatSegmenter:
    """Train the network within the budget."""
    torch.manual_seed(0)
    network = OmniSatSegmenter(config)
    spec = CropSpec(side=12, keep_dates=16, drop={"aerial": 0.35, "s2": 0.3, "s1": 0.3})
    sampler = CropSampler(scenes, card, spec, seed=1)
    begin = time.monotonic()

    def report(step: int, losses: Mapping[str, float]) -> None:
        if step % 25 == 0:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            log.info("step %5d  %5.0f s  %s", step, time.monotonic() - begin, shown)

    fit(
        network,
        sampler.draw,
        FitSpec(steps=budget.steps, batch=budget.batch, minutes=budget.minutes),
        report,
    )
    return network.eval()


def sample_of(scene: Scene, window: Window, names: tuple[str, ...]) -> Sample:
    """Cut a window (10 m anchor pixels) out of a scene, as a reader would deliver it."""
    left, top = scene.origin
    extent = Window(-top // 10, left // 10, scene.s2.shape[-2], scene.s2.shape[-1])
    data: dict[str, Image | Series] = {}
    if "aerial" in names:
        n = round(10 / scene.gsd)
        inside = np.ones(scene.aerial.shape[1:], bool)
        data["aerial"] = Image(
            _window(scene.aerial, window, extent, n), _window(inside, window, extent, n)
        )
    if "s2" in names:
        clear = _window(np.asarray(np.isin(scene.scl, CLEAR_SCL)), window, extent, 1)
        pixels = _window(scene.s2, window, extent, 1).astype(np.float32)
        data["s2"] = Series(pixels, scene.s2_dates, clear, ~clear)
    if "s1" in names:
        there = np.ones((len(scene.s1_dates), *scene.s1.shape[-2:]), bool)
        clear = _window(there, window, extent, 1)
        radar = _window(scene.s1, window, extent, 1)
        data["s1"] = Series(radar, scene.s1_dates, clear, np.zeros_like(clear))
    return Sample(window, data)


def _window(array: NDArray[Scalar], window: Window, extent: Window, n: int) -> NDArray[Scalar]:
    out = np.zeros((*array.shape[:-2], *window.refined(n).shape), array.dtype)
    common = window.intersection(extent).refined(n)
    target = common.slices_in(window.refined(n))
    source = common.slices_in(extent.refined(n))
    out[(..., *target)] = array[(..., *source)]
    return out


def map_scene(
    network: PatchLocal, card: Card, scene: Scene, names: tuple[str, ...]
) -> NDArray[np.uint8]:
    """Map a scene with some of its modalities through the engine; classes at 1 m."""
    feeds = tuple(
        Feed(entry, tuple(range(len(entry.bands))), round(card.patch_m / entry.gsd))
        for entry in card.modalities
    )
    codes = tuple(entry.code for entry in sim_legend().classes)
    mapper = SampleMapper(network, card, codes, feeds, choose_compute("cpu"))
    left, top = scene.origin
    area = Window(-top // 10, left // 10, scene.s2.shape[-2], scene.s2.shape[-1])
    out = mapper.map(sample_of(scene, area, names), mapper.recipe(names))
    times = scene.truth.shape[0] // out.shape[0]
    return out.repeat(times, 0).repeat(times, 1)


def measure(network: PatchLocal, card: Card, scenes: list[Scene]) -> dict[str, dict[str, float]]:
    """Score every subset of the modalities on scenes the network has never seen.

    Returns:
        Subset ("aerial+s2") to "mIoU", "F1 macro", "accuracy" and "F1 <class>", in per cent.
    """
    classes = sim_legend().classes
    codes = tuple(entry.code for entry in classes)
    results = {}
    for names in _subsets(card.names):
        total = np.zeros((len(codes), len(codes)), np.int64)
        for scene in scenes:
            total += confusion(scene.truth, map_scene(network, card, scene, names), codes)
        scores = Scores(total)
        figures = {
            "mIoU": scores.miou,
            "F1 macro": scores.macro_f1,
            "accuracy": scores.accuracy,
            **{
                f"F1 {entry.name_en}": float(f1)
                for entry, f1 in zip(classes, scores.f1, strict=True)
                if not np.isnan(f1)
            },
        }
        results["+".join(names)] = {name: round(100 * value, 1) for name, value in figures.items()}
        log.info("%s: mIoU %.1f %%", "+".join(names), 100 * scores.miou)
    return results


def _subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [part for size in range(len(names), 0, -1) for part in combinations(names, size)]


def main() -> None:
    """Simulate, train, measure, write the pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=38.0)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--tests", type=int, default=6)
    parser.add_argument("--scene-m", type=int, default=640)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    budget = Budget(args.scenes, args.tests, args.scene_m, args.minutes, args.steps, args.batch)
    scenes = make_scenes(TRAIN_SEED, budget.scenes, budget.scene_m)
    config = network_config(len(sim_legend().classes))
    card = make_card(config, scenes)
    network = train(config, card, scenes, budget)
    folded = cast("PatchLocal", fold_for_inference(network))
    legend = sim_legend().to_json()
    write_pack(args.out, card, legend, network.state_dict())
    tests = make_scenes(TEST_SEED, budget.tests, budget.scene_m)
    scores = measure(folded, card, tests)
    training = (
        f"{budget.scenes} simulated scenes of {budget.scene_m} m (seeds {TRAIN_SEED} to "
        f"{TRAIN_SEED + budget.scenes - 1}), windows of 120 m, cross-entropy + Dice, modality "
        f"dropout, {budget.minutes:g} minutes on {args.threads} CPU threads; scored on "
        f"{budget.tests} scenes from seed {TEST_SEED} at 1 m"
    )
    card = card.model_copy(update={"scores": {"unseen seeds": scores}, "training": training})
    write_pack(args.out, card, legend, network.state_dict())


if __name__ == "__main__":
    main()
