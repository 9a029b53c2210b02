"""How variables store numbers: their sign, fill values and CF scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.modality import Modality

_ASSUMED_FILLS = {
    "u2": (65535.0,),
    "i2": (-32768.0, -10000.0, -9999.0),
    "i4": (65535.0, -32768.0, -10000.0, -9999.0),
    "u4": (65535.0,),
    "f4": (65535.0, -32768.0, -10000.0, -9999.0),
    "f8": (65535.0, -32768.0, -10000.0, -9999.0),
}
"""By type: numbers that chains use for "no data" and that no reflectance or backscatter is."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one variable stores numbers.

    Attributes:
        unsigned: Whether signed integers hold unsigned values (`_Unsigned`).
        declared: Fill values the file declares.
        assumed: Fill values it does not declare, but that no measurement can be.
        scale: CF scale_factor.
        offset: CF add_offset.
    """

    unsigned: bool
    declared: tuple[float, ...]
    assumed: tuple[float, ...]
    scale: float = 1.0
    offset: float = 0.0

    def numbers(self, raw: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the stored numbers with their true sign."""
        if self.unsigned and raw.dtype.kind == "i":
            return raw.view(raw.dtype.str.replace("i", "u"))
        return raw

    def decode(self, raw: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return CF-decoded values and where they are data."""
        stored = self.numbers(raw)
        values = stored.astype(np.float32)
        data = np.isfinite(values)
        for fill in (*self.declared, *self.assumed):
            data &= values != np.float32(fill)
        if self.scale != 1.0 or self.offset != 0.0:
            values *= np.float32(self.scale)
            values += np.float32(self.offset)
        return values, data


def find_encoding(dtype: np.dtype[np.generic], attributes: Mapping[str, object]) -> Encoding:
    """Read the encoding of a variable from its type and attributes."""
    unsigned = str(attributes.get("_Unsigned", "")).lower() == "true" and dtype.kind == "i"
    code = f"{'u' if unsigned else dtype.kind}{dtype.itemsize}"
    declared: list[float] = []
    for key in ("_FillValue", "missing_value", "nodata", "nodatavals", "_nodata"):
        declared += as_floats(attributes.get(key))
    if unsigned:
        declared = [fill + 2.0 ** (8 * dtype.itemsize) if fill < 0 else fill for fill in declared]
    finite = tuple(dict.fromkeys(fill for fill in declared if np.isfinite(fill)))
    assumed = tuple(fill for fill in _ASSUMED_FILLS.get(code, ()) if fill not in finite)
    scale = as_floats(attributes.get("scale_factor")) or [1.0]
    offset = as_floats(attributes.get("add_offset")) or [0.0]
    return Encoding(unsigned, finite, assumed, scale[0], offset[0])


def as_floats(value: object) -> list[float]:
    """Return the numbers of an attribute; none where it holds something else."""
    if value is None:
        return []
    try:
        return [float(number) for number in np.atleast_1d(np.asarray(value)).tolist()]
    except (TypeError, ValueError):
        return []


def empty_everywhere(
    raw: Mapping[str, NDArray[np.generic]], data: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Where every band is exactly zero: no ground reflects nothing in all of them."""
    zero = np.ones_like(data)
    for values in raw.values():
        zero &= values == 0
    return zero & data


def nodata_decision(
    sensor: Modality, encodings: Mapping[str, Encoding], raw: Mapping[str, NDArray[np.generic]]
) -> Decision:
    """State which stored values mean "no data", and how often a sample holds the undeclared."""
    declared = sorted({fill for entry in encodings.values() for fill in entry.declared})
    counts: dict[float, int] = {}
    total = 0
    for band, values in raw.items():
        numbers = encodings[band].numbers(values)
        total += numbers.size
        for fill in encodings[band].assumed:
            counts[fill] = counts.get(fill, 0) + int((numbers == fill).sum())
    seen = {fill: count for fill, count in counts.items() if count}
    if declared or not seen:
        value = ", ".join(f"{fill:g}" for fill in declared) or "none declared"
        because = "declared by the file" if declared else f"no known fill value in {total} samples"
        if not seen:
            return Decision("nodata", value, because)
        declared_words = f"{value} declared; "
    else:
        declared_words = ""
    value = ", ".join(f"{fill:g}" for fill in seen)
    shares = ", ".join(f"{count / total:.1%} of the samples are exactly {fill:g}"
                       for fill, count in seen.items())  # fmt: skip
    impossible = "reflectance" if sensor.units == "reflectance_1e4" else "backscatter"
    because = f"{declared_words}{shares}, which no {impossible} is"
    return Decision("nodata", value, because, warning=True)
