"""Fix what only a look at the values can tell: mask convention, scale, offset, units."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.modality import modality
from omnisat_cli.sources.clouds import settle_rule
from omnisat_cli.sources.cube_dates import Calendar
from omnisat_cli.sources.cube_sample import Sampler, pick_dates
from omnisat_cli.sources.cube_source import MASK_KEY, CubeRecipe
from omnisat_cli.sources.encoding import empty_everywhere, nodata_decision
from omnisat_cli.sources.optical import Stored, optical_scaling
from omnisat_cli.sources.s2_offset import offset_hint, s2_scaling
from omnisat_cli.sources.scaling import BandSample, radar_scaling
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.modality import Modality
    from omnisat_cli.sources.clouds import MaskKind
    from omnisat_cli.sources.cube_options import CubeOptions
    from omnisat_cli.sources.cube_store import CubeStore
    from omnisat_cli.sources.s2_offset import OffsetHint

FoundMask = tuple[str, "MaskKind | None"]
"""Name of a mask layer and its convention, None where the name does not tell."""

_VISIBLE_AND_NIR = {
    "s2": ("B02", "B03", "B04", "B08"),
    "l8": ("B2", "B3", "B4", "B5"),
    "l7": ("B1", "B2", "B3", "B4"),
    "modis": ("B1", "B2", "B3", "B4"),
}


def measured_bands(sensor: Modality) -> tuple[str, ...]:
    """Return the bands that tell scale, offset and order; the others follow."""
    return (*_VISIBLE_AND_NIR.get(sensor.name, sensor.bands), *sensor.thermal)


def measure(
    store: CubeStore,
    recipe: CubeRecipe,
    days: NDArray[np.datetime64],
    asked: tuple[FoundMask | None, CubeOptions],
) -> tuple[CubeRecipe, tuple[Decision, ...]]:
    """Complete a recipe from a sample of the values.

    Args:
        store: The container.
        recipe: Layers, encodings and dates; scaling and mask still open.
        days: (T,) day of every stored date.
        asked: The mask found, and what the user states.

    Raises:
        SourceError: If the values contradict the metadata or fit nothing.
        JobError: If a cloud limit is asked for without a mask.
    """
    mask, options = asked
    sampler = Sampler(store, recipe.dims, recipe.grid, options.on_error)
    steps = _used(recipe)
    clear = np.ones(len(steps))
    decisions: list[Decision] = []
    if mask is not None:
        recipe, steps, clear, words = _measure_clouds(sampler, recipe, mask, options.keep_snow)
        decisions += words
    if options.max_cloud is not None:
        if mask is None:
            raise JobError("--max-cloud needs a cloud mask, and none is in use")
        recipe, decision = _drop_cloudy(recipe, dict(zip(steps.tolist(), clear, strict=True)),
                                        options.max_cloud)  # fmt: skip
        decisions.append(decision)
        kept = np.isin(steps, _used(recipe))
        steps, clear = steps[kept], clear[kept]
    sample, words = _sample_bands(sampler, recipe, days, pick_dates(days, steps, clear))
    decisions += words
    sensor, band = modality(recipe.sensor), sample.bands[0]
    variable = store.dataset()[recipe.layers[band].variable]
    stored = f"{'u' if recipe.encodings[band].unsigned else ''}{variable.dtype}"
    if sensor.units == "db":
        units = str(variable.attrs.get("units", ""))
        scaling, decision = radar_scaling(sensor.name, sample, stored, units, options.units)
        return replace(recipe, scaling=scaling), (*decisions, decision)
    stated = (options.scale, options.offset)
    if sensor.name == "s2":
        scaling, found = s2_scaling(sample, days, _hint(store, recipe, len(days)), stated)
        decisions += [*found, *_check_vegetation(sample)]
        return replace(recipe, scaling=scaling), tuple(decisions)
    said = [*(layer.name for layer in recipe.layers.values())]
    said += [
        str(value) for table in (variable.attrs, store.dataset().attrs) for value in table.values()
    ]
    how = Stored(stored, " ".join(said), recipe.encodings[band].scale)
    scalings, found = optical_scaling(sensor, sample, how, stated)
    recipe = replace(recipe, scaling=scalings[""], thermal={b: s for b, s in scalings.items() if b})
    return recipe, (*decisions, *found)


def _used(recipe: CubeRecipe) -> NDArray[np.intp]:
    return np.array(sorted(k for group in recipe.groups for k in group), dtype=np.intp)


def _measure_clouds(
    sampler: Sampler, recipe: CubeRecipe, mask: FoundMask, keep_snow: bool
) -> tuple[CubeRecipe, NDArray[np.intp], NDArray[np.float64], list[Decision]]:
    """Fix the rule of the mask; measure the share of clear pixels of every date."""
    layer = {MASK_KEY: recipe.layers[MASK_KEY]}
    raw, steps = sampler.read(layer, _used(recipe))
    encoding = recipe.encodings[MASK_KEY]
    numbers, known = encoding.numbers(raw[MASK_KEY]), encoding.decode(raw[MASK_KEY])[1]
    rule, decision = settle_rule(mask, numbers[known], keep_snow)
    clear, hidden = rule.apply(numbers, known)
    share = clear.sum(axis=1) / np.maximum(1, (clear | hidden).sum(axis=1))
    value = f"{int((share > 0.5).sum())} of {len(steps)} dates clear"
    because = f"by {mask[0]}, more than half of {known.shape[1]} sampled pixels"
    counted = Decision("clouds", value, because, "--max-cloud")
    return replace(recipe, clouds=rule), steps, share, [decision, counted]


def _drop_cloudy(
    recipe: CubeRecipe, clear: Mapping[int, float], limit: float
) -> tuple[CubeRecipe, Decision]:
    """Leave out the stored dates that are hidden more than `limit` per cent."""
    pairs = [
        (tuple(k for k in group if 100 * (1 - clear.get(k, 0.0)) <= limit), day)
        for group, day in zip(recipe.groups, recipe.days, strict=True)
    ]
    kept = [(group, day) for group, day in pairs if group]
    if not kept:
        best = 100 * (1 - max(clear.values()))
        raise SourceError(
            f"--max-cloud {limit:g} leaves no date: the clearest has {best:.0f} % hidden"
        )
    value = f"{len(kept)} of {len(pairs)} dates have at most {limit:g} % hidden"
    calendar = Calendar(tuple(g for g, _ in kept), tuple(day for _, day in kept))
    decision = Decision("clouds", value, "measured on the sample", "--max-cloud")
    return replace(recipe, calendar=calendar), decision


def _sample_bands(
    sampler: Sampler,
    recipe: CubeRecipe,
    days: NDArray[np.datetime64],
    steps: NDArray[np.intp],
) -> tuple[BandSample, list[Decision]]:
    """Read the bands that the scale and the offset are measured on, and count empty values."""
    sensor = modality(recipe.sensor)
    own = [key for key in recipe.layers if key != MASK_KEY]
    few = [band for band in own if band in measured_bands(sensor)]
    bands = tuple(few if len(few) > 1 else own)
    wanted = (*bands, MASK_KEY) if recipe.clouds is not None else bands
    raw, steps = sampler.read({key: recipe.layers[key] for key in wanted}, steps)
    stored = {band: raw[band] for band in bands}
    decoded = [recipe.encodings[band].decode(stored[band]) for band in bands]
    data = np.stack([known for _, known in decoded], axis=1)  # (n, C, pixels)
    empty = empty_everywhere(stored, np.asarray(data.all(axis=1)))
    data &= ~empty[:, None]
    decisions = [nodata_decision(sensor, recipe.encodings, stored)]
    if empty.any():
        because = f"{empty.mean():.1%} of the sampled pixels; no ground reflects nothing in all"
        value = "0 in every band = no data"
        decisions.append(Decision("nodata", value, because))
    clear = np.ones(data[:, 0].shape, dtype=bool)
    if recipe.clouds is not None:
        encoding = recipe.encodings[MASK_KEY]
        numbers, known = encoding.numbers(raw[MASK_KEY]), encoding.decode(raw[MASK_KEY])[1]
        clear = recipe.clouds.apply(numbers, known)[0]
    values = np.stack([value for value, _ in decoded], axis=1)
    return BandSample(bands, days[steps], steps, values, data, clear), decisions


def _hint(store: CubeStore, recipe: CubeRecipe, steps: int) -> OffsetHint | None:
    band = next(key for key in recipe.layers if key != MASK_KEY)
    dataset = store.dataset()
    per_date = {
        str(name): entry.values.tolist()
        for name, entry in dataset.variables.items()
        if entry.dims == (recipe.dims.time,)
    }
    tables = [
        {str(key): value for key, value in table.items()}
        for table in (dataset[recipe.layers[band].variable].attrs, dataset.attrs)
    ]
    return offset_hint(tables, per_date, steps, recipe.encodings[band].offset != 0)


def _check_vegetation(sample: BandSample) -> list[Decision]:
    """Warn where near infrared lies below red on every date: bands may be swapped."""
    if "B04" not in sample.bands or "B08" not in sample.bands:
        return []
    red, nir = (sample.bands.index(band) for band in ("B04", "B08"))
    good = sample.data.all(axis=1) & sample.clear
    medians = [
        (float(np.median(values[red, ok])), float(np.median(values[nir, ok])))
        for values, ok in zip(sample.values, good, strict=True)
        if ok.any()
    ]
    if not medians or any(below > above for above, below in medians):
        return []
    above, below = medians[0]
    because = f"near infrared ({below:.4g}) is below red ({above:.4g}) on all sampled dates"
    return [Decision("bands", "check the order of the bands", because, "--s2-bands", True)]
