"""THE table of sensors. To add a sensor, add an entry here.

Units are canonical and physical: a reader delivers them whatever the file stores, and a model pack
states its normalisation in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["image", "series"]
Units = Literal["dn8", "reflectance_1e4", "db"]


@dataclass(frozen=True, slots=True)
class Modality:
    """One sensor as the program knows it.

    Attributes:
        name: Identifier used in packs, jobs, provenance and option names.
        kind: "image" (C, H, W) or "series" (T, C, H, W).
        gsd: Nominal ground sample distance in metres.
        bands: Canonical band names in canonical order.
        units: Unit of the pixels a reader delivers: 8-bit digital numbers, reflectance × 10 000,
            or decibels.
        aliases: Canonical band name to the lower-case names accepted for it.
    """

    name: str
    kind: Kind
    gsd: float
    bands: tuple[str, ...]
    units: Units
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_OPTICAL_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "R": ("r", "red", "rouge"),
        "G": ("g", "green", "vert"),
        "B": ("b", "blue", "bleu"),
        "NIR": ("nir", "ir", "pir", "infrared", "near infrared", "near-infrared", "nearinfrared"),
    }
)

_S2_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "B02": ("b02", "b2", "blue", "band_02"),
        "B03": ("b03", "b3", "green", "band_03"),
        "B04": ("b04", "b4", "red", "band_04"),
        "B05": ("b05", "b5", "rededge1", "red_edge_1", "red_edge1", "re1"),
        "B06": ("b06", "b6", "rededge2", "red_edge_2", "red_edge2", "re2"),
        "B07": ("b07", "b7", "rededge3", "red_edge_3", "red_edge3", "re3"),
        "B08": ("b08", "b8", "nir", "nir_1", "broad nir", "bnir"),
        "B8A": ("b8a", "b08a", "nir08", "nir_narrow", "nir_2", "nnir"),
        "B11": ("b11", "swir16", "swir_1", "swir1"),
        "B12": ("b12", "swir22", "swir_2", "swir2"),
    }
)

_S1_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "VV": ("vv", "vv_db", "sigma0_vv", "gamma0_vv", "band_vv"),
        "VH": ("vh", "vh_db", "sigma0_vh", "gamma0_vh", "band_vh"),
    }
)

S2_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")

_TABLE = (
    Modality("aerial", "image", 0.2, ("R", "G", "B", "NIR"), "dn8", _OPTICAL_ALIASES),
    Modality("spot", "image", 1.0, ("R", "G", "B"), "dn8", _OPTICAL_ALIASES),
    Modality("s2", "series", 10.0, S2_BANDS, "reflectance_1e4", _S2_ALIASES),
    Modality("s1", "series", 10.0, ("VV", "VH"), "db", _S1_ALIASES),
    Modality("s1-asc", "series", 10.0, ("VV", "VH"), "db", _S1_ALIASES),
    Modality("s1-des", "series", 10.0, ("VV", "VH"), "db", _S1_ALIASES),
)

MODALITIES: Mapping[str, Modality] = MappingProxyType({entry.name: entry for entry in _TABLE})


def modality(name: str) -> Modality:
    """Look a sensor up.

    Raises:
        JobError: If the table has no such sensor.
    """
    try:
        return MODALITIES[name]
    except KeyError:
        known = ", ".join(MODALITIES)
        raise JobError(f"unknown modality {name!r}; this version knows {known}") from None


_UNPREFIXED = ("allow_root", "cloud_mask", "duplicate_dates", "keep_snow", "max_cloud")
_OF_ANY_CUBE = ("crs", "group", "pixels")


def flag(name: str, option: str) -> str:
    """Return the flag that states something of a modality's files, for messages.

    Args:
        name: Modality; both orbits of a radar share their flags.
        option: Name of the statement, as in `job.Input.options`.
    """
    if option == "dates_file":
        return "--dates"
    words = option.replace("_", "-")
    if option in _UNPREFIXED:
        return f"--{words}"
    of_cube = option in _OF_ANY_CUBE and MODALITIES[name].kind == "series"
    return f"--{'cube' if of_cube else name.split('-', maxsplit=1)[0]}-{words}"


def canonical_band(sensor: Modality, name: str) -> str | None:
    """Return the canonical name of a band as some file calls it, or None if unknown.

    Prefixes that processing chains put before the band ("S2-L2A-B04", "S1-SIGMA0-VH") are
    dropped: the last part that is a known name wins.
    """
    wanted = name.strip().lower()
    last = wanted.replace("-", "_").rsplit("_", 1)[-1]
    for candidate in (wanted, wanted.replace("-", "_"), last):
        for band in sensor.bands:
            if candidate == band.lower() or candidate in sensor.aliases.get(band, ()):
                return band
    return None
