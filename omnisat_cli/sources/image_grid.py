"""How the sheets of an image come onto the lattice: copied, resampled or warped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from omnisat_cli.errors import AlignmentError, JobError
from omnisat_cli.geo.crs import is_metric, metres, moved_bounds, same_crs
from omnisat_cli.geo.lattice import Bounds, Lattice, Window
from omnisat_cli.modality import flag
from omnisat_cli.sources.image_source import Group, Layer
from omnisat_cli.sources.mosaic import SNAP, Mosaic, Part, Tile
from omnisat_cli.sources.resample import Affine6, Warp
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnisat_cli.sources.image_options import ImageOptions, Resampling
    from omnisat_cli.sources.image_stock import Stock
    from omnisat_cli.sources.sheets import Sheet, Survey


def choose_refinement(
    stock: Stock, lattice: Lattice, options: ImageOptions
) -> tuple[int, Decision]:
    """Decide how many pixels go along one anchor pixel."""
    if not is_metric(lattice.crs):
        raise AlignmentError(
            f"the map grid is in {lattice.crs[:60]}, which is not in metres; choose a projected "
            "CRS with --crs EPSG:n"
        )
    own = metres_of(stock.survey, around([sheet.bounds for sheet in stock.survey.sheets]))
    wanted = options.gsd or own
    if not (math.isfinite(wanted) and wanted > 0):
        raise JobError(f"a pixel size of {wanted} m is impossible")
    refine = max(1, round(lattice.gsd / wanted))
    reason = f"the model's {options.gsd:g} m" if options.gsd else f"the image's own {own:.6g} m"
    value = f"{lattice.gsd / refine:g} m, {refine} px along one {lattice.gsd:g} m anchor pixel"
    off = abs(lattice.gsd / refine - wanted) > 1e-3 * wanted
    because = f"{reason}; the files have {own:.6g} m"
    return refine, Decision("pixel size", value, because, warning=off)


def metres_of(found: Survey, bounds: Bounds) -> float:
    """Pixel size of the first sheet in metres, the larger side."""
    a, b, _, d, e, _ = found.sheets[0].transform
    middle = (bounds[1] + bounds[3]) / 2
    return metres(found.crs, math.hypot(a, d), math.hypot(b, e), middle)


def lay_out(stock: Stock, lattice: Lattice, refine: int, options: ImageOptions) -> Layer:
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
        groups.append(Group(copied, copied.extent, "copy"))
    for transform, members in grids:
        groups.append(_resampled_group(stock, (transform, members), (lattice, refine), options))
    return Layer(stock.bands.bands, tuple(groups))


def _resampled_group(
    stock: Stock,
    grid: tuple[Affine6, list[tuple[Sheet, Window]]],
    target: tuple[Lattice, int],
    options: ImageOptions,
) -> Group:
    """Decide how one grid that is not the lattice's comes onto it."""
    (transform, members), (lattice, refine) = grid, target
    pixel = lattice.gsd / refine
    a, b, c, d, e, f = transform
    mosaic = _mosaic(stock, members)
    sheets = [sheet for sheet, _ in members]
    bounds = around(rectangles(sheets, stock.survey, lattice))
    # A margin of one anchor pixel: what is half covered may stick out.
    reach = lattice.window(bounds).expanded(1).refined(refine)
    if same_crs(stock.survey.crs, lattice.crs) and b == 0 and d == 0 and a > 0 and e < 0:
        kernel = _kernel(options.resampling, max(pixel / a, pixel / -e))
        # Row r covers northings from -r·pixel down, so it starts at source row (f + r·pixel) / -e.
        steps = ((f / -e, pixel / -e), (-c / a, pixel / a))
        return Group(mosaic, reach, "axes", steps, kernel)
    side = metres_of(stock.survey, around([sheet.bounds for sheet in sheets]))
    kernel = _kernel(options.resampling, pixel / side)
    warp = Warp(lattice, refine, stock.survey.crs, transform, kernel)
    return Group(mosaic, reach, "warp", kernel=kernel, warp=warp)


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


def _mosaic(stock: Stock, members: list[tuple[Sheet, Window]]) -> Mosaic:
    tiles = tuple(Tile(window, _parts(stock, sheet)) for sheet, window in members)
    return Mosaic(tiles, len(stock.bands.bands), stock.dtype, stock.factor, stock.handles)


def _parts(stock: Stock, sheet: Sheet) -> tuple[Part, ...]:
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


def resampling_decisions(
    layers: Sequence[Layer], stocks: Sequence[Stock], lattice: Lattice, refine: int
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


def rectangles(sheets: Sequence[Sheet], found: Survey, lattice: Lattice) -> tuple[Bounds, ...]:
    """Rectangles of sheets in the CRS of the lattice."""
    try:
        return tuple(moved_bounds(sheet.bounds, found.crs, lattice.crs) for sheet in sheets)
    except AlignmentError as error:
        raise AlignmentError(
            f"the extent of {found.files[0]} ({found.crs[:40]}) cannot be brought to "
            f"{lattice.crs[:40]}: {error}"
        ) from error


def around(footprints: Sequence[Bounds]) -> Bounds:
    """Return the smallest rectangle that holds all of them."""
    lefts, bottoms, rights, tops = zip(*footprints, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)
