"""Places to learn from in the user's own imagery: opened as `predict` opens it, with labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import AlignmentError, JobError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.learning.data.joined import Joined
from omnisat_cli.learning.data.statistics import labels_of
from omnisat_cli.learning.datasets.cache import ByteCache
from omnisat_cli.learning.datasets.windows import cut_image, cut_series
from omnisat_cli.learning.examples import UNLABELLED, Channel, Example
from omnisat_cli.learning.labelling.labels import Ground, open_labels
from omnisat_cli.modality import MODALITIES
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.sources.opening import Wanted, choose_crs, match_inputs, open_input
from omnisat_cli.sources.values import Decision, Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.job import Input
    from omnisat_cli.learning.examples import Examples, Task
    from omnisat_cli.learning.labelling.labels import LabelRequest, Labels
    from omnisat_cli.sources.values import Source

_BLOCKS = (4, 2, 1)
"""Sides of a spatial block that are tried, in windows; the smaller ones divide the largest."""

_ENOUGH_GROUPS = 8
"""Blocks from which a validation can be chosen well."""


@dataclass(frozen=True, slots=True)
class AreaInputs:
    """Imagery of one area, as the user names it, and its labels.

    Attributes:
        inputs: At most one entry a modality.
        labels: Labels of this area; None = imagery alone, for pretraining.
        crs: CRS of the lattice; None = that of the finest input.
        dates: First and last date (ISO) of the series that are used; None = all.
        on_error: What an unreadable file means.
    """

    inputs: tuple[Input, ...]
    labels: LabelRequest | None = None
    crs: str | None = None
    dates: tuple[str, str] | None = None
    on_error: Literal["fail", "hole"] = "fail"

    @property
    def name(self) -> str:
        """The first file of each modality."""
        return ", ".join(Path(entry.paths[0]).name for entry in self.inputs)


@dataclass(frozen=True, slots=True)
class AreaCut:
    """How areas are cut into examples.

    Attributes:
        side: Patches along an example; the next one begins half a side further.
        patch_m: Side of a patch in metres.
        label_refine: Pixels of the labels along a patch.
        wanted: Modalities with bands and pixel; None = all there are, as their files have them.
        memory_bytes: Bound on the imagery that is kept in memory.
    """

    side: int
    patch_m: float = 10.0
    label_refine: int = 1
    wanted: tuple[Wanted, ...] | None = None
    memory_bytes: int = 2**31

    def __post_init__(self) -> None:
        if self.side < 1 or self.label_refine < 1:
            raise JobError(f"windows of {self.side} patches of {self.label_refine} pixels: too few")


class AreaExamples:
    """Windows of one area that hold imagery and, where there are labels, a labelled pixel.

    Windows lie in spatial blocks, anchored to the CRS origin, and do not reach over their edges:
    two groups share no pixel.

    Args:
        name: What the area is called.
        world: Lattice, sources, and labels or None.
        cut: How it is cut.

    Raises:
        AlignmentError: If no window holds both labels and imagery.
    """

    task: Task = "segmentation"

    def __init__(
        self,
        name: str,
        world: tuple[Lattice, Mapping[str, Source], Labels | None],
        cut: AreaCut,
    ) -> None:
        self.name, self.cut = name, cut
        self.lattice, self.sources, self.labelled = world
        self.channels = tuple(_channel(n, s, cut.patch_m) for n, s in self.sources.items())
        self._cover = [
            self.lattice.window(bounds) for s in self.sources.values() for bounds in s.footprints
        ]
        told = self._told()
        for count in _BLOCKS:
            found = self._divide(told, count * cut.side)
            self._windows, self._regions = found
            if len(self._regions) >= _ENOUGH_GROUPS:
                break
        if not self._windows:
            what = "both a label and imagery" if self.labelled else "imagery"
            raise AlignmentError(f"{name}: no window of {cut.side} patches holds {what}")
        self._all_fit = self._bytes_of_all() <= cut.memory_bytes
        self._cache: ByteCache[Sample] = ByteCache(cut.memory_bytes, _bytes)

    @property
    def patch_m(self) -> float:
        """Side of a patch in metres."""
        return self.cut.patch_m

    @property
    def legend(self) -> Legend:
        """The classes."""
        return _unlabelled() if self.labelled is None else self.labelled.legend

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the spatial block of each window."""
        return np.array([group for _, group in self._windows], np.int64)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was recognised when opening imagery and labels, and how the area is cut."""
        found = [one for source in self.sources.values() for one in source.decisions]
        if self.labelled is not None:
            found += self.labelled.decisions
        block = self._regions[0].height * self.patch_m
        found.append(
            Decision(
                "windows",
                f"{len(self)} of {self.cut.side * self.patch_m:g} m",
                f"in {len(self._regions)} spatial blocks of {block:g} m, which are never split "
                "between training and validation",
            )
        )
        return tuple(found)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    def window(self, index: int) -> Window:
        """Return the ground of an example, in patches of the lattice."""
        return self._windows[index][0]

    def example(self, index: int) -> Example:
        """Read one window; see `Examples.example`."""
        window, group = self._windows[index]
        if self._all_fit:
            region = self._regions[group]
            sample = self._cache.get(group, lambda key: self._read(self._regions[key]))
        else:
            # Regions would be thrown out before they are used again: read what is asked for.
            region = window
            sample = self._cache.get(index, lambda key: self._read(self._windows[key][0]))
        part = Window(window.row - region.row, window.col - region.col, *window.shape)
        data: dict[str, Image | Series] = {}
        for name, values in sample.data.items():
            refine = self.sources[name].refine
            if isinstance(values, Image):
                data[name] = cut_image(values, part, refine)
            else:
                data[name] = cut_series(values, part, refine)
        return self._with_labels(Sample(window, data))

    def labels(self, index: int) -> Example:
        """Read the labels of one window without its imagery."""
        return self._with_labels(Sample(self.window(index)))

    def _with_labels(self, sample: Sample) -> Example:
        if self.labelled is None:
            return Example(sample)
        return Example(
            sample, *self.labelled.burn(self.lattice, sample.window, self.cut.label_refine)
        )

    def _read(self, region: Window) -> Sample:
        """Read every modality whose footprint meets a region."""
        data = {}
        for name, source in self.sources.items():
            places = [self.lattice.window(bounds) for bounds in source.footprints]
            if any(not place.intersection(region).is_empty for place in places):
                data[name] = source.read(region)
        return Sample(region, data)

    def _bytes_of_all(self) -> int:
        """Estimate what all regions take in memory."""
        patch = 0
        for source in self.sources.values():
            dates = len(source.dates)
            each = len(source.bands) * 4 * dates + 2 * dates if dates else len(source.bands) + 1
            patch += source.refine**2 * each
        return patch * sum(region.height * region.width for region in self._regions)

    def _divide(
        self, told: Mapping[Window, NDArray[np.bool_]], block: int
    ) -> tuple[list[tuple[Window, int]], list[Window]]:
        """Find the windows with labels and imagery, block by block: windows and blocks."""
        side = self.cut.side
        starts = sorted({*range(0, block - side + 1, max(1, side // 2)), block - side})
        windows: list[tuple[Window, int]] = []
        regions: list[Window] = []
        for whole, known in told.items():
            for row, col in product(range(0, whole.height, block), repeat=2):
                inside = [
                    Window(whole.row + top, whole.col + left, side, side)
                    for top in (row + start for start in starts)
                    for left in (col + start for start in starts)
                    if known[top : top + side, left : left + side].any()
                ]
                inside = [window for window in inside if self._has_imagery(window)]
                if inside:
                    windows += [(window, len(regions)) for window in inside]
                    regions.append(Window(whole.row + row, whole.col + col, block, block))
        return windows, regions

    def _told(self) -> dict[Window, NDArray[np.bool_]]:
        """Return the largest blocks with, patch by patch, whether there is a labelled pixel."""
        told = {}
        n = self.cut.label_refine
        for region in self._blocks(max(_BLOCKS) * self.cut.side):
            known = np.ones(region.shape, bool)
            if self.labelled is not None:
                classes, _ = self.labelled.burn(self.lattice, region, n)
                cells = (classes != UNLABELLED).reshape(region.height, n, region.width, n)
                known = cells.any(axis=(1, 3))
            if known.any():
                told[region] = known
        return told

    def _blocks(self, block: int) -> Iterator[Window]:
        """Yield the blocks of the lattice over the imagery, row by row."""
        frame = Window.around(self._cover)
        if self.labelled is not None:
            frame = frame.intersection(self.lattice.window(self.labelled.bounds))
        if frame.is_empty:
            return
        coarse = frame.coarsened(block)
        for row in range(coarse.row, coarse.row_end):
            for col in range(coarse.col, coarse.col_end):
                region = Window(row, col, 1, 1).refined(block)
                if self._has_imagery(region):
                    yield region

    def _has_imagery(self, window: Window) -> bool:
        return any(not place.intersection(window).is_empty for place in self._cover)


def open_areas(
    areas: Sequence[AreaInputs],
    cut: AreaCut,
    table: str | None = None,
    legend: Legend | None = None,
    *,
    binding: bool = False,
) -> Examples:
    """Open imagery and labels of one or several areas, with one legend for all.

    Args:
        areas: All with labels, or none.
        cut: How they are cut.
        table: Class table; see `labels.open_labels`.
        legend: Legend of the model that is trained further; used where all codes fit.
        binding: Whether it must be used; one class is then enough (evaluation).

    Raises:
        OmnisatError: If anything about files, labels or options does not fit.
    """
    labelled = [area for area in areas if area.labels is not None]
    if labelled and len(labelled) < len(areas):
        raise JobError(f"{len(labelled)} of {len(areas)} areas have labels: give them for all")
    worlds = [_open(area, cut) for area in areas]
    found: Sequence[Labels | None] = [None] * len(areas)
    if labelled:
        found = open_labels(
            [area.labels for area in areas if area.labels is not None],
            [_ground(lattice, sources) for lattice, sources in worlds],
            table,
            legend,
            binding=binding,
        )
    sets = [
        AreaExamples(area.name, (*world, labels), cut)
        for area, world, labels in zip(areas, worlds, found, strict=True)
    ]
    examples: Examples = sets[0] if len(sets) == 1 else Joined(tuple(sets))
    if labelled and not binding:
        refuse_one_class(examples)
    return examples


def refuse_one_class(examples: Examples) -> None:
    """Refuse labels of a single class.

    Raises:
        JobError: If nothing could be told apart.
    """
    seen: set[int] = set()
    for index in range(len(examples)):
        classes = labels_of(examples, index).classes
        if classes is not None:
            seen |= set(np.unique(classes).tolist()) - {UNLABELLED}
        if len(seen) > 1:
            return
    names = {entry.code: entry.name_en for entry in examples.legend.classes}
    only = ", ".join(names.get(code, str(code)) for code in seen) or "no class"
    raise JobError(
        f"{examples.name}: the labels over the imagery hold one class only ({only}, in "
        f"{len(examples)} windows); label at least one other, if only as 'other'"
    )


def _open(area: AreaInputs, cut: AreaCut) -> tuple[Lattice, dict[str, Source]]:
    """Open the imagery of an area on its lattice."""
    lattice = Lattice(choose_crs(area.inputs, area.crs), cut.patch_m)
    wanted = cut.wanted or tuple(Wanted(entry.modality, None, None) for entry in area.inputs)
    places = {one.modality: one for one in wanted}
    pairs, unused = match_inputs(area.inputs, tuple(places))
    if unused:
        raise JobError(
            f"{', '.join(unused)} is not used; wanted are {', '.join(places)}. Leave it out"
        )
    if not pairs:
        raise JobError(f"no imagery given: pass at least one of {', '.join(places)}")
    return lattice, {
        name: open_input(entry, lattice, places[name], area) for name, entry in pairs.items()
    }


def _ground(lattice: Lattice, sources: Mapping[str, Source]) -> Ground:
    footprints = tuple(bounds for source in sources.values() for bounds in source.footprints)
    if not footprints:
        raise AlignmentError(f"{', '.join(sources)}: the imagery covers no ground")
    return Ground(lattice.crs, footprints)


def _channel(name: str, source: Source, patch_m: float) -> Channel:
    sensor = MODALITIES[name]
    series = sensor.kind == "series"
    return Channel(
        name,
        source.bands,
        max(patch_m / source.refine, sensor.gsd if series else 0.0),
        sensor.units,
        "day-of-year" if series else None,
    )


def _unlabelled() -> Legend:
    entry = LegendClass(0, "unlabelled", "sans étiquette", "#808080")
    return Legend("unlabelled", "1", "imagery without labels", "none", (entry,))


def _bytes(sample: Sample) -> int:
    total = 0
    for values in sample.data.values():
        total += values.pixels.nbytes + values.valid.nbytes
        total += values.clouded.nbytes if isinstance(values, Series) else 0
    return total
