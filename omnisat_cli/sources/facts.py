"""What one raster file says about itself, and the georeference its plain neighbours add."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import name_crs
from omnisat_cli.sources.safe import local_path, open_raster

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from rasterio.io import DatasetReader

    from omnisat_cli.sources.resample import Affine6

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_MAX_SIDECAR = 16 * 2**20
_WORLD_SUFFIXES = (".tfw", ".tifw", ".j2w", ".jp2w", ".jgw", ".wld")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One raster file as it describes itself.

    Attributes:
        path: Absolute path.
        crs: "EPSG:n" where it has a code, else WKT; "" where the file has none.
        transform: Affine a, b, c, d, e, f.
        shape: (rows, cols).
        dtypes: One numpy type name for each band.
        nodata: Declared nodata, or None.
        descriptions: Band descriptions, "" where there is none.
        colours: Lower-case colour interpretations.
        mask: "" or "internal", or the path of a `.msk` file.
        bits: Declared bits of a sample where fewer than the type holds, else 0.
        stamp: (size, mtime_ns).
        remark: What had to be recognised about the CRS, or "".
    """

    path: str
    crs: str
    transform: Affine6
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    nodata: float | None
    descriptions: tuple[str, ...]
    colours: tuple[str, ...]
    mask: str
    bits: int
    stamp: tuple[int, int]
    remark: str = ""

    @property
    def placed(self) -> bool:
        """Whether the file says where its pixels lie."""
        return self.transform != _IDENTITY

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.dtypes)


def survey_file(path: str | Path) -> FileFacts:
    """Open one raster and note what it says.

    Raises:
        SecurityError: If the file is remote, disguised or claims too much.
        SourceError: If it is missing, damaged, or its neighbours are.
    """
    place = local_path(path)
    status = place.stat()
    with open_raster(place) as dataset:
        crs, remark = name_crs(dataset.crs.to_wkt()) if dataset.crs else ("", "")
        facts = FileFacts(
            path=str(place),
            crs=crs,
            transform=tuple(dataset.transform)[:6],
            shape=(dataset.height, dataset.width),
            dtypes=tuple(dataset.dtypes),
            nodata=dataset.nodata,
            descriptions=tuple((text or "").strip() for text in dataset.descriptions),
            colours=_colours(dataset),
            mask=_mask(dataset, place),
            bits=int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 0)),
            stamp=(status.st_size, status.st_mtime_ns),
            remark=remark,
        )
    if not facts.crs or facts.transform == _IDENTITY:
        facts = _with_neighbours(facts, place)
    if not all(math.isfinite(value) for value in facts.transform):
        raise AlignmentError(f"{path}: its geotransform is not finite: {facts.transform}")
    return facts


def _colours(dataset: DatasetReader) -> tuple[str, ...]:
    try:
        return tuple(colour.name.lower() for colour in dataset.colorinterp)
    except (ValueError, KeyError):
        return ("undefined",) * int(dataset.count)


def _mask(dataset: DatasetReader, place: Path) -> str:
    """Find a stored mask: inside the file, or in a `.msk` file of the same size."""
    from rasterio.enums import MaskFlags

    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return "internal"
    beside = place.with_name(f"{place.name}.msk")
    if not beside.is_file():
        return ""
    with open_raster(beside) as mask:
        if (mask.height, mask.width) != (dataset.height, dataset.width):
            raise SourceError(
                f"{beside}: {mask.height} × {mask.width} px does not match the "
                f"{dataset.height} × {dataset.width} px of its image; remove or replace it"
            )
    return str(beside)


def _with_neighbours(facts: FileFacts, place: Path) -> FileFacts:
    """Add CRS, transform and nodata from `.aux.xml` and world files, read by us, not by GDAL."""
    aux = place.with_name(f"{place.name}.aux.xml")
    if aux.is_file():
        root = _parse_aux(aux)
        srs = (root.findtext("SRS") or "").strip()
        if not facts.crs and srs:
            crs, remark = name_crs(srs)
            facts = replace(facts, crs=crs, remark=remark or f"CRS read from {aux.name}")
        numbers = _numbers(root.findtext("GeoTransform"))
        if facts.transform == _IDENTITY and len(numbers) == 6:
            c, a, b, f, d, e = numbers
            facts = replace(facts, transform=(a, b, c, d, e, f))
        nodata = _numbers(root.findtext("PAMRasterBand/NoDataValue"))
        if facts.nodata is None and nodata:
            facts = replace(facts, nodata=nodata[0])
    if facts.transform == _IDENTITY:
        for suffix in _WORLD_SUFFIXES:
            world = place.with_suffix(suffix)
            if world.is_file() and world.stat().st_size < 4096:
                numbers = _numbers(world.read_text("latin-1"))
                if len(numbers) == 6:
                    a, d, b, e, x, y = numbers
                    # World files give the centre of the first pixel.
                    corner = (x - (a + b) / 2, y - (d + e) / 2)
                    facts = replace(facts, transform=(a, b, corner[0], d, e, corner[1]))
                    break
    return facts


def category_names(path: str | Path, band: int = 1) -> tuple[str, ...]:
    """Return the names of the codes 0, 1, … of a raster, as its `.aux.xml` gives them, or ().

    Args:
        path: The raster.
        band: Which of its bands, from 1.

    Raises:
        SourceError: If that file is damaged.
    """
    place = local_path(path)
    aux = place.with_name(f"{place.name}.aux.xml")
    if not aux.is_file():
        return ()
    found = _parse_aux(aux).iterfind(f"PAMRasterBand[@band='{band}']/CategoryNames/Category")
    return tuple((entry.text or "").strip() for entry in found)


def _parse_aux(aux: Path) -> Element:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    if aux.stat().st_size > _MAX_SIDECAR:
        raise SourceError(f"{aux}: {aux.stat().st_size} bytes, the limit is {_MAX_SIDECAR}")
    try:
        root: Element = fromstring(aux.read_bytes(), forbid_dtd=True)
    except (ParseError, ValueError, LookupError, RecursionError, DefusedXmlException) as error:
        raise SourceError(f"{aux}: is damaged ({error}); restore or remove it") from error
    return root


def _numbers(text: str | None) -> list[float]:
    """Return the numbers of a comma or white-space separated text; none where it holds others."""
    try:
        return [float(part) for part in re.split(r"[,\s]+", (text or "").strip()) if part]
    except ValueError:
        return []
