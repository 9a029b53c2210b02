"""What readers deliver, and what they decided on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Window


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing a reader recognised, why, and how to overrule it.

    Attributes:
        topic: "bands", "dates", "scale", "offset", "mask", "crs", "resampling", "nodata", …
        value: What was decided, in words.
        because: The evidence, with numbers.
        option: The flag that overrules it, or "" where nothing can.
        warning: Whether the user should look at it.
    """

    topic: str
    value: str
    because: str
    option: str = ""
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file was when it was opened: two equal identities are the same bytes."""

    path: str
    size: int
    mtime_ns: int
    sha256: str
    sampled: bool
    """Whether `sha256` covers a sample of the bytes (large files) or all of them."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image over a window.

    Attributes:
        pixels: (C, H, W) in the canonical unit of the modality; 0 where not valid.
        valid: (H, W) bool, True = real data.
    """

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Series:
    """One time series over a window.

    Attributes:
        pixels: (T, C, H, W) float32 in the canonical unit of the modality; 0 where not valid.
        dates: (T,) datetime64[D], ascending.
        valid: (T, H, W) bool, True = real data, clear.
        clouded: (T, H, W) bool, True = there was data, but a mask dropped it (cloud, shadow,
            snow), so that a hole can say why.
    """

    pixels: NDArray[np.float32]
    dates: NDArray[np.datetime64]
    valid: NDArray[np.bool_]
    clouded: NDArray[np.bool_]


class Source(Protocol):
    """One modality over the whole area: opened once, read window by window.

    A source is bound to an anchor lattice and delivers pixels on that lattice refined by
    `refine`. It pickles as its paths and options and reopens itself where it lands.
    """

    @property
    def modality(self) -> str:
        """Name in the table of sensors."""

    @property
    def refine(self) -> int:
        """Pixels of this source along one anchor pixel."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the delivered bands, in the order of axis C."""

    @property
    def dates(self) -> NDArray[np.datetime64]:
        """(T,) days every read delivers, ascending; empty for an image."""

    @property
    def footprints(self) -> tuple[Bounds, ...]:
        """Rectangles (left, bottom, right, top) that hold all data, in the CRS of the lattice."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Everything recognised when opening."""

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The files this source reads."""

    def read(self, window: Window) -> Image | Series:
        """Read a window given in anchor pixels; ground outside the footprint is not valid.

        Raises:
            SourceError: If bytes that should be there cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything read for one block: an absent modality is an absent key."""

    window: Window
    data: Mapping[str, Image | Series] = field(default_factory=dict)
