"""What the commands say of parcels the user already has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnisat_cli.cli.console import note, say, say_json
from omnisat_cli.cli.text import count

if TYPE_CHECKING:
    from omnisat_cli.outputs.parcels.existing import ExistingReport

_SHOWN = 5


def show_existing(report: ExistingReport, *, as_json: bool) -> None:
    """Print what came of parcels that were judged by a map."""
    if as_json:
        say_json(plain_existing(report))
        return
    found = sum(report.classes.values())
    say(f"{report.out}  {count(report.parcels, 'parcel')}, {found:,} with a class")
    for name, parcels in report.classes.most_common():
        say(f"  {name}  {count(parcels, 'parcel')}")
    if report.declared is not None:
        yes, no, open_ = (report.agreement[answer] for answer in ("yes", "no", ""))
        part = f" ({yes / (yes + no):.1%})" if yes + no else ""
        say(f"agree with {report.declared.column}: {yes:,} of {yes + no:,}{part}, {open_:,} open")
    if report.suspects is not None:
        suspects = count(report.agreement["no"], "parcel")
        say(f"{report.suspects}  {suspects} that disagree, the surest first")
    for text in remarks(report):
        note(f"note: {text}")


def remarks(report: ExistingReport) -> list[str]:
    """Return what a user should know, a line each."""
    lines = []
    if report.moved is not None:
        source, target = report.moved
        lines.append(f"the parcels are in {source}, the map in {target}: measured on a moved copy")
    for number, text in (
        (report.repaired, "not valid: measured on a repaired copy, written as it was"),
        (report.outside, "without a class: off the map, or where it has a hole"),
        (report.absent, "without a polygon: written as it was"),
    ):
        if number:
            lines.append(f"{count(number, 'parcel')} {text}")
    if report.declared is not None:
        lines.append(f"{report.declared.column} is read as {report.declared.how}")
        unknown = report.declared.unknown
        if unknown:
            values = ", ".join(f"{value} ({n})" for value, n in unknown[:_SHOWN])
            more = ", …" if len(unknown) > _SHOWN else ""
            lines.append(f"values that mean no class of the map: {values}{more}; see --crosswalk")
    if report.renamed:
        pairs = [f"{ours} is {written}" for ours, written in report.renamed.items()]
        more = ", …" if len(pairs) > _SHOWN else ""
        names = ", ".join(pairs[:_SHOWN])
        lines.append(f"the parcels have columns of these names already; ours: {names}{more}")
    if not report.named:
        lines.append("nothing names the classes of the map; --legend does")
    return lines


def plain_existing(report: ExistingReport) -> dict[str, object]:
    """Return the same for JSON."""
    declared = report.declared
    return {
        "out": str(report.out),
        "parcels": report.parcels,
        "without_class": report.outside,
        "without_polygon": report.absent,
        "repaired": report.repaired,
        "classes": dict(report.classes.most_common()),
        "agreement": None
        if declared is None
        else {
            "column": declared.column,
            "read_as": declared.how,
            "yes": report.agreement["yes"],
            "no": report.agreement["no"],
            "open": report.agreement[""],
            "unknown_values": dict(declared.unknown),
        },
        "suspects": None if report.suspects is None else str(report.suspects),
        "renamed_columns": report.renamed,
        "notes": remarks(report),
    }
