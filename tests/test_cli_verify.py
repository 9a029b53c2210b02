from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cli_runs import omnisat
from outputs_runs import World

from omnisat_cli.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


def test_a_map_is_compared_with_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    World().run(out)
    done = omnisat("verify", out)
    assert done.code == 0
    assert f"{out}  intact" in done.out
    (tmp_path / "map.tif.aux.xml").write_text("<PAMDataset/>")
    done = omnisat("verify", tmp_path)  # statistics that QGIS wrote are no damage
    assert (done.code, "edited: map.tif.aux.xml" in done.out) == (0, True)
    content = bytearray(out.read_bytes())
    content[len(content) // 2] ^= 1
    out.write_bytes(content)
    (tmp_path / "map.qml").unlink()
    done = omnisat("verify", out, "--json")
    assert done.code == Exit.REFUSED
    (about,) = json.loads(done.out)["maps"]
    kinds = {entry["name"]: entry["kind"] for entry in about["differences"]}
    assert kinds == {"map.tif": "changed", "map.qml": "missing", "map.tif.aux.xml": "edited"}
    assert not about["intact"]


def test_what_has_no_provenance_cannot_be_verified(tmp_path: Path) -> None:
    assert omnisat("verify", tmp_path).code == Exit.REFUSED
    done = omnisat("verify", tmp_path / "map.tif")
    assert done.code == Exit.REFUSED
    assert "cannot be verified" in done.err
