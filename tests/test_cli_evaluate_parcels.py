"""`omnisat evaluate --parcels`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli_runs import omnisat
from test_learning_parcel_scores import box, squares, write

from omnisat_cli.errors import Exit

if TYPE_CHECKING:
    from pathlib import Path


def test_parcels_are_compared_with_reference_parcels(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference.gpkg", squares("1122"), name="crop")
    case = [*squares("112"), ("2", box(30, 0, 40, 4)), ("2", box(90, 0, 99, 9))]
    predicted = write(tmp_path / "predicted.gpkg", case)
    words = ("evaluate", "--parcels", predicted, "--reference", reference, "--field", "crop")
    done = omnisat(*words, "--json")
    assert done.code == Exit.COMPLETE, done.err
    content = json.loads(done.out)
    assert content["by_class"]["1"]["pq"] == 1
    assert content["by_class"]["2"]["found"] == 1
    assert content["by_class"]["2"]["false"] == 2
    assert content["pq"] == pytest.approx((1 + 1 / 2.5) / 2)
    shown = omnisat(*words, "--elsewhere-void", "--tolerance", "1")
    assert shown.code == Exit.COMPLETE
    assert "mean over the classes: PQ 75.0" in shown.out
    assert "outlines within 1 m" in shown.out


def test_parcels_need_a_reference_and_nothing_else(tmp_path: Path) -> None:
    parcels = write(tmp_path / "p.gpkg", squares("11"))
    alone = omnisat("evaluate", "--parcels", parcels)
    assert alone.code == Exit.USAGE
    assert "--reference" in alone.err
    both = omnisat("evaluate", parcels, "--parcels", parcels, "--reference", parcels)
    assert both.code == Exit.USAGE
    assert "leave out MAP" in both.err
    assert omnisat("evaluate", "--reference", parcels).code == Exit.USAGE
