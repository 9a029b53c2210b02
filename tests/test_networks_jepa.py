"""Joint-embedding pretraining of AnySat: masks, presence, and the teacher that follows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from omnisat_cli.networks.anysat import AnySat
from omnisat_cli.networks.anysat_config import SENSORS, AnySatConfig, Sensor
from omnisat_cli.networks.anysat_jepa import JepaDraws, JepaMasks, Seen, both_present, jepa_loss
from omnisat_cli.networks.anysat_pretraining import AnySatPretraining, JepaConfig, View
from omnisat_cli.networks.jepa_masks import BlockSpec, block_sides, draw_masks

# --- masks


@given(
    rows=st.integers(2, 12),
    cols=st.integers(2, 12),
    seed=st.integers(0, 2**20),
    recipe=st.sampled_from(["corrected", "official"]),
)
def test_masks_are_ascending_patches_of_the_window(
    rows: int, cols: int, seed: int, recipe: str
) -> None:
    spec = BlockSpec(recipe=recipe)  # type: ignore[arg-type]
    masks = draw_masks((rows, cols), 3, np.random.default_rng(seed), spec)
    assert len(masks.targets) == 4
    for part in (masks.context, *masks.targets):
        assert part.shape[0] == 3
        assert part.shape[1] >= 1
        assert (part.diff(dim=1) > 0).all()
        assert part.min() >= 0
        assert part.max() < rows * cols
    assert len({target.shape for target in masks.targets}) == 1
    again = draw_masks((rows, cols), 3, np.random.default_rng(seed), spec)
    assert torch.equal(again.context, masks.context)


@given(seed=st.integers(0, 2**20))
def test_targets_are_whole_blocks_and_the_context_avoids_them(seed: int) -> None:
    spec = BlockSpec(target_area=(0.1, 0.15), context_area=(0.9, 0.9))
    masks = draw_masks((8, 8), 2, np.random.default_rng(seed), spec)
    for target in masks.targets:
        for row in target:
            ys, xs = row // 8, row % 8
            sides = (int(ys.max() - ys.min()) + 1, int(xs.max() - xs.min()) + 1)
            assert sides[0] * sides[1] == len(row)
    for b in range(2):
        hidden = {int(patch) for target in masks.targets for patch in target[b]}
        assert not hidden & {int(patch) for patch in masks.context[b]}


def test_one_number_drives_area_and_aspect() -> None:
    # Area 0.2 and aspect 0.75 of 64 patches: sqrt(12 * 0.75) = 3 rows, sqrt(12 / 0.75) = 4 columns.
    assert block_sides(0.0, (0.2, 0.8), (0.75, 1.5), (8, 8)) == (3, 4)
    # Area 0.8, aspect 1.5: sqrt(51 * 1.5) = 8.7 rows, fewer than the window's; sqrt(34) columns.
    assert block_sides(1.0, (0.2, 0.8), (0.75, 1.5), (8, 8)) == (7, 6)
    assert block_sides(0.0, (0.2, 0.8), (0.75, 1.5), (2, 2)) == (1, 1)


def test_constraints_are_dropped_where_targets_leave_no_context() -> None:
    spec = BlockSpec(target_area=(1.0, 1.0), target_aspect=(1.0, 1.0))
    masks = draw_masks((3, 3), 4, np.random.default_rng(0), spec)
    assert masks.context.shape[1] >= 1


def test_the_official_recipe_favours_the_upper_rows() -> None:
    def mean_row(recipe: str) -> float:
        rng = np.random.default_rng(0)
        spec = BlockSpec(recipe=recipe)  # type: ignore[arg-type]
        drawn = [draw_masks((6, 6), 4, rng, spec) for _ in range(60)]
        return float(np.mean([(masks.context // 6).float().mean() for masks in drawn]))

    assert mean_row("official") < mean_row("corrected") - 0.2
    assert mean_row("corrected") == pytest.approx(2.5, abs=0.3)


def test_windows_of_one_row_are_refused() -> None:
    with pytest.raises(ValueError, match="1 x 5 patches"):
        draw_masks((1, 5), 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="areas lie between"):
        BlockSpec(target_area=(0.5, 1.5))


# --- a step

AERIAL = Sensor("aerial", "image", 4, 2.5, 4)
TINY = AnySatConfig(64, 1, 4, sensors=(AERIAL, SENSORS["s2"]))
DAYS = torch.tensor([[10, 60, 110, 160], [20, 70, 120, 170]])
MASKS = JepaMasks(
    torch.tensor([[0, 1, 4], [0, 3, 8]]),
    (torch.tensor([[2, 5], [2, 5]]), torch.tensor([[6, 7], [6, 7]])),
)


def view(**seen: dict[str, Tensor]) -> View:
    rng = torch.Generator().manual_seed(0)
    pixels = {
        "aerial": torch.randn(2, 4, 12, 12, generator=rng),
        "s2": torch.randn(2, 4, 10, 3, 3, generator=rng),
    }
    return View(pixels, {"s2": DAYS}, Seen(seen.get("valid", {}), seen.get("present", {})), 10)


def build(**changes: object) -> AnySatPretraining:
    torch.manual_seed(5)
    config = JepaConfig(depth=1, heads=2, **changes)  # type: ignore[arg-type]
    network = AnySatPretraining(AnySat(TINY), config, steps=10)
    with torch.no_grad():
        for parameter in network.student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def losses(network: AnySatPretraining, shown: View) -> dict[str, Tensor]:
    torch.manual_seed(1)
    with torch.no_grad():
        return network(shown, MASKS)


def test_what_is_not_real_changes_nothing() -> None:
    network = build()
    valid = {"s2": torch.ones(2, 4, 3, 3, dtype=torch.bool)}
    valid["s2"][:, 1] = False  # a padded date
    valid["s2"][0, :, 1, 1] = False  # a place without any date
    valid["s2"][1, 2, :2] = False  # a cloud
    present = {"aerial": torch.ones(2, 9, dtype=torch.bool)}
    present["aerial"][1] = False
    present["aerial"][0, :2] = False
    clean = view(valid=valid, present=present)
    rough = view(valid=valid, present=present)
    rough.pixels["s2"].masked_fill_(~valid["s2"].unsqueeze(2), 7.0)
    rough.pixels["aerial"][1] = 9.0
    rough.pixels["aerial"][0, :, :4, :8] = 9.0
    days = DAYS.clone()
    days[:, 1] = 300
    rough = replace(rough, days={"s2": days})
    found, expected = losses(network, rough), losses(network, clean)
    torch.testing.assert_close(found, expected)
    assert all(math.isfinite(value) for value in found.values())


def test_everything_real_equals_nothing_said() -> None:
    network = build()
    every = view(
        valid={"s2": torch.ones(2, 4, 3, 3, dtype=torch.bool)},
        present={"aerial": torch.ones(2, 9, dtype=torch.bool)},
    )
    torch.testing.assert_close(losses(network, every), losses(network, view()))


def test_places_that_no_sensor_saw_are_not_predicted() -> None:
    network = build()
    nowhere = torch.ones(2, 9, dtype=torch.bool)
    nowhere[:, [2, 5]] = False  # all of the first target
    valid = torch.ones(2, 4, 3, 3, dtype=torch.bool)
    valid.view(2, 4, 9)[:, :, [2, 5]] = False
    shown = view(valid={"s2": valid}, present={"aerial": nowhere})
    found = losses(network, shown)
    alone = JepaMasks(MASKS.context, MASKS.targets[1:])
    torch.manual_seed(1)
    with torch.no_grad():
        expected = network(shown, alone)
    torch.testing.assert_close(found["predict"], expected["predict"])


def test_windows_without_anything_teach_nothing() -> None:
    network = build()
    nothing = view(
        valid={"s2": torch.zeros(2, 4, 3, 3, dtype=torch.bool)},
        present={"aerial": torch.zeros(2, 9, dtype=torch.bool)},
    )
    assert {name: value.item() for name, value in losses(network, nothing).items()} == {
        "predict": 0.0,
        "contrast": 0.0,
    }


def test_of_the_other_tokens_half_stay() -> None:
    network = build()
    context = torch.ones(1, 8, 64)  # two sensors, four places
    here = torch.ones(1, 2, 4, dtype=torch.bool)
    noise = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]])
    draws = JepaDraws({}, torch.tensor([[1, 1, 0, 0]]), noise)
    with torch.no_grad():
        network.student.masked_token.zero_()

        def shown(here: Tensor) -> list[int]:
            hidden = network.student._mask_sensors(context, here, draws)
            return hidden[0, :, 0].int().tolist()

        # Kept: sensor 1 at places 0 and 1, sensor 0 at 2 and 3; of the others those of least noise.
        assert shown(here) == [1, 1, 1, 1, 1, 1, 0, 0]
        here[0, 1, :2] = False  # what was to be kept is absent: the other sensor stays
        assert shown(here) == [1, 1, 1, 1, 0, 0, 1, 0]


def test_the_teacher_moves_in_training_only_and_less_and_less() -> None:
    network = build()
    first = {k: v.clone() for k, v in network.teacher.state_dict().items()}
    losses(network, view())
    torch.testing.assert_close(dict(network.teacher.state_dict()), first)
    network.train()
    student = {k: v.detach().clone() for k, v in network.student.encoder.named_parameters()}
    losses(network, view())
    for name, value in network.teacher.named_parameters():
        torch.testing.assert_close(value, 0.996 * first[name] + 0.004 * student[name])
    assert network.untouched == pytest.approx(0.996)
    losses(network, view())
    assert network.untouched == pytest.approx(0.996 * 0.9964)
    assert int(network.steps_done) == 2


def test_only_the_official_teacher_keeps_its_dropout() -> None:
    assert not build().train().teacher.training
    assert build(recipe="official").train().teacher.training
    assert build().train().student.training


def test_only_the_student_learns() -> None:
    network = build().train()
    sum(network(view(), MASKS).values()).backward()
    assert all(value.grad is None for value in network.teacher.parameters())
    assert any(value.grad is not None for value in network.student.parameters())


def test_the_contrast_can_be_left_out() -> None:
    assert set(losses(build(contrast=False), view())) == {"predict"}


def test_presence_is_that_of_both() -> None:
    yes, no = torch.tensor([True, True]), torch.tensor([True, False])
    both = both_present({"s2": yes, "s1": no}, {"s2": no, "aerial": yes})
    assert {name: flags.tolist() for name, flags in both.items()} == {
        "s2": [True, False],
        "s1": [True, False],
        "aerial": [True, True],
    }


def test_the_loss_counts_what_is_there() -> None:
    predicted, targets = torch.zeros(1, 2, 4), torch.tensor([[[2.0] * 4, [9.0] * 4]])
    there = torch.tensor([[True, False]])
    assert jepa_loss(predicted, targets, there).item() == pytest.approx(1.5)  # |2| - 1 / 2
    assert jepa_loss(predicted, targets, ~there & there).item() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.0}, "momentum"),
        ({"depth": 0}, "depth 0"),
        ({"recipe": "new"}, "none of corrected"),
        ({"run": "os.system"}, "unknown run"),
    ],
)
def test_impossible_steps_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JepaConfig.from_dict(changes)
