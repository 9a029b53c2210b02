"""What a training learns from, and what it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.data.split import Subset, split_by_space, take_share
from omnisat_cli.learning.data.statistics import class_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.train_job import TrainJob


@dataclass(frozen=True, slots=True)
class Material:
    """What a training learns from and what it is measured on.

    Attributes:
        training: Labelled examples.
        validation: Labelled examples of other ground.
        each: (N, K) labelled pixels, or places, of each class in the training examples.
        held: (K,) of all validation examples.
    """

    training: Examples
    validation: Examples
    each: NDArray[np.int64]
    held: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K,) of all training examples."""
        return np.asarray(self.each.sum(0))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of it."""
        classes = self.training.legend.classes
        numbers = list(zip(classes, self.counts, self.held, strict=True))
        alone = [entry.name_en for entry, learned, held in numbers if learned and not held]
        never = [entry.name_en for entry, learned, _ in numbers if not learned]
        lines = [
            f"learning from {self.training.name}: {len(self.training)} places, "
            f"{int((self.counts > 0).sum())} of {len(classes)} classes",
            f"validating on {self.validation.name}: {len(self.validation)} places",
        ]
        if alone:
            lines.append(f"not validated, for want of other ground: {', '.join(alone)}")
        if never:
            lines.append(f"without any label to learn from: {', '.join(never)}")
        return tuple(lines)


def gather(examples: Examples, validation: Examples | None, job: TrainJob) -> Material:
    """Take the labelled examples and put a part of them aside.

    Raises:
        SourceError: If there is no label, or one class only.
        JobError: If nothing can be kept apart, or the two sets differ in classes.
    """
    counts = class_counts(examples)
    _check_classes(examples, counts.sum(0))
    labelled = np.flatnonzero(counts.any(axis=1))
    if validation is None:
        split = split_by_space(
            examples.groups[labelled], counts[labelled], job.val_share, job.fit.seed
        )
        chosen, kept = labelled[split.training], labelled[split.validation]
        validation, held = examples, counts
    else:
        if validation.legend != examples.legend:
            raise JobError(
                f"{examples.name} has the classes of {examples.legend.label}, {validation.name} "
                f"those of {validation.legend.label}: they cannot be compared"
            )
        held = class_counts(validation)
        chosen, kept = labelled, np.flatnonzero(held.any(axis=1))
        if not kept.size:
            raise SourceError(f"{validation.name} holds no label to validate on")
    if job.label_share < 1:
        chosen = chosen[take_share(counts[chosen], job.label_share, job.fit.seed)]
    _check_classes(examples, counts[chosen].sum(0))
    if 0 < job.val_places < len(kept):
        kept = kept[np.linspace(0, len(kept) - 1, job.val_places).round().astype(int)]
    return Material(
        Subset(examples, chosen), Subset(validation, kept), counts[chosen], held[kept].sum(0)
    )


def _check_classes(examples: Examples, counts: NDArray[np.int64]) -> None:
    """Check that there is something to tell apart.

    Raises:
        SourceError: If not.
    """
    present = np.flatnonzero(counts)
    if not present.size:
        raise SourceError(f"{examples.name} holds no labelled pixel: nothing can be learned")
    if present.size == 1 and examples.task == "segmentation":
        only = examples.legend.classes[int(present[0])]
        raise SourceError(
            f"{examples.name} labels one class only ({only.code} {only.name_en}, "
            f"{int(counts[present[0]])} pixels): a network that knows one class calls everything "
            "so. Label at least one other class"
        )
