"""`omnisat predict --dry-run`: what would be done, decision by decision."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from omnisat_cli.cli.console import say, say_json
from omnisat_cli.cli.text import count, square_km
from omnisat_cli.outputs.disk import human
from omnisat_cli.outputs.journal import read_journal
from omnisat_cli.outputs.products import check_output, existing_outputs
from omnisat_cli.outputs.run import has_run, staging_folder
from omnisat_cli.runners.predict import needed_space
from omnisat_cli.runners.setup import device_class, prepare, thread_count
from omnisat_cli.sources.area_ground import ground_apart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from omnisat_cli.job import Execution, Job
    from omnisat_cli.runners.setup import Setup
    from omnisat_cli.sources.values import Decision


def show_plan(job: Job, execution: Execution, *, as_json: bool) -> None:
    """Prepare a job and say what it would do; nothing is computed or written.

    Raises:
        OmnisatError: If the job would be refused.
    """
    check_output(job.out)
    setup = prepare(job, execution)
    if as_json:
        say_json(_plain(setup, execution))
        return
    need = needed_space(setup)
    blocks = count(len(setup.plan.blocks), "block")
    side = setup.plan.tiling.block * setup.plan.lattice.gsd
    say(
        f"would map {square_km(mapped_km2(setup))} as {blocks} of at most {side:g} m, "
        f"{human(need.blocks + need.scratch)} temporary, {human(need.final)} final. "
        "Nothing written."
    )
    for line in _lines(setup, execution):
        say(f"  {line}")
    for text in _obstacles(job.out):
        say(text)


def mapped_km2(setup: Setup) -> float:
    """Return the ground of the area of interest, or of all blocks where there is none."""
    return setup.km2 if setup.area is None else setup.area.km2


def decisions_of(setup: Setup) -> Mapping[str, tuple[Decision, ...]]:
    """Return what was recognised, by input, the area included."""
    made = {name: source.decisions for name, source in setup.sources.items()}
    ground = (
        ground_apart({name: source.footprints for name, source in setup.sources.items()})
        if setup.area is None
        else setup.area.decisions
    )
    return made | ({"area": ground} if ground else {})


def _lines(setup: Setup, execution: Execution) -> Iterator[str]:
    grid = _grid(setup)
    card = setup.pack.card
    absent = [name for name in card.names if name not in setup.sources]
    without = f", without {' and '.join(absent)}" if absent else ""
    yield f"grid    {grid['crs']}, {grid['pixel']:g} m, {grid['width']}×{grid['height']} px"
    yield f"model   {card.name} {card.version} with {', '.join(setup.sources)}{without}"
    yield f"device  {device_class(execution)}, {count(thread_count(execution), 'thread')}"
    for name, decisions in decisions_of(setup).items():
        yield name
        for entry in decisions:
            mark = "! " if entry.warning else "  "
            option = f"  [{entry.option}]" if entry.warning and entry.option else ""
            yield f"{mark}{entry.topic}: {entry.value} ({entry.because}){option}"


def _obstacles(out: Path) -> Iterator[str]:
    """Say what stands where the map would go."""
    staged = staging_folder(out)
    if has_run(staged):
        done = len({record.index for record in read_journal(staged)})
        yield f"{staged} holds a run that was stopped after {count(done, 'block')}"
    there = existing_outputs(out)
    if there:
        yield f"{there[0]} exists: replace it with --overwrite"


def _grid(setup: Setup) -> dict[str, object]:
    plan, refine = setup.plan, setup.recipe.refine
    frame = plan.area.refined(refine)
    return {
        "crs": plan.lattice.crs,
        "pixel": plan.lattice.gsd / refine,
        "width": frame.width,
        "height": frame.height,
        "bounds": list(plan.lattice.bounds(frame, refine)),
    }


def _plain(setup: Setup, execution: Execution) -> dict[str, object]:
    card = setup.pack.card
    return {
        "km2": round(mapped_km2(setup), 6),
        "blocks": len(setup.plan.blocks),
        "block_m": setup.plan.tiling.block * setup.plan.lattice.gsd,
        "bytes": asdict(needed_space(setup)),
        "grid": _grid(setup),
        "model": {"name": card.name, "version": card.version, "sha256": card.weights_sha256},
        "modalities": list(setup.sources),
        "absent": [name for name in card.names if name not in setup.sources],
        "device": device_class(execution),
        "threads": thread_count(execution),
        "decisions": {
            name: [asdict(entry) for entry in made] for name, made in decisions_of(setup).items()
        },
        "obstacles": list(_obstacles(setup.job.out)),
    }
