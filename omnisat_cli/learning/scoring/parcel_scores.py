"""How well predicted parcels agree with reference parcels.

A predicted parcel finds a reference parcel when their intersection over union passes 0.5; two that
do so belong to each other alone, wherever neither file overlaps itself. From these pairs:

* panoptic quality, PQ = SQ · RQ (Kirillov et al. 2019, CVPR), a class at a time and then the mean
  over the classes, as PASTIS has it (Garnot & Landrieu 2021, ICCV): ground of void parcels is taken
  away from the predictions, and a prediction that finds a void parcel is not counted;
* F1 of matched parcels, with and without regard to the class.

Beside them, what the pairs do not show:

* the boundary F-score (Martin et al. 2004, TPAMI 26): which share of the predicted outlines lies
  within a tolerance of a reference outline, and the reverse;
* over- and under-segmentation errors (Persello & Bruzzone 2010, TGRS 48): of every reference
  parcel O, the part outside the predicted parcel M that holds most of it, 1 - |O∩M| / |O|, and the
  part of M outside O, 1 - |O∩M| / |M|; `distance` joins them (Clinton et al. 2010, PE&RS 76);
* the shares of reference parcels that are split and merged (Hoover et al. 1996, TPAMI 18).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import shapely

from omnisat_cli.errors import JobError
from omnisat_cli.learning.scoring.outline_scores import Outlines, outline_agreement
from omnisat_cli.learning.scoring.parcel_overlaps import Matches, Overlaps, match, overlaps

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_HALF = 0.5
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class ParcelSet:
    """Parcels in a CRS that counts in metres.

    Attributes:
        polygons: (N,) valid polygons and multipolygons with an area.
        classes: (N,) text, the class of each; None if nothing is known of classes.
        repaired: Geometries that were invalid.
        dropped: Features without a polygon.
    """

    polygons: NDArray[np.object_]
    classes: NDArray[np.str_] | None = None
    repaired: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class ParcelRules:
    """What counts.

    Attributes:
        void: Classes of reference parcels about which nothing is known.
        classes: Classes that are judged; empty = those of the reference.
        elsewhere: Ground that no reference parcel covers is "background", where every predicted
            parcel is wrong, or "void", unknown: it is taken away from the predictions, and one
            that lies there by more than half and finds no parcel is not counted.
        tolerance_m: Distance within which two outlines agree.
    """

    void: frozenset[str] = frozenset()
    classes: tuple[str, ...] = ()
    elsewhere: Literal["background", "void"] = "background"
    tolerance_m: float = 3.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.tolerance_m) and self.tolerance_m > 0):
            raise JobError(f"the tolerance of outlines must be above 0 m, got {self.tolerance_m}")


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Counts of matched and unmatched parcels.

    Attributes:
        found: Pairs (true positives).
        false: Predicted parcels without a partner.
        missed: Reference parcels without a partner.
        iou: Sum of the IoU of the pairs.
    """

    found: int
    false: int
    missed: int
    iou: float

    @property
    def sq(self) -> float:
        """Mean IoU of the pairs; 0 without pairs."""
        return self.iou / self.found if self.found else 0.0

    @property
    def rq(self) -> float:
        """F1 of the parcels; NaN where there is neither a prediction nor a reference."""
        total = self.found + 0.5 * (self.false + self.missed)
        return self.found / total if total else float("nan")

    @property
    def pq(self) -> float:
        """Panoptic quality."""
        return self.sq * self.rq


@dataclass(frozen=True, slots=True)
class Segmentation:
    """How reference parcels are cut, whatever the classes.

    Attributes:
        over: Mean over-segmentation error, 0 to 1.
        under: Mean under-segmentation error, 0 to 1, over the parcels that something covers.
        distance: Mean of sqrt((over² + under²) / 2).
        split: Share of the reference parcels that two or more predicted parcels, each by more
            than half inside it, cover together by more than half.
        merged: Share of the reference parcels that lie by more than half in a predicted parcel
            which swallows another one so too.
    """

    over: float
    under: float
    distance: float
    split: float
    merged: float


@dataclass(frozen=True, slots=True)
class ParcelScores:
    """The verdict.

    Attributes:
        by_class: Class to its counts, for the judged classes that occur; empty without classes.
        together: Pairs of equal class, all judged classes together.
        any_class: Pairs whatever their class, all parcels.
        outlines: Agreement of the outlines.
        segmentation: Over- and under-segmentation.
        ignored: Predicted parcels on void ground.
        unjudged: Predicted parcels of classes that are not judged.
    """

    by_class: dict[str, Panoptic]
    together: Panoptic
    any_class: Panoptic
    outlines: Outlines
    segmentation: Segmentation
    ignored: int
    unjudged: int

    def mean(self, figure: Literal["pq", "sq", "rq"]) -> float:
        """Return the mean over the classes; without classes, that of all parcels."""
        if not self.by_class:
            return float(getattr(self.any_class, figure))
        return float(np.mean([getattr(counts, figure) for counts in self.by_class.values()]))


def score_parcels(
    predicted: ParcelSet, reference: ParcelSet, rules: ParcelRules = ParcelRules()
) -> ParcelScores:
    """Compare parcels; both sets are in the same CRS.

    What is held beside the parcels is three numbers a pair of parcels that meet.

    Raises:
        JobError: If there is no reference parcel to compare with.
    """
    void = _of_classes(reference, rules.void)
    real = reference.polygons[~void]
    if not len(real):
        raise JobError("the reference holds no parcel of a known class; there is nothing to score")
    ground = _ground(predicted, reference, void, rules)
    names, of_predicted, of_reference = _judged(predicted, reference, void, rules)
    pairs, equal = ground.overlaps, np.ones(len(ground.overlaps.area), bool)
    if names:
        equal = of_predicted[pairs.predicted] == of_reference[pairs.reference]
        equal &= of_reference[pairs.reference] >= 0
    matches = ground.match(equal)
    by_class = {
        name: _count(ground, matches, of_predicted == index, of_reference == index)
        for index, name in enumerate(names)
    }
    known = {name: c for name, c in by_class.items() if c.found or c.false or c.missed}
    judged = of_predicted >= 0
    all_predicted, all_reference = np.ones(len(judged), bool), np.ones(len(real), bool)
    return ParcelScores(
        by_class=known,
        together=_count(ground, matches, judged, of_reference >= 0),
        any_class=_count(
            ground, ground.match(np.ones(len(equal), bool)), all_predicted, all_reference
        ),
        outlines=outline_agreement(
            predicted.polygons[judged],
            real,
            rules.tolerance_m,
            known_only=rules.elsewhere == "void",
        ),
        segmentation=_segmentation(ground),
        ignored=int(ground.unknown.sum()),
        unjudged=int((~judged).sum()),
    )


@dataclass(frozen=True, slots=True)
class _Ground:
    """The parcels by their areas.

    Attributes:
        overlaps: What predicted parcels share with known reference parcels.
        whole: (P,) m² of each predicted parcel.
        seen: (P,) m² of its known ground.
        reference: (R,) m² of each known reference parcel.
        removed: (P,) predicted parcels that find a void parcel.
        unknown: (P,) predicted parcels that are not wrong if they find none: those removed, and
            those on unknown ground.
    """

    overlaps: Overlaps
    whole: Floats
    seen: Floats
    reference: Floats
    removed: Mask
    unknown: Mask

    def match(self, allowed: Mask) -> Matches:
        """Pair predicted and reference parcels."""
        allowed = allowed & ~self.removed[self.overlaps.predicted]
        return match(self.overlaps, self.seen, self.reference, allowed)


def _ground(predicted: ParcelSet, reference: ParcelSet, void: Mask, rules: ParcelRules) -> _Ground:
    known = overlaps(predicted.polygons, reference.polygons[~void])
    hidden = overlaps(predicted.polygons, reference.polygons[void])
    whole = shapely.area(predicted.polygons)
    count = len(whole)
    lost = match(
        hidden, whole, shapely.area(reference.polygons[void]), np.ones(len(hidden.area), bool)
    )
    removed = np.zeros(count, bool)
    removed[lost.predicted] = True
    if rules.elsewhere == "void":
        seen = np.minimum(known.on_predicted(count), whole)
        unknown = removed | (seen < _HALF * whole)
    else:
        seen = np.maximum(whole - hidden.on_predicted(count), 0)
        unknown = removed | (seen <= _NOTHING * whole)
    reference_m2 = shapely.area(reference.polygons[~void])
    return _Ground(known, whole, seen, reference_m2, removed, unknown)


def _of_classes(parcels: ParcelSet, names: Collection[str]) -> Mask:
    if parcels.classes is None:
        return np.zeros(len(parcels.polygons), bool)
    return np.isin(parcels.classes, sorted(names))


def _judged(
    predicted: ParcelSet, reference: ParcelSet, void: Mask, rules: ParcelRules
) -> tuple[tuple[str, ...], Integers, Integers]:
    """Return the judged classes and the number of each parcel's class, -1 if it is not judged."""
    if predicted.classes is None or reference.classes is None:
        count = len(predicted.polygons), int((~void).sum())
        return (), np.zeros(count[0], np.int64), np.zeros(count[1], np.int64)
    real = reference.classes[~void]
    names = rules.classes or tuple(sorted(set(real.tolist()), key=_by_number))
    number = {name: index for index, name in enumerate(names)}
    of_predicted, of_reference = (
        np.array([number.get(name, -1) for name in column.tolist()], np.int64)
        for column in (predicted.classes, real)
    )
    return names, of_predicted, of_reference


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (10**9, name)


def _count(ground: _Ground, matches: Matches, predicted: Mask, reference: Mask) -> Panoptic:
    """Count the pairs, and the parcels without partner, among some of the parcels."""
    pair = predicted[matches.predicted] & reference[matches.reference]
    found = int(pair.sum())
    partner = np.zeros(len(predicted), bool)
    partner[matches.predicted[pair]] = True
    false = predicted & ~partner & ~ground.unknown
    iou = float(matches.iou[pair].sum())
    return Panoptic(found, int(false.sum()), int(reference.sum()) - found, iou)


def _segmentation(ground: _Ground) -> Segmentation:
    pairs, reference = ground.overlaps, ground.reference
    order = np.lexsort((pairs.predicted, -pairs.area, pairs.reference))
    covered, at = np.unique(pairs.reference[order], return_index=True)
    best = order[at]
    over, under = np.ones(len(reference)), np.zeros(len(reference))
    over[covered] = 1 - pairs.area[best] / reference[covered]
    # known ground only: what lies on void parcels is no error
    under[covered] = 1 - pairs.area[best] / ground.seen[pairs.predicted[best]].clip(1e-12)
    over, under = over.clip(0, 1), under.clip(0, 1)
    return Segmentation(
        over=float(over.mean()),
        under=float(under[covered].mean()) if len(covered) else 0.0,
        distance=float(np.sqrt((over**2 + under**2) / 2).mean()),
        split=_split(pairs.reference, pairs.area, ground.whole[pairs.predicted], reference),
        merged=_merged(pairs, reference),
    )


def _split(of: Integers, area: Floats, part_m2: Floats, reference: Floats) -> float:
    """Return the share of reference parcels that several predicted parcels make up."""
    inside = area > _HALF * part_m2
    parts = np.bincount(of[inside], minlength=len(reference))
    cover = np.bincount(of[inside], area[inside], len(reference))
    return float(((parts > 1) & (cover > _HALF * reference)).mean())


def _merged(pairs: Overlaps, reference: Floats) -> float:
    """Return the share of reference parcels that lie in a predicted parcel with others."""
    inside = pairs.area > _HALF * reference[pairs.reference]
    inner = np.bincount(pairs.predicted[inside])
    several = inside.copy()
    several[inside] = inner[pairs.predicted[inside]] > 1
    return len(np.unique(pairs.reference[several])) / len(reference)


def plain_scores(scores: ParcelScores) -> dict[str, object]:
    """Return the figures as plain numbers for JSON; what cannot be known is None."""
    segmentation, outlines = scores.segmentation, scores.outlines
    return {
        "pq": _plain(scores.mean("pq")),
        "sq": _plain(scores.mean("sq")),
        "rq": _plain(scores.mean("rq")),
        "f1_iou50": _plain(scores.together.rq),
        "f1_iou50_any_class": _plain(scores.any_class.rq),
        "by_class": {name: _plain_counts(counts) for name, counts in scores.by_class.items()},
        "all_classes": _plain_counts(scores.together),
        "any_class": _plain_counts(scores.any_class),
        "outlines": {
            "f_score": _plain(outlines.f_score),
            "precision": _plain(outlines.precision),
            "recall": _plain(outlines.recall),
            "tolerance_m": outlines.tolerance_m,
        },
        "over_segmentation": _plain(segmentation.over),
        "under_segmentation": _plain(segmentation.under),
        "segmentation_distance": _plain(segmentation.distance),
        "split": _plain(segmentation.split),
        "merged": _plain(segmentation.merged),
        "ignored": scores.ignored,
        "unjudged": scores.unjudged,
    }


def _plain_counts(counts: Panoptic) -> dict[str, float | int | None]:
    return {
        "pq": _plain(counts.pq),
        "sq": _plain(counts.sq),
        "rq": _plain(counts.rq),
        "found": counts.found,
        "false": counts.false,
        "missed": counts.missed,
    }


def _plain(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
