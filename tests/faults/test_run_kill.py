"""Kill the whole command anywhere, run it again: the same bytes as without the kill."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from cli_runs import Scene, write_lively_scene
from outputs_runs import CHILDREN, folder_bytes

from omnisat_cli.errors import Exit
from omnisat_cli.outputs.faults import KILLED, VARIABLE
from omnisat_cli.outputs.journal import JOURNAL
from omnisat_cli.outputs.provenance import verify
from omnisat_cli.outputs.run import staging_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from pathlib import Path

CHILDREN.set_forkserver_preload(
    [
        "omnisat_cli.outputs.export",
        "omnisat_cli.sources.safe",
        "rasterio.shutil",
        "PIL.ImageFont",
        "omnisat_cli.runners.predict",
        "omnisat_cli.cli.app",
        "test_run_kill",
    ]
)

BLOCKS = 4
SECONDS = 90
CASES = [
    ("mid-part", 1),
    ("before-rename", BLOCKS),
    ("after-rename", 2),
    ("mid-journal", 2),
    ("after-journal", 3),
    ("before-export", 1),
    ("mid-cog", 1),
    ("between-products", 1),
    ("before-complete", 1),
    ("mid-clean", 1),
]
"""Point, and the pass at which the kill comes."""


@dataclass(frozen=True)
class Job:
    """One command over the tiny scene, in a process of its own or in this one."""

    scene: Scene
    out: Path
    on: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        inputs = ("--aerial", str(self.scene.aerial), "--s1", str(self.scene.s1))
        return (*inputs, "--block", "160", *self.on)

    @property
    def journal(self) -> Path:
        return staging_folder(self.out) / JOURNAL

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def _log(self) -> Path:
        return self.out.parent.with_name(f"{self.out.parent.name}.log")

    def start(self, fault: str | None = None) -> BaseProcess:
        words = ("predict", "-m", str(self.scene.pack), "--threads", "1", "-o", str(self.out))
        environment = {} if fault is None else {VARIABLE: fault}
        child = CHILDREN.Process(
            target=run_command, args=((*words, *self.words), environment, self._log)
        )
        child.start()
        return child

    def finish(self, expected: dict[str, bytes]) -> None:
        """Do what a user does after a kill: the same command, and compare."""
        assert self.scene.predict(self.out, *self.words).code == 0
        assert folder_bytes(self.out.parent) == expected
        assert verify(self.out).differences == ()
        assert not staging_folder(self.out).exists()


def run_command(words: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
    """Body of a child process: the command as the shell would start it."""
    from omnisat_cli.__main__ import main

    os.environ.update(environment)
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = ["omnisat", *words]
    main()


def wait_for(happened: Callable[[], bool], child: BaseProcess) -> None:
    limit = time.monotonic() + SECONDS
    while not happened() and child.is_alive():
        assert time.monotonic() < limit
        time.sleep(0.002)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_lively_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def expected(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run that nothing disturbed leaves behind."""
    job = Job(scene, tmp_path_factory.mktemp("undisturbed") / "map.tif")
    child = job.start()
    child.join(SECONDS)
    assert child.exitcode == 0, job.said
    with rasterio.open(job.out) as classes:
        shares = np.bincount(classes.read().ravel(), minlength=3) / (classes.width * classes.height)
    assert shares.max() < 0.9  # a map of one class would prove nothing
    return folder_bytes(job.out.parent)


@pytest.fixture
def job(scene: Scene, tmp_path: Path) -> Job:
    return Job(scene, tmp_path / "out" / "map.tif")


@pytest.mark.parametrize(("point", "n"), CASES)
def test_a_command_killed_at_a_fault_point_finishes_to_the_same_bytes(
    job: Job, expected: dict[str, bytes], point: str, n: int
) -> None:
    child = job.start(f"{point}:{n}")
    child.join(SECONDS)
    assert child.exitcode == KILLED, job.said
    if job.out.exists():  # never half a map under its name
        assert job.out.read_bytes() == expected["map.tif"]
    job.finish(expected)


@pytest.mark.parametrize("seed", range(2))
def test_a_command_killed_after_some_blocks_finishes_to_the_same_bytes(
    job: Job, expected: dict[str, bytes], seed: int
) -> None:
    wanted = random.Random(seed).randint(1, BLOCKS - 1)
    child = job.start()
    wait_for(lambda: lines(job.journal) >= wanted, child)
    child.kill()
    child.join(SECONDS)
    job.finish(expected)


def test_a_map_that_is_replaced_stays_whole_until_the_new_one_is(
    job: Job, expected: dict[str, bytes]
) -> None:
    assert job.scene.predict(job.out, "--s2", job.scene.s2).code == 0
    before = job.out.read_bytes()
    again = Job(job.scene, job.out, on=("--overwrite",))
    child = again.start("mid-cog:1")
    child.join(SECONDS)
    assert child.exitcode == KILLED
    assert job.out.read_bytes() == before
    assert verify(job.out).intact
    again.finish(expected)


def test_a_terminated_command_says_how_to_go_on_and_does(
    job: Job, expected: dict[str, bytes]
) -> None:
    child = job.start()
    wait_for(lambda: lines(job.journal) >= 1, child)
    child.terminate()
    child.join(SECONDS)
    assert child.exitcode == Exit.INTERRUPTED, job.said
    assert "the same command goes on" in job.said
    assert "Traceback" not in job.said
    assert not job.out.exists()
    assert 1 <= lines(job.journal) < BLOCKS
    job.finish(expected)


def test_a_second_process_towards_the_same_output_is_told_who_works_there(
    job: Job, expected: dict[str, bytes]
) -> None:
    child = job.start()
    wait_for(lambda: lines(job.journal) >= 1, child)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    try:
        for more in ((), ("--overwrite",), ("--no-resume",)):
            second = job.scene.predict(job.out, *job.words, *more)
            assert second.code == Exit.EXISTS
            assert str(child.pid) in second.err
    finally:
        os.kill(child.pid, signal.SIGCONT)
    child.join(SECONDS)
    assert child.exitcode == 0, job.said
    assert folder_bytes(job.out.parent) == expected
