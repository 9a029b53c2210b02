"""What a set of examples looks like: how often classes occur, how its bands are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.learning.examples import Examples


def class_counts(examples: Examples) -> NDArray[np.int64]:
    """Count the labelled pixels of each class in each example; reads all of them once.

    Returns:
        (N, K) pixels, or 0 and 1 where the examples have tags; classes in the order of the
        legend.
    """
    codes = np.array(examples.legend.codes)
    counts = np.zeros((len(examples), len(codes)), np.int64)
    for index in range(len(examples)):
        example = examples.example(index)
        if example.classes is not None:
            counts[index] = np.bincount(example.classes.ravel(), minlength=256)[codes]
        elif example.tags is not None:
            counts[index] = example.tags > 0
    return counts
