"""Which variables of a cube are which bands, masks and dates, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omnisat_cli.errors import SourceError
from omnisat_cli.modality import canonical_band, flag

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from omnisat_cli.modality import Modality
    from omnisat_cli.sources.cube_grid import CubeGrid
    from omnisat_cli.sources.cube_store import CubeStore

_TIME = ("time", "t", "date", "dates", "valid_time")
_BAND = ("band", "bands", "variable")
_Y = ("y", "lat", "latitude", "northing", "row")
_X = ("x", "lon", "longitude", "easting", "col")
Steps = slice | NDArray[np.intp]

_UNNAMED = "__xarray_dataarray_variable__"


@dataclass(frozen=True, slots=True)
class Dims:
    """Names of the dimensions as the file calls them; "" where it has none."""

    time: str
    band: str
    y: str
    x: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One band or mask: a whole variable, or one index of its band dimension.

    Attributes:
        name: As the file calls it.
        variable: The variable that holds it.
        index: Index along the band dimension; None where the variable is the layer.
        timed: Whether it changes with time.
    """

    name: str
    variable: str
    index: int | None
    timed: bool


def find_dims(dataset: xr.Dataset) -> Dims:
    """Recognise the dimensions by their usual names.

    Raises:
        SourceError: If there is no y or no x dimension.
    """
    by_lower = {str(dim).lower(): str(dim) for dim in dataset.sizes}

    def named(candidates: tuple[str, ...]) -> str:
        return next((by_lower[name] for name in candidates if name in by_lower), "")

    dims = Dims(named(_TIME), named(_BAND), named(_Y), named(_X))
    if not dims.y or not dims.x:
        raise SourceError(
            f"no y and x dimension among {', '.join(map(str, dataset.sizes)) or 'none'}; "
            f"known names are {', '.join(_Y)} and {', '.join(_X)}"
        )
    return dims


def list_layers(dataset: xr.Dataset, dims: Dims) -> tuple[Layer, ...]:
    """List every raster layer of a container, in file order.

    Raises:
        SourceError: If the file holds no raster, or a raster has dimensions we cannot place.
    """
    layers: list[Layer] = []
    for key, variable in dataset.variables.items():
        name = str(key)
        if not {dims.y, dims.x} <= set(variable.dims) or variable.dtype.kind not in "iuf":
            continue
        extra = set(variable.dims) - {dims.time, dims.band, dims.y, dims.x}
        if extra:
            continue
        timed = dims.time in variable.dims
        if dims.band and dims.band in variable.dims:
            names = _band_names(dataset, dataset[name], dims.band)
            layers += [Layer(label, name, index, timed) for index, label in enumerate(names)]
        else:
            layers.append(Layer("" if name == _UNNAMED else name, name, None, timed))
    if not layers:
        held = ", ".join(str(name) for name in dataset.variables) or "nothing"
        raise SourceError(
            f"no variable has the dimensions {dims.y} and {dims.x} (the file holds {held})"
        )
    return tuple(layers)


def _band_names(dataset: xr.Dataset, variable: xr.DataArray, dim: str) -> list[str]:
    """Names along a band dimension: its coordinate, else an attribute, else none."""
    size = int(variable.sizes[dim])
    if dim in dataset.variables:
        values = dataset[dim].values
        if values.dtype.kind in "SUOT":
            return [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    for attribute in ("band_names", "bands", "long_name", "descriptions", "description"):
        value = variable.attrs.get(attribute)
        names = value.split(",") if isinstance(value, str) else _as_names(value)
        if len(names) == size:
            return [name.strip() for name in names]
    return [""] * size


def _as_names(value: object) -> list[str]:
    if isinstance(value, list | tuple | np.ndarray):
        return [str(entry) for entry in value]
    return []


def match_bands(
    layers: tuple[Layer, ...], sensor: Modality, ordered: tuple[str, ...]
) -> dict[str, Layer]:
    """Find the layers that are bands of a sensor; names win, positions need `ordered`.

    Args:
        layers: Every layer of the file.
        sensor: The sensor wanted.
        ordered: Band names in file order, for a file that has none.

    Returns:
        Canonical band to layer, in canonical order.

    Raises:
        SourceError: If no band is recognised, or two layers are the same band.
    """
    if ordered:
        layers = _named_by_position(layers, sensor, ordered)
    found: dict[str, Layer] = {}
    for layer in layers:
        band = canonical_band(sensor, layer.name)
        if band is None:
            continue
        if band in found:
            raise SourceError(
                f"two layers are {band}: {found[band].name!r} and {layer.name!r}; "
                "keep one of them in the file"
            )
        found[band] = layer
    if not found:
        names = ", ".join(layer.name or "(no name)" for layer in layers)
        raise SourceError(
            f"no band of {sensor.name} ({', '.join(sensor.bands)}) among the layers found: "
            f"{names}; name them in file order with {flag(sensor.name, 'bands')}"
        )
    return {band: found[band] for band in sensor.bands if band in found}


def _named_by_position(
    layers: tuple[Layer, ...], sensor: Modality, ordered: tuple[str, ...]
) -> tuple[Layer, ...]:
    known = [layer.name for layer in layers if canonical_band(sensor, layer.name)]
    wanted = [canonical_band(sensor, name) for name in ordered]
    if known and [canonical_band(sensor, name) for name in known] != wanted:
        raise SourceError(
            f"the file names its bands {', '.join(known)}, which is not the order given "
            f"({', '.join(ordered)}); leave the option out: names win over positions"
        )
    if known:
        return layers
    if len(ordered) != len(layers):
        raise SourceError(f"{len(ordered)} band names were given for {len(layers)} layers")
    unknown = [n for n, band in zip(ordered, wanted, strict=True) if band is None]
    if len(unknown) == len(ordered):
        raise SourceError(f"none of {', '.join(unknown)} is a band of {sensor.name}")
    return tuple(
        Layer(name, layer.variable, layer.index, layer.timed)
        for name, layer in zip(ordered, layers, strict=True)
    )


def read_layers(
    store: CubeStore,
    layers: Mapping[str, Layer],
    where: tuple[Dims, CubeGrid],
    window: tuple[Steps, slice, slice],
) -> dict[str, NDArray[np.generic]]:
    """Read layers over one hyperslab; layers that share a variable are read together.

    Args:
        store: The container.
        layers: Key to layer.
        where: Dimensions and grid of the cube.
        window: Stored dates (a run, or ascending indices), rows from the north, columns from
            the west.

    Returns:
        Key to (T, h, w) raw values, north up; T is 1 for a layer without time.

    Raises:
        SourceError: If the bytes cannot be read.
    """
    dims, grid = where
    steps, rows, cols = window
    base = {dims.y: grid.stored_rows(rows.start, rows.stop)}
    base[dims.x] = grid.stored_cols(cols.start, cols.stop)
    out: dict[str, NDArray[np.generic]] = {}
    for variable in dict.fromkeys(layer.variable for layer in layers.values()):
        keys = [key for key, layer in layers.items() if layer.variable == variable]
        indices = [layers[key].index for key in keys]
        picks: dict[str, Steps] = dict(base)
        if layers[keys[0]].timed:
            picks[dims.time] = steps
        stored = [index for index in indices if index is not None]
        first = min(stored, default=0)
        if stored:
            picks[dims.band] = slice(first, max(stored) + 1)
        cube = _ordered(store, variable, dims, store.read(variable, picks))  # (T, b, h, w)
        cube = cube[:, :, :: -1 if grid.flip_rows else 1, :: -1 if grid.flip_cols else 1]
        for key, index in zip(keys, indices, strict=True):
            out[key] = cube[:, 0 if index is None else index - first]
    return out


def _ordered(
    store: CubeStore, variable: str, dims: Dims, raw: NDArray[np.generic]
) -> NDArray[np.generic]:
    """Bring an array to (T, b, h, w), adding the axes that the variable does not have."""
    names = [str(dim) for dim in store.dataset()[variable].dims]
    wanted = [dims.time, dims.band, dims.y, dims.x]
    moved = raw.transpose([names.index(dim) for dim in wanted if dim in names])
    for axis, dim in enumerate(wanted):
        if dim not in names:
            moved = np.expand_dims(moved, axis)
    return moved
