"""Series of a scene as netCDF cubes: what the files hold before any pixel is written.

One variable a band, as odc-stac and rioxarray write them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5netcdf
import numpy as np
from pyproj import CRS

from omnisat_cli.learning.simulate.fields import Pixels
from omnisat_cli.learning.simulate.landscape import transform
from omnisat_cli.learning.simulate.values import CELL_M
from omnisat_cli.learning.simulate.values import CRS as CRS_NAME
from omnisat_cli.modality import S2_BANDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.values import Frame

DB_STEP = 0.02
"""Decibels of one stored number of Sentinel-1."""

DB_MISSING = -32768
"""Stored where it saw nothing."""

_SCL_MEANINGS = (
    "no_data saturated dark_area cloud_shadow vegetation not_vegetated water unclassified "
    "cloud_medium_probability cloud_high_probability thin_cirrus snow"
)


def start_cube(
    file: h5netcdf.File, frame: Frame, dates: NDArray[np.datetime64], title: str
) -> None:
    """Define dimensions, coordinates and the coordinate reference system."""
    pixels = Pixels(frame, CELL_M)
    file.dimensions = {"time": len(dates), "y": pixels.shape[0], "x": pixels.shape[1]}
    file.attrs["Conventions"] = "CF-1.8"
    file.attrs["coordinates"] = "spatial_ref"  # so that xarray makes it a coordinate
    file.attrs["title"] = title
    file.attrs["institution"] = "synthetic scene, omnisat simulate"
    time = file.create_variable("time", ("time",), data=(dates - dates[0]).astype(np.int64))
    time.attrs.update(
        {"units": f"days since {dates[0]}", "calendar": "proleptic_gregorian", "axis": "T"}
    )
    for name, values in (("y", pixels.y), ("x", pixels.x)):
        axis = file.create_variable(name, (name,), data=values)
        axis.attrs["units"] = "metre"
        axis.attrs["standard_name"] = f"projection_{name}_coordinate"
        axis.attrs["axis"] = name.upper()
    reference = file.create_variable("spatial_ref", (), data=np.int32(2154))
    crs = CRS.from_user_input(CRS_NAME)
    for key, value in crs.to_cf().items():
        reference.attrs[key] = np.asarray(value, float) if isinstance(value, tuple) else value
    reference.attrs["spatial_ref"] = crs.to_wkt("WKT1_GDAL")
    reference.attrs["GeoTransform"] = " ".join(str(v) for v in transform(pixels).to_gdal())


def _start_band(
    file: h5netcdf.File, name: str, dtype: str, missing: int, about: dict[str, object]
) -> None:
    shape = tuple(file.dimensions[axis].size for axis in ("time", "y", "x"))
    band = file.create_variable(
        name,
        ("time", "y", "x"),
        dtype,
        fillvalue=np.dtype(dtype).type(missing),
        chunks=(min(shape[0], 16), min(shape[1], 128), min(shape[2], 128)),
        compression="gzip",
        compression_opts=6,
        shuffle=True,
    )
    band.attrs["grid_mapping"] = "spatial_ref"
    for key, value in about.items():
        band.attrs[key] = value


def start_s2(file: h5netcdf.File) -> None:
    """Define the bands of Sentinel-2 and its scene classes."""
    for name in S2_BANDS:
        about = {"long_name": f"surface reflectance × 10000, {name}", "units": "1", "nodata": 0}
        _start_band(file, name, "uint16", 0, about)
    about = {
        "long_name": "scene classification",
        "flag_values": np.arange(12, dtype=np.uint8),
        "flag_meanings": _SCL_MEANINGS,
    }
    _start_band(file, "SCL", "uint8", 0, about)


def start_s1(file: h5netcdf.File, orbits: NDArray[np.str_]) -> None:
    """Define the bands of Sentinel-1, and the (T,) orbits of its dates."""
    orbit = file.create_variable(
        "orbit_state",
        ("time",),
        data=orbits.astype(object),
        dtype=h5netcdf.core.h5py.string_dtype(),
    )
    file.attrs["coordinates"] = "spatial_ref orbit_state"
    orbit.attrs["long_name"] = "orbit direction of each date"
    for name in ("VV", "VH"):
        about = {
            "long_name": f"backscatter, {name}",
            "units": "dB",
            "scale_factor": DB_STEP,
            "add_offset": 0.0,
        }
        _start_band(file, name, "int16", DB_MISSING, about)
