"""Published checkpoints become packs: AnySat, U-TAE, and what OmniSat's own code writes."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import torch
from anysat_packs import CLASSES, anysat_config, norms
from cli_runs import omnisat, write_s1, write_s2
from safetensors.torch import load_file, save_file

from omnisat_cli.errors import Exit
from omnisat_cli.networks.anysat import AnySat
from omnisat_cli.networks.anysat_config import SENSORS, hub_config
from omnisat_cli.networks.anysat_jepa import JepaPredictor
from omnisat_cli.networks.configs import (
    OfficialSize,
    OmniSatConfig,
    flair_config,
    pastis_config,
    treesat_config,
)
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.omnisat import OmniSat
from omnisat_cli.networks.table import build_network
from omnisat_cli.networks.utae import UTAE, UtaeConfig
from omnisat_cli.packs.convert import rename
from omnisat_cli.packs.norms import read_norms
from omnisat_cli.packs.published import UNTRAINED, Origin
from omnisat_cli.packs.published_anysat import ANYSAT_NORMS, anysat_parcel
from omnisat_cli.packs.published_omnisat import omnisat_parcel
from omnisat_cli.packs.registry import read_pack

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

TRUST = "--i-trust-this-file"
MICRO = OfficialSize(32, 2, 4, 4.0, (16, 32), (32, 32), 4, 4)


@cache
def anysat(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return AnySat(anysat_config(*SENSORS)).state_dict()


def utae(**sizes: object) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return UTAE(UtaeConfig(**sizes)).state_dict()  # type: ignore[arg-type]


def convert(checkpoint: Path, out: Path, *words: object) -> tuple[int, str]:
    done = omnisat("model", "convert", checkpoint, "--out", out, *words)
    return done.code, done.err or done.out


def test_anysat_becomes_a_pack_with_the_statistics_that_were_published(tmp_path: Path) -> None:
    path = tmp_path / "AnySat.safetensors"
    save_file(anysat(), path)
    code, said = convert(path, tmp_path / "pack", "--as", "anysat")
    assert code == 0, said
    assert "its head is untrained" in said
    pack = read_pack(tmp_path / "pack")
    card = pack.card
    assert card.names == ("aerial", "s2", "s1")
    assert card.pretrained_only
    assert card.licence == "MIT"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card.source
    assert "TreeSatAI" in card.training
    s1 = card.modalities[2]
    assert (s1.units, s1.bands, s1.mean) == (
        "linear",
        ("VV", "VH", "ratio"),
        ANYSAT_NORMS["s1"].mean,
    )
    assert omnisat("model", "verify", tmp_path / "pack").code == 0
    weights = load_file(pack.weights)
    assert torch.equal(
        weights["encoder.blocks.0.attn.qkv.weight"], anysat()["blocks.0.attn.qkv.weight"]
    )


def test_a_full_checkpoint_gives_the_teacher_or_the_student(tmp_path: Path) -> None:
    teacher, student = anysat(1), anysat(2)
    predictor = JepaPredictor(anysat_config("s2")).state_dict()
    full = {f"target_encoder.{k}": v for k, v in teacher.items()}
    full |= {f"model.encoder.{k}": v for k, v in student.items()}
    full |= {f"model.predictor.{k}": v for k, v in predictor.items()}
    full["model.masked_token"] = torch.zeros(1, 1, 64)
    save_file(full, tmp_path / "full.safetensors")
    for part, expected in (("teacher", teacher), ("student", student)):
        words = ("--as", "anysat", "--part", part, "--modalities", "s2")
        assert convert(tmp_path / "full.safetensors", tmp_path / part, *words)[0] == 0
        weights = load_file(tmp_path / part / "weights.safetensors")
        key = "projector_s2.patch_embed.inconv.0.weight"
        assert torch.equal(weights[f"encoder.{key}"], expected[key])
        assert not any("projector_s1" in name for name in weights)
    words = ("--as", "anysat", "--part", "both")
    assert convert(tmp_path / "full.safetensors", tmp_path / "c", *words)[0] == Exit.USAGE


def test_sensors_without_published_statistics_need_a_file(tmp_path: Path) -> None:
    save_file(anysat(), tmp_path / "AnySat.safetensors")
    words = ("--as", "anysat", "--modalities", "s2,l8")
    code, said = convert(tmp_path / "AnySat.safetensors", tmp_path / "pack", *words)
    assert code == Exit.REFUSED
    assert "no statistics of l8 were published" in said
    assert "--norm" in said
    own = {name: {"mean": n.mean, "std": n.std} for name, n in norms("l8", "s2").items()}
    (tmp_path / "norm.json").write_text(json.dumps(own))
    words = (*words, "--norm", tmp_path / "norm.json", "--patch-size", 40)
    assert convert(tmp_path / "AnySat.safetensors", tmp_path / "pack", *words)[0] == 0
    card = read_pack(tmp_path / "pack").card
    assert card.modalities[1].mean == (2000.0,) * 11
    assert card.modalities[0].mean == (2000.0,) * 10
    assert (card.patch_m, card.coarse_m) == (40, 40)
    code, said = convert(
        tmp_path / "AnySat.safetensors", tmp_path / "c", *words[:2], "--patch-size", 15
    )
    assert code == Exit.USAGE
    assert "a multiple of 10 m, found 15 m" in said
    words = ("--as", "anysat", "--modalities", "radar")
    assert convert(tmp_path / "AnySat.safetensors", tmp_path / "b", *words)[0] == Exit.REFUSED


def test_the_published_table_of_anysat_is_what_a_conversion_reads(shared: Path) -> None:
    rows = (shared / "design" / "state_dicts" / "anysat_tiny.tsv").read_text().splitlines()[1:]
    shapes = {row.split("\t")[0]: json.loads(row.split("\t")[1]) for row in rows}
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    parcel = anysat_parcel(tensors, Origin("tiny", "a table", norms(*SENSORS)))
    encoder = parcel.card.network.config["encoder"]
    assert encoder == {**hub_config("tiny").to_dict(), "spatial_depth": 2}
    assert {k.removeprefix("encoder.") for k in parcel.weights if k.startswith("encoder.")} == set(
        shapes
    )


FOLDS = {f"Fold_{k}": {"mean": [float(k)] * 10, "std": [10.0 * k] * 10} for k in range(1, 6)}


def test_utae_becomes_a_pack_that_maps_twenty_crops(tmp_path: Path) -> None:
    folder = tmp_path / "Fold_2"
    folder.mkdir()
    torch.save({"epoch": 80, "state_dict": utae(), "optimizer": {}}, folder / "model.pth.tar")
    (tmp_path / "NORM_S2_patch.json").write_text(json.dumps(FOLDS))
    conf = {"model": "utae", "encoder_widths": "[64,64,64,128]", "out_conv": "[32, 20]", "d_k": 4}
    (tmp_path / "conf.json").write_text(json.dumps(conf))
    words = ("--as", "utae", "--fold", 2, "--conf", tmp_path / "conf.json", TRUST)
    assert convert(folder / "model.pth.tar", tmp_path / "pack", *words[:-1])[0] == Exit.SECURITY
    words = (*words, "--norm", tmp_path / "NORM_S2_patch.json")
    code, said = convert(folder / "model.pth.tar", tmp_path / "pack", *words)
    assert code == 0, said
    pack = read_pack(tmp_path / "pack")
    (s2,) = pack.card.modalities
    assert s2.mean == (3.0,) * 10  # folds 2, 3, 4
    assert s2.std == (30.0,) * 10
    assert s2.dates == "days-since-september"
    assert pack.legend.id == "pastis-20"
    assert not pack.card.pretrained_only
    assert "fold 2" in pack.card.training
    assert omnisat("model", "verify", tmp_path / "pack").code == 0
    assert convert(folder / "model.pth.tar", tmp_path / "b", *words, "--fold", 6)[0] == Exit.USAGE


def test_a_utae_of_other_classes_is_not_taken_for_the_published_one(tmp_path: Path) -> None:
    save_file(utae(out_widths=(32, 5)), tmp_path / "u.safetensors")
    words = ("--as", "utae")
    code, said = convert(tmp_path / "u.safetensors", tmp_path / "pack", *words)
    assert (code, "another shape" in said) == (Exit.REFUSED, True)
    (tmp_path / "sizes.json").write_text(json.dumps({"out_conv": "[32, 5]"}))
    words = (*words, "--conf", tmp_path / "sizes.json")
    code, said = convert(tmp_path / "u.safetensors", tmp_path / "pack", *words)
    assert (code, "none of PASTIS" in said) == (Exit.REFUSED, True)


def test_the_published_folders_of_utae_say_which_fold_and_sizes_they_hold(tmp_path: Path) -> None:
    sizes = {"encoder_widths": (16, 32), "decoder_widths": (16, 32), "out_widths": (16, 20)}
    folder = tmp_path / "UTAE" / "Fold_3"
    folder.mkdir(parents=True)
    save_file(utae(**sizes), folder / "model.safetensors")
    named = {"encoder_widths": "[16,32]", "decoder_widths": "[16,32]", "out_conv": "[16, 20]"}
    (folder.parent / "conf.json").write_text(json.dumps(named))
    code, said = convert(folder / "model.safetensors", tmp_path / "pack", "--as", "utae")
    assert code == 0, said
    card = read_pack(tmp_path / "pack").card
    assert "fold 3 (trained on folds (3, 4, 5)); statistics of fold 1 of PASTIS" in card.training
    assert card.modalities[0].mean[0] == pytest.approx(1165.94, abs=0.01)
    assert card.modalities[0].max_dates == 61


@pytest.mark.parametrize(
    ("form", "made", "names"),
    [
        ("treesat", treesat_config(size=MICRO), ("aerial", "s2", "s1-asc")),
        ("pastis", pastis_config(side=4, size=MICRO), ("spot", "s2", "s1-asc")),
        ("flair", flair_config(size=MICRO), ("aerial-flair", "s2")),
    ],
)
def test_checkpoints_of_the_training_code_of_omnisat_are_a_start(
    form: str, made: object, names: tuple[str, ...], tmp_path: Path
) -> None:
    state = OmniSat(made).state_dict()  # type: ignore[arg-type]
    tensors = {f"model.encoder.{k}": v for k, v in state.items()}
    tensors["model.decoder.projector_s2.weight"] = torch.zeros(3)
    tensors["model.masked_token"] = torch.zeros(1, 1, 32)
    path = tmp_path / "last.safetensors"
    save_file(tensors, path)
    code, said = convert(path, tmp_path / "p", "--as", f"omnisat-{form}")
    assert code == 0, said
    card = read_pack(tmp_path / "p").card
    assert card.names == names
    assert card.pretrained_only
    assert card.modalities[1].mean == (0.0,) * 10
    encoder = OmniSatConfig.from_dict(card.network.config["encoder"])  # type: ignore[arg-type]
    assert encoder.position == "official"
    assert "positions as published" in card.training
    assert omnisat("model", "verify", tmp_path / "p").code == 0
    words = ("--as", f"omnisat-{form}", "--positions", "geographic")
    code, said = convert(path, tmp_path / "g", *words)
    assert code == 0, said
    assert "fine-tune before" in read_pack(tmp_path / "g").card.training


@torch.inference_mode()
def test_a_converted_omnisat_runs_as_published_where_everything_is_there() -> None:
    torch.manual_seed(2)
    published = OmniSat(treesat_config(size=MICRO)).eval()
    tensors = {f"model.encoder.{k}": v for k, v in published.state_dict().items()}
    parcel = omnisat_parcel(tensors, Origin("m", "f"), "treesat")
    converted = build_network(parcel.card.network.kind, parcel.card.network.config)
    converted.load_state_dict(parcel.weights)
    tokens = {name: torch.randn(1, 36, 32) for name in ("aerial", "s2", "s1-asc")}
    present = {name: torch.ones(1, 36, dtype=torch.bool) for name in tokens}
    found = fold_for_inference(converted).fuse(tokens, present)  # type: ignore[operator]
    torch.testing.assert_close(found, published.fuse(tokens), atol=1e-5, rtol=1e-5)


def test_the_forms_of_an_anysat_that_its_keys_do_not_tell_are_a_choice(tmp_path: Path) -> None:
    save_file(AnySat(anysat_config("s2")).state_dict(), tmp_path / "a.safetensors")
    words = ("--as", "anysat", "--trunk-attention", "heads", "--behaviour", "official")
    code, said = convert(tmp_path / "a.safetensors", tmp_path / "p", *words)
    assert code == 0, said
    card = read_pack(tmp_path / "p").card
    plain = card.network.config["encoder"]
    assert isinstance(plain, dict)
    assert (plain["trunk_attention"], plain["behaviour"]) == ("heads", "official")
    assert "official behaviour, attention between heads" in card.training
    code, said = convert(tmp_path / "a.safetensors", tmp_path / "q", *words[:3], "fast")
    assert (code, "--trunk-attention fast: one of tokens, heads" in said) == (Exit.USAGE, True)


def test_a_fine_tuned_omnisat_labels_places(tmp_path: Path) -> None:
    state = OmniSat(treesat_config(("s2",), size=MICRO)).state_dict()
    tensors = {f"model.model.{k}": v for k, v in state.items()}
    tensors |= {"model.head.0.weight": torch.zeros(1, 32), "model.head.0.bias": torch.zeros(1)}
    save_file(tensors, tmp_path / "tuned.safetensors")
    (tmp_path / "legend.json").write_text(json.dumps(UNTRAINED.to_json()))
    words = ("--as", "omnisat-treesat", "--legend", tmp_path / "legend.json")
    code, said = convert(tmp_path / "tuned.safetensors", tmp_path / "pack", *words)
    assert code == 0, said
    card = read_pack(tmp_path / "pack").card
    assert card.network.kind == "omnisat-tile"
    assert (card.place_m, card.coarse_m, card.fine_m) == (60, 10, 10)
    names = set(load_file(tmp_path / "pack" / "weights.safetensors"))
    assert set(rename(tensors, card)) == names  # with a card of one's own it fits as well
    write_s2(tmp_path / "s2.nc")
    words = (
        "--s2",
        tmp_path / "s2.nc",
        "-o",
        tmp_path / "map.tif",
        "--probabilities",
        "--threads",
        1,
    )
    done = omnisat("predict", "-m", tmp_path / "pack", *words)
    assert done.code == 0, done.err
    assert "any number of classes a place of 60 m" in done.out
    with rasterio.open(tmp_path / "map.probabilities.tif") as file:
        assert file.res == (10, 10)
        said = file.read(1)
    assert set(np.unique(said)) <= {125, 255}  # a head of zeros: one half, or nothing seen


@pytest.mark.parametrize("stage", ["model.head.", "model.mlp.mlp."])
def test_a_fine_tuned_anysat_labels_places(stage: str, tmp_path: Path) -> None:
    encoder = "model.model." if stage == "model.head." else "model.encoder."
    tensors = {f"{encoder}{key}": value for key, value in anysat().items()}
    norm, linear = torch.nn.LayerNorm(64), torch.nn.Linear(64, 1)
    tensors |= {f"{stage}0.{k}": v for k, v in norm.state_dict().items()}
    tensors |= {f"{stage}1.{k}": v for k, v in linear.state_dict().items()}
    save_file(tensors, tmp_path / "tuned.safetensors")
    (tmp_path / "legend.json").write_text(json.dumps(UNTRAINED.to_json()))
    words = ("--as", "anysat", "--modalities", "s2,s1", "--legend", tmp_path / "legend.json")
    code, said = convert(tmp_path / "tuned.safetensors", tmp_path / "pack", *words)
    assert code == 0, said
    pack = read_pack(tmp_path / "pack")
    card = pack.card
    assert (card.network.kind, card.pretrained_only) == ("anysat-tile", False)
    assert (card.place_m, card.window.overlap, card.patch_sizes) == (60, 3, ())
    weights = load_file(pack.weights)
    torch.testing.assert_close(weights["head.mlp.1.weight"], linear.weight.data)
    assert set(rename(tensors, card)) > set(weights)
    words = (*words, "--patch-size", 40, "--place", 1280)  # a tile of PASTIS
    assert convert(tmp_path / "tuned.safetensors", tmp_path / "b", *words)[0] == 0
    assert read_pack(tmp_path / "b").card.window.size == 32
    words = (*words[:-1], 100)
    code, said = convert(tmp_path / "tuned.safetensors", tmp_path / "c", *words)
    assert (code, "patches of 40 m" in said) == (Exit.USAGE, True)
    del tensors[f"{stage}1.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    code, said = convert(tmp_path / "less.safetensors", tmp_path / "d", *words[:6])
    assert (code, "no head that labels places" in said) == (Exit.REFUSED, True)


def test_a_legend_without_a_head_to_name_is_refused(tmp_path: Path) -> None:
    state = OmniSat(treesat_config(("s2",), size=MICRO)).state_dict()
    save_file({f"model.encoder.{k}": v for k, v in state.items()}, tmp_path / "x.safetensors")
    (tmp_path / "legend.json").write_text(json.dumps(UNTRAINED.to_json()))
    words = ("--as", "omnisat-treesat", "--legend", tmp_path / "legend.json")
    code, said = convert(tmp_path / "x.safetensors", tmp_path / "pack", *words)
    assert (code, "no head" in said) == (Exit.REFUSED, True)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("utae", ("--patch-size", 20)),
        ("utae", ("--legend", "legend.json")),
        ("omnisat-pastis", ("--norm", "norms.json")),
        ("omnisat-flair", ("--modalities", "s2")),
        ("anysat", ("--positions", "geographic")),
        ("anysat-pastis", ("--conf", "conf.json")),
    ],
)
def test_what_a_published_network_does_not_let_one_say_is_refused(
    form: str, words: tuple[object, ...], tmp_path: Path
) -> None:
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    code, said = convert(tmp_path / "x.safetensors", tmp_path / "pack", "--as", form, *words)
    assert (code, f"{words[0]} changes nothing of --as {form}" in said) == (Exit.USAGE, True)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    for form in ("anysat", "omnisat-treesat"):
        code, said = convert(tmp_path / "x.safetensors", tmp_path / "p", "--as", form)
        assert (code, "layer.weight" in said) == (Exit.REFUSED, True)
    assert convert(tmp_path / "x.safetensors", tmp_path / "p", "--as", "vit")[0] == Exit.USAGE
    assert convert(tmp_path / "x.safetensors", tmp_path / "p")[0] == Exit.USAGE
    (tmp_path / "norm.json").write_text("[]")
    words = ("--as", "anysat", "--norm", tmp_path / "norm.json")
    assert convert(tmp_path / "x.safetensors", tmp_path / "p", *words)[0] == Exit.REFUSED


def test_an_encoder_alone_is_refused_by_predict_with_what_to_do(tmp_path: Path) -> None:
    words = ("--modalities", "s2,s1", "--size", "tiny")
    done = omnisat("model", "new", "--out", tmp_path / "pack", *words)
    assert done.code == 0, done.err
    assert omnisat("model", "new", "--out", tmp_path / "pack", *words).code == Exit.EXISTS
    done = omnisat("predict", "-m", tmp_path / "pack", "--s2", "x.nc", "-o", tmp_path / "m.tif")
    assert (done.code, "omnisat train" in done.err) == (Exit.USAGE, True)
    for wrong in (("--size", "huge"), ("--modalities", "s2,radar"), ("--patch-size", 15)):
        done = omnisat("model", "new", "--out", tmp_path / "b", *words, *wrong)
        assert done.code == Exit.USAGE, done.err


def test_statistics_of_folds_are_averaged(tmp_path: Path) -> None:
    (tmp_path / "norm.json").write_text(json.dumps(FOLDS))
    assert read_norms(tmp_path / "norm.json")["s2"].mean == (3.0,) * 10
    assert read_norms(tmp_path / "norm.json", (1, 2))["s2"].std == (15.0,) * 10


def tuned(path: Path, width: int, answers: int, prefix: str = "model.head.") -> None:
    """Write an AnySat with a head of its training code."""
    layers = torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.Linear(width, answers))
    tensors = {f"model.model.{key}": value for key, value in anysat().items()}
    tensors |= {f"{prefix}{key}": value for key, value in layers.state_dict().items()}
    save_file(tensors, path)


def test_the_dense_head_of_pastis_maps_where_sentinel_2_is(tmp_path: Path) -> None:
    (tmp_path / "three.json").write_text(json.dumps(CLASSES.to_json()))
    tuned(tmp_path / "t.safetensors", 2 * 64, 3)
    words = ("--as", "anysat-pastis", "--legend", tmp_path / "three.json", "--patch-size", 40)
    code, said = convert(
        tmp_path / "t.safetensors", tmp_path / "pack", *words, "--modalities", "s2,s1"
    )
    assert code == 0, said
    card = read_pack(tmp_path / "pack").card
    assert (card.patch_m, card.coarse_m, card.fine_m) == (40, 10, 10)
    assert card.network.config["fine_sensor"] == "s2"
    assert [entry.units for entry in card.modalities] == ["reflectance_1e4", "db"]
    assert {entry.dates for entry in card.modalities} == {"days-since-september"}
    assert "s2, s1 are those of fold 1 of PASTIS" in card.training
    write_s2(tmp_path / "s2.nc")
    write_s1(tmp_path / "s1.nc")
    run = ("-m", tmp_path / "pack", "--threads", 1, "-q")
    both = (*run, "--s2", tmp_path / "s2.nc", "--s1", tmp_path / "s1.nc")
    maps = []
    for sizes in ("40", "20,40"):
        out = tmp_path / f"{sizes}.tif"
        done = omnisat("predict", *both, "--patch-size", sizes, "-o", out)
        assert done.code == 0, done.err
        with rasterio.open(out) as file:
            assert file.res == (10, 10)
            maps.append(file.read(1))
    assert maps[0].shape == maps[1].shape
    assert (maps[0] != maps[1]).any()
    alone = omnisat("predict", *run, "--s1", tmp_path / "s1.nc", "-o", tmp_path / "no.tif")
    assert (alone.code, "draws its map from s2" in alone.err) == (Exit.USAGE, True)
    wrong = omnisat("predict", *both, "--patch-size", "40,25", "-o", tmp_path / "no.tif")
    assert (wrong.code, "--patch-size 25" in wrong.err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("width", "answers", "patch_m", "expected"),
    [
        (128, 300, 10, {"fine_sensor": "aerial-flair", "fine_pixels": 10, "coarse_side": 0}),
        (64, 48, 40, {"fine_sensor": None, "coarse_side": 4}),
    ],
)
def test_heads_of_anysat_are_told_by_their_sizes(
    width: int, answers: int, patch_m: int, expected: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "three.json").write_text(json.dumps(CLASSES.to_json()))
    (tmp_path / "norm.json").write_text(
        json.dumps({"aerial-flair": {"mean": [100.0] * 5, "std": [50.0] * 5}})
    )
    tuned(tmp_path / "t.safetensors", width, answers, "model.mlp.mlp.")
    words = ("--as", "anysat", "--legend", tmp_path / "three.json", "--patch-size", patch_m)
    given = ("--norm", tmp_path / "norm.json", "--modalities", "aerial-flair,s2")
    code, said = convert(tmp_path / "t.safetensors", tmp_path / "pack", *words, *given)
    assert code == 0, said
    card = read_pack(tmp_path / "pack").card
    assert expected.items() <= card.network.config.items()
    assert card.fine_m == (10.0 if patch_m == 40 else 0.2)
    assert omnisat("model", "verify", tmp_path / "pack").code == 0
