"""Models that label whole places, against places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from learning_worlds import CARDS, ToyExamples, toy_legend
from worlds import card

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.data.batches import Batcher, BatchSpec
from omnisat_cli.learning.datasets.places import WholePlaces
from omnisat_cli.learning.scoring.evaluate_pack import choose_subsets
from omnisat_cli.learning.scoring.evaluate_tags import evaluate_tags
from omnisat_cli.learning.scoring.report_files import write_report
from omnisat_cli.learning.training.validation import Validation
from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.tile import OmniSatTile, TileConfig
from omnisat_cli.outputs.legend import Legend
from omnisat_cli.packs.card import WindowCard
from omnisat_cli.packs.registry import Pack

if TYPE_CHECKING:
    from omnisat_cli.learning.examples import Example

SIDE = 8
CONFIG = TileConfig(
    OmniSatConfig(
        width=16,
        depth=1,
        heads=2,
        grid=(SIDE, SIDE),
        modalities=(
            ImageConfig("aerial", 1, 4),
            SeriesConfig("s2", 2, widths_in=(8, 16), widths_out=(16,), heads=4, key_width=4),
        ),
    ),
    3,
)


def network() -> OmniSatTile:
    torch.manual_seed(0)
    made = OmniSatTile(CONFIG).eval()
    # Class 0 everywhere, class 1 nowhere, class 2 as the network says.
    torch.nn.init.constant_(made.head.head[0].bias[:1], 100.0)
    torch.nn.init.constant_(made.head.head[0].bias[1:2], -100.0)
    return made


def pack(legend: Legend | None = None) -> Pack:
    toy = card(modalities=CARDS, window=WindowCard(size=SIDE, overlap=0, cell=4))
    return Pack(Path("toy"), toy, legend or toy_legend())


def test_places_are_scored_class_by_class_and_subset_by_subset(tmp_path: Path) -> None:
    examples = ToyExamples(count=20, clouds=0.1, task="multilabel")  # class 2 in every second one
    done: list[int] = []
    report = evaluate_tags(
        network(), pack(), examples, lambda names: choose_subsets("all", names), done.append
    )
    assert [result.subset for result in report.results] == ["aerial+s2", "aerial", "s2"]
    assert done[-1] == 20
    for result in report.results:
        each = result.scores.classes
        np.testing.assert_array_equal(each.support, [20, 0, 10])
        assert each.f1[0] == 1.0
        assert np.isnan(each.f1[1])
    write_report(report, tmp_path / "r.html")
    assert "labelled" in (tmp_path / "r.html").read_text()


def test_places_of_a_validation_do_not_count_by_their_batch_mates() -> None:
    class HalfClouded(ToyExamples):
        def example(self, index: int) -> Example:
            return ToyExamples(clouds=index % 2, task="multilabel").example(index)

    figures = []
    for size in (1, 6):
        batcher = Batcher(HalfClouded(task="multilabel"), CARDS, BatchSpec(size, SIDE), seed=0)
        figures.append(Validation(batcher).by_subset(network()))
    assert figures[0] == figures[1]
    # Class 1 is nowhere, class 2 only in places of odd number, which S2 does not show.
    assert set(figures[0]) == {"aerial+s2", "aerial", "s2"}
    assert figures[0]["s2"]["F1 micro"] != figures[0]["aerial"]["F1 micro"]


def test_a_place_without_imagery_is_said_to_hold_nothing() -> None:
    examples = ToyExamples(count=4, clouds=1.0, task="multilabel")  # every series is clouded
    report = evaluate_tags(
        network(), pack(), examples, lambda names: choose_subsets("aerial,s2", names)
    )
    aerial, s2 = report.results
    assert aerial.unmapped == 0
    assert s2.unmapped == 4
    assert s2.scores.classes.recall[0] == 0
    assert report.notes == ("s2: 4 places without imagery",)


def test_places_without_any_label_are_not_measured() -> None:
    class Patchy(ToyExamples):
        def example(self, index: int) -> Example:
            made = super().example(index)
            nowhere = np.full((4 * SIDE, 4 * SIDE), 255, np.uint8)
            return made if index < self.known else replace(made, classes=nowhere)

        known = 3

    report = evaluate_tags(
        network(), pack(), WholePlaces(Patchy(count=5)), lambda names: choose_subsets(None, names)
    )
    assert report.results[0].scores.classes.precision[0] == 1.0
    assert report.results[0].scores.classes.support[0] == 3
    assert report.notes == ("2 places without labels are left out",)
    Patchy.known = 0
    with pytest.raises(SourceError, match="whole places of toy holds no labelled place"):
        evaluate_tags(
            network(), pack(), WholePlaces(Patchy()), lambda names: choose_subsets(None, names)
        )


def test_examples_of_another_kind_are_refused() -> None:
    with pytest.raises(JobError, match="labels pixels"):
        evaluate_tags(network(), pack(), ToyExamples(), lambda names: [tuple(names)])
    other = Legend("o", "1", "test", "MIT", toy_legend().classes[:2])
    with pytest.raises(JobError, match="cannot be compared"):
        evaluate_tags(
            network(),
            pack(other),
            ToyExamples(task="multilabel"),
            lambda names: [tuple(names)],
        )

    class Coarse(ToyExamples):
        patch_m = 40.0

    with pytest.raises(JobError, match=r"toy has patches of 40 m, .* of 10 m"):
        evaluate_tags(network(), pack(), Coarse(task="multilabel"), lambda names: [tuple(names)])
