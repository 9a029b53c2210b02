"""What image files hold: bands, scale and validity, recognised before a lattice is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.modality import Modality, flag
from omnisat_cli.modality import modality as sensor_named
from omnisat_cli.sources.bands import BandMap, Depth, Labels, factor_of, map_bands, scale_to_8_bit
from omnisat_cli.sources.mosaic import Handles, read_window
from omnisat_cli.sources.sheets import Rules, Survey, survey
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.sources.image_options import ImageOptions

_SAMPLED_SHEETS = 8
_SAMPLE_SIDE = 192


@dataclass(frozen=True, slots=True)
class Stock:
    """A survey with its bands named: all that is known before the lattice is."""

    sensor: Modality
    survey: Survey
    bands: BandMap
    factor: float
    dtype: str
    nodata: float | Literal["none"] | None
    decisions: tuple[Decision, ...]
    handles: Handles


def take_stock(
    modality: str, paths: str | Path | Sequence[str | Path], options: ImageOptions
) -> Stock:
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
    depth = Depth(_stored_type(sensor, found, bands, options), found.bits, nodata, options.scale)
    scale = scale_to_8_bit(sensor, depth, bands.indexes, look)
    factor = factor_of(scale)
    decisions = [*bands.decisions, scale]
    decisions += _validity_decisions(sensor, found, options)
    crs = Decision("crs", found.crs[:80], found.remark or "from the files", flag(modality, "crs"))
    decisions.append(replace(crs, warning=found.remark.startswith("its datum")))
    decisions += _missing_squares(found)
    dtype = "uint8" if found.dtype == "uint8" and factor == 1 else "float32"
    return Stock(sensor, found, bands, factor, dtype, options.nodata, tuple(decisions), handles)


def _stored_type(sensor: Modality, found: Survey, bands: BandMap, options: ImageOptions) -> str:
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
        # Bands of an image share their type: where some do not, nothing is guessed by position.
        if options.bands is None or place in bands.indexes
    }
    if len(types) > 1:
        raise SourceError(
            f"{found.files[0]}: its bands are stored as {' and '.join(sorted(types))}; give files "
            f"of one type, or name those of one image with {flag(sensor.name, 'bands')}"
        )
    return types.pop()


def take_infrared(modality: str, options: ImageOptions) -> Stock:
    """Take stock of the colour-infrared files, of which NIR alone is used."""
    if "NIR" not in options.irc_bands:
        option = flag(modality, "irc_bands")
        raise JobError(f"{option} {','.join(options.irc_bands)} names no NIR")
    if options.wanted is not None and "NIR" not in options.wanted:
        raise JobError(f"{flag(modality, 'irc')} is given but the model does not use NIR")
    own = replace(options, bands=options.irc_bands, wanted=("NIR",), irc=())
    return take_stock(modality, options.irc, own)


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
