"""One image per place (aerial, SPOT): describe one, or open it as a source bound to a lattice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omnisat_cli.geo.crs import is_metric
from omnisat_cli.modality import flag
from omnisat_cli.sources.image_grid import (
    around,
    choose_refinement,
    lay_out,
    metres_of,
    rectangles,
    resampling_decisions,
)
from omnisat_cli.sources.image_options import ImageOptions
from omnisat_cli.sources.image_source import ImageSource
from omnisat_cli.sources.image_stock import take_infrared, take_stock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omnisat_cli.geo.lattice import Bounds, Lattice
    from omnisat_cli.sources.values import Decision

__all__ = ["ImageFacts", "ImageOptions", "ImageSource", "describe_image", "open_image"]


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
    dtype: str
    files: tuple[str, ...]
    footprints: tuple[Bounds, ...]
    decisions: tuple[Decision, ...]


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
    stock = take_stock(modality, paths, options)
    footprints = tuple(sheet.bounds for sheet in stock.survey.sheets)
    bounds = around(footprints)
    return ImageFacts(
        modality=modality,
        crs=stock.survey.crs,
        metric=is_metric(stock.survey.crs),
        bounds=bounds,
        gsd=metres_of(stock.survey, bounds),
        bands=stock.bands.bands,
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
    stock = take_stock(modality, paths, options)
    refine, grid_decision = choose_refinement(stock, lattice, options)
    layers, decisions = [lay_out(stock, lattice, refine, options)], [*stock.decisions]
    stocks = [stock]
    if options.irc:
        infrared = take_infrared(modality, options)
        stocks.append(infrared)
        layers.append(lay_out(infrared, lattice, refine, options))
        decisions += [
            replace(d, topic=f"irc {d.topic}", option=flag(modality, "irc_bands"))
            for d in infrared.decisions
        ]
    decisions += [grid_decision, *resampling_decisions(layers, stocks, lattice, refine)]
    names = [band for layer in layers for band in layer.bands]
    return ImageSource(
        modality=modality,
        lattice=lattice,
        refine=refine,
        bands=tuple(band for band in stock.sensor.bands if band in names),
        footprints=rectangles(stock.survey.sheets, stock.survey, lattice),
        decisions=tuple(decisions),
        files=tuple(dict.fromkeys(file for s in stocks for file in s.survey.files)),
        layers=tuple(layers),
        dtype="uint8" if all(s.dtype == "uint8" for s in stocks) else "float32",
    )
