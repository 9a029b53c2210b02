"""Shared by all tests: hypothesis without deadlines, and the optional folder of real files."""

from __future__ import annotations

import os
from pathlib import Path

# One thread a test process, set before torch is imported: tests run side by side, and threads that
# wait for one another on a busy machine cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

settings.register_profile("omnisat", deadline=None, max_examples=40)
settings.load_profile("omnisat")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files beside the repository; tests skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("OMNISAT_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no real files: {folder} is absent (set OMNISAT_SHARED)")
    return folder
