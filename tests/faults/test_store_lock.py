"""Two processes never write one output; a dead one blocks nobody."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from outputs_runs import CHILDREN, World

from omnisat_cli.errors import OutputExistsError
from omnisat_cli.outputs.lock import Lock, Owner
from omnisat_cli.outputs.run import staging_folder
from omnisat_cli.outputs.store import BlockStore

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

WORLD = World()


def _hold(out: Path, ready: Event) -> None:
    WORLD.store(out)
    ready.set()
    signal.pause()


def test_a_second_process_is_told_who_works_there_and_a_dead_one_is_taken_over(
    tmp_path: Path,
) -> None:
    out, ready = tmp_path / "map.tif", CHILDREN.Event()
    child = CHILDREN.Process(target=_hold, args=(out, ready))
    child.start()
    assert ready.wait(30)
    assert child.pid is not None
    try:
        for attempt in (
            lambda: WORLD.store(out),
            lambda: BlockStore.create(staging_folder(out), {}, WORLD.facts, start_over=True),
        ):
            with pytest.raises(OutputExistsError) as caught:
                attempt()
            assert f"process {child.pid} on {socket.gethostname()}" in str(caught.value)
            assert caught.value.exit_code == 5
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join(30)
    assert Owner.read(staging_folder(out) / "lock") is not None
    WORLD.store(out).close()


def test_the_same_process_cannot_open_a_run_twice(tmp_path: Path) -> None:
    with (
        WORLD.store(tmp_path / "map.tif"),
        pytest.raises(OutputExistsError, match=str(os.getpid())),
    ):
        WORLD.store(tmp_path / "map.tif")


def test_a_lock_of_another_machine_is_respected(tmp_path: Path) -> None:
    WORLD.store(tmp_path / "map.tif").close()
    path = staging_folder(tmp_path / "map.tif") / "lock"
    path.write_text(json.dumps({"pid": 7, "host": "elsewhere", "boot": "x"}))
    with pytest.raises(OutputExistsError, match=r"process 7 on elsewhere.*remove"):
        WORLD.store(tmp_path / "map.tif")
    path.unlink()
    WORLD.store(tmp_path / "map.tif").close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 9000])
def test_a_lock_file_that_names_nobody_is_taken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    with Lock(tmp_path / "lock") as lock:
        assert lock.held
        assert Owner.read(tmp_path / "lock") == Owner.this()


def test_a_lock_left_before_a_restart_is_taken_over(tmp_path: Path) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "boot": "an earlier one"}
    (tmp_path / "lock").write_text(json.dumps(owner))
    with Lock(tmp_path / "lock") as lock:
        assert lock.held
