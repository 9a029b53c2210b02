"""TimeSen2Crop: crops of a million pixels of Austria, one Sentinel-2 series each, as published.

    <tile>/dates.csv            acquisition_date, one a line, YYYYMMDD
    <tile>/<class>/<n>.csv      T lines of ten columns: B02, B03, B04, B05, B06, B07, B8A, B11, B12
                                × 10 000, and 0 = clear, 1 = cloud, 2 = shadow, 3 = snow

The folder given holds the tiles, or a folder `TimeSen2Crop` or `Dataset` that does. There is no
band B08. A class folder is named by its code, 0 to 15; a pixel is a place of one patch of 10 m.
Tiles are folds and groups; 2019_33UVP is the ground of 33UVP a year later and in its group. No
official parts are published as files. All dates are delivered as they are; `clouds="mask"` masks
those that are not clear.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.datasets.layout import number_groups, parse_days, read_lines
from omnisat_cli.learning.datasets.legends import dataset_legend
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.sources.values import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.outputs.legend import Legend

CLASSES = 16

_BANDS = tuple(band for band in S2_BANDS if band != "B08")
_DAYS: Final = "day-of-year"
_CHANNELS = (Channel("s2", _BANDS, 10.0, "reflectance_1e4", _DAYS),)
_LAYOUT = "TimeSen2Crop as published: <tile>/dates.csv, <tile>/<class 0 to 15>/<n>.csv"


@dataclass(frozen=True, slots=True)
class _Run:
    """Pixels of one class in one tile that are numbered on end: a million paths are not kept."""

    tile: str
    code: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class CropPixelExamples:
    """Pixels, tile by tile and class by class; see `Examples`."""

    name: str
    folder: Path
    runs: tuple[_Run, ...]
    channels: tuple[Channel, ...]
    masked: bool
    patch_m: float = 10.0
    task: Task = "segmentation"
    legend: Legend = field(default_factory=lambda: dataset_legend("timesen2crop-16"), repr=False)

    def __len__(self) -> int:
        """Return the number of pixels."""
        return sum(run.count for run in self.runs)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the tile of each pixel."""
        tiles = number_groups(run.tile.rsplit("_", 1)[-1] for run in self.runs)
        return np.repeat(tiles, [run.count for run in self.runs])

    def example(self, index: int) -> Example:
        """Read one pixel.

        Raises:
            SourceError: If its file or the dates of its tile are missing or damaged.
        """
        run, number = self._place(index)
        path = self.folder / run.tile / str(run.code) / f"{number}.csv"
        labels = self.labels(index)
        sample = Sample(labels.sample.window, {"s2": self._read(path)})
        return replace(labels, sample=sample)

    def labels(self, index: int) -> Example:
        """Return the class of one pixel: its folder says it."""
        run, _ = self._place(index)
        return Example(Sample(Window(0, 0, 1, 1)), classes=np.array([[run.code]], np.uint8))

    def _read(self, path: Path) -> Series:
        dates = path.parents[1] / "dates.csv"
        days = parse_days(read_lines(dates)[1:], dates)
        rows = [line.split(",") for line in read_lines(path)[1:]]
        try:
            table = np.array(rows, dtype=np.float32)
        except ValueError as error:
            raise SourceError(f"{path} is damaged or cut short: {error}") from error
        if table.shape != (len(days), len(_BANDS) + 1):
            raise SourceError(
                f"{path} is {' × '.join(map(str, table.shape))}, expected {len(days)} dates of "
                f"{dates} × {len(_BANDS)} bands and a flag"
            )
        hidden = table[:, -1, None, None] != 0 if self.masked else None
        return as_series(table[:, :-1, None, None], days, hidden)

    def _place(self, index: int) -> tuple[_Run, int]:
        if index >= 0:
            for run in self.runs:
                if index < run.count:
                    return run, run.first + index
                index -= run.count
        raise IndexError(f"a pixel beyond the {len(self)} of {self.name}")


def open_examples(request: Request) -> CropPixelExamples:
    """Open TimeSen2Crop.

    Raises:
        JobError: If a tile or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    request.refuse("split", "task", "legend", "side", "stride")
    folder = _folder(request.root)
    tiles = sorted(path.parent.name for path in folder.glob("*/dates.csv"))
    unknown = [fold for fold in request.folds if fold not in tiles]
    if unknown:
        raise JobError(
            f"{request.name} has no tile {', '.join(unknown)} there; it has {', '.join(tiles)}"
        )
    kept = [tile for tile in tiles if not request.folds or tile in request.folds]
    runs = tuple(run for tile in kept for run in _list_pixels(folder, tile))
    if not runs:
        raise SourceError(f"{request.title}: {folder} holds no pixel; expected {_LAYOUT}")
    return CropPixelExamples(
        name=request.title,
        folder=folder,
        runs=runs,
        channels=request.chosen(_CHANNELS),
        masked=request.options.clouds == "mask",
        patch_m=request.patch(10.0),
    )


def _folder(root: Path) -> Path:
    """Return the folder that holds the tiles."""
    for folder in (root, root / "TimeSen2Crop", root / "Dataset"):
        if any(folder.glob("*/dates.csv")):
            return folder
    raise SourceError(f"{root} holds no <tile>/dates.csv; expected {_LAYOUT}")


def _list_pixels(folder: Path, tile: str) -> Iterator[_Run]:
    """List the pixels of a tile, class by class."""
    for code in range(CLASSES):
        place = folder / tile / str(code)
        if not place.is_dir():
            continue  # not every crop grows in every tile
        numbers = np.array(sorted(_numbers(place)), dtype=np.int64)
        for part in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
            if part.size:
                yield _Run(tile, code, int(part[0]), int(part.size))


def _numbers(place: Path) -> Iterator[int]:
    with os.scandir(place) as entries:
        for entry in entries:
            stem, dot, ending = entry.name.rpartition(".")
            if not dot or ending != "csv":
                continue
            if not stem.isdecimal() or str(int(stem)) != stem:
                raise SourceError(f"{entry.path} is not named by a number; expected {_LAYOUT}")
            yield int(stem)
