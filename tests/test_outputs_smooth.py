"""Smoothed parcels: still a coverage, still valid, the same whatever the strips were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from test_outputs_parcels import draw, fields, overlap, read, small_maps, write_map

from omnisat_cli.outputs.parcels.vectorize import ParcelOptions, vectorize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def check(codes: NDArray[np.uint8], rows: int, tolerance: float, smooth: float) -> None:
    regions, order_0, plain = draw(codes, len(codes))
    plain = plain[np.argsort(order_0)]
    _, numbers, polygons = draw(codes, rows, 0, tolerance, smooth)
    _, again, others = draw(codes, len(codes), 0, tolerance, smooth)
    order, order_2 = np.argsort(numbers), np.argsort(again)
    assert shapely.to_wkb(polygons[order]).tolist() == shapely.to_wkb(others[order_2]).tolist()
    assert len(numbers) == regions.count
    if not len(polygons):
        return
    assert shapely.is_valid(polygons).all()
    assert overlap(polygons) < 1e-9
    # neighbours share their border exactly: what is between no parcel and a parcel moves, no more
    whole, pixels = shapely.union_all(polygons), shapely.union_all(plain)
    assert shapely.area(whole) == pytest.approx(shapely.area(polygons).sum(), abs=1e-9)
    assert shapely.hausdorff_distance(whole, pixels) <= tolerance + smooth + 1e-6
    if (codes != 255).all():
        assert whole.equals(shapely.box(0, 0, codes.shape[1], codes.shape[0]))
    for drawn, before in zip(polygons[order], plain, strict=True):
        assert len(drawn.interiors) == len(before.interiors)


@given(codes=small_maps, rows=st.integers(1, 9), tolerance=st.sampled_from([0.0, 1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_any_small_map_stays_a_coverage(
    codes: NDArray[np.uint8], rows: int, tolerance: float
) -> None:
    check(codes, rows, tolerance, tolerance or 0.5)


@pytest.mark.parametrize(("rows", "tolerance"), [(5, 1.0), (17, 2.0)])
def test_a_larger_map_stays_a_coverage(rows: int, tolerance: float) -> None:
    check(fields(70, 4), rows, tolerance, tolerance)


def test_corners_are_rounded_and_junctions_stay() -> None:
    codes = np.full((40, 40), 1, np.uint8)
    codes[:, 20:] = 2
    codes[10:30, 8:32] = 3
    _, _, sharp = draw(codes, 40, 0, 1.0)
    _, _, soft = draw(codes, 40, 0, 1.0, 1.0)
    inner = soft[int(np.argmin([abs(p.area - 480) for p in soft]))]
    square = sharp[int(np.argmin([abs(p.area - 480) for p in sharp]))]
    assert len(inner.exterior.coords) > len(square.exterior.coords)
    corners = [shapely.Point(x, y) for x, y in ((8, 10), (32, 10), (8, 30), (32, 30))]
    assert all(0.1 < inner.exterior.distance(corner) <= 1 for corner in corners)
    assert all((20, y) in set(inner.exterior.coords) for y in (10, 30))  # junctions
    assert shapely.union_all(soft).equals(shapely.box(0, 0, 40, 40))


def test_the_option_makes_smooth_parcels_in_any_strips(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(60, 2))
    drawn = []
    for rows in (60, 7):
        options = ParcelOptions(smooth=True, overwrite=True, strip_rows=rows)
        drawn.append(read(vectorize(path, tmp_path / "p.gpkg", options).out))
    (one, first), (other, second) = drawn
    order, order_2 = np.argsort(one["id"]), np.argsort(other["id"])
    assert shapely.to_wkb(first[order]).tolist() == shapely.to_wkb(second[order_2]).tolist()
    assert shapely.is_valid(first).all()
    assert overlap(first) < 1e-6
    sharp, _ = read(vectorize(path, tmp_path / "sharp.gpkg").out)
    assert one["n_px"].sum() == sharp["n_px"].sum()
