"""AI2-S2-NAIP: tiles of 640 m of the United States, unpacked as published.

    naip/<zone>_<col>_<row>.png                512 × 512 px of 1.25 m: R, G, B, NIR
    sentinel2/<zone>_<col>_<row>_8.tif         4 T × 64 × 64, image by image: B02, B03, B04, B08
    sentinel2/<zone>_<col>_<row>_16.tif        6 T × 32 × 32: B05, B06, B07, B11, B12, B8A
    sentinel1/<zone>_<col>_<row>.tif           2 T × 64 × 64: VV, VH
    worldcover/<zone>_<col>_<row>.png          64 × 64, codes of WorldCover 2021, 0 = none
    sentinel2.csv, sentinel1.csv               projection, col, row, index, scene: the date
    <split>.csv                                name: tiles of a part, where one has such a list

The dataset has no parts of its own. The urban subset that networks were pretrained on (AnySat,
MAESTRO) is a list of its tiles, published apart with MAESTRO as train.csv, val.csv and test.csv: in
this folder, they are the splits. Folds are the zones ("32612"); a group is a block of 32 × 32
tiles, 20 km wide, the unit it is packed in.

The order of the bands is that of the publishers' script; 20 m bands are repeated to 10 m. The
tables of the whole country have tens of gigabytes and are read once, at opening: keep the lines of
your tiles. Whether radar is linear power or dB is told by the sign of the first file. Landsat is
not read: its files hold numbers of Level 1, and the sun's elevation they need is not published.
OpenStreetMap is not read.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets.layout import need, read_lines, read_png, read_raster
from omnisat_cli.learning.datasets.legends import dataset_legend
from omnisat_cli.learning.datasets.scenes_csv import Calendar, read_calendar
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.datasets.windows import Windows, cut_of, slices_of
from omnisat_cli.learning.examples import UNLABELLED, Channel, Example, Task
from omnisat_cli.modality import RGB_NIR, S1_BANDS, S2_BANDS
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.learning.datasets.windows import Cut
    from omnisat_cli.outputs.legend import Legend

SPLITS = ("train", "val", "test")

_TILE_M, _NAIP_PX, _SERIES_PX, _PIXEL_M = 640.0, 512, 64, 10.0
_BLOCK = 32
_DAYS: Final = "day-of-year"
_FINE, _COARSE = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B11", "B12", "B8A")
_ORDER = [(*_FINE, *_COARSE).index(band) for band in S2_BANDS]
_FILES = {"s2": "sentinel2", "s1": "sentinel1"}
_DATED_PART = {"s2": 2, "s1": 4}
"""Which part of a scene's name is its date."""
_NAME = re.compile(r"(\d+)_(-?\d+)_(-?\d+)")
_LAYOUT = (
    "AI2-S2-NAIP unpacked: naip/<zone>_<col>_<row>.png, sentinel2/<tile>_8.tif and _16.tif, "
    "sentinel1/<tile>.tif, worldcover/<tile>.png, sentinel2.csv, sentinel1.csv"
)


@dataclass(frozen=True, slots=True, eq=False)
class NaipExamples:
    """Windows of tiles; see `Examples`. A block of 20 km is a group.

    Attributes:
        tiles: (N, 3) int32 zone, column and row.
        calendars: Modality to the dates of its images.
    """

    name: str
    root: Path
    tiles: NDArray[np.int32]
    calendars: Mapping[str, Calendar] = field(repr=False)
    channels: tuple[Channel, ...]
    patch_m: float
    cut: Cut
    labelled: bool
    task: Task = "segmentation"
    legend: Legend = field(default_factory=lambda: dataset_legend("worldcover-11"), repr=False)

    @property
    def _windows(self) -> Windows[int]:
        return Windows(range(len(self.tiles)), round(_TILE_M / self.patch_m), self.cut)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the block of each window."""
        blocks = np.column_stack([self.tiles[:, 0], self.tiles[:, 1:] // _BLOCK])
        _, numbers = np.unique(blocks, axis=0, return_inverse=True)
        return np.repeat(numbers.ravel().astype(np.int64), self._windows.each)

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If a file of its tile is missing or damaged.
        """
        which, window = self._windows.place(index)
        data: dict[str, Image | Series] = {}
        for channel in self.channels:
            area = slices_of(window, round(self.patch_m / channel.gsd))
            if channel.name == "naip":
                data["naip"] = self._read_naip(which, area)
                continue
            days = self.calendars[channel.name].of(which)
            if len(days):
                read = _read_optical if channel.name == "s2" else _read_radar
                stem = self.root / _FILES[channel.name] / _name(self.tiles[which])
                data[channel.name] = as_series(read(stem, len(days))[..., area[0], area[1]], days)
        return replace(self.labels(index), sample=Sample(window, data))

    def labels(self, index: int) -> Example:
        """Read the labels of one window; None where the land cover of its tile is not published.

        Raises:
            SourceError: If they are damaged.
        """
        which, window = self._windows.place(index)
        path = self.root / "worldcover" / f"{_name(self.tiles[which])}.png"
        if not self.labelled or not path.exists():
            return Example(Sample(window))
        stored = read_png(path, "L", (_SERIES_PX, _SERIES_PX))
        strange = np.setdiff1d(stored, (0, *self.legend.codes))
        if strange.size:
            raise SourceError(f"{path} holds {strange[0]}, no code of WorldCover")
        classes = np.where(stored == 0, UNLABELLED, stored).astype(np.uint8)
        area = slices_of(window, round(self.patch_m / _PIXEL_M))
        return Example(Sample(window), classes=classes[area].copy())

    def _read_naip(self, which: int, area: tuple[slice, slice]) -> Image:
        path = self.root / "naip" / f"{_name(self.tiles[which])}.png"
        pixels = read_png(path, "RGBA", (_NAIP_PX, _NAIP_PX))[:, area[0], area[1]].copy()
        return Image(pixels, np.any(pixels != 0, axis=0, keepdims=True)[0])


def open_examples(request: Request) -> NaipExamples:
    """Open AI2-S2-NAIP.

    Raises:
        JobError: If a part, a zone or an option does not exist.
        SourceError: If files of the layout are missing or do not fit.
    """
    request.refuse("task", "clouds", "legend")
    patch_m = request.patch(40.0, 10.0, 20.0, 80.0)
    patches = round(_TILE_M / patch_m)
    cut = cut_of(request.options.side, request.options.stride, patches)
    if cut.side > patches:
        raise JobError(
            f"a tile has {patches} patches of {patch_m:g} m a side, fewer than {cut.side}"
        )
    tiles = _of_zones(request, _of_split(request))
    channels = _channels(request, tiles)
    return NaipExamples(
        name=request.title,
        root=request.root,
        tiles=tiles,
        calendars={
            name: read_calendar(request.root / f"{_FILES[name]}.csv", tiles, _DATED_PART[name])
            for name in (channel.name for channel in channels)
            if name in _FILES
        },
        channels=channels,
        patch_m=patch_m,
        cut=cut,
        labelled=(request.root / "worldcover").is_dir(),
    )


def _name(tile: NDArray[np.int32]) -> str:
    return "_".join(map(str, tile.tolist()))


def _of_split(request: Request) -> NDArray[np.int32]:
    """Return the tiles that are there, or those of a part, in order of zone, column and row."""
    folder = need(request.root / "naip", _LAYOUT)
    if request.split is None:
        names = [path.stem for path in folder.glob("*.png")]
    elif request.split in SPLITS:
        path = need(
            request.root / f"{request.split}.csv",
            "a list of tiles with a column `name`, as MAESTRO publishes for the urban subset",
        )
        rows = csv.DictReader(read_lines(path))
        if "name" not in (rows.fieldnames or ()):
            raise SourceError(f"{path} has no column name")
        names = [row["name"] or "" for row in rows]
    else:
        raise JobError(f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}")
    found = [(name, _NAME.fullmatch(name)) for name in names]
    strange = next((name for name, match in found if match is None), None)
    if strange is not None:
        raise SourceError(f"{strange!r} is not named like a tile of {request.title}: {_LAYOUT}")
    tiles = [tuple(map(int, match.groups())) for _, match in found if match is not None]
    return np.array(sorted(set(tiles)), dtype=np.int32).reshape(-1, 3)


def _of_zones(request: Request, tiles: NDArray[np.int32]) -> NDArray[np.int32]:
    zones = {str(zone) for zone in np.unique(tiles[:, 0])}
    unknown = [fold for fold in request.folds if fold not in zones]
    if unknown:
        raise JobError(
            f"{request.name} has no zone {', '.join(unknown)} there; it has "
            f"{', '.join(sorted(zones))}"
        )
    kept = tiles
    if request.folds:
        kept = tiles[np.isin(tiles[:, 0], [int(fold) for fold in request.folds])]
    if not len(kept):
        raise SourceError(f"{request.title}: no tile of it in {request.root}; expected {_LAYOUT}")
    return kept


def _channels(request: Request, tiles: NDArray[np.int32]) -> tuple[Channel, ...]:
    found = [Channel("naip", RGB_NIR, 1.25, "dn8")]
    asked = request.modalities or ()
    for name, folder in _FILES.items():
        parts = (request.root / folder, request.root / f"{folder}.csv")
        if name in asked:
            for part in parts:
                need(part, _LAYOUT)
        if not all(part.exists() for part in parts):
            continue
        if name == "s2":
            found.append(Channel(name, S2_BANDS, _PIXEL_M, "reflectance_1e4", _DAYS))
        else:
            units = _radar_units(request.root / folder, tiles)
            found.append(Channel(name, S1_BANDS, _PIXEL_M, units, _DAYS))
    return request.chosen(found)


def _radar_units(folder: Path, tiles: NDArray[np.int32]) -> Literal["db", "linear"]:
    for tile in tiles:
        path = folder / f"{_name(tile)}.tif"
        if path.exists():
            pixels = read_raster(path, None, ("float32",), (_SERIES_PX, _SERIES_PX))
            return "db" if np.nanmin(np.asarray(pixels, np.float32)) < 0 else "linear"
    return "db"


def _read_optical(stem: Path, count: int) -> NDArray[np.generic]:
    """Read (T, 10, 64, 64)."""
    side = _SERIES_PX
    samples = ("uint16", "int16", "int32")
    fine = read_raster(stem.with_name(f"{stem.name}_8.tif"), 4 * count, samples, (side, side))
    half = side // 2
    coarse = read_raster(stem.with_name(f"{stem.name}_16.tif"), 6 * count, samples, (half, half))
    parts = (
        fine.reshape(count, 4, side, side),
        coarse.reshape(count, 6, half, half).repeat(2, axis=-2).repeat(2, axis=-1),
    )
    return np.concatenate(parts, axis=1)[:, _ORDER]


def _read_radar(stem: Path, count: int) -> NDArray[np.generic]:
    """Read (T, 2, 64, 64)."""
    side = _SERIES_PX
    path = stem.with_name(f"{stem.name}.tif")
    return read_raster(path, 2 * count, ("float32",), (side, side)).reshape(count, 2, side, side)
