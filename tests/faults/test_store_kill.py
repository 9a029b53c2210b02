"""Kill a run anywhere, run it again: the same bytes as without the kill."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, get_args

import pytest
from outputs_runs import CHILDREN, KILLED_WORLD, folder_bytes, run_and_clean

from omnisat_cli.outputs.faults import KILLED, VARIABLE, Point
from omnisat_cli.outputs.mosaic import histogram
from omnisat_cli.outputs.provenance import verify
from omnisat_cli.outputs.run import staging_folder

if TYPE_CHECKING:
    import multiprocessing.process
    from pathlib import Path

BLOCKS = len(KILLED_WORLD.plan.blocks)
LATER = [("mid-journal", BLOCKS), ("mid-mosaic", 2 * BLOCKS), ("between-products", 8)]
CASES = [(point, 1) for point in get_args(Point)] + LATER
"""Point, and the pass at which the kill comes."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run_and_clean(folder / "map.tif", {})
    return folder_bytes(folder)


def start(out: Path, fault: str | None) -> multiprocessing.process.BaseProcess:
    environment = {} if fault is None else {VARIABLE: fault}
    child = CHILDREN.Process(target=run_and_clean, args=(out, environment))
    child.start()
    return child


def finish(out: Path, expected: dict[str, bytes]) -> None:
    """Do what a user does after a kill, and compare."""
    world = KILLED_WORLD
    world.run(out)
    with world.store(out) as store:
        store.discard()
    assert folder_bytes(out.parent) == expected
    assert verify(out).differences == ()
    assert not staging_folder(out).exists()


@pytest.mark.parametrize(("point", "n"), CASES)
def test_a_run_killed_anywhere_resumes_to_the_same_bytes(
    tmp_path: Path, expected: dict[str, bytes], point: str, n: int
) -> None:
    out = tmp_path / "map.tif"
    child = start(out, f"{point}:{n}")
    child.join(60)
    assert child.exitcode == KILLED
    if out.exists():  # never half a map under its name
        assert out.read_bytes() == expected["map.tif"]
        assert histogram(out).sum() > 0
    finish(out, expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_any_time_resumes_to_the_same_bytes(
    tmp_path: Path, expected: dict[str, bytes], seed: int
) -> None:
    out = tmp_path / "map.tif"
    child = start(out, None)
    time.sleep(random.Random(seed).uniform(0.01, 0.4))
    if child.pid is not None and child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    finish(out, expected)


def test_faults_are_inert_unless_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "no-such-point:1")
    KILLED_WORLD.run(tmp_path / "map.tif")
    assert verify(tmp_path / "map.tif").intact
