"""`omnisat vectorize`: a class map as parcels."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisat_cli.cli.console import note, say, say_json, set_up_logging
from omnisat_cli.cli.options import AsJson, Quiet, Verbose
from omnisat_cli.cli.text import count, hectares
from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

_AREA = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(m2|m²|ha|)\s*")
_SQUARE_METRES = 10_000
_DRAWING = ("simplify", "smooth", "min_area", "boundary", "no_boundary", "fields")
_EXISTING = ("parcels_crs", "parcels_layer", "declared", "crosswalk", "suspects")


class FieldSet(StrEnum):
    """Which columns parcels have."""

    FULL = "full"
    FIBOA = "fiboa"
    OSO = "oso"


def vectorize(
    path: Annotated[Path, typer.Argument(metavar="MAP", help="Class map (GeoTIFF).")],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            "--output",
            metavar="FILE",
            help="Parcels: .gpkg, .parquet, .fgb or .geojson.",
        ),
    ],
    simplify: Annotated[
        float | None,
        typer.Option(
            metavar="METRES",
            help="How far a border may move; default one pixel, 0 keeps pixel outlines.",
        ),
    ] = None,
    smooth: Annotated[
        bool,
        typer.Option("--smooth", help="Round corners; they move by up to --simplify once more."),
    ] = False,
    min_area: Annotated[
        str,
        typer.Option(
            metavar="AREA",
            help="Smaller regions join the neighbour with the longest border: 1000, 0.1ha.",
        ),
    ] = "0",
    legend: Annotated[
        str | None,
        typer.Option(metavar="ID|FILE", help="Names and colours, if not those of the map."),
    ] = None,
    boundary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Parcel boundaries, 0 to 250; default: MAP.boundary.tif where it is.",
        ),
    ] = None,
    no_boundary: Annotated[
        bool, typer.Option("--no-boundary", help="One parcel a connected region of a class.")
    ] = False,
    parcels_in: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw no parcels: say of each of these which class the map gives it.",
        ),
    ] = None,
    parcels_crs: Annotated[
        str | None, typer.Option(metavar="EPSG:N", help="CRS of --parcels-in.")
    ] = None,
    parcels_layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Layer of --parcels-in, if it has several.")
    ] = None,
    declared: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Declared crop in --parcels-in, to be compared."),
    ] = None,
    crosswalk: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Declared value and class of the map, line by line."),
    ] = None,
    suspects: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="List of parcels that disagree, the surest first."),
    ] = None,
    fields: Annotated[
        FieldSet | None,
        typer.Option(
            help="Columns: full, fiboa (default for .parquet), or oso (Classe, Validmean, Aire …)."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Turn a class map into parcels: one polygon a field, without gaps or overlaps.

    With --parcels-in: keep parcels that exist, and add what the map says of them.
    """
    given = dict(locals())
    set_up_logging(verbose, quiet)
    _refuse_idle(given)
    if parcels_in is not None:
        from omnisat_cli.cli.existing import show_existing
        from omnisat_cli.outputs.parcels.existing import ExistingOptions, judge_parcels

        judge = ExistingOptions(
            legend, overwrite, parcels_crs, parcels_layer, declared, crosswalk, suspects
        )
        show_existing(judge_parcels(path, parcels_in, out, judge), as_json=as_json)
        return
    if boundary is not None and no_boundary:
        raise JobError(f"--boundary {boundary} and --no-boundary contradict each other; use one")
    from omnisat_cli.outputs.parcels.columns import Fields
    from omnisat_cli.outputs.parcels.source import Boundaries
    from omnisat_cli.outputs.parcels.vectorize import ParcelOptions
    from omnisat_cli.outputs.parcels.vectorize import vectorize as run

    options = ParcelOptions(
        simplify_m=simplify,
        min_area_m2=square_metres(min_area),
        legend=legend,
        overwrite=overwrite,
        boundaries=Boundaries(not no_boundary, boundary),
        fields=None if fields is None else Fields(fields.value),
        smooth=smooth,
    )
    report = run(path, out, options)
    if as_json:
        from omnisat_cli.cli.parcels import plain_parcels

        say_json(plain_parcels(report))
        return
    say(f"{report.out}  {count(report.parcels, 'parcel')}")
    for name, parcels, area in sorted(report.by_class, key=lambda row: -row[2]):
        say(f"  {name}  {count(parcels, 'parcel')}, {hectares(area)}")
    if not report.named:
        note("note: nothing names the classes of the map; --legend does")


def _refuse_idle(given: "Mapping[str, object]") -> None:
    """Refuse options that would do nothing.

    Raises:
        JobError: If an option is about drawing, and nothing is drawn, or the other way round.
    """
    existing = given["parcels_in"] is not None
    for name in _DRAWING if existing else _EXISTING:
        if given[name] not in {None, False, "0"}:
            flag = f"--{name.replace('_', '-')}"
            hint = "keeps parcels as they are" if existing else "is missing"
            raise JobError(f"{flag} {given[name]}: does nothing, --parcels-in {hint}")


def square_metres(text: str) -> float:
    """Turn "1000", "1000m2" or "0.1ha" into square metres.

    Raises:
        JobError: If it is no area.
    """
    found = _AREA.fullmatch(text)
    if found is None:
        raise JobError(
            f"--min-area {text}: write square metres as 1000 or 1000m2, or hectares: 0.1ha"
        )
    return float(found[1]) * (_SQUARE_METRES if found[2] == "ha" else 1)
