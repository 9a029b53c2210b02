"""Files of a published layout: found, read and checked, or an error that says what is missing."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from omnisat_cli.errors import SourceError
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_JSON_LIMIT = 2**28
_NO_ARRAYS = (OSError, ValueError, TypeError, AttributeError, EOFError, BadZipFile, zlib.error)
"""What numpy raises for bytes that are no set of arrays; a single array has no names."""


def need(path: Path, layout: str) -> Path:
    """Return a path that must exist.

    Args:
        path: File or folder.
        layout: The layout it belongs to, in words.

    Raises:
        SourceError: If it is missing.
    """
    if not path.exists():
        raise SourceError(f"{path} is missing; expected {layout}")
    return path


def first_of(paths: Iterable[Path], layout: str) -> Path:
    """Return the first path that exists, where a dataset has been published in several places.

    Raises:
        SourceError: If none exists.
    """
    tried = list(paths)
    found = next((path for path in tried if path.exists()), None)
    if found is None:
        raise SourceError(f"none of {', '.join(map(str, tried))} is there; expected {layout}")
    return found


def read_npy(path: Path, shape: tuple[int | None, ...], kinds: str) -> NDArray[np.generic]:
    """Map an array file into memory; nothing is read before it is used.

    Args:
        path: A `.npy` file.
        shape: What its shape must be; None = any size.
        kinds: What `dtype.kind` may be.

    Raises:
        SourceError: If it is missing, damaged, holds objects, or has another shape or type.
    """
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{path} is damaged, cut short or no array: {error}") from error
    _check(array, str(path), shape, kinds)
    return array


def read_npz(
    path: Path,
    names: Iterable[str],
    kinds: str,
    shape: tuple[int | None, ...] = (None, None),
) -> dict[str, NDArray[np.generic]]:
    """Read those of some named arrays that a file has.

    Args:
        path: A `.npz` file.
        names: Wanted arrays.
        kinds: What `dtype.kind` may be.
        shape: What their shape must be; None = any size.

    Raises:
        SourceError: If it is missing, damaged, holds objects, or arrays of another shape or type.
    """
    try:
        # The stream is opened here: numpy leaves a file that it cannot read open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names if name in stored.files}
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except _NO_ARRAYS as error:
        raise SourceError(f"{path} is damaged, cut short or no set of arrays: {error}") from error
    for name, array in arrays.items():
        _check(array, f"{path}: {name}", shape, kinds)
        if not array.size:
            raise SourceError(f"{path}: {name} holds nothing")
    return arrays


def _check(
    array: NDArray[np.generic], where: str, shape: tuple[int | None, ...], kinds: str
) -> None:
    """Check the shape and the type of an array; None = any size.

    Raises:
        SourceError: If it is something else.
    """
    same = len(shape) == array.ndim and all(
        want in (None, size) for want, size in zip(shape, array.shape, strict=True)
    )
    if not same or array.dtype.kind not in kinds:
        wanted = " × ".join("n" if size is None else str(size) for size in shape)
        raise SourceError(
            f"{where} is {' × '.join(map(str, array.shape)) or 'one number'} of {array.dtype}, "
            f"expected {wanted} of kind {' or '.join(kinds)}"
        )


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        SourceError: If it is missing, too large or no JSON.
    """
    try:
        size = path.stat().st_size
        if size > _JSON_LIMIT:
            raise SourceError(f"{path} has {size} bytes; such a file has at most {_JSON_LIMIT}")
        content: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} is damaged or no JSON: {error}") from error
    return content


def read_lines(path: Path) -> tuple[str, ...]:
    """Read the lines of a text file that are not empty.

    Raises:
        SourceError: If it is missing or no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read as text: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def read_raster(
    path: Path,
    count: int | None,
    dtypes: tuple[str, ...],
    shape: tuple[int, int] | None,
    area: tuple[slice, slice] | None = None,
) -> NDArray[np.generic]:
    """Read all bands of an image; no band is taken for transparency.

    Args:
        path: A GeoTIFF.
        count: Number of bands it must have; None = any.
        dtypes: What its samples may be.
        shape: Rows and columns it must have; None = any.
        area: Rows and columns to read; None = all.

    Raises:
        SourceError: If it is missing, damaged, or not as described.
    """
    from rasterio.errors import RasterioIOError
    from rasterio.windows import Window

    with open_raster(path) as image:
        fits = (
            count in (None, image.count)
            and set(image.dtypes) <= set(dtypes)
            and shape in (None, image.shape)
        )
        if not fits:
            wanted = "any size" if shape is None else f"{shape[0]} × {shape[1]} px"
            raise SourceError(
                f"{path} has {image.count} band(s) of {image.dtypes[0]}, {image.height} × "
                f"{image.width} px; expected {count or 'any number'} of {' or '.join(dtypes)}, "
                f"{wanted}"
            )
        try:
            window = None if area is None else Window.from_slices(*area)
            pixels: NDArray[np.generic] = image.read(window=window)
        except RasterioIOError as error:
            raise SourceError(f"{path} is damaged or cut short: {error}") from error
    return pixels


def read_png(path: Path, mode: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a picture of 8 bits; its fourth plane is no transparency.

    Args:
        path: A PNG.
        mode: "L" for one plane, "RGBA" for four.
        shape: Rows and columns it must have.

    Returns:
        (H, W) or (4, H, W).

    Raises:
        SourceError: If it is missing, damaged, or not as described.
    """
    from PIL import Image as Picture

    try:
        with Picture.open(path, formats=("PNG",)) as picture:
            if picture.mode != mode or picture.size != shape[::-1]:
                raise SourceError(
                    f"{path} is {picture.height} × {picture.width} px of {picture.mode}, expected "
                    f"{shape[0]} × {shape[1]} px of {mode}"
                )
            pixels = np.asarray(picture, dtype=np.uint8)
    except FileNotFoundError:
        raise SourceError(f"{path} is missing") from None
    except (OSError, ValueError, SyntaxError, Picture.DecompressionBombError) as error:
        raise SourceError(f"{path} is damaged, cut short or no PNG: {error}") from error
    return pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def parse_days(texts: Iterable[object], where: Path) -> NDArray[np.datetime64]:
    """Read dates written as YYYYMMDD, text or number.

    Raises:
        SourceError: If one is no date.
    """
    days = []
    for text in texts:
        digits = str(text)
        try:
            if len(digits) != 8 or not digits.isdecimal():
                raise ValueError("not eight digits")
            days.append(np.datetime64(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}", "D"))
        except ValueError as error:
            raise SourceError(f"{where}: {text!r} is no date YYYYMMDD ({error})") from error
    return np.array(days, dtype="datetime64[D]")


def number_groups(names: Iterable[str]) -> NDArray[np.int64]:
    """Number groups by name: equal names get equal numbers, in order of appearance."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
