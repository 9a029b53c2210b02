"""Give a TreeSatAI-Time-Series tile a place on Earth, so that it reads like any other cube.

A tile is an aerial image (`.tif`, 304 × 304 pixels of 0.2 m) and an HDF5 file (`.h5`) of 6 × 6
pixels of 10 m without CRS, dates or fill values. The data set defines that the 6 × 6 pixels cover
the 60 m in the centre of the aerial, row 0 in the north; so that is where the series are put.

Nothing is resampled here. The 60 m square does not lie on multiples of 10 m (it starts 3 m beside
them in the sample tile); on reading, the cube is brought onto the lattice like any misaligned cube:
bilinear values, nearest validity, nothing outside the 60 m.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import xarray as xr

from omnisat_cli.errors import AlignmentError, SourceError
from omnisat_cli.geo.crs import name_crs
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.sources.dates import parse_times
from omnisat_cli.sources.safe import local_path, open_raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE_M = 60.0
_PIXEL_M = 10.0
_S2_DATE_FIELD, _S1_DATE_FIELD = 2, 4
_ORBITS = (("sen-1-asc", "ascending"), ("sen-1-des", "descending"))


@dataclass(frozen=True, slots=True)
class _Place:
    """North-west corner of the 60 m square, and its CRS."""

    crs: str
    left: float
    top: float


@dataclass(frozen=True, slots=True)
class Stack:
    """One series as the HDF5 file holds it: (T, C, 6, 6) and its days."""

    pixels: NDArray[np.float32]
    days: NDArray[np.datetime64]


@dataclass(frozen=True, slots=True)
class TileSeries:
    """The series of one tile, as stored.

    Attributes:
        s2: Reflectance × 10 000, ten bands in canonical order.
        masks: (T, 2, 6, 6) probability of snow and of cloud, 0 to 100, by date of `s2`.
        s1: "ascending" and "descending" to linear power, VV VH; NaN where nothing was measured.
    """

    s2: Stack
    masks: NDArray[np.float32]
    s1: dict[str, Stack]


def read_series(h5: str | Path) -> TileSeries:
    """Read the time series of a tile.

    The ten bands of Sentinel-2 are in canonical order (dataset card; and in the data the fourth is
    made of 20 m pixels, the seventh is not). The twelve of the original archive's single images are
    not: those have B08 in fourth place.

    Raises:
        SourceError: If the file is missing, damaged or not of this data set.
    """
    source = local_path(h5)
    try:
        with h5py.File(source, "r") as file:
            s2 = _read(file, "sen-2", _S2_DATE_FIELD, len(S2_BANDS))
            masks = np.asarray(file["sen-2-masks"][:, :2], dtype=np.float32)
            s1 = {orbit: _read(file, key, _S1_DATE_FIELD, 2) for key, orbit in _ORBITS}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise SourceError(f"{source} is no TreeSatAI time series: {error}") from error
    if masks.shape != (len(s2.days), 2, *s2.pixels.shape[2:]):
        raise SourceError(f"{source}: masks {masks.shape} for images {s2.pixels.shape}")
    return TileSeries(s2, masks, s1)


def convert_treesatai(h5: str | Path, tif: str | Path, out_folder: str | Path) -> tuple[Path, ...]:
    """Write a TreeSatAI-Time-Series tile as georeferenced netCDF cubes.

    Sentinel-2 keeps its ten bands and gets `cloud_probability` and `snow_probability` (0–100) from
    channels 1 and 0 of the masks. Sentinel-1 keeps linear power. Two frames of one pass stay two
    images of one day: read them with `duplicate_dates="first"`.

    Args:
        h5: The time series.
        tif: The aerial image of the same tile.
        out_folder: Where to write; made if absent.

    Returns:
        The paths of s2.nc, s1_asc.nc, s1_des.nc and s1.nc (both orbits, `orbit_state` by date).

    Raises:
        SourceError: If the files are not a tile of this data set.
        AlignmentError: If the aerial has no projected CRS or is smaller than 60 m.
    """
    place = _locate(tif)
    tile = read_series(h5)
    folder = Path(out_folder)
    folder.mkdir(parents=True, exist_ok=True)
    optical = dict(zip(S2_BANDS, np.moveaxis(tile.s2.pixels, 1, 0), strict=True))
    optical |= {"snow_probability": tile.masks[:, 0], "cloud_probability": tile.masks[:, 1]}
    written = [_write(folder / "s2.nc", optical, tile.s2.days, place)]
    names = {"ascending": "s1_asc.nc", "descending": "s1_des.nc"}
    for orbit, stack in tile.s1.items():
        labels = [orbit] * len(stack.days)
        written.append(_write_radar(folder / names[orbit], stack, labels, place))
    days = np.concatenate([stack.days for stack in tile.s1.values()])
    order = np.argsort(days, kind="stable")
    both = Stack(np.concatenate([stack.pixels for stack in tile.s1.values()])[order], days[order])
    labels = [orbit for orbit, stack in tile.s1.items() for _ in stack.days]
    written.append(_write_radar(folder / "s1.nc", both, [labels[k] for k in order], place))
    return tuple(written)


def _locate(tif: str | Path) -> _Place:
    """Find the 60 m in the centre of the aerial."""
    with open_raster(tif) as aerial:
        if aerial.crs is None or not aerial.crs.is_projected:
            raise AlignmentError(f"{tif} has no projected CRS ({aerial.crs}): nothing to place by")
        crs = name_crs(aerial.crs.to_wkt())[0]
        left, bottom, right, top = aerial.bounds
    if right - left < _SIDE_M or top - bottom < _SIDE_M:
        raise AlignmentError(
            f"{tif} covers {right - left:.1f} × {top - bottom:.1f} m, less than the {_SIDE_M:g} m "
            "of the time series"
        )
    # The origin carries float noise (565642.600000003): a millimetre is far below a pixel.
    west, north = (left + right - _SIDE_M) / 2, (top + bottom + _SIDE_M) / 2
    return _Place(crs, round(west, 3), round(north, 3))


def _read(file: h5py.File, key: str, date_field: int, bands: int) -> Stack:
    stored = file[f"{key}-data"][:, :bands]
    if stored.dtype.kind != "f":
        raise ValueError(f"{key}-data is {stored.dtype}, not floating point")
    pixels = np.asarray(stored, dtype=np.float32)
    names = [entry.decode("ascii", "replace") for entry in file[f"{key}-products"][:]]
    side = round(_SIDE_M / _PIXEL_M)
    if pixels.shape != (len(names), bands, side, side):
        raise ValueError(f"{key}-data has the shape {pixels.shape} for {len(names)} products")
    fields = [name.split("_")[date_field : date_field + 1] for name in names]
    return Stack(pixels, parse_times(np.array(["".join(field) for field in fields]), {}).days)


def _write_radar(path: Path, stack: Stack, orbits: list[str], place: _Place) -> Path:
    layers = {"VV": stack.pixels[:, 0], "VH": stack.pixels[:, 1]}
    coordinate = {"orbit_state": ("time", np.array(orbits))}
    return _write(path, layers, stack.days, place, coordinate)


def _write(
    path: Path,
    layers: dict[str, NDArray[np.float32]],
    days: NDArray[np.datetime64],
    place: _Place,
    more: dict[str, tuple[str, NDArray[np.str_]]] | None = None,
) -> Path:
    size = round(_SIDE_M / _PIXEL_M)
    centres = (np.arange(size) + 0.5) * _PIXEL_M
    time = ("time", (days - np.datetime64("1970-01-01", "D")).astype(np.int32),
            {"units": "days since 1970-01-01", "calendar": "standard"})  # fmt: skip
    transform = f"{place.left} {_PIXEL_M} 0 {place.top} 0 {-_PIXEL_M}"
    mapping = ((), np.int32(0), {"crs_wkt": _wkt(place.crs), "GeoTransform": transform})
    link = {"grid_mapping": "spatial_ref"}
    dataset = xr.Dataset(
        {name: (("time", "y", "x"), pixels, link) for name, pixels in layers.items()},
        coords={
            "time": time,
            "y": ("y", place.top - centres),
            "x": ("x", place.left + centres),
            "spatial_ref": mapping,
            **(more or {}),
        },
        attrs={"Conventions": "CF-1.8", "source": "TreeSatAI-Time-Series, CC-BY-4.0"},
    )
    dataset.to_netcdf(path, engine="h5netcdf")
    return path


def _wkt(crs: str) -> str:
    from pyproj import CRS

    return str(CRS.from_user_input(crs).to_wkt())
