"""What a user may state about a cube."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omnisat_cli.sources.cube_dates import Duplicates
    from omnisat_cli.sources.cube_grid import PixelReference
    from omnisat_cli.sources.scaling import RadarUnits


@dataclass(frozen=True, slots=True)
class CubeOptions:
    """What the user states about a cube; the defaults mean "find out".

    Attributes:
        crs: CRS of the cube, where the file has none or a wrong one (--cube-crs).
        pixels: Whether coordinates name centres or top-left corners (--cube-pixels).
        group: Group inside the container (--cube-group).
        bands: Band names in file order, for files that name none (--s2-bands).
        wanted: Bands to deliver where the file has them; None for all.
        dates_file: Text file with one date a line (--dates FILE).
        date_range: First and last day to use, both included.
        duplicate_dates: What to do with two images of one day.
        cloud_mask: "auto", "none", "NAME" or "NAME:kind" (--cloud-mask).
        keep_snow: Whether snow counts as clear.
        max_cloud: Dates with more per cent hidden (in the sample) are left out.
        gsd: Pixel size to deliver, metres; None for the sensor's own.
        scale: Factor from stored values to reflectance 0–1 (--s2-scale, --l8-scale).
        offset: What to add afterwards: Sentinel-2, to reflectance × 10 000, 0 or -1000
            (--s2-offset); other optical sensors, to reflectance (--l8-offset).
        units: Units of the backscatter (--s1-units).
        orbit_stated: Whether the user vouches for the orbit the modality names.
        substitutes: Canonical band to the band copied in its place.
        on_error: "fail", or "hole": a date that cannot be read is left out of the window.
    """

    crs: str = ""
    pixels: PixelReference = "auto"
    group: str = ""
    bands: tuple[str, ...] = ()
    wanted: tuple[str, ...] | None = None
    dates_file: Path | None = None
    date_range: tuple[str, str] | None = None
    duplicate_dates: Duplicates = "refuse"
    cloud_mask: str = "auto"
    keep_snow: bool = False
    max_cloud: float | None = None
    gsd: float | None = None
    scale: float | None = None
    offset: float | None = None
    units: RadarUnits = "auto"
    orbit_stated: bool = False
    substitutes: Mapping[str, str] = field(default_factory=dict)
    on_error: Literal["fail", "hole"] = "fail"
