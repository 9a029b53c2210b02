"""From what the user names (files, folders, globs, lists, VRTs) to georeferenced sheets."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import name_crs, same_crs
from omnisat_cli.modality import flag
from omnisat_cli.sources.facts import FileFacts, survey_file
from omnisat_cli.sources.safe import local_path, read_head, refuse_remote
from omnisat_cli.sources.vrt import Vrt, VrtTile, read_vrt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnisat_cli.geo.lattice import Bounds
    from omnisat_cli.sources.resample import Affine6

_SUFFIXES = (".tif", ".tiff", ".gtif", ".jp2", ".j2k", ".jpx")
_MAX_LIST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Share:
    """What one file gives to a sheet.

    Attributes:
        facts: The file.
        offset: (row, col) of the sheet's first pixel inside the file.
        bands: (band of the sheet, band of the file) pairs, both from 1.
        nodata: Value that means no data, or None.
    """

    facts: FileFacts
    offset: tuple[int, int]
    bands: tuple[tuple[int, int], ...]
    nodata: float | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A georeferenced rectangle of pixels with all bands.

    Attributes:
        transform: Affine a, b, c, d, e, f of its first pixel.
        shape: (rows, cols).
        shares: The files that fill it.
    """

    transform: Affine6
    shape: tuple[int, int]
    shares: tuple[Share, ...]

    @property
    def bounds(self) -> Bounds:
        """Map extent: left, bottom, right, top."""
        a, b, c, d, e, f = self.transform
        corners = [
            (c + a * col + b * row, f + d * col + e * row)
            for row in (0, self.shape[0])
            for col in (0, self.shape[1])
        ]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything the named files say, before any pixel is read.

    Attributes:
        crs: Their common CRS, "EPSG:n" or WKT.
        sheets: In order of precedence.
        descriptions: Band descriptions, "" where there is none.
        colours: Lower-case colour interpretations.
        dtype: Type of the samples; "mixed" where bands differ.
        nodata: Common declared nodata, or None.
        bits: Declared bits of a sample, or 0.
        remark: What had to be recognised about the CRS, or "".
        extra_files: Files read beside the images (VRTs, masks).
    """

    crs: str
    sheets: tuple[Sheet, ...]
    descriptions: tuple[str, ...]
    colours: tuple[str, ...]
    dtype: str
    nodata: float | None
    bits: int
    remark: str
    extra_files: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Every file, each once."""
        images = [share.facts.path for sheet in self.sheets for share in sheet.shares]
        masks = [share.facts.mask for sheet in self.sheets for share in sheet.shares]
        kept = [mask for mask in masks if mask not in ("", "internal")]
        return tuple(dict.fromkeys([*images, *kept, *self.extra_files]))


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user allows and overrules when files are surveyed.

    Attributes:
        sensor: Name of the modality, for option names in messages.
        crs: CRS to use instead of what the files say, or None.
        allow_roots: Folders that VRT sources outside the VRT's folder may lie in.
    """

    sensor: str
    crs: str | None = None
    allow_roots: tuple[str, ...] = ()


def find_files(paths: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """Expand files, folders, globs and text lists to absolute file paths.

    Folders and globs are sorted by path; lists keep their order.

    Raises:
        SecurityError: If a path is remote or virtual.
        SourceError: If a path leads to nothing.
    """
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found: list[Path] = []
    for name in named:
        found.extend(_expand(name))
    if not found:
        raise SourceError("no image was named; give files, a folder, a glob, a list or a VRT")
    return tuple(dict.fromkeys(found))


def _expand(name: str | Path, base: Path | None = None) -> list[Path]:
    refuse_remote(name)
    text = str(Path(name).expanduser() if base is None else base / Path(name).expanduser())
    if glob.has_magic(text) and not Path(text).exists():
        hits = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - absolute patterns
        files = [local_path(hit) for hit in hits if Path(hit).is_file()]
        if not files:
            raise SourceError(f"{name}: the pattern matches no file")
        return files
    place = local_path(text)
    if place.is_dir():
        files = sorted(p for p in place.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        if not files:
            raise SourceError(f"{place}: the folder holds no {', '.join(_SUFFIXES)} file")
        return files
    if place.suffix.lower() in (".txt", ".lst", ".list") and base is None:
        return _expand_list(place)
    return [place]


def _expand_list(place: Path) -> list[Path]:
    """Read a text list: one path a line, relative to the list, `#` begins a comment."""
    if place.stat().st_size > _MAX_LIST_BYTES:
        raise SourceError(f"{place}: a list of {place.stat().st_size} bytes is too long")
    try:
        lines = place.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{place}: is no readable text list ({error})") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise SourceError(f"{place}: the list names no file")
    return [file for name in names for file in _expand(name, place.parent)]


def survey(paths: str | Path | Sequence[str | Path], rules: Rules) -> Survey:
    """Open every file once and check that they make one image.

    Raises:
        SecurityError: If a file is remote, disguised or claims too much.
        AlignmentError: If a file has no CRS, or they have different ones.
        SourceError: If files are missing, damaged or have different bands.
    """
    files = find_files(paths)
    if any(_is_vrt(file) for file in files):
        if len(files) > 1:
            raise SourceError(
                f"{len(files)} files with a VRT among them; give one VRT alone, or plain images"
            )
        return _survey_vrt(files[0], rules)
    facts = [survey_file(file) for file in files]
    crs, remark = _common_crs(facts, rules)
    for fact in facts:
        if not fact.placed:
            raise AlignmentError(
                f"{fact.path}: has no geotransform and no world file beside it, so nothing says "
                "where it lies; georeference it first, or leave the file out"
            )
    stacks = _stacks(facts)
    first = stacks[0]
    labels = _labels(first)
    for stack in stacks[1:]:
        _refuse_different(first, stack, labels)
    sheets = tuple(
        Sheet(stack[0].transform, stack[0].shape, _shares_of_stack(stack)) for stack in stacks
    )
    return Survey(
        crs=crs,
        sheets=sheets,
        descriptions=labels[0],
        colours=labels[1],
        dtype=_common_dtype(first),
        nodata=first[0].nodata,
        bits=first[0].bits,
        remark=remark,
        extra_files=(),
    )


def _is_vrt(file: Path) -> bool:
    # By name only: XML under another name is no mosaic but a disguise, and is refused as an image.
    return file.suffix.lower() == ".vrt"


def _common_crs(facts: Sequence[FileFacts], rules: Rules) -> tuple[str, str]:
    """Return the CRS all files agree on."""
    option = flag(rules.sensor, "crs")
    if rules.crs is not None:
        return name_crs(rules.crs)[0], f"given with {option}"
    for fact in facts:
        if not fact.crs:
            raise AlignmentError(
                f"{fact.path}: has no coordinate reference system (transform "
                f"{tuple(round(v, 6) for v in fact.transform)}); it is never guessed: "
                f"say it with {option} EPSG:n, or leave the file out"
            )
    first = facts[0]
    for fact in facts[1:]:
        if not same_crs(first.crs, fact.crs):
            raise AlignmentError(
                f"the images have different CRSs: {first.path} is {first.crs[:60]}, {fact.path} is "
                f"{fact.crs[:60]}; run each alone, or warp one with gdalwarp first"
            )
    return first.crs, first.remark


def _stacks(facts: Sequence[FileFacts]) -> list[tuple[FileFacts, ...]]:
    """Group single-band files that cover exactly the same pixels: bands of one image."""
    if any(fact.count != 1 for fact in facts):
        return [(fact,) for fact in facts]
    groups: dict[tuple[Affine6, tuple[int, int]], list[FileFacts]] = {}
    for fact in facts:
        groups.setdefault((fact.transform, fact.shape), []).append(fact)
    sizes = Counter(len(group) for group in groups.values())
    if len(sizes) == 1:
        return [tuple(group) for group in groups.values()]
    return [(fact,) for fact in facts]


def _labels(stack: Sequence[FileFacts]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Descriptions and colours of the bands; a single-band file may be named after its band."""
    if len(stack) == 1:
        return stack[0].descriptions, stack[0].colours
    names = [fact.descriptions[0] or Path(fact.path).stem for fact in stack]
    return tuple(names), tuple(fact.colours[0] for fact in stack)


def _refuse_different(
    first: Sequence[FileFacts],
    other: Sequence[FileFacts],
    labels: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    """Refuse files whose bands cannot be the same bands."""
    found = _labels(other)
    pairs = (
        ("bands", len(labels[1]), len(found[1])),
        ("sample type", _common_dtype(first), _common_dtype(other)),
        ("colour tags", labels[1], found[1]),
    )
    for what, one, two in pairs:
        if one != two:
            raise SourceError(
                f"the images do not have the same {what}: {first[0].path} has {one}, "
                f"{other[0].path} has {two}; run them apart, or make them alike"
            )
    if len(first) == 1 and all(labels[0]) and all(found[0]) and labels[0] != found[0]:
        raise SourceError(
            f"the images do not have the same bands: {first[0].path} has {labels[0]}, "
            f"{other[0].path} has {found[0]}; run them apart"
        )


def _common_dtype(stack: Sequence[FileFacts]) -> str:
    types = {dtype for fact in stack for dtype in fact.dtypes}
    return types.pop() if len(types) == 1 else "mixed"


def _shares_of_stack(stack: Sequence[FileFacts]) -> tuple[Share, ...]:
    if len(stack) == 1:
        pairs = tuple((band, band) for band in range(1, stack[0].count + 1))
        return (Share(stack[0], (0, 0), pairs, stack[0].nodata),)
    return tuple(
        Share(fact, (0, 0), ((band, 1),), fact.nodata) for band, fact in enumerate(stack, 1)
    )


def _survey_vrt(place: Path, rules: Rules) -> Survey:
    """Survey the files of a VRT; the mosaic's own grid and CRS hold."""
    head = read_head(place, 64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"<"):
        raise SourceError(f"{place}: is named .vrt but is no VRT (it begins with {head[:8]!r})")
    vrt = read_vrt(place, rules.allow_roots)
    facts = {tile.path: survey_file(tile.path) for tile in vrt.tiles}
    first = facts[vrt.tiles[0].path]
    for tile in vrt.tiles:
        _refuse_outside(vrt, tile, facts[tile.path])
    crs, remark = _vrt_crs(vrt, list(facts.values()), rules)
    types = {fact.dtypes[band - 1] for fact, band in _used(vrt, facts)}
    return Survey(
        crs=crs,
        sheets=_vrt_sheets(vrt, facts),
        descriptions=vrt.descriptions,
        colours=vrt.colours,
        dtype=types.pop() if len(types) == 1 else "mixed",
        nodata=vrt.nodata,
        bits=first.bits,
        remark=remark,
        extra_files=(vrt.path,),
    )


def _used(vrt: Vrt, facts: dict[str, FileFacts]) -> list[tuple[FileFacts, int]]:
    return [(facts[tile.path], band) for tile in vrt.tiles for _, band in tile.bands]


def _vrt_crs(vrt: Vrt, facts: list[FileFacts], rules: Rules) -> tuple[str, str]:
    """CRS of a VRT: what it says, else what its files say; the two must agree."""
    if rules.crs is not None or not vrt.crs:
        return _common_crs(facts, rules)
    crs, remark = name_crs(vrt.crs)
    for fact in facts:
        if fact.crs and not same_crs(crs, fact.crs):
            raise AlignmentError(
                f"{vrt.path} is {crs[:60]} but its file {fact.path} is {fact.crs[:60]}; "
                "make the VRT again from files of one CRS"
            )
    return crs, remark


def _refuse_outside(vrt: Vrt, tile: VrtTile, fact: FileFacts) -> None:
    """Refuse a VRT that asks a file for pixels or bands it does not have."""
    rows, cols = tile.offset[0] + tile.window.height, tile.offset[1] + tile.window.width
    if rows > fact.shape[0] or cols > fact.shape[1]:
        raise SourceError(
            f"{vrt.path}: asks {fact.path} for {rows} × {cols} px, it has {fact.shape[0]} × "
            f"{fact.shape[1]}; the file was replaced: make the VRT again"
        )
    for _, band in tile.bands:
        if band > fact.count:
            raise SourceError(
                f"{vrt.path}: asks {fact.path} for band {band}, it has {fact.count}; "
                "make the VRT again"
            )


def _vrt_sheets(vrt: Vrt, facts: dict[str, FileFacts]) -> tuple[Sheet, ...]:
    """Join tiles at the same place into sheets that have every band."""
    whole = set(range(len(vrt.colours)))
    sheets: list[Sheet] = []
    partial: dict[tuple[int, int, int, int], list[VrtTile]] = {}
    for tile in vrt.tiles:
        window = tile.window
        if {band for band, _ in tile.bands} == whole:
            sheets.append(_vrt_sheet(vrt, [tile], facts))
        else:
            key = (window.row, window.col, window.height, window.width)
            partial.setdefault(key, []).append(tile)
    for tiles in partial.values():
        have = [band for tile in tiles for band, _ in tile.bands]
        if sorted(have) != sorted(whole):
            raise SourceError(
                f"{vrt.path}: {tiles[0].path} gives bands {sorted(b + 1 for b in have)} of "
                f"{len(whole)} at its place; every place needs each band once"
            )
        sheets.append(_vrt_sheet(vrt, tiles, facts))
    return tuple(sheets)


def _vrt_sheet(vrt: Vrt, tiles: Sequence[VrtTile], facts: dict[str, FileFacts]) -> Sheet:
    a, b, c, d, e, f = vrt.transform
    window = tiles[0].window
    corner = (c + a * window.col + b * window.row, f + d * window.col + e * window.row)
    shares = []
    for tile in tiles:
        fact = facts[tile.path]
        values = (tile.nodata, vrt.nodata, fact.nodata)
        nodata = next((value for value in values if value is not None), None)
        pairs = tuple((band + 1, number) for band, number in tile.bands)
        shares.append(Share(fact, tile.offset, pairs, nodata))
    return Sheet((a, b, corner[0], d, e, corner[1]), window.shape, tuple(shares))
