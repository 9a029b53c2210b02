"""What came of a comparison: a value, its plain form and its figures for a card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnisat_cli.learning.scoring.metrics import Scores, TagScores
from omnisat_cli.outputs.provenance import omnisat_version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from omnisat_cli.learning.scoring.metrics import Adjusted, Estimate

SAMPLING = (
    "Adjusted figures take the labelled pixels for a random sample within each class of the map "
    "(Olofsson et al. 2014). Pixels of one field are not independent: then the intervals are too "
    "narrow."
)


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison.

    Attributes:
        subset: Modalities that were used ("aerial+s2"), or "" for a map.
        scores: Its figures.
        unmapped: Labelled pixels without a class.
        adjusted: Area-adjusted estimates, where the whole area of the map is known.
        hectares: Ground of the mapped classes; NaN where not known.
    """

    subset: str
    scores: Scores | TagScores
    unmapped: int = 0
    adjusted: Adjusted | None = None
    hectares: float = math.nan


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared with what, and what came of it.

    Attributes:
        subject: The map or the model.
        reference: The labels.
        names: Names of the K classes.
        colors: "#rrggbb" of each.
        results: One, or one for each subset of modalities.
        notes: What a reader of the figures should know.
    """

    subject: str
    reference: str
    names: tuple[str, ...]
    colors: tuple[str, ...]
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()


def means(scores: Scores | TagScores) -> dict[str, float]:
    """Return the figures of all classes together, by name."""
    averages = {
        "F1 macro": scores.mean_f1("macro"),
        "F1 micro": scores.mean_f1("micro"),
        "F1 weighted": scores.mean_f1("weighted"),
    }
    if isinstance(scores, TagScores):
        return averages
    return {
        "mIoU": scores.miou,
        "accuracy": scores.accuracy,
        "kappa": scores.kappa,
        **averages,
    }


def card_figures(report: Report) -> dict[str, dict[str, float]]:
    """Return the figures of a card, in per cent: subset to metric to value."""
    figures = {}
    for result in report.results:
        each = result.scores.classes
        named = means(result.scores) | {
            f"F1 {name}": float(f1) for name, f1 in zip(report.names, each.f1, strict=True)
        }
        figures[result.subset] = {
            name: round(100 * value, 1) for name, value in named.items() if math.isfinite(value)
        }
    return figures


def plain(report: Report) -> dict[str, object]:
    """Return everything as plain values; figures that are not defined are null."""
    return {
        "omnisat": omnisat_version(),
        "subject": report.subject,
        "reference": report.reference,
        "classes": list(report.names),
        "results": [_plain_result(report, result) for result in report.results],
        "notes": list(report.notes),
        "sampling": SAMPLING,
    }


def _plain_result(report: Report, result: Result) -> dict[str, object]:
    scores, each = result.scores, result.scores.classes
    content: dict[str, object] = {
        "subset": result.subset,
        "means": {name: _number(value) for name, value in means(scores).items()},
        "unmapped": result.unmapped,
        "per_class": [
            {
                "name": name,
                "precision": _number(each.precision[k]),
                "recall": _number(each.recall[k]),
                "f1": _number(each.f1[k]),
                "iou": _number(each.iou[k]),
                "support": int(each.support[k]),
            }
            for k, name in enumerate(report.names)
        ],
    }
    if isinstance(scores, Scores):
        content["confusion"] = scores.confusion.tolist()
        content["pixels"] = scores.pixels
    if result.adjusted is not None:
        content["adjusted"] = _plain_adjusted(report, result.adjusted, result.hectares)
    return content


def _plain_adjusted(report: Report, found: Adjusted, hectares: float) -> dict[str, object]:
    ground = hectares * found.covered
    return {
        "interval": 0.95,
        "covered": found.covered,
        "accuracy": _pair(found.overall, None),
        "per_class": [
            {
                "name": name,
                "share": _pair(found.share, k),
                "hectares": _pair(found.share, k, ground),
                "user_accuracy": _pair(found.user, k),
                "producer_accuracy": _pair(found.producer, k),
            }
            for k, name in enumerate(report.names)
        ],
    }


def _pair(found: Estimate, place: int | None, unit: float = 1.0) -> dict[str, float | None]:
    index = () if place is None else (place,)
    return {
        "value": _number(found.value[index] * unit),
        "margin": _number(found.margin[index] * unit),
    }


def _number(value: float | NDArray[np.float64]) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
