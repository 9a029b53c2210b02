"""The rasters of a run. To add one, add a line to the table."""

from __future__ import annotations

import colorsys
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from omnisat_cli.errors import JobError
from omnisat_cli.outputs.prediction import Hole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omnisat_cli.outputs.legend import RGB, Legend
    from omnisat_cli.outputs.run import RunFacts

Overviews = Literal["MODE", "NEAREST", "AVERAGE"]

_HOLE_COLORS: Mapping[Hole, RGB] = {
    Hole.FAULT: (215, 25, 28),
    Hole.CLOUDS: (230, 230, 230),
    Hole.NO_DATA: (120, 120, 120),
}
_GOLDEN = 0.618034
_NAME_LIMIT = 255
_LONGEST_ENDING = len(".probabilities.tiff.scratch.tif")
_OVERVIEWS = 4 / 3


@dataclass(frozen=True, slots=True)
class Product:
    """One kind of raster.

    Attributes:
        name: Part of the file name; "map" is the output itself.
        array: Field of `Prediction` it holds.
        overviews: How overviews are made: MODE and NEAREST invent no value.
        description: What a pixel says; description of the band where there is only one.
        density: Expected bytes a pixel and band after compression, for the space check.
    """

    name: str
    array: str
    overviews: Overviews
    description: str
    density: float

    def path(self, out: Path) -> Path:
        """Return the path of this product of the run whose class map is `out`."""
        if self.name == "map":
            return out
        return out.with_name(f"{out.stem}.{self.name}{out.suffix}")


PRODUCTS = (
    Product("map", "classes", "MODE", "class", 0.15),
    Product("confidence", "confidence", "AVERAGE", "confidence of the class, percent", 0.8),
    Product("validity", "validity", "AVERAGE", "clear observations used", 0.1),
    Product("presence", "presence", "NEAREST", "modalities used, or why there is no class", 0.05),
    Product("boundary", "boundary", "AVERAGE", "parcel boundary, 250 = certain", 0.8),
    Product("probabilities", "probabilities", "AVERAGE", "class probability, 250 = certain", 0.4),
)
OPTIONAL = ("boundary", "probabilities")


@dataclass(frozen=True, slots=True)
class Category:
    """A value of a raster with a name and a colour."""

    value: int
    name: str
    rgb: RGB


def products_of(facts: RunFacts) -> tuple[Product, ...]:
    """Return the products of a run, in the order of the table."""
    return tuple(p for p in PRODUCTS if p.array not in OPTIONAL or p.array in facts.arrays)


def band_count(product: Product, facts: RunFacts) -> int:
    """Return the number of bands of a product."""
    return facts.class_count if product.array == "probabilities" else 1


def class_categories(legend: Legend, language: str) -> tuple[Category, ...]:
    """Return the classes as categories, by ascending code."""
    classes = legend.by_code().values()
    return tuple(Category(c.code, c.name(language), c.rgb) for c in classes)


def presence_categories(
    modalities: tuple[str, ...], values: frozenset[int]
) -> tuple[Category, ...]:
    """Return a category for each combination of modalities or hole that occurs.

    Args:
        modalities: Modalities of the pack; bit i stands for the i-th.
        values: Values that occur in the presence raster.
    """
    found = []
    for value in sorted(values - {int(Hole.OUTSIDE)}):
        if value >= Hole.FAULT:
            hole = Hole(value)
            found.append(Category(value, f"no class: {hole.words}", _HOLE_COLORS[hole]))
        else:
            used = [name for i, name in enumerate(modalities) if value >> i & 1]
            found.append(Category(value, " + ".join(used), _spread(value)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class SpaceNeed:
    """Expected disk space of a run, in bytes.

    Attributes:
        blocks: Finished blocks.
        scratch: Largest file that exists only while a product is written.
        final: Files the user keeps.
    """

    blocks: int
    scratch: int
    final: int

    @property
    def total(self) -> int:
        """The most that is on the disk at one time."""
        return self.blocks + self.scratch + self.final


def space_need(facts: RunFacts) -> SpaceNeed:
    """Estimate the disk space of a run from its size and the usual compression."""
    pixels = facts.frame.height * facts.frame.width
    products = products_of(facts)
    compressed = sum(p.density * band_count(p, facts) for p in products)
    return SpaceNeed(
        blocks=int(pixels * compressed),
        scratch=pixels * max(band_count(p, facts) for p in products),
        final=int(pixels * compressed * _OVERVIEWS) + 2**18,
    )


def check_output(out: Path) -> None:
    """Check that a path can be that of a class map.

    Raises:
        JobError: If it does not end in .tif or .tiff, is a folder, or is too long.
    """
    if out.suffix.lower() not in {".tif", ".tiff"}:
        raise JobError(f"the map is a GeoTIFF: {out} must end in .tif")
    if out.is_dir():
        raise JobError(f"{out} is a folder; give the path of the map, e.g. {out / 'map.tif'}")

    longest = len(os.fsencode(out.stem)) + _LONGEST_ENDING
    if longest > _NAME_LIMIT:
        raise JobError(
            f"the name {out.name[:40]}… leaves no room for those of the files beside the map: "
            f"shorten it by {longest - _NAME_LIMIT} bytes"
        )


def display_name(out: Path) -> str:
    """Return the name of the map for pictures and styles: what cannot be printed becomes "?"."""
    return "".join(c if c.isprintable() else "?" for c in out.stem)


def existing_outputs(out: Path) -> tuple[Path, ...]:
    """Return the products of an earlier run that a run towards `out` would replace."""
    return tuple(p.path(out) for p in PRODUCTS if p.path(out).exists())


def _spread(value: int) -> RGB:
    """Return a colour far from those of neighbouring values."""
    red, green, blue = colorsys.hsv_to_rgb(value * _GOLDEN % 1, 0.55, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)
