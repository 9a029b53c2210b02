"""Tiny cubes as the usual tools write them, and the values that must come out of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from pyproj import CRS

from omnisat_cli.geo.lattice import Lattice, Window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

EPSG = 32631
LATTICE = Lattice(f"EPSG:{EPSG}", 10.0)
WKT = CRS.from_epsg(EPSG).to_wkt()
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
FEW = ("B02", "B04", "B08")
"""Enough to measure with; every band costs time."""
_TYPICAL = (400, 700, 600, 1100, 2200, 2700, 2900, 3000, 2100, 1300)
LEFT, TOP = 500_000.0, 5_600_000.0


@dataclass(frozen=True)
class Scene:
    """(T, C, H, W) uint16 pixels north up, their bands and days, and a scene classification."""

    pixels: NDArray[np.generic]
    days: NDArray[np.datetime64]
    scl: NDArray[np.uint8]
    bands: tuple[str, ...] = BANDS
    left: float = LEFT
    top: float = TOP
    attrs: dict[str, object] = field(default_factory=dict)

    @property
    def window(self) -> Window:
        """The cube's extent on the lattice."""
        height, width = self.pixels.shape[2:]
        return Window(-round(self.top / 10), round(self.left / 10), height, width)

    def band(self, name: str) -> NDArray[np.generic]:
        return self.pixels[:, self.bands.index(name)]


def make_scene(
    dates: int = 4, size: tuple[int, int] = (9, 7), bands: tuple[str, ...] = FEW, seed: int = 0
) -> Scene:
    """Farmland without offset: blue near 400, near infrared near 2900."""
    rng = np.random.default_rng(seed)
    base = np.array([_TYPICAL[BANDS.index(band)] for band in bands])[None, :, None, None]
    spread = rng.uniform(0.7, 1.3, (dates, len(bands), *size))
    days = np.datetime64("2023-05-02") + np.arange(dates) * 10
    scl = np.full((dates, *size), 4, dtype=np.uint8)
    return Scene((base * spread).astype(np.uint16), days, scl, bands)


def make_radar(linear: NDArray[np.generic] | None = None, dates: int = 4) -> Scene:
    """Sentinel-1 linear power: VV near 0.1, VH near 0.03."""
    if linear is None:
        rng = np.random.default_rng(1)
        base = np.array([0.1, 0.03])[None, :, None, None]
        linear = (base * rng.uniform(0.5, 1.5, (dates, 2, 9, 7))).astype(np.float32)
    scene = make_scene(len(linear))
    return replace(scene, pixels=linear, bands=("VV", "VH"))


def coordinates(scene: Scene, *, y_up: bool = False) -> tuple[NDArray[np.float64], ...]:
    height, width = scene.pixels.shape[2:]
    y = scene.top - (np.arange(height) + 0.5) * 10
    return (y[::-1] if y_up else y), scene.left + (np.arange(width) + 0.5) * 10


def plain(scene: Scene, *, y_up: bool = False, scl: bool = True, wkt: str = WKT) -> xr.Dataset:
    """One variable a band, datetime64, `spatial_ref`: what xarray and rioxarray users write."""
    y, x = coordinates(scene, y_up=y_up)
    flip = slice(None, None, -1 if y_up else 1)
    link = {"grid_mapping": "spatial_ref"}
    layers = {b: (("time", "y", "x"), scene.band(b)[:, flip], link) for b in scene.bands}
    if scl:
        layers["SCL"] = (("time", "y", "x"), scene.scl[:, flip], link)
    mapping = ((), np.int32(0), {"crs_wkt": wkt, "spatial_ref": wkt} if wkt else {})
    coords = {"time": scene.days.astype("datetime64[ns]"), "y": y, "x": x, "spatial_ref": mapping}
    return xr.Dataset(layers, coords=coords, attrs=dict(scene.attrs))


def odc(scene: Scene) -> xr.Dataset:
    """odc-stac: asset names, nodata attribute 0, GeoTransform."""
    names = dict(
        zip(BANDS, ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08",
                    "swir16", "swir22"), strict=True)
    )  # fmt: skip
    dataset = plain(scene).rename({band: names[band] for band in scene.bands} | {"SCL": "scl"})
    for name in dataset.data_vars:
        dataset[name].attrs |= {"nodata": 0, "units": "1"}
    dataset["spatial_ref"].attrs["GeoTransform"] = f"{scene.left} 10 0 {scene.top} 0 -10"
    return dataset


def openeo(scene: Scene) -> xr.Dataset:
    """openEO: dims t, y, x; prefixed names; uint16 inside int16; a char variable `crs`."""
    y, x = coordinates(scene)
    link = {"_Unsigned": "true", "grid_mapping": "crs"}
    layers = {
        f"S2-L2A-{b}": (("t", "y", "x"), scene.band(b).astype(np.uint16).view(np.int16), link)
        for b in scene.bands
    }
    layers["S2-L2A-SCL"] = (("t", "y", "x"), scene.scl.astype(np.int16), link)
    days = (scene.days - np.datetime64("1990-01-01")).astype(np.int32)
    layers["crs"] = ((), np.array(b"", dtype="S1"), {"crs_wkt": WKT, "spatial_ref": WKT})
    time = ("t", days, {"units": "days since 1990-01-01", "standard_name": "t"})
    return xr.Dataset(layers, coords={"t": time, "y": y, "x": x})


def stackstac(scene: Scene) -> xr.Dataset:
    """stackstac: one float64 variable with a band dimension; x and y are top-left corners."""
    y, x = coordinates(scene)
    bands = np.array([*scene.bands, "SCL"])
    cube = np.concatenate([scene.pixels, scene.scl[:, None]], axis=1).astype(np.float64)
    attrs = {
        "crs": f"epsg:{EPSG}",
        "resolution": 10.0,
        "transform": f"| 10.00, 0.00, {scene.left:.2f}|\n| 0.00,-10.00, {scene.top:.2f}|",
    }
    coords = {
        "time": scene.days.astype("datetime64[ns]"),
        "band": bands,
        "y": y + 5,
        "x": x - 5,
        "epsg": EPSG,
    }
    array = xr.DataArray(cube, coords, ("time", "band", "y", "x"), "stackstac-1a2b", attrs)
    return array.to_dataset()


def unnamed_array(scene: Scene) -> xr.Dataset:
    """An unnamed DataArray with the band dimension first, saved with to_netcdf."""
    cube = plain(scene).drop_vars("SCL").to_dataarray("band")
    cube.attrs["grid_mapping"] = "spatial_ref"
    return cube.to_dataset(name="__xarray_dataarray_variable__")


def save(
    dataset: xr.Dataset, path: Path, encoding: dict[str, dict[str, object]] | None = None
) -> Path:
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding or {})
    return path


def save_classic(dataset: xr.Dataset, path: Path) -> Path:
    """netCDF-3 has no unsigned 16-bit numbers: int32 is what people use."""
    for name in dataset.data_vars:
        dataset[name] = dataset[name].astype(np.int32).assign_attrs(dataset[name].attrs)
    dataset.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")
    return path


def save_zarr(
    dataset: xr.Dataset, path: Path, version: int, chunk: tuple[int, ...] = (2, 5, 7)
) -> Path:
    encoding = {name: {"chunks": chunk} for name in dataset.data_vars}
    dataset.to_zarr(path, zarr_format=version, consolidated=version == 2, encoding=encoding)
    return path
