from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cli_runs import omnisat

from omnisat_cli.errors import Exit

if TYPE_CHECKING:
    import pytest


def test_a_machine_that_runs_the_tests_is_healthy() -> None:
    done = omnisat("doctor", "--json")
    plain = json.loads(done.out)
    assert (done.code, plain["usable"]) == (0, True)
    for name in ("omnisat", "python", "torch", "gdal", "proj", "hdf5", "zarr"):
        assert plain["versions"][name]
    topics = {finding["topic"] for finding in plain["findings"]}
    assert {"cpu", "memory", "gpu", "gdal", "disk, here", "disk, temporary"} <= topics


def test_a_fault_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisat_cli.cli.doctor._DRIVERS", {"Etch A Sketch": "draw maps"})
    monkeypatch.setattr("omnisat_cli.cli.doctor.FOREIGN_PROJ", ("PROJ_LIB",))
    done = omnisat("doctor")
    assert done.code == Exit.REFUSED
    assert "cannot draw maps" in done.out
    assert "PROJ_LIB is set" in done.out
    assert done.out.endswith("omnisat cannot work here.\n")


def test_a_library_that_does_not_load_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisat_cli.cli.doctor._LIBRARIES", ("numpy", "no_such_library"))
    done = omnisat("doctor")
    assert done.code == Exit.REFUSED
    assert "no_such_library" in done.out
