"""Figures of a network on examples it does not learn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.learning.scoring.metrics import Scores, TagScores
from omnisat_cli.learning.training.objectives import (
    accuracy_mask,
    encode_batch,
    mapped_classes,
    showing,
    shows_something,
    tag_logits,
)
from omnisat_cli.modality import stand_alone
from omnisat_cli.networks.seam import PatchLocal
from omnisat_cli.networks.tile import Tile

if TYPE_CHECKING:
    from torch import nn

    from omnisat_cli.learning.data.batches import Batch, Batcher
    from omnisat_cli.learning.training.objectives import Tokens
    from omnisat_cli.outputs.legend import Legend

    Encoded = tuple[Tokens, Tokens]

Figures = dict[str, float]
Subset = tuple[str, ...]


class Validation:
    """Measures networks window by window, without overlap and without chance.

    Args:
        batcher: Of the examples to measure on.
    """

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.legend: Legend = batcher.examples.legend
        self.tags = batcher.examples.task == "multilabel"

    @property
    def metric(self) -> str:
        """The figure that counts."""
        return "F1 macro" if self.tags else "mIoU"

    def figures(self, network: nn.Module) -> Figures:
        """Measure a network as it is, with everything there is, in per cent.

        Args:
            network: In evaluation mode.

        Returns:
            "mIoU", "F1 macro", "accuracy" (tags: "F1 macro", "F1 micro", "F1 weighted"), and
            "F1 <class>" of each class that occurs.
        """
        every = tuple(self.batcher.readers)
        return self._measured(network, [every])[every]

    def by_subset(self, network: nn.Module) -> dict[str, Figures]:
        """Measure with everything, without each modality, and with each that can stand alone.

        Returns:
            "aerial+s2+s1" to its figures, rounded; a subset is measured where it shows something,
            and left out where it never does.
        """
        every = tuple(self.batcher.readers)
        without = [tuple(n for n in every if n != left) for left in every]
        alone = [(name,) for name in every]
        parts = dict.fromkeys((every, *without, *alone))
        subsets = [part for part in parts if stand_alone(part)]
        with torch.no_grad():
            found = self._measured(network, subsets)
        return {
            "+".join(part): {key: round(value, 1) for key, value in figures.items()}
            for part, figures in found.items()
            if self.metric in figures
        }

    def _measured(self, network: nn.Module, subsets: list[Subset]) -> dict[Subset, Figures]:
        """Walk the examples once and measure with each subset of the modalities."""
        device = next(network.parameters()).device
        tallies = {part: self._tally() for part in subsets}
        examples = range(len(self.batcher.examples))
        for batch in self.batcher.ordered(examples, self.batcher.spec.size):
            moved = batch.to(device)
            encoded = None
            if isinstance(network, PatchLocal):
                encoded = encode_batch(network, moved)
            for part, tally in tallies.items():
                shown = showing(moved, part)
                if any(bool(flags.any()) for flags in shown.present.values()):
                    tally.add(network, shown, encoded)
        return {part: self._figures(tally.scores) for part, tally in tallies.items()}

    def _tally(self) -> _MapTally | _TagTally:
        K = len(self.legend.classes)
        return _TagTally(K) if self.tags else _MapTally(K)

    def _figures(self, scores: Scores | TagScores) -> Figures:
        f1 = {
            f"F1 {entry.name_en}": float(value)
            for entry, value in zip(self.legend.classes, scores.classes.f1, strict=True)
        }
        if isinstance(scores, TagScores):
            means = {f"F1 {way}": scores.mean_f1(way) for way in ("macro", "micro", "weighted")}
        elif scores.pixels:
            means = {
                "mIoU": scores.miou,
                "F1 macro": scores.macro_f1,
                "accuracy": scores.accuracy,
            }
        else:
            return {}
        shown = {**means, **f1}
        return {name: 100 * value for name, value in shown.items() if not math.isnan(value)}


class _MapTally:
    """Counts pixels by true and mapped class."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, network: nn.Module, batch: Batch, encoded: Encoded | None) -> None:
        """Count the labelled pixels where a batch shows something."""
        K = len(self.counts)
        known = accuracy_mask(batch)
        truth, mapped = batch.truth[known], mapped_classes(network, batch, encoded)[known]
        flat = torch.bincount(truth * K + mapped, minlength=K * K)
        self.counts += flat.cpu().numpy().reshape(K, K)

    @property
    def scores(self) -> Scores:
        """The figures."""
        return Scores(self.counts)


class _TagTally:
    """Collects what places hold and what is said of them."""

    def __init__(self, classes: int) -> None:
        self.truth = [np.zeros((0, classes), bool)]
        self.found = [np.zeros((0, classes), bool)]

    def add(self, network: nn.Module, batch: Batch, encoded: Encoded | None) -> None:
        """Collect the places of a batch that show something."""
        assert isinstance(network, Tile)
        assert batch.tags is not None
        seen = shows_something(batch)
        logits = tag_logits(network, batch, encoded)
        self.truth.append((batch.tags > 0)[seen].cpu().numpy())
        self.found.append((logits > 0)[seen].cpu().numpy())

    @property
    def scores(self) -> TagScores:
        """The figures."""
        return TagScores(np.concatenate(self.truth), np.concatenate(self.found))
