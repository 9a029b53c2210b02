"""SICKLE: paddy and other crops around plots of the Cauvery delta, India, as published.

    sickle_dataset_tabular.csv        samples: UNIQUE_ID, PLOT_ID, SPLIT, STANDARD_SEASON, YEAR, …
    images/S2/npy/<id>/*.npz          a file a date, a plane a band: B2 … B12, × 10 000
    images/S1/npy/<id>/*.npz          VV, VH in dB
    images/L8/npy/<id>/*.npz          SR_B1 … SR_B7, numbers of Landsat Collection 2
    masks/10m/<id>.tif                first layer: plot, second: crop, 1 = paddy

As in the official benchmark: planes of whatever size are brought to 32 × 32 px of 10 m by nearest
neighbour, Landsat too; images lie within 183 days of the first of the season's first month; crops
beside paddy are one class; plots of other splits are not labelled. Not as there: images with many
zeros are kept, their zeros not valid. An image that lacks a band is left out. The thermal band is
not read: many images lack it. Only plots that were visited are labelled.

Where a plot lies is not published. Its number is the group, so the seasons of one plot stay
together; windows of neighbouring plots may still overlap.
"""

from __future__ import annotations

import csv
import datetime
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets.layout import (
    need,
    number_groups,
    parse_days,
    read_lines,
    read_npz,
    read_raster,
)
from omnisat_cli.learning.datasets.legends import dataset_legend
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.datasets.windows import Windows, cut_of, slices_of
from omnisat_cli.learning.examples import UNLABELLED, Channel, Example, Task
from omnisat_cli.modality import S1_BANDS, S2_BANDS
from omnisat_cli.sources.values import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.learning.datasets.windows import Cut
    from omnisat_cli.outputs.legend import Legend

SPLITS = ("train", "val", "test")

_SIDE_PX, _PIXEL_M, _SEASON_DAYS = 32, 10.0, 183
_DAYS: Final = "day-of-year"
_REFLECTIVE = ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
_CHANNELS = (
    Channel("s2", S2_BANDS, _PIXEL_M, "reflectance_1e4", _DAYS),
    Channel("s1", S1_BANDS, _PIXEL_M, "db", _DAYS),
    Channel("l8", _REFLECTIVE, _PIXEL_M, "reflectance_1e4", _DAYS),
)
_PLANES = {
    "s2": tuple(band.replace("B0", "B") for band in S2_BANDS),
    "s1": S1_BANDS,
    "l8": tuple(f"SR_{band}" for band in _REFLECTIVE),
}
_DATED_PART = {"s1": 4, "l8": 2}
"""Which part of a product's name is its date; of Sentinel-2 it depends on the name's form."""
_GAIN, _OFFSET = 2.75e-5, -0.2
"""Surface reflectance of Landsat Collection 2, Level 2."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_COLUMNS = ("UNIQUE_ID", "PLOT_ID", "SPLIT", "STANDARD_SEASON", "YEAR")
_SAMPLES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")
_LAYOUT = (
    "SICKLE as published: sickle_dataset_tabular.csv, images/<S2|S1|L8>/npy/<id>/*.npz, "
    "masks/10m/<id>.tif"
)


@dataclass(frozen=True, slots=True)
class _Plot:
    """One line of the table: one season of one plot."""

    id: int
    plot: int
    split: str
    first: str


@dataclass(frozen=True, slots=True)
class PaddyExamples:
    """Windows of samples; see `Examples`. A plot is a group."""

    name: str
    root: Path
    plots: tuple[_Plot, ...]
    channels: tuple[Channel, ...]
    patch_m: float
    cut: Cut
    task: Task = "segmentation"
    legend: Legend = field(default_factory=lambda: dataset_legend("sickle-2"), repr=False)

    @property
    def _windows(self) -> Windows[_Plot]:
        return Windows(self.plots, round(_SIDE_PX * _PIXEL_M / self.patch_m), self.cut)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the plot of each window."""
        return np.repeat(number_groups(str(plot.plot) for plot in self.plots), self._windows.each)

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If a file of its sample is missing or damaged.
        """
        plot, window = self._windows.place(index)
        data = {}
        for channel in self.channels:
            series = self._read_series(plot, channel.name, window)
            if series is not None:
                data[channel.name] = series
        return replace(self.labels(index), sample=Sample(window, dict(data)))

    def labels(self, index: int) -> Example:
        """Read the labels of one window.

        Raises:
            SourceError: If the mask of its sample is missing or damaged.
        """
        plot, window = self._windows.place(index)
        path = self.root / "masks" / "10m" / f"{plot.id}.tif"
        stored = read_raster(path, None, _SAMPLES, None)
        if len(stored) < 2:
            raise SourceError(f"{path} has one layer; expected plots, crops and more")
        rows, cols = slices_of(window, round(self.patch_m / _PIXEL_M))
        layers = (_resize(layer)[rows, cols].astype(np.float64) for layer in stored[:2])
        numbers, crops = (np.nan_to_num(layer) for layer in layers)
        kept = {other.plot for other in self.plots if other.split == plot.split}
        parcels = np.where(np.isin(numbers, tuple(kept)), numbers, 0).astype(np.int32)
        labelled = (parcels > 0) & (crops >= 1)
        classes = np.where(labelled, crops > 1, UNLABELLED).astype(np.uint8)
        return Example(Sample(window), classes=classes, parcels=parcels)

    def _read_series(self, plot: _Plot, name: str, window: Window) -> Series | None:
        """Read the images of the season; None where there is none."""
        folder = need(self.root / "images" / name.upper() / "npy" / str(plot.id), _LAYOUT)
        images, days = [], []
        for path in sorted(folder.glob("*.npz")):
            day = _day_of(path, name)
            if not -1 <= (day - np.datetime64(plot.first)).astype(int) < _SEASON_DAYS:
                continue
            planes = read_npz(path, _PLANES[name], "iuf")
            if len(planes) == len(_PLANES[name]):
                images.append(np.stack([_resize(planes[band]) for band in _PLANES[name]]))
                days.append(day)
        if not images:
            return None
        stack = np.stack(images).astype(np.float32)
        if name == "l8":
            stack = np.where(stack == 0, np.nan, (stack * _GAIN + _OFFSET) * 10_000)
        rows, cols = slices_of(window, round(self.patch_m / _PIXEL_M))
        return as_series(stack[..., rows, cols], np.array(days))


def open_examples(request: Request) -> PaddyExamples:
    """Open SICKLE.

    Raises:
        JobError: If a part or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    request.refuse("folds", "task", "clouds", "legend")
    patch_m = request.patch(10.0, 20.0, 40.0)
    patches = round(_SIDE_PX * _PIXEL_M / patch_m)
    cut = cut_of(request.options.side, request.options.stride, patches)
    if cut.side > patches:
        raise JobError(
            f"a sample has {patches} patches of {patch_m:g} m a side, fewer than {cut.side}"
        )
    channels = request.chosen(_CHANNELS)
    plots = _read_table(request)
    for channel in channels:
        need(request.root / "images" / channel.name.upper() / "npy", _LAYOUT)
    for plot in plots:
        need(
            request.root / "masks" / "10m" / f"{plot.id}.tif",
            f"{_LAYOUT}; where labels of the test part are held back, ask for train or val",
        )
    return PaddyExamples(
        name=request.title,
        root=request.root,
        plots=plots,
        channels=channels,
        patch_m=patch_m,
        cut=cut,
    )


def _read_table(request: Request) -> tuple[_Plot, ...]:
    if request.split not in (None, *SPLITS):
        raise JobError(f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}")
    path = need(request.root / "sickle_dataset_tabular.csv", _LAYOUT)
    reader = csv.DictReader(read_lines(path))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise SourceError(f"{path} has no column {', '.join(missing)}; it is not that of the set")
    try:
        plots = [_plot_of(row) for row in reader]
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SourceError(f"{path} is no table of samples: {error}") from error
    kept = tuple(plot for plot in plots if request.split in (None, plot.split))
    if not kept:
        raise SourceError(f"{request.title}: no sample of it in {path}")
    return kept


def _plot_of(row: Mapping[str, str]) -> _Plot:
    """Read one line of the table.

    Raises:
        ValueError: If it is none.
    """
    month = _MONTHS.index(row["STANDARD_SEASON"].strip().lower()[:3]) + 1
    first = datetime.date(int(float(row["YEAR"])), month, 1)
    plot, number = int(float(row["PLOT_ID"])), int(float(row["UNIQUE_ID"]))
    return _Plot(number, plot, row["SPLIT"].strip(), first.isoformat())


def _day_of(path: Path, name: str) -> np.datetime64:
    """Return the day that the name of a product states."""
    parts = path.stem.split("_")
    part = _DATED_PART.get(name, int(path.stem.startswith("T")))
    if part >= len(parts):
        raise SourceError(f"{path} is not named like a product: part {part + 1} is its date")
    day: np.datetime64 = parse_days([parts[part][:8]], path)[0]
    return day


def _resize(plane: NDArray[np.generic]) -> NDArray[np.generic]:
    """Bring a plane to 32 × 32 px by nearest neighbour."""
    rows, cols = (np.arange(_SIDE_PX) * size // _SIDE_PX for size in plane.shape)
    return plane[np.ix_(rows, cols)]
