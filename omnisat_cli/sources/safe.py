"""The only function that opens user rasters, and the rules every input path obeys.

GDAL decides by content which driver opens a file: a `.tif` that holds VRT text may read any other
file, a `.msk` or `.ovr` beside an honest image likewise. So the signature is read first, one driver
is named, and neighbours of the file are never followed.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import struct
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import SecurityError, SourceError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

log = logging.getLogger(__name__)

_UNWANTED_DRIVERS = (
    *("WMS", "WMTS", "WCS", "DAAS", "PLMOSAIC", "STACIT", "STACTA", "HTTP", "GTI", "PDF"),
    *("OGCAPI", "EEDAI", "EEDA", "NGW"),
)

_GDAL_DEFAULTS = {
    "GDAL_CACHEMAX": str(64 * 2**20),
    "GDAL_HTTP_TIMEOUT": "10",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".refused",
}

_SIGNATURES = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
)

_SCHEME = re.compile(r"^([a-z][a-z0-9+.\-]+):(//|/vsi)", re.IGNORECASE)
_SUBDATASET = re.compile(
    r"^(GTIFF_(DIR|RAW)|NETCDF|HDF[45](_SDS|IMAGE)?|ZARR|JP(EG)?2\w*|VRT|DERIVED\w*|GPKG|WMS|WMTS|PG)"
    r":",
    re.IGNORECASE,
)

_OPENING = threading.Lock()
"""rasterio.Env sets options of the whole process: two threads must not undo each other's."""


def prepare_environment() -> tuple[str, ...]:
    """Set what GDAL and PROJ read from the environment, once, before either starts.

    Returns:
        The names of the PROJ variables that were dropped: they name the database of another
        installation (conda, QGIS, modules) and break coordinate operations here.
    """
    dropped = tuple(name for name in ("PROJ_DATA", "PROJ_LIB") if os.environ.pop(name, None))
    if dropped:
        log.warning("ignored %s: it belongs to another PROJ installation", ", ".join(dropped))
    for name, value in _GDAL_DEFAULTS.items():
        os.environ.setdefault(name, value)
    skipped = os.environ.get("GDAL_SKIP", "").split()
    missing = [name for name in _UNWANTED_DRIVERS if name not in skipped]
    os.environ["GDAL_SKIP"] = " ".join([*skipped, *missing])
    return dropped


prepare_environment()


@dataclass(frozen=True, slots=True)
class RasterLimits:
    """What a raster may claim before anything is read from it.

    Attributes:
        max_pixels: Width × height.
        max_bands: Number of bands.
        max_block_bytes: Decoded size of one block, all interleaved bands.
        max_expansion: Decoded bytes over bytes on disk (checked above 1 GiB decoded).
    """

    max_pixels: int = 10**12
    max_bands: int = 1024
    max_block_bytes: int = 2**29
    max_expansion: int = 5000


LIMITS = RasterLimits()


def refuse_remote(path: str | Path) -> None:
    """Refuse paths that make a library reach the network or look inside other files.

    Raises:
        SecurityError: If the path is a URL, a `/vsi…` path or a GDAL subdataset name.
    """
    text = os.fspath(path).strip()
    # Path("https://x") is "https:/x": a Path made from a URL is still a URL.
    scheme = _SCHEME.match(text) or re.match(r"^(https?|s3|gs|ftp|file|zip\+\w+):/", text)
    if scheme or re.match(r"^/+vsi", text):
        raise SecurityError(
            f"{text}: remote and virtual paths are not supported; "
            "download the file first and give its local path"
        )
    if _SUBDATASET.match(text):
        raise SecurityError(f"{text}: connection strings are not supported; give a plain file path")


def local_path(path: str | Path) -> Path:
    """Return the absolute path of an existing local file or folder.

    Raises:
        SecurityError: If the path is remote or virtual.
        SourceError: If nothing is there, or it is neither a file nor a folder.
    """
    refuse_remote(path)
    try:
        found = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - keeps symlinks
        mode = found.stat().st_mode
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file or folder; check the path") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{path}: cannot be reached ({error}); check the path") from error
    refuse_remote(found)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SourceError(f"{path}: is a pipe, socket or device; give a regular file")
    return found


def read_head(path: Path, size: int = 512) -> bytes:
    """Return the first bytes of a file.

    Raises:
        SourceError: If they cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def raster_driver(path: Path) -> str:
    """Name the GDAL driver that the first bytes of a file call for.

    Raises:
        SecurityError: If the content is XML or another text that makes GDAL open other files.
        SourceError: If it is neither a TIFF nor a JPEG 2000.
    """
    head = read_head(path)
    for signature, driver in _SIGNATURES:
        if head.startswith(signature):
            return driver
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        kind = "a VRT" if b"<VRTDataset" in head else "XML"
        raise SecurityError(
            f"{path}: is named as an image but its content is {kind}, which can make the reader "
            "open any other file; a mosaic must be named .vrt to be checked"
        )
    if not head:
        raise SourceError(f"{path}: the file is empty; copy or download it again")
    raise SourceError(
        f"{path}: neither TIFF nor JPEG 2000 (it begins with {head[:8]!r}); "
        "convert it to GeoTIFF first"
    )


def open_raster(path: str | Path, limits: RasterLimits = LIMITS) -> DatasetReader:
    """Open one user raster with exactly the driver its signature calls for.

    No neighbour of the file (`.aux.xml`, `.ovr`, `.msk`, world file) is followed.

    Args:
        path: A local TIFF, BigTIFF or JPEG 2000 file.
        limits: What the raster may claim.

    Returns:
        An open dataset; the caller closes it and keeps it inside one thread.

    Raises:
        SecurityError: If the path is remote, the content disguised or a limit exceeded.
        SourceError: If the file is missing, truncated or no image.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    place = local_path(path)
    if place.is_dir():
        raise SourceError(f"{place}: is a folder where one image was expected")
    driver = raster_driver(place)
    if driver == "JP2OpenJPEG":
        _refuse_cut_jpeg2000(place)
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
                dataset = rasterio.open(place, driver=driver)
        except RasterioIOError as error:
            raise SourceError(
                f"{place}: cannot be opened as an image, it is damaged or cut short "
                f"({place.stat().st_size} bytes): {error}"
            ) from error
    try:
        _check_claims(dataset, place, limits)
    except SecurityError:
        dataset.close()
        raise
    return dataset


def _check_claims(dataset: DatasetReader, path: Path, limits: RasterLimits) -> None:
    """Refuse rasters that claim more than a sane file of their size can hold."""
    pixels = dataset.width * dataset.height
    item = max(_item_size(dtype) for dtype in dataset.dtypes)
    rows, cols = dataset.block_shapes[0]
    bands_in_block = dataset.count if dataset.interleaving is not None else 1
    decoded = pixels * dataset.count * item
    on_disk = max(1, path.stat().st_size)
    claims = (
        ("pixels", pixels, limits.max_pixels),
        ("bands", dataset.count, limits.max_bands),
        ("bytes in one block", rows * cols * item * bands_in_block, limits.max_block_bytes),
        (
            "decoded bytes for each byte on disk",
            decoded // on_disk if decoded > 2**30 else 0,
            limits.max_expansion,
        ),
    )
    for what, claimed, limit in claims:
        if claimed > limit:
            raise SecurityError(
                f"{path}: claims {claimed} {what}, the limit is {limit} "
                f"({dataset.width} × {dataset.height} px, {dataset.count} bands, {on_disk} bytes "
                "on disk); if the file is honest, cut it or rewrite it with tiles of 512 px"
            )
    if "OVERVIEW_FILE" in dataset.tags(ns="OVERVIEWS"):
        raise SecurityError(
            f"{path}: its metadata names another file as its overview; "
            "rewrite it with gdal_translate"
        )


def _item_size(dtype: str) -> int:
    """Bytes of one sample, also for the complex integers numpy does not know."""
    return {"complex_int16": 4, "complex64": 8, "complex128": 16}.get(
        dtype, int(re.sub(r"\D", "", dtype) or 64) // 8
    )


def _refuse_cut_jpeg2000(path: Path) -> None:
    """Refuse a JPEG 2000 file whose codestream does not end: the decoder fills the rest silently.

    Raises:
        SourceError: If a box or the codestream reaches beyond the end of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start, end = _codestream(stream.read(12), path, size)
        if end > size or end - start < 2:
            raise SourceError(f"{path}: cut short, {size} bytes of at least {end}; copy it again")
        stream.seek(end - 2)
        if stream.read(2) != b"\xff\xd9":
            raise SourceError(
                f"{path}: its JPEG 2000 stream has no end marker at byte {end - 2} of {size}: "
                "the file is cut short; copy or download it again"
            )


def _codestream(head: bytes, path: Path, size: int) -> tuple[int, int]:
    """Return first and last + 1 byte of the codestream of a raw or boxed JPEG 2000 file."""
    if head.startswith(b"\xff\x4f"):
        return 0, size
    position = 0
    with path.open("rb") as stream:
        while position < size:
            stream.seek(position)
            raw = stream.read(16).ljust(16, b"\0")
            length, kind = struct.unpack(">I4s", raw[:8])
            header = 8
            if length == 1:
                length, header = struct.unpack(">Q", raw[8:])[0], 16
            elif length == 0:
                length = size - position
            if length < header:
                break
            if kind == b"jp2c":
                return position + header, position + length
            position += length
    raise SourceError(f"{path}: holds no JPEG 2000 codestream, it is damaged or cut short")
