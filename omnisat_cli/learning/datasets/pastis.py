"""PASTIS, PASTIS-R and PASTIS-HD: crops in tiles of 1280 m over France, as published.

    metadata.geojson                     tiles: ID_PATCH, Fold, dates-S2, dates-S1A, dates-S1D
    DATA_S2/S2_<id>.npy                  T × 10 × 128 × 128, 10 m, reflectance × 10 000
    DATA_S1A/S1A_<id>.npy, DATA_S1D/…    T × 3 × 128 × 128, dB: VV, VH, VV − VH
    DATA_SPOT/PASTIS_SPOT6_RVB_1M00_2019/SPOT6_RVB_1M00_2019_<id>.tif     3 × 1280 × 1280, 1 m
    ANNOTATIONS/TARGET_<id>.npy          first plane: class
    INSTANCE_ANNOTATIONS/INSTANCES_<id>.npy       parcel numbers (may be missing)
    NORM_<S2|S1A|S1D>_patch.json         means and deviations by fold (may be missing)

Folders of imagery may be missing: PASTIS has no radar, PASTIS-R no SPOT. The official folds are 1
to 5; the published experiments train on 1 to 3, validate on 4 and test on 5. Days count from
2018-09-01.

Class 19 (void) is not labelled here: it marks parcels that are cut off by the tile or of other
crops, and the official loss and scores leave it out. Background (0) is a class, as there. The
multi-label task has the 18 crops that occur anywhere in the window.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets.layout import (
    need,
    parse_days,
    read_json,
    read_npy,
    read_raster,
)
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.datasets.windows import Cut, Windows, cut_of, slices_of
from omnisat_cli.learning.examples import UNLABELLED, Channel, Example, Task
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.outputs.legend import legend
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.outputs.legend import Legend

FOLDS = ("1", "2", "3", "4", "5")
SPLITS = {"train": ("1", "2", "3"), "val": ("4",), "test": ("5",)}
VOID = 19

_SIDE_PX, _PIXEL_M = 128, 10.0
_SPOT = "DATA_SPOT/PASTIS_SPOT6_RVB_1M00_2019"
_RADAR = ("VV", "VH", "ratio")
_DAYS: Final = "days-since-2018-09-01"
_FILES = {"s2": "S2", "s1-asc": "S1A", "s1-des": "S1D"}
"""Modality to what the dataset calls it."""
_CHANNELS = (
    Channel("spot", ("R", "G", "B"), 1.0, "dn8"),
    Channel("s2", S2_BANDS, 10.0, "reflectance_1e4", _DAYS),
    Channel("s1-asc", _RADAR, 10.0, "db", _DAYS),
    Channel("s1-des", _RADAR, 10.0, "db", _DAYS),
)
_LAYOUT = (
    "PASTIS-HD as published: metadata.geojson, DATA_S2/S2_<id>.npy, DATA_S1A/S1A_<id>.npy, "
    f"DATA_S1D/S1D_<id>.npy, {_SPOT}/SPOT6_RVB_1M00_2019_<id>.tif, ANNOTATIONS/TARGET_<id>.npy"
)


@dataclass(frozen=True, slots=True)
class _Tile:
    """One line of the metadata: dates as written, to keep the set small."""

    id: str
    fold: str
    dates: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class PastisExamples:
    """Windows of tiles; see `Examples`. The official fold is the group."""

    name: str
    root: Path
    tiles: tuple[_Tile, ...]
    channels: tuple[Channel, ...]
    patch_m: float
    task: Task
    legend: Legend = field(repr=False)
    cut: Cut
    has_parcels: bool

    @property
    def _windows(self) -> Windows[_Tile]:
        return Windows(self.tiles, round(_SIDE_PX * _PIXEL_M / self.patch_m), self.cut)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) official fold of each window."""
        return np.repeat([int(tile.fold) for tile in self.tiles], self._windows.each).astype(
            np.int64
        )

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If a file of its tile is missing or damaged.
        """
        tile, window = self._windows.place(index)
        labels = self.labels(index)
        data: dict[str, Image | Series] = {}
        for channel in self.channels:
            area = slices_of(window, round(self.patch_m / channel.gsd))
            if channel.name in _FILES:
                data[channel.name] = self._read_series(tile, channel, area)
            else:
                data[channel.name] = self._read_spot(tile, area)
        return replace(labels, sample=Sample(window, data))

    def labels(self, index: int) -> Example:
        """Read the labels of one window.

        Raises:
            SourceError: If a file of its tile is missing or damaged.
        """
        tile, window = self._windows.place(index)
        area = slices_of(window, round(self.patch_m / _PIXEL_M))
        path = self.root / "ANNOTATIONS" / f"TARGET_{tile.id}.npy"
        target = read_npy(path, (None, _SIDE_PX, _SIDE_PX), "iu")[0][area]
        if target.size and (target.min() < 0 or target.max() > VOID):
            raise SourceError(f"{path} holds classes {target.min()} to {target.max()}, not 0 to 19")
        empty = Sample(window)
        if self.task == "multilabel":
            return Example(empty, tags=np.isin(self.legend.codes, target).astype(np.uint8))
        classes = np.where(target == VOID, UNLABELLED, target).astype(np.uint8)
        return Example(empty, classes=classes, parcels=self._read_parcels(tile, area))

    def published_statistics(self) -> Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Return mean and deviation of each band of the series, where the dataset states them.

        As officially used: the average over the folds in use.

        Raises:
            SourceError: If a file of statistics is damaged.
        """
        folds = sorted({tile.fold for tile in self.tiles})
        stated = {}
        for channel in self.channels:
            path = self.root / f"NORM_{_FILES.get(channel.name, '')}_patch.json"
            if path.exists():
                stated[channel.name] = _read_norm(path, folds, len(channel.bands))
        return stated

    def _read_series(self, tile: _Tile, channel: Channel, area: tuple[slice, slice]) -> Series:
        key = _FILES[channel.name]
        path = self.root / f"DATA_{key}" / f"{key}_{tile.id}.npy"
        stored = read_npy(path, (None, len(channel.bands), _SIDE_PX, _SIDE_PX), "iuf")
        days = parse_days(tile.dates[key], self.root / "metadata.geojson")
        if len(days) != len(stored):
            raise SourceError(
                f"{path} holds {len(stored)} images, metadata.geojson names {len(days)} dates of "
                f"tile {tile.id}"
            )
        return as_series(stored[..., area[0], area[1]], days)

    def _read_spot(self, tile: _Tile, area: tuple[slice, slice]) -> Image:
        path = self.root / _SPOT / f"SPOT6_RVB_1M00_2019_{tile.id}.tif"
        side = round(_SIDE_PX * _PIXEL_M)
        pixels = np.asarray(read_raster(path, 3, ("uint8",), (side, side), area), np.uint8)
        return Image(pixels, np.ones(pixels.shape[1:], bool))

    def _read_parcels(self, tile: _Tile, area: tuple[slice, slice]) -> NDArray[np.int32] | None:
        if not self.has_parcels:
            return None
        path = self.root / "INSTANCE_ANNOTATIONS" / f"INSTANCES_{tile.id}.npy"
        return read_npy(path, (_SIDE_PX, _SIDE_PX), "iu")[area].astype(np.int32)


def open_examples(request: Request) -> PastisExamples:
    """Open PASTIS, PASTIS-R or PASTIS-HD.

    Raises:
        JobError: If a fold, a split or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    request.refuse("clouds", "legend")
    patch_m = request.patch(40.0, 10.0)
    task: Task = request.options.task or "segmentation"
    wanted = _folds(request)
    tiles = tuple(tile for tile in _read_metadata(request.root) if tile.fold in wanted)
    if not tiles:
        raise SourceError(f"{request.title}: no tile of {request.root / 'metadata.geojson'}")
    need(request.root / "ANNOTATIONS", _LAYOUT)
    there = [channel for channel in _CHANNELS if _folder(request.root, channel.name).is_dir()]
    if request.modalities is not None:
        for name in request.modalities:
            if name in [channel.name for channel in _CHANNELS]:
                need(_folder(request.root, name), _LAYOUT)
    channels = request.chosen(there)
    _check_dates(request.root, tiles, channels)
    side = round(_SIDE_PX * _PIXEL_M / patch_m)
    cut = cut_of(request.options.side, request.options.stride, side)
    if cut.side > side:
        raise JobError(f"a tile has {side} patches of {patch_m:g} m a side, fewer than {cut.side}")
    classes = legend("pastis-20")
    return PastisExamples(
        name=request.title,
        root=request.root,
        tiles=tiles,
        channels=channels,
        patch_m=patch_m,
        task=task,
        legend=classes if task == "segmentation" else _crops(classes),
        cut=cut,
        has_parcels=(request.root / "INSTANCE_ANNOTATIONS").is_dir(),
    )


def _crops(classes: Legend) -> Legend:
    """Return the legend without background and void."""
    kept = tuple(entry for entry in classes.classes if entry.code not in (0, VOID))
    return replace(classes, id="pastis-18", classes=kept)


def _folder(root: Path, name: str) -> Path:
    return root / (f"DATA_{_FILES[name]}" if name in _FILES else _SPOT)


def _folds(request: Request) -> tuple[str, ...]:
    if request.split is not None and request.folds:
        raise JobError(f"{request.name}: give a split or folds, not both")
    if request.split is not None:
        if request.split not in SPLITS:
            raise JobError(
                f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}"
            )
        return SPLITS[request.split]
    unknown = [fold for fold in request.folds if fold not in FOLDS]
    if unknown:
        raise JobError(f"{request.name} has no fold {', '.join(unknown)}; it has 1 to 5")
    return request.folds or FOLDS


def _read_metadata(root: Path) -> list[_Tile]:
    """Read the tiles, in the order of their numbers."""
    path = need(root / "metadata.geojson", _LAYOUT)
    content = read_json(path)
    try:
        rows = [feature["properties"] for feature in content["features"]]  # type: ignore[index]
        tiles = [
            _Tile(str(int(row["ID_PATCH"])), str(int(row["Fold"])), _dates_of(row)) for row in rows
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{path} is no table of PASTIS tiles: {error!r}") from error
    return sorted(tiles, key=lambda tile: int(tile.id))


def _dates_of(row: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Return the dates of each series, in the order of the images."""
    dates = {}
    for key in _FILES.values():
        stated = row.get(f"dates-{key}")
        if stated is None:
            continue
        by_index: object = json.loads(stated) if isinstance(stated, str) else stated
        if not isinstance(by_index, dict):
            raise TypeError(f"dates-{key} is {type(by_index).__name__}")
        ordered = sorted(by_index.items(), key=lambda pair: int(pair[0]))
        dates[key] = tuple(int(day) for _, day in ordered)
    return dates


def _check_dates(root: Path, tiles: tuple[_Tile, ...], channels: tuple[Channel, ...]) -> None:
    for channel in channels:
        key = _FILES.get(channel.name)
        lacking = next((tile.id for tile in tiles if key and key not in tile.dates), None)
        if lacking is not None:
            raise SourceError(
                f"{root / 'metadata.geojson'} has no dates-{key} for tile {lacking}; it is that of "
                "another edition: take the metadata.geojson of PASTIS-R or PASTIS-HD"
            )


def _read_norm(
    path: Path, folds: list[str], bands: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    content = read_json(path)
    try:
        parts = [
            np.array([content[f"Fold_{fold}"][key] for fold in folds], np.float64)  # type: ignore[index]
            for key in ("mean", "std")
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path} states no mean and std by fold: {error!r}") from error
    if any(part.shape != (len(folds), bands) for part in parts):
        raise SourceError(f"{path} states {parts[0].shape[-1]} bands, expected {bands}")
    return parts[0].mean(axis=0), parts[1].mean(axis=0)
