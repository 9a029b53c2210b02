"""The classes of the simulated world, and the kinds of ground they are made of."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from omnisat_cli.outputs.legend import Legend, load_legend

LEGEND_FILE = Path(__file__).with_name("omnisat-sim.json")


def sim_legend() -> Legend:
    """Read the legend of the simulated world."""
    return load_legend(LEGEND_FILE)


class Cover(IntEnum):
    """Kinds of ground: finer than the classes where the spectra differ."""

    TILE_ROOF = 0
    SLATE_ROOF = 1
    METAL_ROOF = 2
    ASPHALT = 3
    GRAVEL = 4
    WATER = 5
    DECIDUOUS = 6
    CONIFER = 7
    LAWN = 8
    MEADOW = 9
    WHEAT = 10
    BARLEY = 11
    RAPESEED = 12
    MAIZE = 13
    SUNFLOWER = 14
    BEET = 15
    VINE = 16
    ORCHARD = 17


CLASS_OF_COVER = (0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13, 14)
"""Class code of each `Cover`."""

ROOFS = (Cover.TILE_ROOF, Cover.SLATE_ROOF, Cover.METAL_ROOF)
ANNUAL_CROPS = (
    Cover.WHEAT,
    Cover.BARLEY,
    Cover.RAPESEED,
    Cover.MAIZE,
    Cover.SUNFLOWER,
    Cover.BEET,
)
WINTER_CROPS = (Cover.WHEAT, Cover.BARLEY, Cover.RAPESEED)
