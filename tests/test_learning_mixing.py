"""Several datasets in one pretraining of AnySat: described safely, drawn repeatably."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SIDE, Places

from omnisat_cli.errors import CheckpointError, JobError, SourceError
from omnisat_cli.learning.training.design_anysat import design_sensor
from omnisat_cli.learning.training.lesson import FitSpec
from omnisat_cli.learning.training.mixing import Member, Mixture, Part, pooled_cards, read_mixture
from omnisat_cli.learning.training.pretrain_anysat import JepaJob, pretrain_anysat, view_of
from omnisat_cli.networks.anysat_config import SENSORS
from omnisat_cli.networks.anysat_pretraining import JepaConfig
from omnisat_cli.networks.table import build_network
from omnisat_cli.packs.card import ModalityCard
from omnisat_cli.packs.registry import load_weights


def member(**changes: object) -> Member:
    plain = {"name": "scenes", "root": ".", "batch": 2, **changes}
    return Member.model_validate(plain)


def parts() -> tuple[Part, ...]:
    """Two datasets with other sensors, scales and batches."""
    return (
        Part(member(scales=[1, 2], weight=3), Places(("aerial", "s2"))),
        Part(member(name="pastis-hd", scales=[1], batch=1), Places(("s2", "s1"), name="others")),
    )


def job_for(out: Path, steps: int = 3, **changes: object) -> JepaJob:
    fit = FitSpec(steps=steps, rate=1e-3, device="cpu")
    job = JepaJob(out, fit, JepaConfig(depth=1, heads=4), size="tiny")
    return replace(job, **changes)  # type: ignore[arg-type]


# --- the description


def test_a_mixture_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mix.toml"
    path.write_text(
        '[[dataset]]\nname = "scenes"\nroot = "here"\nscales = [1, 2]\nweight = 2\n'
        '[[dataset]]\nname = "pastis-hd"\nroot = "/there"\nfolds = ["1", "2"]\nbatch = 1\n'
    )
    one, two = read_mixture(path)
    assert (one.root, one.scales, one.weight) == (tmp_path / "here", (1, 2), 2.0)
    assert (two.root, two.folds, two.batch, two.weight) == (Path("/there"), ("1", "2"), 1, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "dataset: Field required"),
        ("dataset = []", "dataset: "),
        ('[[dataset]]\nname = "scenes"', "root: Field required"),
        ('[[dataset]]\nname = "s"\nroot = "."\nscales = []', "scales"),
        ('[[dataset]]\nname = "s"\nroot = "."\nweight = -1', "weight"),
        ('[[dataset]]\nname = "s"\nroot = "."\nweight = nan', "weight"),
        ('[[dataset]]\nname = "s"\nroot = "."\nclass = "os.system"', "class: Extra inputs"),
        ("[[dataset", "is no TOML"),
    ],
)
def test_descriptions_that_say_something_else_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mix.toml"
    path.write_text(text)
    with pytest.raises(JobError, match=message):
        read_mixture(path)


def test_a_description_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_mixture(tmp_path / "mix.toml")


# --- draws


def test_steps_follow_from_their_number_alone() -> None:
    cards = pooled_cards(parts())
    one, two = (Mixture(parts(), cards, seed=4) for _ in range(2))
    for number in (0, 5, 2):
        first, again = one.batch(number), two.batch(number)
        assert (first.member, first.patch_m) == (again.member, again.patch_m)
        torch.testing.assert_close(first.batch.pixels, again.batch.pixels)
        assert torch.equal(first.masks.context, again.masks.context)


def test_datasets_come_by_weight_and_scales_of_their_own() -> None:
    mixture = Mixture(parts(), pooled_cards(parts()), seed=0)
    drawn = Counter(mixture._place(number)[0] for number in range(2000))
    assert drawn[0] / 2000 == pytest.approx(0.75, abs=0.05)
    seen = [mixture.batch(number) for number in range(12)]
    assert {batch.patch_m for batch in seen if batch.member == "scenes"} == {10, 20}
    assert {batch.patch_m for batch in seen if batch.member == "pastis-hd"} == {10}
    assert {len(batch.batch) for batch in seen if batch.member == "pastis-hd"} == {1}
    for batch in seen:
        assert (
            set(batch.batch.pixels)
            <= {"scenes": {"aerial", "s2"}, "pastis-hd": {"s2", "s1"}}[batch.member]
        )


def test_every_dataset_is_walked_in_epochs_of_its_own() -> None:
    mixture = Mixture(parts(), pooled_cards(parts()), seed=0)
    places = [mixture._place(number) for number in range(3000)]
    for which in (0, 1):
        assert [n for w, n in places if w == which] == list(
            range(sum(w == which for w, _ in places))
        )


def test_statistics_of_datasets_are_pooled() -> None:
    class Shifted(Places):
        def example(self, index: int):  # type: ignore[no-untyped-def]
            example = super().example(index)
            series = example.sample.data["s1"]
            series.pixels[:] += 10
            return example

    both = (
        Part(member(), Places(("s1",))),
        Part(member(weight=3), Shifted(("s1",))),
    )
    (card,) = pooled_cards(both)
    single = [pooled_cards((part,))[0] for part in both]
    mean = [(a + 3 * b) / 4 for a, b in zip(single[0].mean, single[1].mean, strict=True)]
    assert card.mean == pytest.approx(mean, rel=1e-4)
    share = np.array([[0.25], [0.75]])
    squares = np.array([np.square(c.std) + np.square(c.mean) for c in single])
    expected = np.sqrt((share * squares).sum(0) - np.square(mean))
    assert card.std == pytest.approx(expected, rel=1e-3)


def test_scales_that_do_not_divide_a_window_are_refused() -> None:
    for scales, found in (([3], "1.33"), ([4], "1")):
        bad = (Part(member(scales=scales), Places()),)
        with pytest.raises(JobError, match=rf"windows of 40 m hold {found}"):
            Mixture(bad, pooled_cards(bad), seed=0)


# --- the network


def test_sensors_are_the_published_ones_or_designed() -> None:
    def card(name: str, bands: tuple[str, ...], gsd: float, dates: str | None) -> ModalityCard:
        kind = "db" if name == "s1" else "reflectance_1e4" if name == "s2" else "dn8"
        return ModalityCard.model_validate(
            {
                "name": name, "bands": bands, "gsd": gsd, "units": kind, "dates": dates,
                "mean": [0.0] * len(bands), "std": [1.0] * len(bands),
            }
        )  # fmt: skip

    assert design_sensor(card("spot", ("R", "G", "B"), 1.0, None)) == SENSORS["spot"]
    fine = design_sensor(card("aerial", ("R", "G", "B", "NIR"), 0.5, None))
    assert (fine.gsd_m, fine.subpatch_px, fine.cell_side) == (0.5, 10, 2)
    coarse = design_sensor(card("aerial", ("R", "G", "B"), 2.5, None))
    assert (coarse.subpatch_px, coarse.cell_side) == (4, 1)
    radar = design_sensor(card("s1", ("VV", "VH"), 10.0, "day-of-year"))
    assert (radar.bands, radar.in_norm) == (2, False)
    with pytest.raises(JobError, match="do not divide the 10 m cells"):
        design_sensor(card("aerial", ("R",), 1.5, None))


def test_a_batch_becomes_whole_windows_with_what_is_real() -> None:
    mixture = Mixture(parts(), pooled_cards(parts()), seed=0)
    plain = build_network_config()
    mixed = next(batch for batch in map(mixture.batch, range(50)) if batch.patch_m == 20)
    view = view_of(mixed, plain)
    assert view.pixels["aerial"].shape == (2, 4, 4 * SIDE, 4 * SIDE)
    assert view.pixels["s2"].shape[0] == 2
    assert view.pixels["s2"].shape[2:] == (10, SIDE, SIDE)
    valid = view.seen.valid["s2"]
    assert not view.pixels["s2"].movedim(2, -1)[~valid].any()
    assert "aerial" not in view.seen.present  # real everywhere


def build_network_config():  # type: ignore[no-untyped-def]
    from omnisat_cli.networks.anysat_config import AnySatConfig

    cards = pooled_cards(parts())
    return AnySatConfig(64, 1, 4, sensors=tuple(design_sensor(card) for card in cards))


class StopAfter:
    def __init__(self, steps: int) -> None:
        self.steps, self.event = steps, threading.Event()

    def start(self, steps: int, done: int) -> None:
        self.begun = done

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        if step + 1 == self.steps:
            self.event.set()

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        raise AssertionError("nothing is validated")


def test_a_mixture_becomes_a_pack_and_a_stopped_one_goes_on_exactly(tmp_path: Path) -> None:
    whole = pretrain_anysat(parts(), job_for(tmp_path / "whole"))
    assert whole.pack is not None
    card = whole.pack.card
    assert card.pretrained_only
    assert (card.network.kind, card.names, card.patch_m) == ("anysat", ("aerial", "s2", "s1"), 10)
    assert "99.2% of which are those it began with" in card.training
    network = build_network(card.network.kind, card.network.config)
    network.load_state_dict(load_weights(whole.pack))

    job = job_for(tmp_path / "parts")
    watch = StopAfter(2)
    assert pretrain_anysat(parts(), job, watch=watch, stop=watch.event).pack is None
    second = pretrain_anysat(parts(), job, watch=(after := StopAfter(99)))
    assert after.begun == 2
    assert second.pack is not None
    torch.testing.assert_close(load_weights(second.pack), load_weights(whole.pack), rtol=0, atol=0)

    more = pretrain_anysat(
        parts(), job_for(tmp_path / "more", 1, start=str(tmp_path / "whole"), keep="student")
    )
    assert more.pack is not None
    assert "continued from whole" in more.pack.card.training
    assert "the student's weights" in more.pack.card.training


def test_the_official_recipe_trains_too(tmp_path: Path) -> None:
    config = JepaConfig(depth=1, heads=4, recipe="official")
    report = pretrain_anysat(parts(), job_for(tmp_path / "pack", 2, config=config))
    assert set(report.fit.loss) == {"predict", "contrast", "loss"}


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no multiple of 5 heads"):
        pretrain_anysat(parts(), job_for(tmp_path / "a", config=JepaConfig(1, 5)))
    with pytest.raises(JobError, match="there are tiny"):
        pretrain_anysat(parts(), job_for(tmp_path / "a", size="huge"))
    with pytest.raises(CheckpointError, match="its network is omnisat"):
        pretrain_anysat(parts(), job_for(tmp_path / "a", start="omnisat-demo"))
