"""What a user may state about an image, and what a pack asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Resampling = Literal["auto", "average", "bilinear", "nearest"]


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What the user overrules, and what the pack asks for.

    Attributes:
        bands: Names in file order; "A" for a mask, "-" for a band to leave out. None: recognise.
        wanted: Bands to deliver where the files have them; None for all.
        nodata: Value that means no data; "none" to ignore a declared one; None to believe it.
        gsd: Pixel size to deliver, in units of the lattice; None for the file's own.
        resampling: "auto" averages when coarsening and interpolates otherwise.
        scale: Factor from stored to 8-bit values; None: recognise.
        crs: CRS instead of what the files say.
        irc: Colour-infrared files whose NIR is added to the image's R, G, B.
        irc_bands: Order of the bands of `irc`.
        allow_roots: Folders that VRT sources outside the VRT's folder may lie in.
    """

    bands: tuple[str, ...] | None = None
    wanted: tuple[str, ...] | None = None
    nodata: float | Literal["none"] | None = None
    gsd: float | None = None
    resampling: Resampling = "auto"
    scale: float | None = None
    crs: str | None = None
    irc: tuple[str, ...] = ()
    irc_bands: tuple[str, ...] = ("NIR", "R", "G")
    allow_roots: tuple[str, ...] = ()
