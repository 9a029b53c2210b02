from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Tiling, make_plan

positions = st.integers(-700_000, 700_000)
sides = st.integers(1, 40)
areas = st.builds(Window, positions, positions, sides, sides)
tilings = st.builds(
    lambda cell, cells, stride, extra: Tiling(cell * cells, stride + extra, stride, cell),
    st.integers(1, 8),
    st.integers(2, 6),
    st.integers(3, 16),
    st.integers(0, 16),
)


@given(areas, tilings)
def test_block_cores_partition_the_area(area: Window, tiling: Tiling) -> None:
    count = np.zeros(area.shape, int)
    for block in make_plan(Lattice("EPSG:2154", 10), area, tiling).blocks:
        count[block.core.slices_in(area)] += 1
    assert (count == 1).all()


@given(areas, tilings)
def test_the_reach_of_a_block_holds_every_window_over_its_core(
    area: Window, tiling: Tiling
) -> None:
    for block in make_plan(Lattice("EPSG:2154", 10), area, tiling).blocks:
        assert all(block.reach.contains(w) for w in tiling.windows_over(block.core))


@given(areas, tilings)
def test_windows_cover_the_area_and_each_meets_it(area: Window, tiling: Tiling) -> None:
    covered = np.zeros(area.shape, bool)
    for window in tiling.windows_over(area):
        common = window.intersection(area)
        assert not common.is_empty
        covered[common.slices_in(area)] = True
    assert covered.all()


@given(areas, st.integers(-50, 50), st.integers(-50, 50), tilings)
def test_windows_do_not_move_with_the_area(
    area: Window, down: int, right: int, tiling: Tiling
) -> None:
    moved = Window(area.row + down, area.col + right, area.height, area.width)
    common = area.intersection(moved)
    one = {w for w in tiling.windows_over(area) if not w.intersection(common).is_empty}
    two = {w for w in tiling.windows_over(moved) if not w.intersection(common).is_empty}
    assert common.is_empty or one == two


@given(areas, st.integers(1, 50))
def test_refining_and_coarsening_are_inverse(window: Window, n: int) -> None:
    assert window.refined(n).coarsened(n) == window
    assert window.snapped(n).contains(window)


@given(areas, st.sampled_from([0.2, 1.0, 10.0, 12.8, 40.0]))
def test_a_window_comes_back_from_its_bounds(window: Window, gsd: float) -> None:
    lattice = Lattice("EPSG:2154", gsd)
    assert lattice.window(lattice.bounds(window)) == window


def test_float_noise_of_a_geotiff_origin_does_not_move_a_window() -> None:
    lattice = Lattice("EPSG:25832", 0.2)
    bounds = (565642.600000003, 5770919.6, 565703.4, 5770980.399999992)
    assert lattice.window(bounds).shape == (304, 304)
