"""From decoded numbers to the canonical unit of a sensor, and how radar tells its own.

Everything is recognised from metadata *and* measured on a sample, stated, and can be overruled.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.modality import flag
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from numpy.typing import NDArray

RadarUnits = Literal["auto", "db", "linear", "amplitude"]
Transfer = Literal["affine", "power", "amplitude"]

FLOOR_DB = -50.0
_EMPTY_POWER = 1e-8
"""Linear power (-80 dB) below which a pixel is the empty edge of a frame, not dark ground."""
_AMPLITUDE_DB = 83.0
"""WorldCereal stores S1, and JAXA ALOS-2, as uint16 with dB = 20 log10(DN) - 83."""
_SATURATED = 65534.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """From CF-decoded values to the canonical unit of a sensor.

    Attributes:
        transfer: "affine", "power" (linear backscatter) or "amplitude" (scaled integers).
        gain: Factor of the affine transfer.
        offsets: Per stored date, added after the gain; empty where none.
        shift: Added after the gain at every date.
        least: Smallest decoded value that is data.
    """

    transfer: Transfer
    gain: float = 1.0
    offsets: tuple[float, ...] = ()
    shift: float = 0.0
    least: float = -math.inf

    def apply(
        self, values: NDArray[np.float32], data: NDArray[np.bool_], steps: slice
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Convert (T, h, w) values of the stored dates `steps`; return them and where valid."""
        if self.transfer == "affine":
            if self.least > -math.inf:
                data = data & (values >= self.least)
            if self.gain != 1.0 or self.shift:
                values = values * np.float32(self.gain) + np.float32(self.shift)
            if self.offsets:
                shift = np.array(self.offsets[steps], dtype=np.float32)
                values = values + shift[:, None, None]
            return values, data
        data = data & (values > _EMPTY_POWER)
        if self.transfer == "amplitude":
            data &= values < _SATURATED
            decibels = 20 * np.log10(np.where(data, values, 1)) - _AMPLITUDE_DB
        else:
            decibels = 10 * np.log10(np.where(data, values, 1))
        return np.maximum(decibels, FLOOR_DB).astype(np.float32), data


@dataclass(frozen=True, slots=True)
class BandSample:
    """A sample of a cube for measuring: a few dates, spread windows.

    Attributes:
        bands: Canonical names.
        days: (n,) days of the sampled dates.
        steps: (n,) their indices among the stored dates.
        values: (n, C, pixels) CF-decoded values.
        data: (n, C, pixels) whether they are data.
        clear: (n, pixels) whether no mask drops them.
    """

    bands: tuple[str, ...]
    days: NDArray[np.datetime64]
    steps: NDArray[np.intp]
    values: NDArray[np.float32]
    data: NDArray[np.bool_]
    clear: NDArray[np.bool_]

    def usable(self) -> NDArray[np.float32]:
        """Every value that is data and clear; every value that is data where none is clear."""
        good = self.data & self.clear[:, None]
        return self.values[good if good.any() else self.data]


def radar_scaling(
    sensor: str, sample: BandSample, stored: str, declared_units: str, asked: RadarUnits
) -> tuple[Scaling, Decision]:
    """Tell decibels, linear power and scaled amplitudes (WorldCereal, ALOS-2) apart.

    Args:
        sensor: Name in the table of sensors.
        sample: Sample of its bands.
        stored: Type as stored, true sign ("uint16", "float32").
        declared_units: The `units` attribute, or "".
        asked: What the user states.

    Raises:
        SourceError: If the measurement fits none, or contradicts the declared units.
    """
    values, option = sample.usable(), flag(sensor, "units")
    median = float(np.median(values)) if values.size else float("nan")
    low = float(values.min()) if values.size else float("nan")
    found = asked
    if asked == "auto":
        found = _measured_units(sensor, stored, (median, low, values.size))
    said = "db" if re.search(r"\bdb\b|decibel", declared_units.lower()) else ""
    if asked == "auto" and said and found != said:
        raise SourceError(
            f"the units attribute says {declared_units!r}, but the values have median {median:.4g} "
            f"and minimum {low:.4g}, which is {found}; pass {option} db or {option} {found}"
        )
    because = "as asked" if asked != "auto" else f"{stored}, median {median:.4g}, minimum {low:.4g}"
    if found == "db":
        return Scaling("affine"), Decision("scale", "decibels", because, option)
    if found == "linear":
        value = f"linear power → dB, floor {FLOOR_DB:g} dB"
        return Scaling("power"), Decision("scale", value, because, option)
    saturated = int((values == _SATURATED).sum())
    value = f"scaled amplitude → 20 log10(DN) - {_AMPLITUDE_DB:g} dB"
    because += f", that is {20 * np.log10(max(median, 1.0)) - _AMPLITUDE_DB:.1f} dB"
    because += f"; {saturated} saturated samples (65534) dropped" if saturated else ""
    return Scaling("amplitude"), Decision("scale", value, because, option)


_RADARS = {"alos": "ALOS-2"}


def _measured_units(sensor: str, stored: str, measured: tuple[float, float, int]) -> RadarUnits:
    """Tell the units from the stored type and the median, minimum and count of a sample."""
    median, low, count = measured
    radar, option = _RADARS.get(sensor, "Sentinel-1"), flag(sensor, "units")
    if not count:
        raise SourceError(
            f"{radar}: the sample holds no data, so dB and linear cannot be told apart; "
            f"pass {option} db, linear or amplitude"
        )
    if low < 0 and -45 < median < 5:
        return "db"
    if low >= 0 and median < 2:
        return "linear"
    if stored == "uint16" and -40 < 20 * np.log10(max(median, 1.0)) - _AMPLITUDE_DB < 10:
        return "amplitude"
    raise SourceError(
        f"{radar} stored as {stored} with median {median:.4g} and minimum {low:.4g} is neither "
        "dB (-45 to 5), linear power (below 2) nor scaled amplitude (uint16); "
        f"pass {option} db, linear or amplitude if you know"
    )
