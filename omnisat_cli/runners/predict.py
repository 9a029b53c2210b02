"""One job from beginning to end: prepare, run, export."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from omnisat_cli.errors import OutputExistsError, ResumeError, SourceError
from omnisat_cli.outputs import disk
from omnisat_cli.outputs.export import ExportOptions, ExportReport, export, exported
from omnisat_cli.outputs.products import check_output, existing_outputs, space_need
from omnisat_cli.outputs.provenance import ModelFacts, RunDescription
from omnisat_cli.outputs.run import RunFacts, has_run, staging_folder
from omnisat_cli.outputs.store import BlockStore
from omnisat_cli.runners.local import Timing, load_mapper, run_blocks
from omnisat_cli.runners.setup import Setup, prepare, thread_count
from omnisat_cli.sources.identity import identify

if TYPE_CHECKING:
    import threading

    from omnisat_cli.engine.process import BlockMapper
    from omnisat_cli.job import Execution, Job
    from omnisat_cli.outputs.products import SpaceNeed
    from omnisat_cli.runners.local import Watch
    from omnisat_cli.sources.values import Identity

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the results are put down.

    Attributes:
        overwrite: Replace an output, or a staged run of another job.
        resume: Go on with a staged run of this job.
        redact_paths: Keep folders out of the provenance.
        command: Command line, for the provenance.
    """

    overwrite: bool = False
    resume: bool = True
    redact_paths: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a job.

    Attributes:
        setup: The prepared job.
        export: What was written; None if the run was stopped before its end.
        seconds: Wall-clock time of this call.
        computed: Blocks computed by this call.
        windows: Windows a batch at the end (memory may have halved it).
    """

    setup: Setup
    export: ExportReport | None
    seconds: float
    computed: int
    windows: int


def needed_space(setup: Setup) -> SpaceNeed:
    """Return the disk space a prepared job needs."""
    return space_need(run_facts(setup))


def predict(
    job: Job,
    execution: Execution,
    watch: Watch,
    stop: threading.Event,
    delivery: Delivery | None = None,
) -> Report:
    """Map an area.

    Args:
        job: What to map.
        execution: How.
        watch: Told of progress.
        stop: When set, the block in work is finished and the run can be resumed.
        delivery: What to do with what is already there.

    Raises:
        OmnisatError: With the reason and what to do; the output is then untouched.
    """
    begin = time.monotonic()
    delivery = delivery or Delivery()
    check_output(job.out)
    _refuse_existing(job.out, delivery)
    setup = prepare(job, execution)
    # The network first: a run that no device or weights can finish leaves nothing staged.
    mapper = load_mapper(setup, execution)
    with _open_store(setup, delivery) as store:
        # A kill after the last rename leaves a finished run whose blocks may be gone already.
        report = exported(store, job.out)
        timing = Timing()
        if report is None:
            timing = _run(setup, mapper, (store, watch, stop), execution)
        if report is not None:
            store.discard()
        elif not (stop.is_set() and store.pending(setup.plan.blocks)):
            _refuse_changed(setup)
            description = _describe(setup, execution, (timing, begin), delivery)
            options = ExportOptions(
                redact_paths=delivery.redact_paths, threads=thread_count(execution)
            )
            report = export(store, setup.plan, setup.pack.legend, job.out, description, options)
            store.discard()
    return Report(
        setup, report, time.monotonic() - begin, len(timing.records), mapper.compute.windows
    )


def _run(
    setup: Setup,
    mapper: BlockMapper,
    run: tuple[BlockStore, Watch, threading.Event],
    execution: Execution,
) -> Timing:
    """Compute the blocks here, or in worker processes."""
    store, watch, stop = run
    if execution.workers == 1:
        return run_blocks(setup, mapper, store, watch, stop, execution.prefetch)
    from omnisat_cli.runners.workers import run_blocks_in_workers

    return run_blocks_in_workers(setup, execution, store, watch, stop)


def run_facts(setup: Setup) -> RunFacts:
    """Return what every block of a run shares."""
    plan = setup.plan
    return RunFacts(
        crs=plan.lattice.crs,
        gsd=plan.lattice.gsd,
        area=(plan.area.row, plan.area.col, plan.area.height, plan.area.width),
        refine=setup.recipe.refine,
        blocks=len(plan.blocks),
        modalities=setup.recipe.counted,
        legend=setup.pack.legend.label,
        class_count=len(setup.recipe.codes),
        arrays=tuple(setup.recipe.extra),
    )


def _refuse_existing(out: Path, delivery: Delivery) -> None:
    there = existing_outputs(out)
    if there and not delivery.overwrite and not has_run(staging_folder(out)):
        raise OutputExistsError(
            f"{there[0]} exists.\n  keep it:    -o other{out.suffix}        "
            "replace it:  --overwrite"
        )


def _open_store(setup: Setup, delivery: Delivery) -> BlockStore:
    """Resume a staged run of the same job, or start one."""
    folder = staging_folder(setup.job.out)
    facts = run_facts(setup)
    start_over = delivery.overwrite or not delivery.resume
    if has_run(folder) and delivery.resume:
        try:
            return BlockStore.resume(folder, setup.fingerprint)
        except ResumeError:
            # With --overwrite an interrupted run of this job goes on; another job's is replaced.
            if not delivery.overwrite:
                raise
    disk.require_space(folder.parent, space_need(facts).total, f"mapping {setup.job.out.name}")
    return BlockStore.create(folder, setup.fingerprint, facts, start_over=start_over)


def _refuse_changed(setup: Setup) -> None:
    """Check that no input changed while it was read: half a map of each would be a lie."""
    for name, source in setup.sources.items():
        for identity in source.identities:
            if not _is_unchanged(identity):
                raise SourceError(
                    f"{identity.path} ({name}) changed during the run; nothing was exported. "
                    "Start again with --overwrite"
                )


def _is_unchanged(identity: Identity) -> bool:
    """Compare size and time of a file, and the listing of a folder such as a Zarr store."""
    path = Path(identity.path)
    try:
        if path.is_dir():
            return identify(path) == identity
        status = path.stat()
    except OSError as error:
        raise SourceError(f"{path} vanished during the run: {error}") from error
    return (status.st_size, status.st_mtime_ns) == (identity.size, identity.mtime_ns)


def _describe(
    setup: Setup,
    execution: Execution,
    run: tuple[Timing, float],
    delivery: Delivery,
) -> RunDescription:
    timing, begin = run
    card, plan = setup.pack.card, setup.plan
    area: dict[str, object] = {"asked": setup.job.facts()["area"]}
    if setup.area is not None:
        area |= {"description": setup.area.description, "km2": round(setup.area.km2, 6)}
    decisions = {name: source.decisions for name, source in setup.sources.items()}
    if setup.area is not None and setup.area.decisions:
        decisions["area"] = setup.area.decisions
    return RunDescription(
        model=ModelFacts(
            card.name,
            card.version,
            card.weights_sha256,
            card.licence,
            card.source,
            multilabel=card.whole_places,
        ),
        inputs={name: source.identities for name, source in setup.sources.items()},
        decisions=decisions,
        area=area,
        command=delivery.command,
        device=_device_name(execution),
        threads=thread_count(execution),
        settings={
            "fingerprint": dict(setup.fingerprint),
            "block_m": plan.tiling.block * plan.lattice.gsd,
            "resolution_m": plan.lattice.gsd / setup.recipe.refine,
        },
        durations={
            "waiting for pixels": timing.waiting,
            "computing": timing.computing,
            "before export": time.monotonic() - begin,
        },
    )


def _device_name(execution: Execution) -> str:
    if execution.device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return "cpu" if execution.device == "auto" else execution.device
