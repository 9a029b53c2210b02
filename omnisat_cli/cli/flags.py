"""Flags in tables, and how a command takes all of a table."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import typer

from omnisat_cli.cli.options import mebibytes
from omnisat_cli.job import AreaRequest, Execution

Given = Mapping[str, object]
"""Parameter to what was given, of one table."""


class Declared(Protocol):
    """An entry of a table."""

    @property
    def parameter(self) -> str:
        """Name of the parameter."""

    def declared(self) -> inspect.Parameter:
        """Return the parameter as a command declares it."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag.

    Attributes:
        name: The flag; a switch is off by default.
        kind: Type of its value.
        help: What it says.
        metavar: What its value looks like; "" for the default of the type.
        default: Its value where it is not given.
        spelling: Another spelling of the flag, or "".
    """

    name: str
    kind: object
    help: str
    metavar: str = ""
    default: object = None
    spelling: str = ""

    @property
    def parameter(self) -> str:
        """Name of the parameter."""
        return self.name.partition("/")[0].removeprefix("--").replace("-", "_")

    def declared(self) -> inspect.Parameter:
        """Return the parameter as a command declares it."""
        names = [part for part in (self.name, self.spelling) if part]
        info: typer.models.OptionInfo = typer.Option(
            *names, help=self.help, metavar=self.metavar or None
        )
        return inspect.Parameter(
            self.parameter,
            inspect.Parameter.KEYWORD_ONLY,
            default=self.default,
            annotation=Annotated[self.kind, info],
        )


def with_flags(place: str, flags: Sequence[Declared]) -> Callable[..., Callable[..., None]]:
    """Give a command the flags of a table in the place of one of its parameters.

    The command declares `<place>: Given` and is called with what the user gave.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [
            part
            for parameter in own.parameters.values()
            for part in (
                [flag.declared() for flag in flags] if parameter.name == place else [parameter]
            )
        ]

        @functools.wraps(command)
        def run(**given: object) -> None:
            chosen = {flag.parameter: given.pop(flag.parameter) for flag in flags}
            command(**{place: chosen}, **given)

        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def flag(help: str, *names: str, metavar: str | None = None) -> typer.models.OptionInfo:
    """Describe a flag that one command alone has."""
    info: typer.models.OptionInfo = typer.Option(*names, help=help, metavar=metavar)
    return info


_Box = tuple[float, float, float, float]

AREA = (
    Flag("--aoi", str | None, "Area: GeoJSON, GeoPackage, Shapefile.", "PATH"),
    Flag("--aoi-crs", str | None, "CRS of --aoi.", "EPSG:N"),
    Flag("--bbox", _Box | None, "Area as a box.", "LEFT BOTTOM RIGHT TOP"),
    Flag("--bbox-crs", str | None, "CRS of --bbox, if not that of the output.", "EPSG:N"),
    Flag(
        "--crs", str | None, "CRS of the output; default: that of the finest input.", "EPSG:N"
    ),
)  # fmt: skip
"""Where, of commands that run a model over an area."""

COMPUTE = (
    Flag("--device", str, "auto, cpu, cuda or cuda:N.", "DEVICE", "auto"),
    Flag("--batch-size", int | None, "Windows a batch; default: chosen.", "N"),
    Flag("--memory", str, "Bound on memory: MiB, or 2GB.", "SIZE", "2048"),
    Flag("--threads", int | None, "CPU threads; default: all cores.", "N"),
    Flag("--block", float | None, "Side of a block in metres.", "METRES"),
)
"""How, of commands that run a model over an area."""


def area_of(given: Given) -> tuple[AreaRequest, str | None]:
    """Return the area that the flags of `AREA` ask for, and the CRS of the map.

    Raises:
        JobError: If they name two areas.
    """
    crs = given["crs"]
    area = {name: value for name, value in given.items() if name != "crs"}
    return AreaRequest(**area), None if crs is None else str(crs)  # type: ignore[arg-type]


def execution_of(given: Given, prefetch: int = 1, workers: int = 1) -> Execution:
    """Return what the flags of `COMPUTE` ask for.

    Raises:
        JobError: If a value is out of range.
    """
    return Execution(
        device=str(given["device"]),
        batch=given["batch_size"],  # type: ignore[arg-type]
        block_m=given["block"],  # type: ignore[arg-type]
        memory_mb=mebibytes(str(given["memory"])),
        threads=given["threads"],  # type: ignore[arg-type]
        prefetch=prefetch,
        workers=workers,
    )
