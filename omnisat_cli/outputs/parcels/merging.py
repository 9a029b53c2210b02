"""Basins become fields, and small regions join their neighbours.

The border of two basins has a mean line strength. In rounds, every pair whose border is the weakest
of both becomes one, and its borders are added up, until all borders left are strong. As the mean
over a united border is never below the weaker of its parts, this is the order of merging the
weakest border of all each time. A gap in a line is a small part of a long border, so it opens
nothing. Basins without an inside, slivers within thick lines, then join the neighbour of their
class with the longest border. Last, a patch of another class that is small against the field it
lies in, and that no line parts from it, joins the field: there the class map erred, not the
boundary. Everything follows from sums of whole numbers over the whole map, not from strips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.int32]
    Integers = NDArray[np.int64]
    Mask = NDArray[np.bool_]

_WEAK: Final = 14
"""Mean strength of a border up to which it parts nothing."""

_PATCH: Final = 10
"""A patch of another class is small if its neighbour has so many times its ground."""

_FIELDS: Final = 4
"""A class is made of fields if at least one pixel in so many lies deep inside a basin; in others,
such as roads and hedges, lines part nothing."""


@dataclass(frozen=True, slots=True)
class Borders:
    """Borders between regions; a pair may come several times.

    Attributes:
        ends: (E, 2) regions.
        length: (E,) pixel sides they share.
        strength: (E,) sum of the line strength over these sides.
    """

    ends: Integers
    length: Integers
    strength: Integers

    def renamed(self, name: NDArray[np.integer]) -> Borders:
        """Return the borders of the regions that each region has become a part of."""
        return Borders(name[self.ends].astype(np.int64), self.length, self.strength)


def merge(code: NDArray[np.uint8], pixels: Integers, deep: Integers, borders: Borders) -> Integers:
    """Say which basin each one becomes a part of.

    Args:
        code: (N,) class; basins are numbered by their first pixel, 0 is none.
        pixels: (N,) pixels.
        deep: (N,) pixels deep inside.
        borders: What they share.

    Returns:
        (N,) one basin of each group; the group has its class.
    """
    inside = np.bincount(code, deep, 256)
    plain = (inside * _FIELDS < np.bincount(code, pixels, 256))[code]
    leader = _fields(code, deep, plain, borders)
    return _without_patches(leader, np.where(plain, -1, code.astype(np.int64)), pixels, borders)


def _fields(code: NDArray[np.uint8], deep: Integers, plain: Mask, borders: Borders) -> Integers:
    """Put basins of one class together; `plain` are those of classes without fields."""
    leader = np.arange(len(code), dtype=np.int64)
    same = code[borders.ends[:, 0]] == code[borders.ends[:, 1]]
    table = _Table.of(Borders(borders.ends[same], borders.length[same], borders.strength[same]))
    while True:
        weak = (table.strength <= _WEAK * table.length) | plain[table.one]
        best = _weakest(table, weak, len(leader))
        if not len(best):
            break
        leader[table.other[best]] = table.one[best]
        table = table.renamed(leader)
    solid = np.bincount(_roots(leader), deep, len(code)) > 0
    while True:
        source, target = _slivers(table, solid)
        if not len(source):
            return _roots(leader)
        leader[source] = target
        table = table.renamed(leader)


def _without_patches(
    leader: Integers, kind: Integers, pixels: Integers, borders: Borders
) -> Integers:
    """Put patches of another class into the fields they lie in.

    Args:
        leader: (N,) field of each basin.
        kind: (N,) class, -1 of classes without fields.
        pixels: (N,) pixels.
        borders: Of the basins.
    """
    size = np.bincount(leader, pixels, len(leader)).astype(np.int64)
    table = _Table.of(borders.renamed(leader))
    while True:
        one, other = size[table.one], size[table.other]
        weak = table.strength <= _WEAK * table.length
        weak &= np.maximum(one, other) >= _PATCH * np.minimum(one, other)
        weak &= (kind[table.one] != kind[table.other]) & (kind[table.one] >= 0)
        weak &= kind[table.other] >= 0
        best = _weakest(table, weak, len(leader))
        if not len(best):
            return _roots(leader)
        one, other = table.one[best], table.other[best]
        first = size[one] >= size[other]
        field, patch = np.where(first, one, other), np.where(first, other, one)
        leader[patch] = field
        size[field] += size[patch]
        table = table.renamed(leader)


@dataclass(frozen=True, slots=True)
class _Table:
    """Borders, each pair once, `one` below `other`, in ascending order."""

    one: Integers
    other: Integers
    length: Integers
    strength: Integers

    @staticmethod
    def of(borders: Borders) -> _Table:
        """Add up the borders of each pair."""
        low, high = borders.ends.min(axis=1), borders.ends.max(axis=1)
        apart = low != high
        keys, place = np.unique(low[apart] << 32 | high[apart], return_inverse=True)
        length, strength = (
            np.bincount(place, values[apart], len(keys)).astype(np.int64)
            for values in (borders.length, borders.strength)
        )
        return _Table(keys >> 32, keys & 0xFFFFFFFF, length, strength)

    def renamed(self, leader: Integers) -> _Table:
        """Return the borders of the groups."""
        ends = np.stack([leader[self.one], leader[self.other]], axis=1)
        return _Table.of(Borders(ends, self.length, self.strength))


def _weakest(table: _Table, weak: Mask, count: int) -> Integers:
    """Return the borders that are the weakest of all weak ones on both of their sides."""
    places = np.flatnonzero(weak)
    mean = table.strength[places] / table.length[places]
    order = places[np.lexsort((places, -table.length[places], mean))]
    rank = np.arange(len(order))
    first = np.full(count, len(order))
    np.minimum.at(first, table.one[order], rank)
    np.minimum.at(first, table.other[order], rank)
    mutual = (first[table.one[order]] == rank) & (first[table.other[order]] == rank)
    found: Integers = order[mutual]
    return found


def _slivers(table: _Table, solid: Mask) -> tuple[Integers, Integers]:
    """Return the groups without an inside that have a neighbour with one, and that neighbour."""
    source = np.concatenate([table.one, table.other])
    target = np.concatenate([table.other, table.one])
    length = np.tile(table.length, 2)
    wanted = np.flatnonzero(~solid[source] & solid[target])
    order = wanted[np.lexsort((target[wanted], -length[wanted], source[wanted]))]
    first = order[np.diff(source[order], prepend=-1) > 0]
    return source[first], target[first]


def _roots(leader: Integers) -> Integers:
    """Follow the leaders to the end."""
    while True:
        up = leader[leader]
        if (up == leader).all():
            return leader
        leader = up


def absorb(pixels: Integers, borders: Borders, minimum: int) -> Integers:
    """Let every small region join the neighbour with which it shares the longest border.

    Ties go to the larger neighbour, then to the first. It goes on until no small region has a
    neighbour; a group has the class and the name of its largest member.

    Args:
        pixels: (N,) sizes; regions are numbered by their first pixel, 0 is none.
        borders: What they share.
        minimum: Pixels of the smallest region that stays.

    Returns:
        (N,) the region each one has become a part of.
    """
    leader = np.arange(len(pixels), dtype=np.int64)
    size = pixels.copy()
    while True:
        source, target, border = _current_borders(leader, borders)
        small = size[source] < minimum
        source, target, border = source[small], target[small], border[small]
        if not len(source):
            return leader
        order = np.lexsort((target, -size[target], -border, source))
        choice = order[np.concatenate([[True], np.diff(source[order]) > 0])]
        group = components(source[choice], target[choice], len(pixels))
        members = np.unique(leader)
        order = members[np.lexsort((members, -size[members], group[members]))]
        best = order[np.concatenate([[True], np.diff(group[order]) > 0])]
        chief = np.zeros(int(group.max()) + 1, np.int64)
        chief[group[best]] = best
        leader = chief[group[leader]]
        size = np.bincount(leader, pixels, len(pixels)).astype(np.int64)


def _current_borders(leader: Integers, borders: Borders) -> tuple[Integers, Integers, Integers]:
    """Return (source, target, length) of all borders between groups, in both directions."""
    one, other = leader[borders.ends[:, 0]], leader[borders.ends[:, 1]]
    apart = one != other
    source = np.concatenate([one[apart], other[apart]])
    target = np.concatenate([other[apart], one[apart]])
    count = len(leader)
    keys, place = np.unique(source * count + target, return_inverse=True)
    length = np.bincount(place, np.tile(borders.length[apart], 2), len(keys)).astype(np.int64)
    return keys // count, keys % count, length


def components(one: NDArray[np.integer], other: NDArray[np.integer], count: int) -> Labels:
    """Return the (count,) connected component of each of `count` things that pairs connect."""
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    found: Labels = connected_components(graph, directed=False)[1]
    return found
