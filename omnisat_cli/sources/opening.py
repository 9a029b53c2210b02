"""From what a job says of an input to a source: which reader reads what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

from omnisat_cli.errors import AlignmentError, JobError
from omnisat_cli.geo.crs import is_metric, name_crs
from omnisat_cli.modality import MODALITIES, flag, modality
from omnisat_cli.sources.cube_dates import Duplicates
from omnisat_cli.sources.cube_grid import PixelReference
from omnisat_cli.sources.cube_options import CubeOptions
from omnisat_cli.sources.images import ImageOptions, describe_image, open_image
from omnisat_cli.sources.scaling import RadarUnits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnisat_cli.geo.lattice import Bounds, Lattice
    from omnisat_cli.job import Input
    from omnisat_cli.sources.image_options import Resampling
    from omnisat_cli.sources.values import Source


@dataclass(frozen=True, slots=True)
class Place:
    """Where an input lies, before any lattice exists.

    Attributes:
        crs: "EPSG:n" or WKT; "" where the files state none.
        bounds: left, bottom, right, top in that CRS.
    """

    crs: str
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a network asks of a source.

    Attributes:
        modality: Name in the table of sensors.
        bands: Canonical bands; None for all the files have.
        gsd: Pixel size in metres; None for the images' own, or the sensor's of a series.
    """

    modality: str
    bands: tuple[str, ...] | None
    gsd: float | None


class Rules(Protocol):
    """What a job says of all its inputs."""

    @property
    def dates(self) -> tuple[str, str] | None:
        """First and last date (ISO) of the series that are used; None = all."""

    @property
    def on_error(self) -> Literal["fail", "hole"]:
        """What becomes of ground that cannot be read."""


def match_inputs(
    inputs: Sequence[Input], names: Sequence[str]
) -> tuple[dict[str, Input], tuple[str, ...]]:
    """Pair inputs with the modalities that are wanted, in the order of these.

    Returns:
        Modality to its input, and the modalities of the inputs that nothing was paired with.
    """
    given = {entry.modality: entry for entry in inputs}
    unused = dict(given)
    pairs: dict[str, Input] = {}
    for name in names:
        # A file that states its orbits feeds both of them.
        found = name if name in given else modality(name).fed_by
        if found in given:
            pairs[name] = given[found]
            unused.pop(found, None)
    return pairs, tuple(unused)


def choose_crs(inputs: Sequence[Input], asked: str | None) -> str:
    """Take the CRS asked for, else that of the finest input.

    Raises:
        AlignmentError: If there is none, or it is not in metres.
    """
    text = asked
    if text is None:
        finest = min(inputs, key=lambda entry: MODALITIES[entry.modality].gsd)
        text = describe_input(finest).crs
        if not text:
            raise AlignmentError(
                f"{', '.join(finest.paths)} states no CRS; state it with --cube-crs EPSG:n"
            )
    crs, _ = name_crs(text)
    if not is_metric(crs):
        raise AlignmentError(
            f"the map would be in {crs[:60]}, which is not in metres; choose a projected CRS, "
            "e.g. --crs EPSG:2154"
        )
    return crs


def describe_input(entry: Input) -> Place:
    """Say where an input lies.

    Raises:
        SourceError: If it cannot be read, or its CRS is unknown.
    """
    if MODALITIES[entry.modality].kind == "image":
        facts = describe_image(entry.modality, list(entry.paths), _image_options(entry, None))
        return Place(facts.crs, facts.bounds)
    from omnisat_cli.sources.cubes import describe_cube  # imports xarray and pandas: 0.8 CPU s

    cube = describe_cube(_only_path(entry), _cube_options(entry, None, None))
    return Place(cube.crs, cube.bounds)


def open_input(entry: Input, lattice: Lattice, wanted: Wanted, job: Rules) -> Source:
    """Open an input on a lattice.

    Args:
        entry: Files and what the user says of them.
        lattice: The anchor lattice.
        wanted: What the network asks for; its modality may be one orbit of the input's.
        job: For the dates and for what a read error means.

    Raises:
        SourceError: If the files are damaged, ambiguous or contradict themselves.
        AlignmentError: If nothing says where they lie.
        SecurityError: If they ask for what data files may not ask for.
        JobError: If an option does not fit.
    """
    if MODALITIES[entry.modality].kind == "image":
        return open_image(
            wanted.modality, list(entry.paths), lattice, _image_options(entry, wanted)
        )
    options = _cube_options(entry, wanted, job)
    from omnisat_cli.sources.cubes import open_cube

    return open_cube(wanted.modality, _only_path(entry), lattice, options)


def _only_path(entry: Input) -> str:
    if len(entry.paths) > 1:
        raise JobError(
            f"--{entry.modality} takes one cube, got {len(entry.paths)}: {', '.join(entry.paths)}; "
            "join them along time first"
        )
    return entry.paths[0]


def _image_options(entry: Input, wanted: Wanted | None) -> ImageOptions:
    nodata = entry.option("nodata")
    return ImageOptions(
        bands=_listed(entry.option("bands")),
        wanted=None if wanted is None else wanted.bands,
        nodata="none" if nodata == "none" else _number(entry, "nodata"),
        gsd=None if wanted is None else wanted.gsd,
        resampling=cast(
            "Resampling",
            _choice(entry, "resampling", ("auto", "average", "bilinear", "nearest")),
        ),
        scale=_number(entry, "scale"),
        crs=entry.option("crs"),
        irc=entry.values("irc"),
        irc_bands=_listed(entry.option("irc_bands")) or ("NIR", "R", "G"),
        allow_roots=entry.values("allow_root"),
    )


def _cube_options(entry: Input, wanted: Wanted | None, job: Rules | None) -> CubeOptions:
    dates_file = entry.option("dates_file")
    offset = entry.option("offset")
    return CubeOptions(
        crs=entry.option("crs") or "",
        pixels=cast("PixelReference", _choice(entry, "pixels", get_args(PixelReference))),
        group=entry.option("group") or "",
        bands=_listed(entry.option("bands")) or (),
        wanted=None if wanted is None else wanted.bands,
        dates_file=None if dates_file is None else Path(dates_file),
        date_range=None if job is None else job.dates,
        duplicate_dates=cast("Duplicates", _choice(entry, "duplicate_dates", get_args(Duplicates))),
        cloud_mask=entry.option("cloud_mask") or "auto",
        keep_snow=entry.option("keep_snow") == "yes",
        max_cloud=_number(entry, "max_cloud"),
        gsd=None if wanted is None else wanted.gsd,
        scale=_number(entry, "scale"),
        offset=None if offset in (None, "auto") else _number(entry, "offset"),
        units=cast("RadarUnits", _choice(entry, "units", get_args(RadarUnits))),
        orbit_stated=wanted is not None and entry.modality == wanted.modality,
        # "none" is the engine's business, not the reader's.
        substitutes={k: v for k, v in substitutes(entry).items() if v != "none"},
        on_error="fail" if job is None else job.on_error,
    )


def substitutes(entry: Input) -> dict[str, str]:
    """Return the bands stated to be missing, each with the band to copy, or "none".

    Raises:
        JobError: If they are not written as B8A=B08.
    """
    pairs = {}
    for text in _listed(entry.option("substitute")) or ():
        band, _, other = text.partition("=")
        if not band or not other:
            name = flag(entry.modality, "substitute")
            raise JobError(f"{name} {text}: write it as B8A=B08 or B8A=none")
        pairs[band] = other
    return pairs


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _choice(entry: Input, name: str, choices: tuple[str, ...]) -> str:
    """Return the value of an option that has few; the first is the default."""
    value = entry.option(name) or choices[0]
    if value not in choices:
        raise JobError(f"{flag(entry.modality, name)} {value}: one of {', '.join(choices)}")
    return value


def _number(entry: Input, name: str) -> float | None:
    text = entry.option(name)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise JobError(f"{flag(entry.modality, name)} {text}: not a number") from None
