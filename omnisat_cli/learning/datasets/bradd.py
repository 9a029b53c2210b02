"""BraDD-S1TS: forest loss in the Brazilian Amazon from Sentinel-1 series, as published.

    meta.csv              samples: file, state, alert_idx, close_set = train, validation or test, …
    Samples/<file>.pt     image (T, 2, 48, 48) dB: VV, VH; image_dates; label (t, 48, 48) 0 or 1,
                          deforested on each of label_dates

A sample's class is 1 where its last label differs from its first: forest lost between those dates,
the change the official experiments learn. All dates are delivered, those after the last label too.
Samples of one alert lie side by side and are a group; a state is a fold. Pixels are taken to be
of 10 m, which the publication does not state.

The samples are files of torch. They are read without running anything: only arrays and dates are
admitted.
"""

from __future__ import annotations

import csv
import datetime
import pickle
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from omnisat_cli.errors import JobError, SecurityError, SourceError
from omnisat_cli.learning.datasets.layout import need, number_groups, read_lines
from omnisat_cli.learning.datasets.legends import dataset_legend
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.datasets.windows import Windows, cut_of, slices_of
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.modality import S1_BANDS
from omnisat_cli.sources.values import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.learning.datasets.windows import Cut
    from omnisat_cli.outputs.legend import Legend

SPLITS = {"train": "train", "val": "validation", "test": "test"}

_SIDE_PX, _PIXEL_M = 48, 10.0
_DAYS: Final = "day-of-year"
_CHANNELS = (Channel("s1", S1_BANDS, _PIXEL_M, "db", _DAYS),)
_COLUMNS = ("file", "state", "alert_idx", "close_set")
_DAMAGE = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)
"""What torch raises for bytes that are no file of its own."""
_LOADING = threading.Lock()
"""What may be loaded is a setting of the whole process."""
_LAYOUT = "BraDD-S1TS as published: meta.csv, Samples/<file>.pt"


@dataclass(frozen=True, slots=True)
class ForestLossExamples:
    """Windows of samples; see `Examples`. An alert is a group.

    Attributes:
        files: Of the samples, with alert.
    """

    name: str
    root: Path
    files: tuple[tuple[str, str], ...]
    channels: tuple[Channel, ...]
    patch_m: float
    cut: Cut
    task: Task = "segmentation"
    legend: Legend = field(default_factory=lambda: dataset_legend("bradd-s1ts-2"), repr=False)

    @property
    def _windows(self) -> Windows[tuple[str, str]]:
        return Windows(self.files, round(_SIDE_PX * _PIXEL_M / self.patch_m), self.cut)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the alert of each window."""
        return np.repeat(number_groups(alert for _, alert in self.files), self._windows.each)

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If its sample is missing or damaged.
            SecurityError: If its sample holds more than arrays and dates.
        """
        path, window = self._place(index)
        content = _load(path)
        series = self._series(path, content, window)
        return replace(self._labels(path, content, window), sample=Sample(window, {"s1": series}))

    def labels(self, index: int) -> Example:
        """Read the labels of one window.

        Raises:
            SourceError: If its sample is missing or damaged.
            SecurityError: If its sample holds more than arrays and dates.
        """
        path, window = self._place(index)
        return self._labels(path, _load(path), window)

    def _series(self, path: Path, content: dict[str, object], window: Window) -> Series:
        images = _array(path, content, "image", (2, _SIDE_PX, _SIDE_PX))
        days = _days(path, content, "image_dates")
        if len(days) != len(images):
            raise SourceError(f"{path} holds {len(images)} images and {len(days)} dates")
        rows, cols = slices_of(window, round(self.patch_m / _PIXEL_M))
        return as_series(images[..., rows, cols], days)

    def _labels(self, path: Path, content: dict[str, object], window: Window) -> Example:
        labels = _array(path, content, "label", (_SIDE_PX, _SIDE_PX))
        order = np.argsort(_days(path, content, "label_dates"), kind="stable")
        if len(labels) != len(order) or len(order) < 2:
            raise SourceError(
                f"{path} holds {len(labels)} labels of {len(order)} dates; change needs two each"
            )
        strange = np.setdiff1d(labels, (0, 1))
        if strange.size:
            raise SourceError(f"{path} holds the label {strange[0]}, not 0 or 1")
        changed = labels[order[0]] != labels[order[-1]]
        area = slices_of(window, round(self.patch_m / _PIXEL_M))
        return Example(Sample(window), classes=changed[area].astype(np.uint8))

    def _place(self, index: int) -> tuple[Path, Window]:
        (file, _), window = self._windows.place(index)
        return self.root / "Samples" / file, window


def open_examples(request: Request) -> ForestLossExamples:
    """Open BraDD-S1TS.

    Raises:
        JobError: If a part, a state or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    request.refuse("task", "clouds", "legend")
    patch_m = request.patch(40.0, 10.0, 20.0)
    patches = round(_SIDE_PX * _PIXEL_M / patch_m)
    cut = cut_of(request.options.side, request.options.stride, patches)
    if cut.side > patches:
        raise JobError(
            f"a sample has {patches} patches of {patch_m:g} m a side, fewer than {cut.side}"
        )
    need(request.root / "Samples", _LAYOUT)
    return ForestLossExamples(
        name=request.title,
        root=request.root,
        files=_read_table(request),
        channels=request.chosen(_CHANNELS),
        patch_m=patch_m,
        cut=cut,
    )


def _read_table(request: Request) -> tuple[tuple[str, str], ...]:
    """Return file and alert of each wanted sample."""
    if request.split not in (None, *SPLITS):
        raise JobError(f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}")
    path = need(request.root / "meta.csv", _LAYOUT)
    reader = csv.DictReader(read_lines(path))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise SourceError(f"{path} has no column {', '.join(missing)}; it is not that of the set")
    rows = list(reader)
    if any(row[name] is None for row in rows for name in _COLUMNS):
        raise SourceError(f"{path} has a line with fewer fields than its first one")
    states = {row["state"] for row in rows}
    unknown = [fold for fold in request.folds if fold not in states]
    if unknown:
        raise JobError(
            f"{request.name} has no state {', '.join(unknown)}; it has {', '.join(sorted(states))}"
        )
    wanted = None if request.split is None else SPLITS[request.split]
    kept = tuple(
        (f"{row['file'].removesuffix('.pt')}.pt", row["alert_idx"])
        for row in rows
        if wanted in (None, row["close_set"])
        and (not request.folds or row["state"] in request.folds)
    )
    if not kept:
        raise SourceError(f"{request.title}: no sample of it in {path}")
    strange = next((file for file, _ in kept if "/" in file or "\\" in file), None)
    if strange is not None:
        raise SecurityError(f"{path} names {strange}, which leaves its folder")
    return kept


def _load(path: Path) -> dict[str, object]:
    """Read a sample; nothing that it holds is run."""
    import torch

    need(path, _LAYOUT)
    with _LOADING, torch.serialization.safe_globals(_admitted()):
        try:
            content: object = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise SecurityError(
                f"{path} holds more than arrays and dates, and is not read: {str(error)[:200]}"
            ) from error
        except _DAMAGE as error:
            raise SourceError(f"{path} is damaged or cut short: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds a {type(content).__name__}, not named arrays")
    return content


def _admitted() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """Return what a sample may be made of beside tensors, by every name numpy has had for it."""
    makers = [thing.__reduce__()[0] for thing in (np.empty(0), np.float64(0))]
    rebuild, scalar = cast("list[Callable[..., object]]", makers)
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    homes = ("numpy._core.multiarray", "numpy.core.multiarray")
    return [
        datetime.date,
        datetime.datetime,
        np.ndarray,
        np.dtype,
        *kinds,
        *((rebuild, f"{home}._reconstruct") for home in homes),
        *((scalar, f"{home}.scalar") for home in homes),
    ]


def _array(
    path: Path, content: dict[str, object], key: str, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """Return an array with a leading axis of dates."""
    import torch

    found = content.get(key)
    array = found.numpy() if isinstance(found, torch.Tensor) else found
    if (
        not isinstance(array, np.ndarray)
        or array.shape[1:] != shape
        or array.dtype.kind not in "biuf"
    ):
        what = getattr(array, "shape", type(found).__name__)
        raise SourceError(
            f"{path}: {key} is {what}, expected numbers of T × {' × '.join(map(str, shape))}"
        )
    return array


def _days(path: Path, content: dict[str, object], key: str) -> NDArray[np.datetime64]:
    found = content.get(key)
    if not isinstance(found, list | tuple) or not all(isinstance(d, datetime.date) for d in found):
        raise SourceError(f"{path}: {key} is no list of dates")
    return np.array([day.isoformat()[:10] for day in found], dtype="datetime64[D]")
