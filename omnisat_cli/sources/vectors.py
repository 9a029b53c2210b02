"""Vector files of the user: recognised by their first bytes, checked, read where needed."""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import AlignmentError, JobError, SecurityError, SourceError
from omnisat_cli.geo.crs import is_geographic, moved_bounds, name_crs
from omnisat_cli.sources.safe import local_path, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from omnisat_cli.geo.lattice import Bounds

GEOJSON, GEOPARQUET = "GeoJSON", "GeoParquet"
MAX_PARSED_BYTES = 2**30
"""Largest file of the formats that have no spatial index and are read whole."""

MAX_FEATURES = 2_000_000
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Features:
    """Features over some ground.

    Attributes:
        shapes: (N,) geometries as the file has them; None where a feature has none.
        values: (N,) the column that was asked for, as the file stores it.
        crs: CRS of the shapes, named.
        because: Where the CRS was found.
        bounds: left, bottom, right, top of the whole file in that CRS.
        total: Features of the whole file.
        notes: What the reader of the format complained about.
    """

    shapes: NDArray[np.object_]
    values: NDArray[np.object_]
    crs: str
    because: str
    bounds: Bounds
    total: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is read of a vector file.

    Attributes:
        path: GeoJSON, GeoPackage, Shapefile or GeoParquet.
        column: Column whose values are wanted, or None where the user named none.
        crs: CRS that overrules what the file says, or None.
        what: What the features are, for messages ("labels").
        option: Option that names the file; `<option>-crs` states its CRS.
        column_option: Option that names the column.
    """

    path: str
    column: str | None
    crs: str | None = None
    what: str = "labels"
    option: str = "--labels"
    column_option: str = "--field"


def vector_kind(place: Path, what: str) -> str:
    """Name the format that the first bytes of a file call for.

    Raises:
        SourceError: If it is none that is read.
    """
    head = read_head(place)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return GEOJSON
    if head.startswith(b"SQLite format 3\0") and head[68:72] in (b"GPKG", b"GP10", b"GP11"):
        return "GPKG"
    if head.startswith(b"\0\0\x27\x0a"):
        return "ESRI Shapefile"
    if head.startswith(b"fgb\x03fgb"):
        return "FlatGeobuf"
    if head.startswith(b"PAR1"):
        return GEOPARQUET
    found = "is empty" if not head else f"begins with {head[:8]!r}"
    raise SourceError(
        f"{place}: is neither GeoJSON, GeoPackage, Shapefile (.shp), FlatGeobuf nor GeoParquet "
        f"(it {found}); export the {what} as GeoPackage"
    )


def layers_of(place: Path) -> list[str]:
    """Name the layers of a file that have geometries."""
    import pyogrio

    return [str(name) for name, shape in pyogrio.list_layers(place) if shape]


def only_layer(place: Path, what: str, usual: str = "") -> str:
    """Name the one layer of a file that has geometries.

    Args:
        place: The file.
        what: What its features are, for messages.
        usual: Layer that is taken where there are several, or "".

    Raises:
        SourceError: If there are none, or several and none is the usual one.
    """
    names = layers_of(place)
    if usual in names:
        return usual
    if len(names) != 1:
        other = f" and none called {usual!r}" if usual else ""
        raise SourceError(
            f"{place}: has {len(names)} layers with geometry ({', '.join(names[:5])}){other}; "
            f"export the one that is the {what} to its own file"
        )
    return names[0]


@contextmanager
def readable(place: Path, kind: str, what: str) -> Iterator[None]:
    """Turn what the libraries say of a file that they cannot read into one typed error.

    Raises:
        SourceError: If it is damaged, or a library that reads it is missing.
    """
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError

    broken = (DataSourceError, DataLayerError, FeatureError, GeometryError)
    try:
        yield
    except ImportError as error:
        raise SourceError(
            f"{place}: reading GeoParquet needs pyarrow; install it (pip install pyarrow) or "
            f"export the {what} as GeoPackage"
        ) from error
    except (*broken, OSError, ValueError, KeyError) as error:
        raise SourceError(f"{place}: is no readable {kind} ({error}); export it again") from error


@dataclass(frozen=True, slots=True)
class Table:
    """A whole vector file.

    Attributes:
        frame: Its geometries, and those of the wanted columns that it has.
        columns: Names of all its columns.
        notes: What the reader of the format complained about.
    """

    frame: GeoDataFrame
    columns: tuple[str, ...]
    notes: tuple[str, ...]


def read_table(place: Path, what: str, columns: Sequence[str] = (), usual: str = "") -> Table:
    """Read a whole file.

    Args:
        place: GeoJSON, GeoPackage, Shapefile, FlatGeobuf or GeoParquet.
        what: What its features are, for messages.
        columns: Columns that are wanted.
        usual: See `only_layer`.

    Raises:
        SourceError: If the file cannot be read.
    """
    kind = vector_kind(place, what)
    with readable(place, kind, what), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        import geopandas
        import pyogrio

        if kind == GEOPARQUET:
            frame = geopandas.read_parquet(place)
            there = tuple(str(name) for name in frame.columns if name != frame.geometry.name)
        else:
            layer = only_layer(place, what, usual)
            there = tuple(pyogrio.read_info(place, layer=layer)["fields"].tolist())
            wanted = [name for name in columns if name in there]
            frame = geopandas.read_file(place, layer=layer, columns=wanted)
    return Table(frame, there, _spoken(said))


def _spoken(said: Sequence[warnings.WarningMessage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(one.message) for one in said))


def surfaces(shape: BaseGeometry) -> BaseGeometry:
    """Keep the polygons of a geometry: repairs leave lines and points behind."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    kept = [part for part in parts if part.geom_type == "Polygon" and part.area > 0]
    if len(kept) == 1:
        return kept[0]
    return shapely.MultiPolygon(kept)


def refuse_contradiction(
    bounds: Bounds, crs: str, where: str, option: str, target_crs: str
) -> None:
    """Refuse metres called degrees and degrees called metres.

    Args:
        bounds: Coordinates that were found.
        crs: CRS they are said to be in.
        where: The file, for messages.
        option: Option that states the CRS.
        target_crs: CRS of the map, offered where it is likely.

    Raises:
        AlignmentError: If they contradict each other.
    """
    left, bottom, right, top = bounds
    found = f"x {left:.10g}..{right:.10g}, y {bottom:.10g}..{top:.10g}"
    in_degrees = max(abs(left), abs(right)) <= 180 and max(abs(bottom), abs(top)) <= 90
    geographic = is_geographic(crs)
    if geographic and max(abs(left), abs(right)) <= 360.0 and not in_degrees:
        raise AlignmentError(
            f"{where}: {found} are no longitudes and latitudes of {crs[:40]}; are x and y swapped?"
        )
    if geographic and not in_degrees:
        likely = target_crs if len(target_crs) < 20 else "EPSG:n"
        raise AlignmentError(
            f"{where}: {found} cannot be degrees of {crs[:40]}; these look like metres: "
            f"say their CRS, for example {option} {likely}"
        )
    if not geographic and in_degrees:
        raise AlignmentError(
            f"{where}: {found} look like degrees, but the CRS is {crs[:40]} (metres); "
            f"if they are longitudes and latitudes, add {option} EPSG:4326"
        )


def read_features(wish: Wish, ground: Bounds, ground_crs: str) -> Features:
    """Read the features that meet some ground, and one column.

    Args:
        wish: File and column.
        ground: left, bottom, right, top.
        ground_crs: CRS of `ground`.

    Raises:
        SecurityError: If the path is remote, or the file absurdly large.
        SourceError: If the file is damaged or empty.
        AlignmentError: If it states no CRS, or one that contradicts its coordinates.
        JobError: If it has no such column, or none was named.
    """
    place = local_path(wish.path)
    if place.is_dir():
        raise SourceError(f"{place}: is a folder; give the file inside it")
    kind = vector_kind(place, wish.what)
    size = place.stat().st_size
    if kind in (GEOJSON, GEOPARQUET) and size > MAX_PARSED_BYTES:
        raise SecurityError(
            f"{place}: {size} bytes, the limit for {kind} is {MAX_PARSED_BYTES}; convert it to "
            "GeoPackage, of which only the part over the imagery is read"
        )
    read = _read_parquet if kind == GEOPARQUET else _read_gdal
    with readable(place, kind, wish.what), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        features = read(wish, place, ground, ground_crs)
    if len(features.shapes) > MAX_FEATURES:
        raise SecurityError(
            f"{place}: {len(features.shapes)} features over the imagery, the limit is "
            f"{MAX_FEATURES}; cut the file or map a smaller area"
        )
    return replace(features, notes=_spoken(said))


def _read_gdal(wish: Wish, place: Path, ground: Bounds, ground_crs: str) -> Features:
    import geopandas
    import pyogrio

    layer = only_layer(place, wish.what)
    info = pyogrio.read_info(place, layer=layer, force_feature_count=True, force_total_bounds=True)
    column = _column(wish, place, tuple(str(name) for name in info["fields"]))
    crs, because = _named(wish, place, info["crs"] or "")
    total = int(info["features"])
    bounds = _bounds(info["total_bounds"], wish, place)
    refuse_contradiction(bounds, crs, str(place), f"{wish.option}-crs", ground_crs)
    frame = geopandas.read_file(
        place, layer=layer, columns=[column], bbox=moved_bounds(ground, ground_crs, crs)
    )
    return _features(frame, column, Features(*_NOTHING, crs, because, bounds, total))


def _read_parquet(wish: Wish, place: Path, ground: Bounds, ground_crs: str) -> Features:
    import geopandas

    frame = geopandas.read_parquet(place)
    names = tuple(str(name) for name in frame.columns if name != frame.geometry.name)
    column = _column(wish, place, names)
    crs, because = _named(wish, place, frame.crs.to_wkt() if frame.crs is not None else "")
    bounds = _bounds(frame.total_bounds, wish, place)
    refuse_contradiction(bounds, crs, str(place), f"{wish.option}-crs", ground_crs)
    box = shapely.box(*moved_bounds(ground, ground_crs, crs))
    # A feature without geometry is kept, so that it can be counted.
    shapes = frame.geometry.to_numpy()
    near = shapely.intersects(shapely.envelope(shapes), box) | shapely.is_missing(shapes)
    return _features(frame[near], column, Features(*_NOTHING, crs, because, bounds, len(frame)))


_NOTHING = (np.array([], object), np.array([], object))


def _features(frame: GeoDataFrame, column: str, facts: Features) -> Features:
    values = frame[column].astype(object).to_numpy()
    return replace(facts, shapes=frame.geometry.to_numpy(), values=values)


def _bounds(found: Sequence[float] | None, wish: Wish, place: Path) -> Bounds:
    """Return the extent of a file.

    Raises:
        SourceError: If it has none: no feature, no geometry, coordinates that are no numbers.
    """
    if found is None or not all(math.isfinite(edge) for edge in found):
        raise SourceError(
            f"{place}: holds no feature with finite coordinates; draw the {wish.what} and export "
            "them again"
        )
    left, bottom, right, top = (float(edge) for edge in found)
    return left, bottom, right, top


def _named(wish: Wish, place: Path, found: str) -> tuple[str, str]:
    """Decide the CRS of a file, and say why."""
    option = f"{wish.option}-crs"
    if wish.crs is not None:
        return name_crs(wish.crs)[0], f"given with {option}"
    if not found:
        raise AlignmentError(
            f"{place}: has no coordinate reference system (no .prj beside it?); "
            f"say it with {option} EPSG:n"
        )
    return name_crs(found)[0], "the file itself"


def _column(wish: Wish, place: Path, names: tuple[str, ...]) -> str:
    """Return the column that was asked for.

    Raises:
        JobError: If there is no such column, or none was asked for.
    """
    if not names:
        raise JobError(f"{place}: has no column; the {wish.what} need one that names the class")
    if wish.column is None:
        raise JobError(
            f"{place}: say which column holds the class with {wish.column_option}; it has "
            f"{_listed(names)}"
        )
    check_column(wish.column, names, wish.column_option, place)
    return wish.column


def check_column(wanted: str, names: Sequence[str], option: str, place: Path) -> None:
    """Check that a file has a column.

    Raises:
        JobError: If it has not; the message says what was probably meant.
    """
    if wanted in names:
        return
    lower = {name.casefold(): name for name in names}
    near = get_close_matches(wanted.casefold(), lower, n=1)
    hint = f"; did you mean {lower[near[0]]}?" if near else ""
    raise JobError(f"{option} {wanted}: {place} has no such column, it has {_listed(names)}{hint}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "none"
    return f"{shown}, …" if len(names) > _SHOWN else shown
