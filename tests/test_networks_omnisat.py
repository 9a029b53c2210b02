"""What a network is given, in which company, and what is missing must not matter."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from omnisat_cli.networks.attention import Block, Combiner
from omnisat_cli.networks.configs import (
    ImageConfig,
    OfficialSize,
    OmniSatConfig,
    SeriesConfig,
    flair_config,
    pastis_config,
    treesat_config,
)
from omnisat_cli.networks.image import ImageEncoder, cut_patches, pooled_sides
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.relative import distance_bucket, grid_buckets
from omnisat_cli.networks.series import SeriesEncoder, day_encoding

WIDTH = 32
SERIES = {"widths_in": (16, 32), "widths_out": (32, 32), "heads": 8}


def small_config(grid: tuple[int, int] = (3, 4), **changes: object) -> OmniSatConfig:
    parts = (
        ImageConfig("aerial", 4, 20),
        SeriesConfig("s2", 10, in_norm=True, **SERIES),  # type: ignore[arg-type]
        SeriesConfig("s1", 2, **SERIES),  # type: ignore[arg-type]
    )
    return replace(OmniSatConfig(WIDTH, 2, 4, grid, parts), **changes)  # type: ignore[arg-type]


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value that is not its neutral one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dtype != torch.float32:
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_((0.2 * noise).exp())
            elif value.dim() < 2:
                value.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
            else:
                fan = value.numel() / value.shape[0] if value.dim() != 3 else 4.0
                value.copy_(noise / math.sqrt(fan))
    return network.eval()


@pytest.fixture
def network() -> OmniSat:
    built = shaken(OmniSat(small_config()))
    assert isinstance(built, OmniSat)
    return built


def window_tokens(names: tuple[str, ...] = ("aerial", "s2", "s1"), batch: int = 3) -> dict:
    torch.manual_seed(1)
    return {name: torch.randn(batch, 12, WIDTH) for name in names}


# --- positions


def test_distances_fall_into_the_published_buckets() -> None:
    found = distance_bucket(torch.arange(8).double())
    assert found.tolist() == [3, 4, 5, 5, 6, 6, 6, 6]


def test_prefix_tokens_have_a_bucket_of_their_own() -> None:
    buckets = grid_buckets(2, 3, 1)
    assert buckets.shape == (7, 7)
    assert set(buckets[0].tolist()) == {7}
    assert set(buckets[:, 0].tolist()) == {7}
    assert buckets[1].tolist() == [7, 3, 4, 5, 4, 4, 5]


def test_days_are_encoded_as_sines_at_even_and_cosines_at_odd_entries() -> None:
    code = day_encoding(torch.tensor([100]), 4, 367)
    slow = 100 / 367**0.5
    expected = [math.sin(100), math.cos(100), math.sin(slow), math.cos(slow)]
    assert code[0].tolist() == pytest.approx(expected, abs=1e-5)


@torch.inference_mode()
def test_geographic_equals_official_for_one_modality_on_a_square_grid() -> None:
    official = shaken(OmniSat(small_config((4, 4), position="official")))
    geographic = OmniSat(small_config((4, 4))).eval()
    geographic.load_state_dict(official.state_dict())
    tokens = {"s2": torch.randn(2, 16, WIDTH)}
    torch.testing.assert_close(official.fuse(tokens), geographic.fuse(tokens), atol=1e-5, rtol=0)


def test_official_positions_refuse_a_perfect_square() -> None:
    parts = small_config().modalities
    network = OmniSat(small_config((2, 4), position="official", modalities=parts))
    tokens = {name: torch.zeros(1, 8, WIDTH) for name in ("aerial", "s2", "s1")}
    with pytest.raises(ValueError, match="are undefined for 25"):
        network.fuse(tokens)


@torch.inference_mode()
def test_official_positions_stay_those_of_training_where_a_modality_lacks() -> None:
    network = shaken(OmniSat(small_config((5, 5), position="official"))).eval()
    tokens = {name: torch.randn(2, 25, WIDTH) for name in network.config.names}
    present = {name: torch.ones(2, 25, dtype=torch.bool) for name in tokens}
    published = network.fuse(tokens)
    torch.testing.assert_close(network.fuse(tokens, present), published)
    present["aerial"][0] = False
    part = network.fuse(tokens, present)
    torch.testing.assert_close(part[1], published[1], atol=1e-5, rtol=1e-5)
    without = {name: values[:1] for name, values in tokens.items() if name != "aerial"}
    flags = {name: present[name][:1] for name in without}
    torch.testing.assert_close(network.fuse(without, flags)[0], part[0], atol=1e-5, rtol=1e-5)
    shorter = network.fuse(without)  # the published network of two modalities: other positions
    assert not torch.allclose(shorter[0], part[0], atol=1e-3)


@torch.inference_mode()
def test_another_grid_resamples_the_learned_positions(network: OmniSat) -> None:
    tokens = {"s2": torch.randn(1, 30, WIDTH)}
    with pytest.raises(ValueError, match="30 patches in a window of 3 x 4"):
        network.fuse(tokens)
    assert network.fuse(tokens, grid=(5, 6)).shape == (1, 31, WIDTH)


# --- presence


def fuse_only_present(
    network: OmniSat, tokens: dict[str, Tensor], present: dict[str, Tensor], row: int
) -> Tensor:
    """Fuse one window from its present tokens alone: no mask, no padding, plain attention."""
    grid, position = network.config.grid, network.pos_embed[0]
    cells, rows = [0], [network.cls_token[0, 0] + position[0]]
    for name in network.config.names:
        for patch in range(math.prod(grid)):
            if name in tokens and present[name][row, patch]:
                cells.append(1 + patch)
                rows.append(tokens[name][row, patch] + position[1 + patch])
    cell = torch.tensor(cells)
    buckets = grid_buckets(*grid, 1)
    x = torch.stack(rows)
    for block in network.blocks[:-1]:
        assert isinstance(block, Block)
        x = x + plain_attention(block.attn, block.norm1(x), buckets[cell][:, cell])
        x = x + block.mlp(block.norm2(x))
    last = network.blocks[-1]
    assert isinstance(last, Combiner)
    x = plain_combination(last, last.norm1(x), buckets[:, cell])
    return x + last.mlp(last.norm2(x))


def plain_attention(attn: nn.Module, x: Tensor, buckets: Tensor) -> Tensor:
    D = x.shape[1]
    heads, d = attn.heads, D // attn.heads  # type: ignore[operator]
    q, k, v = attn.qkv(x).view(-1, 3, heads, d).permute(1, 2, 0, 3)  # type: ignore[operator]
    q = q * d**-0.5
    bias = (q @ attn.rpe_k.lookup_table_weight[0]).gather(  # type: ignore[union-attr,index,operator]
        2, buckets.expand(heads, -1, -1)
    )
    y = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v
    return attn.proj(y.transpose(0, 1).flatten(1))  # type: ignore[operator,no-any-return]


def plain_combination(last: Combiner, context: Tensor, buckets: Tensor) -> Tensor:
    attn = last.attn
    D = context.shape[1]
    heads, d = attn.heads, D // attn.heads

    def split(x: Tensor) -> Tensor:
        return x.view(-1, heads, d).transpose(0, 1)

    q = split((attn.q_learned + attn.pos_embed)[0])
    bias = attn.rpe_k(q[None])[0].gather(2, buckets.expand(heads, -1, -1))
    logits = q @ split(attn.wk(context)).transpose(1, 2) * d**-0.5 + bias
    y = logits.softmax(-1) @ split(attn.wv(context))
    return attn.proj(y.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(4))
def test_absent_tokens_equal_tokens_never_given(network: OmniSat, seed: int) -> None:
    tokens = window_tokens(batch=4)
    generator = torch.Generator().manual_seed(seed)
    present = {name: torch.rand(4, 12, generator=generator) > 0.5 for name in tokens}
    present["aerial"][1] = False  # one window without any aerial patch
    present["s1"][2] = False
    for name in tokens:  # one window with a single token of a single modality
        present[name][3] = False
    present["s2"][3, 7] = True
    for name, flags in present.items():
        tokens[name][~flags] = math.nan
    found = network.fuse(tokens, present)
    for row in range(4):
        expected = fuse_only_present(network, tokens, present, row)
        torch.testing.assert_close(found[row], expected, atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_modality_absent_everywhere_equals_one_never_listed(network: OmniSat) -> None:
    tokens = window_tokens()
    present = {name: torch.ones(3, 12, dtype=torch.bool) for name in tokens}
    present["s1"][:] = False
    some = {name: tokens[name] for name in ("aerial", "s2")}
    torch.testing.assert_close(network.fuse(tokens, present), network.fuse(some))
    subset = OmniSat(network.config.subset(("aerial", "s2"))).eval()
    own = {key for key in network.state_dict() if not key.startswith("projector_s1")}
    subset.load_state_dict({key: network.state_dict()[key] for key in own})
    torch.testing.assert_close(subset.fuse(some), network.fuse(some))


@torch.inference_mode()
def test_a_window_without_anything_stays_finite(network: OmniSat) -> None:
    tokens = window_tokens()
    present = {name: torch.zeros(3, 12, dtype=torch.bool) for name in tokens}
    assert network.fuse(tokens, present).isfinite().all()


@torch.inference_mode()
def test_company_in_a_batch_of_windows_does_not_matter(network: OmniSat) -> None:
    tokens = window_tokens()
    present = {name: torch.rand(3, 12) > 0.4 for name in tokens}
    together = network.fuse(tokens, present)
    for row in range(3):
        alone = network.fuse(
            {name: value[row : row + 1] for name, value in tokens.items()},
            {name: value[row : row + 1] for name, value in present.items()},
        )
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_attention_in_slices_equals_attention_at_once(network: OmniSat) -> None:
    tokens = window_tokens()
    whole = network.fuse(tokens).detach()  # with autograd in one piece
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnisat_cli.networks.attention._CPU_ELEMENTS", 1)
        sliced = network.fuse(tokens)
    torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=1e-5)


def test_the_order_of_modalities_does_not_matter_in_geographic_mode(network: OmniSat) -> None:
    turned = OmniSat(network.config.subset(("s1", "aerial", "s2"))).eval()
    turned.load_state_dict(network.state_dict())
    tokens = window_tokens()
    with torch.inference_mode():
        torch.testing.assert_close(turned.fuse(tokens), network.fuse(tokens), atol=1e-5, rtol=1e-5)


# --- encoders


def series_encoder(*, in_norm: bool = True) -> SeriesEncoder:
    config = SeriesConfig("s2", 10, in_norm=in_norm, **SERIES)  # type: ignore[arg-type]
    built = shaken(SeriesEncoder(config))
    assert isinstance(built, SeriesEncoder)
    return built


@torch.inference_mode()
@pytest.mark.parametrize("in_norm", [True, False])
def test_dates_that_are_not_valid_change_nothing(in_norm: bool) -> None:
    encoder = series_encoder(in_norm=in_norm)
    x, days = torch.randn(5, 6, 10), torch.arange(6) * 30
    alone = encoder(x, days)
    padded = torch.cat([x, torch.full((5, 3, 10), math.nan)], 1)
    order = torch.tensor([7, 0, 1, 6, 2, 3, 8, 4, 5])  # padding anywhere
    valid = (order < 6).expand(5, 9)
    more = encoder(padded[:, order], torch.cat([days, torch.zeros(3)])[order], valid)
    torch.testing.assert_close(more, alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_each_patch_counts_its_own_valid_dates() -> None:
    encoder = series_encoder()
    x, days = torch.randn(8, 6, 10), torch.arange(6) * 30
    valid = torch.rand(8, 6) > 0.5
    valid[:, 2] = True
    together = encoder(x, days, valid)
    for row in range(8):
        alone = encoder(x[row : row + 1, valid[row]], days[valid[row]])
        torch.testing.assert_close(together[row], alone[0], atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_order_of_dates_does_not_matter() -> None:
    encoder = series_encoder()
    x, days, order = torch.randn(4, 6, 10), torch.arange(6) * 30, torch.randperm(6)
    torch.testing.assert_close(
        encoder(x[:, order], days[order]), encoder(x, days), atol=1e-5, rtol=1e-5
    )


def test_a_patch_without_any_valid_date_stays_finite_and_passes_no_gradient_on() -> None:
    encoder = series_encoder().train()
    valid = torch.ones(6, 5, dtype=torch.bool)
    valid[2] = False
    token = encoder(torch.randn(6, 5, 10), torch.arange(5), valid)
    assert token.isfinite().all()
    token.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_training_statistics_come_from_valid_dates_only() -> None:
    x, days = torch.randn(6, 5, 10), torch.arange(5)
    valid = torch.rand(6, 5) > 0.3
    valid[:, 0] = True
    first, second = series_encoder().train(), series_encoder().train()
    torch.manual_seed(0)
    first(x, days, valid)
    torch.manual_seed(0)  # the same dropout
    second(x.masked_fill(~valid.unsqueeze(-1), 1e6), days, valid)
    for key, value in first.state_dict().items():
        if "inconv" in key:
            torch.testing.assert_close(value, second.state_dict()[key])


@torch.inference_mode()
def test_company_in_a_batch_of_patches_does_not_matter() -> None:
    network = OmniSat(small_config()).eval()
    pixels = torch.randn(7, 4, 20, 20)
    together = network.encode_image("aerial", pixels)
    alone = network.encode_image("aerial", pixels[3:4])
    torch.testing.assert_close(alone.token[0], together.token[3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.stem[0], together.stem[3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("patch_px", "sides"),
    [
        (50, (25, 12, 6, 3, 1)),
        (40, (20, 10, 5, 2, 1)),
        (20, (10, 5, 2, 1, 1)),
        (10, (5, 2, 1, 1, 1)),
        (2, (1, 1, 1, 1, 1)),
        (100, (50, 25, 12, 6, 3)),
    ],
)
def test_pools_stop_at_a_single_pixel(patch_px: int, sides: tuple[int, ...]) -> None:
    assert pooled_sides(patch_px) == sides
    encoder = ImageEncoder(ImageConfig("aerial", 3, patch_px), 8).eval()
    features = encoder(torch.randn(2, 3, patch_px, patch_px))
    assert features.token.shape == (2, 8)
    assert features.stem.shape[-1] == sides[0]
    assert features.middle.shape[-1] == sides[1]


def test_patches_are_cut_row_by_row_and_a_remainder_is_dropped() -> None:
    image = torch.arange(5 * 7).view(1, 5, 7)
    patches = cut_patches(image, 2)
    assert patches.shape == (6, 1, 2, 2)
    assert patches[1].flatten().tolist() == [2, 3, 9, 10]
    assert patches[3].flatten().tolist() == [14, 15, 21, 22]


# --- configurations


@pytest.mark.parametrize("config", [treesat_config(), flair_config(), pastis_config()])
def test_configurations_survive_json(config: OmniSatConfig) -> None:
    assert OmniSatConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("make", "parameters", "entries"),
    [
        (treesat_config, 9_839_040, 212),
        (flair_config, 9_471_648, 165),
        (pastis_config, 10_348_864, 212),
    ],
)
def test_published_sizes(make: type, parameters: int, entries: int) -> None:
    with torch.device("meta"):
        network = OmniSat(make())
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == entries


def test_an_unknown_key_of_a_configuration_is_named() -> None:
    plain = small_config().to_dict() | {"colour": 3}
    with pytest.raises(ValueError, match="unknown colour"):
        OmniSatConfig.from_dict(plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "multiple of 5 heads"),
        ({"depth": 0}, "depth must be a whole number"),
        ({"position": "nowhere"}, "none of"),
        ({"grid": (0, 4)}, "is empty"),
        ({"width": 64}, "ends at width 32"),
    ],
)
def test_contradictions_in_a_configuration_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**change)


def test_undated_images_have_the_published_day() -> None:
    size = OfficialSize(32, 1, 4, 4.0, (16, 32), (32,), 8)
    config = treesat_config(("s2-mono",), size=size)
    network = OmniSat(config).eval()
    image = torch.randn(1, 10, 6, 6)
    dated = network.encode_series(
        "s2-mono", image.permute(2, 3, 0, 1).reshape(36, 1, 10), torch.tensor([120])
    )
    torch.testing.assert_close(
        network.window_tokens("s2-mono", image, None, None)[0], dated, atol=1e-5, rtol=1e-5
    )
