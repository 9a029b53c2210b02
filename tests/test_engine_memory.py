from __future__ import annotations

import sys

import pytest

from omnisat_cli.engine.memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_the_allocator_takes_the_thresholds() -> None:
    assert keep_freed_memory()
