"""The work of `omnisat embed`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.cli.console import say, say_json
from omnisat_cli.cli.guard import stoppable
from omnisat_cli.cli.plan import mapped_km2
from omnisat_cli.cli.text import duration, rate, square_km
from omnisat_cli.engine.device import choose_compute
from omnisat_cli.engine.memory import keep_freed_memory
from omnisat_cli.engine.network import load_network
from omnisat_cli.errors import Exit
from omnisat_cli.learning.probing.embed import make_embedder
from omnisat_cli.outputs.embedding import Frame, check_embedding_output, embedding_file
from omnisat_cli.outputs.provenance import omnisat_version
from omnisat_cli.runners.setup import prepare, thread_count
from omnisat_cli.runners.stream import loaded_blocks
from omnisat_cli.sources.embeddings import EmbeddingFacts

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from omnisat_cli.job import Execution, Job
    from omnisat_cli.learning.probing.embed import Embedder
    from omnisat_cli.outputs.embedding import EmbeddingWriter
    from omnisat_cli.runners.setup import Setup

_SHARE = 0.25
"""Part of the memory for the embeddings of a block."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How embeddings are put down."""

    quantise: bool
    overwrite: bool
    quiet: bool


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was written; `out` is None where the run was stopped."""

    setup: Setup
    out: Path | None
    width: int
    patches: int
    holes: int
    seconds: float


def run(job: Job, execution: Execution, wish: Wish) -> Embedded:
    """Embed an area.

    Raises:
        OmnisatError: With the reason and what to do; the output is then untouched.
    """
    begin = time.monotonic()
    check_embedding_output(job.out, overwrite=wish.overwrite)
    setup = prepare(job, execution, for_map=False)
    keep_freed_memory()
    torch.set_num_threads(thread_count(execution))
    compute = choose_compute(execution.device, execution.batch)
    network = load_network(setup.pack, compute)
    embedder = make_embedder(network, setup.recipe, setup.plan.tiling, compute)
    width = embedder.width
    smaller = _smaller_blocks(setup, execution, width)
    if smaller is not None:
        setup = prepare(job, smaller, for_map=False)
        embedder = make_embedder(network, setup.recipe, setup.plan.tiling, compute)
    frame = Frame(setup.plan.lattice, setup.plan.area)
    with (
        stoppable() as stop,
        embedding_file(job.out, frame, _facts(setup, width), quantised=wish.quantise) as writer,
    ):
        holes = _embed_blocks(setup, embedder, writer, (stop, wish.quiet))
        if stop.is_set():
            raise KeyboardInterrupt
    return Embedded(setup, job.out, width, writer.patches, holes, time.monotonic() - begin)


def show(result: Embedded, *, as_json: bool) -> int:
    """Say what was written; return the exit code."""
    code = Exit.HOLES if result.holes or not result.patches else Exit.COMPLETE
    setup = result.setup
    if as_json:
        plain = {name: getattr(result, name) for name in ("width", "patches", "holes")}
        plain |= {"exit": int(code), "out": str(result.out), "seconds": round(result.seconds, 3)}
        say_json(plain | {"model": setup.pack.card.name, "modalities": list(setup.sources)})
        return int(code)
    say(
        f"{square_km(mapped_km2(setup))}  {rate(setup.km2, result.seconds)}  "
        f"done in {duration(result.seconds)}"
    )
    patches = f"{result.patches:,} patches of {setup.pack.card.patch_m:g} m"
    say(f" {result.out}  {patches}, {result.width} numbers each, from {', '.join(setup.sources)}")
    if result.holes:
        share = 100 * result.holes / (result.holes + result.patches)
        say(f" {share:.2g} % of the area saw no imagery")
    elif not result.patches:
        say(" no patch saw imagery: no input holds real data here, see omnisat inspect")
    return int(code)


def _smaller_blocks(setup: Setup, execution: Execution, width: int) -> Execution | None:
    """Return how to run where the embeddings of a block would take too much memory."""
    if execution.block_m is not None:
        return None
    budget = _SHARE * execution.memory_mb * 2**20
    cell = setup.plan.tiling.cell
    # A block is held three times: blended, stacked, and written.
    side = max(2, int((budget / (3 * 4 * width)) ** 0.5) // cell) * cell
    if side >= setup.plan.tiling.block:
        return None
    return replace(execution, block_m=side * setup.plan.lattice.gsd)


def _embed_blocks(
    setup: Setup,
    embedder: Embedder,
    writer: EmbeddingWriter,
    watching: tuple[threading.Event, bool],
) -> int:
    """Embed and write every block; return the patches of the area that saw no imagery."""
    from tqdm import tqdm

    stop, quiet = watching
    holes = 0
    blocks = setup.plan.blocks
    with tqdm(total=len(blocks), desc="blocks", leave=False, disable=quiet or None) as bar:
        for loaded in loaded_blocks(setup, blocks, stop):
            n = setup.recipe.refine
            inside = loaded.inside[n // 2 :: n, n // 2 :: n]  # the middle of each patch
            values = embedder.embed(loaded.block, loaded.sample, inside)
            writer.put(loaded.block.core, values)
            if setup.area is not None:
                seen = ~np.isnan(values[0]) if len(values) else np.zeros_like(inside)
                holes += int((inside & ~seen).sum())
            bar.update()
    return holes


def _facts(setup: Setup, width: int) -> EmbeddingFacts:
    card = setup.pack.card
    return EmbeddingFacts(
        model=card.name,
        version=card.version,
        weights_sha256=card.weights_sha256,
        patch_m=card.patch_m,
        width=width,
        modalities=tuple(setup.sources),
        dates={
            name: tuple(str(day) for day in source.dates)
            for name, source in setup.sources.items()
            if len(source.dates)
        },
        inputs={
            name: tuple(asdict(one) for one in source.identities)
            for name, source in setup.sources.items()
        },
        omnisat=omnisat_version(),
    )
