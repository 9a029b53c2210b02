"""The network must keep giving what it gave when its golden outputs were written."""

import importlib.util
import json
from pathlib import Path

import pytest

_MAKE = Path(__file__).parent / "golden" / "networks" / "make.py"


def test_the_segmenter_gives_its_golden_outputs() -> None:
    spec = importlib.util.spec_from_file_location("golden_networks", _MAKE)
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    stored = json.loads(make.FILE.read_text())
    found = make.outputs()
    assert set(found) == set(stored)
    for key, values in stored.items():
        assert found[key] == pytest.approx(values, abs=2e-5, rel=1e-5), key
