"""Training windows, the training loop and the scores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.learning.crops import CropSampler, CropSpec
from omnisat_cli.learning.demo_model import make_card, map_scene, network_config
from omnisat_cli.learning.fit import FitSpec, encode_batch, fit, majority, training_losses
from omnisat_cli.learning.metrics import Scores, confusion
from omnisat_cli.learning.simulate import SceneSpec, simulate
from omnisat_cli.learning.windows import borders
from omnisat_cli.networks.segmenter import OmniSatSegmenter

if TYPE_CHECKING:
    from omnisat_cli.learning.batches import Batch
    from omnisat_cli.learning.simulate import Scene
    from omnisat_cli.networks.segmenter import SegmenterConfig
    from omnisat_cli.packs.card import Card


@pytest.fixture(scope="module")
def scene() -> Scene:
    return simulate(SceneSpec(5, 160, 160))


@pytest.fixture(scope="module")
def config() -> SegmenterConfig:
    full = network_config(15)
    return replace(full, encoder=replace(full.encoder, depth=1, grid=(6, 6)))


@pytest.fixture(scope="module")
def card(config: SegmenterConfig, scene: Scene) -> Card:
    return make_card(config, [scene])


def sampler(scene: Scene, card: Card, **changes: object) -> CropSampler:
    spec = CropSpec(side=6, keep_dates=5, drop={"aerial": 0.4, "s2": 0.4, "s1": 0.4})
    return CropSampler([scene], card, replace(spec, **changes), seed=0)


def test_the_card_states_the_statistics_of_the_training_scenes(scene: Scene, card: Card) -> None:
    aerial = card.modalities[0]
    assert aerial.mean[3] == pytest.approx(scene.aerial[3].mean(), abs=3)
    assert all(deviation > 0 for entry in card.modalities for deviation in entry.std)


def test_every_window_keeps_a_modality_and_its_dates(scene: Scene, card: Card) -> None:
    batch = sampler(scene, card).draw(12)
    everywhere = torch.stack([p.all(1) for p in batch.present.values()])
    clouded = torch.stack([~v.any(2).any(1) for v in batch.valid.values()]).any(0)
    assert (everywhere.any(0) | clouded).all()
    assert batch.pixels["aerial"].shape == (12, 36, 4, 20, 20)
    assert batch.pixels["s2"].shape == (12, 36, 5, 10, 1, 1)
    assert batch.truth.shape == (12, 60, 60)
    for name in ("s2", "s1"):
        assert not (batch.present[name] & ~batch.valid[name].any(2)).any()


def test_modality_dropout_removes_about_what_was_asked(scene: Scene, card: Card) -> None:
    batch = sampler(scene, card, drop_region=0.0).draw(120)
    gone = (~batch.present["aerial"].any(1)).float().mean()
    # One of three modalities is always kept, so 0.4 acts two times out of three.
    assert 0.15 < gone < 0.40


def test_boundaries_lie_where_parcels_or_classes_meet(scene: Scene) -> None:
    edge = borders(scene.parcel_ids.astype(np.int32), scene.truth)
    inner = scene.parcel_ids[1:-1, 1:-1]
    same = np.ones(inner.shape, bool)
    for row, col in ((0, 1), (2, 1), (1, 0), (1, 2)):
        cut = (slice(row, row + inner.shape[0]), slice(col, col + inner.shape[1]))
        same &= (scene.parcel_ids[cut] == inner) & (scene.truth[cut] == scene.truth[1:-1, 1:-1])
    np.testing.assert_array_equal(edge[1:-1, 1:-1], ~same)


def losses_of(network: OmniSatSegmenter, batch: Batch) -> dict[str, float]:
    return {name: float(v.detach()) for name, v in training_losses(network, batch).items()}


def test_training_lowers_the_losses(scene: Scene, card: Card, config: SegmenterConfig) -> None:
    torch.manual_seed(0)
    network = OmniSatSegmenter(config)
    fixed = sampler(scene, card).draw(4)
    before = losses_of(network, fixed)
    fit(network, lambda _: fixed, FitSpec(steps=12, batch=4))
    after = losses_of(network, fixed)
    assert after["fine"] < 0.8 * before["fine"]
    assert after["coarse"] < before["coarse"]
    assert after["boundary"] < before["boundary"]


def test_absent_patches_have_no_token(scene: Scene, card: Card, config: SegmenterConfig) -> None:
    batch = sampler(scene, card).draw(6)
    tokens, fine = encode_batch(OmniSatSegmenter(config), batch)
    for name, values in tokens.items():
        assert (values[~batch.present[name]] == 0).all()
        assert (values[batch.present[name]].abs().sum(-1) > 0).all()
    assert set(fine) == {"aerial"}


def test_a_scene_is_mapped_through_the_engine(
    scene: Scene, card: Card, config: SegmenterConfig
) -> None:
    small = card.model_copy(
        update={"window": card.window.model_copy(update={"size": 6, "overlap": 2})}
    )
    network = OmniSatSegmenter(config).eval()
    mapped = map_scene(network, small, scene, ("s2", "s1"))
    assert mapped.shape == scene.truth.shape
    assert (mapped.reshape(16, 10, 16, 10).max((1, 3)) == mapped[::10, ::10]).all()


def test_the_majority_ignores_pixels_without_truth() -> None:
    truth = torch.full((1, 4, 4), 255)
    truth[0, :2, :2] = torch.tensor([[1, 1], [0, 255]])
    truth[0, 2:, 2:] = 2
    expected = torch.tensor([[[1, 255], [255, 2]]])
    assert torch.equal(majority(truth, torch.Size((1, 3, 2, 2))), expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_scores_follow_their_definitions(pairs: list[tuple[int, int]]) -> None:
    truth, mapped = np.array(pairs, np.uint8).T
    scores = Scores(confusion(truth, mapped, (0, 1, 2, 3)))
    for code in range(4):
        hit = ((truth == code) & (mapped == code)).sum()
        union = ((truth == code) | (mapped == code)).sum()
        if union:
            assert scores.iou[code] == pytest.approx(hit / union)
            assert scores.f1[code] == pytest.approx(2 * hit / (union + hit))
        else:
            assert np.isnan(scores.iou[code])
    assert scores.accuracy == pytest.approx((truth == mapped).mean())
