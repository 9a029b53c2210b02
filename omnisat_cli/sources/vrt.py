"""Our own reader of VRT mosaics: a list of plain files and where they lie, nothing else.

GDAL's VRT can read any file of the machine, compute pixels from expressions and turn missing files
into zeros. Here a VRT is only a table; the files it lists are opened like any other input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import SecurityError, SourceError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.sources.safe import local_path, refuse_remote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

MAX_BYTES = 256 * 2**20
"""A mosaic of 10 000 tiles takes 13.5 MB of XML."""

_SNAP = 1e-2
_PLAIN_SOURCES = ("SimpleSource", "ComplexSource")
_BAND_NOTES = frozenset(
    (
        *("NoDataValue", "HideNoDataValue", "ColorInterp", "Description", "UnitType", "Offset"),
        *("Scale", "Metadata", "CategoryNames", "ColorTable", "Histograms", "MaskBand"),
        *("Overview", "MinValue", "MaxValue"),
    )
)
_COMPUTED = ("ScaleOffset", "ScaleRatio", "LUT", "Exponent", "ColorTableComponent", "SrcMin")


@dataclass(frozen=True, slots=True)
class VrtTile:
    """One file inside the mosaic.

    Attributes:
        path: The file, absolute.
        window: Where it lies, in pixels of the mosaic.
        offset: (row, col) of the first used pixel inside the file.
        bands: (band of the mosaic from 0, band of the file from 1) pairs.
        nodata: Value the mosaic treats as no data in this file, or None.
    """

    path: str
    window: Window
    offset: tuple[int, int]
    bands: tuple[tuple[int, int], ...]
    nodata: float | None


@dataclass(frozen=True, slots=True)
class Vrt:
    """What a VRT says.

    Attributes:
        path: The VRT itself.
        crs: Its CRS as written, or "".
        transform: Affine coefficients a, b, c, d, e, f.
        shape: (rows, cols).
        descriptions: Band descriptions, "" where there is none.
        colours: Lower-case colour interpretations, "undefined" where there is none.
        nodata: Declared nodata, or None.
        tiles: In order of precedence: the file painted last comes first.
    """

    path: str
    crs: str
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]
    descriptions: tuple[str, ...]
    colours: tuple[str, ...]
    nodata: float | None
    tiles: tuple[VrtTile, ...]

    def bounds_of(self, window: Window) -> tuple[float, float, float, float]:
        """Map extent of a window: left, bottom, right, top."""
        a, b, c, d, e, f = self.transform
        corners = [
            (c + a * col + b * row, f + d * col + e * row)
            for row in (window.row, window.row_end)
            for col in (window.col, window.col_end)
        ]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


def read_vrt(path: str | Path, allow_roots: Sequence[str] = ()) -> Vrt:
    """Read a VRT and check that every file it lists is there.

    Args:
        path: The VRT.
        allow_roots: Folders that sources outside the folder of the VRT may lie in.

    Raises:
        SecurityError: If it lists anything but plain files inside its folder or `allow_roots`, or
            asks for raw bands, expressions or warping.
        SourceError: If it is not a VRT, is damaged, or lists files that are missing.
    """
    place = local_path(path)
    root = _parse(place)
    shape = (int(_number(root, "rasterYSize", place)), int(_number(root, "rasterXSize", place)))
    bands = [band for band in root.findall("VRTRasterBand") if not _is_footprint(band)]
    if not bands:
        raise SourceError(f"{place}: lists no bands; make it again with gdalbuildvrt")
    tiles = _tiles(bands, place, tuple(Path(folder).resolve() for folder in allow_roots))
    if not tiles:
        raise SourceError(f"{place}: lists no files; make it again with gdalbuildvrt")
    srs = root.findtext("SRS") or ""
    found = Vrt(
        path=str(place),
        crs=srs.strip(),
        transform=_transform(root, place),
        shape=shape,
        descriptions=tuple((band.findtext("Description") or "").strip() for band in bands),
        colours=tuple(
            (band.findtext("ColorInterp") or "undefined").strip().lower() for band in bands
        ),
        nodata=_optional(bands[0].findtext("NoDataValue"), place),
        tiles=tiles,
    )
    _refuse_missing(found)
    return found


def _parse(place: Path) -> Element:
    """Parse the XML with entities and document types forbidden."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    size = place.stat().st_size
    if size > MAX_BYTES:
        raise SecurityError(f"{place}: {size} bytes of XML, the limit is {MAX_BYTES}")
    try:
        root: Element = fromstring(place.read_bytes(), forbid_dtd=True)
    except DefusedXmlException as error:
        raise SecurityError(f"{place}: declares XML entities, which no mosaic needs") from error
    except (ParseError, ValueError, LookupError, RecursionError, MemoryError) as error:
        raise SourceError(f"{place}: is not a readable VRT ({error}); make it again") from error
    if root.tag != "VRTDataset":
        raise SourceError(f"{place}: its root is <{root.tag}>, not <VRTDataset>")
    if root.get("subClass"):
        raise SecurityError(
            f"{place}: is a {root.get('subClass')}, which computes pixels; only plain mosaics are "
            "read: run gdal_translate to make an image of it"
        )
    return root


def _is_footprint(band: Element) -> bool:
    """Whether a band is the constant alpha of `gdalbuildvrt -addalpha`, which only marks files."""
    if (band.findtext("ColorInterp") or "").strip() != "Alpha" or band.get("subClass"):
        return False
    sources = [child for child in band if child.tag in _PLAIN_SOURCES]
    return bool(sources) and all(
        (source.findtext("ScaleRatio") or "").strip() == "0"
        and (source.findtext("ScaleOffset") or "").strip() == "255"
        for source in sources
    )


def _tiles(bands: list[Element], place: Path, roots: tuple[Path, ...]) -> tuple[VrtTile, ...]:
    """Collect the sources of all bands by file and position, the last painted first."""
    collected: dict[tuple[str, Window, tuple[int, int]], list[tuple[int, int]]] = {}
    nodata: dict[tuple[str, Window, tuple[int, int]], float | None] = {}
    for index, band in enumerate(bands):
        _refuse_computed_band(band, place)
        for source in band:
            if source.tag in _BAND_NOTES:
                continue
            key = (_source_file(source, place, roots), *_windows(source, place))
            number = source.findtext("SourceBand") or "1"
            if not number.strip().isdigit() or int(number) < 1:
                raise SourceError(f"{place}: source band {number!r} is not a band number")
            collected.setdefault(key, []).append((index, int(number)))
            nodata[key] = _optional(source.findtext("NODATA"), place)
    return tuple(
        VrtTile(file, window, offset, tuple(pairs), nodata[file, window, offset])
        for (file, window, offset), pairs in reversed(collected.items())
    )


def _refuse_computed_band(band: Element, place: Path) -> None:
    if band.get("subClass"):
        raise SecurityError(
            f"{place}: band {band.get('band', '?')} is a {band.get('subClass')}: raw and derived "
            "bands can read other files or run expressions; only SimpleSource and ComplexSource "
            "of plain files are read"
        )
    for child in band:
        if child.tag not in _BAND_NOTES and child.tag not in _PLAIN_SOURCES:
            raise SecurityError(
                f"{place}: <{child.tag}> is not read; only SimpleSource and ComplexSource of plain "
                "files are"
            )


def _source_file(source: Element, place: Path, roots: tuple[Path, ...]) -> str:
    """Return the absolute path of a source after checking where it lies."""
    computed = [tag for tag in _COMPUTED if source.find(tag) is not None]
    if computed or source.find("OpenOptions") is not None:
        raise SecurityError(
            f"{place}: a source asks for {', '.join(computed) or 'open options'}; "
            "pixels are only read as they are stored"
        )
    named = source.find("SourceFilename")
    text = (named.text or "").strip() if named is not None else ""
    if named is None or not text or "\0" in text:
        raise SourceError(f"{place}: a source has no file name; make the mosaic again")
    refuse_remote(text)
    if text.lstrip().startswith("<"):
        raise SecurityError(f"{place}: a source is XML text instead of a file name")
    home = place.parent.resolve()
    relative = named.get("relativeToVRT", "0").strip() == "1"
    try:
        file = (home / text if relative else Path(text)).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"{place}: source {text!r} has no usable path ({error})") from error
    allowed = (home, *roots)
    if not any(file.is_relative_to(folder) for folder in allowed):
        raise SecurityError(
            f"{place}: source {text!r} lies outside the folder of the mosaic ({home}); "
            f"add --allow-root {file.parent} if you trust it"
        )
    return str(file)


def _windows(source: Element, place: Path) -> tuple[Window, tuple[int, int]]:
    """Return where a source lies in the mosaic and its first pixel inside the file."""
    target = _rectangle(source, "DstRect", place)
    used = _rectangle(source, "SrcRect", place)
    if max(abs(target[2] - used[2]), abs(target[3] - used[3])) > _SNAP:
        raise SourceError(
            f"{place}: resamples a source from {used[2]:g} × {used[3]:g} to {target[2]:g} × "
            f"{target[3]:g} px; give the files themselves instead of the VRT"
        )
    whole = [round(value) for value in (*target, *used[:2])]
    drift = max(abs(a - b) for a, b in zip((*target, *used[:2]), whole, strict=True))
    if drift > _SNAP or min(whole[2:]) < 0 or min(whole[2:4]) == 0:
        raise SourceError(
            f"{place}: a source lies between pixels ({target} from {used}); "
            "give the files themselves instead of the VRT"
        )
    col, row, width, height, src_col, src_row = whole
    return Window(row, col, height, width), (src_row, src_col)


def _rectangle(source: Element, tag: str, place: Path) -> tuple[float, float, float, float]:
    """Return xOff, yOff, xSize, ySize of a rectangle."""
    found = source.find(tag)
    if found is None:
        raise SourceError(f"{place}: a source has no <{tag}>; make the mosaic with gdalbuildvrt")
    x, y, width, height = (_number(found, k, place) for k in ("xOff", "yOff", "xSize", "ySize"))
    return x, y, width, height


def _transform(root: Element, place: Path) -> tuple[float, float, float, float, float, float]:
    """Return the affine coefficients in the order a, b, c, d, e, f."""
    text = root.findtext("GeoTransform")
    if text is None:
        raise SourceError(f"{place}: has no <GeoTransform>; make it again with gdalbuildvrt")
    values = [_float(part, place) for part in text.split(",")]
    if len(values) != 6:
        raise SourceError(f"{place}: <GeoTransform> has {len(values)} numbers instead of 6")
    c, a, b, f, d, e = values
    return a, b, c, d, e, f


def _number(element: Element, name: str, place: Path) -> float:
    text = element.get(name)
    if text is None:
        raise SourceError(f"{place}: <{element.tag}> has no {name}")
    return _float(text, place)


def _optional(text: str | None, place: Path) -> float | None:
    return None if text is None or not text.strip() else _float(text, place, finite=False)


def _float(text: str, place: Path, *, finite: bool = True) -> float:
    try:
        value = float(text)
    except ValueError:
        raise SourceError(f"{place}: {text.strip()[:40]!r} is not a number") from None
    if finite and not abs(value) < 1e15:
        raise SourceError(f"{place}: {text.strip()[:40]!r} is no usable number")
    return value


def _refuse_missing(vrt: Vrt) -> None:
    """Refuse a mosaic whose files are not all there: missing ones would be invented."""
    missing = [tile for tile in vrt.tiles if not Path(tile.path).is_file()]
    if not missing:
        return
    lines = []
    for tile in missing[:5]:
        left, bottom, right, top = vrt.bounds_of(tile.window)
        lines.append(f"{tile.path} (x {left:.10g}..{right:.10g}, y {bottom:.10g}..{top:.10g})")
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    raise SourceError(
        f"{vrt.path}: {len(missing)} of {len(vrt.tiles)} files are missing: "
        f"{'; '.join(lines)}{more}. Restore them, or make the mosaic again without them"
    )
