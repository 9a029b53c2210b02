"""PLANTED: species of planted trees in tiles of 120 m, as the training code of AnySat reads it.

    <split>/labels2.json              id to class, 0 to 39; splits are train, val and test
    <split>/<id>/<id>_<m>.npz         arr_0: T × H × W × C; m is s2, s1, l7, alos or modis
    <split>/<id>/<id>_<m>_mask.npz    arr_0: T × H × W × 1, 1 = valid
    <split>/<id>/<id>_<m>_timestamp.npz     arr_0: T milliseconds since 1970-01-01 (UTC)

Source: gastruc/AnySat, src/data/Planted.py; the publishers' own files are records of TensorFlow,
which are not read. Sentinel-1 and -2 have 12 × 12 px of 10 m, Landsat 7 and ALOS-2 4 × 4 px of
30 m, MODIS one of 250 m, which is repeated over the tile. A tile is a place of one species; its
tags have one class set. Where a tile lies is not in these files: each is a group of its own.
Optical numbers are delivered as stored and taken for reflectance × 10 000, which no source says.

Radar becomes dB, whichever of dB, power or ALOS-2's numbers some tiles hold. Not as there: no
ratio is stored beside, networks that want one take the difference in dB (there: the quotient of
the numbers as stored, within ±10 000); tiles are drawn evenly (there: by the root of how often
their class occurs); all dates are delivered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.datasets.layout import need, read_json, read_npz
from omnisat_cli.learning.datasets.legends import dataset_legend
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.modality import L7_BANDS, MODALITIES, MODIS_BANDS, S1_BANDS, S2_BANDS
from omnisat_cli.sources.scaling import Scaling
from omnisat_cli.sources.values import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.outputs.legend import Legend

SPLITS = ("train", "val", "test")

_TILE_M = 120.0
_DAYS: Final = "day-of-year"
_CHANNELS = (
    Channel("s2", S2_BANDS, 10.0, "reflectance_1e4", _DAYS),
    Channel("s1", S1_BANDS, 10.0, "db", _DAYS),
    Channel("l7", L7_BANDS, 30.0, "reflectance_1e4", _DAYS),
    Channel("alos", MODALITIES["alos"].bands, 30.0, "db", _DAYS),
    Channel("modis", MODIS_BANDS, 250.0, "reflectance_1e4", _DAYS),
)
_RADAR = ("s1", "alos")
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
_LATEST = np.datetime64("2100-01-01", "ms").astype(np.int64)
_PROBED = 16
"""Tiles that tell how radar is stored."""
_MOST_POWER = 2.0
"""Median above which radar without negative numbers is no power; as cubes are told apart."""
_LAYOUT = (
    "PLANTED as the training code of AnySat has it: <split>/labels2.json, "
    "<split>/<id>/<id>_<s2|s1|l7|alos|modis>.npz, …_mask.npz and …_timestamp.npz"
)


@dataclass(frozen=True, slots=True)
class PlantedExamples:
    """Tiles; see `Examples`. Each tile is a group of its own.

    Attributes:
        tiles: Folder of each tile, under the root.
        codes: (N,) uint8 species of each tile.
        scalings: Radar to how its numbers become dB.
    """

    name: str
    root: Path
    tiles: tuple[str, ...] = field(repr=False)
    codes: NDArray[np.uint8] = field(repr=False)
    channels: tuple[Channel, ...]
    scalings: Mapping[str, Scaling]
    patch_m: float
    task: Task = "multilabel"
    legend: Legend = field(default_factory=lambda: dataset_legend("planted-40"), repr=False)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.tiles)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the tile itself."""
        return np.arange(len(self))

    def example(self, index: int) -> Example:
        """Read one tile.

        Raises:
            SourceError: If a file of it is missing or damaged.
        """
        folder = self.root / self.tiles[index]
        data = {channel.name: self._read(folder, channel) for channel in self.channels}
        labels = self.labels(index)
        return replace(labels, sample=Sample(labels.sample.window, dict(data)))

    def labels(self, index: int) -> Example:
        """Return the species of one tile."""
        tags = np.zeros(len(self.legend.classes), np.uint8)
        tags[self.codes[index]] = 1
        side = round(_TILE_M / self.patch_m)
        return Example(Sample(Window(0, 0, side, side)), tags=tags)

    def _read(self, folder: Path, channel: Channel) -> Series:
        pixels, valid = _read_pixels(folder, channel)
        days = _read_days(folder, channel.name, len(pixels))
        if channel.name in self.scalings:
            data = np.broadcast_to(valid[:, None], pixels.shape)
            pixels, data = self.scalings[channel.name].apply(pixels, data, slice(None))
            valid &= np.all(data, axis=1)
        # Pixels larger than a patch are delivered once a patch.
        n = round(_TILE_M / min(channel.gsd, self.patch_m)) // pixels.shape[-1]
        hollow = np.where(valid[:, None], pixels, np.nan)
        return as_series(hollow.repeat(n, axis=-2).repeat(n, axis=-1), days)


def open_examples(request: Request) -> PlantedExamples:
    """Open PLANTED.

    Raises:
        JobError: If the part or an option does not exist.
        SourceError: If files of the layout are missing or damaged.
    """
    request.refuse("folds", "side", "stride", "legend", "clouds")
    patch_m = request.patch(30.0, 10.0, 60.0)
    if request.options.task not in (None, "multilabel"):
        raise JobError(f"{request.name} has one species a tile: its task is multilabel")
    if request.split not in (None, *SPLITS):
        raise JobError(f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}")
    tiles = _list_tiles(request)
    first = request.root / next(iter(tiles))
    there = [c for c in _CHANNELS if _file(first, c.name).exists()]
    if request.modalities is None and not there:
        raise SourceError(f"{first} holds no imagery; expected {_LAYOUT}")
    channels = request.chosen(_CHANNELS if request.modalities is not None else there)
    return PlantedExamples(
        name=request.title,
        root=request.root,
        tiles=tuple(tiles),
        codes=np.array(list(tiles.values()), np.uint8),
        channels=channels,
        scalings={
            channel.name: _radar_scaling(request.root, tuple(tiles), channel)
            for channel in channels
            if channel.name in _RADAR
        },
        patch_m=patch_m,
    )


def _list_tiles(request: Request) -> dict[str, int]:
    """Return the class of each tile of a split, or of all that are there."""
    splits = SPLITS if request.split is None else (request.split,)
    paths = [request.root / split / "labels2.json" for split in splits]
    if request.split is None:
        paths = [path for path in paths if path.exists()]
    known = dataset_legend("planted-40").codes
    tiles: dict[str, int] = {}
    for path in paths or [need(request.root / "train" / "labels2.json", _LAYOUT)]:
        content = read_json(need(path, _LAYOUT))
        if not isinstance(content, dict):
            raise SourceError(f"{path} is no table of classes by tile")
        for name, code in content.items():
            if type(code) is not int or code not in known or not _NAME.fullmatch(name):
                raise SourceError(
                    f"{path} gives {name!r} the class {code!r}; expected a plain name and 0 to 39"
                )
            tiles[f"{path.parent.name}/{name}"] = code
    if not tiles:
        raise SourceError(f"{request.title}: {request.root} names no tile; expected {_LAYOUT}")
    return tiles


def _radar_scaling(root: Path, tiles: tuple[str, ...], channel: Channel) -> Scaling:
    """Tell from some tiles how radar is stored."""
    chosen = np.linspace(0, len(tiles) - 1, min(len(tiles), _PROBED)).round().astype(int)
    found = []
    for index in chosen.tolist():
        pixels, valid = _read_pixels(root / tiles[index], channel)
        found.append(np.moveaxis(pixels, 1, -1)[valid].ravel())
    values = np.concatenate(found)
    if not values.size or values.min() < 0:
        return Scaling("affine")
    return Scaling("power" if np.median(values) < _MOST_POWER else "amplitude")


def _read_pixels(folder: Path, channel: Channel) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read (T, C, h, w) and which pixels (T, h, w) are valid, as stored."""
    side = max(1, round(_TILE_M / channel.gsd))
    stored = _array(folder, channel.name, (None, side, side, len(channel.bands)), "iuf")
    mask = _array(folder, f"{channel.name}_mask", (len(stored), side, side, 1), "biuf")
    pixels = np.moveaxis(stored.astype(np.float32), -1, 1)
    return pixels, mask[..., 0].astype(np.bool_) & np.isfinite(pixels).all(axis=1)


def _read_days(folder: Path, name: str, count: int) -> NDArray[np.datetime64]:
    times = _array(folder, f"{name}_timestamp", (count,), "iuf").astype(np.float64)
    if not ((times >= 0) & (times < _LATEST)).all():
        raise SourceError(
            f"{_file(folder, name)}: its timestamps are no milliseconds between 1970 and 2100"
        )
    return times.astype(np.int64).astype("datetime64[ms]").astype("datetime64[D]")


def _array(
    folder: Path, kind: str, shape: tuple[int | None, ...], kinds: str
) -> NDArray[np.generic]:
    path = _file(folder, kind)
    arrays = read_npz(path, ("arr_0",), kinds, shape)
    if "arr_0" not in arrays:
        raise SourceError(f"{path} holds no array arr_0; expected {_LAYOUT}")
    return arrays["arr_0"]


def _file(folder: Path, kind: str) -> Path:
    return folder / f"{folder.name}_{kind}.npz"
