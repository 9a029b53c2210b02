"""A folder of scenes, each a folder as `omnisat simulate` writes it.

    <root>/<scene>/labels.tif     classes, codes of the legend, 255 = none
    <root>/<scene>/legend.json    the legend           (may be missing: omnisat-sim)
    <root>/<scene>/aerial.tif     R, G, B, NIR        } any of the three may be missing
    <root>/<scene>/s2.nc, s1.nc   series, 10 m        }
    <root>/<scene>/parcels.gpkg   parcels, column id  (may be missing: no borders are known)

Imagery is opened by the same readers as that of `predict`, so what a network learns is what it
will see. A split is a folder between root and scenes; `root` may also be one scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import name_crs
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.job import Input, Job
from omnisat_cli.learning.datasets.cache import ByteCache
from omnisat_cli.learning.datasets.windows import Cut, cut_image, cut_of, cut_raster, cut_series
from omnisat_cli.learning.examples import UNLABELLED, Channel, Example, Task
from omnisat_cli.learning.simulate.legend import LEGEND_FILE
from omnisat_cli.modality import MODALITIES
from omnisat_cli.outputs.legend import load_legend
from omnisat_cli.sources.opening import Wanted, open_input
from omnisat_cli.sources.safe import open_raster
from omnisat_cli.sources.values import Image, Sample, Series
from omnisat_cli.sources.vectors import read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.outputs.legend import Legend

TRUTH, LEGEND, PARCELS = "labels.tif", "legend.json", "parcels.gpkg"
FILES = {"aerial": "aerial.tif", "s2": "s2.nc", "s1": "s1.nc"}
"""Input of a job to its file in a scene."""

_PATCH_M, _SIDE = 10.0, 12
_EDGE = 1e-3
"""Part of a pixel that an edge may lie beside the lattice: GeoTIFF origins carry float noise."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """Where a scene lies: whole patches of a lattice, and how much finer its truth is."""

    lattice: Lattice
    window: Window
    refine: int


@dataclass(frozen=True, slots=True)
class _Truth:
    """Labels of a scene."""

    classes: NDArray[np.uint8]
    parcels: NDArray[np.int32] | None


_Imagery = dict[str, Image | Series]
"""Imagery of a scene; series may be stored as uint16 where that loses nothing."""


def _bytes_of_truth(truth: _Truth) -> int:
    return truth.classes.nbytes + (0 if truth.parcels is None else truth.parcels.nbytes)


def _bytes_of_imagery(data: _Imagery) -> int:
    flags = [part.clouded.nbytes for part in data.values() if isinstance(part, Series)]
    return sum(part.pixels.nbytes + part.valid.nbytes for part in data.values()) + sum(flags)


@dataclass(frozen=True, slots=True)
class SceneExamples:
    """Windows of scenes; see `Examples`. Decoded scenes are kept up to a number of bytes."""

    name: str
    folders: tuple[Path, ...]
    channels: tuple[Channel, ...]
    patch_m: float
    cut: Cut
    grounds: tuple[_Ground, ...]
    starts: tuple[int, ...]
    imagery: ByteCache[_Imagery] = field(compare=False, repr=False)
    truths: ByteCache[_Truth] = field(compare=False, repr=False)
    legend: Legend = field(repr=False)
    task: Task = "segmentation"

    def __len__(self) -> int:
        """Return the number of windows."""
        return self.starts[-1]

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the scene of each window."""
        return np.repeat(np.arange(len(self.folders)), np.diff(self.starts))

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If a file of its scene is damaged.
            AlignmentError: If a file does not say where it lies.
        """
        which, window = self._place(index)
        scene = self.imagery.get(which, self._read_imagery)
        refines = {channel.name: round(self.patch_m / channel.gsd) for channel in self.channels}
        data = {
            name: cut_series(part, window, refines[name])
            if isinstance(part, Series)
            else cut_image(part, window, refines[name])
            for name, part in scene.items()
        }
        labels = self.labels(index)
        return replace(labels, sample=replace(labels.sample, data=data))

    def labels(self, index: int) -> Example:
        """Read the labels of one window.

        Raises:
            SourceError: If the truth of its scene is damaged.
        """
        which, window = self._place(index)
        ground, truth = self.grounds[which], self.truths.get(which, self._read_truth)
        row, col = window.row + ground.window.row, window.col + ground.window.col
        parcels = truth.parcels
        return Example(
            Sample(replace(window, row=row, col=col)),
            classes=cut_raster(truth.classes, window, ground.refine),
            parcels=None if parcels is None else cut_raster(parcels, window, ground.refine),
        )

    def _place(self, index: int) -> tuple[int, Window]:
        """Return the scene of a window, and the window from the scene's upper left patch."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        shape = self.grounds[which].window.shape
        return which, self.cut.window(*shape, index - self.starts[which])

    def _read_imagery(self, which: int) -> _Imagery:
        folder, ground = self.folders[which], self.grounds[which]
        data: _Imagery = {}
        for channel in self.channels:
            path = folder / FILES[_input_of(channel.name)]
            if path.exists():
                data[channel.name] = _read(path, channel, ground)
        return data

    def _read_truth(self, which: int) -> _Truth:
        folder, ground = self.folders[which], self.grounds[which]
        classes = _read_classes(folder / TRUTH, ground, self.legend)
        return _Truth(classes, _read_parcels(folder / PARCELS, ground))


def open_examples(request: Request) -> SceneExamples:
    """Open a folder of scenes.

    Raises:
        JobError: If an option does not fit.
        SourceError: If there is no scene, one lacks its truth or any imagery, or two have different
            classes.
        AlignmentError: If a scene does not lie on the lattice of the patches.
    """
    request.refuse("folds", "task", "legend", "clouds")
    options = request.options
    patch_m = request.patch(_PATCH_M, 20.0, 40.0)
    folders = _find(request.root if request.split is None else request.root / request.split)
    cut = cut_of(options.side, options.stride, _SIDE)
    grounds = tuple(_locate(folder, patch_m, cut) for folder in folders)
    counts = [cut.count(*ground.window.shape) for ground in grounds]
    return SceneExamples(
        name=f"{request.title} ({len(folders)} in {request.root.name})",
        folders=folders,
        channels=request.chosen(_channels(folders, orbits=request.modalities is not None)),
        patch_m=patch_m,
        cut=cut,
        grounds=grounds,
        starts=(0, *np.cumsum(counts).tolist()),
        imagery=ByteCache(options.cache_mb * 2**20, _bytes_of_imagery),
        truths=ByteCache(options.cache_mb * 2**18, _bytes_of_truth),
        legend=_legend(folders),
    )  # fmt: skip


def _find(root: Path) -> tuple[Path, ...]:
    """Return the scenes in a folder, by name (numbers by value)."""
    if (root / TRUTH).is_file():
        return (root,)
    there = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    scenes = [path for path in there if any((path / name).exists() for name in FILES.values())]
    if not scenes:
        raise SourceError(
            f"{root} holds no scene: expected <scene>/{TRUTH} with {', '.join(FILES.values())} "
            "beside it, as `omnisat simulate` writes them"
        )
    lacking = [path for path in scenes if not (path / TRUTH).is_file()]
    if lacking:
        raise SourceError(f"{lacking[0] / TRUTH} is missing: a scene to learn from has its truth")
    return tuple(sorted(scenes, key=lambda path: (len(path.name), path.name)))


def _legend(folders: tuple[Path, ...]) -> Legend:
    """Return the classes that all the scenes have."""
    stated = [folder / LEGEND for folder in folders]
    legends = [load_legend(path if path.is_file() else LEGEND_FILE) for path in stated]
    other = next((n for n, legend in enumerate(legends) if legend != legends[0]), None)
    if other is not None:
        raise SourceError(
            f"{folders[other]} has the classes {legends[other].label}, {folders[0]} those of "
            f"{legends[0].label}; keep scenes of different classes in different folders"
        )
    return legends[0]


def _channels(folders: tuple[Path, ...], *, orbits: bool = False) -> tuple[Channel, ...]:
    """Return the modalities that any scene has; the orbits of Sentinel-1 only on demand."""
    found = []
    for name in ("aerial", "s2", "s1", *(("s1-asc", "s1-des") if orbits else ())):
        paths = [folder / FILES[_input_of(name)] for folder in folders]
        first = next((path for path in paths if path.exists()), None)
        if first is None:
            continue
        sensor = MODALITIES[name]
        series = sensor.kind == "series"
        gsd = sensor.gsd if series else _pixel_m(first)
        dates = "day-of-year" if series else None
        found.append(Channel(name, sensor.bands, gsd, sensor.units, dates))  # type: ignore[arg-type]
    return tuple(found)


def _input_of(name: str) -> str:
    return name.split("-", maxsplit=1)[0]


def _pixel_m(path: Path) -> float:
    with open_raster(path) as image:
        return float(round(image.transform.a, 6))


def _locate(folder: Path, patch_m: float, cut: Cut) -> _Ground:
    """Find the whole patches a scene's truth covers."""
    path = folder / TRUTH
    with open_raster(path) as truth:
        if truth.crs is None or not truth.crs.is_projected:
            raise AlignmentError(f"{path} has no projected CRS ({truth.crs})")
        crs = name_crs(truth.crs.to_wkt())[0]
        pixel, shape = float(truth.transform.a), (truth.height, truth.width)
        left, top = float(truth.transform.c), float(truth.transform.f)
    refine = round(patch_m / pixel)
    edges = np.array([-top / pixel, left / pixel])
    if refine < 1 or abs(refine * pixel - patch_m) > _EDGE or np.any(_beside(edges) > _EDGE):
        raise AlignmentError(
            f"{path}: pixels of {pixel:g} m from ({left:.2f}, {top:.2f}) do not lie on patches of "
            f"{patch_m:g} m; write the truth with a pixel that divides {patch_m:g} m, its corner "
            "on multiples of that pixel"
        )
    row, col = (round(edge) for edge in edges)
    whole = Window.from_edges(
        -(-row // refine), -(-col // refine),
        (row + shape[0]) // refine, (col + shape[1]) // refine,
    ) if min(shape) >= 2 * refine else Window(0, 0, 0, 0)  # fmt: skip
    if min(whole.shape) < cut.side:
        raise SourceError(
            f"{path} covers {whole.height} × {whole.width} patches of {patch_m:g} m, less than one "
            f"window of {cut.side}; ask for a smaller side"
        )
    return _Ground(Lattice(crs, patch_m), whole, refine)


def _beside(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(edges - np.rint(edges))


def _read(path: Path, channel: Channel, ground: _Ground) -> Image | Series:
    """Read a modality of a scene, whole."""
    entry = Input(_input_of(channel.name), (str(path),))
    wanted = Wanted(channel.name, channel.bands, channel.gsd)
    job = Job((entry,), model="", out=Path())  # nothing is mapped: dates and errors by default
    source = open_input(entry, ground.lattice, wanted, job)
    refine = round(ground.lattice.gsd / channel.gsd)
    if source.refine != refine or source.bands != channel.bands:
        raise SourceError(
            f"{path} gives {', '.join(source.bands)} at {ground.lattice.gsd / source.refine:g} m; "
            f"the first scene has {', '.join(channel.bands)} at {channel.gsd:g} m"
        )
    read = source.read(ground.window)
    return _compact(read) if isinstance(read, Series) else read


def _compact(series: Series) -> Series:
    """Store a series of whole numbers in half the bytes."""
    pixels = series.pixels
    if pixels.size and pixels.min() >= 0 and pixels.max() < 2**16:
        small = pixels.astype(np.uint16)
        if np.array_equal(small, pixels):
            return replace(series, pixels=small)  # type: ignore[arg-type] # widened when cut
    return series


def _read_classes(path: Path, ground: _Ground, legend: Legend) -> NDArray[np.uint8]:
    """Read the classes of a scene's whole patches."""
    from rasterio.errors import RasterioIOError
    from rasterio.windows import Window as Rectangle

    with open_raster(path) as truth:
        if truth.count != 1 or truth.dtypes[0] != "uint8":
            raise SourceError(f"{path} has {truth.count} band(s) of {truth.dtypes[0]}, not 1 uint8")
        fine = ground.window.refined(ground.refine)
        pixel = ground.lattice.gsd / ground.refine
        row = fine.row - round(-truth.transform.f / pixel)
        col = fine.col - round(truth.transform.c / pixel)
        try:
            classes = truth.read(1, window=Rectangle(col, row, fine.width, fine.height))
        except RasterioIOError as error:
            raise SourceError(f"{path} is damaged or cut short: {error}") from error
    unknown = np.setdiff1d(classes, (*legend.codes, UNLABELLED))
    if unknown.size:
        raise SourceError(f"{path} holds codes {unknown.tolist()} that {legend.label} lacks")
    return np.asarray(classes, np.uint8)


def _read_parcels(path: Path, ground: _Ground) -> NDArray[np.int32] | None:
    """Draw the parcels on the pixels of the truth; None where the scene has none."""
    if not path.is_file():
        return None
    from rasterio.features import rasterize
    from rasterio.transform import Affine

    table = read_table(path, "parcels", ("id",)).frame
    try:
        numbers = table["id"].to_numpy(np.int32)
    except (KeyError, ValueError) as error:
        raise SourceError(f"{path} holds no parcels with a column id: {error}") from error
    if table.crs is None:
        raise AlignmentError(f"{path} has no CRS")
    fine = ground.window.refined(ground.refine)
    drawn = np.zeros(fine.shape, np.int32)
    shapes = [
        (shape, int(number))
        for shape, number in zip(table.to_crs(ground.lattice.crs).geometry, numbers, strict=True)
        if shape is not None and not shape.is_empty
    ]
    if shapes:
        place = Affine(*ground.lattice.transform(fine, ground.refine))
        rasterize(shapes, out=drawn, transform=place)
    return drawn
