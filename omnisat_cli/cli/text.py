"""Numbers in words a person reads at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnisat_cli.outputs.export import ExportReport

_LARGEST = 3


def square_km(km2: float) -> str:
    """Return an area in km²."""
    return f"{km2:.3g} km²" if km2 < 0.1 else f"{km2:,.2f} km²" if km2 < 1000 else f"{km2:,.0f} km²"


def hectares(ha: float) -> str:
    """Return an area in hectares."""
    return f"{ha:,.1f} ha" if ha >= 1 or ha == 0 else f"{ha:.2g} ha"


def rate(km2: float, seconds: float) -> str:
    """Return a pace in km² a minute."""
    return f"{60 * km2 / max(seconds, 1e-3):.3g} km²/min"


def duration(seconds: float) -> str:
    """Return a time span."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """Return a number with its noun in the right form."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def contents(export: ExportReport) -> tuple[str, str]:
    """Return which classes cover most ground, and what is missing."""
    there = sorted((row for row in export.areas if row.pixels), key=lambda row: -row.pixels)
    largest = ", ".join(f"{row.name_en} {hectares(row.hectares)}" for row in there[:_LARGEST])
    pixels = sum(export.holes.values())
    if not pixels and not there:
        return "nothing is mapped", "no input holds real data here: look at it with omnisat inspect"
    if not pixels:
        return f"largest: {largest}", "0 holes"
    reasons = ", ".join(
        f"{reason} {hectares(number * export.hectares_per_pixel)}"
        for reason, number in export.holes.items()
    )
    share = 100 * pixels / max(1, export.pixels)
    return f"largest: {largest or 'nothing'}", f"holes on {share:.2g} % of the area: {reasons}"
