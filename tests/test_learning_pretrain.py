"""Pretraining of OmniSat: from any examples to a pack, exactly resumable, labels not looked at."""

import csv
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import SIDE, Places

from omnisat_cli.errors import CheckpointError, JobError, OutputExistsError, ResumeError
from omnisat_cli.learning.data.batches import BatchSpec
from omnisat_cli.learning.simulate.legend import sim_legend
from omnisat_cli.learning.training.lesson import FitSpec, LossError
from omnisat_cli.learning.training.pretrain import PretrainJob, PretrainReport, pretrain
from omnisat_cli.networks.pretraining import PretrainConfig
from omnisat_cli.networks.table import build_network
from omnisat_cli.outputs.run import staging_folder
from omnisat_cli.packs.registry import load_weights
from omnisat_cli.packs.writer import write_pack


def job_for(out: Path, steps: int = 3, **changes: object) -> PretrainJob:
    settings = {"steps": steps, "rate": 1e-3, "weight_decay": 0.0, "device": "cpu"}
    job = PretrainJob(out, FitSpec(**settings), BatchSpec(2), size="tiny")  # type: ignore[arg-type]
    return replace(job, **changes)  # type: ignore[arg-type]


def weights_of(report: PretrainReport) -> Mapping[str, torch.Tensor]:
    assert report.pack is not None
    return load_weights(report.pack)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> PretrainReport:
    return pretrain(Places(), job_for(tmp_path_factory.mktemp("whole") / "Pack 1"))


def test_the_pack_holds_a_network_that_is_not_for_maps(pretrained: PretrainReport) -> None:
    pack = pretrained.pack
    assert pack is not None
    card = pack.card
    assert card.pretrained_only
    assert card.name == "pack-1"
    assert card.names == ("aerial", "s2", "s1")
    assert (card.coarse_m, card.fine_m, card.window.size) == (10.0, 5.0, SIDE)
    assert "untrained" in card.limits
    assert "3 steps of 2 windows" in card.training
    network = build_network(card.network.kind, card.network.config)
    network.load_state_dict(load_weights(pack))


def test_every_term_of_the_loss_is_logged(pretrained: PretrainReport) -> None:
    assert pretrained.pack is not None
    with (pretrained.pack.folder / "training.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    terms = {"contrast", "reconstruct aerial", "reconstruct s2", "reconstruct s1"}
    assert terms < set(rows[0])
    for row in rows:
        assert sum(float(row[name]) for name in terms) == pytest.approx(float(row["loss"]))
    assert not staging_folder(pretrained.pack.folder).exists()


def test_labels_have_no_influence(pretrained: PretrainReport, tmp_path: Path) -> None:
    again = pretrain(Places(labelled=True), job_for(tmp_path / "pack"))
    torch.testing.assert_close(weights_of(again), weights_of(pretrained), rtol=0, atol=0)


class StopAfter:
    """A watch that wants the training to end after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps, self.event = steps, threading.Event()

    def start(self, steps: int, done: int) -> None:
        self.begun = done

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        if step + 1 == self.steps:
            self.event.set()

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        raise AssertionError("nothing is validated")


def test_a_stopped_pretraining_goes_on_exactly(pretrained: PretrainReport, tmp_path: Path) -> None:
    job = job_for(tmp_path / "pack")
    watch = StopAfter(2)
    first = pretrain(Places(), job, watch=watch, stop=watch.event)
    assert first.pack is None
    assert first.fit.ended == "stopped"
    second = pretrain(Places(), job, watch=(after := StopAfter(99)))
    assert after.begun == 2
    torch.testing.assert_close(weights_of(second), weights_of(pretrained), rtol=0, atol=0)
    assert second.pack is not None
    with (second.pack.folder / "training.csv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == [0, 1, 2]


def test_a_stopped_pretraining_goes_on_with_nothing_else(tmp_path: Path) -> None:
    job = job_for(tmp_path / "pack")
    watch = StopAfter(1)
    pretrain(Places(), job, watch=watch, stop=watch.event)
    other = replace(job, config=PretrainConfig(image_share=0.5))
    with pytest.raises(ResumeError, match=r"pretraining\.image_share"):
        pretrain(Places(), other)
    fresh = pretrain(Places(), replace(other, resume=False))
    assert fresh.fit.steps == 3


def test_a_pack_that_is_there_is_kept(pretrained: PretrainReport) -> None:
    assert pretrained.pack is not None
    with pytest.raises(OutputExistsError, match="replace it"):
        pretrain(Places(), job_for(pretrained.pack.folder))


def test_pretraining_goes_on_from_a_pack(pretrained: PretrainReport, tmp_path: Path) -> None:
    assert pretrained.pack is not None
    start = str(pretrained.pack.folder)
    further = pretrain(Places(("s2", "s1")), job_for(tmp_path / "more", start=start))
    assert further.pack is not None
    assert further.pack.card.names == ("aerial", "s2", "s1")
    assert "continued from pack-1" in further.pack.card.training
    before, after = weights_of(pretrained), weights_of(further)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(key.startswith("encoder.projector_s2.") for key in moved)
    assert not any(key.startswith(("encoder.projector_aerial.", "head.")) for key in moved)


def test_packs_of_other_networks_are_no_start(pretrained: PretrainReport, tmp_path: Path) -> None:
    assert pretrained.pack is not None
    folder = tmp_path / "other"
    shutil.copytree(pretrained.pack.folder, folder)
    card = pretrained.pack.card
    other = card.model_copy(update={"network": card.network.model_copy(update={"kind": "unet"})})
    write_pack(folder, other, sim_legend().to_json(), load_weights(pretrained.pack))
    with pytest.raises(CheckpointError, match="its network is unet"):
        pretrain(Places(), job_for(tmp_path / "pack", start=str(folder)))
    with pytest.raises(JobError, match="cannot be changed"):
        pretrain(
            Places(),
            job_for(tmp_path / "pack", start=str(pretrained.pack.folder), modalities=("s2", "s1")),
        )
    with pytest.raises(JobError, match="patches of 10 m"):
        pretrain(
            Places(patch_m=20.0), job_for(tmp_path / "pack", start=str(pretrained.pack.folder))
        )


def test_one_modality_can_only_be_reconstructed(tmp_path: Path) -> None:
    alone = Places(("s2",))
    with pytest.raises(JobError, match="contrast needs two modalities"):
        pretrain(alone, job_for(tmp_path / "a", config=PretrainConfig(reconstruct=False)))
    report = pretrain(alone, job_for(tmp_path / "b", config=PretrainConfig(contrast="none")))
    assert set(report.fit.loss) == {"reconstruct s2", "loss"}


def test_a_loss_that_is_not_finite_ends_training(tmp_path: Path) -> None:
    job = job_for(tmp_path / "pack", steps=4)
    job = replace(job, fit=replace(job.fit, rate=1e30, clip=1e30, warm_up=0.0))
    with pytest.raises(LossError, match="the loss is not finite"):
        pretrain(Places(), job)
    assert not (tmp_path / "pack").exists()


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there are tiny, small"):
        pretrain(Places(), job_for(tmp_path / "pack", size="huge"))
