"""Read an image window by window: sheets that share a grid, brought onto the lattice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from omnisat_cli.sources.identity import identify_all
from omnisat_cli.sources.resample import Warp, resample_axes, resample_warped
from omnisat_cli.sources.values import Decision, Identity, Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Lattice, Window
    from omnisat_cli.sources.mosaic import Mosaic


@dataclass(frozen=True, slots=True)
class Group:
    """Sheets that share one grid, and how that grid comes onto the lattice.

    Attributes:
        mosaic: The sheets; on the refined lattice itself where `how` is "copy".
        reach: Window of the refined lattice outside of which the group has nothing.
        how: "copy", "axes" or "warp".
        steps: (offset, ratio) of rows and of columns, for "axes".
        kernel: Resampling kernel, for "axes".
        warp: For "warp".
    """

    mosaic: Mosaic
    reach: Window
    how: Literal["copy", "axes", "warp"]
    steps: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 1.0), (0.0, 1.0))
    kernel: str = ""
    warp: Warp | None = None

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the refined lattice."""
        if self.warp is not None:
            return resample_warped(self.mosaic, window, self.warp)
        if self.how == "axes":
            return resample_axes(self.mosaic, window, self.steps, self.kernel)
        return self.mosaic.read(window)


@dataclass(frozen=True, slots=True)
class Layer:
    """Bands that come from one set of files."""

    bands: tuple[str, ...]
    groups: tuple[Group, ...]

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the refined lattice; the first group that is valid wins."""
        near = [g for g in self.groups if not g.reach.intersection(window).is_empty]
        pixels, valid = (near or self.groups)[0].read(window)
        for group in near[1:]:
            if valid.all():
                break
            under, seen = group.read(window)
            seen &= ~valid
            np.copyto(pixels, under, where=seen)
            valid |= seen
        return pixels, valid


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image modality over the whole area; see `values.Source`.

    Pickles without its open files and opens them again where it lands; each thread has its own.
    """

    modality: str
    lattice: Lattice
    refine: int
    bands: tuple[str, ...]
    footprints: tuple[Bounds, ...]
    decisions: tuple[Decision, ...]
    files: tuple[str, ...]
    layers: tuple[Layer, ...]
    dtype: str
    _identities: list[Identity] = field(default_factory=list, compare=False, repr=False)

    @property
    def dates(self) -> NDArray[np.datetime64]:
        """An image has no dates: (0,)."""
        return np.empty(0, "datetime64[D]")

    @property
    def identities(self) -> tuple[Identity, ...]:
        """The files this source reads, hashed when first asked."""
        if not self._identities:
            self._identities.extend(identify_all(self.files))
        return tuple(self._identities)

    def read(self, window: Window) -> Image:
        """Read a window given in anchor pixels; ground outside the footprint is not valid.

        Args:
            window: Window of the anchor lattice.

        Returns:
            (C, H, W) pixels with H = height × refine, uint8 or float32 8-bit numbers.

        Raises:
            SourceError: If bytes that should be there cannot be read.
        """
        fine = window.refined(self.refine)
        if len(self.layers) == 1:
            return Image(*self.layers[0].read(fine))
        pixels = np.empty((len(self.bands), *fine.shape), self.dtype)
        valid = np.ones(fine.shape, np.bool_)
        for layer in self.layers:
            got, seen = layer.read(fine)
            for band, plane in zip(layer.bands, got, strict=True):
                pixels[self.bands.index(band)] = plane
            valid &= seen
        if not valid.all():
            pixels[:, ~valid] = 0
        return Image(pixels, valid)
