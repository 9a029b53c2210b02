"""`omnisat verify`: whether maps are still what was written."""

from pathlib import Path
from typing import Annotated

import typer

from omnisat_cli.cli.console import say, say_json
from omnisat_cli.cli.options import AsJson
from omnisat_cli.cli.text import count
from omnisat_cli.errors import Exit, SourceError


def verify(
    path: Annotated[Path, typer.Argument(help="Path of a map, or folder with maps.")],
    as_json: AsJson = False,
) -> None:
    """Compare every file of a map with the digests of its provenance.

    Ends with 0 when all files are what was written, 3 when one is missing or changed. Statistics
    that GIS software adds to a sidecar are said, and are no damage.
    """
    from omnisat_cli.cli.runs import find_maps
    from omnisat_cli.outputs.provenance import verify as compare

    maps = [found.out for found in find_maps(path)] if path.is_dir() else [path]
    if not maps:
        raise SourceError(f"{path}: no map of omnisat with its provenance beside it")
    found = {out: compare(out) for out in maps}
    intact = all(verification.intact for verification in found.values())
    if as_json:
        say_json(
            {
                "intact": intact,
                "maps": [
                    {
                        "path": str(out),
                        "intact": verification.intact,
                        "checked": list(verification.checked),
                        "differences": [
                            {"name": entry.name, "kind": entry.kind, "detail": entry.detail}
                            for entry in verification.differences
                        ],
                    }
                    for out, verification in found.items()
                ],
            }
        )
    else:
        for out, verification in found.items():
            word = "intact" if verification.intact else "NOT what was written"
            say(f"{out}  {word}, {count(len(verification.checked), 'file')} compared")
            for entry in verification.differences:
                say(f"  {entry.kind}: {entry.name} ({entry.detail})")
    raise typer.Exit(Exit.COMPLETE if intact else Exit.REFUSED)
