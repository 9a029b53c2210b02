"""Means and deviations of bands, as published networks were trained with them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.errors import CheckpointError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LIMIT = 2**20
_EXAMPLE = '{"s2": {"mean": [...], "std": [...]}, "s1": {...}}'


@dataclass(frozen=True, slots=True)
class Norm:
    """Statistics of the bands of one modality, in the order of the network's channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse numbers that nothing can be divided by."""
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=0) <= 0:
            raise ValueError("means must be finite and deviations above 0")


def read_norms(path: Path, folds: Sequence[int] = ()) -> dict[str, Norm]:
    """Read statistics from JSON.

    Args:
        path: {modality: {"mean": […], "std": […]}}, or as PASTIS ships them {"Fold_1": {…}, …} or
            {"mean": […], "std": […]}, which are those of Sentinel-2.
        folds: Folds to average; all that there are where none is named.

    Returns:
        Modality to its statistics.

    Raises:
        SourceError: If the file cannot be read.
        CheckpointError: If it holds something else.
    """
    try:
        if path.stat().st_size > _LIMIT:
            raise CheckpointError(f"{path} is larger than {_LIMIT} bytes: no statistics of bands")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"the statistics {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the statistics {path} are not valid JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: expected {_EXAMPLE}")
    try:
        if "mean" in content:
            return {"s2": _norm(content)}
        if all(str(name).startswith("Fold_") for name in content):
            return {"s2": _average(content, folds)}
        return {str(name): _norm(entry) for name, entry in content.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; expected {_EXAMPLE}") from error


def _norm(entry: Mapping[str, Sequence[float]]) -> Norm:
    return Norm(tuple(map(float, entry["mean"])), tuple(map(float, entry["std"])))


def _average(content: Mapping[str, Mapping[str, Sequence[float]]], folds: Sequence[int]) -> Norm:
    """Average folds as the published loader does: means of means, means of deviations."""
    names = [f"Fold_{fold}" for fold in folds] or list(content)
    parts = [_norm(content[name]) for name in names]

    def mean(columns: list[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(sum(column) / len(columns) for column in zip(*columns, strict=True))

    return Norm(mean([part.mean for part in parts]), mean([part.std for part in parts]))
