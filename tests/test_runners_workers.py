"""Worker processes give the map of a single process, and their deaths are told."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_runs import Scene, write_tiny_scene

from omnisat_cli.errors import JobError
from omnisat_cli.job import Execution

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = ("map.tif", "map.confidence.tif", "map.validity.tif", "map.presence.tif")


def run(scene: Scene, out: Path, workers: int) -> subprocess.CompletedProcess[str]:
    words = ["predict", "-m", scene.pack, "--aerial", scene.aerial, "--s1", scene.s1, "-o", out]
    words += ["--threads", 1, "--workers", workers, "--block", 80, "--memory", 4096, "-q"]
    command = [sys.executable, "-m", "omnisat_cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one_process(tmp_path: Path) -> None:
    scene = write_tiny_scene(tmp_path)
    for workers in (1, 2):
        result = run(scene, tmp_path / f"w{workers}" / "map.tif", workers)
        assert result.returncode == 0, result.stderr
    for name in LAYERS:
        one, two = (tmp_path / f"w{k}" / name for k in (1, 2))
        assert one.read_bytes() == two.read_bytes(), name


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_error_of_the_command(tmp_path: Path) -> None:
    scene = write_tiny_scene(tmp_path)
    scene.aerial.write_bytes(scene.aerial.read_bytes()[:100_000])
    result = run(scene, tmp_path / "out" / "map.tif", 2)
    assert result.returncode == 3
    assert "aerial.tif" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "map.tif").exists()


def test_memory_is_shared_by_the_workers() -> None:
    with pytest.raises(JobError, match="each of 8"):
        Execution(workers=8, memory_mb=2048)
