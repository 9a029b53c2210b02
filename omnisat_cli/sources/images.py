"""One image per place (aerial, SPOT): recognised, aligned to the lattice, read window by window."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.crs import is_metric, metres, moved_bounds, same_crs
from omnisat_cli.geo.lattice import Bounds, Lattice, Window
from omnisat_cli.modality import flag
from omnisat_cli.modality import modality as sensor_named
from omnisat_cli.sources.bands import BandMap, Depth, Labels, factor_of, map_bands, scale_to_8_bit
from omnisat_cli.sources.identity import identify_all
from omnisat_cli.sources.mosaic import SNAP, Handles, Mosaic, Part, Tile, read_window
from omnisat_cli.sources.resample import Warp, resample_axes, resample_warped
from omnisat_cli.sources.sheets import Rules, Sheet, Survey, survey
from omnisat_cli.sources.values import Decision, Identity, Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.modality import Modality
    from omnisat_cli.sources.resample import Affine6

Resampling = Literal["auto", "average", "bilinear", "nearest"]

_SAMPLED_SHEETS = 8
_SAMPLE_SIDE = 192


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What the user overrules, and what the pack asks for.

    Attributes:
        bands: Names in file order; "A" for a mask, "-" for a band to leave out. None: recognise.
        wanted: Bands to deliver where the files have them; None for all.
        nodata: Value that means no data; "none" to ignore a declared one; None to believe it.
        gsd: Pixel size to deliver, in units of the lattice; None for the file's own.
        resampling: "auto" averages when coarsening and interpolates otherwise.
        scale: Factor from stored to 8-bit values; None: recognise.
        crs: CRS instead of what the files say.
        irc: Colour-infrared files whose NIR is added to the image's R, G, B.
        irc_bands: Order of the bands of `irc`.
        allow_roots: Folders that VRT sources outside the VRT's folder may lie in.
    """

    bands: tuple[str, ...] | None = None
    wanted: tuple[str, ...] | None = None
    nodata: float | Literal["none"] | None = None
    gsd: float | None = None
    resampling: Resampling = "auto"
    scale: float | None = None
    crs: str | None = None
    irc: tuple[str, ...] = ()
    irc_bands: tuple[str, ...] = ("NIR", "R", "G")
    allow_roots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image is, before any lattice exists.

    Attributes:
        modality: Name in the table of sensors.
        crs: "EPSG:n" or WKT.
        metric: Whether that CRS is projected in metres.
        bounds: left, bottom, right, top in that CRS.
        gsd: Pixel size in metres (the larger side of a pixel).
        bands: Canonical names of the recognised bands.
        stored_bands: Number of bands in the files.
        dtype: Type of the samples.
        files: Every file read.
        footprints: One rectangle for each tile, in that CRS.
        decisions: Everything recognised.
    """

    modality: str
    crs: str
    metric: bool
    bounds: Bounds
    gsd: float
    bands: tuple[str, ...]
    stored_bands: int
    dtype: str
    files: tuple[str, ...]
    footprints: tuple[Bounds, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class _Stock:
    """A survey with its bands named: all that is known before the lattice is."""

    sensor: Modality
    survey: Survey
    bands: BandMap
    factor: float
    dtype: str
    nodata: float | Literal["none"] | None
    decisions: tuple[Decision, ...]
    handles: Handles


@dataclass(frozen=True, slots=True)
class _Group:
    """Sheets that share one grid, and how that grid comes onto the lattice.

    Attributes:
        mosaic: The sheets; on the refined lattice itself where `how` is "copy".
        reach: Window of the refined lattice outside of which the group has nothing.
        how: "copy", "axes" or "warp".
        steps: (offset, ratio) of rows and of columns, for "axes".
        kernel: Resampling kernel, for "axes".
        warp: For "warp".
    """

    mosaic: Mosaic
    reach: Window
    how: Literal["copy", "axes", "warp"]
    steps: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 1.0), (0.0, 1.0))
    kernel: str = ""
    warp: Warp | None = None

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the refined lattice."""
        if self.warp is not None:
            return resample_warped(self.mosaic, window, self.warp)
        if self.how == "axes":
            return resample_axes(self.mosaic, window, self.steps, self.kernel)
        return self.mosaic.read(window)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Bands that come from one set of files."""

    bands: tuple[str, ...]
    groups: tuple[_Group, ...]

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the refined lattice; the first group that is valid wins."""
        near = [g for g in self.groups if not g.reach.intersection(window).is_empty]
        pixels, valid = (near or self.groups)[0].read(window)
        for group in near[1:]:
            if valid.all():
                break
            under, seen = group.read(window)
            seen &= ~valid
            np.copyto(pixels, under, where=seen)
            valid |= seen
        return pixels, valid


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image modality over the whole area; see `values.Source`.

    Pickles without its open files and opens them again where it lands; each thread has its own.
    """

    modality: str
    lattice: Lattice
    refine: int
    bands: tuple[str, ...]
    footprints: tuple[Bounds, ...]
    decisions: tuple[Decision, ...]
    files: tuple[str, ...]
    layers: tuple[_Layer, ...]
    dtype: str
    _identities: list[Identity] = field(default_factory=list, compare=False, repr=False)

    @property
    def dates(self) -> NDArray[np.datetime64]:
        """An image has no dates: (0,)."""
        return np.empty(0, "datetime64[D]")

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The files this source reads, hashed when first asked."""
        if not self._identities:
            self._identities.extend(identify_all(self.files))
        return tuple(self._identities)

    def read(self, window: Window) -> Image:
        """Read a window given in anchor pixels; ground outside the footprint is not valid.

        Args:
            window: Window of the anchor lattice.

        Returns:
            (C, H, W) pixels with H = height × refine, uint8 or float32 8-bit numbers.

        Raises:
            SourceError: If bytes that should be there cannot be read.
        """
        fine = window.refined(self.refine)
        if len(self.layers) == 1:
            return Image(*self.layers[0].read(fine))
        pixels = np.empty((len(self.bands), *fine.shape), self.dtype)
        valid = np.ones(fine.shape, np.bool_)
        for layer in self.layers:
            got, seen = layer.read(fine)
            for band, plane in zip(layer.bands, got, strict=True):
                pixels[self.bands.index(band)] = plane
            valid &= seen
        if not valid.all():
            pixels[:, ~valid] = 0
        return Image(pixels, valid)


_DEFAULTS = ImageOptions()


def describe_image(
    modality: str, paths: str | Path | Sequence[str | Path], options: ImageOptions = _DEFAULTS
) -> ImageFacts:
    """Say what an image is: CRS, extent, pixel size, bands.

    Args:
        modality: Name in the table of sensors.
        paths: File(s), folder, glob, text list or VRT.
        options: What the user overrules.

    Raises:
        SecurityError: If a file is remote, disguised or claims too much.
        AlignmentError: If a file has no CRS, or they have different ones.
        SourceError: If files are missing, damaged or their bands cannot be told.
    """
    stock = _take_stock(modality, paths, options)
    footprints = tuple(sheet.bounds for sheet in stock.survey.sheets)
    bounds = _around(footprints)
    return ImageFacts(
        modality=modality,
        crs=stock.survey.crs,
        metric=is_metric(stock.survey.crs),
        bounds=bounds,
        gsd=_metres(stock.survey, bounds),
        bands=stock.bands.bands,
        stored_bands=len(stock.survey.colours),
        dtype=stock.survey.dtype,
        files=stock.survey.files,
        footprints=footprints,
        decisions=stock.decisions,
    )


def open_image(
    modality: str,
    paths: str | Path | Sequence[str | Path],
    lattice: Lattice,
    options: ImageOptions = _DEFAULTS,
) -> ImageSource:
    """Open an image modality on an anchor lattice.

    Args:
        modality: Name in the table of sensors.
        paths: File(s), folder, glob, text list or VRT.
        lattice: The anchor lattice; the pixels are delivered on it, refined by an integer.
        options: What the user overrules and the pack asks for.

    Returns:
        A source whose `bands` are those the files have (and `options.wanted` names).

    Raises:
        SecurityError: If a file is remote, disguised or claims too much.
        AlignmentError: If a file has no CRS, or they have different ones.
        SourceError: If files are missing, damaged or their bands cannot be told.
        JobError: If an option does not fit.
    """
    stock = _take_stock(modality, paths, options)
    refine, grid_decision = _refinement(stock, lattice, options)
    layers, decisions = [_layer(stock, lattice, refine, options)], [*stock.decisions]
    stocks = [stock]
    if options.irc:
        infrared = _take_infrared(modality, options)
        stocks.append(infrared)
        layers.append(_layer(infrared, lattice, refine, options))
        decisions += [
            replace(d, topic=f"irc {d.topic}", option=flag(modality, "irc_bands"))
            for d in infrared.decisions
        ]
    decisions += [grid_decision, *_resampling_decisions(layers, stocks, lattice, refine)]
    names = [band for layer in layers for band in layer.bands]
    return ImageSource(
        modality=modality,
        lattice=lattice,
        refine=refine,
        bands=tuple(band for band in stock.sensor.bands if band in names),
        footprints=_rectangles(stock.survey.sheets, stock.survey, lattice),
        decisions=tuple(decisions),
        files=tuple(dict.fromkeys(file for s in stocks for file in s.survey.files)),
        layers=tuple(layers),
        dtype="uint8" if all(s.dtype == "uint8" for s in stocks) else "float32",
    )


def _take_stock(
    modality: str, paths: str | Path | Sequence[str | Path], options: ImageOptions
) -> _Stock:
    """Survey the files, name their bands and decide how values are scaled."""
    sensor = sensor_named(modality)
    if sensor.kind != "image":
        raise JobError(f"{modality} is a time series; open it as a cube, not as an image")
    found = survey(paths, Rules(modality, options.crs, options.allow_roots))
    handles = Handles()
    labels = Labels(found.files[0], found.descriptions, found.colours)

    def look(band: int) -> NDArray[np.float64]:
        return _sample(found, handles, band)

    bands = map_bands(sensor, labels, options.bands, look)
    wanted = options.wanted
    if options.irc:
        wanted = tuple(band for band in wanted or sensor.bands if band != "NIR")
    bands = bands.only(wanted)
    if not bands.bands:
        raise SourceError(
            f"{labels.path}: none of its bands is wanted ({', '.join(wanted or ())}); "
            f"check {flag(modality, 'bands')}"
        )
    nodata = options.nodata if isinstance(options.nodata, float | int) else found.nodata
    depth = Depth(_stored_type(found, bands, options), found.bits, nodata, options.scale)
    scale = scale_to_8_bit(sensor, depth, bands.indexes, look)
    factor = factor_of(scale)
    decisions = [*bands.decisions, scale]
    decisions += _validity_decisions(sensor, found, options)
    crs = Decision("crs", found.crs[:80], found.remark or "from the files", flag(modality, "crs"))
    decisions.append(replace(crs, warning=found.remark.startswith("its datum")))
    decisions += _missing_squares(found)
    dtype = "uint8" if found.dtype == "uint8" and factor == 1 else "float32"
    return _Stock(sensor, found, bands, factor, dtype, options.nodata, tuple(decisions), handles)


def _stored_type(found: Survey, bands: BandMap, options: ImageOptions) -> str:
    """Return the type of the samples in use.

    Raises:
        SourceError: If one factor cannot make 8-bit values of them all.
    """
    if found.dtype != "mixed" or options.scale is not None:
        return found.dtype
    types = {
        share.facts.dtypes[number - 1]
        for share in found.sheets[0].shares
        for place, number in share.bands
        if place in bands.indexes
    }
    if len(types) > 1:
        raise SourceError(
            f"{found.files[0]}: the bands {', '.join(bands.bands)} are stored as "
            f"{' and '.join(sorted(types))}; give files of one type"
        )
    return types.pop()


def _take_infrared(modality: str, options: ImageOptions) -> _Stock:
    """Take stock of the colour-infrared files, of which NIR alone is used."""
    if "NIR" not in options.irc_bands:
        option = flag(modality, "irc_bands")
        raise JobError(f"{option} {','.join(options.irc_bands)} names no NIR")
    if options.wanted is not None and "NIR" not in options.wanted:
        raise JobError(f"{flag(modality, 'irc')} is given but the model does not use NIR")
    own = replace(options, bands=options.irc_bands, wanted=("NIR",), irc=())
    return _take_stock(modality, options.irc, own)


def _sample(found: Survey, handles: Handles, band: int) -> NDArray[np.float64]:
    """Read fixed windows (centre and corners) of evenly chosen sheets: the same at every run."""
    step = max(1, len(found.sheets) // _SAMPLED_SHEETS)
    values = []
    for sheet in found.sheets[::step][:_SAMPLED_SHEETS]:
        rows, cols = sheet.shape
        height, width = min(_SAMPLE_SIDE, rows), min(_SAMPLE_SIDE, cols)
        corners = {(row, col) for row in (0, rows - height) for col in (0, cols - width)} | {
            ((rows - height) // 2, (cols - width) // 2)
        }
        share, number = next(
            (share, number)
            for share in sheet.shares
            for place, number in share.bands
            if place == band
        )
        dataset = handles.get(share.facts.path, share.facts.stamp)
        for row, col in sorted(corners):
            out = np.empty((1, height, width), share.facts.dtypes[number - 1])
            place = Window(row + share.offset[0], col + share.offset[1], height, width)
            read_window(dataset, (number,), place, out)
            values.append(out.ravel().astype(np.float64))
    return np.concatenate(values)


def _validity_decisions(sensor: Modality, found: Survey, options: ImageOptions) -> list[Decision]:
    """Say what tells real pixels from empty ones."""
    option = flag(sensor.name, "nodata")
    decisions = []
    if options.nodata == "none":
        decisions.append(Decision("nodata", "none", "given on the command line", option))
    elif options.nodata is not None:
        text = f"{options.nodata:g} where all bands hold it"
        decisions.append(Decision("nodata", text, "given on the command line", option))
    elif found.nodata is not None:
        text = f"{found.nodata:g} where all bands hold it"
        decisions.append(Decision("nodata", text, "declared in the files", option))
    masks = sum(1 for s in found.sheets for share in s.shares if share.facts.mask)
    if masks:
        decisions.append(Decision("mask", "stored masks", f"{masks} file(s) carry a mask"))
    return decisions


def _missing_squares(found: Survey) -> list[Decision]:
    """Report gaps of a regular mosaic: squares of its rectangle that have no file."""
    sheets = found.sheets
    shapes = {sheet.shape for sheet in sheets}
    if len(sheets) < 3 or len(shapes) != 1:
        return []
    (rows, cols), (a, b, c, d, e, f) = shapes.pop(), sheets[0].transform
    if b or d:
        return []
    places = [
        ((s.transform[5] - f) / (e * rows), (s.transform[2] - c) / (a * cols)) for s in sheets
    ]
    if any(abs(v - round(v)) > 0.01 for place in places for v in place):
        return []
    have = {(round(row), round(col)) for row, col in places}
    top, left = min(row for row, _ in have), min(col for _, col in have)
    height = max(row for row, _ in have) - top + 1
    width = max(col for _, col in have) - left + 1
    if height * width == len(have) or height * width > 4 * len(have):
        return []
    missing = [
        (row, col)
        for row in range(top, top + height)
        for col in range(left, left + width)
        if (row, col) not in have
    ]
    shown = []
    for row, col in missing[:5]:
        x, y = (
            sorted(c + a * cols * k for k in (col, col + 1)),
            sorted(f + e * rows * k for k in (row, row + 1)),
        )
        shown.append(f"x {x[0]:.10g}..{x[1]:.10g} y {y[0]:.10g}..{y[1]:.10g}")
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return [
        Decision(
            "coverage",
            f"{len(missing)} of {height * width} squares have no file",
            f"the files make a regular grid; missing: {'; '.join(shown)}{more}",
            warning=True,
        )
    ]


def _refinement(stock: _Stock, lattice: Lattice, options: ImageOptions) -> tuple[int, Decision]:
    """Decide how many pixels go along one anchor pixel."""
    if not is_metric(lattice.crs):
        raise AlignmentError(
            f"the map grid is in {lattice.crs[:60]}, which is not in metres; choose a projected "
            "CRS with --crs EPSG:n"
        )
    own = _metres(stock.survey, _around([sheet.bounds for sheet in stock.survey.sheets]))
    wanted = options.gsd or own
    if not (math.isfinite(wanted) and wanted > 0):
        raise JobError(f"a pixel size of {wanted} m is impossible")
    refine = max(1, round(lattice.gsd / wanted))
    reason = f"the model's {options.gsd:g} m" if options.gsd else f"the image's own {own:.6g} m"
    value = f"{lattice.gsd / refine:g} m, {refine} px along one {lattice.gsd:g} m anchor pixel"
    off = abs(lattice.gsd / refine - wanted) > 1e-3 * wanted
    because = f"{reason}; the files have {own:.6g} m"
    return refine, Decision("pixel size", value, because, warning=off)


def _metres(found: Survey, bounds: Bounds) -> float:
    """Pixel size of the first sheet in metres, the larger side."""
    a, b, _, d, e, _ = found.sheets[0].transform
    middle = (bounds[1] + bounds[3]) / 2
    return metres(found.crs, math.hypot(a, d), math.hypot(b, e), middle)


def _layer(stock: _Stock, lattice: Lattice, refine: int, options: ImageOptions) -> _Layer:
    """Sort sheets by grid: those on the refined lattice first, the rest by their own grids."""
    pixel = lattice.gsd / refine
    found = stock.survey
    same = same_crs(found.crs, lattice.crs)
    aligned: list[tuple[Sheet, Window]] = []
    grids: list[tuple[Affine6, list[tuple[Sheet, Window]]]] = []
    for sheet in found.sheets:
        window = _on_lattice(sheet, pixel) if same else None
        if window is not None:
            aligned.append((sheet, window))
            continue
        for transform, members in grids:
            window = _on_grid(sheet, transform)
            if window is not None:
                members.append((sheet, window))
                break
        else:
            grids.append((sheet.transform, [(sheet, Window(0, 0, *sheet.shape))]))
    groups = []
    if aligned:
        copied = _mosaic(stock, aligned)
        groups.append(_Group(copied, copied.extent, "copy"))
    for transform, members in grids:
        groups.append(_resampled_group(stock, (transform, members), (lattice, refine), options))
    return _Layer(stock.bands.bands, tuple(groups))


def _resampled_group(
    stock: _Stock,
    grid: tuple[Affine6, list[tuple[Sheet, Window]]],
    target: tuple[Lattice, int],
    options: ImageOptions,
) -> _Group:
    """Decide how one grid that is not the lattice's comes onto it."""
    (transform, members), (lattice, refine) = grid, target
    pixel = lattice.gsd / refine
    a, b, c, d, e, f = transform
    mosaic = _mosaic(stock, members)
    sheets = [sheet for sheet, _ in members]
    bounds = _around(_rectangles(sheets, stock.survey, lattice))
    # A margin of one anchor pixel: what is half covered may stick out.
    reach = lattice.window(bounds).expanded(1).refined(refine)
    if same_crs(stock.survey.crs, lattice.crs) and b == 0 and d == 0 and a > 0 and e < 0:
        kernel = _kernel(options.resampling, max(pixel / a, pixel / -e))
        # Row r covers northings from -r·pixel down, so it starts at source row (f + r·pixel) / -e.
        steps = ((f / -e, pixel / -e), (-c / a, pixel / a))
        return _Group(mosaic, reach, "axes", steps, kernel)
    side = _metres(stock.survey, _around([sheet.bounds for sheet in sheets]))
    kernel = _kernel(options.resampling, pixel / side)
    warp = Warp(lattice, refine, stock.survey.crs, transform, kernel)
    return _Group(mosaic, reach, "warp", kernel=kernel, warp=warp)


def _kernel(asked: Resampling, ratio: float) -> str:
    """Average where a target pixel covers clearly more than one source pixel."""
    if asked != "auto":
        return asked
    return "average" if ratio > 1.05 else "bilinear"


def _on_lattice(sheet: Sheet, pixel: float) -> Window | None:
    """Place of a sheet on the refined lattice, None where its pixels are others."""
    a, b, c, d, e, f = sheet.transform
    if b or d or a <= 0 or e >= 0:
        return None
    rows, cols = sheet.shape
    edges = (-f / pixel, c / pixel, (-f - e * rows) / pixel, (c + a * cols) / pixel)
    whole = [round(edge) for edge in edges]
    if any(abs(edge - near) > SNAP for edge, near in zip(edges, whole, strict=True)):
        return None
    window = Window.from_edges(*whole)
    return window if window.shape == sheet.shape else None


def _on_grid(sheet: Sheet, transform: Affine6) -> Window | None:
    """Place of a sheet on another sheet's grid, None where its pixels are others."""
    a, b, c, d, e, f = transform
    det = a * e - b * d

    def index(x: float, y: float) -> tuple[float, float]:
        return (a * (y - f) - d * (x - c)) / det, (e * (x - c) - b * (y - f)) / det

    sa, sb, sc, sd, se, sf = sheet.transform
    rows, cols = sheet.shape
    corners = [(0, 0), (0, cols), (rows, 0)]
    places = [index(sc + sa * col + sb * row, sf + sd * col + se * row) for row, col in corners]
    first = round(places[0][0]), round(places[0][1])
    for (row, col), place in zip(corners, places, strict=True):
        if max(abs(place[0] - first[0] - row), abs(place[1] - first[1] - col)) > SNAP:
            return None
    return Window(*first, rows, cols)


def _mosaic(stock: _Stock, members: list[tuple[Sheet, Window]]) -> Mosaic:
    tiles = tuple(Tile(window, _parts(stock, sheet)) for sheet, window in members)
    return Mosaic(tiles, len(stock.bands.bands), stock.dtype, stock.factor, stock.handles)


def _parts(stock: _Stock, sheet: Sheet) -> tuple[Part, ...]:
    """Say which bands of which files make a sheet."""
    parts = []
    for share in sheet.shares:
        numbers = dict(share.bands)
        wanted = [
            (numbers[index], place)
            for place, index in enumerate(stock.bands.indexes)
            if index in numbers
        ]
        if not wanted:
            continue
        alpha = numbers.get(stock.bands.alpha, 0)
        nodata = share.nodata if stock.nodata is None else stock.nodata
        deep = "uint16" in share.facts.dtypes
        parts.append(
            Part(
                path=share.facts.path,
                bands=tuple(band for band, _ in wanted),
                places=tuple(place for _, place in wanted),
                offset=share.offset,
                shape=share.facts.shape,
                nodata=None if nodata == "none" else nodata,
                colours=tuple(n for k, n in share.bands if k != stock.bands.alpha),
                alpha=alpha,
                alpha_from=32768 if deep else 128,
                mask=share.facts.mask,
                stamp=share.facts.stamp,
            )
        )
    return tuple(parts)


def _resampling_decisions(
    layers: Sequence[_Layer], stocks: Sequence[_Stock], lattice: Lattice, refine: int
) -> list[Decision]:
    """Say how each grid comes onto the lattice."""
    decisions = []
    for layer, stock in zip(layers, stocks, strict=True):
        for group in layer.groups:
            option = flag(stock.sensor.name, "resampling")
            if group.how == "copy":
                text, why = "none", "the file's pixels are those of the grid"
            elif group.how == "axes":
                text = group.kernel
                (_, rows), (_, cols) = group.steps
                why = f"one grid pixel is {cols:.6g} × {rows:.6g} pixels of the file, or between"
            else:
                text = f"{group.kernel}, warped"
                why = f"the file is {stock.survey.crs[:60]} or turned, the grid {lattice.crs[:60]}"
            why += f" ({lattice.gsd / refine:g} m; {len(group.mosaic.tiles)} file(s))"
            decisions.append(Decision("resampling", text, why, option))
    return decisions


def _rectangles(sheets: Sequence[Sheet], found: Survey, lattice: Lattice) -> tuple[Bounds, ...]:
    """Rectangles of sheets in the CRS of the lattice."""
    try:
        return tuple(moved_bounds(sheet.bounds, found.crs, lattice.crs) for sheet in sheets)
    except AlignmentError as error:
        raise AlignmentError(
            f"the extent of {found.files[0]} ({found.crs[:40]}) cannot be brought to "
            f"{lattice.crs[:40]}: {error}"
        ) from error


def _around(footprints: Sequence[Bounds]) -> Bounds:
    lefts, bottoms, rights, tops = zip(*footprints, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)
