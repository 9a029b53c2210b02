"""`omnisat status`: maps that are finished, runs that are not, and what to do next."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisat_cli.cli.console import say, say_json
from omnisat_cli.cli.options import AsJson
from omnisat_cli.cli.text import count, hectares
from omnisat_cli.errors import SourceError

if TYPE_CHECKING:
    from omnisat_cli.cli.runs import FinishedMap, StagedRun


def status(
    path: Annotated[Path, typer.Argument(help="Folder with maps, or the path of one map.")],
    as_json: AsJson = False,
) -> None:
    """Show maps, stopped runs and what to do next."""
    from omnisat_cli.cli.runs import find_maps, find_runs, plain_map, plain_run

    if not path.exists() and not path.with_name(f"{path.name}.omnisat").exists():
        raise SourceError(f"{path}: nothing is there, and no run towards it was begun")
    maps, runs = find_maps(path), find_runs(path)
    if as_json:
        say_json({"maps": [plain_map(m) for m in maps], "runs": [plain_run(r) for r in runs]})
        return
    for found in maps:
        _show_map(found)
    for run in runs:
        _show_run(run)
    if not maps and not runs:
        say(f"{path}: no map of omnisat and no run")


def _show_map(found: "FinishedMap") -> None:
    if found.problem:
        say(f"{found.out}  {found.problem}")
        return
    holes = ", ".join(f"{reason} {hectares(ha)}" for reason, ha in found.holes.items())
    say(f"{found.out}  complete, {found.created}, {found.model}, {'+'.join(found.inputs)}")
    say(f"  {f'holes: {holes}' if holes else '0 holes'}")


def _show_run(run: "StagedRun") -> None:
    if run.problem:
        say(f"{run.out}  {run.problem}")
        return
    say(f"{run.out}  {run.state}: blocks {run.done}/{run.blocks}, begun {run.started}")
    if run.faults:
        say(f"  {count(run.faults, 'block')} with faults")
        for text in run.notes:
            say(f"    {text}")
    if run.holes:
        pixels = ", ".join(f"{reason} {count(n, 'pixel')}" for reason, n in run.holes.items())
        say(f"  holes so far: {pixels}")
    if run.next_command:
        say(f"  go on: {run.next_command}")
