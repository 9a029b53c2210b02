"""The parcels that `omnisat predict` makes with a map."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.cli.console import note, say
from omnisat_cli.cli.existing import plain_existing, remarks
from omnisat_cli.cli.text import count
from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from omnisat_cli.outputs.parcels.existing import ExistingReport
    from omnisat_cli.outputs.parcels.vectorize import ParcelReport


@dataclass(frozen=True, slots=True)
class ParcelWish:
    """Parcels that are wanted with a map.

    Attributes:
        out: Their file; None = none are wanted.
        existing: Parcels to be judged instead of drawn.
        overwrite: Replace an existing file.
    """

    out: Path | None
    existing: Path | None = None
    overwrite: bool = False

    def needs_boundary(self, model: str) -> bool:
        """Check before a map is made that its parcels can be written.

        Returns:
            Whether parcel boundaries are to be mapped too.

        Raises:
            OmnisatError: If the file cannot be written, or the existing parcels cannot be read.
        """
        if self.out is None:
            if self.existing is not None:
                raise JobError(f"--parcels-in {self.existing}: say with --parcels where they go")
            return False
        from omnisat_cli.outputs.parcels.writer import check_parcel_output
        from omnisat_cli.packs.registry import find_pack
        from omnisat_cli.sources.polygons import open_polygons

        check_parcel_output(self.out, overwrite=self.overwrite)
        if self.existing is not None:
            open_polygons(self.existing, option="--parcels")
            return False
        return find_pack(model).card.boundary

    def fulfil(self, path: Path, model: str) -> Parcels | None:
        """Make the parcels of a map that was just made, in the words of the legend of its model."""
        if self.out is None:
            return None
        from omnisat_cli.outputs.parcels.existing import ExistingOptions, judge_parcels
        from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize
        from omnisat_cli.packs.registry import LEGEND, find_pack

        legend = str(find_pack(model).folder / LEGEND)
        with self._or_say_how(path, legend):
            if self.existing is None:
                options = ParcelOptions(legend=legend, overwrite=self.overwrite)
                return Parcels(vectorize(path, self.out, options))
            judge = ExistingOptions(legend=legend, overwrite=self.overwrite)
            return Parcels(judge_parcels(path, self.existing, self.out, judge))

    @contextmanager
    def _or_say_how(self, path: Path, legend: str) -> Iterator[None]:
        """Say how to finish when the parcels fail, or are stopped: the map is there already."""
        words = ["omnisat", "vectorize", str(path), "-o", str(self.out), "--legend", legend]
        words += [] if self.existing is None else ["--parcels-in", str(self.existing)]
        words += ["--overwrite"] if self.overwrite else []
        finished = False
        try:
            yield
            finished = True
        finally:
            if not finished:
                note(f"the map {path} is complete, its parcels are not; to finish them:")
                note(f"  {shlex.join(words)}")


@dataclass(frozen=True, slots=True)
class Parcels:
    """Parcels that were made with a map."""

    report: ParcelReport | ExistingReport

    def show(self) -> None:
        """Print a line, and what a user should know."""
        from omnisat_cli.outputs.parcels.existing import ExistingReport

        say(f" {self.report.out}  {count(self.report.parcels, 'parcel')}")
        if isinstance(self.report, ExistingReport):
            for text in remarks(self.report):
                note(f"note: {text}")

    def plain(self) -> dict[str, object]:
        """Return the same for JSON."""
        from omnisat_cli.outputs.parcels.existing import ExistingReport

        if isinstance(self.report, ExistingReport):
            return plain_existing(self.report)
        return plain_parcels(self.report)


def plain_parcels(report: ParcelReport) -> dict[str, object]:
    """Return what is said of drawn parcels in JSON."""
    return {
        "out": str(report.out),
        "parcels": report.parcels,
        "simplify_m": report.simplify_m,
        "boundary": None if report.boundary is None else str(report.boundary),
        "classes": [
            {"name": name, "parcels": parcels, "hectares": area}
            for name, parcels, area in report.by_class
        ],
    }
