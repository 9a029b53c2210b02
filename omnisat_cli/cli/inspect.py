"""`omnisat inspect`: what a file is, what was recognised in it, and why."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from omnisat_cli.cli.console import columns, complain, say, say_json, set_up_logging
from omnisat_cli.cli.options import AsJson, Verbose
from omnisat_cli.errors import Exit, OmnisatError

if TYPE_CHECKING:
    from omnisat_cli.cli.recognise import Found


def inspect(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Images, folders, VRTs, cubes.")
    ],
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Say what files are, and what was recognised.

    Format, CRS, pixel size, bands, dates, values and clouds, with the evidence for each. Every
    path is read on its own; one that cannot be read is reported after the others (exit 3).
    """
    from omnisat_cli.cli.recognise import recognise

    set_up_logging(verbose, quiet=False)
    found: list[Found] = []
    failed: list[tuple[str, OmnisatError]] = []
    for path in paths:
        try:
            found.append(recognise(path))
        except OmnisatError as error:
            failed.append((path, error))
    if as_json:
        faults = [{"path": path, "error": str(error)} for path, error in failed]
        say_json({"files": [asdict(entry) for entry in found], "errors": faults})
    elif found:
        headings = columns(
            [(f.path, f.kind, f.crs or "no CRS", f.size, f.pixel, f.content) for f in found]
        )
        for heading, entry in zip(headings, found, strict=True):
            _show(heading, entry)
    for _, fault in failed:
        complain(str(fault), fault.exit_code)
    if failed:
        raise typer.Exit(int(max(fault.exit_code for _, fault in failed) or Exit.REFUSED))


def _show(heading: str, entry: "Found") -> None:
    say(heading)
    lines = [("give it as", " or ".join(entry.usable_as))] if entry.usable_as else []
    for remark in entry.remarks:
        lines.append((remark.topic, remark.text))
        lines += [("", f"because {remark.because}")] if remark.because else []
        lines += [("", f"change it with {remark.option}")] if remark.option else []
    for topic, text in lines:
        say(f"  {topic:<10} {text}")
