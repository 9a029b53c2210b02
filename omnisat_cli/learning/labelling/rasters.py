"""Labels from a raster of codes, in any CRS and at any pixel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.crs import moved_bounds, mover, name_crs, same_crs, short_crs
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.learning.labelling.classes import MOST_CLASSES, Codes
from omnisat_cli.learning.labelling.grid import grid_of_frame
from omnisat_cli.sources.facts import category_names, survey_file
from omnisat_cli.sources.safe import open_raster, read_head
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Lattice, Window
    from omnisat_cli.learning.labelling.classes import Scheme
    from omnisat_cli.learning.labelling.grid import MapGrid
    from omnisat_cli.learning.labelling.request import Ground, LabelRequest
    from omnisat_cli.outputs.legend import Legend

_MOST_READ = 2**24
"""Pixels of labels read at a time."""

_MOST_CODES = 1000
_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class CodeRaster:
    """A raster of codes and where it lies.

    Attributes:
        path: The file.
        crs: Its CRS.
        transform: (a, b, c, d, e, f) from (col, row) to (x, y).
        shape: (height, width).
        nodata: Value that means no label, or None.
        band: Which of its bands, from 1.
    """

    path: str
    crs: str
    transform: tuple[float, ...]
    shape: tuple[int, int]
    nodata: float | None
    band: int = 1

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in its CRS."""
        a, b, c, d, e, f = self.transform
        height, width = self.shape
        xs = [c + a * col + b * row for col in (0, width) for row in (0, height)]
        ys = [f + d * col + e * row for col in (0, width) for row in (0, height)]
        return min(xs), min(ys), max(xs), max(ys)

    def pixels(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return row and column of the pixels that hold some points."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        with np.errstate(invalid="ignore"):
            cols = np.floor((e * (x - c) - b * (y - f)) / det + 1e-9)
            rows = np.floor((a * (y - f) - d * (x - c)) / det + 1e-9)
        far = np.iinfo(np.int64).min // 2
        whole = [np.where(np.isfinite(v), v, far).astype(np.int64) for v in (rows, cols)]
        return whole[0], whole[1]

    def read(self, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.int64]:
        """Read some pixels, half-open; -1 where there is no label.

        Raises:
            SourceError: If the file is damaged or holds numbers that are not whole.
        """
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as Part

        part = Part(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])
        try:
            with open_raster(self.path) as dataset:
                raw = dataset.read(self.band, window=part)
        except RasterioError as error:
            raise SourceError(f"{self.path}: cannot be read ({error}); copy it again") from error
        empty = np.zeros(raw.shape, bool) if self.nodata is None else raw == self.nodata
        if raw.dtype.kind == "f":
            empty |= ~np.isfinite(raw)
            broken = raw[~empty & (raw != np.floor(raw))]
            if broken.size:
                raise SourceError(
                    f"{self.path}: holds {broken[0]:g}: a measurement, not the code of a class"
                )
        return np.where(empty, -1, np.where(empty, 0, raw).astype(np.int64))

    def laid_on(self, grid: MapGrid) -> NDArray[np.int64]:
        """Give each pixel of a map the code under its centre; -1 where there is no label.

        Raises:
            SourceError: As `read`.
        """
        codes = np.full((grid.height, grid.width), -1, np.int64)
        for part in self._parts(grid, grid.whole):
            self._fill(grid.part(part), codes[part.slices_in(grid.whole)])
        return codes

    def _parts(self, grid: MapGrid, window: Window) -> Iterator[Window]:
        """Cut a window until the labels under each part are few enough to be read at once."""
        rows, cols = self._under(grid.part(window))
        height, width = self.shape
        inside = (
            max(0, min(int(rows.max()) + 1, height) - max(int(rows.min()), 0)),
            max(0, min(int(cols.max()) + 1, width) - max(int(cols.min()), 0)),
        )
        if inside[0] * inside[1] <= _MOST_READ or window.height * window.width == 1:
            yield window
            return
        tall = window.height >= window.width
        half = max(window.height, window.width) // 2
        if tall:
            yield from self._parts(grid, replace(window, height=half))
            rest = replace(window, row=window.row + half, height=window.height - half)
        else:
            yield from self._parts(grid, replace(window, width=half))
            rest = replace(window, col=window.col + half, width=window.width - half)
        yield from self._parts(grid, rest)

    def _fill(self, grid: MapGrid, codes: NDArray[np.int64]) -> None:
        """Write the labels of a grid into the part of an array that is its own."""
        rows, cols = np.broadcast_arrays(*self._under(grid))
        height, width = self.shape
        there = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        if not there.any():
            return
        row, col = rows[there], cols[there]
        first, start = int(row.min()), int(col.min())
        found = self.read((first, int(row.max()) + 1), (start, int(col.max()) + 1))
        codes[there] = found[row - first, col - start]

    def _under(self, grid: MapGrid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and columns of the labels under a grid, to be broadcast."""
        x, y = grid.centres()
        if not same_crs(grid.crs, self.crs):
            xs, ys = np.broadcast_arrays(x, y)
            x, y, *_ = mover(grid.crs, self.crs).transform(xs, ys)
        return self.pixels(x, y)


@dataclass(frozen=True, slots=True)
class RasterLabels:
    """A raster of codes as classes; see `labels.Labels`.

    Attributes:
        legend: The classes.
        decisions: What was recognised or left out.
        raster: The file.
        crs: CRS of the lattice.
        meaning: Code of the raster to legend code.
    """

    legend: Legend
    decisions: tuple[Decision, ...]
    raster: CodeRaster
    crs: str
    meaning: dict[int, int]

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top in the CRS of the lattice."""
        return moved_bounds(self.raster.bounds, self.raster.crs, self.crs)

    def burn(self, lattice: Lattice, window: Window, refine: int) -> tuple[NDArray[np.uint8], None]:
        """Give each pixel the label under its centre; borders are not known."""
        return self._classes(self.raster.laid_on(grid_of_frame(lattice, window, refine))), None

    def _classes(self, codes: NDArray[np.int64]) -> NDArray[np.uint8]:
        known = np.array(sorted(self.meaning), np.int64)
        to = np.array([self.meaning[code] for code in known.tolist()], np.uint8)
        place = np.searchsorted(known, codes).clip(max=len(known) - 1)
        return np.where(known[place] == codes, to[place], np.uint8(UNLABELLED))


@dataclass(frozen=True, slots=True)
class RasterSurvey:
    """A raster whose codes mean nothing yet; see `labels.Survey`."""

    raster: CodeRaster
    crs: str
    codes: Codes
    decisions: tuple[Decision, ...]

    def labelled(self, scheme: Scheme) -> RasterLabels:
        """Give the codes their meaning."""
        meaning = {int(word): scheme.code_of(word) for word in self.codes.counts}
        if all(code == UNLABELLED for code in meaning.values()):
            raise JobError(f"{self.raster.path}: the class table leaves out every code")
        decisions = (*self.decisions, *scheme.decisions)
        return RasterLabels(scheme.legend, decisions, self.raster, self.crs, meaning)


def is_raster(place: Path) -> bool:
    """Whether a file of labels is a raster, told by its first bytes; a folder is none."""
    return not place.is_dir() and read_head(place, 4) in _HEADS


def survey_raster(request: LabelRequest, ground: Ground) -> RasterSurvey:
    """Open a raster of codes and count those over the imagery, strip by strip.

    Raises:
        AlignmentError: If it does not meet the imagery or states no place.
        JobError: If its field names no band or is needed, or it holds far too many codes.
        SourceError: If it is damaged or holds measurements.
    """
    facts = survey_file(request.path)
    band = code_band(request.path, facts.descriptions, request.field)
    if not facts.placed or not (facts.crs or request.crs):
        raise AlignmentError(
            f"{request.path}: does not say where it lies; state its CRS with --labels-crs EPSG:n"
        )
    crs = facts.crs if request.crs is None else name_crs(request.crs)[0]
    raster = CodeRaster(request.path, crs, facts.transform, facts.shape, facts.nodata, band)
    ground.refuse_apart(moved_bounds(raster.bounds, crs, ground.crs), request.path)
    counts = _counts(raster, ground)
    if not counts:
        raise AlignmentError(
            f"{request.path}: has no label over the imagery, though both cover common ground"
        )
    because = "given with --labels-crs" if request.crs else "the file itself"
    decisions = (
        Decision("labels crs", short_crs(crs), because, "--labels-crs"),
        Decision(
            "labels",
            f"{sum(counts.values())} pixels of {len(counts)} codes",
            f"{request.path} over the imagery; each pixel takes the label under its centre",
        ),
    )
    words = {str(code): count for code, count in counts.items()}
    known = enumerate(category_names(request.path, band))
    names = {str(code): name for code, name in known if name}
    codes = Codes(words, "pixels", request.path, names)
    return RasterSurvey(raster, ground.crs, codes, decisions)


def code_band(path: str, descriptions: Sequence[str | None], field: str | None) -> int:
    """Return the band of a raster that holds the codes, from 1.

    Args:
        path: The raster, for messages.
        descriptions: What each band is called, if anything.
        field: Name or number of the band; None where there is one only.

    Raises:
        JobError: If no band is called so, or there are several and none is named.
    """
    names = [text or str(number) for number, text in enumerate(descriptions, start=1)]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    for known in (names, numbers):
        if field in known:
            return known.index(field) + 1
    shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    if field is not None:
        raise JobError(f"--field {field}: {path} is a raster, its bands are {shown}")
    if len(names) > 1:
        raise JobError(
            f"{path}: has {len(names)} bands; say which one holds the code of the class, by its "
            f"name or number: --field {names[0]} (bands: {shown})"
        )
    return 1


def _counts(raster: CodeRaster, ground: Ground) -> Counter[int]:
    """Count the codes in the rectangle of the raster that holds the imagery."""
    counts: Counter[int] = Counter()
    for rows, cols in _strips(raster, ground):
        codes, times = np.unique(raster.read(rows, cols), return_counts=True)
        counts.update(dict(zip(codes.tolist(), times.tolist(), strict=True)))
        if len(counts) > _MOST_CODES:
            raise JobError(
                f"{raster.path}: more than {_MOST_CODES} different values; labels are codes of at "
                f"most {MOST_CLASSES} classes"
            )
    counts.pop(-1, None)
    # 255 is how class maps, ours too, say that there is no class.
    if raster.nodata is None:
        counts.pop(UNLABELLED, None)
    return counts


def _strips(
    raster: CodeRaster, ground: Ground
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    left, bottom, right, top = moved_bounds(ground.bounds, ground.crs, raster.crs)
    x, y = np.array([left, left, right, right]), np.array([bottom, top, bottom, top])
    rows, cols = raster.pixels(x, y)
    height, width = raster.shape
    first, last = max(0, int(rows.min())), min(height, int(rows.max()) + 1)
    start, end = max(0, int(cols.min())), min(width, int(cols.max()) + 1)
    if end <= start:
        return
    step = max(1, _MOST_READ // (end - start))
    for row in range(first, last, step):
        yield (row, min(row + step, last)), (start, end)
