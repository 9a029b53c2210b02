"""The five datasets of GeoPlex in one pretraining: other sensors, scales and patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from planted_files import write_planted
from test_learning_datasets_flair import write_two
from test_learning_datasets_pastis import published as pastis
from test_learning_datasets_s2naip import published as naip
from test_learning_datasets_treesatai import published as treesat

from omnisat_cli.learning.training.lesson import FitSpec
from omnisat_cli.learning.training.mixing import (
    EXAMPLE,
    Mixture,
    Part,
    pooled_cards,
    read_mixture,
)
from omnisat_cli.learning.training.pretrain_anysat import JepaJob, pretrain_anysat
from omnisat_cli.networks.anysat_pretraining import JepaConfig

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["naip", "pastis", "treesat"]

SEED = 65
"""Draws each dataset once in five steps, with four sides of a patch."""

SMALLER: dict[str, dict[str, object]] = {
    "planted": {"batch": 2},
    "pastis-hd": {"batch": 1, "side": 8, "split": None, "folds": ("1",)},
    "flair": {"batch": 1, "side": 4},
    "treesatai-ts": {"batch": 2},
    "s2-naip": {"batch": 1, "side": 8, "split": None},
}
"""What the example says of each dataset, for windows of a few tiles."""


@pytest.fixture(scope="module")
def parts(
    pastis: Path, naip: Path, treesat: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Part, ...]:
    root = tmp_path_factory.mktemp("geoplex")
    write_planted(root / "planted", {"train": {"a": 1, "b": 2}})
    write_two(root / "flair", "000001", "D006_2020")
    (root / "flair" / "flair-2_centroids_sp_to_patch.json").write_text('{"IMG_000001.tif":[20,31]}')
    roots = {
        "planted": root / "planted", "pastis-hd": pastis, "flair": root / "flair",
        "treesatai-ts": treesat, "s2-naip": naip,
    }  # fmt: skip
    path = root / "mix.toml"
    path.write_text(EXAMPLE.read_text())
    members = [
        member.model_copy(update={"root": roots[member.name], **SMALLER[member.name]})
        for member in read_mixture(path)
    ]
    return tuple(Part(member, member.open()) for member in members)


def test_the_example_has_the_published_weights_scales_and_sensors(parts: tuple[Part, ...]) -> None:
    members = {member.name: member for member in read_mixture(EXAMPLE)}
    said = {name: (m.weight, m.scales, m.batch) for name, m in members.items()}
    assert said == {
        "planted": (2, (3,), 256),
        "pastis-hd": (1, (4, 8, 16), 1),
        "flair": (1, (1, 2), 32),
        "treesatai-ts": (1, (1, 2), 128),
        "s2-naip": (4, (4, 8, 16), 2),
    }
    assert members["pastis-hd"].keep_dates == 20
    cards = {card.name: card for card in pooled_cards(parts)}
    assert {name: card.gsd for name, card in cards.items()} == {
        "s2": 10, "s1": 10, "l7": 30, "alos": 30, "modis": 250, "spot": 1, "s1-asc": 10,
        "aerial-flair": 0.2, "aerial": 0.2, "naip": 1.25,
    }  # fmt: skip
    # PASTIS stores a ratio beside, TreeSatAI does not: it follows from the other two.
    assert (cards["s1-asc"].bands, cards["s1-asc"].units) == (("VV", "VH"), "db")


def test_five_datasets_become_one_pack(parts: tuple[Part, ...], tmp_path: Path) -> None:
    fit = FitSpec(steps=len(parts), rate=1e-3, device="cpu", seed=SEED)
    job = JepaJob(tmp_path / "pack", fit, JepaConfig(depth=1, heads=4), size="tiny")
    report = pretrain_anysat(parts, job)
    assert report.pack is not None
    card = report.pack.card
    assert "patches of 40, 80, 160 m" in card.training
    mixture = Mixture(parts, card.modalities, seed=SEED)
    drawn = [mixture.batch(step) for step in range(len(parts))]
    assert {mixed.member for mixed in drawn} == {part.member.name for part in parts}
    assert [mixed.patch_m for mixed in drawn] == [30, 20, 20, 80, 160]
    assert 0 < report.fit.loss["loss"] < 20
