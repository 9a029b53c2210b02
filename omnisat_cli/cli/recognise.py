"""Tell what a path holds and describe it in a few lines, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.cli.imagery import IMAGES
from omnisat_cli.cli.text import count
from omnisat_cli.errors import OmnisatError
from omnisat_cli.geo.crs import is_metric, metric_crs, short_crs
from omnisat_cli.geo.lattice import Lattice
from omnisat_cli.modality import MODALITIES
from omnisat_cli.sources.cube_store import recognise_store
from omnisat_cli.sources.cube_zarr import is_zarr
from omnisat_cli.sources.cubes import describe_cube, open_cube
from omnisat_cli.sources.facts import FileFacts, survey_file
from omnisat_cli.sources.images import describe_image
from omnisat_cli.sources.safe import local_path, raster_driver, read_head
from omnisat_cli.sources.sheets import Rules, find_files, survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from omnisat_cli.sources.cubes import CubeFacts
    from omnisat_cli.sources.values import Decision

_CUBE_HEADS = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")
_FORMATS = {"GTiff": "GeoTIFF", "JP2OpenJPEG": "JPEG 2000"}
_SAID_ELSEWHERE = ("crs",)
"""Topics of the heading; shown again only where there is something to look at."""

_OF_THE_MAP = ("resampling", "pixel size", "grid", "warp")
"""Topics that depend on the map's grid, which inspect does not know."""

_WORDS = {"scale": "values", "units": "values", "mask": "clouds"}
"""Topics of the readers, in the words of this report."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to know of a file.

    Attributes:
        topic: "bands", "values", "clouds", "problem", …
        text: What was found.
        because: The evidence, or "".
        option: The flag that overrules it, shown where the user should look; or "".
    """

    topic: str
    text: str
    because: str = ""
    option: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What one path holds.

    Attributes:
        path: As given.
        kind: Format.
        crs: "EPSG:n", a name, or "".
        size: Columns × rows.
        pixel: Side of a pixel with its unit.
        content: Bands and dates in a few words.
        usable_as: Options of `predict` that accept it.
        remarks: Everything else.
    """

    path: str
    kind: str
    crs: str
    size: str
    pixel: str
    content: str
    usable_as: tuple[str, ...]
    remarks: tuple[Remark, ...]


def recognise(path: str) -> Found:
    """Say what a path holds.

    Raises:
        SourceError: If it cannot be read, or is nothing omnisat knows.
        SecurityError: If it asks for what data files may not ask for.
    """
    place = local_path(path)
    is_cube = is_zarr(place) if place.is_dir() else read_head(place, 8).startswith(_CUBE_HEADS)
    return _cube(path, place) if is_cube else _image(path, place)


def _image(path: str, place: Path) -> Found:
    """Describe an image, a folder of tiles, a list or a mosaic."""
    files = find_files(path)
    single = len(files) == 1 and files[0] == place and place.suffix.lower() != ".vrt"
    facts = survey_file(place) if single else None
    if facts is not None and not facts.crs:
        return _nowhere(path, facts)
    found = survey(path, Rules("aerial"))
    sheet = found.sheets[0]
    remarks = []
    usable: tuple[str, ...] = ()
    bands = f"{count(len(found.colours), 'band')} {found.dtype}"
    if found.nodata is not None:
        bands += f", nodata {found.nodata:g}"
    if found.colours == ("palette",):
        remarks.append(Remark("note", "numbers with a colour table: a map, not imagery"))
    else:
        usable, said, bands = _as_aerial(path, place, bands)
        remarks += said
    sheets = len(found.sheets)
    rows, cols = sheet.shape
    across = sorted((abs(sheet.transform[0]), abs(sheet.transform[4])))
    return Found(
        path=path,
        kind=_image_kind(place, len(files), single),
        crs=short_crs(found.crs),
        size=f"{cols}×{rows}" if sheets == 1 else f"{sheets} × {cols}×{rows}",
        pixel=_pixel(across[-1], found.crs),
        content=bands,
        usable_as=usable,
        remarks=tuple(remarks),
    )


def _as_aerial(path: str, place: Path, bands: str) -> tuple[tuple[str, ...], list[Remark], str]:
    """Describe an image as aerial imagery, or say why it is none.

    Returns:
        Options that accept it, remarks, and its bands in a few words.
    """
    try:
        about = describe_image("aerial", path)
    except OmnisatError as error:
        return (), [Remark("note", "not aerial imagery", _without_path(str(error), place))], bands
    # Aerial images are taken with the bands they have.
    usable = tuple(
        f"--{name}"
        for name in IMAGES
        if name == "aerial" or set(MODALITIES[name].bands) <= set(about.bands)
    )
    return usable, _remarks(about.decisions), f"bands {','.join(about.bands)}"


def _nowhere(path: str, facts: FileFacts) -> Found:
    """Describe an image that does not say where it lies."""
    rows, cols = facts.shape
    problem = Remark(
        "problem", "it has no CRS: nothing says where it lies", option="--aerial-crs EPSG:n"
    )
    return Found(
        path=path,
        kind=_FORMATS[raster_driver(Path(facts.path))],
        crs="",
        size=f"{cols}×{rows}",
        pixel=f"{abs(facts.transform[0]):g}",
        content=f"{count(facts.count, 'band')} {', '.join(dict.fromkeys(facts.dtypes))}",
        usable_as=(),
        remarks=(problem,),
    )


def _image_kind(place: Path, files: int, single: bool) -> str:
    if single:
        return _FORMATS[raster_driver(place)]
    if place.suffix.lower() == ".vrt":
        return "VRT"
    return f"{count(files, 'tile')}"


def _cube(path: str, place: Path) -> Found:
    """Describe a time series."""
    about = describe_cube(place)
    remarks = [Remark("problem", text) for text in about.problems]
    if about.crs:
        remarks += _remarks(about.decisions)
    by_sensor: dict[str, list[Remark]] = {}
    usable = []
    for sensor in about.sensors:
        by_sensor[sensor], accepted = _sensor(sensor, place, about)
        usable += [f"--{sensor}"] * accepted
    remarks += _merged(by_sensor)
    if about.other_layers:
        remarks.append(Remark("not used", ", ".join(about.other_layers)))
    steps, rows, cols = about.shape
    parts = [f"{sensor} {','.join(bands)}" for sensor, bands in about.sensors.items()]
    dates = count(steps, "date")
    if len(about.days):
        dates += f" {about.days.min()} … {about.days.max()}"
    return Found(
        path=path,
        kind=recognise_store(place),
        crs=short_crs(about.crs) if about.crs else "",
        size=f"{cols}×{rows}",
        pixel=_pixel(max(map(abs, about.gsd)), about.crs),
        content="; ".join([*parts, dates]),
        usable_as=tuple(usable),
        remarks=tuple(remarks),
    )


def _sensor(sensor: str, place: Path, about: CubeFacts) -> tuple[list[Remark], bool]:
    """Open one sensor of a cube, so that values and clouds are measured as `predict` does."""
    if not about.crs:
        return [], False
    try:
        source = open_cube(sensor, place, Lattice(metric_crs(about.crs, about.bounds), 10.0))
    except OmnisatError as error:
        text = _without_path(str(error), place)
        return [Remark("problem", f"refused: {text}")], False
    return [r for r in _remarks(source.decisions) if not r.text.startswith("not used: ")], True


def _merged(by_sensor: Mapping[str, list[Remark]]) -> list[Remark]:
    """Say once what holds for every sensor of a cube, and for the rest name the sensor."""
    common = set.intersection(*(set(said) for said in by_sensor.values())) if by_sensor else set()
    merged = []
    for sensor, said in by_sensor.items():
        for remark in said:
            several = len(by_sensor) > 1 and remark not in common
            merged.append(replace(remark, text=f"{sensor}: {remark.text}") if several else remark)
    return list(dict.fromkeys(merged))


def _remarks(decisions: Iterable[Decision]) -> list[Remark]:
    return [
        Remark(
            _WORDS.get(entry.topic, entry.topic),
            entry.value,
            entry.because,
            entry.option if entry.warning else "",
        )
        for entry in decisions
        if entry.topic not in _OF_THE_MAP and (entry.topic not in _SAID_ELSEWHERE or entry.warning)
    ]


def _pixel(side: float, crs: str) -> str:
    if crs and not is_metric(crs):
        return f"{side:.6g} units" if side >= 0.01 else f"{side:.3g}°"
    return f"{side:.2f} m" if side < 1 else f"{side:g} m"


def _without_path(text: str, place: Path) -> str:
    return text.removeprefix(f"{place}: ")
