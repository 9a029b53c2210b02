"""Counts of one comparison while it runs, and what follows from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.scoring.metrics import Scores, adjusted
from omnisat_cli.learning.scoring.report import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from omnisat_cli.learning.scoring.schemes import Scheme


@dataclass(slots=True)
class Tally:
    """Counts of one comparison while it runs.

    Attributes:
        confusion: (K, K) pixels, rows = labels.
        mapped: (K,) pixels of the whole map.
        unmapped: Labelled pixels without a class in the map.
        unknown: Label codes outside the scheme.
    """

    confusion: NDArray[np.int64]
    mapped: NDArray[np.int64]
    unmapped: int = 0
    unknown: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, classes: int) -> Tally:
        """Return empty counts."""
        return cls(np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64))

    def add(
        self,
        codes: NDArray[np.int64],
        truth: NDArray[np.int16],
        mapped: NDArray[np.int16],
        labelled: NDArray[np.bool_],
    ) -> None:
        """Count pixels; all arrays have one shape.

        Args:
            codes: What the labels say.
            truth: The same as classes of the comparison, -1 where there is none.
            mapped: What the map says as classes of the comparison, -1 where it says nothing.
            labelled: Which pixels have a label.
        """
        K = len(self.confusion)
        known = labelled & (truth >= 0)
        values, counts = np.unique(codes[labelled & ~known], return_counts=True)
        self.unknown.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        both = known & (mapped >= 0)
        self.unmapped += int(known.sum() - both.sum())
        flat = np.bincount(truth[both].astype(np.int64) * K + mapped[both], minlength=K * K)
        self.confusion += flat.reshape(K, K)

    def refuse_unknown(self, scheme: Scheme, what: str) -> None:
        """Refuse label codes that no class of the comparison has.

        Args:
            scheme: The classes.
            what: The labels, for the message.

        Raises:
            JobError: If there are any.
        """
        if not self.unknown:
            return
        words = Counter({scheme.label_word(code): n for code, n in self.unknown.items()})
        raise JobError(scheme.refusal(words, what, "pixels"))

    def refuse_empty(self, labels: str, subject: str) -> None:
        """Check that anything was compared.

        Raises:
            SourceError: If not.
        """
        if self.confusion.any():
            return
        if self.unmapped:
            raise SourceError(
                f"none of the {self.unmapped} labelled pixels of {labels} has a class in {subject}"
            )
        raise SourceError(
            f"{labels} labels no pixel of {subject}: where both lie, it holds no value; check its "
            "nodata value and --ignore"
        )

    def result(self, subset: str, pixel_hectares: float | None) -> Result:
        """Return the figures.

        Args:
            subset: Modalities that were used, or "" for a map.
            pixel_hectares: Ground of a pixel of the map; None where its whole area is not known or
                its pixels have different sizes: then areas are not estimated.
        """
        scores = Scores(self.confusion)
        if pixel_hectares is None:
            return Result(subset, scores, self.unmapped)
        areas = adjusted(self.confusion, self.mapped)
        hectares = float(self.mapped.sum()) * pixel_hectares
        return Result(subset, scores, self.unmapped, areas, hectares)

    def remarks(self, scheme: Scheme) -> Iterator[str]:
        """Say what a reader of the figures should know."""
        if self.unmapped:
            share = 100 * self.unmapped / (self.unmapped + self.confusion.sum())
            yield f"{self.unmapped} labelled pixels ({share:.2g} %) have no class in the map"
        never = np.flatnonzero((self.confusion.sum(1) == 0) & (self.confusion.sum(0) > 0))
        if never.size:
            names = ", ".join(scheme.names[k] for k in never)
            yield f"mapped on labelled ground but never labelled, 0 in every mean: {names}"
        if np.count_nonzero(self.confusion.sum(1)) == 1:
            yield "the labels hold one class only: kappa and most means say little"
