"""Cubes off the lattice: bilinear values, nearest validity, the same pixel in every window."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cube_files as files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.sources.cubes import CubeSource, open_cube

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.sources.values import Series

CENTRE = Window(-560_000, 50_000, 1, 1)


def ramp_scene(shift: tuple[float, float] = (0.0, 0.0), size: int = 12) -> files.Scene:
    """Each band grows linearly with easting and northing."""
    scene = files.make_scene(dates=2, size=(size, size))
    scene = replace(scene, left=scene.left + shift[0], top=scene.top + shift[1])
    y, x = files.coordinates(scene)
    plane = ramp(x, y)
    factors = np.arange(1, 4)[None, :, None, None]
    return replace(scene, pixels=(factors * plane + np.zeros((2, 1, 1, 1))).astype(np.float32))


def ramp(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return 200 + (x - files.LEFT)[None, :] * 0.5 + (files.TOP - y)[:, None] * 0.25


def on_lattice(window: Window) -> NDArray[np.float64]:
    x = (window.col + np.arange(window.width) + 0.5) * 10
    y = -(window.row + np.arange(window.height) + 0.5) * 10
    return ramp(x, y)


@pytest.mark.parametrize("shift", [(3.0, 0.0), (5.0, 5.0), (-2.5, 4.0), (0.3, -0.2)])
def test_a_misaligned_cube_is_interpolated_exactly_on_a_plane(
    shift: tuple[float, float], tmp_path: Path
) -> None:
    scene = ramp_scene(shift)
    source = open_cube("s2", files.save(files.plain(scene), tmp_path / "cube.nc"), files.LATTICE)
    inner = Window(CENTRE.row + 2, CENTRE.col + 2, 8, 8)
    series = source.read(inner)
    assert series.valid.all()
    np.testing.assert_allclose(series.pixels[1, 2], 3 * on_lattice(inner), rtol=1e-5)
    decision = source.decisions[-1]
    assert decision.topic == "resampling"
    assert "beside multiples of 10" in decision.because


def test_validity_is_nearest_and_neighbours_fill_no_hole(tmp_path: Path) -> None:
    scene = ramp_scene((3.0, 0.0))
    scl = scene.scl.copy()
    scl[0, 5, 5] = 9
    pixels = scene.pixels.copy()
    pixels[0, :, 5, 5] = 14_000  # a cloud must not bleed into its neighbours
    path = files.save(files.plain(replace(scene, scl=scl, pixels=pixels)), tmp_path / "cube.nc")
    series = open_cube("s2", path, files.LATTICE).read(Window(CENTRE.row, CENTRE.col, 12, 13))
    # Cube column 5 spans 53–63 m; the centre of lattice column 5 (55 m) is the one inside.
    assert np.argwhere(~series.valid[0, :, 1:12]).tolist() == [[5, 4]]
    assert series.clouded[0, 5, 5]
    assert series.clouded[0].sum() == 1
    assert series.pixels[0, 0].max() < 400
    assert (series.pixels[0, :, 5, 5] == 0).all()


def test_only_ground_inside_the_cube_is_valid(tmp_path: Path) -> None:
    scene = ramp_scene((3.0, 0.0))
    source = open_cube("s2", files.save(files.plain(scene), tmp_path / "cube.nc"), files.LATTICE)
    series = source.read(Window(CENTRE.row - 3, CENTRE.col - 3, 18, 19))
    rows, cols = np.nonzero(series.valid[0])
    # Centres 5, 15 … 115 m of 3…123 m: the first lies in the cube, and one more than 12 columns.
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (3, 14, 3, 14)
    far = source.read(Window(0, 0, 4, 4))
    assert far.pixels.shape == (2, 3, 4, 4)
    assert not far.valid.any()


LAEA = Lattice("EPSG:3035", 10.0)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> CubeSource:
    """A UTM cube on a LAEA lattice, with holes."""
    scene = files.make_scene(dates=2, size=(40, 40))
    scl = scene.scl.copy()
    scl[np.random.default_rng(3).random(scl.shape) < 0.2] = 8
    path = tmp_path_factory.mktemp("warp") / "cube.nc"
    files.save(files.plain(replace(scene, scl=scl)), path)
    return open_cube("s2", path, LAEA)


@pytest.fixture(scope="module")
def whole(foreign: CubeSource) -> tuple[Window, Series]:
    window = LAEA.window(foreign.footprints[0]).expanded(40)
    return window, foreign.read(window)


@given(row=st.integers(-8, 30), col=st.integers(-8, 30), height=st.integers(1, 30),
       width=st.integers(1, 30))  # fmt: skip
def test_a_warped_pixel_does_not_depend_on_the_window(
    foreign: CubeSource, whole: tuple[Window, Series], row: int, col: int, height: int, width: int
) -> None:
    window, everything = whole
    part = Window(window.row + 40 + row, window.col + 40 + col, height, width)
    series = foreign.read(part)
    rows, cols = part.slices_in(window)
    np.testing.assert_array_equal(series.pixels, everything.pixels[..., rows, cols])
    np.testing.assert_array_equal(series.valid, everything.valid[..., rows, cols])
    np.testing.assert_array_equal(series.clouded, everything.clouded[..., rows, cols])


def test_another_crs_is_warped_and_said(foreign: CubeSource) -> None:
    decision = foreign.decisions[-1]
    assert "EPSG:32631 differs from EPSG:3035" in decision.because
    series = foreign.read(LAEA.window(foreign.footprints[0]))
    assert 0.7 * 1600 < series.valid[0].sum() < 0.9 * 1600
    assert not (series.valid & series.clouded).any()
    blue = series.pixels[:, 0][series.valid]
    assert 270 < blue.min() < np.median(blue) < blue.max() < 530


def test_a_20_m_cube_is_interpolated_and_a_5_m_cube_averaged(tmp_path: Path) -> None:
    scene = ramp_scene(size=24)
    fine = files.plain(scene).isel(x=slice(0, 24), y=slice(0, 24))
    origin = (files.LEFT, files.TOP)
    coarse_path = files.save(
        fine.assign_coords(
            x=origin[0] + (fine.x.values - origin[0]) * 2,
            y=origin[1] + (fine.y.values - origin[1]) * 2,
        ),
        tmp_path / "coarse.nc",
    )
    inner = Window(CENTRE.row + 2, CENTRE.col + 2, 8, 8)
    coarse = open_cube("s2", coarse_path, files.LATTICE)
    assert "its pixels are 20 × 20" in coarse.decisions[-1].because
    halved = 200 + (on_lattice(inner) - 200) / 2
    np.testing.assert_allclose(coarse.read(inner).pixels[0, 0], halved, rtol=1e-5)
    checks = np.indices((24, 24)).sum(axis=0) % 2 * 400.0 + 200
    board = replace(scene, pixels=np.broadcast_to(checks, (2, 3, 24, 24)).astype(np.float32))
    fine = files.plain(board)
    fine_path = files.save(
        fine.assign_coords(
            x=origin[0] + (fine.x.values - origin[0]) / 2,
            y=origin[1] + (fine.y.values - origin[1]) / 2,
        ),
        tmp_path / "fine.nc",
    )
    averaged = open_cube("s2", fine_path, files.LATTICE)
    pixels = averaged.read(Window(CENTRE.row + 1, CENTRE.col + 1, 6, 6)).pixels
    np.testing.assert_allclose(pixels, 400, rtol=1e-5)
