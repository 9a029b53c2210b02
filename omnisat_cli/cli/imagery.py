"""THE table of flags about imagery, and how a command takes all of them.

One line a flag: commands that read imagery write `@with_imagery` and get them as one mapping.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from omnisat_cli.cli import options as opt
from omnisat_cli.cli.flags import Flag, with_flags


@dataclass(frozen=True, slots=True)
class ImageryFlag:
    """One flag about the files of some modalities.

    Attributes:
        name: The flag.
        option: Option of the reader that it sets; "" where it names the files themselves.
        about: Modalities.
        kind: Type of its values.
        help: What it says.
        metavar: What its value looks like; "" for the default of the type.
        spelling: Another spelling of the flag, or "".
    """

    name: str
    option: str
    about: tuple[str, ...]
    kind: object
    help: str
    metavar: str = ""
    spelling: str = ""

    @property
    def parameter(self) -> str:
        """Name of the parameter."""
        return self._flag.parameter

    def declared(self) -> inspect.Parameter:
        """Return the parameter as a command declares it."""
        return self._flag.declared()

    @property
    def _flag(self) -> Flag:
        default = False if self.kind is bool else None
        return Flag(self.name, self.kind, self.help, self.metavar, default, self.spelling)


Text, Texts, Number = str | None, list[str] | None, float | None

RADAR = ("s1", "s1-asc", "s1-des")
OPTICAL = ("s2", "l8", "l7", "modis")
SERIES = (*OPTICAL, *RADAR, "alos")
IMAGES = ("aerial", "spot", "naip")

_ORDER = "Bands in file order, where it names none."
_BANDS = "B,B,..."


def _image(name: str, files: str, example: str) -> tuple[ImageryFlag, ...]:
    flag, about = f"--{name}", (name,)
    return (
        ImageryFlag(flag, "", about, Texts, files, "PATH"),
        ImageryFlag(f"{flag}-bands", "bands", about, Text, "Bands in file order.", _BANDS),
        ImageryFlag(
            f"{flag}-substitute", "substitute", about, Text,
            f"Accept a missing band, e.g. {example}=none (training mean).", "B=B|none",
        ),
        ImageryFlag(
            f"{flag}-scale", "scale", about, Number,
            "Factor from stored to 8-bit values.", "FACTOR",
        ),
        ImageryFlag(
            f"{flag}-nodata", "nodata", about, Text, "Value without data, or none.", "VALUE"
        ),
        ImageryFlag(
            f"{flag}-crs", "crs", about, Text, "CRS of files that state none.", "EPSG:N"
        ),
        ImageryFlag(
            f"{flag}-resampling", "resampling", about, opt.Resampling | None,
            "How it comes onto the grid.",
        ),
    )  # fmt: skip


def _optical(name: str, files: str, example: str) -> tuple[ImageryFlag, ...]:
    flag, about = f"--{name}", (name,)
    return (
        ImageryFlag(flag, "", about, Text, files, "PATH"),
        ImageryFlag(f"{flag}-bands", "bands", about, Text, _ORDER, _BANDS),
        ImageryFlag(
            f"{flag}-scale", "scale", about, Number, "Factor from stored values to 0-1.", "FACTOR"
        ),
        ImageryFlag(
            f"{flag}-offset", "offset", about, opt.Offset | None if name == "s2" else Number,
            "What to add to reflectance × 10000." if name == "s2"
            else "What to add after the factor.",
            "auto|0|-1000" if name == "s2" else "NUMBER",
        ),
        ImageryFlag(
            f"{flag}-substitute", "substitute", about, Text,
            f"Accept a missing band: {example} (a copy) or {example.partition('=')[0]}=none "
            "(training mean).", "B=B|none",
        ),
    )  # fmt: skip


def _radar(name: str, about: tuple[str, ...], example: str) -> tuple[ImageryFlag, ...]:
    return (
        ImageryFlag(f"--{name}-bands", "bands", about, Text, _ORDER, _BANDS),
        ImageryFlag(
            f"--{name}-substitute", "substitute", about, Text,
            f"Accept a missing band, e.g. {example}=none.", "B=B|none",
        ),
        ImageryFlag(
            f"--{name}-units", "units", about, opt.RadarUnits | None, "How backscatter is stored."
        ),
    )  # fmt: skip


IMAGERY: tuple[ImageryFlag, ...] = (
    *_image(
        "aerial", "Aerial image: file, folder, pattern, list or VRT; repeatable.", "NIR"
    ),
    ImageryFlag(
        "--aerial-irc", "irc", ("aerial",), Texts,
        "Colour-infrared image that adds NIR; repeatable.", "PATH",
    ),
    ImageryFlag(
        "--aerial-irc-bands", "irc_bands", ("aerial",), Text,
        "Bands of --aerial-irc; default NIR,R,G.", _BANDS,
    ),
    *_image("spot", "SPOT image, as --aerial; repeatable.", "B"),
    *_image("naip", "NAIP image, as --aerial; repeatable.", "NIR"),
    ImageryFlag(
        "--allow-root", "allow_root", IMAGES, Texts,
        "Folder a VRT's sources may lie in; repeatable.", "PATH",
    ),
    *_optical("s2", "Sentinel-2 cube: netCDF or Zarr.", "B8A=B08"),
    ImageryFlag("--s1", "", ("s1",), Text, "Sentinel-1 cube, both orbits.", "PATH"),
    ImageryFlag("--s1-asc", "", ("s1-asc",), Text, "Sentinel-1 cube, ascending orbit.", "PATH"),
    ImageryFlag(
        "--s1-des", "", ("s1-des",), Text, "Sentinel-1 cube, descending orbit.", "PATH",
        "--s1-desc",
    ),
    *_radar("s1", RADAR, "VH"),
    *_optical("l8", "Landsat 8/9 cube.", "B11=B10"),
    *_optical("l7", "Landsat 7 cube.", "B7=B5"),
    ImageryFlag("--alos", "", ("alos",), Text, "ALOS-2 PALSAR-2 cube.", "PATH"),
    *_radar("alos", ("alos",), "HV"),
    *_optical("modis", "MODIS surface reflectance cube.", "B5=B6"),
    ImageryFlag(
        "--cloud-mask", "cloud_mask", OPTICAL, Text, "Mask layer.", "auto|NAME[:KIND]|none"
    ),
    ImageryFlag(
        "--max-cloud", "max_cloud", OPTICAL, Number,
        "Leave out dates with more per cent of cloud.", "PERCENT",
    ),
    ImageryFlag("--keep-snow", "keep_snow", OPTICAL, bool, "Count snow as clear."),
    ImageryFlag(
        "--cube-crs", "crs", SERIES, Text, "CRS of cubes that state none or a wrong one.",
        "EPSG:N",
    ),
    ImageryFlag("--cube-group", "group", SERIES, Text, "Group inside the cubes.", "NAME"),
    ImageryFlag(
        "--cube-pixels", "pixels", SERIES, opt.PixelPoint | None,
        "What coordinates name: centre or corner.",
    ),
    ImageryFlag(
        "--duplicate-dates", "duplicate_dates", SERIES, opt.Duplicates | None,
        "What becomes of two images of one day.",
    ),
)  # fmt: skip
"""Every flag, in the order of `--help`."""

Imagery = Mapping[str, object]
"""Parameter of `IMAGERY` to what was given; None, False or [] where nothing was."""


with_imagery = with_flags("imagery", IMAGERY)
"""Give a command every flag of `IMAGERY` in the place of its parameter `imagery`."""
