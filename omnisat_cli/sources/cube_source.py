"""Read a cube window by window: stored numbers in, a valid series on the lattice out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import moved_bounds, same_crs, short_crs
from omnisat_cli.geo.lattice import Window
from omnisat_cli.sources.cube_layout import read_layers
from omnisat_cli.sources.cube_warp import bilinear, locate, nearest
from omnisat_cli.sources.encoding import empty_everywhere
from omnisat_cli.sources.values import Decision, Series

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Lattice
    from omnisat_cli.sources.clouds import CloudRule
    from omnisat_cli.sources.cube_dates import Calendar
    from omnisat_cli.sources.cube_grid import CubeGrid
    from omnisat_cli.sources.cube_layout import Dims, Layer
    from omnisat_cli.sources.cube_store import CubeStore
    from omnisat_cli.sources.encoding import Encoding
    from omnisat_cli.sources.scaling import Scaling
    from omnisat_cli.sources.values import Identity

_LOG = logging.getLogger(__name__)

MASK_KEY = "mask"
"""Key of the mask among the layers of a read; no band is called so."""


@dataclass(frozen=True, slots=True)
class CubeRecipe:
    """Everything fixed on opening that turns stored numbers into a series.

    Attributes:
        sensor: Name in the table of sensors.
        dims: Dimensions as the file calls them.
        grid: The cube's pixels.
        layers: Canonical band (and `MASK_KEY`) to layer.
        encodings: The same keys to how they store numbers.
        scaling: From decoded values to the canonical unit.
        thermal: Bands that have a scaling of their own.
        gsd: Pixel size to deliver, metres; 1 pixel an anchor pixel where that is finer.
        clouds: Meaning of the mask; None without one.
        bands: Canonical bands to deliver, in order.
        substitutes: Delivered band to the band it is copied from.
        calendar: Output days and the stored dates each is made of.
        average: Whether several images of a day are averaged; else the first valid one wins.
    """

    sensor: str
    dims: Dims
    grid: CubeGrid
    layers: Mapping[str, Layer]
    encodings: Mapping[str, Encoding]
    scaling: Scaling
    clouds: CloudRule | None
    bands: tuple[str, ...]
    substitutes: Mapping[str, str]
    calendar: Calendar
    average: bool
    gsd: float
    thermal: Mapping[str, Scaling] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """For each output date, the stored dates it is made of."""
        return self.calendar.groups

    @property
    def days(self) -> tuple[str, ...]:
        """(T,) output days as ISO text, ascending."""
        return self.calendar.days

    @property
    def span(self) -> slice:
        """Stored dates to read: the smallest run that holds all wanted ones."""
        steps = [step for group in self.groups for step in group]
        return slice(min(steps), max(steps) + 1) if steps else slice(0, 0)


class CubeSource:
    """One series modality of one cube, bound to a lattice. See `values.Source`."""

    def __init__(
        self,
        store: CubeStore,
        recipe: CubeRecipe,
        lattice: Lattice,
        stated: tuple[tuple[Decision, ...], tuple[Identity, ...]],
        on_error: Literal["fail", "hole"],
    ) -> None:
        self._store = store
        self._recipe = recipe
        self._lattice = lattice
        self._on_error = on_error
        self._refine = refine_of(recipe.sensor, recipe.gsd, lattice)
        self._offset = aligned_window(recipe.grid, lattice, self._refine)
        self._footprint = moved_bounds(recipe.grid.bounds, recipe.grid.crs, lattice.crs)
        self._identities = stated[1]
        self._decisions = (*stated[0], self._resampling())

    @property
    def modality(self) -> str:
        """Name in the table of sensors."""
        return self._recipe.sensor

    @property
    def refine(self) -> int:
        """Pixels of this source along one anchor pixel."""
        return self._refine

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the delivered bands, in the order of axis C."""
        return self._recipe.bands

    @property
    def dates(self) -> NDArray[np.datetime64]:
        """(T,) days every read delivers, ascending."""
        return np.array(self._recipe.days, dtype="datetime64[D]")

    @property
    def footprints(self) -> tuple[Bounds, ...]:
        """The rectangle that holds all data, in the CRS of the lattice."""
        return (self._footprint,)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Everything recognised when opening."""
        return self._decisions

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The files this source reads."""
        return self._identities

    def read(self, window: Window) -> Series:
        """Read a window given in anchor pixels.

        Returns:
            All dates of the source; ground outside the cube is not valid.

        Raises:
            SourceError: If bytes that should be there cannot be read.
        """
        wanted = window.refined(self._refine)
        if self._offset is None:
            return self._read_warped(wanted)
        common = wanted.intersection(self._offset)
        out = self._nothing(wanted.shape)
        if common.is_empty:
            return out
        read = self._read_native(*common.slices_in(self._offset))
        rows, cols = common.slices_in(wanted)
        for name in ("pixels", "valid", "clouded"):
            getattr(out, name)[..., rows, cols] = getattr(read, name)
        return out

    def _resampling(self) -> Decision:
        grid, lattice = self._recipe.grid, self._lattice
        pixel = lattice.gsd / self._refine
        if self._offset is not None:
            because = "the pixels of the cube are pixels of the lattice"
            return Decision("resampling", "none", because)
        value = "bilinear for bands, nearest for masks and validity"
        if not same_crs(grid.crs, lattice.crs):
            because = f"{short_crs(grid.crs)} differs from {short_crs(lattice.crs)} of the map"
        elif abs(grid.dx - pixel) > 1e-3 * pixel or abs(grid.dy - pixel) > 1e-3 * pixel:
            because = f"its pixels are {grid.dx:g} × {grid.dy:g}, those of the lattice {pixel:g}"
        else:
            right, down = (grid.left / pixel) % 1 * pixel, (grid.top / pixel) % 1 * pixel
            because = f"its edges lie {right:.2f} and {down:.2f} beside multiples of {pixel:g}"
        return Decision("resampling", value, because)

    def _nothing(self, shape: tuple[int, int]) -> Series:
        dates = self.dates
        flags = np.zeros((len(dates), *shape), dtype=bool)
        pixels = np.zeros((len(dates), len(self.bands), *shape), dtype=np.float32)
        return Series(pixels, dates, flags, flags.copy())

    def _read_warped(self, wanted: Window) -> Series:
        grid, lattice = self._recipe.grid, self._lattice
        transform = lattice.transform(wanted, self._refine)
        at = locate(grid, lattice.crs, transform, wanted.shape)
        extent = at.extent(grid)
        if extent is None:
            return self._nothing(wanted.shape)
        read = self._read_native(*extent)
        valid = nearest(read.valid, at, extent) >= 0.5
        clouded = (nearest(read.clouded, at, extent) > 0) & ~valid
        pixels = bilinear(read.pixels, read.valid, at, extent)
        np.copyto(pixels, 0, where=~valid[:, None])
        return Series(pixels, read.dates, valid, clouded)

    def _read_native(self, rows: slice, cols: slice) -> Series:
        """Read rows and columns of the cube's own grid: (T, C, h, w), north up."""
        recipe = self._recipe
        raw, broken = self._raw(rows, cols)
        pixels, data = decode_bands(recipe, raw, recipe.span)
        data &= ~broken[:, None, None]
        clear, hidden = data, np.zeros_like(data)
        if recipe.clouds is not None:
            encoding = recipe.encodings[MASK_KEY]
            numbers, known = encoding.numbers(raw[MASK_KEY]), encoding.decode(raw[MASK_KEY])[1]
            sky, cloud = recipe.clouds.apply(numbers, known)
            clear, hidden = data & sky, data & cloud
        return _merged(recipe, pixels, clear, hidden)

    def _raw(
        self, rows: slice, cols: slice
    ) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.bool_]]:
        """Read all layers at once; if bytes are damaged, date by date."""
        recipe, span = self._recipe, self._recipe.span
        where = (recipe.dims, recipe.grid)
        broken = np.zeros(span.stop - span.start, dtype=bool)
        try:
            return read_layers(self._store, recipe.layers, where, (span, rows, cols)), broken
        except SourceError:
            if self._on_error == "fail":
                raise
        parts: list[dict[str, NDArray[np.generic]] | None] = []
        for k, step in enumerate(range(span.start, span.stop)):
            one = (slice(step, step + 1), rows, cols)
            try:
                parts.append(read_layers(self._store, recipe.layers, where, one))
            except SourceError as error:
                _LOG.warning("%s left out of one window: %s", self._day_of(step), error)
                broken[k] = True
                parts.append(None)
        good = next((part for part in parts if part is not None), None)
        if good is None:
            raise SourceError(f"{self._store.path}: no date of rows {rows} can be read")
        blank = {key: np.zeros_like(values) for key, values in good.items()}
        whole = [part if part is not None else blank for part in parts]
        return {key: np.concatenate([part[key] for part in whole]) for key in good}, broken

    def _day_of(self, step: int) -> str:
        pairs = zip(self._recipe.groups, self._recipe.days, strict=True)
        return next((day for group, day in pairs if step in group), f"stored date {step}")


def decode_bands(
    recipe: CubeRecipe, raw: Mapping[str, NDArray[np.generic]], span: slice
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turn stored numbers into canonical units.

    Returns:
        (t, C, h, w) pixels of the stored dates, and (t, h, w) where every band is data.
    """
    own = {band: raw[band] for band in recipe.layers if band != MASK_KEY}
    first = next(iter(own.values()))
    pixels = np.zeros((len(first), len(recipe.bands), *first.shape[1:]), dtype=np.float32)
    data = np.ones(first.shape, dtype=bool)
    for band, stored in own.items():
        values, known = recipe.encodings[band].decode(stored)
        scaling = recipe.thermal.get(band, recipe.scaling)
        values, known = scaling.apply(values, known, span)
        data &= known
        for k, delivered in enumerate(recipe.bands):
            if recipe.substitutes.get(delivered, delivered) == band:
                pixels[:, k] = values
    return pixels, data & ~empty_everywhere(own, data)


def _merged(
    recipe: CubeRecipe,
    pixels: NDArray[np.float32],
    clear: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
) -> Series:
    """Pick the wanted dates, in order; several images of one day become one."""
    start = recipe.span.start
    first = np.array([group[0] - start for group in recipe.groups], dtype=np.intp)
    # All stored dates in order is the common case: no copy of the pixels then.
    picked = slice(None) if np.array_equal(first, np.arange(len(pixels))) else first
    out, valid, clouded = pixels[picked], clear[picked].copy(), hidden[picked].copy()
    for k, group in enumerate(recipe.groups):
        if len(group) == 1:
            continue
        members = np.array(group) - start
        weight = clear[members].astype(np.float32)  # (m, h, w)
        if not recipe.average:
            weight *= np.cumsum(weight, axis=0) == 1
        total = np.maximum(weight.sum(axis=0), 1)
        out[k] = (pixels[members] * weight[:, None]).sum(axis=0) / total
        valid[k] = clear[members].any(axis=0)
        clouded[k] = hidden[members].any(axis=0) & ~valid[k]
    np.copyto(out, 0, where=~valid[:, None])
    days = np.array(recipe.days, dtype="datetime64[D]")
    return Series(out, days, valid, clouded)


def refine_of(sensor: str, gsd: float, lattice: Lattice) -> int:
    """Pixels of a sensor along one anchor pixel; coarser ones are brought onto it.

    Raises:
        AlignmentError: If the anchor pixel is not a whole number of them.
    """
    if gsd > lattice.gsd:
        return 1
    refine = round(lattice.gsd / gsd)
    if refine < 1 or abs(refine * gsd - lattice.gsd) > 1e-9 * lattice.gsd:
        raise AlignmentError(
            f"a patch of {lattice.gsd:g} m is not a whole number of {gsd:g} m pixels of {sensor}; "
            f"where the model has several patch sizes, --patch-size {max(refine, 1) * gsd:g} fits"
        )
    return refine


def aligned_window(grid: CubeGrid, lattice: Lattice, refine: int) -> Window | None:
    """Return the cube's extent in lattice pixels where the grids coincide, else None."""
    if not same_crs(grid.crs, lattice.crs):
        return None
    pixel = lattice.gsd / refine
    col, row = grid.left / pixel, -grid.top / pixel
    edges = (
        row, col, row + grid.height * grid.dy / pixel, col + grid.width * grid.dx / pixel,
    )  # fmt: skip
    tolerance = max(0.01, 2 * grid.noise)
    if tolerance > 0.1 or any(abs(edge - round(edge)) > tolerance for edge in edges):
        return None
    window = Window.from_edges(*(round(edge) for edge in edges))
    return window if window.shape == (grid.height, grid.width) else None
