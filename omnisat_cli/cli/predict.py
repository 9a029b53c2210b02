"""`omnisat predict`: one area, its imagery, a map."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from omnisat_cli.cli import options as opt
from omnisat_cli.cli.console import set_up_logging
from omnisat_cli.cli.flags import AREA, COMPUTE, Given, area_of, execution_of, flag, with_flags
from omnisat_cli.cli.guard import stoppable
from omnisat_cli.cli.imagery import Imagery, with_imagery
from omnisat_cli.cli.parcels import ParcelWish
from omnisat_cli.cli.progress import choose_progress
from omnisat_cli.cli.request import inputs_from
from omnisat_cli.job import Job


@with_flags("area", AREA)
@with_flags("compute", COMPUTE)
@with_imagery
def predict(
    *,
    out: Annotated[
        Path, flag("Path of the class map (.tif).", "-o", "--out", "--output", metavar="FILE")
    ],
    imagery: Imagery,
    dates: Annotated[
        str | None, flag("First and last day, or a file with one date a line.", metavar="A/B|FILE")
    ] = None,
    model: Annotated[
        str, flag("Bundled model or folder of a pack.", "-m", "--model", metavar="MODEL")
    ] = "omnisat-demo",
    area: Given,
    resolution: Annotated[
        float | None, flag("Pixel of the map in metres.", metavar="METRES")
    ] = None,
    patch_size: Annotated[
        str | None,
        flag("Patch in metres, where the model allows several; M,M averages.", metavar="METRES"),
    ] = None,
    missing_modality: Annotated[
        opt.Allowance, flag("A modality of the model without file.")
    ] = opt.Allowance.ALLOW,
    on_error: Annotated[opt.Trouble, flag("Ground that cannot be read.")] = opt.Trouble.FAIL,
    probabilities: Annotated[bool, flag("Also a raster a class.", "--probabilities")] = False,
    boundary: Annotated[bool, flag("Also parcel boundaries.", "--boundary")] = False,
    parcels: Annotated[
        Path | None,
        flag("Also parcels: .gpkg, .parquet, .fgb, .geojson; see `vectorize`.", metavar="FILE"),
    ] = None,
    parcels_in: Annotated[
        Path | None,
        flag("For --parcels: judge these instead of drawing; see `vectorize`.", metavar="FILE"),
    ] = None,
    overwrite: Annotated[bool, flag("Replace an existing output.", "--overwrite")] = False,
    resume: Annotated[bool, flag("Go on with a run that was stopped.")] = True,
    redact_paths: Annotated[
        bool, flag("Keep folder names out of the provenance.", "--redact-paths")
    ] = False,
    compute: Given,
    prefetch: Annotated[int, flag("Blocks read ahead.", metavar="N")] = 1,
    workers: Annotated[int, flag("Processes that compute blocks.", metavar="N")] = 1,
    dry_run: Annotated[bool, flag("Say what would be done, write nothing.", "--dry-run")] = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Map an area with whatever imagery exists.

    Ends with 0 when the map is complete, 4 when it has holes, 130 when it was stopped: the same
    command then goes on.
    """
    set_up_logging(verbose, quiet)
    wish = ParcelWish(parcels, parcels_in, overwrite)
    boundary |= wish.needs_boundary(model)
    wanted, crs = area_of(area)
    patches = opt.patch_sizes(patch_size)
    job = Job(
        inputs=inputs_from(imagery, dates),
        model=model,
        out=out,
        area=wanted,
        crs=crs,
        resolution=resolution,
        dates=opt.date_range(dates),
        missing_modality=missing_modality.value,
        on_error=on_error.value,
        probabilities=probabilities,
        boundary=boundary,
        patch_m=patches[0] if patches else None,
        scales=patches[1:],
    )
    execution = execution_of(compute, prefetch, workers)
    if dry_run:
        from omnisat_cli.cli.plan import show_plan

        show_plan(job, execution, as_json=as_json)
        return
    from omnisat_cli.cli.result import show_result
    from omnisat_cli.runners.predict import Delivery
    from omnisat_cli.runners.predict import predict as run

    command = ("omnisat", *sys.argv[1:])
    progress = choose_progress(quiet)
    with stoppable() as stop:
        try:
            delivery = Delivery(overwrite, resume, redact_paths, command)
            report = run(job, execution, progress, stop, delivery)
        finally:
            progress.close()
    made = None if report.export is None else wish.fulfil(out, model)
    raise typer.Exit(show_result(report, made, as_json=as_json))
