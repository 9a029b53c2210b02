"""Heads, their resolutions, losses, and the table of networks."""

import json

import pytest
import torch
from test_networks_omnisat import shaken
from torch import Tensor

from omnisat_cli.networks.configs import ImageConfig, OmniSatConfig, SeriesConfig
from omnisat_cli.networks.heads import DenseHead, PatchHead, TileHead, window_map
from omnisat_cli.networks.losses import (
    IGNORED,
    boundary_loss,
    dice_loss,
    multilabel_loss,
    segmentation_loss,
)
from omnisat_cli.networks.seam import PatchLocal, WindowBased
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.networks.table import build_network
from omnisat_cli.networks.unet import UNet, UNetConfig

AERIAL = ImageConfig("aerial", 4, 20)
S2 = SeriesConfig("s2", 10, in_norm=True, widths_in=(16, 32), widths_out=(32,))


def segmenter(*parts: ImageConfig | SeriesConfig, **sizes: int) -> OmniSatSegmenter:
    config = SegmenterConfig(OmniSatConfig(32, 1, 4, (2, 3), parts or (AERIAL, S2)), 4, **sizes)
    built = shaken(OmniSatSegmenter(config))
    assert isinstance(built, OmniSatSegmenter)
    return built


def fused_windows(batch: int = 2) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    fine = {"aerial": torch.randn(batch, 6, 16, 10, 10)}
    present = {name: torch.ones(batch, 6, dtype=torch.bool) for name in ("aerial", "s2")}
    return torch.randn(batch, 7, 32), fine, present


@torch.inference_mode()
def test_patches_without_finer_features_repeat_their_coarse_logits() -> None:
    network = segmenter()
    fused, fine, present = fused_windows(3)
    present["aerial"][0, 1] = False
    present["aerial"][2] = False
    fine["aerial"][0, 1] = torch.nan
    coarse = network.decode(fused, fine, present, fine_output=False)
    dense = network.decode(fused, fine, present, fine_output=True)
    assert coarse.logits.shape == (3, 4, 2, 3)
    assert dense.logits.shape == (3, 4, 20, 30)
    assert dense.logits.isfinite().all()
    for found, low in ((dense.logits, coarse.logits), (dense.boundary, coarse.boundary)):
        assert found is not None
        assert low is not None
        repeated = low.repeat_interleave(10, -1).repeat_interleave(10, -2)
        assert torch.equal(found[0, ..., :10, 10:20], repeated[0, ..., :10, 10:20])
        assert torch.equal(found[2], repeated[2])
        assert not torch.equal(found[0, ..., :10, :10], repeated[0, ..., :10, :10])


@torch.inference_mode()
def test_both_outputs_of_one_pass_equal_the_two_passes() -> None:
    network = segmenter()
    fused, fine, present = fused_windows()
    present["aerial"][1, 2:] = False
    both = network.decode_both(fused, fine, present)
    for dense, wanted in zip(both, (False, True), strict=True):
        alone = network.decode(fused, fine, present, fine_output=wanted)
        assert torch.equal(dense.logits, alone.logits)


@torch.inference_mode()
def test_without_image_modalities_the_fine_output_is_the_coarse_one() -> None:
    network = segmenter(S2)
    fused, _, present = fused_windows()
    dense = network.decode(fused, {}, present, fine_output=True)
    assert torch.equal(dense.logits, network.decode(fused, {}, present, fine_output=False).logits)


@torch.inference_mode()
def test_a_missing_image_modality_repeats_the_coarse_output() -> None:
    network = segmenter()
    fused, _, present = fused_windows()
    dense = network.decode(fused, {}, {"s2": present["s2"]}, fine_output=True)
    assert dense.logits.shape == (2, 4, 20, 30)
    assert torch.equal(dense.logits[..., 0, 0], dense.logits[..., 9, 9])


@torch.inference_mode()
def test_company_in_a_batch_of_windows_does_not_matter_to_the_head() -> None:
    network = segmenter()
    fused, fine, present = fused_windows(3)
    present["aerial"][0] = False
    present["aerial"][1, :3] = False
    together = network.decode(fused, fine, present, fine_output=True).logits
    for row in range(3):
        alone = network.decode(
            fused[row : row + 1],
            {"aerial": fine["aerial"][row : row + 1]},
            {name: flags[row : row + 1] for name, flags in present.items()},
            fine_output=True,
        )
        torch.testing.assert_close(alone.logits[0], together[row], atol=1e-5, rtol=1e-5)


def test_patches_of_forty_metres_give_ten_metre_pixels() -> None:
    spot = ImageConfig("spot", 3, 40)
    s2 = SeriesConfig("s2", 10, 4, widths_in=(32,), widths_out=(32,))
    network = segmenter(spot, s2, coarse_side=4)
    fused = torch.randn(1, 7, 32)
    present = {"spot": torch.ones(1, 6, dtype=torch.bool)}
    fine = {"spot": torch.randn(1, 6, 16, 20, 20)}
    coarse, dense = network.decode_both(fused, fine, present)
    assert coarse.logits.shape[-2:] == (8, 12)
    assert dense.logits.shape[-2:] == (40, 60)
    assert network.config.fine_side == 20


def test_image_modalities_of_two_resolutions_meet_at_the_finer_one() -> None:
    network = segmenter(AERIAL, ImageConfig("spot", 3, 10), S2)
    fused, fine, present = fused_windows()
    fine["spot"] = torch.randn(2, 6, 16, 5, 5)
    present["spot"] = torch.rand(2, 6) > 0.5
    present["spot"][0, 0] = True
    dense = network.decode(fused, fine, present, fine_output=True)
    assert dense.logits.shape[-2:] == (20, 30)


def test_fine_pixels_must_be_a_multiple_of_coarse_ones() -> None:
    with pytest.raises(ValueError, match="25 fine pixels a patch are no multiple of 4"):
        DenseHead(8, 2, coarse_side=4, fine_sides={"aerial": 25}, channels=4, hidden=4)


def test_maps_of_patches_are_laid_row_by_row() -> None:
    patches = torch.arange(6.0).view(1, 6, 1, 1, 1).expand(1, 6, 1, 2, 2)
    expected = [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert window_map(patches, (2, 3))[0, 0].tolist() == expected


def test_training_reaches_every_parameter_from_both_outputs() -> None:
    torch.manual_seed(0)
    network = segmenter().train()
    image = network.encode_image("aerial", torch.randn(12, 4, 20, 20))
    valid = torch.rand(12, 5) > 0.2
    valid[:, 0] = True
    series = network.encode_series("s2", torch.randn(12, 5, 10, 1, 1), torch.arange(5) * 9, valid)
    assert image.fine is not None
    tokens = {"aerial": image.tokens.view(2, 6, 32), "s2": series.tokens.view(2, 6, 32)}
    present = {name: torch.rand(2, 6) > 0.3 for name in tokens}
    fused = network.fuse(tokens, present)
    fine = {"aerial": image.fine.view(2, 6, 16, 10, 10)}
    coarse, dense = network.decode_both(fused, fine, present)
    labels = torch.randint(0, 4, (2, 20, 30))
    assert dense.boundary is not None
    loss = segmentation_loss(dense.logits, labels) + boundary_loss(dense.boundary, labels % 2)
    (loss + segmentation_loss(coarse.logits, labels[:, ::10, ::10])).backward()
    missing = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_heads_have_the_published_keys() -> None:
    assert set(TileHead(8, 3).state_dict()) == {"head.0.weight", "head.0.bias"}
    assert {key.rsplit(".", 1)[0] for key in TileHead(8, 3, ()).state_dict()} == {"mlp.0", "mlp.1"}
    deep = {key.rsplit(".", 1)[0] for key in TileHead(8, 3, (128, 64)).state_dict()}
    assert deep == {"mlp.0", "mlp.1", "mlp.2", "mlp.4", "mlp.5", "mlp.7"}


def test_patch_head_labels_every_patch() -> None:
    assert PatchHead(32, 5)(torch.randn(2, 7, 32)).shape == (2, 6, 5)


# --- table


def test_a_network_is_rebuilt_from_plain_values() -> None:
    first = segmenter()
    plain = json.loads(json.dumps(first.config.to_dict()))
    second = build_network("omnisat", plain)
    assert isinstance(second, PatchLocal)
    second.load_state_dict(first.state_dict())
    unet = build_network("unet", json.loads(json.dumps(UNetConfig().to_dict())))
    assert isinstance(unet, WindowBased)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'segformer'.*omnisat, unet"):
        build_network("segformer", {})


def test_sizes_that_are_no_numbers_are_refused() -> None:
    plain = segmenter().config.to_dict()
    with pytest.raises(ValueError, match="classes must be a whole number"):
        SegmenterConfig.from_dict(plain | {"classes": "four"})
    with pytest.raises(ValueError, match="'encoder' must be a table"):
        SegmenterConfig.from_dict(plain | {"encoder": 3})


# --- U-Net


def test_the_default_unet_has_the_size_of_the_benchmarks() -> None:
    count = sum(p.numel() for p in UNet(UNetConfig()).parameters())
    assert 1_400_000 < count < 1_550_000


@torch.inference_mode()
def test_the_unet_keeps_any_size_and_reads_no_invalid_pixel() -> None:
    network = shaken(UNet(UNetConfig(bands=3, classes=4, widths=(8, 8, 8))))
    assert isinstance(network, UNet)
    image, valid = torch.randn(2, 3, 21, 34), torch.rand(2, 21, 34) > 0.2
    first = network.predict({"aerial": image}, {}, {"aerial": valid}).logits
    image = image.masked_fill(~valid.unsqueeze(1), torch.nan)
    second = network.predict({"aerial": image}, {}, {"aerial": valid}).logits
    assert first.shape == (2, 4, 21, 34)
    assert torch.equal(first, second)


# --- losses


def test_ignored_pixels_take_no_part() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    labels[:, 2:] = IGNORED
    changed = logits.clone()
    changed[:, :, 2:] = 100.0
    assert torch.equal(segmentation_loss(logits, labels), segmentation_loss(changed, labels))
    edges = (labels % 2).masked_fill(labels == IGNORED, IGNORED)
    assert torch.equal(boundary_loss(logits[:, 0], edges), boundary_loss(changed[:, 0], edges))


def test_nothing_labelled_gives_zero_and_finite_gradients() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.full((1, 2, 2), IGNORED)
    loss = segmentation_loss(logits, labels) + boundary_loss(logits[:, 0], labels)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_perfect_map_has_no_dice_loss_and_a_wrong_one_the_whole() -> None:
    labels = torch.tensor([[[0, 1], [1, 0]]])
    right = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 100.0
    assert float(dice_loss(right, labels)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(right.flip(2), labels)) == pytest.approx(1, abs=1e-6)


def test_cross_entropy_is_averaged_over_labelled_pixels() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    weights = torch.tensor([1.0, 2.0, 0.5])
    found = segmentation_loss(logits, labels, class_weights=weights, dice_weight=0.0)
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    torch.testing.assert_close(found, expected)


def test_tile_labels_are_independent() -> None:
    assert float(multilabel_loss(torch.zeros(2, 3), torch.ones(2, 3))) == pytest.approx(
        0.693, abs=1e-3
    )
