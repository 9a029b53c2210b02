"""How covers change through the year: leaf area, dry matter, flowers, straw.

Days count from 1 January of the scene's year; sowing of winter crops lies before it. Green leaf
area follows a double logistic (Beck et al. 2006, Remote Sens. Environ. 100, 321). The calendar is
that of northern and central France and Belgium: sowing and harvest as the national statistics
(Agreste) give them; timing and height of the leaf area and NDVI curves after Veloso et al. 2017
(RSE 199, 415: wheat, rapeseed, maize, sunflower, barley in south-west France, about two weeks
earlier than here), Defourny et al. 2019 (RSE 221, 551: Sen2-Agri) and Vreugdenhil et al. 2018
(Remote Sensing 10, 1396: rapeseed, maize, cereals); flowering of rapeseed after d'Andrimont et al.
2020 (RSE 239, 111660). Barley ripens two to three weeks before wheat. Deciduous leaf-on and leaf-
off after phenological gardens (late April, end of October). Spread between fields: sowing differs
by one to three weeks between farms, maturity by about one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from omnisat_cli.learning.simulate.fields import normal_at, uniform_at
from omnisat_cli.learning.simulate.legend import ANNUAL_CROPS, WINTER_CROPS, Cover

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.landscape import Landscape


@dataclass(frozen=True, slots=True)
class Season:
    """Mean calendar of an annual crop, in days; rates are 1/day.

    Attributes:
        emerge: Emergence.
        winter_lai: Leaf area through the winter.
        rise: Middle of the main growth.
        rise_rate: Steepness of the growth.
        lai: Peak leaf area index.
        fall: Middle of the senescence.
        fall_rate: Steepness of the senescence.
        harvest: Harvest.
        spread: Standard deviation of fields' growth, senescence and harvest days.
        flower: Middle, width (standard deviation) and strength of flowering.
    """

    emerge: float
    winter_lai: float
    rise: float
    rise_rate: float
    lai: float
    fall: float
    fall_rate: float
    harvest: float
    spread: tuple[float, float, float]
    flower: tuple[float, float, float] = (0.0, 1.0, 0.0)


SEASONS: dict[Cover, Season] = {
    Cover.WHEAT: Season(-58, 0.55, 88, 0.075, 5.0, 176, 0.15, 205, (6, 4, 6)),
    Cover.BARLEY: Season(-68, 0.75, 82, 0.080, 4.6, 158, 0.16, 185, (6, 4, 5)),
    Cover.RAPESEED: Season(
        -115, 1.3, 76, 0.080, 4.5, 166, 0.13, 193, (6, 5, 5), flower=(109, 8.5, 0.75)
    ),
    Cover.MAIZE: Season(132, 0.0, 171, 0.110, 4.7, 259, 0.080, 274, (8, 7, 10)),
    Cover.SUNFLOWER: Season(
        122, 0.0, 163, 0.110, 3.3, 231, 0.090, 256, (8, 6, 7), flower=(196, 7.0, 0.22)
    ),
    Cover.BEET: Season(106, 0.0, 156, 0.085, 4.6, 318, 0.030, 292, (7, 10, 17)),
}


@dataclass(frozen=True, slots=True)
class Calendar:
    """Days and sizes of N surfaces; all (N,). Covers that are no annual crop hold neutral values.

    Attributes:
        emerge, rise, fall, harvest: As in `Season`, of this field.
        rise_rate, fall_rate: As in `Season`.
        till: Day the stubble is worked in.
        winter_lai, lai: Leaf areas.
        flower_day, flower_width, flower: Flowering.
        cover_crop: Peak leaf area of a catch crop or of volunteers after the harvest.
        before: Leaf area that stands on the field before a spring crop.
        before_end: Day it is destroyed.
        straw: Share of ground that straw covers after the harvest.
    """

    emerge: NDArray[np.float64]
    rise: NDArray[np.float64]
    fall: NDArray[np.float64]
    harvest: NDArray[np.float64]
    rise_rate: NDArray[np.float64]
    fall_rate: NDArray[np.float64]
    till: NDArray[np.float64]
    winter_lai: NDArray[np.float64]
    lai: NDArray[np.float64]
    flower_day: NDArray[np.float64]
    flower_width: NDArray[np.float64]
    flower: NDArray[np.float64]
    cover_crop: NDArray[np.float64]
    before: NDArray[np.float64]
    before_end: NDArray[np.float64]
    straw: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Canopy:
    """State of N surfaces on T days; all (N, T).

    Attributes:
        green: Green leaf area index.
        dry: Leaf area index of standing dead matter.
        flower: Share of the canopy's top that is in flower.
        straw: Share of the ground under straw or dead grass.
    """

    green: NDArray[np.float64]
    dry: NDArray[np.float64]
    flower: NDArray[np.float64]
    straw: NDArray[np.float64]


def calendar(seed: int, land: Landscape) -> Calendar:
    """Draw the calendar of every field."""
    climate = np.random.default_rng([seed, 201]).normal(0.0, 4.0)  # early and late years
    count = len(land.cover)
    raw = np.zeros((14, count))
    raw[[0, 1, 2, 3]] = 500.0  # never
    raw[[4, 5, 9]] = [[0.1], [0.1], [1.0]]
    for cover, season in SEASONS.items():
        of = land.cover == cover
        raw[:, of] = np.array(
            [
                *(season.emerge, season.rise, season.fall, season.harvest),
                *(season.rise_rate, season.fall_rate, season.winter_lai, season.lai),
                *(season.flower[0], season.flower[1], season.flower[2], season.spread[0]),
                *season.spread[1:],
            ]
        )[:, None]
    late = normal_at(seed, 211, land.key) * raw[11] + climate
    ripe = 0.5 * late + normal_at(seed, 212, land.key) * raw[12]
    harvest = np.maximum(
        raw[3] + 0.4 * late + normal_at(seed, 213, land.key) * raw[13], raw[2] + ripe + 12
    )
    beet = land.cover == Cover.BEET  # harvested green
    harvest[beet] = raw[3][beet] + normal_at(seed, 213, land.key)[beet] * raw[13][beet]
    vigour = np.exp(0.17 * normal_at(seed, 214, land.key))
    winter = np.isin(land.cover, WINTER_CROPS)
    after = uniform_at(seed, 215, land.key)
    return Calendar(
        emerge=raw[0] + late,
        rise=raw[1] + late,
        fall=raw[2] + ripe,
        harvest=harvest,
        rise_rate=raw[4] * np.exp(0.1 * normal_at(seed, 216, land.key)),
        fall_rate=raw[5],
        till=harvest + 4 + 55 * uniform_at(seed, 217, land.key) ** 1.5,
        winter_lai=raw[6] * np.exp(0.3 * normal_at(seed, 218, land.key)),
        lai=raw[7] * vigour,
        flower_day=raw[8] + 0.7 * late + 2 * normal_at(seed, 219, land.key),
        flower_width=raw[9],
        flower=raw[10] * np.clip(1 + 0.2 * normal_at(seed, 220, land.key), 0.3, 1.3),
        cover_crop=np.where(winter, np.where(after < 0.45, 2.4, np.where(after < 0.75, 0.8, 0)), 0),
        before=np.where(~winter & (after < 0.5), 1.8 * uniform_at(seed, 221, land.key), 0.0),
        before_end=15.0 + _unit(seed, 222, land) * 65.0,
        straw=0.35 + _unit(seed, 223, land) * 0.5,
    )


def _unit(seed: int, salt: int, land: Landscape) -> NDArray[np.float64]:
    return uniform_at(seed, salt, land.key).astype(np.float64)


def canopy(seed: int, land: Landscape, dates: Calendar, days: NDArray[np.float64]) -> Canopy:
    """Return the state of every surface on every day."""
    shape = (len(land.cover), len(days))
    state = Canopy(*(np.zeros(shape) for _ in range(4)))
    crops = np.isin(land.cover, ANNUAL_CROPS)
    _fill(state, crops, _crops(land, dates, days, crops))
    key = land.key
    for cover, grow in _PERENNIALS.items():
        of = land.cover == cover
        if of.any():
            _fill(state, of, grow(seed, key[of], days))
    return state


def _fill(state: Canopy, of: NDArray[np.bool_], part: Canopy) -> None:
    state.green[of], state.dry[of] = part.green, part.dry
    state.flower[of], state.straw[of] = part.flower, part.straw


def _crops(
    land: Landscape, dates: Calendar, days: NDArray[np.float64], of: NDArray[np.bool_]
) -> Canopy:
    """Annual crops: what stood before, the crop, its stubble, what follows."""
    t = days[None, :]

    def column(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values[of][:, None]

    standing = expit((column(dates.harvest) - t) * 4.0)
    alive = expit((column(dates.fall) - t) * column(dates.fall_rate))
    grown = expit((t - column(dates.rise)) * column(dates.rise_rate))
    winter = column(dates.winter_lai)
    area = winter * expit((t - column(dates.emerge) - 18) / 7.0)
    sprouted = expit((t - column(dates.emerge)) / 3.0)
    area = area + (column(dates.lai) - winter) * grown * sprouted
    before = column(dates.before) * expit((column(dates.before_end) - t) / 4.0)
    since = t - column(dates.harvest)
    follow = column(dates.cover_crop) * expit((since - 52) / 8.0) * expit((345 - t) / 9.0)
    # the next winter cereal comes up in November where no catch crop stands
    sown = np.where(column(dates.cover_crop) < 1, 0.45, 0.0) * expit((t - 328) / 6.0) * (since > 20)
    worked = expit((t - column(dates.till)) / 2.0)
    stubble = column(dates.straw) * (since > 0) * (1 - 0.85 * worked)
    pulse = np.exp(-0.5 * ((t - column(dates.flower_day)) / column(dates.flower_width)) ** 2)
    harvested_green = (land.cover[of] == Cover.BEET)[:, None]
    return Canopy(
        green=area * alive * standing + before + (follow + sown) * (1 - standing),
        dry=np.where(harvested_green, 0.0, 0.62 * area * (1 - alive) * standing),
        flower=column(dates.flower) * pulse * standing,
        straw=np.clip(stubble, 0, 1),
    )


def _meadow(seed: int, key: NDArray[np.int64], days: NDArray[np.float64]) -> Canopy:
    """Grass: a spring peak, two cuts or grazing, a summer drought, regrowth in autumn."""
    t = days[None, :]
    base = (0.9 + 1.1 * uniform_at(seed, 231, key))[:, None]
    spring = (82 + 7 * normal_at(seed, 232, key))[:, None]
    peak = (2.6 * np.exp(0.2 * normal_at(seed, 233, key)))[:, None]
    drought = (0.75 * uniform_at(seed, 234, key))[:, None]
    area = base + peak * expit((t - spring) / 10) * expit((300 - t) / 14)
    area = area * (1 - drought * np.exp(-0.5 * ((t - 218) / 26) ** 2))
    mown = uniform_at(seed, 235, key)[:, None] < 0.6
    hay = np.zeros_like(area)
    for number, (day, spread) in enumerate(((146, 11), (196, 14), (255, 14))):
        cut = (day + spread * normal_at(seed, 236 + number, key))[:, None]
        done = (uniform_at(seed, 241 + number, key)[:, None] < (0.95, 0.6, 0.35)[number]) & mown
        since = t - cut
        left = np.where(since > 0, 1 - 0.78 * np.exp(-np.clip(since, 0, 400) / 19.0), 1.0)
        area = area * np.where(done, left, 1.0)
        hay = np.maximum(hay, np.where(done & (since > 0), 0.4 * np.exp(-since / 14.0), 0.0))
    area = np.where(mown, area, base + 0.5 * (area - base))  # grazed
    dry = 0.25 + 1.1 * drought * np.exp(-0.5 * ((t - 225) / 30) ** 2) + 0 * area
    return Canopy(area, dry, np.zeros_like(area), np.clip(hay + 0.1, 0, 1))


def _lawn(seed: int, key: NDArray[np.int64], days: NDArray[np.float64]) -> Canopy:
    """Verges, gardens and field margins: rough grass."""
    t = days[None, :]
    height = (1.7 + 1.1 * uniform_at(seed, 251, key))[:, None]
    dry = (0.9 * uniform_at(seed, 252, key))[:, None] * np.exp(-0.5 * ((t - 222) / 32) ** 2)
    area = height * (0.55 + 0.45 * np.exp(-0.5 * ((t - 150) / 60) ** 2)) * (1 - 0.4 * dry)
    return Canopy(area, np.asarray(0.35 + dry), np.zeros_like(area), np.full_like(area, 0.15))


def _deciduous(seed: int, key: NDArray[np.int64], days: NDArray[np.float64]) -> Canopy:
    """Broadleaves over a floor of litter and some ivy."""
    t = days[None, :]
    leaf_on = (108 + 5 * normal_at(seed, 261, key))[:, None]
    leaf_off = (304 + 7 * normal_at(seed, 262, key))[:, None]
    crown = (4.6 * np.exp(0.12 * normal_at(seed, 263, key)))[:, None]
    leaves = crown * expit((t - leaf_on) / 6.0)
    on = expit((leaf_off - t) / 6.0)
    floor = 0.35 + 0.25 * np.exp(-0.5 * ((t - 95) / 14) ** 2)
    green = leaves * on + floor * np.ones_like(leaves)
    autumn = leaves * (1 - on) * expit((leaf_off + 16 - t) / 5.0)
    return Canopy(green, autumn + 0.5, np.zeros_like(green), np.full_like(green, 0.5))


def _conifer(seed: int, key: NDArray[np.int64], days: NDArray[np.float64]) -> Canopy:
    """Evergreens: new shoots brighten them a little in June."""
    crown = (4.4 * np.exp(0.12 * normal_at(seed, 271, key)))[:, None]
    green = crown * (1 + 0.07 * np.exp(-0.5 * ((days[None, :] - 165) / 25) ** 2))
    rest = np.zeros_like(green)
    return Canopy(green, rest + 0.25, rest, rest + 0.3)


def _vine(seed: int, key: NDArray[np.int64], days: NDArray[np.float64]) -> Canopy:
    """Rows with bud break in April and leaf fall in late October; grass or soil between."""
    t = days[None, :]
    rows = (1.5 * np.exp(0.18 * normal_at(seed, 281, key)))[:, None]
    alive = expit((300 + 7 * normal_at(seed, 282, key)[:, None] - t) / 7.0)
    leaves = rows * expit((t - 138 - 6 * normal_at(seed, 283, key)[:, None]) / 10.0) * alive
    sward = (0.9 * uniform_at(seed, 284, key) ** 1.5)[:, None]
    grass = sward * (1 - 0.5 * np.exp(-0.5 * ((t - 215) / 45) ** 2))
    return Canopy(leaves + grass, 0.15 + 0 * leaves, 0 * leaves, 0.1 + 0 * leaves)


def _orchard(seed: int, key: NDArray[np.int64], days: NDArray[np.float64]) -> Canopy:
    """Fruit trees over grass: white blossom in April, leaves till early November."""
    t = days[None, :]
    trees = (2.0 * np.exp(0.2 * normal_at(seed, 291, key)))[:, None]
    alive = expit((309 + 6 * normal_at(seed, 292, key)[:, None] - t) / 7.0)
    leaves = trees * expit((t - 108 - 5 * normal_at(seed, 293, key)[:, None]) / 7.0) * alive
    sward = (1.0 + 0.8 * uniform_at(seed, 294, key))[:, None]
    grass = sward * (1 - 0.35 * np.exp(-0.5 * ((t - 215) / 40) ** 2))
    blossom = 0.18 * np.exp(-0.5 * ((t - 103) / 6.0) ** 2) + 0 * leaves
    return Canopy(leaves + grass, 0.25 + 0 * leaves, blossom, 0.1 + 0 * leaves)


_PERENNIALS = {
    Cover.MEADOW: _meadow,
    Cover.LAWN: _lawn,
    Cover.DECIDUOUS: _deciduous,
    Cover.CONIFER: _conifer,
    Cover.VINE: _vine,
    Cover.ORCHARD: _orchard,
}
