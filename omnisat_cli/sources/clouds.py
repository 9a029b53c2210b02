"""Masks of clouds, shadows and snow: which layer it is, what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

MaskKind = Literal["scl", "cloud", "valid", "probability", "qai", "landsat", "modis"]

_KINDS: dict[str, MaskKind] = {
    "scl": "scl",
    "scene_classification": "scl",
    "clm": "cloud",
    "cloud_mask": "cloud",
    "cloudmask": "cloud",
    "clouds": "cloud",
    "cloud": "cloud",
    "qai": "qai",
    "qa_pixel": "landsat",
    "state_1km": "modis",
    "state_500m": "modis",
    "cloud_probability": "probability",
    "clp": "probability",
    "cldprb": "probability",
    "msk_cldprb": "probability",
}
_AMBIGUOUS = ("mask", "qa", "valid_mask", "quality")
_PREFERENCE: tuple[MaskKind, ...] = (
    "scl",
    "qai",
    "landsat",
    "modis",
    "cloud",
    "probability",
    "valid",
)

SCL_CLEAR = (4, 5, 6, 7)
_SCL_SNOW = 11
_SCL_EMPTY = (0, 1)
_SCL_LAST = 11
_PROBABLE = 40.0
"""Per cent of cloud probability from which a pixel counts as cloud (Sentinel Hub's usual cut)."""

_QAI_EMPTY = 1
_QAI_CLOUD = 0b11110  # cloud state (2 bits), cloud shadow, snow
_QAI_BROKEN = 1 << 9  # saturated

_BITS: dict[str, tuple[int, int, int]] = {
    # empty, hidden, snow
    "qai": (_QAI_EMPTY | _QAI_BROKEN, _QAI_CLOUD & ~(1 << 4), 1 << 4),
    "landsat": (1, 0b11110, 1 << 5),  # dilated cloud, cirrus, cloud, shadow
    "modis": (0, 1 << 2 | 1 << 10, 1 << 12 | 1 << 15),  # shadow, internal cloud; and `apply`
}


@dataclass(frozen=True, slots=True)
class CloudRule:
    """What the numbers of a mask mean.

    Attributes:
        kind: The convention.
        keep_snow: Whether snow counts as clear (SCL and bits).
        full_scale: The number that means 100 % (probabilities).
    """

    kind: MaskKind
    keep_snow: bool = False
    full_scale: float = 100.0

    def apply(
        self, numbers: NDArray[np.generic], known: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Split pixels by their mask numbers.

        Args:
            numbers: Mask values, any shape.
            known: Where the mask itself is data; elsewhere nothing is clear.

        Returns:
            Where it is clear, and where a cloud, shadow or snow hides the ground. Pixels in
            neither are empty.
        """
        # Where the mask itself is not data its numbers (NaN, fill) may not fit an integer.
        codes = np.where(known, numbers, 0).astype(np.int64)
        if self.kind == "scl":
            keep = (*SCL_CLEAR, _SCL_SNOW) if self.keep_snow else SCL_CLEAR
            table = np.zeros((2, _SCL_LAST + 2), dtype=bool)  # the last: beyond every class
            table[0, list(keep)] = table[1, list(_SCL_EMPTY)] = True
            clear, empty = table[:, np.clip(codes, 0, _SCL_LAST + 1)]
        elif self.kind in _BITS:
            none, hidden, snow = _BITS[self.kind]
            empty = (codes & none) != 0
            clear = ~empty & ((codes & (hidden if self.keep_snow else hidden | snow)) == 0)
            if self.kind == "modis":  # two bits of cloud state: clear, cloudy, mixed, not set
                clear &= (codes & 0b11) % 3 == 0
        elif self.kind == "probability":
            clear = codes < _PROBABLE * self.full_scale / 100
            empty = np.zeros_like(clear)
        else:
            clear = (codes != 0) if self.kind == "valid" else (codes == 0)
            empty = np.zeros_like(clear)
        return clear & known, ~clear & ~empty & known

    def words(self) -> str:
        """Say the rule to a user."""
        snow = " and 11 (snow)" if self.keep_snow else ""
        return {
            "scl": f"SCL classes 4, 5, 6, 7{snow} are clear; 2, 3, 8, 9, 10"
            + ("" if self.keep_snow else ", 11")
            + " are hidden; 0, 1 are empty",
            "qai": "FORCE quality bits: cloud, shadow" + ("" if snow else ", snow") + " are hidden",
            "landsat": "QA_PIXEL bits: cloud, cirrus, shadow"
            + ("" if snow else ", snow")
            + " are hidden, fill is empty",
            "modis": "state bits: cloud, shadow" + ("" if snow else ", snow") + " are hidden",
            "cloud": "numbers other than 0 are cloud",
            "valid": "numbers other than 0 are clear",
            "probability": f"{_PROBABLE:g} % and more is cloud",
        }[self.kind]


def find_mask(names: Iterable[str], asked: str) -> tuple[str, MaskKind | None] | None:
    """Pick the mask among the layer names.

    Args:
        names: Layer names of the file.
        asked: "auto", "none", "NAME" or "NAME:kind" with a kind of `MaskKind`.

    Returns:
        The layer name and its convention (None: the name does not tell), or None without a mask.

    Raises:
        JobError: If the kind asked for does not exist.
        SourceError: If the layer asked for does not exist.
    """
    present = [name for name in names if name]
    if asked == "none":
        return None
    if asked != "auto":
        name, _, word = asked.partition(":")
        if name not in present:
            raise SourceError(
                f"--cloud-mask {name}: no such layer among {', '.join(present) or 'none'}"
            )
        chosen = next((entry for entry in _PREFERENCE if entry == word), None)
        if word and chosen is None:
            raise JobError(f"--cloud-mask {asked}: the kind is one of {', '.join(_PREFERENCE)}")
        return name, chosen or _kind_of(name)
    known = [(kind, name) for name in present if (kind := _kind_of(name)) is not None]
    for preferred in _PREFERENCE:
        for kind, name in known:
            if kind == preferred:
                return name, kind
    return next(((name, None) for name in present if _last(name, _AMBIGUOUS)), None)


def _kind_of(name: str) -> MaskKind | None:
    return next((kind for word, kind in _KINDS.items() if _last(name, (word,))), None)


def _last(name: str, words: tuple[str, ...]) -> bool:
    """Whether a name is one of the words, or ends in it after a prefix ("S2-L2A-SCL")."""
    plain = name.strip().lower().replace("-", "_")
    return any(plain == word or plain.endswith(f"_{word}") for word in words)


def settle_rule(
    found: tuple[str, MaskKind | None], values: NDArray[np.generic], keep_snow: bool
) -> tuple[CloudRule, Decision]:
    """Fix the convention of a mask, from its name or from the numbers in it.

    Args:
        found: Name and convention (None: not known).
        values: A sample of its numbers, without fill values.
        keep_snow: Whether snow counts as clear.

    Raises:
        SourceError: If the numbers do not tell, or do not fit the convention.
    """
    name, kind = found
    numbers = np.unique(values[np.isfinite(values)]) if values.size else np.array([])
    highest = float(numbers.max()) if numbers.size else 0.0
    if kind is None:
        if not (numbers.size > 2 and highest <= _SCL_LAST):
            listed = ", ".join(f"{number:g}" for number in numbers[:8])
            raise SourceError(
                f"the layer {name!r} holds {listed or 'nothing'}: a mask of clouds or of clear "
                f"pixels? Pass --cloud-mask {name}:cloud, {name}:valid or none"
            )
        kind = "scl"
    if kind == "scl" and highest > _SCL_LAST:
        raise SourceError(
            f"the layer {name!r} holds {highest:g}, but scene classes end at {_SCL_LAST}; "
            f"pass --cloud-mask {name}:cloud, {name}:qai or none"
        )
    rule = CloudRule(kind, keep_snow, 255.0 if kind == "probability" and highest > 100 else 100.0)
    return rule, Decision("mask", f"{name}: {rule.words()}", "the layer's name", "--cloud-mask")
