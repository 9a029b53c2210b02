"""Which pixels form one region: labels strip by strip, joined across the seams.

The answer does not depend on the strips: a region is named by its first pixel, and small regions
are absorbed once all are known, from integers alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from omnisat_cli.outputs.legend import NODATA
from omnisat_cli.outputs.parcels.merging import Borders, absorb, components, merge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.int32]
    Integers = NDArray[np.int64]
    Mask = NDArray[np.bool_]

Value = TypeVar("Value", bound=np.generic)

PERCENT_LIMIT: Final = 254
"""Largest value of confidence and validity rasters; 255 = none."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What the boundary map says of the pixels of a strip.

    Attributes:
        strength: (H, W) uint8, how clearly a pixel lies on a line.
        deep: (H, W), whether it lies deep inside a basin.
    """

    strength: NDArray[np.uint8]
    deep: Mask


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
        lines: Where pixels that belong together make up basins, which are put together when all
            of them are known; None where they make up regions.
        areas: (H,) ground of a pixel of each row, in units; None where a pixel is the unit.
    """

    top: int
    codes: NDArray[np.uint8]
    right: Mask
    down: Mask
    measures: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    lines: Lines | None = None
    areas: Integers | None = None


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
        ground: (N,) area, in units of the strips.
        first: (N,) row * width + col of the first pixel in reading order: the name of the region.
        last_row: (N,) last row that holds a pixel of it.
        measures: Sums by name of the measure.
    """

    of_label: Labels
    code: NDArray[np.uint8]
    pixels: Integers
    ground: Integers
    first: Integers
    last_row: Integers
    measures: dict[str, Sums]

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self.code) - 1

    def grouped(self, leader: Integers) -> tuple[Regions, Labels]:
        """Put regions together.

        Args:
            leader: (N,) the region each one has become a part of; its class becomes theirs.

        Returns:
            The groups, numbered by the first pixel of their leaders, and (N,) the group of each.
        """
        kept = np.unique(leader)  # ascending by first pixel, 0 first
        number = np.searchsorted(kept, leader).astype(np.int32)
        table = _Table(number, len(kept))
        groups = Regions(
            of_label=number[self.of_label],
            code=self.code[kept],
            pixels=table.add(self.pixels),
            ground=table.add(self.ground),
            first=self.first[kept],
            last_row=table.largest(self.last_row),
            measures={
                name: Sums(table.add(s.count), table.add(s.total), table.add(s.squares))
                for name, s in self.measures.items()
            },
        )
        return groups, number


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
    if (codes == NODATA).all():
        return np.zeros(codes.shape, np.int32)
    begins = np.ones((height, width), bool)
    begins[:, 1:] = ~strip.right
    run = (np.cumsum(begins.ravel(), dtype=np.int32) - 1).reshape(height, width)
    joined = strip.down[1:]
    upper, lower = run[:-1][joined], run[1:][joined]
    new = np.ones(len(upper), bool)
    new[1:] = (upper[1:] != upper[:-1]) | (lower[1:] != lower[:-1])
    component = components(upper[new], lower[new], int(run[-1, -1]) + 1)
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
        minimum: Units of area below which a region is absorbed by a neighbour; 0 or 1: none is.
    """

    def __init__(self, width: int, minimum: int = 0) -> None:
        self._width = width
        self._minimum = minimum
        self._labels = 1
        self._last: Labels | None = None
        self._last_strength = np.zeros(0, np.uint8)
        self._facts: list[tuple[NDArray[np.uint8], Integers, Integers, Integers, Integers]] = []
        self._sums: dict[str, list[Integers]] = {}
        self._joins: list[Integers] = []
        self._borders: list[Integers] = []
        self._deep: list[Integers] = []

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
        if strip.lines is not None:
            deep = np.bincount(local[strip.lines.deep], minlength=count + 1)
            self._deep.append(deep[1:].astype(np.int64))
        if count and (self._minimum > 1 or strip.lines is not None):
            self._measure_borders(strip, labels)
        self._labels += count
        self._last = labels[-1]
        self._last_strength = (
            np.zeros_like(strip.codes[-1]) if strip.lines is None else strip.lines.strength[-1]
        )

    def finish(self) -> Regions:
        """Return the regions of the whole map, small ones absorbed."""
        code, pixels, ground, first, last = (
            np.concatenate([zero, *parts])
            for zero, parts in zip(
                (np.array([NODATA], np.uint8), *(np.zeros(1, np.int64),) * 4),
                zip(*self._facts, strict=True) if self._facts else ((),) * 5,
                strict=True,
            )
        )
        joins = _concatenate(self._joins, 2)
        component = components(joins[:, 0], joins[:, 1], self._labels)
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
            ground=table.add(ground),
            first=table.smallest(first),
            last_row=table.largest(last),
            measures={name: self._sum_up(name, table) for name in self._sums},
        )
        borders = self._all_borders(region)
        if self._deep:
            deep = table.add(np.concatenate([np.zeros(1, np.int64), *self._deep]))
            facts, number = facts.grouped(merge(facts.code, facts.pixels, deep, borders))
            borders = borders.renamed(number)
        if self._minimum > 1:
            facts, _ = facts.grouped(absorb(facts.ground, borders, self._minimum))
        return facts

    def _all_borders(self, region: Labels) -> Borders:
        found = _concatenate(self._borders, 4)
        return Borders(found[:, :2], found[:, 2], found[:, 3]).renamed(region)

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
        ground = pixels if strip.areas is None else _weighed(local, strip.areas, count)
        place, last = first + strip.top * self._width, rows[names] + strip.top
        self._facts.append((code, pixels, ground, place, last))
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

    def _measure_borders(self, strip: Strip, labels: Labels) -> None:
        """Note how many pixel sides regions share, and the strength of the lines on them.

        Borders of regions that are large already are of no use unless there are lines.
        """
        strength = np.zeros_like(strip.codes) if strip.lines is None else strip.lines.strength
        above = self._last is not None
        one, other = _facing(labels, self._last if above else None)
        border = (one != other) & (one > 0) & (other > 0)
        one, other = one[border], other[border]
        size = np.concatenate([[0], self._facts[-1][2]])
        small = size < self._minimum  # place 0: those that began above, of unknown size
        small[0] = self._minimum > 1
        useful = small[np.maximum(one - self._labels, -1) + 1]
        useful |= small[np.maximum(other - self._labels, -1) + 1]
        useful |= strip.lines is not None
        clearer = np.maximum(*_facing(strength, self._last_strength if above else None))[border]
        ends, lengths, sums = _pairs(one[useful], other[useful], clearer[useful])
        self._borders.append(np.column_stack([ends, lengths, sums]))


def _weighed(local: Labels, areas: Integers, count: int) -> Integers:
    """Add up the ground of each label's pixels; whole numbers below 2**53 are exact."""
    sums = np.bincount(local.ravel(), np.repeat(areas, local.shape[1]), count + 1)
    return sums[1:].astype(np.int64)


def _facing(values: NDArray[Value], above: NDArray[Value] | None) -> tuple[NDArray[Value], ...]:
    """Return the values on both sides of all pixel sides, also of those to the row above."""
    ones, others = [values[:, :-1].ravel(), values[:-1].ravel()], [values[:, 1:], values[1:]]
    if above is not None:
        ones.append(above)
        others.append(values[0])
    return np.concatenate(ones), np.concatenate([other.ravel() for other in others])


def _pairs(
    one: Labels, other: Labels, weights: NDArray[np.uint8] | None = None
) -> tuple[Integers, Integers, Integers]:
    """Return the distinct unordered pairs, (E, 2), how often each occurs, and its weights' sum."""
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
    keys, place, counts = np.unique(low << 32 | high, return_inverse=True, return_counts=True)
    sums = np.bincount(place, weights, len(keys)).astype(np.int64)
    return np.column_stack([keys >> 32, keys & 0xFFFFFFFF]), counts.astype(np.int64), sums


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
