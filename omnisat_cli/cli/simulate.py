"""`omnisat simulate`: a synthetic scene with its truth."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from omnisat_cli.cli.console import say, set_up_logging
from omnisat_cli.cli.options import Verbose


class Happening(StrEnum):
    """What may happen in the year of the series."""

    FLOOD = "flood"
    CLEARING = "clearing"


def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.")],
    *,
    seed: Annotated[int, typer.Option(help="Number of the simulated world.")] = 0,
    count: Annotated[
        int, typer.Option(min=1, help="Worlds of consecutive seeds, each in OUT/<seed>.")
    ] = 1,
    size_km: Annotated[
        float, typer.Option("--size-km", help="Side of the square scene, in steps of 0.01.")
    ] = 1.0,
    aerial_gsd: Annotated[
        float, typer.Option("--aerial-gsd", help="Pixel of the aerial image, metres: 0.2 to 1.")
    ] = 0.5,
    year: Annotated[int, typer.Option(help="Year of the series.")] = 2023,
    event: Annotated[
        Happening | None,
        typer.Option(help="What happens in that year, and what the labels then show."),
    ] = None,
    aerial_gap: Annotated[
        str,
        typer.Option(metavar="SIDE:PERCENT", help="Strip without aerial image, as east:20."),
    ] = "",
    s1_gap: Annotated[
        str, typer.Option(metavar="SIDE:PERCENT", help="Strip without Sentinel-1, as south:20.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a scene that is there.")
    ] = False,
    verbose: Verbose = 0,
) -> None:
    """Make synthetic farmland: aerial image, Sentinel-1 and -2 series, labels and parcels.

    The same seed gives the same files. Nothing in them is real. Several worlds beside each other
    are the dataset `scenes` of `omnisat train` and `evaluate`. With an --event there are series and
    its labels alone: water on the last dates (flood), forest kept and lost (clearing).
    """
    set_up_logging(verbose, quiet=False)
    from omnisat_cli.learning.simulate import SceneSpec
    from omnisat_cli.learning.simulate.events import staged
    from omnisat_cli.learning.simulate.files import (
        Layout,
        read_gap,
        refuse_existing,
        write_simulation,
    )

    side_m = round(size_km * 1000)
    layout = Layout(
        read_gap(aerial_gap) if aerial_gap else None, read_gap(s1_gap) if s1_gap else None
    )
    specs = [
        staged(SceneSpec(seed + k, side_m, side_m, aerial_gsd, year, event=event and event.value))
        for k in range(count)
    ]
    folders = [out / str(spec.seed) for spec in specs] if count > 1 else [out]
    if not overwrite:
        for folder in folders:
            refuse_existing(folder)
    for spec, folder in zip(specs, folders, strict=True):
        write_simulation(spec, folder, layout)
        left, top = spec.frame.left, spec.frame.top
        say(
            f"{folder}: {size_km:g} km × {size_km:g} km of world {spec.seed}, "
            f"upper left {left}, {top}"
        )
    if event:
        say("  s2.nc, s1.nc, and the truth: labels.tif with legend.json; aoi.geojson")
    else:
        say("  aerial.tif, s2.nc, s1.nc, and the truth: labels.tif, parcels.gpkg; aoi.geojson")
