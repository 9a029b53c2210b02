"""FLAIR-HUB: land cover and crops at 0.2 m over France, as published by IGN.

    <domain>_AERIAL_RGBI/<roi>/<domain>_AERIAL_RGBI_<roi>_<r>-<c>.tif      4 × 512 × 512, RGB + NIR
    <domain>_SENTINEL2_TS/…             10 T × 10 × 10, date by date       } names differ in the
    <domain>_SENTINEL2_MSK-SC/…         2 T × 10 × 10: snow, cloud         } modality alone
    <domain>_SENTINEL1-ASC_TS/…, …-DESC_TS/…                 2 T × 10 × 10: VV, VH
    <domain>_AERIAL_LABEL-COSIA/…       512 × 512, codes 0 to 18
    <domain>_ALL_LABEL-LPIS/…           3 × 512 × 512; the first band has 23 classes
    GLOBAL_ALL_MTD/GLOBAL_<SENTINEL2|SENTINEL1-ASC|SENTINEL1-DESC>_MTD_DATES.gpkg
    GLOBAL_ALL_MTD/GLOBAL_ALL_MTD_SPLIT.gpkg      patch_id, split_1 … split_5, split_flairchallenge

Land cover (legend flair-15): codes 15 to 18 are not labelled, as officially weighed 0. A patch of
102.4 m has 10 × 10 Sentinel pixels of 10.24 m; they are taken for pixels of 10 m over the centre
100 m, so they lie up to 1.2 m off at the edge. Masks are used only on demand (`clouds="mask"`):
pixels of more than 1 % cloud or snow are clouded, the official threshold. (The official loader
drops a date where that is more than 5 % of the patch, and then averages by month.)

Whether radar is linear power or dB is not stated by the publication: values below 0 in the first
file say dB. SPOT (16 bit, 1.6 m), elevation and historical images are not read: no sensor of
omnisat has their form.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets.flair_patch import (
    PATCH_M,
    SIDE,
    centre,
    flair_cut,
    flair_legend,
    read_image,
    read_mask,
    tags_of,
)
from omnisat_cli.learning.datasets.layout import need, number_groups, parse_days, read_raster
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.datasets.windows import Windows, slices_of
from omnisat_cli.learning.examples import UNLABELLED, Channel, Example, Task
from omnisat_cli.modality import RGB_NIR, S1_BANDS, S2_BANDS
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.learning.datasets.windows import Cut
    from omnisat_cli.outputs.legend import Legend

LAND, CROPS = "AERIAL_LABEL-COSIA", "ALL_LABEL-LPIS"
SPLITS = {"train": "train", "val": "valid", "test": "test"}
"""Name of a part here to its name in the file of splits."""
COLUMNS = (*(f"split_{k}" for k in range(1, 6)), "split_flairchallenge")

_FOLDERS = {
    "aerial": "AERIAL_RGBI",
    "s2": "SENTINEL2_TS",
    "s1-asc": "SENTINEL1-ASC_TS",
    "s1-des": "SENTINEL1-DESC_TS",
}
_CLOUDS = "SENTINEL2_MSK-SC"
_HIDDEN = 1
_DAYS: Final = "day-of-year"
_METADATA = "GLOBAL_ALL_MTD"
_LAYOUT = (
    "FLAIR-HUB as published: <domain>_<modality>/<roi>/<domain>_<modality>_<roi>_<r>-<c>.tif and "
    f"{_METADATA}/GLOBAL_ALL_MTD_SPLIT.gpkg, GLOBAL_SENTINEL2_MTD_DATES.gpkg …"
)


@dataclass(frozen=True, slots=True)
class _Dates:
    """Dates of the images of each patch; patches of one region share them."""

    path: Path
    calendars: tuple[str, ...]
    of_patch: Mapping[str, int]

    def days(self, patch_id: str) -> NDArray[np.datetime64]:
        """Return the dates of a patch, in the order of its images.

        Raises:
            SourceError: If there are none.
        """
        if patch_id not in self.of_patch:
            raise SourceError(f"{self.path} has no dates for {patch_id}")
        text = self.calendars[self.of_patch[patch_id]]
        try:
            by_index = json.loads(text)
            ordered = [day for _, day in sorted(by_index.items(), key=lambda pair: int(pair[0]))]
        except (ValueError, AttributeError) as error:
            raise SourceError(
                f"{self.path}: dates of {patch_id} cannot be read: {error}"
            ) from error
        return parse_days(ordered, self.path)


@dataclass(frozen=True, slots=True)
class FlairHubExamples:
    """Windows of patches of FLAIR-HUB; see `Examples`. A domain is a group."""

    name: str
    root: Path
    label: str
    patches: tuple[str, ...]
    """File of the labels of each patch, below the root."""
    channels: tuple[Channel, ...]
    cut: Cut
    legend: Legend = field(repr=False)
    task: Task
    masked: bool
    dates: Mapping[str, _Dates] = field(repr=False)
    patch_m: float = PATCH_M

    @property
    def _windows(self) -> Windows[str]:
        return Windows(self.patches, SIDE, self.cut)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the domain of each window."""
        return np.repeat(
            number_groups(_domain(patch) for patch in self.patches), self._windows.each
        )

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If a file of its patch is missing or damaged.
        """
        patch, window = self._windows.place(index)
        data: dict[str, Image | Series] = {}
        for channel in self.channels:
            if channel.name == "aerial":
                path = self._file(patch, _FOLDERS["aerial"])
                data["aerial"] = read_image(path, 4, 4, window)
            else:
                data[channel.name] = self._read_series(patch, channel, window)
        return replace(self.labels(index), sample=Sample(window, data))

    def labels(self, index: int) -> Example:
        """Read the labels of one window.

        Raises:
            SourceError: If the labels of its patch are missing or damaged.
        """
        patch, window = self._windows.place(index)
        merged = dict.fromkeys(range(15, 19), UNLABELLED) if self.label == LAND else {}
        classes = read_mask(self.root / patch, self.legend, merged)
        if self.task == "multilabel":
            return Example(Sample(window), tags=tags_of(classes, self.legend))
        return Example(Sample(window), classes=classes[centre(window)].copy())

    def _file(self, patch: str, folder: str) -> Path:
        return self.root / patch.replace(self.label, folder)

    def _read_series(self, patch: str, channel: Channel, window: Window) -> Series:
        path = self._file(patch, _FOLDERS[channel.name])
        days = self.dates[channel.name].days(_patch_id(patch, self.label))
        area = slices_of(window, 1)
        stored = _read_stack(path, len(channel.bands), len(days))
        if channel.units == "linear" and np.any(stored < np.float32(0)):
            raise SourceError(f"{path} holds values below 0, the first file of the set none: "
                              "linear power and decibels are mixed")  # fmt: skip
        hidden = None
        if channel.name == "s2" and self.masked:
            masks = _read_stack(self._file(patch, _CLOUDS), 2, len(days))
            hidden = np.any(masks[..., area[0], area[1]] > np.float32(_HIDDEN), axis=1)
        return as_series(stored[..., area[0], area[1]], days, hidden)


def is_hub(root: Path) -> bool:
    """Whether a folder is laid out as FLAIR-HUB."""
    return any(any(root.glob(f"D*_{label}")) for label in (LAND, CROPS))


def open_hub(request: Request) -> FlairHubExamples:
    """Open FLAIR-HUB.

    Raises:
        JobError: If a part or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    cut, known = flair_cut(request), flair_legend(request, "flair-15", "flair-lpis-23")
    label = LAND if known.id == "flair-15" else CROPS
    found = sorted(request.root.glob(f"D*_{label}/*/*.tif"))
    patches = [path.relative_to(request.root).as_posix() for path in found]
    patches = _of_part(request, label, patches)
    channels = request.chosen(_channels(request, label, patches))
    wanted = {_patch_id(patch, label) for patch in patches}
    series = [channel.name for channel in channels if channel.name != "aerial"]
    return FlairHubExamples(
        name=request.title,
        root=request.root,
        label=label,
        patches=tuple(patches),
        channels=channels,
        cut=cut,
        legend=known,
        task=request.options.task or "segmentation",
        masked=request.options.clouds == "mask",
        dates={name: _read_dates(request.root, name, wanted) for name in series},
    )


def _domain(patch: str) -> str:
    return patch.split("_", 1)[0]


def _patch_id(patch: str, label: str) -> str:
    """Return the name of a patch without folder and modality, as the metadata have it."""
    return Path(patch).stem.replace(f"{label}_", "")


def _of_part(request: Request, label: str, patches: list[str]) -> list[str]:
    """Keep the patches of a split and of domains."""
    columns = [fold for fold in request.folds if fold in COLUMNS]
    domains = [fold for fold in request.folds if fold not in COLUMNS]
    unknown = sorted(set(domains) - {_domain(patch) for patch in patches})
    if unknown or len(columns) > 1 or (columns and request.split is None):
        raise JobError(
            f"{request.name} (FLAIR-HUB): folds are domains that are there, or, with a split, one "
            f"of {', '.join(COLUMNS)}; got {', '.join(request.folds)}"
        )
    if domains:
        patches = [patch for patch in patches if _domain(patch) in domains]
    if request.split is not None:
        if request.split not in SPLITS:
            raise JobError(
                f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}"
            )
        path = need(request.root / _METADATA / "GLOBAL_ALL_MTD_SPLIT.gpkg", _LAYOUT)
        column, part = (columns or ["split_1"])[0], SPLITS[request.split]
        members = {patch for patch, value in _rows(path, column) if value == part}
        patches = [patch for patch in patches if _patch_id(patch, label) in members]
    if not patches:
        raise SourceError(f"{request.title}: no patch of it in {request.root}; expected {_LAYOUT}")
    return patches


def _channels(request: Request, label: str, patches: list[str]) -> tuple[Channel, ...]:
    """Return the modalities every domain in use has."""
    domains = sorted({_domain(patch) for patch in patches})
    found = []
    for name, folder in _FOLDERS.items():
        folders = [request.root / f"{domain}_{folder}" for domain in domains]
        if request.modalities is not None and name in request.modalities:
            for path in folders:
                need(path, _LAYOUT)
        if not all(path.is_dir() for path in folders):
            continue
        if name == "aerial":
            found.append(Channel("aerial", RGB_NIR, 0.2, "dn8"))
        elif name == "s2":
            found.append(Channel("s2", S2_BANDS, 10.0, "reflectance_1e4", _DAYS))
        else:
            units = _radar_units(request.root / patches[0].replace(label, folder))
            found.append(Channel(name, S1_BANDS, 10.0, units, _DAYS))
    return tuple(found)


def _radar_units(path: Path) -> Literal["db", "linear"]:
    """Tell decibels from linear power: only the former go below 0."""
    values = read_raster(path, None, ("float32", "float64"), (SIDE, SIDE))
    return "db" if np.nanmin(values) < 0 else "linear"


def _read_stack(path: Path, bands: int, dates: int) -> NDArray[np.generic]:
    """Read a stack of dates as (T, C, 10, 10)."""
    kinds = ("uint8", "uint16", "int16", "float32", "float64")
    stored = read_raster(path, None, kinds, (SIDE, SIDE))
    if len(stored) != bands * dates:
        raise SourceError(
            f"{path} has {len(stored)} bands, not {bands} for each of the {dates} dates stated for "
            "the patch"
        )
    return stored.reshape(dates, bands, SIDE, SIDE)


def _read_dates(root: Path, name: str, wanted: Collection[str]) -> _Dates:
    """Read the dates of some patches."""
    sensor = _FOLDERS[name].removesuffix("_TS")
    path = need(root / _METADATA / f"GLOBAL_{sensor}_MTD_DATES.gpkg", _LAYOUT)
    numbers: dict[str, int] = {}
    of_patch = {
        patch: numbers.setdefault(text, len(numbers))
        for patch, text in _rows(path, "acquisition_dates")
        if patch in wanted
    }
    return _Dates(path, tuple(numbers), of_patch)


def _rows(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """Yield patch_id and one column of a GeoPackage, row by row: such files are gigabytes.

    Raises:
        SourceError: If it is damaged or has no such column.
    """
    try:
        base = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise SourceError(f"{path} cannot be opened: {error}") from error
    try:
        tables = base.execute("SELECT table_name FROM gpkg_contents").fetchall()
        if len(tables) != 1:
            raise SourceError(f"{path} has {len(tables)} layers, expected one")
        layer = str(tables[0][0]).replace('"', '""')
        for patch, value in base.execute(f'SELECT [patch_id], [{column}] FROM "{layer}"'):
            yield str(patch), str(value)
    except sqlite3.Error as error:
        raise SourceError(f"{path} has no {column} by patch_id: {error}") from error
    finally:
        base.close()
