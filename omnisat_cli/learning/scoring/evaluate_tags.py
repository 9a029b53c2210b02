"""Score a model that says which classes a whole place holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.data.batches import Batcher, BatchSpec
from omnisat_cli.learning.data.statistics import labels_of
from omnisat_cli.learning.scoring.metrics import TagScores
from omnisat_cli.learning.scoring.report import Report, Result
from omnisat_cli.learning.training.objectives import (
    encode_batch,
    showing,
    shows_something,
    tag_logits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from omnisat_cli.learning.data.batches import Batch
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.networks.tile import Tile
    from omnisat_cli.packs.registry import Pack

    Subset = tuple[str, ...]

_AT_ONCE = 16
"""Places a batch."""


def evaluate_tags(
    network: Tile,
    pack: Pack,
    examples: Examples,
    choose: Callable[[Sequence[str]], Sequence[Subset]],
    watch: Callable[[int], object] = lambda _: None,
) -> Report:
    """Say of every place what it holds, with each subset of the modalities, and compare.

    A class is said to be there where its probability is above one half.

    Args:
        network: In evaluation mode, with the weights of the pack, on its device.
        pack: Card and legend.
        examples: The places.
        choose: Takes the modalities that model and examples share, gives the subsets to use.
        watch: Told the number of places done.

    Raises:
        JobError: If the examples have other classes or patches, or label pixels.
        SourceError: If a file is damaged, or no place has a label.
    """
    _check_fit(examples, pack)
    card, legend = pack.card, pack.legend
    spec = BatchSpec(_AT_ONCE, card.window.size, augment=False, min_dates=card.min_dates)
    batcher = Batcher(examples, card.modalities, spec, seed=0)
    subsets = choose(tuple(batcher.readers))
    labelled = [n for n in range(len(examples)) if labels_of(examples, n).tags is not None]
    if not labelled:
        raise SourceError(f"{examples.name} holds no labelled place: nothing can be compared")
    truth, found = _walk(network, batcher.ordered(labelled, _AT_ONCE), subsets, watch)
    results = tuple(
        Result("+".join(part), TagScores(truth, said), int((~seen).sum()))
        for part, (said, seen) in found.items()
    )
    notes = [f"{r.subset}: {r.unmapped} places without imagery" for r in results if r.unmapped]
    if len(labelled) < len(examples):
        notes.append(f"{len(examples) - len(labelled)} places without labels are left out")
    return Report(
        subject=f"{card.name} {card.version}",
        reference=examples.name,
        names=tuple(entry.name_en for entry in legend.classes),
        colors=tuple(entry.color for entry in legend.classes),
        results=results,
        notes=(*_cut_up(examples, card.window.size), *notes),
    )


def _check_fit(examples: Examples, pack: Pack) -> None:
    """Check that a model can be compared with places.

    Raises:
        JobError: If the examples have other classes or patches, or label pixels.
    """
    card, legend = pack.card, pack.legend
    if examples.task != "multilabel":
        raise JobError(f"{examples.name} labels pixels; {card.name} labels whole places")
    theirs = [(c.code, c.name_en) for c in examples.legend.classes]
    if theirs != [(c.code, c.name_en) for c in legend.classes]:
        raise JobError(
            f"{examples.name} has the classes of {examples.legend.label}, {card.name} those of "
            f"{legend.label}: they cannot be compared"
        )
    if abs(examples.patch_m - card.patch_m) > 1e-6 * card.patch_m:
        raise JobError(
            f"{examples.name} has patches of {examples.patch_m:g} m, {card.name} of "
            f"{card.patch_m:g} m: it cannot be evaluated on them"
        )


def _cut_up(examples: Examples, side: int) -> tuple[str, ...]:
    """Say so where places are larger than what the model sees at once."""
    height, width = examples.example(0).sample.window.shape
    if (height, width) == (side, side):
        return ()
    return (
        f"places of {height} × {width} patches are seen in windows of {side}, and each window is "
        "asked for all that its place holds",
    )


def _walk(
    network: Tile,
    batches: Iterable[Batch],
    subsets: Sequence[Subset],
    watch: Callable[[int], object],
) -> tuple[NDArray[np.bool_], dict[Subset, tuple[NDArray[np.bool_], NDArray[np.bool_]]]]:
    """Return what places hold, and for each subset what is said of them and which are seen."""
    device = next(network.parameters()).device
    truth: list[NDArray[np.bool_]] = []
    parts: dict[Subset, list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]] = {
        subset: [] for subset in subsets
    }
    done = 0
    for batch in batches:
        moved = batch.to(device)
        assert moved.tags is not None, "the places that are walked have tags"
        truth.append(moved.tags.cpu().numpy() > 0)
        with torch.inference_mode():
            encoded = encode_batch(network, moved)
            for subset, said in parts.items():
                shown = showing(moved, subset)
                seen = shows_something(shown)
                some = torch.zeros_like(moved.tags, dtype=torch.bool)
                if bool(seen.any()):
                    some = (tag_logits(network, shown, encoded) > 0) & seen[:, None]
                said.append((some.cpu().numpy(), seen.cpu().numpy()))
        done += len(truth[-1])
        watch(done)
    joined = {
        subset: (np.concatenate([a for a, _ in said]), np.concatenate([b for _, b in said]))
        for subset, said in parts.items()
    }
    return np.concatenate(truth), joined
