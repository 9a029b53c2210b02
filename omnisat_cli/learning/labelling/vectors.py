"""Labels from polygons and points."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import AlignmentError, JobError, SourceError
from omnisat_cli.geo.crs import is_geographic, moved_bounds, mover, same_crs, short_crs
from omnisat_cli.learning.examples import UNLABELLED
from omnisat_cli.learning.labelling.classes import Codes
from omnisat_cli.learning.labelling.grid import grid_of_frame
from omnisat_cli.sources.values import Decision
from omnisat_cli.sources.vectors import Features, Wish, read_features, surfaces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Bounds, Lattice, Window
    from omnisat_cli.learning.labelling.classes import Scheme
    from omnisat_cli.learning.labelling.grid import MapGrid
    from omnisat_cli.learning.labelling.request import Ground, LabelRequest
    from omnisat_cli.outputs.legend import Legend

_LEAST_OVERLAP_M2 = 0.1
"""Overlaps smaller than this come from rounded coordinates."""

_LONGEST_EDGE_M, _LONGEST_EDGE_DEGREES = 1000.0, 0.01
"""Longer edges are cut before they are warped: straight lines do not stay straight."""

_POINTS = ("Point", "MultiPoint")
_SURFACES = ("Polygon", "MultiPolygon", "GeometryCollection")


@dataclass(frozen=True)
class VectorLabels:
    """Polygons and points with a class; see `labels.Labels`.

    Attributes:
        legend: The classes.
        decisions: What was recognised, repaired or left out.
        shapes: (N,) valid polygons and points in the CRS of the lattice, sorted by class.
        codes: (N,) uint8 legend codes, ascending.
        parcels: (N,) int32 parcel numbers from 1; 0 for points.
        borders: Whether outlines are borders of parcels.
    """

    legend: Legend
    decisions: tuple[Decision, ...]
    shapes: NDArray[np.object_]
    codes: NDArray[np.uint8]
    parcels: NDArray[np.int32]
    borders: bool

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.shapes)

    @property
    def bounds(self) -> Bounds:
        """left, bottom, right, top around all shapes."""
        left, bottom, right, top = shapely.total_bounds(self.shapes)
        return float(left), float(bottom), float(right), float(top)

    def burn(
        self, lattice: Lattice, window: Window, refine: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Label the pixels of a window; see `labels.Labels.burn`."""
        return self.laid_on(grid_of_frame(lattice, window, refine))

    def laid_on(self, grid: MapGrid) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Label the pixels whose centre a polygon holds, and those that hold a point.

        Pixels of two classes are not labelled.
        """
        from affine import Affine
        from rasterio.features import rasterize

        shape = grid.height, grid.width
        near = np.sort(self._tree.query(shapely.box(*grid.bounds)))
        classes = np.full(shape, UNLABELLED, np.uint8)
        parcels = np.zeros(shape, np.int32)
        if near.size:
            form = {"out_shape": shape, "transform": Affine(*grid.transform), "dtype": "int32"}
            pairs = [(self.shapes[n], place) for place, n in enumerate(near, 1)]
            # The codes ascend: drawn both ways, the last one is the largest and the smallest.
            top, bottom = rasterize(pairs, **form), rasterize(pairs[::-1], **form)
            found = self.codes[near]
            some = top > 0
            agree = some & (found[top - 1] == found[bottom - 1])
            classes[agree] = found[top[agree] - 1]
            parcels[some] = self.parcels[near][top[some] - 1]
        known = self.borders and bool(self.parcels.any())
        return classes, parcels if known else None


@dataclass(frozen=True)
class VectorSurvey:
    """Polygons and points whose codes mean nothing yet; see `labels.Survey`."""

    request: LabelRequest
    where: str
    shapes: NDArray[np.object_]
    words: NDArray[np.str_]
    decisions: tuple[Decision, ...]

    @property
    def codes(self) -> Codes:
        """The codes over the imagery."""
        return Codes(dict(Counter(self.words.tolist())), "features", self.where)

    def labelled(self, scheme: Scheme) -> VectorLabels:
        """Give the codes their meaning; features that are left out are dropped."""
        codes = np.array([scheme.code_of(word) for word in self.words.tolist()], np.uint8)
        order = np.argsort(codes, kind="stable")
        order = order[codes[order] != UNLABELLED]
        if not order.size:
            raise JobError(
                f"{self.where}: the class table leaves out all {len(codes)} features over the "
                "imagery"
            )
        shapes, codes = self.shapes[order], codes[order]
        flat = shapely.area(shapes) == 0
        numbers = np.arange(1, len(codes) + 1, dtype=np.int32)
        overlap = _overlaps(shapes[~flat], codes[~flat])
        radius = self.request.radius_m
        if radius and flat.any():
            # The point itself stays: a small circle may miss the centre of its pixel.
            shapes[flat] = [
                shapely.GeometryCollection([shape.buffer(radius), shape]) for shape in shapes[flat]
            ]
        return VectorLabels(
            scheme.legend,
            (*self.decisions, *scheme.decisions, *overlap),
            shapes,
            codes,
            np.where(flat, np.int32(0), numbers),
            self.request.borders,
        )


def survey_vectors(request: LabelRequest, ground: Ground) -> VectorSurvey:
    """Read the features over the imagery: warped, repaired, their codes as text.

    Raises:
        AlignmentError: If labels and imagery do not meet, or the CRS is wrong.
        JobError: If the column is missing or holds measurements.
        SourceError: If the file is damaged or holds lines.
    """
    wish = Wish(request.path, request.field, request.crs)
    features = read_features(wish, ground.bounds, ground.crs)
    ground.refuse_apart(moved_bounds(features.bounds, features.crs, ground.crs), request.path)
    where = f"{request.path}, field {request.field}"
    words = _words(features.values, where)
    shapes, repaired = _valid(features, request.path)
    shapes = _warped(shapes, features.crs, ground.crs, request.path)
    cover = shapely.union_all([shapely.box(*footprint) for footprint in ground.footprints])
    shapely.prepare(cover)
    over = ~shapely.is_empty(shapes) & shapely.intersects(cover, shapes)
    named = words != ""
    if not over.any():
        raise AlignmentError(
            f"{request.path}: none of its {features.total} features lies on the imagery, though "
            "both cover common ground; label places on the imagery"
        )
    kept = over & named
    decisions = (
        Decision("labels crs", short_crs(features.crs), features.because, "--labels-crs"),
        Decision(
            "labels",
            f"{int(kept.sum())} features",
            f"{int(over.sum())} of the {features.total} in {request.path} lie on the imagery"
            + (f"; {int((over & ~named).sum())} have no code" if (over & ~named).any() else ""),
            "--field",
            warning=bool((over & ~named).any()),
        ),
        *repaired,
        *(Decision("labels", note, "said by the reader", warning=True) for note in features.notes),
    )
    parts = _single(shapes[kept], words[kept])
    return VectorSurvey(request, where, *parts, decisions)


def _words(values: NDArray[np.object_], where: str) -> NDArray[np.str_]:
    """Turn a column into codes as text; "" where there is none.

    Raises:
        JobError: If it holds numbers that are not whole.
    """
    words = []
    broken: list[float] = []
    for value in values:
        if value is None or value != value:  # noqa: PLR0124 - NaN and NaT
            words.append("")
        elif isinstance(value, float | np.floating):
            number = float(value)
            broken += [] if number.is_integer() else [number]
            words.append(str(int(number)) if math.isfinite(number) else "")
        else:
            words.append(str(value).strip())
    if broken:
        shown = ", ".join(f"{value:g}" for value in broken[:3])
        raise JobError(
            f"{where}: holds numbers that are not whole ({shown}, …): a measurement, not a class. "
            "Name another column with --field"
        )
    return np.array(words, np.str_)


def _valid(features: Features, path: str) -> tuple[NDArray[np.object_], tuple[Decision, ...]]:
    """Repair what is broken and refuse what cannot be a label."""
    shapes = np.array([s if s is not None else shapely.Point() for s in features.shapes], object)
    kinds = [shape.geom_type for shape in shapes]
    odd = Counter(kind for kind in kinds if kind not in (*_POINTS, *_SURFACES))
    if odd:
        listed = ", ".join(f"{count} {kind}" for kind, count in odd.items())
        raise SourceError(f"{path}: holds {listed}; labels are polygons or points")
    shapes = shapely.force_2d(shapes)
    points, which = shapely.get_coordinates(shapes, return_index=True)
    endless = np.unique(which[~np.isfinite(points).all(axis=1)])
    shapes[endless] = shapely.Point()
    broken = np.flatnonzero(~shapely.is_valid(shapes))
    notes = []
    if broken.size:
        first = str(shapely.is_valid_reason(shapes[broken[0]]))
        for place in broken:
            shapes[place] = surfaces(shapely.make_valid(shapes[place]))
        notes.append(Decision("labels", f"{broken.size} features repaired", first, warning=True))
    empty = int(shapely.is_empty(shapes).sum())
    if empty:
        because = "no geometry, or coordinates that are not finite"
        notes.append(Decision("labels", f"{empty} features left out", because, warning=True))
    return shapes, tuple(notes)


def _warped(shapes: NDArray[np.object_], crs: str, target: str, path: str) -> NDArray[np.object_]:
    """Bring shapes to the CRS of the lattice; what does not exist there becomes empty."""
    if same_crs(crs, target):
        return shapes
    longest = _LONGEST_EDGE_DEGREES if is_geographic(crs) else _LONGEST_EDGE_M
    warp = mover(crs, target)
    moved = shapely.transform(
        shapely.segmentize(shapes, longest), lambda xy: np.stack(warp.transform(*xy.T), axis=1)
    )
    points, which = shapely.get_coordinates(moved, return_index=True)
    moved[np.unique(which[~np.isfinite(points).all(axis=1)])] = shapely.Point()
    for place in np.flatnonzero(~shapely.is_valid(moved)):
        moved[place] = surfaces(shapely.make_valid(moved[place]))
    if shapely.is_empty(moved).all():
        raise AlignmentError(
            f"{path}: nothing of it exists in {short_crs(target)}; check --labels-crs"
        )
    return np.asarray(moved)


def _single(
    shapes: NDArray[np.object_], words: NDArray[np.str_]
) -> tuple[NDArray[np.object_], NDArray[np.str_]]:
    """Keep the polygons of collections; points of a multipoint become points of their own."""
    for place, shape in enumerate(shapes):
        if shape.geom_type == "GeometryCollection":
            shapes[place] = surfaces(shape)
    several = shapely.get_type_id(shapes) == shapely.GeometryType.MULTIPOINT
    points, which = shapely.get_parts(shapes[several], return_index=True)
    return (
        np.concatenate([shapes[~several], points]),
        np.concatenate([words[~several], words[several][which]]),
    )


def _overlaps(shapes: NDArray[np.object_], codes: NDArray[np.uint8]) -> tuple[Decision, ...]:
    """Measure where polygons of different classes lie on one another."""
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    differ = (one < other) & (codes[one] != codes[other])
    one, other = one[differ], other[differ]
    area = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    real = area > _LEAST_OVERLAP_M2
    if not real.any():
        return ()
    return (
        Decision(
            "labels",
            f"{area[real].sum():.0f} m² are not labelled",
            f"{int(real.sum())} pairs of polygons of different classes overlap there",
            warning=True,
        ),
    )
