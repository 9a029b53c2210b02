"""`omnisat embed`: one area, its imagery, the embedding of each patch."""

from pathlib import Path
from typing import Annotated

import typer

from omnisat_cli.cli import options as opt
from omnisat_cli.cli.console import set_up_logging
from omnisat_cli.cli.flags import AREA, COMPUTE, Given, area_of, execution_of, flag, with_flags
from omnisat_cli.cli.imagery import Imagery, with_imagery
from omnisat_cli.cli.request import inputs_from
from omnisat_cli.job import Job


@with_flags("area", AREA)
@with_flags("compute", COMPUTE)
@with_imagery
def embed(
    *,
    out: Annotated[
        Path, flag("Embeddings: .tif or .zarr.", "-o", "--out", "--output", metavar="FILE")
    ],
    imagery: Imagery,
    dates: Annotated[
        str | None, flag("First and last day, or a file with one date a line.", metavar="A/B|FILE")
    ] = None,
    model: Annotated[
        str, flag("Bundled model or folder of a pack.", "-m", "--model", metavar="MODEL")
    ] = "omnisat-demo",
    patch_size: Annotated[
        float | None, flag("Side of a patch, where the model has several.", metavar="METRES")
    ] = None,
    area: Given,
    quantise: Annotated[
        bool, flag("Store 8-bit integers: a quarter of the space.", "--quantise")
    ] = False,
    overwrite: Annotated[bool, flag("Replace an existing file.", "--overwrite")] = False,
    compute: Given,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Write the embedding of each patch of an area: what `train --probe` learns from.

    Ends with 0 when every patch of the area has one, 4 when some saw no imagery. A run that is
    stopped leaves nothing.
    """
    set_up_logging(verbose, quiet)
    from omnisat_cli.cli.embedding import Wish, run, show

    wanted, crs = area_of(area)
    job = Job(
        inputs=inputs_from(imagery, dates),
        model=model,
        out=out,
        area=wanted,
        crs=crs,
        dates=opt.date_range(dates),
        patch_m=patch_size,
    )
    execution = execution_of(compute)
    raise typer.Exit(show(run(job, execution, Wish(quantise, overwrite, quiet)), as_json=as_json))
