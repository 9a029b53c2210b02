from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from cli_runs import LEFT, SIDE_M, TOP, Scene, omnisat, write_tiny_scene

from omnisat_cli.cli.showcase import truth_table
from omnisat_cli.errors import AlignmentError, Exit
from omnisat_cli.learning.simulate.legend import sim_legend
from omnisat_cli.outputs.legend import Legend, LegendClass

if TYPE_CHECKING:
    from pathlib import Path


def write_codes(path: Path, codes: np.ndarray, pixel: float, corner: tuple[float, float]) -> Path:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "crs": "EPSG:2154"}
    height, width = codes.shape
    transform = rasterio.Affine(pixel, 0, corner[0], 0, -pixel, corner[1])
    with rasterio.open(
        path, "w", **profile, height=height, width=width, transform=transform
    ) as file:
        file.write(codes.astype(np.uint8), 1)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = write_tiny_scene(tmp_path, sim_legend())
    codes = np.random.default_rng(0).choice(sim_legend().codes, (SIDE_M, SIDE_M))
    write_codes(tmp_path / "labels.tif", codes, 1, (LEFT, TOP))
    return found


def test_the_demo_maps_everything_and_each_part_and_compares(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out" / "map.tif"
    words = ("demo", scene.folder, "-m", scene.pack, "--threads", 1, "--out", out)
    done = omnisat(*words)
    assert done.code == 0, done.err
    for name in ("map", "map-aerial", "map-s2", "map-s1"):
        assert (tmp_path / "out" / f"{name}.tif").exists()
    lines = done.out.splitlines()
    for label in ("aerial+s2+s1", "aerial", "s2", "s1"):
        assert sum(line.split()[:1] == [label] for line in lines) == 2
    assert any(line.startswith(f"the map: {out}") for line in lines)
    assert "largest: " in done.out
    with rasterio.open(out) as mapped, rasterio.open(tmp_path / "labels.tif") as truth:
        nearest = np.floor((np.arange(SIDE_M) + 0.5) / mapped.res[0]).astype(int)
        right = mapped.read(1)[nearest[:, None], nearest] == truth.read(1)
    scores = next(line for line in lines if line.split()[:1] == ["aerial+s2+s1"] and "." in line
                  and "map.tif" not in line)  # fmt: skip
    assert scores.split()[2:] == [f"{100 * right.mean():.1f}", "100.0"]
    again = omnisat(*words)
    assert again.code == Exit.EXISTS
    assert "--overwrite" in again.err


def test_a_scene_that_is_not_there_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = omnisat("demo", tmp_path / "absent", "-o", tmp_path / "map.tif")
    assert done.code == Exit.REFUSED
    assert "omnisat simulate" in done.err


def test_truth_is_compared_where_the_map_lies(tmp_path: Path) -> None:
    legend = Legend(
        "t", "1", "s", "l", tuple(LegendClass(k, str(k), str(k), "#000000") for k in range(4))
    )
    truth = write_codes(tmp_path / "t.tif", np.arange(16).reshape(4, 4) // 4, 1, (100, 200))
    # A coarser map, one pixel to the right of the truth: its first column covers truth's 2 and 3.
    mapped = write_codes(tmp_path / "m.tif", np.array([[0, 9], [2, 9]]), 2, (102, 200))
    counts, share = truth_table(truth, mapped, legend)
    expected = np.zeros((4, 4), int)
    expected[0, 0] = expected[1, 0] = expected[2, 2] = expected[3, 2] = 2
    np.testing.assert_array_equal(counts, expected)
    assert share == 0.5
    other = tmp_path / "o.tif"
    with rasterio.open(mapped) as file:
        profile, codes = file.profile | {"crs": "EPSG:32631"}, file.read()
    with rasterio.open(other, "w", **profile) as file:
        file.write(codes)
    with pytest.raises(AlignmentError):
        truth_table(truth, other, legend)


def test_several_worlds_lie_beside_each_other(tmp_path: Path) -> None:
    words = ("simulate", tmp_path / "w", "--count", 2, "--size-km", 0.06)
    assert omnisat(*words, "--seed", 7).code == 0
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == ["7", "8"]
    assert omnisat(*words, "--seed", 8).code == Exit.EXISTS
    assert not (tmp_path / "w" / "9").exists()
