"""From a job to everything a run needs: pack, sources, grid, plan, recipe, fingerprint."""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omnisat_cli.engine.recipe import Feed, Recipe, draws_fine, output_refine
from omnisat_cli.errors import AlignmentError, CheckpointError, JobError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Plan, Tiling, make_plan
from omnisat_cli.modality import flag, modality
from omnisat_cli.outputs.prediction import MAX_MODALITIES
from omnisat_cli.packs.patch_size import at_patch_size
from omnisat_cli.packs.registry import Pack, find_pack, read_pack, verify_weights
from omnisat_cli.sources.aoi import Area, read_aoi
from omnisat_cli.sources.area_ground import check_overlap, meets
from omnisat_cli.sources.opening import (
    Wanted,
    choose_crs,
    match_inputs,
    open_input,
    substitutes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.engine.recipe import Channel
    from omnisat_cli.job import Execution, Input, Job
    from omnisat_cli.networks.seam import Traits
    from omnisat_cli.packs.card import ModalityCard
    from omnisat_cli.sources.values import Source

log = logging.getLogger(__name__)

_BASE_MB = 700
"""Memory of the process before any block: interpreter, torch, GDAL caches."""

_NEIGHBOURS = {"B8A": "B08", "B08": "B8A", "B05": "B04", "B06": "B07", "B07": "B06", "B12": "B11"}
"""Bands close enough in wavelength that a copy is offered where one is missing."""

_LARGEST_BLOCK = 256
"""Patches: beyond this the halo costs little and a lost block much."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A job made concrete; nothing has been computed or written.

    Attributes:
        job: What was asked.
        pack: The model pack, its weights verified.
        sources: Modality to its source.
        area: Area of interest, or None where the job maps wherever inputs are.
        plan: Grid and blocks.
        recipe: What to compute in a block.
        fingerprint: Everything that shapes the bytes of the map.
    """

    job: Job
    pack: Pack
    sources: Mapping[str, Source]
    area: Area | None
    plan: Plan
    recipe: Recipe
    fingerprint: Mapping[str, object]

    @property
    def km2(self) -> float:
        """Ground of all block cores, in km²."""
        pixels = sum(block.core.height * block.core.width for block in self.plan.blocks)
        return pixels * self.plan.lattice.gsd**2 / 1e6


def prepare(job: Job, execution: Execution, *, for_map: bool = True) -> Setup:
    """Open everything a job names and plan it.

    Args:
        job: What is wanted.
        execution: How.
        for_map: Whether the model must know classes; embeddings need none.

    Raises:
        OmnisatError: If anything about the job, its files or its model does not fit.
    """
    pack = at_patch_size(find_pack(job.model), job.patch_m, job.scales)
    if for_map:
        _check_maps(pack)
    digest = verify_weights(pack)
    traits = traits_of_pack(pack)
    inputs = _matched(job, pack)
    lattice = Lattice(choose_crs(job.inputs, job.crs), pack.card.patch_m)
    sources = {
        name: open_input(
            entry, lattice, Wanted(name, modality(name).stored(card.bands), card.gsd), job
        )
        for name, (entry, card) in inputs.items()
    }
    area, frame = _area(job, lattice, sources)
    feeds = tuple(
        Feed(card, _channels(entry, card, sources[name]), sources[name].refine)
        for name, (entry, card) in inputs.items()
    )
    _check_feeds(pack, traits, feeds)
    refine, fine = output_refine(pack.card, draws_fine(traits, feeds), job.resolution)
    if job.boundary and not pack.card.boundary:
        raise JobError(f"the model {pack.card.name} gives no parcel boundary")
    recipe = Recipe(
        card=pack.card,
        feeds=feeds,
        codes=tuple(entry.code for entry in pack.legend.classes),
        refine=refine,
        fine=fine,
        implicit_area=area is None,
        probabilities=job.probabilities,
        boundary=job.boundary,
    )
    plan = _plan(lattice, frame, (recipe, sources, area, traits), execution)
    fingerprint = _fingerprint((job, execution), pack, digest, plan, sources)
    return Setup(job, pack, sources, area, plan, recipe, fingerprint)


def _check_maps(pack: Pack) -> None:
    """Check that a model gives maps.

    Raises:
        JobError: If it was only pretrained.
    """
    card = pack.card
    if card.pretrained_only:
        raise JobError(
            f"the model {card.name} is pretrained only: it knows no classes yet. Train it on "
            f"labels first: omnisat train --from {pack.folder} --labels FILE --field FIELD …"
        )


def _matched(job: Job, pack: Pack) -> dict[str, tuple[Input, ModalityCard]]:
    """Pair the job's inputs with the model's modalities, in the order of the card."""
    wanted = {entry.name: entry for entry in pack.card.modalities}
    inputs, unused = match_inputs(job.inputs, tuple(wanted))
    pairs = {name: (entry, wanted[name]) for name, entry in inputs.items()}
    if unused:
        raise JobError(
            f"the model {pack.card.name} does not use {', '.join(unused)}; it uses "
            f"{', '.join(wanted)}. Leave the option out or choose another model"
        )
    missing = [name for name in wanted if name not in pairs]
    if missing and job.missing_modality == "fail":
        raise JobError(f"no file for {', '.join(missing)} and --missing-modality fail was given")
    return pairs


def traits_of_pack(pack: Pack) -> Traits | None:
    """Return what the network of a pack is like; None where it sees whole windows."""
    from omnisat_cli.networks.table import traits_of

    network = pack.card.network
    try:
        return traits_of(network.kind, network.config)
    except ValueError as error:
        raise CheckpointError(f"the card of {pack.card.name}: {error}") from error


def _check_feeds(pack: Pack, traits: Traits | None, feeds: tuple[Feed, ...]) -> None:
    """Refuse modalities that the network cannot cut into its patches, or that make no map."""
    card = pack.card
    if all(feed.is_context for feed in feeds):
        names = " and ".join(feed.name for feed in feeds)
        raise JobError(
            f"{names} alone makes no map: its pixels are larger than the patches; add another "
            f"modality of {card.name}: {', '.join(card.names)}"
        )
    if len(feeds) > MAX_MODALITIES:
        raise JobError(f"{len(feeds)} modalities are given; one map takes {MAX_MODALITIES}")
    if traits is None:
        return
    lacking = [name for name in traits.needed if name not in {feed.name for feed in feeds}]
    if lacking:
        raise JobError(
            f"{card.name} draws its map from {' and '.join(lacking)}, of which no file is given"
        )
    if traits.pixels is None:
        return
    for feed in feeds:
        pixels = traits.pixels.get(feed.name)
        if pixels != feed.refine:
            sizes = (
                ", ".join(f"{size:g}" for size in _sizes_of(pack, feed.name))
                or "none: leave it out"
            )
            found = f"{feed.refine} pixels of {card.patch_m / feed.refine:g} m"
            wanted = f"takes {pixels}" if pixels else "cannot cut it so"
            raise JobError(
                f"{feed.name}: a patch of {card.patch_m:g} m has {found}, the network of "
                f"{card.name} {wanted}; choose --patch-size among {sizes}"
            )


def _sizes_of(pack: Pack, name: str) -> list[float]:
    """Return the patch sizes of a pack at which its network can cut a modality."""
    own = read_pack(pack.folder)  # `pack` may be at another size by now
    sizes = sorted({own.card.patch_m, *own.card.patch_sizes})
    found = [(size, traits_of_pack(at_patch_size(own, size))) for size in sizes]
    return [size for size, traits in found if traits and (traits.pixels or {}).get(name)]


def _channels(entry: Input, card: ModalityCard, source: Source) -> tuple[Channel, ...]:
    """Find each band the network wants among those the source delivers."""
    accepted = substitutes(entry)
    channels: list[Channel] = []
    missing = []
    for band in card.bands:
        parts = modality(card.name).derived.get(band, (band,))
        absent = [part for part in parts if part not in source.bands]
        if not absent:
            first, *second = (source.bands.index(part) for part in parts)
            channels.append((first, second[0]) if second else first)
        elif all(accepted.get(part) == "none" for part in absent):
            channels.append(None)
        else:
            missing += [part for part in absent if part not in missing]
    if missing:
        option, band = flag(entry.modality, "substitute"), missing[0]
        copy = _NEIGHBOURS.get(band)
        offer = f"{option} {band}={copy}, or " if copy in source.bands else ""
        raise SourceError(
            f"{', '.join(entry.paths)} has no {', '.join(missing)}: the model needs "
            f"{', '.join(card.bands)} for {card.name}, found {', '.join(source.bands)}. "
            f"State a substitute, e.g. {offer}{option} {band}=none to use the training mean "
            "instead (less accurate)"
        )
    return tuple(channels)


def _area(job: Job, lattice: Lattice, sources: Mapping[str, Source]) -> tuple[Area | None, Window]:
    """Find the area of interest and the window of patches that frames the map."""
    if job.area.is_implicit:
        return None, Window.around(_ground(lattice, sources))
    request = job.area
    area = read_aoi(
        request.aoi,
        request.bbox,
        aoi_crs=request.aoi_crs,
        bbox_crs=request.bbox_crs,
        target_crs=lattice.crs,
    )
    frame = lattice.window(area.bounds)
    coverage = check_overlap(area, {name: s.footprints for name, s in sources.items()})
    return replace(area, decisions=(*area.decisions, *coverage)), frame


def _ground(lattice: Lattice, sources: Mapping[str, Source]) -> list[Window]:
    """Return the patches under every footprint."""
    return [lattice.window(bounds) for source in sources.values() for bounds in source.footprints]


def _plan(
    lattice: Lattice,
    frame: Window,
    world: tuple[Recipe, Mapping[str, Source], Area | None, Traits | None],
    execution: Execution,
) -> Plan:
    """Cut the frame into blocks that hold both area and imagery."""
    recipe, sources, area, traits = world
    window = recipe.card.window
    side = _block_side(recipe, sources, traits, execution)
    tiling = Tiling(side, window.size, window.size - window.overlap, window.cell)
    ground = _ground(lattice, sources)

    def keep(core: Window) -> bool:
        if area is not None:
            return meets(area, lattice, core)
        return any(not core.intersection(part).is_empty for part in ground)

    plan = make_plan(lattice, frame, tiling, keep)
    if not plan.blocks:
        raise AlignmentError("nothing to map: no block holds both area and imagery")
    return plan


def _block_side(
    recipe: Recipe, sources: Mapping[str, Source], traits: Traits | None, execution: Execution
) -> int:
    """Choose the side of a block, in patches, so that a run stays within its memory.

    The bound counts what grows with a block: pixels read (one block in work, the next ones read
    ahead), tokens and finer features, the finished layers; and along its side the rows that are
    being blended. The fewer the blocks, the fewer windows are computed for two of them.
    """
    cell, window = recipe.card.window.cell, recipe.card.window.size
    if execution.block_m is not None:
        side = round(execution.block_m / recipe.card.patch_m)
        return max(cell, side // cell * cell)
    copies = execution.prefetch + 2
    patch = 0.0
    for feed in recipe.feeds:
        pixels = feed.refine**2
        dates = max(1, len(sources[feed.name].dates))
        size = 4 if feed.is_series else 1
        patch += copies * pixels * dates * (len(feed.channels) * size + 2)
        if traits is not None:
            patch += 4 * (traits.width + recipe.fine * traits.fine.get(feed.name, 0))
    patch += recipe.refine**2 * (16 + 2 * sum(recipe.extra.values()))
    line = 6.0 * window * recipe.refine**2 * (len(recipe.codes) + 2)
    budget = max(64, execution.memory_mb / execution.workers - _BASE_MB) * 2**20
    side = int((math.sqrt(line**2 + 4 * patch * budget) - line) / (2 * patch)) - 2 * window
    return max(2 * cell, min(_LARGEST_BLOCK, side) // cell * cell)


def _fingerprint(
    asked: tuple[Job, Execution],
    pack: Pack,
    digest: str,
    plan: Plan,
    sources: Mapping[str, Source],
) -> dict[str, object]:
    job, execution = asked
    tiling = plan.tiling
    return {
        "omnisat": importlib.metadata.version("omnisat"),
        "libraries": {
            name: importlib.metadata.version(name) for name in ("torch", "numpy", "rasterio")
        },
        "job": job.facts(),
        "model": {"name": pack.card.name, "version": pack.card.version, "sha256": digest},
        "legend": f"{pack.legend.id}@{pack.legend.version}",
        "inputs": {
            name: [
                {"path": one.path, "size": one.size, "mtime_ns": one.mtime_ns, "sha256": one.sha256}
                for one in source.identities
            ]
            for name, source in sources.items()
        },
        "grid": {
            "crs": plan.lattice.crs,
            "patch_m": plan.lattice.gsd,
            "row": plan.area.row,
            "col": plan.area.col,
            "height": plan.area.height,
            "width": plan.area.width,
        },
        "tiling": {
            "block": tiling.block,
            "window": tiling.window,
            "stride": tiling.stride,
            "cell": tiling.cell,
        },
        "device": device_class(execution),
        "threads": thread_count(execution),
        "batch": execution.batch,
    }


def thread_count(execution: Execution) -> int:
    """Return the CPU threads of a process: sums are split by thread, so bits depend on it."""
    return execution.threads or max(1, len(os.sched_getaffinity(0)) // execution.workers)


def device_class(execution: Execution) -> str:
    """Return "cpu" or "cuda", as it will be chosen."""
    if execution.device != "auto":
        return execution.device.split(":")[0]
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
