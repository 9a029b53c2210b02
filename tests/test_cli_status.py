from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
from cli_runs import Scene, omnisat, write_tiny_scene

from omnisat_cli.cli import predict as predict_module
from omnisat_cli.cli.progress import Silence
from omnisat_cli.errors import Exit
from omnisat_cli.outputs.lock import Lock

if TYPE_CHECKING:
    from pathlib import Path

    from omnisat_cli.geo.plan import Block
    from omnisat_cli.outputs.journal import BlockRecord


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_tiny_scene(tmp_path_factory.mktemp("scene"))


class Crash(Silence):
    """Ends a run after its second block, as a fault of the program would."""

    blocks = 0

    def block(self, block: Block, record: BlockRecord, km2: float) -> None:
        self.blocks += 1
        if self.blocks == 2:
            raise KeyboardInterrupt


def test_a_folder_shows_its_maps_and_its_runs(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert scene.predict(out / "whole.tif", "--s1", scene.s1).code == 0
    words = ("--s2", scene.s2, "--block", 80, "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "choose_progress", lambda quiet: Crash())
        assert scene.predict(out / "half.tif", *words).code == Exit.INTERRUPTED
    done = omnisat("status", out)
    assert done.code == 0
    assert f"{out / 'whole.tif'}  complete" in done.out
    assert "tiny 1, s1" in done.out
    assert f"{out / 'half.tif'}  stopped: blocks 2/9" in done.out
    assert "whole.tif" not in omnisat("status", out / "half.tif").out
    plain = json.loads(omnisat("status", out, "--json").out)
    assert [entry["blocks"] for entry in plain["maps"]] == [1]
    (run,) = plain["runs"]
    assert (run["done"], run["blocks"], run["pid"]) == (2, 9, None)
    with Lock(out / "half.tif.omnisat" / "lock"):
        assert "running as process" in omnisat("status", out).out
    resumed = omnisat(*shlex.split(run["next_command"])[1:])
    assert (resumed.code, "2 done by an earlier run" in resumed.err) == (0, True), resumed.err
    assert json.loads(omnisat("status", out, "--json").out)["runs"] == []


def test_a_place_without_anything_is_said_so(tmp_path: Path) -> None:
    assert "no map of omnisat" in omnisat("status", tmp_path).out
    assert omnisat("status", tmp_path / "absent").code == Exit.REFUSED


def test_damaged_records_are_reported_not_raised(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    (tmp_path / "a.provenance.json").write_text("{")
    (tmp_path / "b.provenance.json").write_text("{}")
    (tmp_path / "c.tif.omnisat").mkdir()
    (tmp_path / "c.tif.omnisat" / "run.json").write_text("[]")
    done = omnisat("status", tmp_path)
    assert done.code == 0
    assert "cannot be read" in done.out
    assert "is gone" in done.out
    assert "c.tif" in done.out
