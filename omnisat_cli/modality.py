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
    from collections.abc import Iterable, Mapping

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
        thermal: Bands delivered in kelvin, whatever `units`.
        derived: Band that a network may want and no file needs to hold, to the two bands whose
            difference it is in `units`; of decibels that is the ratio.
        fed_by: Modality whose files may hold this one, or "".
        context: Whether its pixels are larger than patches: it informs the other sensors, and
            makes no map where they are absent.
    """

    name: str
    kind: Kind
    gsd: float
    bands: tuple[str, ...]
    units: Units
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    thermal: tuple[str, ...] = ()
    derived: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    fed_by: str = ""
    context: bool = False

    def stored(self, bands: Iterable[str]) -> tuple[str, ...]:
        """Return the bands that files must hold for some bands, in canonical order."""
        needed = {part for band in bands for part in self.derived.get(band, (band,))}
        return tuple(band for band in self.bands if band in needed)


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

_ELEVATION = ("elevation", "elev", "height", "ndsm", "dsm", "mnh", "mns")
_FLAIR_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {**_OPTICAL_ALIASES, "ELEV": _ELEVATION}
)

_ALOS_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "HH": ("hh", "hh_db", "sigma0_hh", "gamma0_hh", "sl_hh", "band_hh"),
        "HV": ("hv", "hv_db", "sigma0_hv", "gamma0_hv", "sl_hv", "band_hv"),
    }
)

_L7_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "B1": ("b01", "blue"),
        "B2": ("b02", "green"),
        "B3": ("b03", "red"),
        "B4": ("b04", "nir", "nir08"),
        "B5": ("b05", "swir16", "swir_1", "swir1"),
        "B7": ("b07", "swir22", "swir_2", "swir2"),
    }
)

_L8_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "B1": ("b01", "coastal"),
        "B2": ("b02", "blue"),
        "B3": ("b03", "green"),
        "B4": ("b04", "red"),
        "B5": ("b05", "nir", "nir08"),
        "B6": ("b06", "swir16", "swir_1", "swir1"),
        "B7": ("b07", "swir22", "swir_2", "swir2"),
        "B8": ("b08", "pan", "panchromatic"),
        "B9": ("b09", "cirrus"),
        "B10": ("lwir", "lwir11", "tirs1"),
        "B11": ("lwir12", "tirs2"),
    }
)

_MODIS_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "B1": ("b01", "red"),
        "B2": ("b02", "nir"),
        "B3": ("b03", "blue"),
        "B4": ("b04", "green"),
        "B5": ("b05", "nir12"),
        "B6": ("b06", "swir16", "swir_1", "swir1"),
        "B7": ("b07", "swir22", "swir21", "swir_2", "swir2"),
    }
)

_RATIO: Mapping[str, tuple[str, str]] = MappingProxyType({"ratio": ("VV", "VH")})
_ALOS_RATIO: Mapping[str, tuple[str, str]] = MappingProxyType({"ratio": ("HH", "HV")})

RGB_NIR = ("R", "G", "B", "NIR")
S2_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
L7_BANDS = ("B1", "B2", "B3", "B4", "B5", "B7")
L8_BANDS = ("B8", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9", "B10", "B11")
MODIS_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
S1_BANDS = ("VV", "VH")

_TABLE = (
    Modality("aerial", "image", 0.2, RGB_NIR, "dn8", _OPTICAL_ALIASES),
    Modality(
        "aerial-flair", "image", 0.2, (*RGB_NIR, "ELEV"), "dn8", _FLAIR_ALIASES, fed_by="aerial"
    ),
    Modality("spot", "image", 1.0, ("R", "G", "B"), "dn8", _OPTICAL_ALIASES),
    Modality("naip", "image", 1.25, RGB_NIR, "dn8", _OPTICAL_ALIASES),
    Modality("s2", "series", 10.0, S2_BANDS, "reflectance_1e4", _S2_ALIASES),
    Modality("s1", "series", 10.0, S1_BANDS, "db", _S1_ALIASES, derived=_RATIO),
    Modality("s1-asc", "series", 10.0, S1_BANDS, "db", _S1_ALIASES, derived=_RATIO, fed_by="s1"),
    Modality("s1-des", "series", 10.0, S1_BANDS, "db", _S1_ALIASES, derived=_RATIO, fed_by="s1"),
    Modality("alos", "series", 30.0, ("HH", "HV"), "db", _ALOS_ALIASES, derived=_ALOS_RATIO),
    Modality("l7", "series", 30.0, L7_BANDS, "reflectance_1e4", _L7_ALIASES),
    Modality(
        "l8", "series", 30.0, L8_BANDS, "reflectance_1e4", _L8_ALIASES, thermal=("B10", "B11")
    ),
    Modality(
        "modis", "series", 250.0, MODIS_BANDS, "reflectance_1e4", _MODIS_ALIASES, context=True
    ),
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


def stand_alone(names: Iterable[str]) -> bool:
    """Whether some sensors tell something of patches without others: context alone does not."""
    return any(not MODALITIES[name].context for name in names)


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
