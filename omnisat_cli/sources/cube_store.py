"""Open a cube's container (netCDF-4, classic netCDF, Zarr) safely and read raw hyperslabs."""

from __future__ import annotations

import os
import threading
import warnings
import zlib
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import h5py
import numpy as np
import xarray as xr

from omnisat_cli.errors import SecurityError, SourceError
from omnisat_cli.sources.cube_zarr import check_metadata, check_sides, is_zarr

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

StoreKind = Literal["netCDF-4", "netCDF-3", "Zarr"]

# The HDF5 library is not thread-safe: two threads gain nothing and may crash.
_HDF5_LOCK = threading.RLock()
# What the libraries raise for damaged bytes; each codec has its own word for it.
_DAMAGE = (OSError, RuntimeError, ValueError, EOFError, zlib.error)
_MAX_STEPS = 20_000


def recognise_store(path: Path) -> StoreKind:
    """Tell the container from its first bytes, never from its name.

    Raises:
        SourceError: If it is missing or is no cube container.
    """
    if path.is_dir():
        if is_zarr(path):
            return "Zarr"
        raise SourceError(f"{path} is a folder without Zarr metadata (.zgroup or zarr.json)")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    if head == b"\x89HDF\r\n\x1a\n":
        return "netCDF-4"
    if head[:4] in (b"CDF\x01", b"CDF\x02"):
        return "netCDF-3"
    raise SourceError(f"{path} is not a cube: {_guess(head)}; pass netCDF-4, netCDF-3 or Zarr")


def _guess(head: bytes) -> str:
    if head[:4] == b"CDF\x05":
        return "it is netCDF-3 with 64-bit data (CDF-5); convert it with nccopy -4"
    if head[:2] == b"PK":
        return "it is a zip archive; unpack it first"
    if head[:2] in (b"II", b"MM"):
        return "it is a TIFF image"
    return f"it starts with {head!r}" if head else "it is empty"


class CubeStore:
    """One container, opened lazily, once per process; pickles as its path and group."""

    def __init__(self, path: Path, group: str = "") -> None:
        self.path = path
        self.group = group
        self.kind: StoreKind = recognise_store(path)
        self._dataset: xr.Dataset | None = None
        self._pid = -1

    def __reduce__(self) -> tuple[type[CubeStore], tuple[Path, str]]:
        return CubeStore, (self.path, self.group)

    @property
    def _lock(self) -> AbstractContextManager[object]:
        return nullcontext() if self.kind == "Zarr" else _HDF5_LOCK

    def dataset(self) -> xr.Dataset:
        """Return the variables exactly as stored: no masking, scaling or time decoding.

        Raises:
            SourceError: If the container is damaged.
            SecurityError: If it reaches outside of itself.
        """
        with _HDF5_LOCK:
            if self._dataset is None or self._pid != os.getpid():
                self._dataset, self._pid = self._open(), os.getpid()
            return self._dataset

    def close(self) -> None:
        """Let the file go; the next read opens it again."""
        with _HDF5_LOCK:
            if self._dataset is not None and self._pid == os.getpid():
                self._dataset.close()
            self._dataset = None

    def read(
        self, variable: str, picks: Mapping[str, slice | NDArray[np.intp]]
    ) -> NDArray[np.generic]:
        """Read one hyperslab of a variable, raw; one retry, then the error.

        Raises:
            SourceError: If the bytes cannot be read or decoded twice.
        """
        try:
            return self._read_once(variable, picks)
        except _DAMAGE:
            self.close()
        try:
            return self._read_once(variable, picks)
        except _DAMAGE as error:
            where = ", ".join(f"{dim} {_show(pick)}" for dim, pick in picks.items())
            raise SourceError(
                f"{self.path}: {variable} cannot be read at {where}: {error}; the file is "
                "damaged: fetch it again, or pass --on-error hole to leave these dates out"
            ) from error

    def _read_once(
        self, variable: str, picks: Mapping[str, slice | NDArray[np.intp]]
    ) -> NDArray[np.generic]:
        with self._lock:
            return np.asarray(self.dataset()[variable].isel(dict(picks)).values)

    def _open(self) -> xr.Dataset:
        if self.kind == "netCDF-4":
            _refuse_outside_links(self.path)
        if self.kind == "Zarr":
            check_metadata(self.path)
        engine = {"netCDF-4": "h5netcdf", "netCDF-3": "scipy", "Zarr": "zarr"}[self.kind]
        more: dict[str, bool | str] = {"group": self.group} if self.group else {}
        if self.kind == "Zarr":
            more["consolidated"] = (self.path / ".zmetadata").is_file() and not self.group
        try:
            with warnings.catch_warnings():
                # Text coordinates in Zarr v3 read well; that others may not is the writer's affair.
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", message="The 'phony_dims'")
                dataset = xr.open_dataset(
                    self.path,
                    engine=engine,
                    chunks=None,
                    cache=False,
                    mask_and_scale=False,
                    decode_times=False,
                    decode_timedelta=False,
                    decode_coords=False,
                    backend_kwargs=more,
                )
                # Axes and labels are small and needed at once; damage in them must show here.
                for name in [n for n, entry in dataset.variables.items() if entry.ndim < 2]:
                    dataset[name].load()
        except UserWarning as error:
            raise SourceError(
                f"{self.path} is plain HDF5, not a netCDF: its arrays name no dimensions; "
                "convert it to netCDF (TreeSatAI: omnisat_cli.sources.treesatai)"
            ) from error
        except (*_DAMAGE, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                f"{self.path} is {self.kind} by its first bytes but cannot be opened: {error}; "
                "it is truncated or damaged: fetch it again"
            ) from error
        return _within_limits(dataset, self.path)


def _show(pick: slice | NDArray[np.intp]) -> str:
    return f"{pick.start}–{pick.stop}" if isinstance(pick, slice) else str(pick.tolist())


def _within_limits(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    for dim, size in dataset.sizes.items():
        if size > _MAX_STEPS and str(dim).lower() in ("t", "time", "date", "dates"):
            raise SecurityError(
                f"{path} claims {size} dates (at most {_MAX_STEPS} are read); "
                "a file of this length is a mistake or an attack"
            )
    return dataset


def _refuse_outside_links(path: Path) -> None:
    """Refuse HDF5 that takes its pixels from other files: it could show any file as pixels."""
    try:
        with _HDF5_LOCK, h5py.File(path, "r") as file:
            names: list[str] = []
            file.visit_links(names.append)
            for name in names:
                _check_link(file, name, path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise SourceError(
            f"{path} is HDF5 by its first bytes but cannot be opened: {error}; "
            "it is truncated or damaged: fetch it again"
        ) from error


def _check_link(file: h5py.File, name: str, path: Path) -> None:
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise SecurityError(f"{path}: {name!r} links to another file ({link.filename})")
    found = file.get(name) if isinstance(link, h5py.HardLink) else None
    if isinstance(found, h5py.Dataset):
        if found.external or found.is_virtual:
            raise SecurityError(f"{path}: {name!r} takes its values from other files")
        check_sides(found.shape or (), f"{path}: {name!r}")
