"""`omnisat legend`: which code means what, in which colour, and the styles for GIS software."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisat_cli.cli.console import columns, say, say_json
from omnisat_cli.cli.guard import guarded
from omnisat_cli.cli.options import AsJson
from omnisat_cli.errors import CheckpointError, JobError

if TYPE_CHECKING:
    from omnisat_cli.outputs.legend import Legend

legend_app = typer.Typer(
    help="Class schemes: codes, names, colours, and styles for GIS.", no_args_is_help=True
)

Which = Annotated[
    str,
    typer.Argument(
        metavar="ID|MAP|MODEL",
        help="Id of a legend, a class map, a model, or a legend file (.json).",
    ),
]


class Language(StrEnum):
    """Language of class names."""

    EN = "en"
    FR = "fr"


@guarded
def list_legends(as_json: AsJson = False) -> None:
    """List the legends that come with omnisat, and those of the bundled models."""
    from omnisat_cli.outputs.legend import legend, shipped_legends
    from omnisat_cli.packs.registry import list_packs

    found = [("shipped", legend(name)) for name in shipped_legends()]
    found += [(f"model {pack.card.name}", pack.legend) for pack in list_packs()]
    if as_json:
        rows = [
            {"id": entry.id, "version": entry.version, "from": origin, "source": entry.source}
            for origin, entry in found
        ]
        say_json(rows)
        return
    table = [("legend", "classes", "from", "source")]
    table += [
        (entry.label, str(len(entry.classes)), origin, entry.source) for origin, entry in found
    ]
    say("\n".join(columns(table)))


@guarded
def show(which: Which, as_json: AsJson = False) -> None:
    """Show the classes of a legend, of a map or of a model."""
    found = find_legend(which)
    if as_json:
        say_json(found.to_json())
        return
    say(f"{found.label}: {found.source}")
    rows = [("code", "colour", "name", "nom", "RPG group")]
    rows += [
        (str(code), entry.color, entry.name_en, entry.name_fr, entry.rpg_group or "")
        for code, entry in found.by_code().items()
    ]
    say("\n".join(columns(rows, "  ")))
    if found.note:
        say(found.note)


@guarded
def export(
    which: Which,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", "--output", metavar="FILE", help=".qml, .sld, .clr, .csv or .json."
        ),
    ],
    language: Annotated[Language, typer.Option(help="Language of the names.")] = Language.EN,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Style polygons by this column of codes instead of a raster."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Write a legend as a style: QGIS, OGC servers, ESRI; or as a table."""
    from omnisat_cli.outputs.legend_export import export_legend, write_legend

    found = find_legend(which)
    content = export_legend(found, out, language.value, column=column)
    write_legend(content, out, overwrite=overwrite)
    say(f"{out}  {found.label}, {len(found.classes)} classes")


def find_legend(which: str) -> "Legend":
    """Find a legend by its id, in a map, in a model or in a file.

    Raises:
        JobError: If nothing of this name has a legend.
    """
    from omnisat_cli.outputs.legend import legend, load_legend, shipped_legends
    from omnisat_cli.packs.registry import CARD, find_pack

    name, _, version = which.partition("@")
    if name in shipped_legends() and version in {"", legend(name).version}:
        return legend(name)
    path = Path(which)
    if path.is_file() and path.suffix.lower() == ".json":
        return load_legend(path)
    if path.is_file():
        return _of_map(path)
    try:
        return find_pack(which).legend
    except CheckpointError as error:
        if (path / CARD).is_file():
            raise
        raise JobError(
            f"{which}: neither a map nor a legend file nor a model, and no such legend among "
            f"{', '.join(shipped_legends())}; see `omnisat legend list`, `omnisat model list`"
        ) from error


def _of_map(path: Path) -> "Legend":
    from omnisat_cli.outputs.legend import NODATA
    from omnisat_cli.outputs.legend_export import legend_of
    from omnisat_cli.outputs.parcels.names import find_names, read_origin
    from omnisat_cli.outputs.products import display_name
    from omnisat_cli.sources.safe import open_raster

    with open_raster(path) as dataset:
        classes = find_names(dataset, path, read_origin(path), None)
    named = [] if classes is None else [c for c in classes.values() if c.code < NODATA]
    if not named:
        raise JobError(
            f"{path}: nothing names its classes: no attribute table or category names in "
            f"{path.name}.aux.xml, no provenance; export the legend it was made with by its id"
        )
    return legend_of(named, display_name(path), f"the map {path.name}")


legend_app.command("list")(list_legends)
legend_app.command("show")(show)
legend_app.command("export")(export)
