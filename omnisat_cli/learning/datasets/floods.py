"""Sen1Floods11: water in chips of 512 × 512 px of eleven floods, as published.

    v1.1/Sen1Floods11_Metadata.geojson                      events: location, s1_date, s2_date
    v1.1/splits/flood_handlabeled/flood_<train|valid|test|bolivia>_data.csv
    v1.1/data/flood_events/HandLabeled/S1Hand/<event>_<n>_S1Hand.tif        dB: VV, VH
                                       S2Hand/<event>_<n>_S2Hand.tif        13 bands, L1C × 10 000
                                       LabelHand/<event>_<n>_LabelHand.tif  −1, 0, 1 = water

The folder given holds `v1.1`, or is it. Labels of −1 (no data) are not labelled. Bolivia is the
event the authors keep out of the other parts. An event is a group and a fold. Each sensor has one
date, its event's. Bands of 60 m (B01, B09, B10) are not read. The chips are published in degrees,
0.0000898 of them a pixel; they are taken for squares of 10 m, which shortens them from east to
west by the cosine of their latitude. The weakly labelled chips are not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets.layout import (
    first_of,
    need,
    number_groups,
    parse_days,
    read_json,
    read_lines,
    read_raster,
)
from omnisat_cli.learning.datasets.legends import dataset_legend
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.datasets.windows import Windows, cut_of, slices_of
from omnisat_cli.learning.examples import UNLABELLED, Channel, Example, Task
from omnisat_cli.modality import S1_BANDS, S2_BANDS
from omnisat_cli.sources.values import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.learning.datasets.windows import Cut
    from omnisat_cli.outputs.legend import Legend

SPLITS = {"train": "train", "val": "valid", "test": "test", "bolivia": "bolivia"}

_SIDE_PX, _PIXEL_M = 512, 10.0
_DAYS: Final = "day-of-year"
_CHANNELS = (
    Channel("s2", S2_BANDS, _PIXEL_M, "reflectance_1e4", _DAYS),
    Channel("s1", S1_BANDS, _PIXEL_M, "db", _DAYS),
)
_STORED = {"s2": 13, "s1": 2}
_TAKEN = {"s2": [1, 2, 3, 4, 5, 6, 7, 8, 11, 12], "s1": [0, 1]}
_SAMPLES = ("int16", "uint16", "int32", "float32", "float64")
_RENAMED = {"mekong": "cambodia"}
"""Event of the file names to its location in the table, where they differ."""
_LAYOUT = (
    "Sen1Floods11 as published: v1.1/Sen1Floods11_Metadata.geojson, "
    "v1.1/splits/flood_handlabeled/flood_<part>_data.csv, v1.1/data/flood_events/HandLabeled/"
    "<S1Hand|S2Hand|LabelHand>/<event>_<n>_<S1Hand|S2Hand|LabelHand>.tif"
)


@dataclass(frozen=True, slots=True)
class FloodExamples:
    """Windows of hand-labelled chips; see `Examples`. An event is a group.

    Attributes:
        chips: Names, "<event>_<n>".
        dates: Event to the day of each modality, YYYYMMDD.
    """

    name: str
    folder: Path
    chips: tuple[str, ...]
    dates: Mapping[str, Mapping[str, str]]
    channels: tuple[Channel, ...]
    patch_m: float
    cut: Cut
    task: Task = "segmentation"
    legend: Legend = field(default_factory=lambda: dataset_legend("sen1floods11-2"), repr=False)

    @property
    def _windows(self) -> Windows[str]:
        return Windows(self.chips, round(_SIDE_PX * _PIXEL_M / self.patch_m), self.cut)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the event of each window."""
        return np.repeat(number_groups(_event(chip) for chip in self.chips), self._windows.each)

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If a file of its chip is missing or damaged.
        """
        chip, window = self._windows.place(index)
        data = {channel.name: self._read(chip, channel.name, window) for channel in self.channels}
        return replace(self.labels(index), sample=Sample(window, dict(data)))

    def labels(self, index: int) -> Example:
        """Read the labels of one window.

        Raises:
            SourceError: If the label of its chip is missing or damaged.
        """
        chip, window = self._windows.place(index)
        path = self._path(chip, "LabelHand")
        samples = ("int8", "int16", "int32", "float32")
        stored = read_raster(path, 1, samples, (_SIDE_PX, _SIDE_PX), self._area(window))[0]
        strange = np.setdiff1d(stored, (-1, 0, 1))
        if strange.size:
            raise SourceError(f"{path} holds {strange[0]}; labels are -1, 0 and 1")
        classes = np.where(stored < 0, UNLABELLED, stored).astype(np.uint8)
        return Example(Sample(window), classes=classes)

    def _read(self, chip: str, name: str, window: Window) -> Series:
        path, size = self._path(chip, f"{name.upper()}Hand"), (_SIDE_PX, _SIDE_PX)
        pixels = read_raster(path, _STORED[name], _SAMPLES, size, self._area(window))
        days = parse_days([self.dates[_event(chip)][name]], self.folder)
        return as_series(pixels[None, _TAKEN[name]], days)

    def _path(self, chip: str, kind: str) -> Path:
        folder = self.folder / "data" / "flood_events" / "HandLabeled" / kind
        return need(folder / f"{chip}_{kind}.tif", _LAYOUT)

    def _area(self, window: Window) -> tuple[slice, slice]:
        return slices_of(window, round(self.patch_m / _PIXEL_M))


def open_examples(request: Request) -> FloodExamples:
    """Open the hand-labelled part of Sen1Floods11.

    Raises:
        JobError: If a part, an event or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    request.refuse("task", "clouds", "legend")
    patch_m = request.patch(40.0, 10.0, 20.0, 80.0)
    patches = round(_SIDE_PX * _PIXEL_M / patch_m)
    cut = cut_of(request.options.side, request.options.stride, patches)
    if cut.side > patches:
        raise JobError(
            f"a chip has {patches} patches of {patch_m:g} m a side, fewer than {cut.side}"
        )
    folder = first_of((request.root / "v1.1" / "splits", request.root / "splits"), _LAYOUT).parent
    chips = _of_events(request, _of_split(request, folder))
    channels = request.chosen(_CHANNELS)
    return FloodExamples(
        name=request.title,
        folder=folder,
        chips=chips,
        dates=_read_dates(folder, dict.fromkeys(_event(chip) for chip in chips), channels),
        channels=channels,
        patch_m=patch_m,
        cut=cut,
    )


def _event(chip: str) -> str:
    return chip.rsplit("_", 1)[0]


def _of_split(request: Request, folder: Path) -> tuple[str, ...]:
    """Return the chips of a part, in the order they are listed in."""
    if request.split not in (None, *SPLITS):
        raise JobError(f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}")
    parts = SPLITS.values() if request.split is None else (SPLITS[request.split],)
    chips: list[str] = []
    for part in parts:
        path = need(folder / "splits" / "flood_handlabeled" / f"flood_{part}_data.csv", _LAYOUT)
        for line in read_lines(path):
            chip, found, _ = line.partition("_S1Hand.tif")
            if not found or "_" not in chip:
                raise SourceError(f"{path}: {line!r} names no file <event>_<n>_S1Hand.tif")
            chips.append(chip)
    return tuple(chips)


def _of_events(request: Request, chips: tuple[str, ...]) -> tuple[str, ...]:
    there = dict.fromkeys(_event(chip) for chip in chips)
    unknown = [fold for fold in request.folds if fold not in there]
    if unknown:
        raise JobError(
            f"{request.name} has no event {', '.join(unknown)} there; it has {', '.join(there)}"
        )
    return tuple(chip for chip in chips if not request.folds or _event(chip) in request.folds)


def _read_dates(
    folder: Path, events: Iterable[str], channels: Iterable[Channel]
) -> dict[str, dict[str, str]]:
    """Return the days of each event, as eight digits."""
    path = need(folder / "Sen1Floods11_Metadata.geojson", _LAYOUT)
    content = read_json(path)
    names = [channel.name for channel in channels]
    try:
        rows = [feature["properties"] for feature in content["features"]]  # type: ignore[index]
        stated = {
            _plain(row["location"]): {
                name: str(row[f"{name}_date"])[:10].replace("/", "").replace("-", "")
                for name in names
            }
            for row in rows
        }
    except (KeyError, TypeError) as error:
        raise SourceError(f"{path} is no table of events: {error!r}") from error
    dates = {}
    for event in events:
        found = stated.get(_plain(event)) or stated.get(_RENAMED.get(_plain(event), ""))
        if found is None:
            raise SourceError(f"{path} has no event {event}; it has {', '.join(sorted(stated))}")
        parse_days(found.values(), path)
        dates[event] = found
    return dates


def _plain(text: object) -> str:
    """Return letters alone: "Sri-Lanka" and "Sri Lanka" are one place."""
    return "".join(letter for letter in str(text).lower() if letter.isalpha())
