"""Fields of one class, told apart by the boundary map: the same whatever the strips were."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from omnisat_cli.outputs.parcels import basins, lines
from omnisat_cli.outputs.parcels.basins import basin_links
from omnisat_cli.outputs.parcels.lines import line_strength
from omnisat_cli.outputs.parcels.merging import Borders, absorb, merge
from omnisat_cli.outputs.parcels.regions import Census, Lines, Strip

if TYPE_CHECKING:
    from omnisat_cli.outputs.parcels.regions import Labels, Regions

Bytes = NDArray[np.uint8]


def strip_of(codes: Bytes, boundary: Bytes) -> Strip:
    strength = line_strength(boundary)
    right, down, deep = basin_links(codes, strength)
    return Strip(0, codes, right, down, {}, Lines(strength, deep))


def cut(whole: Strip, rows: int) -> list[Strip]:
    assert whole.lines is not None
    found = []
    for top in range(0, len(whole.codes), rows):
        part = slice(top, top + rows)
        inner = Lines(whole.lines.strength[part], whole.lines.deep[part])
        found.append(
            replace(
                whole,
                top=top,
                codes=whole.codes[part],
                right=whole.right[part],
                down=whole.down[part],
                lines=inner,
            )
        )
    return found


def labelled(parts: list[Strip], minimum: int = 0) -> tuple[Labels, Regions]:
    width = parts[0].codes.shape[1]
    census, again = Census(width, minimum), Census(width)
    for part in parts:
        census.add(part)
    regions = census.finish()
    return regions.of_label[np.concatenate([again.number(part) for part in parts])], regions


def parcels(codes: Bytes, boundary: Bytes, minimum: int = 0) -> tuple[Labels, Regions]:
    return labelled([strip_of(codes, boundary)], minimum)


def square(side: int = 120, code: int = 7) -> tuple[Bytes, Bytes]:
    return np.full((side, side), code, np.uint8), np.zeros((side, side), np.uint8)


def test_a_faint_line_parts_a_field_where_nothing_else_is_to_be_seen() -> None:
    codes, boundary = square()
    boundary[:, 58:61] = 30
    _, regions = parcels(codes, boundary)
    assert sorted(regions.pixels[1:].tolist()) == pytest.approx([7200, 7200], abs=200)


def test_a_line_with_gaps_still_parts_two_fields() -> None:
    codes, boundary = square()
    boundary[58:61] = 120
    boundary[:, 20:32] = 0
    boundary[:, 80:84] = 0
    _, regions = parcels(codes, boundary)
    assert regions.count == 2


def test_rows_of_a_vineyard_are_no_boundaries() -> None:
    codes, boundary = square()
    boundary[:, ::4] = 60
    _, regions = parcels(codes, boundary)
    assert regions.count == 1


def test_a_line_through_a_vineyard_counts_where_it_stands_out() -> None:
    codes, boundary = square()
    boundary[:] = 20 + (np.random.default_rng(0).random(boundary.shape) * 20).astype(np.uint8)
    boundary[60:63] = 110
    _, regions = parcels(codes, boundary, 100)
    assert regions.count == 2


def test_a_short_stroke_parts_nothing() -> None:
    codes, boundary = square()
    boundary[58:61, 50:70] = 250
    _, regions = parcels(codes, boundary)
    assert regions.count == 1


def test_roads_and_hedges_stay_whole_where_lines_cross_them() -> None:
    codes, boundary = square()
    codes[58:62] = 1
    boundary[:, 30:32] = boundary[:, 90:92] = 200
    boundary[56:64] = 200
    _, regions = parcels(codes, boundary, 50)
    assert (regions.code[1:] == 1).sum() == 1
    assert (regions.code[1:] == 7).sum() == 6


def test_a_class_that_is_all_boundary_stays_one_parcel() -> None:
    codes = np.array([[1, 1, 1], [2, 2, 2], [1, 1, 1]], np.uint8)
    labels, regions = parcels(codes, np.full((3, 3), 250, np.uint8))
    assert regions.count == 3
    assert (labels == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]).all()


def some_map(seed: int, side: int = 84) -> tuple[Bytes, Bytes]:
    rng = np.random.default_rng(seed)
    codes = 1 + (gaussian_filter(rng.normal(size=(side, side)), 12) > 0).astype(np.uint8)
    codes[rng.random(codes.shape) < 0.02] = 255
    noise = np.abs(gaussian_filter(rng.normal(size=(side, side)), 2))
    boundary = np.minimum(noise * 700, 250).astype(np.uint8)
    return codes, boundary


@given(seed=st.integers(0, 1000), rows=st.integers(1, 40))
@settings(max_examples=5, deadline=None)
def test_fields_do_not_depend_on_the_strips(seed: int, rows: int) -> None:
    codes, boundary = some_map(seed)
    whole = strip_of(codes, boundary)
    reach = lines.REACH + basins.REACH
    assert whole.lines is not None
    for top in (0, 60):
        first, end = max(0, top - reach), min(len(codes), top + rows + reach)
        part = strip_of(codes[first:end], boundary[first:end])
        inner = slice(top - first, min(top + rows, len(codes)) - first)
        outer = slice(top, top + rows)
        assert part.lines is not None
        assert (part.lines.strength[inner] == whole.lines.strength[outer]).all()
        assert (part.lines.deep[inner] == whole.lines.deep[outer]).all()
        assert (part.right[inner] == whole.right[outer]).all()
        assert (part.down[inner] == whole.down[outer])[int(not top) :].all()
    for minimum in (0, 40):
        one, facts = labelled([whole], minimum)
        other, again = labelled(cut(whole, rows), minimum)
        assert (one == other).all()
        assert (facts.first == again.first).all()
        assert (facts.pixels == again.pixels).all()


def borders(rows: list[tuple[int, int, int, int]]) -> Borders:
    table = np.array(rows, np.int64)
    return Borders(table[:, :2], table[:, 2], table[:, 3])


def test_the_weakest_border_goes_first_and_borders_add_up() -> None:
    code = np.array([255, 1, 1, 1, 2], np.uint8)
    pixels, deep = np.array([0, 50, 50, 50, 50]), np.array([0, 30, 30, 30, 30])
    # 1 and 2 merge; 3 touches 1 weakly over 2 sides, but 2 strongly over 20
    found = merge(code, pixels, deep, borders([(1, 2, 10, 10), (1, 3, 2, 4), (2, 3, 20, 800)]))
    assert found.tolist() == [0, 1, 1, 3, 4]
    # without that, the weak border opens
    found = merge(code, pixels, deep, borders([(1, 2, 10, 10), (1, 3, 2, 4), (3, 4, 9, 0)]))
    assert found.tolist() == [0, 1, 1, 1, 4]


def test_slivers_join_the_longest_border_of_their_class() -> None:
    code = np.array([255, 1, 1, 1], np.uint8)
    pixels, deep = np.array([0, 50, 5, 50]), np.array([0, 30, 0, 30])
    found = merge(code, pixels, deep, borders([(1, 2, 3, 300), (2, 3, 5, 900), (1, 3, 9, 999)]))
    assert found.tolist() == [0, 1, 3, 3]


def test_a_patch_of_another_class_joins_the_field_unless_a_line_surrounds_it() -> None:
    codes, boundary = square()
    codes[40:50, 40:60] = 8
    codes[:, 100:] = 8  # makes 8 a class of fields
    _, regions = parcels(codes, boundary)
    assert regions.code[1:].tolist() == [7, 8]
    boundary[38:42, 38:62] = boundary[48:52, 38:62] = 200
    boundary[38:52, 38:42] = boundary[38:52, 58:62] = 200
    _, regions = parcels(codes, boundary)
    assert sorted(regions.code[1:].tolist()) == [7, 8, 8]


def test_small_regions_join_across_classes() -> None:
    found = absorb(np.array([0, 50, 5]), borders([(1, 2, 3, 0)]), 10)
    assert found.tolist() == [0, 1, 1]
