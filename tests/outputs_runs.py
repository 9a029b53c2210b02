"""Small runs with made-up predictions, shared by the tests of the outputs."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Block, Plan, Tiling, make_plan
from omnisat_cli.outputs.export import ExportOptions, ExportReport, export
from omnisat_cli.outputs.legend import Legend, legend
from omnisat_cli.outputs.prediction import Hole, Prediction
from omnisat_cli.outputs.provenance import ModelFacts, RunDescription
from omnisat_cli.outputs.run import RunFacts, has_run, staging_folder
from omnisat_cli.outputs.store import BlockFacts, BlockStore
from omnisat_cli.sources.values import Decision, Identity

if TYPE_CHECKING:
    from pathlib import Path

AREA = Window(-680010, 65003, 40, 52)
LEGEND = legend("pastis-20")
PLAIN = ExportOptions()

CHILDREN = multiprocessing.get_context("forkserver")
"""Children are forked from a clean process: one that has used GDAL has threads, and hangs."""
CHILDREN.set_forkserver_preload(
    ["omnisat_cli.outputs.export", "omnisat_cli.sources.safe", "rasterio.shutil", "PIL.ImageFont"]
)

FINGERPRINT = {"model": "0123", "inputs": {"s2": ["a.nc", 17]}}
RUN = RunDescription(
    model=ModelFacts("demo", "1.0", "ab" * 32, "MIT"),
    inputs={"s2": (Identity("data/jeanne/s2.nc", 10, 20, "cd" * 32, sampled=False),)},
    decisions={"s2": (Decision("bands", "by name", "ten names known"),)},
    command=("omnisat", "predict", "--s2", "data/jeanne/s2.nc"),
    settings={"seed": 0},
)


@dataclass(frozen=True)
class World:
    """A plan and a prediction for each of its blocks, always the same."""

    area: Window = AREA
    refine: int = 2
    block: int = 16
    legend: Legend = LEGEND
    arrays: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        tiling = Tiling(block=self.block, window=8, stride=6, cell=8)
        return make_plan(Lattice("EPSG:2154", 10.0), self.area, tiling)

    @property
    def facts(self) -> RunFacts:
        return RunFacts(
            crs="EPSG:2154",
            gsd=10.0,
            area=(self.area.row, self.area.col, self.area.height, self.area.width),
            refine=self.refine,
            blocks=len(self.plan.blocks),
            modalities=("aerial", "s2", "s1"),
            legend=self.legend.label,
            class_count=len(self.legend.classes),
            arrays=self.arrays,
        )

    def predict(self, block: Block) -> Prediction:
        """Fields of four classes, a cloudy corner, and a strip outside on the left."""
        core = block.core.refined(self.refine)
        rows, cols = np.mgrid[core.row : core.row_end, core.col : core.col_end]
        inner = cols - self.area.col * self.refine
        codes = np.array(self.legend.codes[:4], np.uint8)
        classes = codes[(rows // 7 + cols // 9) % 4]
        presence = np.where(inner > self.area.width, 7, 6).astype(np.uint8)
        presence[(rows + cols) % 23 == 0] = Hole.CLOUDS
        presence[inner < 5] = Hole.OUTSIDE
        none = presence >= Hole.FAULT
        classes[none] = 255
        confidence = np.where(none, 255, (rows * 3 + cols) % 101).astype(np.uint8)
        validity = np.where(presence == Hole.OUTSIDE, 255, (rows + cols) % 40).astype(np.uint8)
        boundary = np.where(none, 255, (rows * cols) % 251).astype(np.uint8)
        stack = np.array([np.where(none, 255, k) for k in range(self.facts.class_count)], np.uint8)
        return Prediction(
            refine=self.refine,
            classes=classes,
            confidence=confidence,
            validity=validity,
            presence=presence,
            boundary=boundary if "boundary" in self.arrays else None,
            probabilities=stack if "probabilities" in self.arrays else None,
        )

    def store(self, out: Path) -> BlockStore:
        """Start or resume."""
        folder = staging_folder(out)
        if has_run(folder):
            return BlockStore.resume(folder, FINGERPRINT)
        return BlockStore.create(folder, FINGERPRINT, self.facts)

    def fill(self, store: BlockStore) -> BlockStore:
        """Compute what is missing."""
        for block in store.pending(self.plan.blocks):
            facts = BlockFacts(0.5, {"s2": ("2024-03-01", "2024-06-01")})
            store.commit(block, self.predict(block), facts)
        return store

    def run(self, out: Path, options: ExportOptions = PLAIN) -> ExportReport:
        """Do everything a command does: start or resume, compute, export."""
        with self.store(out) as store:
            return export(self.fill(store), self.plan, self.legend, out, RUN, options)


KILLED_WORLD = World(block=32)


def run_and_clean(out: Path, environment: dict[str, str]) -> None:
    """Body of a child process: a whole run, then the staging folder goes."""
    os.environ.update(environment)
    world = KILLED_WORLD
    world.run(out)
    with world.store(out) as store:
        store.discard()


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Read every file that must be the same after any interruption; the provenance has times."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in files if path.suffix != ".json"}
