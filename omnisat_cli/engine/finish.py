"""Blended logits become classes, confidence and an account of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from omnisat_cli.engine.encode import patch_blocks, patch_dates
from omnisat_cli.errors import BlockError
from omnisat_cli.outputs.prediction import (
    MAX_OBSERVATIONS,
    MAX_SCALED,
    NONE,
    Hole,
    Prediction,
    hole_prediction,
)
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from omnisat_cli.engine.fuse import Band
    from omnisat_cli.engine.recipe import Feed, Recipe
    from omnisat_cli.geo.plan import Block

Scalar = TypeVar("Scalar", bound=np.generic)
_PIXELS = 1 << 15
"""Pixels turned into classes at a time: their logits and temporaries stay in the cache."""

_LEAST = -80.0
"""A logit below this is taken for it: its exponential is still finite."""


@dataclass(frozen=True, slots=True)
class Account:
    """What was observed at each output pixel of a core.

    Attributes:
        presence: (H, W) uint8, bit i = modality i of `Recipe.counted` was used; 0 = none.
        observations: (H, W) uint8 clear dates and images used, at most 254.
        clouded: (H, W) bool, a mask dropped all there was.
    """

    presence: NDArray[np.uint8]
    observations: NDArray[np.uint8]
    clouded: NDArray[np.bool_]


def account(
    recipe: Recipe, block: Block, sample: Sample, present: Mapping[str, NDArray[np.bool_]]
) -> Account:
    """Say which modalities were observed where, from what was read alone.

    Args:
        recipe: Modalities and output resolution.
        block: The block.
        sample: What was read over its reach.
        present: Modality to the patches (h, w) of the reach at which it can be used.
    """
    shape = block.core.refined(recipe.refine).shape
    patches = block.core.slices_in(block.reach)
    presence = np.zeros(shape, np.uint8)
    most = sum(len(v.dates) if isinstance(v, Series) else 1 for v in sample.data.values())
    observations = np.zeros(shape, np.uint8 if most <= MAX_OBSERVATIONS else np.uint16)
    clouded = np.zeros(shape, bool)
    for feed in recipe.feeds:
        values = sample.data.get(feed.name)
        if values is None:
            continue
        count = _observations(feed, values, recipe, (patches, present[feed.name][patches]))
        presence |= (count > 0).view(np.uint8) << recipe.counted.index(feed.name)
        observations += count
        if isinstance(values, Series) and values.clouded.any():
            ever = np.asarray(values.clouded.any(axis=0))
            clouds = np.asarray(patch_blocks(ever, feed.refine).any(axis=(-2, -1)))
            clouded |= _repeat(clouds[patches], recipe.refine)
    return Account(
        presence,
        np.minimum(observations, MAX_OBSERVATIONS).astype(np.uint8, copy=False),
        clouded & (presence == 0),
    )


def finish_block(
    recipe: Recipe,
    bands: Iterable[Band] | None,
    seen: Account,
    inside: NDArray[np.bool_],
    lost: NDArray[np.bool_],
) -> Prediction:
    """Turn the blended rows of a block into its prediction.

    Args:
        recipe: Classes and options.
        bands: Blended logits from top to bottom, or None where no window held data.
        seen: What was observed.
        inside: (H, W) bool, the area of interest.
        lost: (h, w) bool, patches of the core where a modality could not be read.

    Returns:
        The prediction: every pixel is a class, outside, or a hole with a reason.

    Raises:
        BlockError: If the network gave values that are not finite.
    """
    faulty = _repeat(lost, recipe.refine)
    if recipe.implicit_area:
        inside = inside & ((seen.presence > 0) | seen.clouded | faulty)
    mapped = inside & (seen.presence > 0)
    if bands is not None and mapped.all():
        layers = _label(recipe, bands, inside.shape)
        return Prediction(
            recipe.refine, validity=seen.observations, presence=seen.presence, **layers
        )
    presence = np.where(mapped, seen.presence, np.uint8(Hole.NO_DATA))
    presence[~mapped & seen.clouded] = Hole.CLOUDS
    presence[~mapped & faulty] = Hole.FAULT
    presence[~inside] = Hole.OUTSIDE
    if bands is None:
        return hole_prediction(inside.shape, recipe.refine, presence, recipe.extra)
    layers = _label(recipe, bands, inside.shape)
    for layer in layers.values():
        layer[..., ~mapped] = NONE
    validity = np.where(inside, np.where(mapped, seen.observations, np.uint8(0)), np.uint8(NONE))
    return Prediction(recipe.refine, validity=validity, presence=presence, **layers)


def _label(
    recipe: Recipe, bands: Iterable[Band], shape: tuple[int, int]
) -> dict[str, NDArray[np.uint8]]:
    """Return the layers of a block by name; rows that no band covers have no value."""
    names = {"classes": 1, "confidence": 1, **recipe.extra}
    layers = {
        name: np.full((count, *shape) if name == "probabilities" else shape, NONE, np.uint8)
        for name, count in names.items()
    }
    step = max(1, _PIXELS // shape[1])
    for band in bands:
        for start in range(0, band.logits.shape[1], step):
            logits = band.logits[:, start : start + step]
            rows = slice(band.row + start, band.row + start + logits.shape[1])
            _classify(recipe, logits, {name: layer[..., rows, :] for name, layer in layers.items()})
            if recipe.boundary and band.boundary is not None:
                share = torch.sigmoid(band.boundary[start : start + step])
                layers["boundary"][rows] = _quantised(share)
    return layers


def _classify(recipe: Recipe, logits: torch.Tensor, rows: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write legend codes, confidence 0-100 and, if asked for, class probabilities 0-250.

    Args:
        recipe: Classes and options.
        logits: (K, h, W).
        rows: Layer name to the rows to fill, (h, W) or (K, h, W).
    """
    winner, spread, total = (_apart if recipe.card.whole_places else _compare)(logits)
    if not bool(torch.isfinite(total).all()):
        raise BlockError("the network gave values that are not finite; nothing was labelled")
    codes = np.array(recipe.codes, np.uint8)
    rows["classes"][:] = codes[winner.cpu().numpy()]
    rows["confidence"][:] = (100.0 / total).round_().to(torch.uint8).cpu().numpy()
    if recipe.probabilities:
        rows["probabilities"][:] = _quantised(spread / total)


def _apart(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Like `_compare` where a class is there or not, whatever the others: shares are sigmoids."""
    top, winner = logits.max(dim=0)
    total = 1.0 + torch.exp(-top.clamp(min=_LEAST)) + 0.0 * top  # what is not finite stays so
    return winner, torch.sigmoid(logits) * total, total


def _compare(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best class (h, w), exp(logit - best logit) (K, h, w) and its sum over classes."""
    if logits.device.type != "cpu":
        top, winner = logits.max(dim=0)
        spread = (logits - top).exp_()
        return winner, spread, spread.sum(dim=0)
    # Plane by plane in numpy: three times faster on a CPU than a reduction that keeps the index.
    planes = np.array(logits.numpy(), order="C")  # (K, h, w)
    best = planes[0].copy()
    index = np.zeros(best.shape, np.uint8)
    above = np.empty(best.shape, bool)
    for k in range(1, len(planes)):
        np.greater(planes[k], best, out=above)
        np.multiply(above.view(np.uint8), np.uint8(k), out=above.view(np.uint8))
        np.maximum(index, above.view(np.uint8), out=index)
        np.maximum(best, planes[k], out=best)
    with np.errstate(invalid="ignore"):  # what is not finite is refused by the caller
        np.subtract(planes, best, out=planes)
    np.exp(planes, out=planes)
    total = planes.sum(axis=0)
    return torch.from_numpy(index), torch.from_numpy(planes), torch.from_numpy(total)


def _quantised(share: torch.Tensor) -> NDArray[np.uint8]:
    quantised: NDArray[np.uint8] = (share * MAX_SCALED).round().to(torch.uint8).cpu().numpy()
    return quantised


def _observations(
    feed: Feed,
    values: Image | Series,
    recipe: Recipe,
    usable: tuple[tuple[slice, slice], NDArray[np.bool_]],
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Count what was used at each output pixel of some patches, given which can be used."""
    patches, present = usable
    if isinstance(values, Series):
        clear = patch_dates(feed, values)[:, *patches].sum(axis=0, dtype=np.uint16) * present
        few = len(values.dates) <= MAX_OBSERVATIONS
        return _repeat(clear.astype(np.uint8) if few else clear, recipe.refine)
    n = feed.refine
    rows, cols = (slice(part.start * n, part.stop * n) for part in patches)
    seen = _at_refine(values.valid[rows, cols], n, recipe.refine)
    if not present.all():
        seen = seen & _repeat(present, recipe.refine)
    return seen.view(np.uint8)


def _at_refine(valid: NDArray[np.bool_], have: int, want: int) -> NDArray[np.bool_]:
    """Bring a mask from `have` to `want` pixels a patch; a pixel is real if half of it is."""
    if have == want:
        return valid
    if have % want == 0:
        return np.asarray(patch_blocks(valid, have // want).mean(axis=(-2, -1)) >= 0.5)
    # The finest source pixel under the centre of each output pixel.
    rows = ((np.arange(valid.shape[0] // have * want) + 0.5) * have / want).astype(int)
    cols = ((np.arange(valid.shape[1] // have * want) + 0.5) * have / want).astype(int)
    return np.asarray(valid[np.ix_(rows, cols)])


def _repeat(array: NDArray[Scalar], times: int) -> NDArray[Scalar]:
    """Repeat each patch `times` × `times`."""
    return array.repeat(times, axis=-2).repeat(times, axis=-1) if times > 1 else array


def used_dates(recipe: Recipe, block: Block, sample: Sample) -> Mapping[str, list[str]]:
    """Return, for each series, the dates with a clear pixel in the core."""
    dates = {}
    core = block.core.slices_in(block.reach)
    for feed in recipe.feeds:
        values = sample.data.get(feed.name)
        if isinstance(values, Series):
            clear = patch_dates(feed, values)[:, *core].any(axis=(1, 2))
            dates[feed.name] = [str(day) for day in values.dates[clear]]
    return dates
