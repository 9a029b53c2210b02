"""Recorded inputs and weights of the published networks must give the recorded outputs.

Every fixture comes from `manifest.json` of a folder outside the repository (`OMNISAT_PARITY_DIR`,
by default `../shared/parity` beside it); its README states the naming and the two rules by which
weights and inputs that are not stored are drawn.
"""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from safetensors import safe_open
from torch import Tensor, nn

from omnisat_cli.networks.anysat import AnySat
from omnisat_cli.networks.anysat_config import SENSORS, AnySatConfig, Behaviour, hub_config
from omnisat_cli.networks.anysat_heads import MapHead, Order
from omnisat_cli.networks.anysat_jepa import (
    AnySatJepa,
    JepaDraws,
    JepaMasks,
    jepa_loss,
    jepa_targets,
)
from omnisat_cli.networks.configs import (
    ModalityConfig,
    OfficialSize,
    OmniSatConfig,
    flair_config,
    pastis_config,
    treesat_config,
)
from omnisat_cli.networks.heads import TileHead
from omnisat_cli.networks.image import cut_patches
from omnisat_cli.networks.omnisat import OmniSat, series_rows
from omnisat_cli.networks.pretraining import OmniSatPretraining, PretrainConfig, Windows
from omnisat_cli.networks.utae import UTAE, UtaeConfig

_BESIDE = Path(__file__).parents[2] / "shared" / "parity"
PARITY = Path(os.environ.get("OMNISAT_PARITY_DIR", _BESIDE))
CONFIGS: Mapping[str, Callable[..., OmniSatConfig]] = {
    "treesat": treesat_config,
    "flair": flair_config,
    "pastis": pastis_config,
}
HALF_STD = ("cls_token", "pos_embed", "q_learned", "masked_token", "mask_token", "Q")
Json = dict[str, Any]


def _fixtures() -> Json:
    manifest = PARITY / "manifest.json"
    if not manifest.is_file():
        return {}
    fixtures: Json = json.loads(manifest.read_text())["fixtures"]
    return {name: entry for name, entry in fixtures.items() if (PARITY / entry["file"]).is_file()}


def _is_encoder(entry: Json) -> bool:
    """An OmniSat encoder fixture states its trunk and its temporal encoder."""
    return {"dataset", "ltae_mlp", "num_patches"} <= set(entry.get("config", {}))


FIXTURES = _fixtures()
ENCODERS = {name: entry for name, entry in FIXTURES.items() if _is_encoder(entry)}
ANYSATS = {name: entry for name, entry in FIXTURES.items() if name.startswith("anysat_")}
MAES = {name: entry for name, entry in FIXTURES.items() if name.endswith("_mae_micro")}
UTAES = {name: entry for name, entry in FIXTURES.items() if name.startswith("utae_")}


def _cases() -> list[object]:
    cases: list[object] = []
    for name, entry in ENCODERS.items():
        for case in entry["cases"]:
            slow = entry["config"]["embed_dim"] > 64 and entry["config"]["num_patches"] > 50
            marks = [pytest.mark.slow] if slow else []
            cases.append(pytest.param(name, case, id=f"{name}-{case}", marks=marks))
    return cases


# --- the rules for what is not stored


def normals(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw the standard normals that belong to a tag."""
    seed = zlib.crc32(tag.encode())
    return np.random.RandomState(seed).standard_normal(int(np.prod(shape))).reshape(shape)


def rule_weight(salt: str, key: str, shape: tuple[int, ...]) -> Tensor:
    """Rule R1: the weight of a state-dict entry."""
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    z = normals(f"{salt}|{key}", shape)
    if last == "running_var":
        value = np.exp(0.2 * z)
    elif last == "running_mean":
        value = 0.1 * z
    elif last in (*HALF_STD, "lookup_table_weight"):
        value = 0.5 * z
    elif len(shape) < 2:
        value = 0.1 * z + (1.0 if len(shape) == 1 and last == "weight" else 0.0)
    else:
        value = z / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def rule_input(tag: str, shape: tuple[int, ...]) -> Tensor:
    """Rule R2: an input."""
    return torch.from_numpy(normals(tag, shape).astype(np.float32))


def assert_check(value: Tensor, check: Json, what: str) -> None:
    """Compare a drawn tensor with the summary in the manifest."""
    flat = value.double().flatten()
    found = {
        "mean": flat.mean(),
        "std": flat.std(correction=0),
        "l2": flat.norm(),
        "first": flat[0],
        "last": flat[-1],
    }
    assert list(value.shape) == check["shape"], what
    for key, number in found.items():
        assert float(number) == pytest.approx(check[key], rel=1e-5, abs=1e-6), f"{what} {key}"


# --- reading a fixture


@dataclass(frozen=True)
class Fixture:
    """One fixture: what the manifest says and the tensors of its file."""

    name: str
    entry: Json
    tensors: dict[str, Tensor]

    @classmethod
    def load(cls, name: str) -> "Fixture":
        entry = FIXTURES[name]
        with safe_open(PARITY / entry["file"], "pt") as file:
            return cls(name, entry, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with a prefix, without it."""
        return {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }

    def inputs(self, case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return pixels and days of a case by modality."""
        about = self.entry["cases"][case]
        names = about["modalities"]
        if "inputs" in self.entry:
            return self._drawn(names, len(self.tensors[f"case/{case}/out/tokens"]))
        stored = self.below(f"case/{about.get('inputs_from', case)}/in/")
        begin, stop = about.get("batch_slice", (None, None))
        pixels = {name: stored[name][begin:stop].float() for name in names}
        days = {n: stored[f"{n}_dates"][begin:stop] for n in names if f"{n}_dates" in stored}
        return pixels, days

    def _drawn(self, names: list[str], batch: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Draw inputs by rule R2; a second sample that was not drawn is the mirror of the first."""
        rule = self.entry["inputs"]
        pixels = {}
        for name in names:
            value = rule_input(rule["tag_prefix"] + name, tuple(rule["shapes"][name]))
            if name in self.entry.get("input_checks", {}):
                assert_check(value, self.entry["input_checks"][name], name)
            pixels[name] = value if len(value) == batch else torch.cat([value, value.flip(-1)])
        dates = self.below("in_dates/")
        return pixels, {name: dates[name] for name in names if name in dates}

    def load_weights(self, network: nn.Module, prefix: str = "") -> None:
        """Fill a network strictly; encoders take only the projectors they have."""
        stored = self.below("w/")
        state = network.state_dict()
        if "salt" in self.entry.get("weights", {}):
            salt = self.entry["weights"]["salt"]
            state = {k: rule_weight(salt, k, tuple(v.shape)) for k, v in state.items()}
            for key, check in self.entry.get("weight_checks", {}).items():
                if key in state and list(state[key].shape) == check["shape"]:
                    assert_check(state[key], check, key)
            network.load_state_dict(state, strict=True)
            return
        own = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        if not prefix:
            foreign = ("fine.", "mono.", "mono_default.")
            built = {key.split(".")[0] for key in state}
            own = {
                key: value
                for key, value in own.items()
                if not key.startswith(foreign)
                and (not key.startswith("projector_") or key.split(".")[0] in built)
            }
        network.load_state_dict(own, strict=True)


def encoder_config(config: Json, names: list[str]) -> OmniSatConfig:
    """Translate the configuration of a manifest entry."""
    size = OfficialSize(
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        widths_in=tuple(config["ltae_mlp_in"]),
        widths_out=tuple(config["ltae_mlp"]),
        series_heads=config["ltae_n_head"],
        key_width=config["ltae_d_k"],
    )
    built = CONFIGS[config["dataset"]](names, side=int(config["num_patches"] ** 0.5), size=size)
    for part in built.modalities:
        _assert_part(part, config)
    return built


def _assert_part(part: ModalityConfig, config: Json) -> None:
    """Our table of published networks must agree with the manifest."""
    sensor = part.name.split("-")[0]
    assert part.bands == config[f"{sensor}_in_chans"]
    if sensor == "aerial":
        assert part.patch_px == config["aerial_patch_px"]
    else:
        assert part.patch_px == config["ltae_patch"]
        assert part.period == config["T"]  # type: ignore[union-attr]


# --- the comparison


def assert_close(found: Tensor, expected: Tensor, about: Json, what: str) -> None:
    """Apply the tolerance of the manifest."""
    assert found.shape == expected.shape, what
    worst = float((found - expected).abs().max())
    assert _excess(found, expected, about) <= 0, f"{what}: largest difference {worst:.2e}"


# The README's widest tolerance, for float32 runs that are themselves that far from float64.
ILL_CONDITIONED = 5e-5


def _excess(found: Tensor, expected: Tensor, about: Json) -> float:
    return float(((found - expected).abs() - about["atol"] - about["rtol"] * expected.abs()).max())


def assert_intermediates(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    about: Json,
    exact: Callable[[], Mapping[str, Tensor]],
) -> None:
    """Apply the tolerance of the manifest to what happens inside.

    The manifest widens it per case from the outputs alone. Micro networks normalise groups of two
    channels, so some inner values of the recorded float32 run are further than that from exact
    arithmetic: only where a float64 run shows so, the README's widest tolerance applies.
    """
    reference: Mapping[str, Tensor] = {}
    for key, value in expected.items():
        if _excess(found[key], value, about) <= 0:
            continue
        reference = reference or exact()
        own = (value - reference[key]).abs().max()
        assert float(own) > about["atol"], f"{key}: beyond tolerance though well-conditioned"
        worst = float((found[key] - value).abs().max())
        assert worst <= ILL_CONDITIONED, f"{key}: largest difference {worst:.2e}"


def _watch(network: OmniSat) -> dict[str, Tensor]:
    """Record what each block of the trunk returns."""
    seen: dict[str, Tensor] = {}
    for index, block in enumerate(network.blocks):

        def keep(_m: nn.Module, _i: object, out: Tensor, key: str = f"block{index}") -> None:
            seen[key] = out

        block.register_forward_hook(keep)
    return seen


def _inside(
    network: OmniSat, pixels: Mapping[str, Tensor], days: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return projector tokens and attention averaged over heads and patches."""
    found = {
        f"tokens_{name}": network.window_tokens(name, value, days.get(name), None)
        for name, value in pixels.items()
    }
    for name in days:
        part = network.config.modality(name)
        rows, dates, _ = series_rows(part, pixels[name], days[name], None)  # type: ignore[arg-type]
        _, weight = network.projector(name).encode(rows, dates)  # type: ignore[operator]
        B = pixels[name].shape[0]
        found[f"attention_{name}"] = weight.view(B, -1, *weight.shape[1:]).mean((1, 3))
    return found


_HEADS: Mapping[str, tuple[str, tuple[int, ...] | None]] = {
    "logits_fine": ("fine.", None),
    "logits_mono": ("mono.mlp.", ()),
    "logits_mono_default": ("mono_default.mlp.", (128, 64)),
}


@pytest.mark.skipif(not ENCODERS, reason=f"no OmniSat encoder fixtures in {PARITY}")
@pytest.mark.parametrize(("name", "case"), _cases())
@torch.inference_mode()
def test_recorded_inputs_give_the_recorded_tokens(name: str, case: str) -> None:
    fixture = Fixture.load(name)
    about = fixture.entry["cases"][case]
    network = OmniSat(encoder_config(fixture.entry["config"], about["modalities"])).eval()
    fixture.load_weights(network)
    pixels, days = fixture.inputs(case)
    seen = _watch(network)
    fused = network(pixels, days)
    expected = fixture.below(f"case/{case}/out/")
    assert expected, "the fixture records no output"
    stride = about.get("token_stride", 1)
    assert_close(fused[:, ::stride], expected.pop("tokens"), about, "tokens")
    for key, logits in expected.items():
        prefix, hidden = _HEADS[key]
        head = TileHead(network.config.width, logits.shape[1], hidden).eval()
        fixture.load_weights(head, prefix)
        assert_close(head(fused), logits, about, key)
    inner = fixture.below(f"case/{case}/inter/")
    if not inner:
        return
    seen |= _inside(network, pixels, days)

    def exact() -> Mapping[str, Tensor]:
        network.double()
        wide = {modality: value.double() for modality, value in pixels.items()}
        network(wide, days)
        return seen | _inside(network, wide, days)

    assert_intermediates(dict(seen), inner, about, exact)


# --- U-TAE

_UTAE_FIXED = {
    "agg_mode": "att_group",
    "encoder_norm": "group",
    "pad_value": 0,
    "padding_mode": "reflect",
    "str_conv_k": 4,
    "str_conv_s": 2,
    "str_conv_p": 1,
}


def utae_config(config: Json) -> UtaeConfig:
    """Translate the configuration of a manifest entry."""
    assert {key: config[key] for key in _UTAE_FIXED} == _UTAE_FIXED
    return UtaeConfig(
        bands=config["input_dim"],
        encoder_widths=tuple(config["encoder_widths"]),
        decoder_widths=tuple(config["decoder_widths"]),
        out_widths=tuple(config["out_conv"]),
        heads=config["n_head"],
        attention_width=config["d_model"],
        key_width=config["d_k"],
        period=config["T"],
        padding="official",
    )


@pytest.mark.skipif(not UTAES, reason=f"no U-TAE fixtures in {PARITY}")
@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, entry in UTAES.items() for case in entry["cases"]]
)
@torch.inference_mode()
def test_recorded_series_give_the_recorded_scores_and_attention(name: str, case: str) -> None:
    fixture = Fixture.load(name)
    about = fixture.entry["cases"][case]
    network = UTAE(utae_config(fixture.entry["config"])).eval()
    assert sum(p.numel() for p in network.parameters()) == fixture.entry["n_params"]
    fixture.load_weights(network)
    inputs = fixture.below(f"case/{case}/in/")
    logits, attention = network.segment(inputs["x"].float(), inputs["dates"])
    expected = fixture.below(f"case/{case}/out/")
    assert_close(logits, expected["logits"], about, "logits")
    assert_close(attention, expected["att"], about, "attention")


# --- AnySat


def anysat_config(config: Json, names: list[str], behaviour: Behaviour) -> AnySatConfig:
    """Translate the configuration of a manifest entry, with the projectors of some sensors."""
    sensors = tuple(SENSORS[name] for name in names)
    if "model_size" in config:
        built = hub_config(config["model_size"])
        sizes = (config["embed_dim"], config["depth"], config["num_heads"])
        assert (built.width, built.depth, built.heads) == sizes
        return replace(built, sensors=sensors, behaviour=behaviour)
    built = AnySatConfig(
        config["embed_dim"],
        config["depth"],
        config["num_heads"],
        config["spatial_depth"],
        config["mlp_ratio"],
        sensors,
        series_heads=config["ltae_n_head"],
        key_width=config["ltae_d_k"],
        behaviour=behaviour,
    )
    widths = built.series(SENSORS["s2"])
    assert list(widths.widths_in) == config["ltae_mlp_in"]
    assert list(widths.widths_out) == config["ltae_mlp"]
    return built


@dataclass(frozen=True)
class AnySatInputs:
    """The inputs of a case, each by sensor."""

    pixels: dict[str, Tensor]
    days: dict[str, Tensor]
    valid: dict[str, Tensor]

    @classmethod
    def of(cls, fixture: Fixture, about: Json) -> "AnySatInputs":
        group, names = about["group"], about["modalities"]
        if "inputs" in fixture.entry:
            return cls._drawn(fixture, group, names)
        part = slice(*about.get("batch_slice", (None, None)))
        stored = fixture.below(f"group/{group}/")
        return cls(
            {name: stored[name][part].float() for name in names},
            {n: stored[f"{n}_dates"][part] for n in names if f"{n}_dates" in stored},
            {n: stored[f"{n}_mask"][part].squeeze(2) for n in names if f"{n}_mask" in stored},
        )

    @classmethod
    def _drawn(cls, fixture: Fixture, group: str, names: list[str]) -> "AnySatInputs":
        """Draw inputs by rule R2."""
        rule = fixture.entry["inputs"]
        pixels = {}
        for name in names:
            tag = rule["tag_prefix"].replace("<group>", group) + name
            pixels[name] = rule_input(tag, tuple(rule["groups"][group][name]))
            check = fixture.entry["input_checks"].get(f"{group}/{name}")
            if check:
                assert_check(pixels[name], check, name)
        dates = fixture.below(f"in_dates/{group}/")
        return cls(pixels, {name: dates[name] for name in names if name in dates}, {})


@lru_cache(maxsize=2)
def _drawn_anysat(name: str) -> AnySat:
    """Build an official network once for all its cases: drawing its weights takes seconds."""
    fixture = Fixture.load(name)
    cases = fixture.entry["cases"].values()
    names = sorted({sensor for about in cases for sensor in about["modalities"]})
    network = AnySat(anysat_config(fixture.entry["config"], names, "official")).eval()
    fixture.load_weights(network)
    return network


def _anysat_cases() -> list[object]:
    cases: list[object] = []
    for name, entry in ANYSATS.items():
        for case, about in entry["cases"].items():
            if "config" in entry and "group" in about:
                marks = [pytest.mark.slow] if entry["config"]["embed_dim"] > 256 else []
                cases.append(pytest.param(name, case, id=f"{name}-{case}", marks=marks))
    return cases


@pytest.mark.skipif(not ANYSATS, reason=f"no AnySat fixtures in {PARITY}")
@pytest.mark.parametrize(("name", "case"), _anysat_cases())
@torch.inference_mode()
def test_recorded_sensors_give_the_recorded_features(name: str, case: str) -> None:
    fixture = Fixture.load(name)
    about = fixture.entry["cases"][case]
    network = _drawn_anysat(name)
    inputs, args = AnySatInputs.of(fixture, about), about["args"]
    kept = args.get("output_modality")
    features = network(
        inputs.pixels, inputs.days, inputs.valid, patch_m=args["patch_size"], keep=kept
    )
    found = features.output(args["output"], kept)
    assert_close(found, fixture.tensors[f"case/{case}/out"], about, "features")


def _planted(fixture: Fixture, about: Json, behaviour: Behaviour) -> AnySat:
    config = anysat_config(fixture.entry["config"], about["modalities"], behaviour)
    network = AnySat(config).eval()
    fixture.load_weights(network)
    return network


def _training_cases(prefix: str) -> list[tuple[str, str]]:
    return [
        (name, case)
        for name, entry in ANYSATS.items()
        for case in entry.get("training_path_cases", {})
        if case.startswith(prefix)
    ]


@pytest.mark.skipif(not ANYSATS, reason=f"no AnySat fixtures in {PARITY}")
@pytest.mark.parametrize(("name", "case"), _training_cases("train_"))
@torch.inference_mode()
def test_corrected_sensors_equal_the_recorded_training_path(name: str, case: str) -> None:
    fixture = Fixture.load(name)
    about = fixture.entry["training_path_cases"][case]
    network = _planted(fixture, about, "corrected")
    inputs, kept = AnySatInputs.of(fixture, about), about.get("modality_keep")
    features = network(inputs.pixels, inputs.days, patch_m=10 * about["scale"], keep=kept)
    expected = fixture.below(f"case/{case}/")
    assert_close(features.tokens, expected.pop("out"), about, "tokens")
    if kept:
        side = features.fine[kept].shape[1] // features.grid[0]
        maps = features.fine[kept].movedim(3, 1)
        found = cut_patches(maps, side).transpose(0, 1).flatten(3).transpose(2, 3)
        assert_close(found, expected.pop("subpatches"), about, "sub-patches")
    assert not expected, "outputs that nothing compares"


@pytest.mark.skipif(not ANYSATS, reason=f"no AnySat fixtures in {PARITY}")
@pytest.mark.parametrize(("name", "case"), _training_cases("head_"))
@torch.inference_mode()
def test_recorded_sensors_give_the_recorded_maps(name: str, case: str) -> None:
    fixture = Fixture.load(name)
    about = fixture.entry["training_path_cases"][case]
    network = _planted(fixture, about, "corrected")
    width, classes = network.config.width, about["shape"][1]
    inputs, kept = AnySatInputs.of(fixture, about), about.get("modality_keep")
    features = network(inputs.pixels, inputs.days, patch_m=10 * about["scale"], keep=kept)
    expected = fixture.tensors[f"case/{case}/out"]
    weights = fixture.below(f"w_head/{case.replace('head_pastis_', 'head_')}.")
    source = features.dense(kept) if kept else features.patch
    each = expected.shape[-1] // source.shape[2]
    order: Order = "class" if kept is None else "pixel"
    head = MapHead(source.shape[-1], classes, each, order).eval()
    assert source.shape[-1] == (2 * width if kept else width)
    head.load_state_dict(weights)
    assert_close(head(source), expected, about, "logits")


@pytest.mark.skipif("anysat_extra" not in ANYSATS, reason=f"no extra AnySat fixture in {PARITY}")
@torch.inference_mode()
def test_attention_between_heads_equals_the_recorded_flash_branch() -> None:
    case = "flash_contract_ts_all_p10"
    extra, fixture = Fixture.load("anysat_extra"), Fixture.load("anysat_micro")
    about = {**extra.entry["cases"][case], "modalities": ["aerial", "s2", "s1-asc"]}
    config = anysat_config(fixture.entry["config"], about["modalities"], "official")
    network = AnySat(replace(config, trunk_attention="heads")).eval()
    fixture.load_weights(network)
    inputs = AnySatInputs.of(fixture, about)
    features = network(inputs.pixels, inputs.days, patch_m=about["args"]["patch_size"])
    assert_close(features.tokens, extra.tensors[f"case/{case}/out"], about, "tokens")


def _real_tile(shared: Path, entry: Json, names: list[str]) -> AnySatInputs:
    """Read the real tile as the notebook of the release does: centre crop, ratio, statistics."""
    h5py = pytest.importorskip("h5py")
    stem = shared / "real_sample" / "Abies_alba_1_1005_WEFL_NLF"
    first, stop = entry["aerial_crop"]
    with rasterio.open(stem.with_suffix(".tif")) as file:
        aerial = file.read(masked=False)[:, first:stop, first:stop]
    with h5py.File(stem.with_suffix(".h5")) as file:
        s2, s1 = file["sen-2-data"][:], file["sen-1-asc-data"][:]
    ratio = s1[:, :1] / (s1[:, 1:] + 1e-8)
    raw = {"aerial": aerial, "s2": s2, "s1": np.concatenate([s1, ratio], axis=1)}
    pixels = {}
    for name in names:
        mean, std = (
            torch.tensor(entry["normalisation"][name][key])[:, None, None]
            for key in ("mean", "std")
        )
        pixels[name] = ((torch.from_numpy(raw[name]).float() - mean) / std).unsqueeze(0)
    rows = (stem.parent / "dates.csv").read_text().splitlines()[1:]
    series = {"s2": "s2", "s1": "s1_ascending"}
    days = {
        name: torch.tensor([int(r.split(",")[4]) for r in rows if r.startswith(label + ",")])
        for name, label in series.items()
        if name in names
    }
    return AnySatInputs(pixels, days, {})


def _real_cases() -> list[object]:
    entry = ANYSATS.get("anysat_extra", {"cases": {}})
    return [
        pytest.param(case, marks=[pytest.mark.slow] if "base" in about["weights"] else [])
        for case, about in entry["cases"].items()
        if case.startswith("real_")
    ]


@pytest.mark.skipif("anysat_extra" not in ANYSATS, reason=f"no extra AnySat fixture in {PARITY}")
@pytest.mark.parametrize("case", _real_cases())
@torch.inference_mode()
def test_a_real_tile_gives_the_recorded_features(shared: Path, case: str) -> None:
    extra = Fixture.load("anysat_extra")
    about = extra.entry["cases"][case]
    names, args = about["modalities"], about["args"]
    network = _drawn_anysat(about["weights"])
    inputs = _real_tile(shared, extra.entry, names)
    checks = {"s2": "check/s2_doy", "s1": "check/s1_doy"}
    for name, days in inputs.days.items():
        assert torch.equal(days, extra.tensors[checks[name]])
    kept = args.get("output_modality")
    features = network(inputs.pixels, inputs.days, patch_m=args["patch_size"], keep=kept)
    found = features.output(args["output"], kept)
    assert_close(found, extra.tensors[f"case/{case}/out"], about, "features")


_JEPA_GROUPS = {"planted": "planted120", "tsaits": "treesat60"}


@pytest.mark.skipif(not ANYSATS, reason=f"no AnySat fixtures in {PARITY}")
@pytest.mark.parametrize(("name", "case"), _training_cases("jepa_"))
@torch.inference_mode()
def test_recorded_draws_give_the_recorded_pretraining_step(name: str, case: str) -> None:
    fixture = Fixture.load(name)
    about = fixture.entry["training_path_cases"][case]
    about = {**about, "group": _JEPA_GROUPS[about["dataset"]]}
    teacher = _planted(fixture, about, "corrected")  # coarse sensors by their ground size
    size = (about["predictor_depth"], about["predictor_heads"])
    student = AnySatJepa(_planted(fixture, about, "corrected"), *size, recipe="official").eval()
    weights = fixture.below(f"w_jepa/{case}/")
    result = student.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith("encoder.") for key in result.missing_keys)
    for key, value in teacher.state_dict().items():
        drawn = rule_weight("parity-v1|anysat|micro|teacher", key, tuple(value.shape))
        value.copy_(0.9 * value + 0.1 * drawn)
    inputs, patch_m = AnySatInputs.of(fixture, about), 10 * about["scale"]
    given = fixture.below(f"case/{case}/in/")
    order = sorted(key for key in given if key.startswith("mask_pred_"))
    masks = JepaMasks(given["mask_enc_0"], tuple(given[key] for key in order))
    drawn = [value for _, value in sorted(fixture.below(f"case/{case}/draw/").items())]
    dates = dict(zip(sorted(inputs.days), drawn, strict=False))
    draws = JepaDraws(dates, drawn[-2], drawn[-1])
    assert len(drawn) == len(dates) + 2
    step = student(inputs.pixels, inputs.days, masks, draws, patch_m=patch_m)
    targets = jepa_targets(teacher, inputs.pixels, inputs.days, masks.targets, patch_m=patch_m)
    expected = fixture.below(f"case/{case}/out/")
    assert_close(step.predicted, expected["predicted_tokens"], about, "predicted")
    assert_close(targets, expected["target"], about, "targets")
    assert_close(step.contrast, expected["contrastive_loss"], about, "contrast")
    assert_close(jepa_loss(step.predicted, targets), expected["mse_loss"], about, "loss")


# --- pretraining of OmniSat


def _pretraining(fixture: Fixture) -> OmniSatPretraining:
    """Build the network of a fixture; widths of the series encoders are those of its weights."""
    config = fixture.entry["config"]
    weights = fixture.below("w/encoder.projector_s2.")
    layers = [value for key, value in weights.items() if value.dim() == 2]
    size = OfficialSize(
        config["embed_dim"],
        config["depth"],
        config["num_heads"],
        widths_in=tuple(len(weights[f"inconv.{index}.weight"]) for index in (0, 4, 8)),
        widths_out=tuple(len(weights[f"mlp.{index}.weight"]) for index in (0, 3, 6)),
    )
    assert len(layers) == len(size.widths_in) + len(size.widths_out) + 2  # keys and queries
    side = int(config["num_patches"] ** 0.5)
    encoder = OmniSat(CONFIGS[config["dataset"]](config["modalities"], side=side, size=size))
    assert all(encoder.config.modality(name).period == config["T"] for name in ("s2", "s1-asc"))  # type: ignore[union-attr]
    settings = PretrainConfig(mask_ratio=config["mask_ratio"], temperature=config["tau"])
    network = OmniSatPretraining(encoder, settings).eval()
    network.load_state_dict(fixture.below("w/"), strict=True)
    return network


def _windows(fixture: Fixture, encoder: OmniSatConfig) -> Windows:
    stored = fixture.below("case/mae/in/")
    pixels, days = {}, {}
    for part in encoder.modalities:
        value = stored[part.name].float()
        cut = cut_patches(value, part.patch_px).transpose(0, 1)  # (B, P, ...)
        pixels[part.name] = cut
        if f"{part.name}_dates" in stored:
            days[part.name] = stored[f"{part.name}_dates"]
    here = {name: torch.ones(cut.shape[:2], dtype=torch.bool) for name, cut in pixels.items()}
    return Windows(pixels, days, {}, here)


@pytest.mark.skipif(not MAES, reason=f"no fixtures of OmniSat pretraining in {PARITY}")
@pytest.mark.parametrize("name", MAES)
@torch.inference_mode()
def test_recorded_noise_gives_the_recorded_losses_of_pretraining(name: str) -> None:
    fixture = Fixture.load(name)
    about = fixture.entry["cases"]["mae"]
    network = _pretraining(fixture)
    windows = _windows(fixture, network.encoder.config)
    noise = fixture.tensors["case/mae/in/noise"]
    expected = fixture.below("case/mae/out/")

    losses = network(windows, noise)
    for key, loss in losses.items():
        kind, _, modality = key.partition(" ")
        label = "contrastive_loss" if kind == "contrast" else f"{modality}_reconstruction_loss"
        recorded = expected.pop(f"loss/{label}")
        assert float(recorded) == pytest.approx(fixture.entry["losses"][label])
        assert_close(loss, recorded, about, label)

    views = network.encode(windows)
    fused = network.fuse(windows, views, noise)
    hidden = torch.cat(list(fused.hidden.values()), dim=1)
    assert_close(hidden.float(), expected.pop("mask"), about, "mask")
    assert_close(fused.places, expected.pop("mm_tokens")[:, 1:], about, "fused")
    for part in network.encoder.config.modalities:
        assert_close(views.tokens[part.name], expected.pop(f"tokens_{part.name}"), about, part.name)
        decoder = network.decoder[f"projector_{part.name}"]
        recorded = expected.pop(f"reconstruct_{part.name}")
        if part.name in views.pools:
            found = decoder(fused.places.flatten(0, 1), views.pools[part.name])
            assert_close(found[None, : recorded.shape[1]], recorded, about, part.name)
            continue
        assert_close(views.attention[part.name], expected.pop(f"attention_{part.name}"), about, "")
        pairs = network.chosen_dates(part.name, windows, views).nonzero()
        assert torch.equal(pairs.int(), expected.pop(f"reconstruct_idx_{part.name}"))
        window, date = pairs.T
        days = windows.days[part.name][window, date]
        found = decoder(fused.places[window], days[:, None].expand(-1, fused.places.shape[1]))
        assert_close(found.transpose(1, 2), recorded, about, part.name)
    assert not expected, "outputs that nothing compares"


def test_every_fixture_is_compared() -> None:
    assert not set(FIXTURES) - set(ENCODERS) - set(UTAES) - set(ANYSATS) - set(MAES)
