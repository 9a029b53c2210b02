"""TreeSatAI-Time-Series: tree genera in tiles of 60 m, as published by IGN.

    split/{train,val,test}_filenames.lst          one aerial file name a line  } or in the root
    labels/TreeSatBA_v9_60m_multi_labels.json     file name to [[genus, share of area], …]  }
    aerial/<name>.tif  or  aerial/60m/<name>.tif  304 × 304 px of 0.2 m; NIR, G, B, R
    sentinel-ts/<name>_<year>.h5                  or sentinel/<name>.h5 (renamed for training code)

As in the official training: a tile has a genus where its share exceeds 7 %, and tiles without any
are left out; the centre 300 × 300 px of the aerial are used (official training draws the crop at
random); Sentinel-1 is linear power, NaN becomes the mean of its date and channel, and a date with a
channel that is all NaN is dropped; clouds are kept. Unlike there, the date of a dropped image is
dropped with it, and all dates are delivered (official: 50 at random).

A folder that holds `<name>.tif` and `<name>.h5` side by side is read as tiles without labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.learning.datasets.layout import (
    first_of,
    need,
    read_json,
    read_lines,
    read_raster,
)
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.examples import Channel, Example, Task
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.outputs.legend import legend
from omnisat_cli.sources.treesatai import Stack, TileSeries, read_series
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.outputs.legend import Legend

SPLITS = ("train", "val", "test")
THRESHOLD = 0.07
"""Share of a tile's area above which it holds a genus."""

_LABELS = "TreeSatBA_v9_60m_multi_labels.json"
_WINDOW = Window(0, 0, 6, 6)
_AERIAL_PX, _USED_PX = 304, 300
_HIDDEN = 50.0
"""Probability of cloud or snow, in percent, from which `clouds="mask"` drops a pixel."""
_RADAR = ("VV", "VH")
_DAYS: Final = "day-of-year"
_CHANNELS = (
    Channel("aerial", ("NIR", "G", "B", "R"), 0.2, "dn8"),
    Channel("s2", S2_BANDS, 10.0, "reflectance_1e4", _DAYS),
    Channel("s1-asc", _RADAR, 10.0, "linear", _DAYS),
    Channel("s1-des", _RADAR, 10.0, "linear", _DAYS),
    Channel("s1", _RADAR, 10.0, "linear", _DAYS),
)
_LAYOUT = (
    "TreeSatAI-Time-Series as published: split/<split>_filenames.lst, labels/" + _LABELS + ", "
    "aerial/<name>.tif, sentinel-ts/<name>_<year>.h5"
)


@dataclass(frozen=True, slots=True)
class TreeSatAIExamples:
    """Tiles; see `Examples`. Each tile is a group of its own."""

    name: str
    channels: tuple[Channel, ...]
    aerial: Path | None
    series: Path
    tiles: tuple[tuple[str, str], ...]
    """Aerial and series file of each tile, in their folders."""
    tags: NDArray[np.uint8] | None
    masked: bool
    legend: Legend = field(default_factory=lambda: legend("treesatai-15"), repr=False)
    patch_m: float = 10.0
    task: Task = "multilabel"

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.tiles)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the tile itself: the published parts are drawn tile by tile."""
        return np.arange(len(self))

    def example(self, index: int) -> Example:
        """Read one tile.

        Raises:
            SourceError: If its files are missing or damaged.
        """
        image, h5 = self.tiles[index]
        names = {channel.name for channel in self.channels}
        data: dict[str, Image | Series] = {}
        if self.aerial is not None and "aerial" in names:
            data["aerial"] = _read_aerial(self.aerial / image)
        if names - {"aerial"}:
            stored = read_series(self.series / h5)
            for name in [name for name in _SERIES if name in names]:
                data[name] = _SERIES[name](stored, self.masked)
        return Example(Sample(_WINDOW, data), tags=self.labels(index).tags)

    def labels(self, index: int) -> Example:
        """Return the genera of one tile."""
        tags = None if self.tags is None else self.tags[index].copy()
        return Example(Sample(_WINDOW), tags=tags)


def open_examples(request: Request) -> TreeSatAIExamples:
    """Open TreeSatAI-Time-Series.

    Raises:
        JobError: If the part or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    request.refuse("folds", "side", "stride", "legend")
    request.patch(10.0)
    if request.options.task not in (None, "multilabel"):
        raise JobError(f"{request.name} has one set of genera a tile: its task is multilabel")
    if request.split not in (None, *SPLITS):
        raise JobError(f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}")
    flat = any(request.root.glob("*.h5")) and not (request.root / "sentinel-ts").exists()
    if flat and request.split is None:
        return _open_flat(request)
    labels = _read_labels(request.root)
    names = [name for name in _read_split(request.root, request.split) if _has_tag(labels, name)]
    if not names:
        raise SourceError(f"{request.title}: no tile of {request.root} has a labelled genus")
    series = first_of((request.root / "sentinel-ts", request.root / "sentinel"), _LAYOUT)
    aerial = _aerial_folder(request)
    stored = {re.sub(r"_(19|20)\d\d$", "", path.stem): path.name for path in series.glob("*.h5")}
    tiles = []
    for name in names:
        stem = name.removesuffix(".tif")
        if stem not in stored:
            raise SourceError(f"{series / stem}_<year>.h5 is missing; expected {_LAYOUT}")
        tiles.append((name, stored[stem]))
    return TreeSatAIExamples(
        name=request.title,
        channels=_channels(request, has_aerial=aerial is not None),
        aerial=_complete(aerial, names),
        series=series,
        tiles=tuple(tiles),
        tags=_tags(labels, names),
        masked=request.options.clouds == "mask",
    )


def _open_flat(request: Request) -> TreeSatAIExamples:
    root = request.root
    stems = sorted(path.stem for path in root.glob("*.h5"))
    images = [stem for stem in stems if (root / f"{stem}.tif").exists()]
    return TreeSatAIExamples(
        name=f"{request.title} (tiles without labels)",
        channels=_channels(request, has_aerial=bool(images)),
        aerial=_complete(root, [f"{stem}.tif" for stem in stems]) if images else None,
        series=root,
        tiles=tuple((f"{stem}.tif", f"{stem}.h5") for stem in stems),
        tags=None,
        masked=request.options.clouds == "mask",
    )


def _channels(request: Request, *, has_aerial: bool) -> tuple[Channel, ...]:
    there = [channel for channel in _CHANNELS if has_aerial or channel.name != "aerial"]
    if request.modalities is None:
        # "s1" is both orbits once more: only on demand.
        return tuple(channel for channel in there if channel.name != "s1")
    return request.chosen(there)


def _aerial_folder(request: Request) -> Path | None:
    folder = request.root / "aerial"
    if not folder.is_dir():
        if request.modalities is not None and "aerial" in request.modalities:
            need(folder, _LAYOUT)
        return None
    return folder / "60m" if (folder / "60m").is_dir() else folder


def _complete(folder: Path | None, names: list[str]) -> Path | None:
    """Check that a folder holds the aerial of every tile."""
    if folder is not None:
        there = {path.name for path in folder.glob("*.tif")}
        missing = next((name for name in names if name not in there), None)
        if missing is not None:
            raise SourceError(f"{folder / missing} is missing; expected {_LAYOUT}")
    return folder


def _read_split(root: Path, split: str | None) -> list[str]:
    names: dict[str, None] = {}
    for part in SPLITS if split is None else (split,):
        file = f"{part}_filenames.lst"
        names |= dict.fromkeys(read_lines(first_of((root / "split" / file, root / file), _LAYOUT)))
    return list(names)


def _read_labels(root: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the genera of each tile whose share exceeds the threshold."""
    path = first_of((root / "labels" / _LABELS, root / _LABELS), _LAYOUT)
    content = read_json(path)
    known = {entry.name_en for entry in legend("treesatai-15").classes}
    labels = {}
    try:
        for name, shares in content.items():  # type: ignore[attr-defined]
            labels[str(name)] = tuple(genus for genus, share in shares if share > THRESHOLD)
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(f"{path} is no table of genera by tile: {error}") from error
    unknown = sorted({str(genus) for genera in labels.values() for genus in genera} - known)
    if unknown:
        raise SourceError(f"{path} names {', '.join(unknown[:5])}, no genus of treesatai-15")
    return labels


def _has_tag(labels: Mapping[str, tuple[str, ...]], name: str) -> bool:
    if name not in labels:
        raise SourceError(f"{name} is in a split, but {_LABELS} does not name it")
    return bool(labels[name])


def _tags(labels: Mapping[str, tuple[str, ...]], names: list[str]) -> NDArray[np.uint8]:
    genera = [entry.name_en for entry in legend("treesatai-15").classes]
    tags = np.zeros((len(names), len(genera)), np.uint8)
    for row, name in enumerate(names):
        tags[row, [genera.index(genus) for genus in labels[name]]] = 1
    return tags


def _read_aerial(path: Path) -> Image:
    """Read the centre 300 × 300 px of an aerial, bands as stored."""
    pixels = read_raster(path, 4, ("uint8",), None)
    rows, cols = pixels.shape[1:]
    if rows != cols or rows not in (_USED_PX, _AERIAL_PX):
        raise SourceError(f"{path} is {rows} × {cols} px; expected {_AERIAL_PX} × {_AERIAL_PX}")
    start = (rows - _USED_PX) // 2
    cut = np.asarray(pixels[:, start : start + _USED_PX, start : start + _USED_PX], np.uint8)
    return Image(np.ascontiguousarray(cut), np.ones(cut.shape[1:], bool))


def _optical(tile: TileSeries, masked: bool) -> Series:
    hidden = np.any(tile.masks >= _HIDDEN, axis=1) if masked else None
    return as_series(tile.s2.pixels, tile.s2.days, hidden)


def _ascending(tile: TileSeries, _: bool) -> Series:
    return _filled(tile.s1["ascending"])


def _descending(tile: TileSeries, _: bool) -> Series:
    return _filled(tile.s1["descending"])


def _both(tile: TileSeries, _: bool) -> Series:
    stacks = list(tile.s1.values())
    pixels = np.concatenate([stack.pixels for stack in stacks])
    return _filled(Stack(pixels, np.concatenate([stack.days for stack in stacks])))


_SERIES = {"s2": _optical, "s1-asc": _ascending, "s1-des": _descending, "s1": _both}


def _filled(stack: Stack) -> Series:
    """Replace NaN by the mean of its date and channel; drop dates with an empty channel."""
    known = ~np.isnan(stack.pixels)
    count = known.sum(axis=(2, 3))  # (T, C)
    kept = (count > 0).all(axis=1)
    pixels, known, count = stack.pixels[kept], known[kept], count[kept]
    mean = np.where(known, pixels, 0).sum(axis=(2, 3)) / np.maximum(count, 1)
    filled = np.where(known, pixels, mean[:, :, None, None])
    return as_series(filled.astype(np.float32), stack.days[kept])
