"""The columns that a class map adds to a parcel of the user."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnisat_cli.outputs.parcels.writer import Layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.outputs.parcels.declared import Declared
    from omnisat_cli.outputs.parcels.names import ParcelClass
    from omnisat_cli.outputs.zonal import Zonal
    from omnisat_cli.sources.polygons import PolygonFile

    Floats = NDArray[np.float64]

_MEASURES: Final = {"confidence": "conf", "validity": "valid"}
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")
_TIE: Final = 6
"""Decimals of a pixel: classes whose ground differs by less are equal, and the lower code wins."""

_LEAST_PIXELS: Final = 1e-6
_FULL: Final = 100.0
_Z: Final = 1.96
"""Standard deviations of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """What is said of every parcel of a run.

    Attributes:
        classes: The classes the map holds, by code.
        declared: What the declarations mean, if they are compared.
        measures: Rasters beside the map.
        names: Name of each column of ours, and what it is called in the file.
        layer: What the file is.
    """

    classes: tuple[ParcelClass, ...]
    declared: Declared | None
    measures: tuple[str, ...]
    names: dict[str, str]
    layer: Layer

    @staticmethod
    def of(
        classes: tuple[ParcelClass, ...],
        declared: Declared | None,
        measures: Iterable[str],
        source: PolygonFile,
    ) -> Scheme:
        """Choose the columns so that none of the input is hidden."""
        measures = tuple(measures)
        ours = [
            *("pred_code", "pred_name", "pred_share"),
            *(f"{_MEASURES[name]}_{kind}" for name in measures for kind in ("mean", "std")),
            *("n_px", "mapped"),
            *(("agrees", "decl_share") if declared else ()),
            *_share_names(classes),
        ]
        taken = {name.casefold() for name in (*source.columns, source.geometry)}
        fid = source.fid or _free("fid", taken)
        taken.add(fid.casefold())
        shape = _free("geom", {name.casefold() for name in source.columns} | {fid.casefold()})
        taken.add(shape.casefold())
        names = {}
        for name in ours:
            names[name] = _free(name, taken)
            taken.add(names[name].casefold())
        layer = Layer(
            geometry=source.geometry_type or "Unknown",
            style=names["pred_code"],
            shape=shape,
            fid=fid,
        )
        return Scheme(classes, declared, measures, names, layer)

    @property
    def codes(self) -> NDArray[np.int64]:
        """(K,) codes of the classes."""
        return np.array([entry.code for entry in self.classes], np.int64)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the map says of a batch of parcels.

    Attributes:
        scheme: The columns.
        place: (N,) place of the predicted class in the scheme, -1 = none.
        columns: The columns of ours by their own names.
        agrees: (N,) "yes", "no" or None, where declarations are compared.
    """

    scheme: Scheme
    place: NDArray[np.int64]
    columns: dict[str, pa.Array]
    agrees: NDArray[np.object_] | None

    @staticmethod
    def of(
        scheme: Scheme, zonal: Zonal, area: Floats, keys: NDArray[np.object_] | None
    ) -> Predicted:
        """Turn sums into columns.

        Args:
            scheme: The columns.
            zonal: What the parcels hold.
            area: (N,) pixels of each polygon, NaN where there is none.
            keys: (N,) declarations, by `key_of`; None where they are not compared.
        """
        pixels = zonal.pixels.sum(axis=1)
        none = ~(pixels > _LEAST_PIXELS)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(none[:, None], np.nan, zonal.pixels / pixels[:, None])
            mapped = np.minimum(pixels / area, 1)
        place = _largest(zonal.pixels, none)
        best = np.take_along_axis(
            np.column_stack([shares, np.full(len(place), np.nan)]), place[:, None], axis=1
        )[:, 0]
        columns = {
            "pred_code": pa.array(np.append(scheme.codes, 0)[place], pa.int32(), mask=none),
            "pred_name": _texts([entry.name for entry in scheme.classes], place),
            "pred_share": _numbers(best, 4),
        }
        for name, sums in zonal.measures.items():
            columns[f"{_MEASURES[name]}_mean"] = _numbers(sums.mean(), 3)
            columns[f"{_MEASURES[name]}_std"] = _numbers(sums.std(), 3)
        columns["n_px"] = pa.array(np.round(pixels, 2))
        columns["mapped"] = _numbers(mapped, 4)
        agrees = None
        if keys is not None and scheme.declared is not None:
            agrees, share = _agreement(scheme, scheme.declared, keys, (place, shares))
            columns["agrees"] = pa.array(agrees, pa.string())
            columns["decl_share"] = _numbers(share, 4)
        for name, share in zip(_share_names(scheme.classes), shares.T, strict=True):
            columns[name] = _numbers(share, 4)
        return Predicted(scheme, place, columns, agrees)

    def beside(self, table: pa.Table) -> pa.Table:
        """Return the columns of the user, then ours."""
        for name, column in self.columns.items():
            table = table.append_column(self.scheme.names[name], column)
        return table

    def suspects(self, table: pa.Table, geometry: str) -> pa.Table:
        """Return the rows that disagree, with a score: how sure the map is of another class.

        The score, 0 to 100, is the mean confidence times the least share of the predicted class
        that the pixels of the parcel warrant (Wilson, 95 %): a parcel of few pixels proves little.

        Args:
            table: From `beside`.
            geometry: Column that a list has no use for.
        """
        share, pixels = (self._numbers(name) for name in ("pred_share", "n_px"))
        sure = self._numbers("conf_mean") if "conf_mean" in self.columns else _FULL
        score = _numbers(sure * _least_share(share, pixels), 2)
        shares = {self.scheme.names[name] for name in _share_names(self.scheme.classes)}
        table = table.drop_columns([geometry, *shares])
        free = _free("score", {name.casefold() for name in table.column_names})
        table = table.append_column(free, score)
        return table.filter(pc.equal(self.columns["agrees"], "no"))

    def _numbers(self, name: str) -> Floats:
        """Return a column of ours as (N,) numbers, NaN for none."""
        found: Floats = self.columns[name].to_numpy(zero_copy_only=False).astype(np.float64)
        return found


def _least_share(share: Floats, pixels: Floats) -> Floats:
    """Return the lower end of the Wilson interval of a share.

    Args:
        share: (N,) share that was found.
        pixels: (N,) pixels it was found in.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = _Z * np.sqrt(share * (1 - share) / pixels + (_Z / (2 * pixels)) ** 2)
        least = (share + _Z**2 / (2 * pixels) - spread) / (1 + _Z**2 / pixels)
    return np.where(pixels > 0, np.maximum(least, 0), 0)


def _largest(pixels: Floats, none: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the place of the class with most pixels, -1 where there is none."""
    if not pixels.shape[1]:
        return np.full(len(pixels), -1, np.int64)
    place: NDArray[np.int64] = np.argmax(np.round(pixels, _TIE), axis=1)
    place[none] = -1
    return place


def _agreement(
    scheme: Scheme,
    declared: Declared,
    keys: NDArray[np.object_],
    found: tuple[NDArray[np.int64], Floats],
) -> tuple[NDArray[np.object_], Floats]:
    """Compare prediction and declaration.

    Returns:
        (N,) "yes", "no", or None where either is missing, and (N,) share of the declared classes.
    """
    place, shares = found
    known = list(declared.meaning)
    row = {key: number for number, key in enumerate(known)}
    fits = np.zeros((len(known) + 1, len(scheme.classes) + 1), bool)
    for key in known:
        fits[row[key], :-1] = np.isin(scheme.codes, list(declared.meaning[key]))
    said = np.array([row.get(key, -1) for key in keys], np.int64)
    judged = (said >= 0) & (place >= 0)
    agrees = np.where(fits[said, place], "yes", "no").astype(object)
    agrees[~judged] = None
    share = np.where(fits[said, :-1], shares, 0).sum(axis=1)
    return agrees, np.where(judged, share, np.nan)


def _share_names(classes: Sequence[ParcelClass]) -> list[str]:
    """Return a column name a class, in letters every program takes."""
    names: list[str] = []
    for entry in classes:
        plain = unicodedata.normalize("NFKD", entry.name.casefold()).encode("ascii", "ignore")
        slug = _NO_WORD.sub("_", plain.decode()).strip("_")
        names.append(_free(f"share_{slug or entry.code}", set(names)))
    return names


def _free(name: str, taken: set[str]) -> str:
    """Return the name, with a number where it is taken."""
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _numbers(values: Floats, decimals: int) -> pa.Array:
    return pa.array(np.round(values, decimals), mask=np.isnan(values))


def _texts(names: Sequence[str], place: NDArray[np.int64]) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(place, mask=place < 0))
