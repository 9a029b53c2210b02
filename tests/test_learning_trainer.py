"""The training loop: exact resume, checkpoints that cannot run code, validation, bad losses."""

from __future__ import annotations

import pickle
import threading
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from omnisat_cli.errors import CheckpointError, Exit, JobError, ResumeError, SecurityError
from omnisat_cli.learning.training.checkpoint import load_checkpoint, save_checkpoint
from omnisat_cli.learning.training.ledger import LAST
from omnisat_cli.learning.training.lesson import FitSpec, Lesson, LossError, Unwatched
from omnisat_cli.learning.training.trainer import BEST, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Pairs:
    """A batch of x and y."""

    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> Pairs:
        return Pairs(self.x.to(device), self.y.to(device))


def pairs(number: int, size: int = 8) -> Pairs:
    made = torch.Generator().manual_seed(1000 + number)
    x = torch.randn(size, 4, generator=made)
    return Pairs(x, x.sum(1, keepdim=True))


def small_network(dropout: float = 0.3) -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.GELU(), nn.Linear(8, 1))


def squares(network: nn.Module) -> Callable[[Pairs], dict[str, Tensor]]:
    return lambda batch: {"square": (network(batch.x) - batch.y).square().mean()}


def lesson_for(network: nn.Module, **changes: object) -> Lesson[Pairs]:
    return replace(Lesson(pairs, squares(network), facts={"data": "pairs"}), **changes)


SPEC = FitSpec(steps=12, rate=1e-2, device="cpu", checkpoint_steps=4)


class StopAt(Unwatched):
    """Asks for an end during a step, and remembers the losses."""

    def __init__(self, step: int | None = None) -> None:
        self.at, self.event = step, threading.Event()
        self.seen: list[float] = []
        self.best: list[tuple[int, bool]] = []

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        self.seen.append(losses["loss"])
        if step == self.at:
            self.event.set()

    def validated(self, step: int, figures: Mapping[str, float], best: bool) -> None:
        self.best.append((step, best))


def weights(network: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for value in network.state_dict().values()])


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_resumed_training_gives_the_same_weights_bit_for_bit(
    tmp_path: Path, schedule: str
) -> None:
    values = {"schedule": schedule, "validate_every": 3, "metric": "score"}
    spec = replace(SPEC, **values)

    def run(folder: Path, stop_at: int | None) -> tuple[nn.Module, str]:
        network = small_network()
        figures = iter(range(-100, 0, 1))
        lesson = lesson_for(network, validate=lambda: {"score": float(next(figures))})
        watch = StopAt(stop_at)
        return network, fit(network, lesson, spec, folder, watch=watch, stop=watch.event).ended

    straight, ended = run(tmp_path / "straight", None)
    assert ended == "steps"
    _, ended = run(tmp_path / "broken", 4)
    assert ended == "stopped"
    torch.manual_seed(99)  # what happened in between must not matter
    resumed, ended = run(tmp_path / "broken", None)
    assert ended == "steps"
    assert torch.equal(weights(straight), weights(resumed))


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    class Killed(StopAt):
        def step(self, step: int, losses: Mapping[str, float]) -> None:
            super().step(step, losses)
            if step == 9:
                raise KeyboardInterrupt

    straight = small_network()
    fit(straight, lesson_for(straight), SPEC, tmp_path / "straight")
    broken = small_network()
    with pytest.raises(KeyboardInterrupt):
        fit(broken, lesson_for(broken), SPEC, tmp_path / "broken", watch=Killed())
    assert load_checkpoint(tmp_path / "broken" / LAST)["step"] == 8
    network, watch = small_network(), StopAt()
    fit(network, lesson_for(network), SPEC, tmp_path / "broken", watch=watch)
    assert len(watch.seen) == 4
    assert torch.equal(weights(straight), weights(network))


def test_training_learns_and_leaves_a_log(tmp_path: Path) -> None:
    network, watch = small_network(dropout=0.0), StopAt()
    report = fit(network, lesson_for(network), replace(SPEC, steps=60), tmp_path, watch=watch)
    assert watch.seen[-1] < 0.5 * watch.seen[0]
    assert report.steps == 60
    assert 0 < report.busy <= 1
    rows = (tmp_path / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 61
    assert "square" in rows[0]


def test_accumulating_batches_equals_one_larger_batch(tmp_path: Path) -> None:
    def large(number: int) -> Pairs:
        parts = [pairs(3 * number + k) for k in range(3)]
        return Pairs(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))

    one, many = small_network(0.0), small_network(0.0)
    fit(one, lesson_for(one, batch=large), SPEC, tmp_path / "one")
    fit(many, lesson_for(many), replace(SPEC, accumulate=3), tmp_path / "many")
    torch.testing.assert_close(weights(one), weights(many), rtol=1e-5, atol=1e-6)


def test_batches_made_by_processes_are_the_same(tmp_path: Path) -> None:
    one, two = small_network(), small_network()
    spec = replace(SPEC, steps=4)
    fit(one, lesson_for(one), spec, tmp_path / "one")
    fit(two, lesson_for(two), replace(spec, loaders=1), tmp_path / "two")
    assert torch.equal(weights(one), weights(two))


class Bad:
    """Something whose loading would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def test_a_checkpoint_with_code_in_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / LAST
    torch.save({"format": 1, "step": Bad()}, path)
    network = small_network()
    with pytest.raises(SecurityError, match="could run code") as raised:
        fit(network, lesson_for(network), SPEC, tmp_path)
    assert raised.value.exit_code == Exit.SECURITY
    path.write_bytes(pickle.dumps(Bad()))
    with pytest.raises(SecurityError):
        load_checkpoint(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / LAST
    save_checkpoint(path, {"network": {"a": torch.ones(500)}})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(CheckpointError, match="truncated or damaged") as raised:
        load_checkpoint(path)
    assert raised.value.exit_code == Exit.REFUSED


def test_flipped_bits_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / LAST
    save_checkpoint(path, {"network": {"a": torch.ones(500)}})
    content = bytearray(path.read_bytes())
    content[content.index(b"\x00\x00\x80\x3f" * 8) + 2] ^= 8
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    torch.save({"other": 1}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of this version"):
        load_checkpoint(path)


def test_other_data_or_settings_are_refused_field_by_field(tmp_path: Path) -> None:
    network = small_network()
    fit(network, lesson_for(network), SPEC, tmp_path)
    other = lesson_for(network, facts={"data": "others"})
    with pytest.raises(ResumeError) as raised:
        fit(network, other, replace(SPEC, rate=5e-3), tmp_path)
    assert 'data: was "pairs", now "others"' in str(raised.value)
    assert "training.rate: was 0.01, now 0.005" in str(raised.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training_and_loses_nothing(
    tmp_path: Path, bad: float
) -> None:
    def spoilt(number: int) -> Pairs:
        made = pairs(number)
        return Pairs(made.x, made.y * bad) if number == 6 else made

    network = small_network()
    with pytest.raises(LossError, match=r"step 6 \(batch 6.*last\.ckpt, after 4 steps") as raised:
        fit(network, lesson_for(network, batch=spoilt), SPEC, tmp_path)
    assert raised.value.exit_code == Exit.REFUSED
    assert torch.isfinite(weights(network)).all()
    assert load_checkpoint(tmp_path / LAST)["step"] == 4


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    network, kept = small_network(), []

    def validate() -> dict[str, float]:
        kept.append(weights(network).clone())
        return {"score": next(scores)}

    spec = replace(SPEC, validate_every=2, patience=2, metric="score")
    watch = StopAt()
    report = fit(network, lesson_for(network, validate=validate), spec, tmp_path, watch=watch)
    assert report.ended == "patience"
    assert (report.steps, report.best_step, report.figures) == (8, 4, {"score": 0.5})
    assert torch.equal(weights(network), kept[1])
    assert [best for _, best in watch.best] == [True, True, False, False]
    best = load_checkpoint(tmp_path / BEST)["network"]
    assert isinstance(best, dict)
    assert torch.equal(torch.cat([v.flatten() for v in best.values()]), kept[1])


def test_frozen_parts_do_not_move(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    for part in network[:2]:
        part.requires_grad_(False)
    before = weights(network[:2]).clone()
    fit(network, lesson_for(network, frozen=(network[0], network[1])), SPEC, tmp_path)
    assert torch.equal(weights(network[:2]), before)
    network.requires_grad_(False)
    with pytest.raises(JobError, match="nothing can be trained"):
        fit(network, lesson_for(network), SPEC, tmp_path / "none")


def test_mixed_precision_trains_on_a_cpu(tmp_path: Path) -> None:
    network = small_network(0.0)
    spec = replace(SPEC, precision="bf16-mixed", steps=3)
    assert fit(network, lesson_for(network), spec, tmp_path).steps == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "16-mixed"}, "needs a GPU"),
        ({"device": "tpu"}, "cannot be used here"),
    ],
)
def test_what_the_machine_lacks_is_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    network = small_network()
    with pytest.raises(JobError, match=words):
        fit(network, lesson_for(network), replace(SPEC, **changes), tmp_path)


def test_budgets_that_cannot_be_are_refused() -> None:
    for changes in ({"steps": 0}, {"rate": -1.0}, {"minutes": 0.0}, {"precision": "8"}):
        with pytest.raises(JobError):
            replace(SPEC, **changes)
    with pytest.raises(JobError, match="need validations"):
        replace(SPEC, patience=3)


def test_the_time_budget_ends_training(tmp_path: Path) -> None:
    network = small_network()
    report = fit(network, lesson_for(network), replace(SPEC, minutes=1e-6), tmp_path)
    assert report.ended == "minutes"
    assert report.steps < 12
