"""Which pixels form one region: labels strip by strip, joined across the seams.

The answer does not depend on the strips: a region is named by its first pixel, and small regions
are absorbed once all are known, from integers alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from omnisat_cli.outputs.legend import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.int32]
    Integers = NDArray[np.int64]
    Mask = NDArray[np.bool_]

PERCENT_LIMIT: Final = 254
"""Largest value of confidence and validity rasters; 255 = none."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Some full rows of a map.

    Attributes:
        top: Row of the map the strip begins at.
        codes: (H, W) uint8 class codes, 255 = none.
        right: (H, W - 1), whether a pixel and the one right of it belong together.
        down: (H, W), whether a pixel and the one above it belong together; row 0 speaks of the
            last row of the strip before.
        measures: (H, W) uint8 by name ("confidence", "validity"), 255 = none.
    """

    top: int
    codes: NDArray[np.uint8]
    right: Mask
    down: Mask
    measures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of a measure over the pixels of each region; exact integers.

    Attributes:
        count: (N,) pixels that have a value.
        total: (N,) sum of the values.
        squares: (N,) sum of their squares.
    """

    count: Integers
    total: Integers
    squares: Integers

    def mean(self) -> NDArray[np.float64]:
        """Return the (N,) means, NaN where no pixel has a value."""
        with np.errstate(invalid="ignore"):
            return self.total / self.count

    def std(self) -> NDArray[np.float64]:
        """Return the (N,) standard deviations of the population."""
        with np.errstate(invalid="ignore"):
            spread = (self.count * self.squares - self.total**2) / self.count**2
        return np.sqrt(np.maximum(spread, 0))


@dataclass(frozen=True, slots=True)
class Regions:
    """Every region of a map; index 0 stands for "no region".

    Attributes:
        of_label: (L,) region of each provisional label, 0 for label 0.
        code: (N,) uint8 class.
        pixels: (N,) pixels.
        first: (N,) row * width + col of the first pixel in reading order: the name of the region.
        last_row: (N,) last row that holds a pixel of it.
        measures: Sums by name of the measure.
    """

    of_label: Labels
    code: NDArray[np.uint8]
    pixels: Integers
    first: Integers
    last_row: Integers
    measures: dict[str, Sums]

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self.code) - 1


def class_links(codes: NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Return `Strip.right` and `Strip.down` of regions that are told apart by class alone."""
    real = codes != NODATA
    down = np.zeros(codes.shape, bool)
    down[1:] = (codes[1:] == codes[:-1]) & real[1:]
    return (codes[:, 1:] == codes[:, :-1]) & real[:, 1:], down


def label_strip(strip: Strip) -> Labels:
    """Number the connected regions of a strip.

    Returns:
        (H, W) int32 from 1 in no particular order, 0 where there is no class.
    """
    codes = strip.codes
    height, width = codes.shape
    begins = np.ones((height, width), bool)
    begins[:, 1:] = ~strip.right
    run = (np.cumsum(begins.ravel(), dtype=np.int32) - 1).reshape(height, width)
    joined = strip.down[1:]
    upper, lower = run[:-1][joined], run[1:][joined]
    new = np.ones(len(upper), bool)
    new[1:] = (upper[1:] != upper[:-1]) | (lower[1:] != lower[:-1])
    component = _components(upper[new], lower[new], int(run[-1, -1]) + 1)
    empty = codes[begins] == NODATA
    number = np.zeros(int(component.max()) + 1, np.int32)
    filled = np.unique(component[~empty])
    number[filled] = np.arange(1, len(filled) + 1, dtype=np.int32)
    named: Labels = np.where(empty, 0, number[component]).astype(np.int32)[run]
    return named


class Census:
    """Collects what is known of every region while strips pass by.

    Args:
        width: Columns of the map.
        minimum: Pixels below which a region is absorbed by a neighbour; 0 or 1 absorbs none.
    """

    def __init__(self, width: int, minimum: int = 0) -> None:
        self._width = width
        self._minimum = minimum
        self._labels = 1
        self._last: Labels | None = None
        self._facts: list[tuple[NDArray[np.uint8], Integers, Integers, Integers]] = []
        self._sums: dict[str, list[Integers]] = {}
        self._joins: list[Integers] = []
        self._borders: list[Integers] = []

    def number(self, strip: Strip) -> Labels:
        """Return the (H, W) provisional labels of a strip, as `add` does, and count nothing."""
        local = label_strip(strip)
        labels = self._unique(local)
        self._labels += int(local.max(initial=0))
        return labels

    def _unique(self, local: Labels) -> Labels:
        return np.where(local > 0, local + np.int32(self._labels - 1), np.int32(0))

    def add(self, strip: Strip) -> None:
        """Count a strip; strips come from top to bottom without gaps."""
        local = label_strip(strip)
        count = int(local.max(initial=0))
        labels = self._unique(local)
        self._count(strip, local, count)
        if self._last is not None:
            joined = strip.down[0]
            self._joins.append(_pairs(self._last[joined], labels[0][joined])[0])
        if self._minimum > 1:
            self._measure_borders(labels, local, count)
        self._labels += count
        self._last = labels[-1]

    def finish(self) -> Regions:
        """Return the regions of the whole map, small ones absorbed."""
        code, pixels, first, last = (
            np.concatenate([zero, *parts])
            for zero, parts in zip(
                (np.array([NODATA], np.uint8), *(np.zeros(1, np.int64),) * 3),
                zip(*self._facts, strict=True) if self._facts else ((),) * 4,
                strict=True,
            )
        )
        joins = _concatenate(self._joins, 2)
        component = _components(joins[:, 0], joins[:, 1], self._labels)
        # label 0 is a component of its own; components are renumbered by their first pixel
        count = int(component.max()) + 1
        place = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(place, component, np.where(np.arange(self._labels) == 0, -1, first))
        rank = np.empty(count, np.int32)
        rank[np.argsort(place, kind="stable")] = np.arange(count, dtype=np.int32)
        region = rank[component]
        table = _Table(region, count)
        facts = Regions(
            of_label=region,
            code=table.any_of(code),
            pixels=table.add(pixels),
            first=table.smallest(first),
            last_row=table.largest(last),
            measures={name: self._sum_up(name, table) for name in self._sums},
        )
        return self._absorbed(facts) if self._minimum > 1 else facts

    def _count(self, strip: Strip, local: Labels, count: int) -> None:
        flat = local.ravel()
        taken = np.flatnonzero(flat)
        names, at = np.unique(flat[taken], return_index=True)
        first = taken[at].astype(np.int64)
        rows = np.zeros(count + 1, np.int64)
        for row in range(len(local)):
            rows[local[row]] = row
        code = strip.codes.ravel()[first]
        pixels = np.bincount(flat, minlength=count + 1)[1:].astype(np.int64)
        self._facts.append((code, pixels, first + strip.top * self._width, rows[names] + strip.top))
        for name, values in strip.measures.items():
            keep = (values <= PERCENT_LIMIT) & (local > 0)
            where, value = local[keep], values[keep].astype(np.float64)
            # sums of integers below 2**53 are exact in any order
            parts = [
                np.bincount(where, weights, count + 1)[1:].astype(np.int64)
                for weights in (None, value, value**2)
            ]
            self._sums.setdefault(name, []).append(np.stack(parts, axis=1))

    def _sum_up(self, name: str, table: _Table) -> Sums:
        parts = np.concatenate([np.zeros((1, 3), np.int64), *self._sums[name]])
        return Sums(*(table.add(parts[:, column]) for column in range(3)))

    def _measure_borders(self, labels: Labels, local: Labels, count: int) -> None:
        """Note how many pixel sides regions share, unless both are large already."""
        pairs = [(labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])]
        if self._last is not None:
            pairs.append((self._last, labels[0]))
        ones, others = [], []
        for one, other in pairs:
            border = (one != other) & (one > 0) & (other > 0)
            ones.append(one[border])
            others.append(other[border])
        ends, lengths = _pairs(np.concatenate(ones), np.concatenate(others))
        size = np.zeros(self._labels + count, np.int64)
        size[self._labels :] = np.bincount(local.ravel(), minlength=count + 1)[1:]
        small = (size[ends] < self._minimum).any(axis=1)
        self._borders.append(np.column_stack([ends, lengths])[small])

    def _absorbed(self, facts: Regions) -> Regions:
        borders = _concatenate(self._borders, 3)
        ends = facts.of_label[borders[:, :2]]
        leader = absorb(facts.pixels, ends, borders[:, 2], self._minimum)
        kept = np.unique(leader)  # ascending by first pixel, 0 first
        number = np.searchsorted(kept, leader).astype(np.int32)
        table = _Table(number, len(kept))
        return Regions(
            of_label=number[facts.of_label],
            code=facts.code[kept],
            pixels=table.add(facts.pixels),
            first=facts.first[kept],
            last_row=table.largest(facts.last_row),
            measures={
                name: Sums(table.add(s.count), table.add(s.total), table.add(s.squares))
                for name, s in facts.measures.items()
            },
        )


def absorb(pixels: Integers, ends: Labels, lengths: Integers, minimum: int) -> Integers:
    """Let every small region join the neighbour with which it shares the longest border.

    Ties go to the larger neighbour, then to the first. It goes on until no small region has a
    neighbour; a group has the class and the name of its largest member.

    Args:
        pixels: (N,) sizes; regions are numbered by their first pixel, 0 is none.
        ends: (E, 2) regions that share a border; a pair may come several times.
        lengths: (E,) pixel sides they share.
        minimum: Pixels of the smallest region that stays.

    Returns:
        (N,) the region each one has become a part of.
    """
    leader = np.arange(len(pixels), dtype=np.int64)
    size = pixels.copy()
    while True:
        source, target, border = _current_borders(leader, ends, lengths)
        small = size[source] < minimum
        source, target, border = source[small], target[small], border[small]
        if not len(source):
            return leader
        order = np.lexsort((target, -size[target], -border, source))
        choice = order[np.concatenate([[True], np.diff(source[order]) > 0])]
        group = _components(source[choice], target[choice], len(pixels))
        members = np.unique(leader)
        order = members[np.lexsort((members, -size[members], group[members]))]
        best = order[np.concatenate([[True], np.diff(group[order]) > 0])]
        chief = np.zeros(int(group.max()) + 1, np.int64)
        chief[group[best]] = best
        leader = chief[group[leader]]
        size = np.bincount(leader, pixels, len(pixels)).astype(np.int64)


def _current_borders(
    leader: Integers, ends: Labels, lengths: Integers
) -> tuple[Integers, Integers, Integers]:
    """Return (source, target, length) of all borders between groups, in both directions."""
    one, other = leader[ends[:, 0]], leader[ends[:, 1]]
    apart = one != other
    source = np.concatenate([one[apart], other[apart]])
    target = np.concatenate([other[apart], one[apart]])
    count = len(leader)
    keys, place = np.unique(source * count + target, return_inverse=True)
    length = np.bincount(place, np.tile(lengths[apart], 2), len(keys)).astype(np.int64)
    return keys // count, keys % count, length


def _pairs(one: Labels, other: Labels) -> tuple[Integers, Integers]:
    """Return the distinct unordered pairs, (E, 2), and how often each occurs, (E,)."""
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
    keys, counts = np.unique(low << 32 | high, return_counts=True)
    return np.column_stack([keys >> 32, keys & 0xFFFFFFFF]), counts.astype(np.int64)


def _components(one: NDArray[np.integer], other: NDArray[np.integer], count: int) -> Labels:
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    found: Labels = connected_components(graph, directed=False)[1]
    return found


def _concatenate(parts: list[Integers], columns: int) -> Integers:
    return np.concatenate([np.zeros((0, columns), np.int64), *parts])


@dataclass(frozen=True, slots=True)
class _Table:
    """Sums and extremes by group.

    Attributes:
        group: (N,) group of each row.
        count: Number of groups.
    """

    group: Labels
    count: int

    def add(self, values: Integers) -> Integers:
        return np.bincount(self.group, values, self.count).astype(np.int64)

    def smallest(self, values: Integers) -> Integers:
        found = np.full(self.count, np.iinfo(np.int64).max)
        np.minimum.at(found, self.group, values)
        return found

    def largest(self, values: Integers) -> Integers:
        found = np.full(self.count, -1, np.int64)
        np.maximum.at(found, self.group, values)
        return found

    def any_of(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found = np.zeros(self.count, np.uint8)
        found[self.group] = values
        return found
