"""What `omnisat predict` says when it is done."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from omnisat_cli.cli.console import note, say, say_json
from omnisat_cli.cli.plan import decisions_of, mapped_km2
from omnisat_cli.cli.text import contents, count, duration, rate, square_km
from omnisat_cli.errors import Exit
from omnisat_cli.outputs.products import PRODUCTS
from omnisat_cli.outputs.provenance import provenance_path

if TYPE_CHECKING:
    from omnisat_cli.cli.parcels import Parcels
    from omnisat_cli.outputs.export import ExportReport
    from omnisat_cli.packs.card import Card
    from omnisat_cli.runners.predict import Report


def show_result(report: Report, parcels: Parcels | None = None, *, as_json: bool = False) -> int:
    """Print what came of a job.

    Args:
        report: The map.
        parcels: Its parcels, if they were asked for and made.
        as_json: As one object.

    Returns:
        The exit code.
    """
    code = _code(report)
    if as_json:
        made = {} if parcels is None else {"parcels": parcels.plain()}
        say_json(_plain(report, code) | made)
    elif report.export is not None:
        for line in _transcript(report, report.export):
            say(line)
        if parcels is not None:
            parcels.show()
    warnings = [
        f"note: {name} {entry.topic}: {entry.value} ({entry.because})"
        for name, decisions in decisions_of(report.setup).items()
        for entry in decisions
        if entry.warning
    ]
    for text in dict.fromkeys(warnings):
        note(text)
    if report.export is None:
        total = len(report.setup.plan.blocks)
        note(
            f"interrupted: {count(report.computed, 'block')} of {total} computed and kept; "
            f"the same command goes on from there  [exit {int(code)}]"
        )
    return int(code)


def summary(report: Report) -> str:
    """Return one line: blocks, ground, pace, time."""
    setup = report.setup
    total = len(setup.plan.blocks)
    share = report.computed / max(1, total)
    return (
        f"blocks {total}/{total}  {square_km(mapped_km2(setup))}  "
        f"{rate(share * setup.km2, report.seconds)}  done in {duration(report.seconds)}"
    )


def _transcript(report: Report, export: ExportReport) -> list[str]:
    out = export.out
    names = {entry.name for entry in export.files}
    classes = len(report.setup.pack.legend.classes)
    others = [p.path(out) for p in PRODUCTS if p.name != "map" and p.path(out).name in names]
    rest = [out.with_name(name) for name in sorted(names) if name.endswith((".png", ".json"))]
    largest, holes = contents(export)
    card = report.setup.pack.card
    return [
        summary(report),
        f" {out}  {count(classes, 'class')}, named and coloured: open it in QGIS",
        f" {', '.join(str(path) for path in [*others, *rest])}",
        *_several(card, "probabilities" in report.setup.recipe.extra),
        f" {largest}.   {holes}.",
        *_faults(export),
    ]


def _several(card: Card, told: bool) -> list[str]:
    """Say how to read a map of ground that may hold several classes."""
    if not card.whole_places:
        return []
    where = "in the bands of .probabilities.tif" if told else "with --probabilities"
    return [
        f" {card.labels}; the map shows the most probable class of the places around each "
        f"{card.patch_m:g} m pixel, all of them are told {where}"
    ]


def _faults(export: ExportReport) -> list[str]:
    """Say where to read what could not be read."""
    if not export.faulty_blocks:
        return []
    blocks = count(export.faulty_blocks, "block")
    place = provenance_path(export.out)
    return [f" {blocks} without a part of their imagery, which could not be read: see {place}"]


def _code(report: Report) -> Exit:
    if report.export is None:
        return Exit.INTERRUPTED
    holes = any(report.export.holes.values()) or report.export.faulty_blocks
    empty = not any(row.pixels for row in report.export.areas)
    return Exit.HOLES if holes or empty else Exit.COMPLETE


def _plain(report: Report, code: Exit) -> dict[str, object]:
    setup, export = report.setup, report.export
    plain: dict[str, object] = {
        "exit": int(code),
        "out": str(setup.job.out),
        "complete": code == Exit.COMPLETE,
        "blocks": len(setup.plan.blocks),
        "computed": report.computed,
        "km2": round(mapped_km2(setup), 6),
        "seconds": round(report.seconds, 3),
        "batch": report.windows,
        "modalities": list(setup.sources),
    }
    if export is not None:
        plain |= {
            "files": [asdict(entry) for entry in export.files],
            "areas": [asdict(row) for row in export.areas],
            "holes": export.holes,
            "pixels": export.pixels,
            "faulty_blocks": export.faulty_blocks,
        }
    plain["decisions"] = {
        name: [asdict(entry) for entry in made] for name, made in decisions_of(setup).items()
    }
    return plain
