"""Write a scene as the files that users bring.

`aerial.tif` (RGB + NIR), `s2.nc` and `s1.nc` (one variable a band, as odc-stac and rioxarray write
them), `labels.tif` and `parcels.gpkg` (the truth) and `aoi.geojson` (with the CRS member that QGIS
writes). Everything is written tile by tile, so a scene may be larger than the memory. A scene with
an event has no aerial image and no parcels, and its own classes, which `legend.json` names.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from shutil import copyfile
from typing import TYPE_CHECKING, Literal

import geopandas as gpd
import h5netcdf
import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from omnisat_cli.errors import JobError, OutputExistsError
from omnisat_cli.learning.simulate.cube_files import (
    DB_MISSING,
    DB_STEP,
    start_cube,
    start_s1,
    start_s2,
)
from omnisat_cli.learning.simulate.events import EVENTS, staged
from omnisat_cli.learning.simulate.fields import Pixels
from omnisat_cli.learning.simulate.landscape import transform
from omnisat_cli.learning.simulate.legend import sim_legend
from omnisat_cli.learning.simulate.scene import simulate_tiles
from omnisat_cli.learning.simulate.values import CELL_M, Frame, SceneSpec
from omnisat_cli.learning.simulate.values import CRS as CRS_NAME
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.outputs.products import Category
from omnisat_cli.outputs.sidecars import aux_xml, qml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from omnisat_cli.learning.simulate.values import Scene
    from omnisat_cli.outputs.legend import Legend

FILES = (
    *("aerial.tif", "s2.nc", "s1.nc", "labels.tif", "labels.tif.aux.xml", "labels.qml"),
    *("parcels.gpkg", "aoi.geojson"),
)
LEGEND = "legend.json"
"""Classes of the truth, where they are those of an event."""
_BLOCK = 256
_QUALITY = 88
Side = Literal["north", "south", "east", "west"]
SIDES: tuple[Side, ...] = ("north", "south", "east", "west")


@dataclass(frozen=True, slots=True)
class Gap:
    """Strip of a scene that a sensor did not see.

    Attributes:
        side: Edge of the scene the strip lies along.
        share: Part of the scene it takes, 0 to 1; cut to whole blocks of 40 m.
    """

    side: Side
    share: float

    def __post_init__(self) -> None:
        if self.side not in SIDES or not 0 < self.share < 1:
            raise JobError(
                f"a gap lies north, south, east or west and takes a share between 0 and 1, "
                f"got {self.side!r} and {self.share}"
            )

    def seen(self, frame: Frame) -> Frame:
        """Return what is left of a frame."""
        across = self.side in ("east", "west")
        whole = frame.width if across else frame.height
        lost = round(whole * self.share / 40) * 40
        left = frame.left + (lost if self.side == "west" else 0)
        top = frame.top - (lost if self.side == "north" else 0)
        width, height = frame.width - lost * across, frame.height - lost * (not across)
        return Frame(left, top, width, height)


def read_gap(text: str) -> Gap:
    """Read SIDE:PERCENT, as "east:20".

    Raises:
        JobError: If it is not of that form.
    """
    side, _, percent = text.partition(":")
    for known in SIDES:
        if side == known and percent.isdecimal() and 0 < int(percent) < 100:
            return Gap(known, int(percent) / 100)
    raise JobError(f"a gap is SIDE:PERCENT, as east:20 (sides: {', '.join(SIDES)}); got {text!r}")


@dataclass(frozen=True, slots=True)
class Layout:
    """What is written, and where sensors saw nothing.

    Attributes:
        aerial_gap: The aerial file ends where this strip begins.
        s1_gap: Sentinel-1 holds its fill value in this strip.
    """

    aerial_gap: Gap | None = None
    s1_gap: Gap | None = None


def write_scene(scene: Scene, folder: Path, layout: Layout | None = None) -> None:
    """Write a scene that is in memory; see `write_scenes`."""
    write_scenes(scene.spec, [scene], folder, layout)


def write_simulation(spec: SceneSpec, folder: Path, layout: Layout | None = None) -> None:
    """Simulate a scene of any size and write it; memory depends on its tiles, not on its size."""
    spec = staged(spec)
    side = 2560 if spec.aerial_gsd >= 0.4 else 1280  # whole blocks of every file
    write_scenes(spec, simulate_tiles(spec, side), folder, layout)


def refuse_existing(folder: Path) -> None:
    """Stop before files of an earlier scene are replaced.

    Raises:
        OutputExistsError: If one of `FILES` is there.
    """
    there = [name for name in (*FILES, LEGEND) if (folder / name).exists()]
    if there:
        raise OutputExistsError(
            f"{folder} holds {', '.join(there)} already; choose another folder or add --overwrite"
        )


def write_scenes(
    spec: SceneSpec, pieces: Iterable[Scene], folder: Path, layout: Layout | None = None
) -> None:
    """Write the pieces of a scene into one folder; files of that name are replaced.

    Args:
        spec: The whole scene.
        pieces: Scenes that tile it.
        folder: Made if missing.
        layout: Gaps.

    Raises:
        JobError: If a gap is wanted in an aerial image that a scene with an event lacks.
    """
    layout = layout or Layout()
    if spec.event and layout.aerial_gap:
        raise JobError(f"a scene with a {spec.event} has no aerial image that could have a gap")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, LEGEND):
        (folder / name).unlink(missing_ok=True)
    parcels: dict[int, list[tuple[int, shapely.Geometry]]] = {}
    with ExitStack() as stack:
        files: _Files | None = None
        for piece in pieces:
            if files is None:
                files = _open(spec, piece, folder, layout, stack)
            _put(files, piece)
            for parcel in piece.parcels:
                parcels.setdefault(parcel.id, []).append((parcel.class_code, parcel.geometry))
    _write_aoi(spec.frame, folder / "aoi.geojson")
    event = EVENTS[spec.event]
    if spec.event:
        copyfile(event.legend_file, folder / LEGEND)
    else:
        _write_parcels(parcels, folder / "parcels.gpkg")
    categories = [Category(c.code, c.name_en, c.rgb) for c in event.legend().classes]
    (folder / "labels.tif.aux.xml").write_bytes(aux_xml(categories, "class"))
    (folder / "labels.qml").write_bytes(qml(categories))


@dataclass(frozen=True, slots=True)
class _Files:
    """Open files of a scene."""

    frame: Frame
    aerial: rasterio.io.DatasetWriter | None
    aerial_frame: Frame
    labels: rasterio.io.DatasetWriter
    s2: h5netcdf.File
    s1: h5netcdf.File
    s1_frame: Frame


def _open(spec: SceneSpec, first: Scene, folder: Path, layout: Layout, stack: ExitStack) -> _Files:
    frame = spec.frame
    seen = layout.aerial_gap.seen(frame) if layout.aerial_gap else frame
    s2, s1 = (stack.enter_context(h5netcdf.File(folder / name, "w")) for name in ("s2.nc", "s1.nc"))
    start_cube(s2, frame, first.s2_dates, "Simulated Sentinel-2 surface reflectance, level 2A")
    start_s2(s2)
    start_cube(s1, frame, first.s1_dates, "Simulated Sentinel-1 GRD backscatter")
    start_s1(s1, first.s1_orbit)
    aerial = None if spec.event else _open_aerial(spec, first, seen, folder / "aerial.tif")
    return _Files(
        frame=frame,
        aerial=aerial and stack.enter_context(aerial),
        aerial_frame=seen,
        labels=stack.enter_context(_open_labels(frame, first.legend, folder / "labels.tif")),
        s2=s2,
        s1=s1,
        s1_frame=layout.s1_gap.seen(frame) if layout.s1_gap else frame,
    )


def _open_aerial(
    spec: SceneSpec, first: Scene, seen: Frame, path: Path
) -> rasterio.io.DatasetWriter:
    pixels = Pixels(seen, spec.aerial_gsd)
    target = rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=4,
        dtype="uint8",
        crs=CRS_NAME,
        transform=transform(pixels),
        height=pixels.shape[0],
        width=pixels.shape[1],
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        compress="JPEG",
        jpeg_quality=_QUALITY,
        photometric="RGB",
        alpha="NO",
        bigtiff="IF_SAFER",
    )
    target.descriptions = ("red", "green", "blue", "nir")
    target.colorinterp = (
        *(ColorInterp.red, ColorInterp.green, ColorInterp.blue),
        ColorInterp.undefined,
    )
    day = str(first.aerial_date).replace("-", ":")
    target.update_tags(TIFFTAG_DATETIME=f"{day} 12:00:00", TIFFTAG_SOFTWARE="omnisat simulate")
    return target


def _open_labels(frame: Frame, legend: Legend, path: Path) -> rasterio.io.DatasetWriter:
    target = rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        dtype="uint8",
        nodata=legend.nodata,
        crs=CRS_NAME,
        transform=transform(Pixels(frame, 1.0)),
        height=frame.height,
        width=frame.width,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        compress="DEFLATE",
        bigtiff="IF_SAFER",
    )
    target.write_colormap(1, {entry.code: (*entry.rgb, 255) for entry in legend.classes})
    target.set_band_description(1, "class")
    return target


def _put(files: _Files, piece: Scene) -> None:
    """Write one piece of the scene into every file."""
    frame = piece.spec.frame
    rows, cols = _place(files.frame, frame, CELL_M)
    for index, name in enumerate(S2_BANDS):
        files.s2[name][:, rows, cols] = piece.s2[:, index]
    files.s2["SCL"][:, rows, cols] = piece.scl
    stored = np.rint(piece.s1 / DB_STEP).astype(np.int16)
    cells = Pixels(frame, CELL_M)
    left, bottom, right, top = files.s1_frame.bounds
    inside_y, inside_x = (cells.y < top) & (cells.y > bottom), (cells.x > left) & (cells.x < right)
    stored = np.where(inside_y[:, None] & inside_x[None, :], stored, np.int16(DB_MISSING))
    for index, name in enumerate(("VV", "VH")):
        files.s1[name][:, rows, cols] = stored[:, index]
    files.labels.write(piece.truth, 1, window=Window.from_slices(*_place(files.frame, frame, 1)))
    if files.aerial is not None:
        _put_aerial(files.aerial, files.aerial_frame, piece)


def _put_aerial(target: rasterio.io.DatasetWriter, seen: Frame, piece: Scene) -> None:
    frame = piece.spec.frame
    left, top = max(frame.left, seen.left), min(frame.top, seen.top)
    right = min(frame.left + frame.width, seen.left + seen.width)
    bottom = max(frame.top - frame.height, seen.top - seen.height)
    if right <= left or top <= bottom:
        return
    common = Frame(left, top, right - left, top - bottom)
    rows, cols = _place(frame, common, piece.gsd)
    window = Window.from_slices(*_place(seen, common, piece.gsd))
    target.write(piece.aerial[:, rows, cols], window=window)


def _place(outer: Frame, inner: Frame, gsd: float) -> tuple[slice, slice]:
    row, col = round((outer.top - inner.top) / gsd), round((inner.left - outer.left) / gsd)
    return (
        slice(row, row + round(inner.height / gsd)),
        slice(col, col + round(inner.width / gsd)),
    )


def _write_parcels(parcels: dict[int, list[tuple[int, shapely.Geometry]]], path: Path) -> None:
    names = {entry.code: entry.name_en for entry in sim_legend().classes}
    numbers = sorted(parcels)
    codes = [parcels[number][0][0] for number in numbers]
    shapes = [shapely.union_all([part for _, part in parcels[number]]) for number in numbers]
    table = gpd.GeoDataFrame(
        {"id": numbers, "class_code": codes, "class_name": [names[code] for code in codes]},
        geometry=[shapely.multipolygons([s]) if s.geom_type == "Polygon" else s for s in shapes],
        crs=CRS_NAME,
    )
    # the same scene is the same file: the date of writing is the scene's, not today's
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2020-01-01T00:00:00.000Z"})
    try:
        pyogrio.write_dataframe(
            table, path, layer="parcels", driver="GPKG", geometry_type="MultiPolygon", VERSION="1.2"
        )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _write_aoi(frame: Frame, path: Path) -> None:
    """Write an area of interest inside the scene: a rectangle with two corners cut off."""
    left, bottom, right, top = frame.expanded(
        -max(CELL_M, min(frame.width, frame.height) // 50)
    ).bounds
    cut = min(frame.width, frame.height) // 8
    ring = [
        *([left, bottom], [right - cut, bottom], [right, bottom + cut], [right, top]),
        *([left + cut, top], [left, top - cut], [left, bottom]),
    ]
    feature = {
        "type": "Feature",
        "properties": {"name": "simulated area"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}
    collection = {"type": "FeatureCollection", "name": "aoi", "crs": crs, "features": [feature]}
    path.write_text(json.dumps(collection, indent=1) + "\n", encoding="utf-8")
