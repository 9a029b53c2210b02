"""`omnisat demo`: map the sample area with all its imagery and with each part alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisat_cli.cli.console import say, say_json, set_up_logging
from omnisat_cli.cli.guard import stoppable
from omnisat_cli.cli.options import AsJson, Quiet, Verbose
from omnisat_cli.errors import Exit

if TYPE_CHECKING:
    from omnisat_cli.cli.showcase import Run


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Scene with its truth; default: sample_aoi."),
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option("-o", "--out", "--output", metavar="FILE", help="Path of the map.")
    ] = Path("out/map.tif"),
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="MODEL", help="Bundled model or folder.")
    ] = "omnisat-demo",
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads; default: all cores.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace maps of an earlier demo.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Map the sample area and compare it with the truth.

    Once with all its imagery, then with each part alone. The area is synthetic, so the truth is
    known everywhere. Ends with 0 when the map is complete, 4 when it has holes.
    """
    from omnisat_cli.cli.showcase import How, compare, find_scene, map_scene

    set_up_logging(verbose, quiet)
    scene = find_scene(folder)
    with stoppable() as stop:
        runs = map_scene(scene, out, How(model, threads, overwrite, quiet), stop)
    if any(run.report.export is None for run in runs):
        raise KeyboardInterrupt
    rows = compare(scene, runs)
    if as_json:
        say_json({"out": str(out), "scores": rows})
    else:
        _show(runs, rows)
    whole = runs[0].report.export
    if whole is not None and any(whole.holes.values()):
        raise typer.Exit(int(Exit.HOLES))


def _show(runs: "list[Run]", rows: list[dict[str, object]]) -> None:
    from omnisat_cli.cli.text import contents

    for run in runs:
        say(f"{run.label:<16} {run.out}")
    say()
    say(f"{'against truth':<16} {'mIoU':>6} {'accuracy':>9} {'mapped':>7}   per cent")
    for row in rows:
        say(
            f"{row['modalities']:<16} {row['mIoU']:>6.1f} {row['accuracy']:>9.1f} "
            f"{row['mapped']:>7.1f}"
        )
    whole = runs[0].report.export
    if whole is not None:
        largest, holes = contents(whole)
        say()
        say(f"the map: {runs[0].out}")
        say(f"  {largest}.   {holes}.")
        say("  open it in QGIS: classes are named and coloured")
