"""Figures of a network on examples it does not learn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from omnisat_cli.learning.metrics import Scores, TagScores
from omnisat_cli.learning.objectives import accuracy_mask, mapped_classes, tag_logits
from omnisat_cli.networks.tile import OmniSatTile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from omnisat_cli.learning.batches import Batcher
    from omnisat_cli.outputs.legend import Legend

Figures = dict[str, float]


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

    def figures(self, network: nn.Module, names: Sequence[str] | None = None) -> Figures:
        """Measure a network as it is, in per cent.

        Args:
            network: In evaluation mode.
            names: The only modalities shown, or None for all.

        Returns:
            "mIoU", "F1 macro", "accuracy" (tags: "F1 macro", "F1 micro", "F1 weighted"), and
            "F1 <class>" of each class that occurs.
        """
        scores = self._tagged(network, names) if self.tags else self._mapped(network, names)
        f1 = {
            f"F1 {entry.name_en}": float(value)
            for entry, value in zip(self.legend.classes, scores.classes.f1, strict=True)
        }
        if isinstance(scores, TagScores):
            means = {f"F1 {way}": scores.mean_f1(way) for way in ("macro", "micro", "weighted")}
        else:
            means = {
                "mIoU": scores.miou,
                "F1 macro": scores.macro_f1,
                "accuracy": scores.accuracy,
            }
        shown = {**means, **f1}
        return {name: 100 * value for name, value in shown.items() if not math.isnan(value)}

    def by_subset(self, network: nn.Module) -> dict[str, Figures]:
        """Measure with everything, without each modality, and with each alone.

        Returns:
            "aerial+s2+s1" to its figures, rounded; a subset is measured where it shows something,
            and left out where it never does.
        """
        every = tuple(self.batcher.readers)
        without = [tuple(n for n in every if n != left) for left in every]
        subsets = dict.fromkeys([every, *without, *((name,) for name in every)])
        with torch.no_grad():
            found = {"+".join(part): self.figures(network, part) for part in subsets if part}
        return {
            name: {key: round(value, 1) for key, value in figures.items()}
            for name, figures in found.items()
            if self.metric in figures
        }

    def _mapped(self, network: nn.Module, names: Sequence[str] | None) -> Scores:
        K = len(self.legend.classes)
        counts = np.zeros((K, K), np.int64)
        device = next(network.parameters()).device
        for batch in self.batcher.ordered(self._indices, self.batcher.spec.size, names):
            moved = batch.to(device)
            known = accuracy_mask(moved)
            if not bool(known.any()):
                continue
            truth = moved.truth[known]
            mapped = mapped_classes(network, moved)[known]
            flat = torch.bincount(truth * K + mapped, minlength=K * K)
            counts += flat.cpu().numpy().reshape(K, K)
        return Scores(counts)

    def _tagged(self, network: nn.Module, names: Sequence[str] | None) -> TagScores:
        assert isinstance(network, OmniSatTile)
        device = next(network.parameters()).device
        K = len(self.legend.classes)
        truth, found = [np.zeros((0, K), bool)], [np.zeros((0, K), bool)]
        for batch in self.batcher.ordered(self._indices, self.batcher.spec.size, names):
            assert batch.tags is not None
            if not any(bool(flags.any()) for flags in batch.present.values()):
                continue
            moved = batch.to(device)
            truth.append(batch.tags.numpy() > 0)
            found.append((tag_logits(network, moved) > 0).cpu().numpy())
        return TagScores(np.concatenate(truth), np.concatenate(found))

    @property
    def _indices(self) -> range:
        return range(len(self.batcher.examples))
