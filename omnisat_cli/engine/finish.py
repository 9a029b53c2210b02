"""Blended logits become classes, confidence and an account of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from omnisat_cli.engine.encode import patch_blocks, patch_dates, present_patches
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
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from omnisat_cli.engine.fuse import Canvas
    from omnisat_cli.engine.recipe import Feed, Recipe
    from omnisat_cli.geo.plan import Block

Scalar = TypeVar("Scalar", bound=np.generic)
_ROWS = 256
"""Rows of the canvas turned into classes at a time: keeps temporaries small."""


@dataclass(frozen=True, slots=True)
class Account:
    """What was observed at each output pixel of a core.

    Attributes:
        presence: (H, W) uint8, bit i = modality i of the card was used; 0 = none.
        observations: (H, W) uint8 clear dates and images used, at most 254.
        clouded: (H, W) bool, a mask dropped all there was.
    """

    presence: NDArray[np.uint8]
    observations: NDArray[np.uint8]
    clouded: NDArray[np.bool_]


def account(recipe: Recipe, block: Block, sample: Sample) -> Account:
    """Say which modalities were observed where, from what was read alone."""
    core, _reach = block.core.refined(recipe.refine), block.reach.refined(recipe.refine)
    shape = core.shape
    presence = np.zeros(shape, np.uint8)
    observations = np.zeros(shape, np.int32)
    clouded = np.zeros(shape, bool)
    for feed in recipe.feeds:
        values = sample.data.get(feed.name)
        if values is None:
            continue
        count = _observations(feed, values, recipe)  # (h r, w r) over the reach
        count = count[
            block.core.refined(recipe.refine).slices_in(block.reach.refined(recipe.refine))
        ]
        presence |= (count > 0).astype(np.uint8) << recipe.card.names.index(feed.name)
        observations += count
        if isinstance(values, Series):
            ever = np.asarray(values.clouded.any(axis=0))
            clouds = np.asarray(patch_blocks(ever, feed.refine).any(axis=(-2, -1)))
            clouded |= _repeat(clouds[block.core.slices_in(block.reach)], recipe.refine)
    return Account(
        presence,
        np.minimum(observations, MAX_OBSERVATIONS).astype(np.uint8),
        clouded & (presence == 0),
    )


def finish_block(
    recipe: Recipe,
    canvas: Canvas | None,
    seen: Account,
    inside: NDArray[np.bool_],
    faulty: bool,
) -> Prediction:
    """Turn the canvas of a block into its prediction.

    Args:
        recipe: Classes and options.
        canvas: Blended logits, or None where no window held data.
        seen: What was observed.
        inside: (H, W) bool, the area of interest.
        faulty: Whether a modality could not be read here.

    Returns:
        The prediction: every pixel is a class, outside, or a hole with a reason.

    Raises:
        BlockError: If the network gave values that are not finite.
    """
    if recipe.implicit_area:
        inside = inside & ((seen.presence > 0) | seen.clouded | faulty)
    mapped = inside & (seen.presence > 0)
    presence = np.where(mapped, seen.presence, Hole.FAULT if faulty else Hole.NO_DATA)
    presence[~mapped & seen.clouded] = Hole.CLOUDS
    presence[~inside] = Hole.OUTSIDE
    presence = presence.astype(np.uint8)
    if canvas is None:
        return hole_prediction(inside.shape, recipe.refine, presence, recipe.extra)
    classes, confidence, probabilities = _classify(recipe, canvas.logits)
    layers = {"classes": classes, "confidence": confidence}
    if probabilities is not None:
        layers["probabilities"] = probabilities
    if recipe.boundary and canvas.boundary is not None:
        layers["boundary"] = _quantised(torch.sigmoid(canvas.boundary))
    for layer in layers.values():
        layer[..., ~mapped] = NONE
    validity = np.where(inside, np.where(mapped, seen.observations, 0), NONE).astype(np.uint8)
    return Prediction(refine=recipe.refine, validity=validity, presence=presence, **layers)


def _classify(
    recipe: Recipe, logits: torch.Tensor
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return legend codes, confidence 0-100 and, if asked for, class probabilities 0-250."""
    codes = torch.tensor(recipe.codes, dtype=torch.uint8, device=logits.device)
    height, width = logits.shape[1:]
    classes = np.empty((height, width), np.uint8)
    confidence = np.empty((height, width), np.uint8)
    kept = np.empty(logits.shape, np.uint8) if recipe.probabilities else None
    for start in range(0, height, _ROWS):
        rows = slice(start, start + _ROWS)
        top, winner = logits[:, rows].max(dim=0)
        spread = (logits[:, rows] - top).exp_()
        total = spread.sum(dim=0)
        if not bool(torch.isfinite(total).all()):
            raise BlockError("the network gave values that are not finite; nothing was labelled")
        classes[rows] = codes[winner].cpu().numpy()
        confidence[rows] = (100.0 / total).round_().to(torch.uint8).cpu().numpy()
        if kept is not None:
            kept[:, rows] = _quantised(spread / total)
    return classes, confidence, kept


def _quantised(share: torch.Tensor) -> NDArray[np.uint8]:
    quantised: NDArray[np.uint8] = (share * MAX_SCALED).round().to(torch.uint8).cpu().numpy()
    return quantised


def _observations(feed: Feed, values: Image | Series, recipe: Recipe) -> NDArray[np.int32]:
    """Count what was used at each output pixel over the reach of a block."""
    present = present_patches(feed, values, recipe.card.min_dates)
    if isinstance(values, Image):
        count = np.asarray(_at_refine(values.valid, feed.refine, recipe.refine), np.int32)
    else:
        clear = np.asarray(patch_dates(feed, values).sum(axis=0, dtype=np.int32))
        count = _repeat(clear, recipe.refine)
    return np.asarray(count * _repeat(present, recipe.refine))


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
