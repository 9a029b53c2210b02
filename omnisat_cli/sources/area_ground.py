"""An area against the ground: what covers it, and which pixels lie inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from omnisat_cli.errors import AlignmentError
from omnisat_cli.sources.values import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

    from omnisat_cli.geo.lattice import Bounds, Lattice, Window
    from omnisat_cli.sources.aoi import Area


def check_overlap(area: Area, footprints: Mapping[str, Sequence[Bounds]]) -> tuple[Decision, ...]:
    """Compare the area with the ground each modality covers.

    Args:
        area: The area of interest.
        footprints: Rectangles of each modality, in the CRS of the area.

    Returns:
        One decision a modality: how much of the area it covers.

    Raises:
        AlignmentError: If no modality meets the area.
    """
    shares, misses = {}, {}
    for name, boxes in footprints.items():
        near = [shapely.box(*bounds) for bounds in boxes]
        cover = shapely.union_all(near) if near else shapely.Polygon()
        shares[name] = float(area.polygon.intersection(cover).area / area.polygon.area)
        if shares[name] == 0:
            misses[name] = _miss(area, cover, name)
    if footprints and len(misses) == len(footprints):
        raise AlignmentError(
            f"the area ({_extent(area.polygon)}, {area.crs[:40]}) meets none of the inputs: "
            f"{'; '.join(misses.values())}. Check the CRS of the area (--aoi-crs) and the files"
        )
    return tuple(
        Decision(
            "coverage",
            f"{name} covers {share:.1%} of the area",
            misses.get(name, f"footprints of {len(footprints[name])} file(s) or cube(s)"),
            "--missing-modality",
            warning=share < 0.9995,
        )
        for name, share in shares.items()
    )


def ground_apart(footprints: Mapping[str, Sequence[Bounds]]) -> tuple[Decision, ...]:
    """Name the modalities that share no ground with any other, where all of it is mapped.

    Args:
        footprints: Rectangles of each modality, in one CRS.
    """
    covers = {
        name: shapely.union_all([shapely.box(*bounds) for bounds in boxes])
        for name, boxes in footprints.items()
    }
    made = []
    for name, cover in covers.items():
        others = [other for label, other in covers.items() if label != name]
        if not others or any(cover.intersects(other) for other in others):
            continue
        away = min(float(cover.distance(other)) for other in others) / 1000
        because = f"its ground ({_extent(cover)}) is {away:.4g} km from that of the others"
        made.append(Decision("coverage", f"{name} lies apart", because, "--bbox", warning=True))
    return tuple(made)


def _miss(area: Area, cover: BaseGeometry, name: str) -> str:
    if cover.is_empty:
        return f"{name} covers no ground at all"
    distance = float(area.polygon.distance(cover)) / 1000
    return f"{name} ({_extent(cover)}) is {distance:.4g} km away"


def _extent(shape: BaseGeometry) -> str:
    left, bottom, right, top = shape.bounds
    return f"x {left:.0f}..{right:.0f}, y {bottom:.0f}..{top:.0f}"


def meets(area: Area, lattice: Lattice, window: Window) -> bool:
    """Whether a window of anchor pixels holds any ground of the area; touching is not enough."""
    shapely.prepare(area.polygon)  # a no-op unless the area was just unpickled
    left, bottom, right, top = lattice.bounds(window)
    hair = 1e-4 * lattice.gsd
    box = shapely.box(left + hair, bottom + hair, right - hair, top - hair)
    return bool(shapely.intersects(area.polygon, box))


def rasterize_area(
    area: Area, lattice: Lattice, window: Window, refine: int = 1
) -> NDArray[np.bool_]:
    """Tell which pixels of a window have their centre inside the area.

    The answer for a pixel depends on the area and its place alone, not on the window; two areas
    that share a border share out its pixels without gap or overlap.

    Args:
        area: The area of interest.
        lattice: The anchor lattice.
        window: Window in anchor pixels.
        refine: Pixels along one anchor pixel.

    Returns:
        (height × refine, width × refine) bool.
    """
    fine = window.refined(refine)
    if fine.is_empty or not meets(area, lattice, window):
        return np.zeros(fine.shape, np.bool_)
    if shapely.contains(area.polygon, shapely.box(*lattice.bounds(window))):
        return np.ones(fine.shape, np.bool_)
    rows, cols = _crossings(area.polygon, lattice.gsd / refine, (fine.row, fine.row_end))
    inside = np.zeros((fine.height, fine.width + 1), np.uint8)
    cols = np.clip(cols - fine.col, 0, fine.width)
    np.add.at(inside, (rows - fine.row, cols), 1)
    np.add.accumulate(inside, axis=1, out=inside)  # wraps at 256: the parity stays
    return np.asarray((inside[:, :-1] & 1).astype(np.bool_))


def _crossings(
    polygon: BaseGeometry, pixel: float, rows: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where edges cross the centre lines of rows: (row, first column right of it)."""
    rings = shapely.get_rings(shapely.get_parts(polygon))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    u, v = points[:, 0] / pixel, -points[:, 1] / pixel
    same = ring[1:] == ring[:-1]
    ends = np.stack([u[:-1], v[:-1], u[1:], v[1:]])[:, same]
    # Ordered top to bottom, so that an edge walked the other way crosses at the same place.
    flip = (ends[1] > ends[3]) | ((ends[1] == ends[3]) & (ends[0] > ends[2]))
    ends[:, flip] = ends[:, flip][[2, 3, 0, 1]]
    first = np.maximum(np.ceil(ends[1] - 0.5).astype(np.int64), rows[0])
    last = np.minimum(np.ceil(ends[3] - 0.5).astype(np.int64), rows[1])
    count = np.clip(last - first, 0, None)
    edge = np.repeat(np.arange(count.size), count)
    start = np.repeat(np.cumsum(count) - count, count)
    row = first[edge] + np.arange(edge.size) - start
    top = ends[:, edge]
    slope = (top[2] - top[0]) / (top[3] - top[1])
    cross = top[0] + (row + 0.5 - top[1]) * slope
    return row, np.ceil(cross - 0.5).astype(np.int64)
