"""AnySat: sensors of any scale, holes without influence, dense maps by position."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_networks_omnisat import shaken
from torch import Tensor

from omnisat_cli.networks.anysat import AnySat
from omnisat_cli.networks.anysat_config import SENSORS, AnySatConfig, Sensor, hub_config
from omnisat_cli.networks.anysat_encoders import cells_to_raster, position_code
from omnisat_cli.networks.anysat_heads import MapHead
from omnisat_cli.networks.anysat_jepa import (
    AnySatJepa,
    JepaDraws,
    JepaMasks,
    JepaPredictor,
    follow,
    half_dates,
    jepa_loss,
    jepa_targets,
    teacher_momentum,
)
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.networks.anysat_values import Features
from omnisat_cli.networks.contrast import mil_nce
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.image import as_patches, cut_patches
from omnisat_cli.networks.seam import PatchLocal, WindowBased
from omnisat_cli.networks.table import build_network

NAMES = ("aerial", "naip", "s2", "s1", "l7", "modis")
SMALL = AnySatConfig(64, 1, 2, sensors=tuple(SENSORS[name] for name in NAMES))
DAYS = torch.tensor([10, 80, 200])


def small(**changes: object) -> AnySat:
    network = shaken(AnySat(replace(SMALL, **changes)))  # type: ignore[arg-type]
    assert isinstance(network, AnySat)
    return network


def window(*names: str, side_m: int = 60, batch: int = 1) -> dict[str, Tensor]:
    """Draw pixels of a window for each sensor."""
    generator = torch.Generator().manual_seed(1)
    pixels = {}
    for name in names:
        sensor = SENSORS[name]
        px = 1 if sensor.whole_window else round(side_m / sensor.gsd_m)
        dates = (len(DAYS),) if sensor.kind == "series" else ()
        pixels[name] = torch.randn(batch, *dates, sensor.bands, px, px, generator=generator)
    return pixels


def features(
    network: AnySat,
    pixels: Mapping[str, Tensor],
    valid: Mapping[str, Tensor] | None = None,
    *,
    patch_m: int = 10,
    keep: str | None = None,
) -> Features:
    days = {name: DAYS for name in pixels if SENSORS[name].kind == "series"}
    return network(pixels, days, valid, patch_m=patch_m, keep=keep)  # type: ignore[no-any-return]


def test_a_published_size_has_the_published_entries(shared: Path) -> None:
    table = (shared / "design" / "state_dicts" / "anysat_tiny.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in table[1:]]
    published = {row[0]: json.loads(row[1]) for row in rows}
    network = AnySat(hub_config("tiny"))
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert own == published


def test_configurations_survive_plain_values_and_sensors_may_be_named() -> None:
    plain = json.loads(json.dumps(SMALL.to_dict()))
    assert AnySatConfig.from_dict(plain) == SMALL
    assert AnySatConfig.from_dict({**plain, "sensors": list(NAMES)}) == SMALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 72}, "width 72"),
        ({"width": 32}, "width 32"),
        ({"heads": 0}, "heads must be"),
        ({"sensors": []}, "sensors must be some"),
        ({"sensors": ["s2", "s2"]}, "each once"),
        ({"sensors": ["s9"]}, "one of aerial"),
        ({"behaviour": "right"}, "behaviour 'right'"),
        ({"trunk_attention": "flash"}, "trunk_attention 'flash'"),
        ({"dept": 3}, "unknown dept"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnySatConfig.from_dict({**SMALL.to_dict(), **change})


def test_a_sensor_of_one_s_own_needs_no_code() -> None:
    planet = Sensor("planet", "image", 4, 3.125, 8)
    network = AnySat(replace(SMALL, sensors=(planet, SENSORS["s2"]))).eval()
    pixels = {"planet": torch.randn(1, 4, 32, 32), **window("s2", side_m=100)}
    found = network(pixels, {"s2": DAYS}, patch_m=50, keep="planet")
    assert found.dense("planet").shape == (1, 4, 4, 128)


@torch.inference_mode()
def test_every_output_has_its_published_shape() -> None:
    found = features(small(), window("aerial", "s2", batch=2), patch_m=20, keep="aerial")
    assert found.output("tile").shape == (2, 64)
    assert found.output("all").shape == (2, 10, 64)
    assert found.output("patch").shape == (2, 3, 3, 64)
    assert found.output("dense").shape == (2, 30, 30, 128)
    with pytest.raises(ValueError, match="'s2' were not kept"):
        found.output("dense", "s2")


@torch.inference_mode()
def test_coarse_sensors_join_the_others_and_alone_the_release_refuses_them() -> None:
    pixels = window("s2", "l7", "modis")
    found = features(small(), pixels, patch_m=30)
    assert found.grid == (2, 2)
    without = features(small(), window("s2", "l7"), patch_m=30)
    assert not torch.allclose(found.tokens, without.tokens, atol=1e-3)
    official = small(behaviour="official")
    with pytest.raises(ValueError, match="l7: the published release cannot run patches of 30 m"):
        features(official, pixels, patch_m=30)
    with pytest.raises(ValueError, match="modis: the published release"):
        features(official, window("modis", "s2"))
    assert features(official, window("l7")).grid == (2, 2)


@pytest.mark.parametrize(
    ("pixels", "patch_m", "message"),
    [
        (window("s2"), 15, "multiple of 10 m, found 15 m"),
        (window("l7"), 20, "patch of 20 m holds no whole number of sub-patches of 30 m"),
        (window("modis"), 10, "needs a sensor with patches beside modis"),
        ({}, 10, "beside nothing"),
        ({"s2": torch.zeros(1, 3, 4, 6, 6)}, 10, "s2: expected 5 axes with 10 bands"),
        ({"modis": torch.zeros(1, 3, 7, 2, 2)}, 10, "one pixel a window, found 2 x 2"),
        ({**window("s2"), **window("naip", side_m=50)}, 10, "naip covers 50 x 50 m, s2 60 x 60"),
        ({"s1-asc": torch.zeros(1, 3, 2, 6, 6)}, 10, "no 's1-asc'; it has aerial"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    pixels: dict[str, Tensor], patch_m: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        features(small(), pixels, patch_m=patch_m)


def test_a_series_without_days_is_refused() -> None:
    with pytest.raises(ValueError, match="s2: a series needs the days"):
        small()(window("s2"), {})


@torch.inference_mode()
def test_a_date_that_is_not_valid_has_no_influence() -> None:
    network, pixels = small(), window("aerial", "s2")
    valid = torch.ones(1, 3, 6, 6, dtype=torch.bool)
    valid[:, 1] = False
    expected = network({**pixels, "s2": pixels["s2"][:, [0, 2]]}, {"s2": DAYS[[0, 2]]}, patch_m=20)
    pixels["s2"][:, 1] = math.nan
    found = features(network, pixels, {"s2": valid}, patch_m=20)
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-5, rtol=1e-5)
    by_date = features(network, pixels, {"s2": valid[:, :, 0, 0]}, patch_m=20)
    torch.testing.assert_close(by_date.tokens, expected.tokens, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_pixel_and_a_patch_without_valid_dates_have_no_influence() -> None:
    network = small()
    valid = torch.ones(1, 3, 6, 6, dtype=torch.bool)
    valid[..., 0, 0] = False  # a pixel of a patch
    valid[..., 4:, 4:] = False  # a whole patch
    found = []
    for filler in (math.nan, 7.0):
        pixels = window("aerial", "s2")
        pixels["s2"] = pixels["s2"].masked_fill(~valid.unsqueeze(2), filler)
        found.append(features(network, pixels, {"s2": valid}, patch_m=20).tokens)
    assert bool(found[0].isfinite().all())
    torch.testing.assert_close(found[0], found[1])


@torch.inference_mode()
def test_a_sensor_present_nowhere_counts_like_one_that_is_not_given() -> None:
    network = small()
    nowhere = {"s2": torch.zeros(1, 3, 6, 6, dtype=torch.bool)}
    found = features(network, window("aerial", "s2"), nowhere)
    expected = features(network, window("aerial"))
    torch.testing.assert_close(found.tokens, expected.tokens, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_official_behaviour_writes_the_learned_number_into_holes() -> None:
    network = small(behaviour="official")
    valid = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.4
    pixels = window("s2")
    learned = float(network.get_parameter("projector_s2.pad_parameter"))
    filled = pixels["s2"].masked_fill(~valid.unsqueeze(2), learned)
    found = features(network, pixels, {"s2": valid})
    torch.testing.assert_close(found.tokens, features(network, {"s2": filled}).tokens)


@torch.inference_mode()
def test_dense_maps_of_fine_images_lie_where_their_pixels_are() -> None:
    network, pixels = small(), window("aerial")
    before = features(network, pixels, patch_m=20, keep="aerial").fine["aerial"]
    pixels["aerial"][..., 70:80, 130:140] += 3.0  # the sub-patch in row 7, column 13
    after = features(network, pixels, patch_m=20, keep="aerial").fine["aerial"]
    change = (after - before).norm(dim=-1)[0]
    assert (int(change.argmax()) // 30, int(change.argmax()) % 30) == (7, 13)
    official = small(behaviour="official")
    permuted = features(official, pixels, patch_m=20, keep="aerial").fine["aerial"]
    assert not torch.allclose(permuted, after, atol=1e-3)
    torch.testing.assert_close(permuted.sum((1, 2)), after.sum((1, 2)), atol=1e-3, rtol=1e-4)


@torch.inference_mode()
def test_windows_need_not_be_square_and_a_remainder_is_left_out() -> None:
    network, pixels = small(), window("s2", "naip", side_m=100)
    cut = {"s2": pixels["s2"][..., :5, :], "naip": pixels["naip"][..., :40, :]}
    found = features(network, cut, patch_m=20, keep="s2")
    assert found.grid == (2, 5)
    assert found.dense("s2").shape == (1, 4, 10, 128)
    exact = {"s2": pixels["s2"][..., :4, :], "naip": pixels["naip"][..., :32, :]}
    torch.testing.assert_close(found.tokens, features(network, exact, patch_m=20).tokens)


@torch.inference_mode()
def test_the_order_of_sensors_and_the_other_windows_of_a_batch_do_not_matter() -> None:
    network, pixels = small(), window("aerial", "s2", "s1", batch=2)
    found = features(network, pixels).tokens
    turned = features(network, dict(reversed(pixels.items()))).tokens
    torch.testing.assert_close(turned, found, atol=1e-5, rtol=1e-5)
    alone = features(network, {name: value[1:] for name, value in pixels.items()}).tokens
    torch.testing.assert_close(alone, found[1:], atol=1e-5, rtol=1e-5)


def test_slices_change_nothing_and_kept_tables_allow_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, pixels = small(), window("aerial", "s2", "modis", batch=2)
    valid = {"s2": torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.4}
    with torch.inference_mode(), monkeypatch.context() as patch:
        patch.setattr("omnisat_cli.networks.anysat._CPU_BYTES", 1)
        sliced = features(network, pixels, valid, keep="s2")
    whole = features(network, pixels, valid, keep="s2")
    torch.testing.assert_close(sliced.tokens, whole.tokens.detach(), atol=1e-5, rtol=1e-5)
    # Groups of two channels make single sub-patches of so small a network ill-conditioned.
    torch.testing.assert_close(sliced.fine["s2"], whole.fine["s2"].detach(), atol=2e-4, rtol=1e-5)
    whole.dense("s2").sum().backward()
    gradient = network.get_parameter("projector_s2.patch_embed.attention_heads.Q").grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())


@given(scale=st.integers(1, 4), cell_side=st.integers(1, 5))
def test_cells_become_rows(scale: int, cell_side: int) -> None:
    side = scale * cell_side
    raster = torch.arange(side * side).view(side, side)
    cells = [
        raster[r * cell_side : (r + 1) * cell_side, c * cell_side : (c + 1) * cell_side].flatten()
        for r in range(scale)
        for c in range(scale)
    ]
    found = cells_to_raster(torch.cat(cells).view(1, -1, 1), cell_side)
    assert torch.equal(found.flatten(), raster.flatten())


def test_the_position_code_is_the_published_formula_and_kept() -> None:
    code = position_code(2, 3, 2.0, 8, torch.device("cpu"))
    assert code.shape == (7, 8)
    assert not code[0].any()
    x, y = 2 * 2.0, 1 * 2.0  # the last cell: column 2, row 1
    expected = [f(v * w) for v in (x, y) for f in (math.sin, math.cos) for w in (1.0, 0.01)]
    torch.testing.assert_close(code[6], torch.tensor(expected))
    assert position_code(2, 3, 2.0, 8, torch.device("cpu")) is code


@pytest.mark.parametrize("order", ["pixel", "class"])
def test_a_head_gives_each_cell_all_its_pixels(order: str) -> None:
    head = MapHead(6, 3, 2, order)  # type: ignore[arg-type]
    cells = torch.randn(1, 2, 4, 6)
    logits = head(cells)
    assert logits.shape == (1, 3, 4, 8)
    one = head.mlp(cells[0, 1, 2])
    one = one.view(2, 2, 3).permute(2, 0, 1) if order == "pixel" else one.view(3, 2, 2)
    torch.testing.assert_close(logits[0, :, 2:4, 4:6], one)


LOCAL = replace(SMALL, sensors=tuple(SENSORS[name] for name in ("aerial", "s2")))
MAPPER = AnySatSegmenterConfig(
    LOCAL, 5, patch_m=20, grid=(3, 3), coarse_side=2, fine_sensor="aerial", fine_pixels=2
)


def mapped(
    network: AnySatSegmenter, present: Mapping[str, Tensor], *, fine_output: bool
) -> tuple[Tensor, Tensor]:
    """Encode patch by patch, fuse and decode one window; the fused tokens and the logits."""
    pixels = window("aerial", "s2")
    series = cut_patches(pixels["s2"], 2).transpose(0, 1).flatten(0, 1)
    every = torch.ones(9, 3, dtype=torch.bool)
    encoded = {
        "aerial": network.encode_image("aerial", as_patches(pixels["aerial"], 100)),
        "s2": network.encode_series("s2", series, DAYS, every),
    }
    fused = network.fuse({n: e.tokens.unsqueeze(0) for n, e in encoded.items()}, present)
    fine = {n: e.fine.unsqueeze(0) for n, e in encoded.items() if e.fine is not None}
    assert list(fine) == ["aerial"]
    dense = network.decode(fused, fine, present, fine_output=fine_output)
    assert dense.boundary is None
    return fused, dense.logits


@torch.inference_mode()
def test_the_mapper_is_patch_local_and_gives_what_the_whole_window_gives() -> None:
    network = build_network("anysat", json.loads(json.dumps(MAPPER.to_dict())))
    assert isinstance(network, AnySatSegmenter)
    assert network.config == MAPPER
    assert isinstance(network, PatchLocal)
    assert not isinstance(network, WindowBased)
    shaken(network)
    everywhere = {name: torch.ones(1, 9, dtype=torch.bool) for name in ("aerial", "s2")}
    fused, logits = mapped(network, everywhere, fine_output=True)
    whole = features(network.encoder, window("aerial", "s2"), patch_m=20, keep="aerial")
    torch.testing.assert_close(fused, whole.tokens, atol=1e-5, rtol=1e-5)
    assert network.fine is not None
    expected = network.fine(whole.dense("aerial"))
    assert logits.shape == (1, 5, 60, 60)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    _, coarse = mapped(network, everywhere, fine_output=False)
    torch.testing.assert_close(coarse, network.coarse(whole.patch), atol=1e-5, rtol=1e-5)
    folded = fold_for_inference(network)
    assert isinstance(folded, AnySatSegmenter)
    torch.testing.assert_close(mapped(folded, everywhere, fine_output=True)[1], logits)


@torch.inference_mode()
def test_the_mapper_repeats_coarse_logits_where_the_fine_sensor_is_absent() -> None:
    network = shaken(AnySatSegmenter(MAPPER))
    assert isinstance(network, AnySatSegmenter)
    present = {name: torch.ones(1, 9, dtype=torch.bool) for name in ("aerial", "s2")}
    present["aerial"][0, 4] = False
    _, fine = mapped(network, present, fine_output=True)
    _, coarse = mapped(network, present, fine_output=False)
    repeated = coarse.repeat_interleave(10, 2).repeat_interleave(10, 3)
    torch.testing.assert_close(fine[..., 20:40, 20:40], repeated[..., 20:40, 20:40])
    assert not torch.allclose(fine[..., :20, :20], repeated[..., :20, :20], atol=1e-2)
    nowhere = {**present, "aerial": torch.zeros(1, 9, dtype=torch.bool)}
    _, only = mapped(network, nowhere, fine_output=False)
    alone = features(network.encoder, {"s2": window("aerial", "s2")["s2"]}, patch_m=20)
    torch.testing.assert_close(only, network.coarse(alone.patch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 0}, "above 0"),
        ({"patch_m": 15}, "multiple of 10 m"),
        ({"coarse_side": 3}, "20 fine pixels along a patch are no whole multiple of 3"),
        ({"fine_sensor": "spot"}, "no 'spot'"),
        ({"encoder": SMALL.to_dict(), "fine_sensor": "modis"}, "modis has one pixel a window"),
        ({"encoder": {"width": 64, "heads": 2, "sensors": ["l7"]}}, "none of l7 has patches"),
        ({"encoder": 3}, "'encoder' must be a table"),
        ({"clases": 3}, "unknown clases"),
    ],
)
def test_impossible_mappers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnySatSegmenterConfig.from_dict({**MAPPER.to_dict(), **change})


def test_the_predictor_has_the_published_entries(shared: Path) -> None:
    table = shared / "design" / "state_dicts" / "anysat_base_predictor.tsv"
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
    published = {row[0]: json.loads(row[1]) for row in rows}
    own = JepaPredictor(hub_config("base")).state_dict()
    assert {key: list(value.shape) for key, value in own.items()} == published


def jepa(network: AnySat) -> tuple[AnySatJepa, JepaMasks, JepaDraws]:
    student = shaken(AnySatJepa(network, 1, 2))
    assert isinstance(student, AnySatJepa)
    masks = JepaMasks(
        torch.tensor([[0, 1, 5, 7]]), (torch.tensor([[2, 3]]), torch.tensor([[8, 4]]))
    )
    generator = torch.Generator().manual_seed(4)
    dates = {"s2": torch.rand(1, 3, generator=generator)}
    return (
        student,
        masks,
        JepaDraws(dates, torch.tensor([[0, 1, 1, 0]]), torch.rand(1, 8, generator=generator)),
    )


def test_a_pretraining_step_trains_every_part_that_it_uses() -> None:
    student, masks, draws = jepa(small(sensors=LOCAL.sensors))
    pixels, days = window("aerial", "s2"), {"s2": DAYS.expand(1, 3)}
    step = student(pixels, days, masks, draws, patch_m=20)
    targets = jepa_targets(small(sensors=LOCAL.sensors), pixels, days, masks.targets, patch_m=20)
    assert step.predicted.shape == targets.shape == (2, 2, 64)
    (jepa_loss(step.predicted, targets) + step.contrast).backward()
    # The number written into holes is the official behaviour's.
    missing = [name for name, value in student.named_parameters() if value.grad is None]
    assert missing == ["encoder.projector_s2.pad_parameter"]


@torch.inference_mode()
def test_the_corrected_student_sees_only_its_context() -> None:
    student, masks, draws = jepa(small(sensors=LOCAL.sensors))
    pixels, days = window("aerial", "s2"), {"s2": DAYS.expand(1, 3)}
    before = student(pixels, days, masks, draws, patch_m=20).predicted
    pixels["aerial"][..., 100:200, 0:100] = 9.0  # patch 3, a target
    pixels["s2"][..., 4:, 4:] = 9.0  # patch 8, a target
    torch.testing.assert_close(student(pixels, days, masks, draws, patch_m=20).predicted, before)
    pixels["aerial"][..., 200:, 100:200] = 9.0  # patch 7, in the context
    pixels["s2"][..., 4:, 2:4] = 9.0
    changed = student(pixels, days, masks, draws, patch_m=20).predicted
    assert not torch.allclose(changed, before, atol=1e-4)


def test_half_of_the_dates_stay_with_their_pixels() -> None:
    days = torch.tensor([[1, 2, 3, 4, 5]])
    series = days.float().view(1, 5, 1, 1, 1)
    kept, numbers, _ = half_dates(series, days, torch.tensor([[0.5, 0.1, 0.9, 0.7, 0.2]]))
    assert numbers.tolist() == [[2, 5]]
    assert kept.flatten().tolist() == [2.0, 5.0]
    flags = torch.tensor([True, False, True, True, False]).view(1, 5, 1, 1)
    _, numbers, left = half_dates(series, days, torch.tensor([[0.5, 0.1, 0.9, 0.7, 0.2]]), flags)
    assert numbers.tolist() == [[1]]
    assert left is not None
    assert left.all()
    assert half_dates(series[:, :1], days[:, :1], torch.ones(1, 1))[1].tolist() == [[1]]


def test_the_contrast_is_least_where_the_sensors_agree() -> None:
    tokens = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    agreeing = mil_nce([tokens, tokens])
    assert float(agreeing) < float(mil_nce([tokens, tokens.roll(1, 1)]))


def test_the_teacher_follows_ever_more_slowly() -> None:
    teacher, student = MapHead(4, 2), MapHead(4, 2)
    before, towards = teacher.mlp[1].weight.clone(), student.mlp[1].weight
    follow(teacher, student, 0.75)
    torch.testing.assert_close(teacher.mlp[1].weight, 0.75 * before + 0.25 * towards)
    assert teacher_momentum(0, 100) == pytest.approx(0.996)
    assert teacher_momentum(100, 100) == pytest.approx(1.0)


@torch.inference_mode()
def test_the_folded_mapper_gives_the_same_tokens() -> None:
    network = AnySatSegmenter(AnySatSegmenterConfig(LOCAL, 3, patch_m=20, grid=(3, 3))).eval()
    shaken(network)
    folded = fold_for_inference(network.double()).double()  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(5, 3, 10, 2, 2, generator=generator, dtype=torch.float64)
    for valid in (torch.ones(5, 3, dtype=torch.bool), torch.rand(5, 3, generator=generator) > 0.4):
        valid[:, 0] = True
        one = network.encode_series("s2", pixels, DAYS, valid)
        two = folded.encode_series("s2", pixels, DAYS, valid)
        torch.testing.assert_close(one.tokens, two.tokens, atol=1e-6, rtol=1e-6)


@torch.inference_mode()
def test_patch_vectors_do_not_need_the_sub_patches() -> None:
    network = small()
    pixels = torch.randn(3, 4, 50, 50, generator=torch.Generator().manual_seed(3))
    whole = network.encode("aerial", pixels)
    alone = network.encode("aerial", pixels, kept=False)
    torch.testing.assert_close(alone.tokens, whole.tokens, atol=1e-5, rtol=1e-5)
    assert alone.fine.shape == (3, 0, 64)
    pixels = window("s2", batch=4)["s2"]
    valid = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.6
    holed = network.encode("s2", pixels, DAYS, valid)
    assert holed.present is not None
    alone = network.encode("s2", pixels, DAYS, valid, kept=False)
    torch.testing.assert_close(alone.tokens, holed.tokens, atol=1e-5, rtol=1e-5)


def folded_encoder(*names: str) -> AnySat:
    config = replace(SMALL, sensors=tuple(SENSORS[name] for name in names))
    segmenter = shaken(AnySatSegmenter(AnySatSegmenterConfig(config, 3)))
    folded = fold_for_inference(segmenter)
    assert isinstance(folded, AnySatSegmenter)
    return folded.encoder


@torch.inference_mode()
def test_the_folded_form_goes_to_other_types_and_devices() -> None:
    names = ("aerial", "s2", "s1")
    pixels = window(*names, side_m=20)
    encoder = folded_encoder(*names)
    expected = features(encoder, pixels).tokens

    def moved(to: torch.dtype | str) -> Tensor:
        there = {name: value.to(to) for name, value in pixels.items()}
        days = {name: DAYS.to(to if isinstance(to, str) else "cpu") for name in ("s2", "s1")}
        found = folded_encoder(*names).to(to)(there, days)
        assert isinstance(found, Features)
        return found.tokens

    torch.testing.assert_close(moved(torch.float64).float(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved(torch.bfloat16).float(), expected, atol=0.15, rtol=0.1)
    # As on a GPU: anything that stayed behind on the CPU would stop it.
    assert moved("meta").device.type == "meta"


@torch.inference_mode()
def test_a_compiler_takes_the_folded_form_as_one_graph_that_reads_its_tables() -> None:
    encoder, pixels = folded_encoder("s2"), window("s2", side_m=20)
    expected = features(encoder, pixels).tokens  # makes the tables
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(encoder, backend=keep, fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = features(compiled, pixels).tokens
    assert len(graphs) == 1
    assert "torch.log" not in graphs[0].code  # of the distances between patches
    torch.testing.assert_close(found.float(), expected, atol=0.15, rtol=0.1)
