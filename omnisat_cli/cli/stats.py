"""`omnisat stats`: hectares of each class, of a map and of zones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisat_cli.cli.console import columns, note, say, say_json, set_up_logging
from omnisat_cli.cli.options import AsJson, Quiet, Verbose
from omnisat_cli.cli.text import count
from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from omnisat_cli.outputs.statistics import Place, Statistics

_SHOWN = 10


def stats(
    path: Annotated[Path, typer.Argument(metavar="MAP", help="Class map (GeoTIFF).")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", "--output", metavar="FILE", help="Table: .csv or .json; default: shown."
        ),
    ] = None,
    zones: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Polygons to count in as well, e.g. communes."),
    ] = None,
    zone_id: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Column that names the zones.")
    ] = None,
    zones_crs: Annotated[str | None, typer.Option(metavar="EPSG:N", help="CRS of --zones.")] = None,
    zones_layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Layer of --zones, if it has several.")
    ] = None,
    legend: Annotated[
        str | None,
        typer.Option(metavar="ID|FILE", help="Names of the classes, if not those of the map."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Count the hectares of each class, in a whole map and zone by zone.

    Pixels at the edge of a zone count by their part inside it.
    """
    set_up_logging(verbose, quiet)
    if zones is None and (zone_id or zones_crs or zones_layer):
        raise JobError("--id, --zones-crs and --zones-layer are about --zones, which is not given")
    from omnisat_cli.outputs import statistics

    if out is not None:
        statistics.check_table_output(out, overwrite=overwrite)
    wanted = None
    if zones is not None:
        wanted = statistics.Zones(zones, zone_id, zones_crs, zones_layer)
    found = statistics.measure(path, wanted, legend)
    if out is not None:
        statistics.write_table(found, out)
    if as_json:
        say_json(statistics.to_plain(found))
        return
    show(found, out)
    for text in found.remarks:
        note(f"note: {text}")


def show(found: "Statistics", out: Path | None) -> None:
    """Print what was counted: everything, or where it was written and the total."""
    if out is not None:
        zones = f", {count(len(found.zones), 'zone')}" if found.column else ""
        say(f"{out}  {count(len(found.total.classes), 'class')}{zones}")
    places = [found.total] if out is not None else [*found.zones[:_SHOWN], found.total]
    for place in places:
        say(f"{place.name}: {place.hectares:,.2f} ha with a class, {place.without:,.2f} ha without")
        say("\n".join(columns(_rows(place), "  ")))
    left = len(found.zones) - _SHOWN
    if out is None and left > 0:
        note(f"note: {left} more zones; -o FILE.csv writes all")
    say(f"ground measured {found.method}")


def _rows(place: "Place") -> list[tuple[str, ...]]:
    """Return a line for each class that occurs, the largest first."""
    there = sorted((c for c in place.classes if c.pixels), key=lambda c: -c.hectares)
    return [
        (str(c.code), c.name, f"{c.hectares:12,.2f} ha", f"{c.share or 0:7.2%}") for c in there
    ] or [("nothing",)]
