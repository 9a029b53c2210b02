"""A small, deterministic sample of a cube, to measure what metadata does not say."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.sources.cube_layout import read_layers
from omnisat_cli.sources.s2_offset import BASELINE_04

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.sources.cube_grid import CubeGrid
    from omnisat_cli.sources.cube_layout import Dims, Layer, Steps
    from omnisat_cli.sources.cube_store import CubeStore

_LOG = logging.getLogger(__name__)

_WHOLE = 256
"""Cubes up to this side are sampled whole."""

_SIDE = 128
_DATES_EACH_ERA = 10
_CLEAREST = 3
"""Dates are picked evenly among this many times the wanted number of clearest ones."""

Raw = dict[str, "NDArray[np.generic]"]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Reads a few windows of chosen dates."""

    store: CubeStore
    dims: Dims
    grid: CubeGrid
    on_error: Literal["fail", "hole"]

    def windows(self) -> list[tuple[slice, slice]]:
        """Five windows, centre first, or everything where that is small."""
        height, width = self.grid.height, self.grid.width
        if height <= _WHOLE and width <= _WHOLE:
            return [(slice(0, height), slice(0, width))]
        spots = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]
        return [(_spot(height, row), _spot(width, col)) for row, col in spots]

    def read(
        self, layers: Mapping[str, Layer], steps: NDArray[np.intp]
    ) -> tuple[Raw, NDArray[np.intp]]:
        """Read layers of some stored dates.

        Returns:
            Key to (n, pixels) raw values, and the n stored dates that could be read.

        Raises:
            SourceError: If bytes are damaged and that is not to become a hole, or no date is left.
        """
        try:
            return self._read_dates(layers, steps), steps
        except SourceError:
            if self.on_error == "fail":
                raise
        parts: list[Raw] = []
        good: list[int] = []
        for step in steps:
            try:
                parts.append(self._read_dates(layers, np.array([step])))
            except SourceError as error:
                _LOG.warning("one date left out of the sample: %s", error)
                continue
            good.append(int(step))
        if not parts:
            raise SourceError(f"{self.store.path}: none of {len(steps)} sampled dates can be read")
        joined = {key: np.concatenate([part[key] for part in parts]) for key in layers}
        return joined, np.array(good, dtype=np.intp)

    def _read_dates(self, layers: Mapping[str, Layer], steps: NDArray[np.intp]) -> Raw:
        """Read (n, pixels) of the dates; a layer without dates is repeated."""
        first, last = int(steps[0]), int(steps[-1]) + 1
        run: Steps = slice(first, last) if last - first == len(steps) else steps
        where = (self.dims, self.grid)
        reads = [
            read_layers(self.store, layers, where, (run, rows, cols))
            for rows, cols in self.windows()
        ]
        return {
            key: np.concatenate(
                [
                    np.broadcast_to(read[key].reshape(len(read[key]), -1), (len(steps), area))
                    for read in reads
                    for area in [read[key][0].size]
                ],
                axis=1,
            )
            for key in layers
        }


def _spot(size: int, share: float) -> slice:
    length = min(size, _SIDE)
    start = min(max(0, int(size * share) - length // 2), size - length)
    return slice(start, start + length)


def pick_dates(
    days: NDArray[np.datetime64], steps: NDArray[np.intp], clear: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Pick the dates to measure on: clear ones, spread in time, from before and since 2022-01-25.

    Args:
        days: (T,) day of every stored date.
        steps: (n,) stored dates in use.
        clear: (n,) share of clear pixels of each.

    Returns:
        Stored dates, ascending.
    """
    chosen: list[int] = []
    recent = days[steps] >= BASELINE_04
    for era in (~recent, recent):
        members = np.flatnonzero(era)
        best = members[np.argsort(-clear[members], kind="stable")][: _CLEAREST * _DATES_EACH_ERA]
        # With fewer clear dates than that, leave out those with less than half the best.
        best = np.sort(best[clear[best] >= 0.5 * clear[best].max(initial=0)])
        picks = np.unique(np.linspace(0, len(best) - 1, _DATES_EACH_ERA).round().astype(np.intp))
        chosen += [int(steps[k]) for k in best[picks]] if len(best) else []
    return np.array(sorted(chosen), dtype=np.intp)
