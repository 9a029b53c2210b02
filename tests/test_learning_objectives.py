"""Losses and classes of every kind of network on batches of windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from learning_worlds import CARDS, ToyExamples

from omnisat_cli.learning.data.batches import Batch, Batcher, BatchSpec
from omnisat_cli.learning.training.objectives import (
    Objective,
    Weights,
    accuracy_mask,
    boundary_under,
    encode_batch,
    majority,
    mapped_classes,
    truth_under,
)
from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.networks.tile import OmniSatTile, TileConfig
from omnisat_cli.networks.unet import UNet, UNetConfig
from omnisat_cli.networks.utae import UTAE, UtaeConfig

if TYPE_CHECKING:
    from torch import nn

SIDE = 4
ENCODER = OmniSatConfig(
    width=16,
    depth=1,
    heads=2,
    grid=(SIDE, SIDE),
    modalities=(
        ImageConfig("aerial", 1, 4),
        SeriesConfig("s2", 2, widths_in=(8, 16), widths_out=(16,), heads=4, key_width=4),
    ),
)


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "omnisat":
        return OmniSatSegmenter(SegmenterConfig(ENCODER, 3, fine_channels=4, head_width=8))
    if kind == "tile":
        return OmniSatTile(TileConfig(ENCODER, 3))
    if kind == "unet":
        return UNet(UNetConfig("aerial", 1, 3, (8, 8)))
    sizes = {"encoder_widths": (16, 16), "decoder_widths": (16, 16), "out_widths": (8, 3)}
    return UTAE(UtaeConfig(bands=2, heads=4, attention_width=16, **sizes))


def draw(any_pixel: bool = False, **changes: object) -> Batch:
    task = "multilabel" if changes.pop("tags", False) else "segmentation"
    spec = BatchSpec(4, SIDE, any_pixel=any_pixel, **changes)
    return Batcher(ToyExamples(clouds=0.1, task=task), CARDS, spec, seed=0).batch(0)


@pytest.mark.parametrize("kind", ["omnisat", "utae", "unet", "tile"])
def test_every_kind_of_network_learns_a_batch(kind: str) -> None:
    network, batch = make(kind), draw(kind in ("utae", "unet"), tags=kind == "tile")
    objective = Objective(network)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    before = None
    for _ in range(8):
        total = sum(objective.losses(batch).values())
        before = float(total.detach()) if before is None else before
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert float(sum(objective.losses(batch).values()).detach()) < before
    if kind == "tile":
        return
    with torch.no_grad():
        classes = mapped_classes(network, batch)
    assert classes.shape == batch.truth.shape
    assert int(classes.max()) < 3


def test_pixels_without_label_or_imagery_teach_nothing() -> None:
    network, batch = make("omnisat").eval(), draw()
    blank = torch.full_like(batch.truth, 255)
    unknown = torch.full_like(batch.boundary, 255.0)
    with torch.no_grad():
        losses = Objective(network).losses(replace(batch, truth=blank, boundary=unknown))
    assert all(float(value) == 0 for value in losses.values())
    present = {name: torch.zeros_like(flags) for name, flags in batch.present.items()}
    present["aerial"][:, 0] = True
    seen = accuracy_mask(replace(batch, present=present))
    n = batch.truth.shape[-1] // SIDE
    assert seen[:, :n, :n].any()
    assert not seen[:, n:].any()


def test_a_batch_that_shows_a_network_nothing_costs_nothing() -> None:
    batch = draw()
    hidden = {name: torch.zeros_like(flags) for name, flags in batch.present.items()}
    for kind in ("omnisat", "utae"):
        network = make(kind)
        loss = sum(Objective(network).losses(replace(batch, present=hidden)).values())
        loss.backward()
        assert float(loss.detach()) == 0


@torch.no_grad()
def test_unknown_borders_are_left_out_and_weights_count() -> None:
    network, batch = make("omnisat").eval(), draw()
    plain = Objective(network).losses(batch)
    weighed = Objective(network, Weights(boundary=2.0, coarse=1.0)).losses(batch)
    assert float(weighed["boundary"]) == pytest.approx(2 * float(plain["boundary"]), rel=1e-5)
    assert float(weighed["coarse"]) == pytest.approx(2 * float(plain["coarse"]), rel=1e-5)
    classes = Objective(network, Weights(classes=(9.0, 1.0, 1.0))).losses(batch)
    assert float(classes["fine"]) != pytest.approx(float(plain["fine"]))


@torch.no_grad()
def test_absent_patches_have_no_token() -> None:
    batch = draw(drop={"aerial": 0.5, "s2": 0.5})
    tokens, fine = encode_batch(make("omnisat"), batch)
    for name, values in tokens.items():
        assert (values[~batch.present[name]] == 0).all()
        assert (values[batch.present[name]].abs().sum(-1) > 0).all()
    assert set(fine) <= {"aerial"}


def test_truth_comes_onto_any_output_resolution() -> None:
    truth = torch.full((1, 4, 4), 255)
    truth[0, :2, :2] = torch.tensor([[1, 1], [0, 255]])
    truth[0, 2:, 2:] = 2
    coarse = torch.tensor([[[1, 255], [255, 2]]])
    assert torch.equal(majority(truth, 3, 2), coarse)
    assert torch.equal(truth_under(truth, torch.Size((1, 3, 2, 2))), coarse)
    assert torch.equal(truth_under(truth, torch.Size((1, 3, 4, 4))), truth)
    finer = truth_under(coarse, torch.Size((1, 3, 4, 4)))
    assert torch.equal(finer, coarse.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert truth_under(truth, torch.Size((1, 3, 6, 6))).shape == (1, 6, 6)


def test_a_coarse_pixel_is_boundary_where_one_runs_through() -> None:
    boundary = torch.full((1, 4, 4), 255.0)
    boundary[0, :2] = 0.0
    boundary[0, 1, 1] = 1.0
    boundary[0, 0, 2] = 255.0
    assert torch.equal(boundary_under(boundary, 2), torch.tensor([[[1.0, 0.0], [255.0, 255.0]]]))
    assert boundary_under(boundary, 8).shape == (1, 8, 8)
