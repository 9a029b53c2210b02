"""Networks arranged for inference must give what the trained ones give."""

import math
from dataclasses import replace

import pytest
import torch
from test_networks_omnisat import shaken
from torch import nn

from omnisat_cli.networks.anysat_encoders import PixelSeries
from omnisat_cli.networks.configs import (
    ImageConfig,
    OfficialSize,
    OmniSatConfig,
    SeriesConfig,
    treesat_config,
)
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.fold_image import FoldedImage, Winograd
from omnisat_cli.networks.fold_series import FoldedPixels, FoldedSeries
from omnisat_cli.networks.image import ImageEncoder
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.seam import PatchLocal
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.networks.series import SeriesEncoder
from omnisat_cli.networks.unet import UNet, UNetConfig

WIDE = SeriesConfig("s2", 10, in_norm=True)  # the published size


def assert_rounding(found: torch.Tensor, plain: nn.Module, *inputs: object) -> None:
    """Be within 1e-5, or as near to float64 as the plain network itself is (times two)."""
    expected = plain(*inputs)
    wide = [
        x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    ]
    exact = plain.double()(*wide).float()
    plain.float()
    own = float((expected - exact).abs().max())
    assert float((found - exact).abs().max()) <= max(1e-5, 2 * own)


@torch.inference_mode()
@pytest.mark.parametrize("in_norm", [True, False])
@pytest.mark.parametrize("holes", [0.0, 0.4])
@pytest.mark.parametrize("own_days", [True, False])
def test_folded_series_equal_the_official_form(in_norm: bool, holes: float, own_days: bool) -> None:
    torch.manual_seed(0)
    encoder = shaken(SeriesEncoder(replace(WIDE, in_norm=in_norm)))
    folded = FoldedSeries(encoder).eval()  # type: ignore[arg-type]
    x, days = torch.randn(70, 12, 10), torch.arange(12) * 29
    valid = torch.rand(70, 12) >= holes
    valid[:, 4] = True
    valid[:, 9] = False  # a date that nobody has
    x[:, 9] = math.nan
    if own_days:
        days = days + torch.arange(70)[:, None]
    assert_rounding(folded(x, days, valid), encoder, x, days, valid)


@torch.inference_mode()
def test_folded_series_stand_a_mean_far_from_zero() -> None:
    torch.manual_seed(0)
    encoder = shaken(SeriesEncoder(WIDE))
    assert isinstance(encoder, SeriesEncoder)
    encoder.inconv[9].bias.add_(30.0)
    x, days = torch.randn(40, 12, 10), torch.arange(12) * 29
    assert_rounding(FoldedSeries(encoder)(x, days), encoder, x, days)


@torch.inference_mode()
@pytest.mark.parametrize("patch_px", [50, 40, 20, 10, 4, 2])
def test_folded_images_equal_the_official_form(patch_px: int) -> None:
    torch.manual_seed(0)
    encoder = shaken(ImageEncoder(ImageConfig("aerial", 4, patch_px), 32))
    folded = FoldedImage(encoder, patch_px).eval()  # type: ignore[arg-type]
    pixels = torch.randn(5, 4, patch_px, patch_px)
    found, expected = folded(pixels), encoder(pixels)
    for part in ("token", "stem", "middle"):
        torch.testing.assert_close(
            getattr(found, part), getattr(expected, part), atol=1e-5, rtol=1e-5
        )


@torch.inference_mode()
@pytest.mark.parametrize(("patch_px", "wide"), [(50, 2), (40, 1), (20, 0)])
def test_wide_images_take_fewer_products_and_stay_the_same(patch_px: int, wide: int) -> None:
    torch.manual_seed(0)
    encoder = shaken(ImageEncoder(ImageConfig("aerial", 4, patch_px), 128))
    folded = FoldedImage(encoder, patch_px).eval()  # type: ignore[arg-type]
    assert sum(isinstance(part, Winograd) for part in folded.modules()) == 2 * wide
    pixels = torch.randn(3, 4, patch_px, patch_px)
    found, expected = folded(pixels), encoder(pixels)
    torch.testing.assert_close(found.token, expected.token, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.middle, expected.middle, atol=1e-5, rtol=1e-5)


def small_segmenter() -> OmniSatSegmenter:
    parts = (
        ImageConfig("aerial", 4, 20),
        SeriesConfig("s2", 10, in_norm=True, widths_in=(16, 64), widths_out=(64,)),
        SeriesConfig("s1", 2, widths_in=(16, 64), widths_out=(64,)),
    )
    config = SegmenterConfig(OmniSatConfig(64, 1, 4, (3, 4), parts), 5)
    built = shaken(OmniSatSegmenter(config))
    assert isinstance(built, OmniSatSegmenter)
    return built


@torch.inference_mode()
def test_a_folded_segmenter_equals_the_trained_one_end_to_end() -> None:
    torch.manual_seed(0)
    plain = small_segmenter()
    folded = fold_for_inference(plain)
    assert isinstance(folded, PatchLocal)
    image, series = torch.randn(24, 4, 20, 20), torch.randn(24, 6, 2, 1, 1)
    valid = torch.ones(24, 6, dtype=torch.bool)
    results = []
    for network in (plain, folded):
        picture = network.encode_image("aerial", image)
        radar = network.encode_series("s1", series, torch.arange(6) * 40, valid)
        assert picture.fine is not None
        tokens = {"aerial": picture.tokens.view(2, 12, 64), "s1": radar.tokens.view(2, 12, 64)}
        present = {name: torch.ones(2, 12, dtype=torch.bool) for name in tokens}
        present["aerial"][1, 5:] = False
        fused = network.fuse(tokens, present)
        fine = {"aerial": picture.fine.view(2, 12, 16, 10, 10)}
        results.append(network.decode(fused, fine, present, fine_output=True))
    for part in ("logits", "boundary"):
        found, expected = getattr(results[1], part), getattr(results[0], part)
        torch.testing.assert_close(found, expected, atol=3e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_folded_official_encoder_equals_the_plain_one() -> None:
    torch.manual_seed(0)
    size = OfficialSize(64, 1, 4, 4.0, (32, 64), (64,), 16)
    plain = shaken(OmniSat(treesat_config(("aerial", "s2"), side=3, size=size)))
    folded = fold_for_inference(plain)
    pixels = {"aerial": torch.randn(2, 4, 150, 150), "s2": torch.randn(2, 5, 10, 3, 3)}
    days = {"s2": torch.arange(5).expand(2, 5) * 50}
    torch.testing.assert_close(folded(pixels, days), plain(pixels, days), atol=3e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_folded_unet_equals_the_plain_one_and_leaves_it_alone() -> None:
    torch.manual_seed(0)
    plain = shaken(UNet(UNetConfig(bands=3, classes=4, widths=(8, 16, 16))))
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    image = torch.randn(2, 3, 37, 50)
    found = fold_for_inference(plain)(image)
    torch.testing.assert_close(found, plain(image), atol=1e-5, rtol=1e-5)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, before[key])


def test_other_modules_have_no_inference_form() -> None:
    with pytest.raises(ValueError, match="no inference form of Linear"):
        fold_for_inference(nn.Linear(2, 2))


@torch.inference_mode()
@pytest.mark.parametrize("in_norm", [True, False])
def test_folded_pixels_take_slopes_of_any_sign_and_none(in_norm: bool) -> None:
    torch.manual_seed(0)
    config = SeriesConfig("s2", 10, in_norm=in_norm, widths_in=(16, 64), widths_out=(64,))
    encoder = shaken(PixelSeries(config))
    for stack in (encoder.inconv, encoder.mlp):
        for norm in stack:
            if isinstance(norm, nn.GroupNorm):
                norm.weight[::3] *= -1.0
                norm.weight[::5] = 0.0
                norm.bias[::10] = 0.0
                norm.weight[1::5] *= 1e-12
    folded = FoldedPixels(encoder)  # type: ignore[arg-type]
    x, days = torch.randn(30, 12, 10), torch.arange(12) * 29
    assert_rounding(folded(x, days), encoder, x, days)
