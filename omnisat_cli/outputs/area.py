"""How many hectares of each class a map holds."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from omnisat_cli.outputs.mosaic import histogram
from omnisat_cli.outputs.sidecars import csv_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from omnisat_cli.outputs.legend import Legend

_SQUARE_METRES = 10_000


@dataclass(frozen=True, slots=True)
class ClassArea:
    """Ground of one class.

    Attributes:
        code: Value in the map.
        name_en: English name.
        name_fr: French name.
        pixels: Pixels of the class.
        hectares: The same on the ground of the CRS.
        share: Part of the pixels that have a class, 0 to 1.
    """

    code: int
    name_en: str
    name_fr: str
    pixels: int
    hectares: float
    share: float


def area_table(path: Path, legend: Legend) -> tuple[ClassArea, ...]:
    """Measure a class map, streaming.

    Args:
        path: The map.
        legend: What its codes mean.

    Returns:
        One row a class of the legend, in the order of the codes.
    """
    return class_areas(histogram(path), legend, pixel_hectares(path))


def class_areas(
    counts: NDArray[np.int64], legend: Legend, hectares: float
) -> tuple[ClassArea, ...]:
    """Return the table for known counts.

    Args:
        counts: (256,) pixels of each value.
        legend: What the values mean.
        hectares: Ground of one pixel.
    """
    total = max(1, sum(int(counts[code]) for code in legend.codes))
    return tuple(
        ClassArea(
            code=code,
            name_en=entry.name_en,
            name_fr=entry.name_fr,
            pixels=int(counts[code]),
            hectares=round(int(counts[code]) * hectares, 6),
            share=round(int(counts[code]) / total, 6),
        )
        for code, entry in legend.by_code().items()
    )


def pixel_hectares(path: Path) -> float:
    """Return the ground of one pixel of a raster, in hectares."""
    from omnisat_cli.sources.safe import open_raster

    with open_raster(path) as dataset:
        width, height = dataset.res
        metres = dataset.crs.linear_units_factor[1] if dataset.crs else 1.0
        return float(width * height * metres**2 / _SQUARE_METRES)


def area_csv(rows: Sequence[ClassArea]) -> bytes:
    """Return the table as a CSV file."""
    return csv_table([entry.name for entry in fields(ClassArea)], [astuple(row) for row in rows])
