"""Landsat and MODIS: from stored numbers to reflectance × 10 000, thermal bands to kelvin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.modality import flag
from omnisat_cli.sources.scaling import Scaling
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.modality import Modality
    from omnisat_cli.sources.scaling import BandSample

LANDSAT_GAIN, LANDSAT_OFFSET = 2.75e-5, -0.2
"""Collection 2 Level 2: reflectance = DN × 2.75e-5 - 0.2; DN 0 is no data."""

_KELVIN_GAIN, _KELVIN_OFFSET = 0.00341802, 149.0
"""Collection 2 Level 2 surface temperature."""

_TOP_GAIN, _TOP_OFFSET = 2e-5, -0.1
"""Collection 2 Level 1: reflectance at the top of the atmosphere."""

_LEVEL_2 = re.compile(r"\bSR_B\d|\bL2S[PR]\b|c2-?l2|level[-_ ]?2", re.IGNORECASE)
_LEVEL_1 = re.compile(r"\bL1(TP|GT|GS)\b|c2-?l1|level[-_ ]?1", re.IGNORECASE)
_DARKEST = 4500.0
"""Numbers of both levels lie above it; reflectance × 10 000 has dark ground below."""

_BRIGHTEST = 60_000.0
_KELVIN = (180.0, 350.0)
_LEAST_DN = 1.0


@dataclass(frozen=True, slots=True)
class Stored:
    """How a file stores its bands.

    Attributes:
        dtype: Type with its true sign, "uint16".
        words: Names of the layers and texts of the attributes, where a level may be said.
        scale: CF scale_factor that decoding applied.
    """

    dtype: str
    words: str
    scale: float


def optical_scaling(
    sensor: Modality,
    sample: BandSample,
    stored: Stored,
    asked: tuple[float | None, float | None],
) -> tuple[dict[str, Scaling], tuple[Decision, ...]]:
    """Decide how values become reflectance × 10 000, and thermal bands kelvin.

    Args:
        sensor: A Landsat or MODIS.
        sample: Sample of its bands.
        stored: How the file stores them.
        asked: Factor and offset to reflectance that the user states (None: find out).

    Returns:
        Scaling of each thermal band, and under "" that of every other; and why.

    Raises:
        SourceError: If the values fit no known scale.
        JobError: If an offset is stated without a factor.
    """
    columns = [k for k, band in enumerate(sample.bands) if band not in sensor.thermal]
    values = _usable(sample, columns)
    scaling, decision = _reflectance(sensor, values, stored, asked)
    scalings, decisions = {"": scaling}, [decision]
    for k, band in enumerate(sample.bands):
        if band in sensor.thermal:
            scalings[band], decision = _kelvin(sensor, band, _usable(sample, [k]))
            decisions.append(decision)
    return scalings, tuple(decisions)


def _usable(sample: BandSample, columns: list[int]) -> NDArray[np.float32]:
    data = sample.data[:, columns]
    good = data & sample.clear[:, None]
    return sample.values[:, columns][good if good.any() else data]


def _reflectance(
    sensor: Modality,
    values: NDArray[np.float32],
    stored: Stored,
    asked: tuple[float | None, float | None],
) -> tuple[Scaling, Decision]:
    scale, offset = asked
    option = flag(sensor.name, "scale")
    if scale is not None:
        shift = offset or 0.0
        said = f"× {scale:g}" + (f" + {shift:g}" if shift else "") + " is reflectance"
        return Scaling("affine", scale * 1e4, shift=shift * 1e4), Decision(
            "scale", said, "as asked", option
        )
    if offset is not None:
        raise JobError(f"{flag(sensor.name, 'offset')} {offset:g} needs {option} beside it")
    if not values.size:
        raise SourceError(f"{sensor.name}: the sample holds no data; state the factor: {option}")
    low, median, high = (float(q) for q in np.percentile(values, (2, 50, 98)))
    because = f"{stored.dtype}, median {median:.4g}, 2 % below {low:.4g}, 98 % below {high:.4g}"
    if high <= 3 and low > -1:
        return Scaling("affine", 1e4), Decision(
            "scale", "0–1 reflectance, × 10000", because, option
        )
    found = (_modis if sensor.name == "modis" else _landsat)(stored, (low, median, high))
    if found is None:
        raise SourceError(
            f"{sensor.name}: {because}, and neither names nor attributes say how reflectance is "
            f"stored. State it, e.g. {option} 0.0000275 {flag(sensor.name, 'offset')} -0.2 "
            f"(Landsat Collection 2 Level 2), {option} 0.00002 {flag(sensor.name, 'offset')} -0.1 "
            f"(Level 1, top of the atmosphere) or {option} 0.0001"
        )
    scaling, words, sure = found
    return scaling, Decision("scale", words, because, option, warning=not sure)


_Found = tuple[Scaling, str, bool]
"""A scaling, its name, and whether it is surface reflectance."""


def _landsat(stored: Stored, measured: tuple[float, float, float]) -> _Found | None:
    """Values alone tell scaled reflectance, but not one level of Collection 2 from the other."""
    low, median, high = measured
    if low < _DARKEST:
        return (Scaling("affine"), "0–10000 scale", True) if _is_scaled(median, high) else None
    if high >= _BRIGHTEST or stored.scale != 1:
        return None
    if _LEVEL_2.search(stored.words):
        words = f"Landsat Collection 2 Level 2: DN × {LANDSAT_GAIN:g} - {-LANDSAT_OFFSET:g}"
        return _from_numbers(LANDSAT_GAIN, LANDSAT_OFFSET), words, True
    if _LEVEL_1.search(stored.words):
        words = f"Landsat Level 1, top of the atmosphere: DN × {_TOP_GAIN:g} - {-_TOP_OFFSET:g}"
        return _from_numbers(_TOP_GAIN, _TOP_OFFSET), words, False
    return None


def _from_numbers(gain: float, offset: float) -> Scaling:
    return Scaling("affine", gain * 1e4, shift=offset * 1e4, least=_LEAST_DN)


def _modis(stored: Stored, measured: tuple[float, float, float]) -> _Found | None:
    _, median, high = measured
    if stored.scale >= 1000:
        median, high = median / stored.scale, high / stored.scale
        if _is_scaled(median, high):
            words = f"0–10000 scale; scale_factor {stored.scale:g} is a divisor in HDF-EOS"
            return Scaling("affine", 1e4 / stored.scale**2), words, True
    return (Scaling("affine"), "0–10000 scale", True) if _is_scaled(median, high) else None


def _is_scaled(median: float, high: float) -> bool:
    """Whether values look like reflectance × 10 000."""
    return 40 <= high <= 16_000 and median > 0


def _kelvin(sensor: Modality, band: str, values: NDArray[np.float32]) -> tuple[Scaling, Decision]:
    """Recognise kelvin, or the numbers of Collection 2 surface temperature."""
    median = float(np.median(values)) if values.size else float("nan")
    because = f"median {median:.5g}"
    if _KELVIN[0] <= median <= _KELVIN[1]:
        return Scaling("affine"), Decision("scale", f"{band} in kelvin", because)
    kelvin = median * _KELVIN_GAIN + _KELVIN_OFFSET
    if median > 1000 and kelvin <= _KELVIN[1]:
        words = f"{band}: DN × {_KELVIN_GAIN:g} + {_KELVIN_OFFSET:g} K"
        because += f", that is {kelvin:.1f} K"
        scaling = Scaling("affine", _KELVIN_GAIN, shift=_KELVIN_OFFSET, least=_LEAST_DN)
        return scaling, Decision("scale", words, because)
    raise SourceError(
        f"{sensor.name} {band} has {because}: neither kelvin nor Collection 2 surface temperature; "
        f"write it in kelvin, or leave it out of the file and pass "
        f"{flag(sensor.name, 'substitute')} {band}=none"
    )
