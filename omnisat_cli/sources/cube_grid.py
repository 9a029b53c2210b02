"""Where the pixels of a cube lie: CRS, pixel edges, direction of the axes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pyproj import CRS
from pyproj.exceptions import CRSError

from omnisat_cli.errors import AlignmentError
from omnisat_cli.geo.crs import name_crs, short_crs
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import xarray as xr
    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds

PixelReference = Literal["auto", "centre", "corner"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_IRREGULAR = 0.02
"""Share of a pixel by which two steps between coordinates may differ."""


@dataclass(frozen=True, slots=True)
class CubeGrid:
    """The pixel grid of a cube, north up and west left.

    Attributes:
        crs: "EPSG:n" or WKT; "" where the file has none.
        left: West edge of the first column, in CRS units.
        top: North edge of the first row, in CRS units.
        dx: Width of a pixel, positive.
        dy: Height of a pixel, positive.
        height: Rows.
        width: Columns.
        flip_rows: Whether the file stores the southernmost row first.
        flip_cols: Whether the file stores the easternmost column first.
        noise: Uncertainty of the coordinates as stored, in pixels (float32 coordinates).
    """

    crs: str
    left: float
    top: float
    dx: float
    dy: float
    height: int
    width: int
    flip_rows: bool
    flip_cols: bool
    noise: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """Left, bottom, right, top of the pixel edges, in CRS units."""
        return (
            self.left,
            self.top - self.height * self.dy,
            self.left + self.width * self.dx,
            self.top,
        )

    def stored_rows(self, start: int, stop: int) -> slice:
        """Rows of the file that hold north-up rows `[start, stop)`."""
        return (
            slice(self.height - stop, self.height - start) if self.flip_rows else slice(start, stop)
        )

    def stored_cols(self, start: int, stop: int) -> slice:
        """Columns of the file that hold columns `[start, stop)` counted from the west."""
        return (
            slice(self.width - stop, self.width - start) if self.flip_cols else slice(start, stop)
        )


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of coordinates: first and last value, in file order."""

    first: float
    last: float
    size: int
    noise: float


def find_grid(
    dataset: xr.Dataset, variable: xr.DataArray, dims: tuple[str, str], reference: PixelReference
) -> tuple[CubeGrid, tuple[Decision, ...]]:
    """Work out the pixel grid of a variable.

    Args:
        dataset: The container, as stored.
        variable: One band.
        dims: Names of its y and x dimensions.
        reference: Whether coordinates name pixel centres, top-left corners, or find out.

    Raises:
        AlignmentError: If coordinates are absent, irregular or contradict the transform.
    """
    crs, crs_from = find_crs(dataset, variable)
    affine = _affine(dataset, variable)
    sizes = tuple(int(variable.sizes[dim]) for dim in dims)
    if any(dim not in dataset.variables for dim in dims):
        if affine is None:
            raise AlignmentError(
                f"the cube has no coordinates along {dims[0]!r} and {dims[1]!r} and no "
                "GeoTransform: nothing says where it lies"
            )
        grid = _grid_from_affine(crs, affine, (sizes[0], sizes[1]))
        return grid, (_crs_decision(crs, crs_from),)
    axes = tuple(_axis(dim, dataset[dim].values, affine) for dim in dims)
    steps = tuple(_step(axis, affine, k) for k, axis in enumerate(axes))
    corner, decision = _is_corner(axes, steps, affine, reference, _has_resolution(variable))
    left, top = _first_edges(axes, steps, corner)
    noise = max(axis.noise / abs(step) for axis, step in zip(axes, steps, strict=True))
    grid = CubeGrid(
        crs, left, top, abs(steps[1]), abs(steps[0]), sizes[0], sizes[1],
        flip_rows=steps[0] > 0, flip_cols=steps[1] < 0, noise=noise,
    )  # fmt: skip
    return grid, (_crs_decision(crs, crs_from), *decision)


def _first_edges(
    axes: tuple[_Axis, ...], steps: tuple[float, ...], corner: bool
) -> tuple[float, float]:
    """West and north edge. A corner is the top-left one, whatever the direction of an axis."""
    (rows, cols), (dy, dx) = axes, steps
    west, north = min(cols.first, cols.last), max(rows.first, rows.last)
    return (west, north) if corner else (west - abs(dx) / 2, north + abs(dy) / 2)


def _crs_decision(crs: str, source: str) -> Decision:
    return Decision("crs", short_crs(crs) or "none", source, "--cube-crs", warning=not crs)


def _axis(dim: str, values: NDArray[np.generic], affine: tuple[float, ...] | None) -> _Axis:
    if values.dtype.kind not in "fiu" or values.ndim != 1:
        raise AlignmentError(f"the coordinates along {dim!r} are not numbers ({values.dtype})")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise AlignmentError(f"the coordinates along {dim!r} hold values that are not finite")
    coarse = float(np.abs(numbers).max()) * 2.0**-24 if values.dtype == np.float32 else 0.0
    if numbers.size == 1:
        if affine is None:
            raise AlignmentError(
                f"the cube has one pixel along {dim!r} and no GeoTransform: its size is unknown"
            )
        return _Axis(float(numbers[0]), float(numbers[0]), 1, coarse)
    steps = np.diff(numbers)
    mean = (numbers[-1] - numbers[0]) / (numbers.size - 1)
    worst = float(np.abs(steps - mean).max())
    if mean == 0 or worst > abs(mean) * _IRREGULAR + 2 * coarse:
        raise AlignmentError(
            f"the coordinates along {dim!r} are not regular: steps from {steps.min():g} to "
            f"{steps.max():g}; write the cube again on a regular grid"
        )
    return _Axis(float(numbers[0]), float(numbers[-1]), numbers.size, coarse)


def _step(axis: _Axis, affine: tuple[float, ...] | None, which: int) -> float:
    """Signed step along an axis (0 = rows, 1 = columns), from the coordinates where it can be."""
    if axis.size > 1:
        return (axis.last - axis.first) / (axis.size - 1)
    assert affine is not None  # _axis refuses a single pixel without one
    return affine[4] if which == 0 else affine[0]


def _has_resolution(variable: xr.DataArray) -> bool:
    return "resolution" in variable.attrs or "spec" in variable.attrs


def _is_corner(
    axes: tuple[_Axis, ...],
    steps: tuple[float, ...],
    affine: tuple[float, ...] | None,
    reference: PixelReference,
    stackstac: bool,
) -> tuple[bool, tuple[Decision, ...]]:
    """Whether coordinates name the top-left corner of a pixel, and what says so."""
    option = "--cube-pixels"
    if reference != "auto":
        word = "top-left corners" if reference == "corner" else "centres"
        return reference == "corner", (Decision("grid", f"pixel {word}", "as asked", option),)
    west = min(axes[1].first, axes[1].last)
    if affine is not None:
        shift = (west - affine[2]) / abs(steps[1])
        if abs(shift - 0.5) < 0.1:
            return False, ()
        if abs(shift) < 0.1:
            why = "the coordinates coincide with the transform's edges (as stackstac writes them)"
            return True, (Decision("grid", "coordinates are top-left corners", why, option),)
        raise AlignmentError(
            f"the cube contradicts itself: its first x is {west:.3f}, but its transform puts the "
            f"west edge at {affine[2]:.3f}, {shift:.2f} pixels away (0.5 expected)"
        )
    on_lines = all(
        abs(axis.first / step - round(axis.first / step)) < 1e-3
        for axis, step in zip(axes, steps, strict=True)
    )
    if on_lines and stackstac:
        why = "the band has a stackstac resolution and coordinates on multiples of the pixel"
        return True, (Decision("grid", "coordinates are top-left corners", why, option, True),)
    if on_lines:
        why = "the CF convention; but they are multiples of the pixel size, as corners would be"
        return False, (Decision("grid", "coordinates are pixel centres", why, option, True),)
    return False, ()


def _grid_from_affine(crs: str, affine: tuple[float, ...], shape: tuple[int, int]) -> CubeGrid:
    a, _, c, _, e, f = affine
    height, width = shape
    left, top = c + min(0.0, a * width), f + max(0.0, e * height)
    return CubeGrid(crs, left, top, abs(a), abs(e), height, width, e > 0, a < 0)


def _affine(dataset: xr.Dataset, variable: xr.DataArray) -> tuple[float, ...] | None:
    """The affine (a, b, c, d, e, f) a file declares: GDAL's GeoTransform or a transform.

    Raises:
        AlignmentError: If it is rotated.
    """
    found: tuple[float, ...] | None = None
    for attributes in _mapping_attributes(dataset, variable):
        numbers = _numbers(attributes.get("GeoTransform"))
        if len(numbers) >= 6:
            c, a, b, f, d, e = numbers[:6]
            found = (a, b, c, d, e, f)
            break
    if found is None:
        for attributes in (variable.attrs, dataset.attrs):
            numbers = _numbers(attributes.get("transform", attributes.get("proj:transform")))
            if len(numbers) >= 6:
                found = numbers[:6]
                break
    if found is not None and (abs(found[1]) > 1e-9 or abs(found[3]) > 1e-9):
        raise AlignmentError(f"the grid of the cube is rotated (transform {found}); warp it first")
    if found is not None and (found[0] == 0 or found[4] == 0):
        raise AlignmentError(f"the transform of the cube has no pixel size: {found}")
    return found


def _numbers(value: object) -> tuple[float, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(float(text) for text in _NUMBER.findall(value))
    try:
        return tuple(float(number) for number in np.asarray(value, dtype=np.float64).ravel())
    except (TypeError, ValueError):
        return ()


def _mapping_attributes(
    dataset: xr.Dataset, variable: xr.DataArray
) -> Iterator[Mapping[str, object]]:
    """Attributes of the grid mapping: the one the band names, then the usual names, then any."""
    named = str(variable.attrs.get("grid_mapping", "")).split(":")[0].strip()
    names = [named, "spatial_ref", "crs"]
    names += [str(name) for name, entry in dataset.variables.items() if "crs_wkt" in entry.attrs]
    for name in dict.fromkeys(names):
        if name in dataset.variables:
            yield {str(key): value for key, value in dataset[name].attrs.items()}


def find_crs(dataset: xr.Dataset, variable: xr.DataArray) -> tuple[str, str]:
    """Search a CRS: grid mapping, then attributes, then an `epsg` coordinate.

    Returns:
        The CRS ("EPSG:n", else WKT, or "" where there is none) and where it was found.

    Raises:
        AlignmentError: If the file names a CRS that PROJ does not know.
    """
    for attributes in _mapping_attributes(dataset, variable):
        for key in ("crs_wkt", "spatial_ref"):
            if attributes.get(key):
                return _named_crs(attributes[key], f"{key} of the grid mapping")
        if "grid_mapping_name" in attributes:
            return _cf_crs(attributes)
    for owner, attrs in (("the band", variable.attrs), ("the file", dataset.attrs)):
        for key in ("crs", "epsg", "EPSG", "proj:code", "proj:epsg", "crs_wkt"):
            if attrs.get(key):
                return _named_crs(attrs[key], f"attribute {key!r} of {owner}")
    for name in ("epsg", "proj:epsg", "proj:code", "crs"):
        if name in dataset.variables and dataset[name].size == 1:
            value = dataset[name].values.ravel()[0]
            if value.dtype.kind in "iufU" and str(value).strip("0"):
                return _named_crs(value, f"coordinate {name!r}")
    return "", "no grid mapping, no crs attribute, no epsg coordinate"


def _named_crs(value: object, where: str) -> tuple[str, str]:
    text = value.decode() if isinstance(value, bytes) else str(value)
    code = text.removesuffix(".0").strip()
    return stated_crs(f"EPSG:{code}" if code.isdecimal() else text, where), where


def _cf_crs(attributes: Mapping[str, object]) -> tuple[str, str]:
    where = "CF attributes of the grid mapping"
    try:
        return stated_crs(CRS.from_cf(dict(attributes)).to_wkt(), where), where
    except (CRSError, KeyError, TypeError) as error:
        raise AlignmentError(f"the {where} make no CRS: {error}; pass --cube-crs") from error


def stated_crs(text: str, where: str) -> str:
    """Name the CRS that `where` states: "EPSG:n" where it has a code, else WKT.

    Raises:
        AlignmentError: If PROJ does not understand it.
    """
    try:
        return name_crs(text)[0]
    except AlignmentError as error:
        raise AlignmentError(
            f"{where} is not a CRS that PROJ knows: {text[:80]!r}; pass --cube-crs EPSG:n"
        ) from error
