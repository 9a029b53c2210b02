"""Time-series cubes: describe one, or open it as a source bound to a lattice.

Recognise, state, allow override: every decision is one the user can see and overrule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.crs import metres, short_crs
from omnisat_cli.modality import MODALITIES, canonical_band, flag, modality
from omnisat_cli.sources.clouds import find_mask
from omnisat_cli.sources.cube_dates import choose_dates, find_orbits, find_times, keep_orbit
from omnisat_cli.sources.cube_grid import find_grid, stated_crs
from omnisat_cli.sources.cube_layout import find_dims, list_layers, match_bands
from omnisat_cli.sources.cube_measure import measure, measured_bands
from omnisat_cli.sources.cube_options import CubeOptions
from omnisat_cli.sources.cube_source import MASK_KEY, CubeRecipe, CubeSource
from omnisat_cli.sources.cube_store import CubeStore
from omnisat_cli.sources.cube_zarr import count_chunks
from omnisat_cli.sources.encoding import Encoding, find_encoding
from omnisat_cli.sources.identity import identify
from omnisat_cli.sources.safe import local_path
from omnisat_cli.sources.scaling import Scaling
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Lattice
    from omnisat_cli.modality import Modality
    from omnisat_cli.sources.cube_dates import Calendar
    from omnisat_cli.sources.cube_grid import CubeGrid
    from omnisat_cli.sources.cube_layout import Dims, Layer
    from omnisat_cli.sources.cube_measure import FoundMask
    from omnisat_cli.sources.dates import Times

_LANDSAT_FROM, _MODIS_FROM = 24.0, 200.0
"""Metres: Sentinel-2 has pixels of 10 and 20 m, ALOS-2 and Landsat of 25 and 30, MODIS of 250."""

__all__ = ["CubeFacts", "CubeOptions", "CubeSource", "describe_cube", "open_cube"]


@dataclass(frozen=True, slots=True)
class CubeFacts:
    """What a cube holds, before any lattice exists.

    Attributes:
        path: The file or folder.
        kind: "netCDF-4", "netCDF-3" or "Zarr".
        crs: "EPSG:n" or WKT; "" where the file has none.
        bounds: left, bottom, right, top of the pixel edges in `crs`.
        gsd: (width, height) of a pixel in CRS units.
        shape: (T, H, W).
        dims: Names of the time, band, y and x dimensions; "" where absent.
        days: (T,) datetime64[D] as stored, or empty where they cannot be read.
        sensors: Modality name to canonical bands inside.
        mask: Name of the mask layer, or "".
        other_layers: Layers that are no band of a sensor we know.
        decisions: What was recognised on the way.
        problems: What would be refused, in words.
    """

    path: Path
    kind: str
    crs: str
    bounds: Bounds
    gsd: tuple[float, float]
    shape: tuple[int, int, int]
    dims: Dims
    days: NDArray[np.datetime64]
    sensors: Mapping[str, tuple[str, ...]]
    mask: str
    other_layers: tuple[str, ...]
    decisions: tuple[Decision, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Survey:
    """What a container holds, before a sensor is chosen."""

    store: CubeStore
    dims: Dims
    layers: tuple[Layer, ...]
    options: CubeOptions

    @property
    def dataset(self) -> xr.Dataset:
        return self.store.dataset()

    @property
    def steps(self) -> int:
        return int(self.dataset.sizes.get(self.dims.time, 1))

    def grid(self, layer: Layer) -> tuple[CubeGrid, tuple[Decision, ...]]:
        """Find the pixel grid of a layer; the CRS stated by the user wins."""
        variable = self.dataset[layer.variable]
        where = (self.dims.y, self.dims.x)
        grid, decisions = find_grid(self.dataset, variable, where, self.options.pixels)
        if not self.options.crs:
            return grid, decisions
        crs = stated_crs(self.options.crs, "--cube-crs")
        found = f", the file says {short_crs(grid.crs)}" if grid.crs not in ("", crs) else ""
        stated = Decision("crs", short_crs(crs), f"as asked{found}", "--cube-crs", bool(found))
        return replace(grid, crs=crs), (stated, *(d for d in decisions if d.topic != "crs"))


def _survey(path: str | Path, options: CubeOptions) -> _Survey:
    store = CubeStore(local_path(path), options.group)
    dataset = store.dataset()
    if not dataset.variables and store.kind != "netCDF-3":
        raise SourceError(
            f"{path} holds no variable at its top; if the bands are in a group, name it with "
            "--cube-group (for example measurements/reflectance/r10m)"
        )
    try:
        dims = find_dims(dataset)
        return _Survey(store, dims, list_layers(dataset, dims), options)
    except SourceError as error:
        raise type(error)(f"{path}: {error}") from None


def describe_cube(path: str | Path, options: CubeOptions | None = None) -> CubeFacts:
    """Say what a cube holds, before a lattice exists.

    Args:
        path: netCDF file or Zarr folder.
        options: What the user states; only CRS, group, pixels, dates file and mask matter here.

    Raises:
        SourceError: If it is no cube, damaged, or its grid is irregular.
        SecurityError: If it reaches outside of itself.
    """
    survey = _survey(path, options or CubeOptions())
    # Static layers and coordinates may come first; a layer with dates is a band more likely.
    grid, decisions = survey.grid(max(survey.layers, key=lambda layer: layer.timed))
    names = [layer.name for layer in survey.layers]
    sensors = {}
    candidates = _candidates(grid)
    for name in candidates:
        sensor = MODALITIES[name]
        held = {canonical_band(sensor, layer) for layer in names}
        bands = tuple(band for band in sensor.bands if band in held)
        if bands:
            sensors[name] = bands
    problems = [] if grid.crs else ["no CRS: pass --cube-crs EPSG:n"]
    if not sensors:
        listed = ", ".join(name or "(no name)" for name in names)
        ways = " or ".join(flag(name, "bands") for name in candidates)
        problems.append(f"no band of a sensor we know among: {listed}; pass {ways}")
    days = np.array([], dtype="datetime64[D]")
    try:
        times = find_times(survey.dataset, survey.dims, survey.options.dates_file)
        days = times.days
    except SourceError as error:
        problems.append(str(error))
    mask = find_mask(names, survey.options.cloud_mask)
    known = {name for name in names if any(canonical_band(MODALITIES[s], name) for s in sensors)}
    others = tuple(n for n in names if n and n not in known and not (mask and n == mask[0]))
    return CubeFacts(
        path=Path(path), kind=survey.store.kind, crs=grid.crs, bounds=grid.bounds,
        gsd=(grid.dx, grid.dy), shape=(survey.steps, grid.height, grid.width), dims=survey.dims,
        days=days, sensors=sensors, mask=mask[0] if mask else "", other_layers=others,
        decisions=decisions, problems=tuple(problems),
    )  # fmt: skip


def _candidates(grid: CubeGrid) -> tuple[str, ...]:
    """Return the sensors that pixels of this size may come from: their bands share names."""
    if not grid.crs:
        return ("s2", "s1")
    middle = (grid.bounds[1] + grid.bounds[3]) / 2
    pixel = metres(grid.crs, grid.dx, grid.dy, middle)
    if pixel > _MODIS_FROM:
        return ("modis",)
    return ("l8", "l7", "s1", "alos") if pixel > _LANDSAT_FROM else ("s2", "s1", "alos")


def open_cube(
    name: str, path: str | Path, lattice: Lattice, options: CubeOptions | None = None
) -> CubeSource:
    """Open one sensor of a cube as a source of series on a lattice.

    Args:
        name: Modality, a series.
        path: netCDF file or Zarr folder.
        lattice: The anchor lattice of the job.
        options: What the user states; None: find everything out.

    Raises:
        JobError: If the modality is no series.
        SourceError: If the file is damaged, ambiguous or contradicts itself.
        AlignmentError: If nothing says where it lies.
        SecurityError: If it reaches outside of itself.
    """
    sensor = modality(name)
    if sensor.kind != "series":
        raise JobError(f"{name} is an image, not a time series: {path} cannot be read as one")
    survey = _survey(path, options or CubeOptions())
    try:
        return _open(survey, sensor, lattice)
    except SourceError as error:
        place = str(survey.store.path)
        text = str(error)
        raise type(error)(text if text.startswith(place) else f"{place}: {text}") from error


def _open(survey: _Survey, sensor: Modality, lattice: Lattice) -> CubeSource:
    options = survey.options
    found, band_words = _bands(survey, sensor)
    used = _used_of(found, options)
    # A band that the network does not use is read where the scale is measured, and never again.
    bands = {
        band: layer for band, layer in found.items() if band in (*used, *measured_bands(sensor))
    }
    grid, said = survey.grid(next(iter(bands.values())))
    if not grid.crs:
        raise AlignmentError(
            "the cube has no CRS (no grid mapping, no crs or epsg attribute); "
            "pass --cube-crs EPSG:n"
        )
    mask, mask_words = _mask(survey, sensor)
    layers = dict(bands) | ({MASK_KEY: mask[0]} if mask else {})
    encodings = {key: _encoding(survey, layer) for key, layer in layers.items()}
    chunk_words = _check_chunks(survey, layers, encodings)
    times, calendar, date_words = _calendar(survey, sensor)
    recipe = CubeRecipe(
        sensor=sensor.name, dims=survey.dims, grid=grid, layers=layers, encodings=encodings,
        scaling=Scaling("affine"), clouds=None,
        bands=_delivered(sensor, found, options),
        substitutes=dict(options.substitutes), calendar=calendar,
        average=options.duplicate_dates == "mean", gsd=options.gsd or sensor.gsd,
    )  # fmt: skip
    recipe, measured = measure(
        survey.store, recipe, times.days, (mask[1] if mask else None, options)
    )
    layers = {key: layer for key, layer in layers.items() if key in (*used, MASK_KEY)}
    recipe = replace(recipe, layers=layers)
    band_words += _unused(survey, sensor, (found, layers))
    decisions = (*said, *band_words, *date_words, *mask_words, *chunk_words, *measured)
    identity = identify(survey.store.path)
    return CubeSource(survey.store, recipe, lattice, (decisions, (identity,)), options.on_error)


def _bands(survey: _Survey, sensor: Modality) -> tuple[dict[str, Layer], tuple[Decision, ...]]:
    """Find the sensor's bands that change with time, and say what stays aside."""
    options = survey.options
    found = match_bands(survey.layers, sensor, options.bands)
    timed = {band: layer for band, layer in found.items() if layer.timed or not survey.dims.time}
    if not timed:
        raise SourceError(
            f"{', '.join(found)} do not change along {survey.dims.time!r} ({survey.steps} dates): "
            "not a time series of this sensor"
        )
    decisions = [
        Decision(
            "bands",
            f"{len(timed)} of {len(sensor.bands)} bands of {sensor.name}: {', '.join(timed)}",
            "as stated by position" if options.bands else "by name",
            flag(sensor.name, "bands"),
        )
    ]
    option = flag(sensor.name, "substitute")
    for missing, source in options.substitutes.items():
        if missing not in sensor.bands or source not in timed or missing in timed:
            raise JobError(
                f"{option} {missing}={source}: {missing} must be a missing band of "
                f"{sensor.name} and {source} one of {', '.join(timed)}"
            )
        value = f"{missing} is a copy of {source}"
        because = f"the file has no {missing}"
        decisions.append(Decision("bands", value, because, option, warning=True))
    return timed, tuple(decisions)


def _used_of(found: Mapping[str, Layer], options: CubeOptions) -> tuple[str, ...]:
    """Return the bands of the file that are delivered or copied; all where none is."""
    if options.wanted is None:
        return tuple(found)
    copied = {options.substitutes.get(band, band) for band in options.wanted}
    return tuple(band for band in found if band in copied) or tuple(found)


def _delivered(
    sensor: Modality, found: Mapping[str, Layer], options: CubeOptions
) -> tuple[str, ...]:
    """Return the bands a read delivers, in canonical order."""
    wanted = sensor.bands if options.wanted is None else options.wanted
    have = {*found, *options.substitutes}
    return tuple(band for band in sensor.bands if band in have and band in wanted)


def _unused(
    survey: _Survey, sensor: Modality, bands: tuple[Mapping[str, Layer], Mapping[str, Layer]]
) -> tuple[Decision, ...]:
    """Say which layers of the file stay aside, given its bands and the layers in use."""
    found, layers = bands
    known = {(layer.variable, layer.index) for layer in (*found.values(), *layers.values())}
    rest = [entry.name for entry in survey.layers if (entry.variable, entry.index) not in known]
    strange = ", ".join(name for name in rest if name)
    spare = ", ".join(band for band in found if band not in layers)
    decisions = []
    if strange:
        because = f"no band of {sensor.name} and not its mask"
        decisions.append(Decision("bands", f"not used: {strange}", because))
    if spare:
        decisions.append(Decision("bands", f"not used: {spare}", "the model does not use them"))
    return tuple(decisions)


def _mask(
    survey: _Survey, sensor: Modality
) -> tuple[tuple[Layer, FoundMask] | None, tuple[Decision, ...]]:
    """Find the layer that masks clouds; radar needs none."""
    if sensor.units != "reflectance_1e4":
        return None, ()
    asked = survey.options.cloud_mask
    by_name = {layer.name: layer for layer in survey.layers}
    found = find_mask(by_name, asked)
    if found is not None:
        return (by_name[found[0]], found), ()
    value = "no cloud mask: every pixel counts as clear, confidence will be optimistic"
    because = "as asked" if asked == "none" else "no layer is called SCL, CLM, QAI or cloud_mask"
    return None, (Decision("mask", value, because, "--cloud-mask", warning=True),)


def _encoding(survey: _Survey, layer: Layer) -> Encoding:
    variable = survey.dataset[layer.variable]
    attributes = {str(key): value for key, value in variable.attrs.items()}
    return find_encoding(variable.dtype, attributes)


def _check_chunks(
    survey: _Survey, layers: Mapping[str, Layer], encodings: Mapping[str, Encoding]
) -> tuple[Decision, ...]:
    """Find chunks that a Zarr folder should hold and does not: zarr reads them as fill, silently.

    Raises:
        SourceError: If they would be read as data.
    """
    if survey.store.kind != "Zarr":
        return ()
    decisions = []
    for variable in dict.fromkeys(layer.variable for layer in layers.values()):
        folder = survey.store.path / survey.options.group
        count = count_chunks(folder, variable)
        if count.present >= count.expected:
            continue
        keys = [key for key, layer in layers.items() if layer.variable == variable]
        known = encodings[keys[0]]
        fill = count.fill
        empty = fill is not None and (np.isnan(fill) or fill in (*known.declared, *known.assumed))
        word = "an undefined value" if fill is None else f"{fill:g}"
        gap = f"{count.expected - count.present} of {count.expected} chunks of {variable}"
        if not empty and keys != [MASK_KEY]:
            raise SourceError(
                f"{gap} are not there; they would be read as {word}, which is not declared as "
                "nodata: copy the folder again, or declare _FillValue"
            )
        value = f"{gap} are not there"
        because = f"read as {word}; right if they were empty when written"
        decisions.append(Decision("nodata", value, because, warning=True))
    return tuple(decisions)


def _calendar(survey: _Survey, sensor: Modality) -> tuple[Times, Calendar, tuple[Decision, ...]]:
    options = survey.options
    times = find_times(survey.dataset, survey.dims, options.dates_file)
    orbits = find_orbits(survey.dataset, survey.dims, survey.steps)
    keep, orbit_words = keep_orbit(sensor.name, orbits, options.orbit_stated, survey.steps)
    calendar, words = choose_dates(times, keep, options.date_range, options.duplicate_dates)
    return times, calendar, (*orbit_words, *words)
