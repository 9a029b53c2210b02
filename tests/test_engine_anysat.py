"""AnySat and U-TAE through the engine: the laws of OmniSat hold for them too."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import torch
from anysat_packs import anysat_config, norms, write_anysat, write_utae
from cli_runs import omnisat, write_aerial, write_cube, write_s1, write_s2
from worlds import CPU

from omnisat_cli.engine.encode import day_numbers
from omnisat_cli.engine.fuse import fuse_block, windows_with_data
from omnisat_cli.engine.process import BlockMapper
from omnisat_cli.engine.recipe import Feed, Recipe
from omnisat_cli.errors import Exit
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Tiling, make_plan
from omnisat_cli.modality import MODIS_BANDS, S2_BANDS
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.seam import Dense
from omnisat_cli.networks.table import traits_of
from omnisat_cli.packs.card import Card, NetworkCard, WindowCard
from omnisat_cli.packs.published import Origin
from omnisat_cli.packs.published_anysat import fresh_anysat
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from omnisat_cli.engine.fuse import Band

EXTENT = Window(-8, 4, 8, 9)
TILING = Tiling(block=4, window=4, stride=3, cell=2)
NAMES = ("spot", "s2", "s1", "modis")
CONFIG = AnySatSegmenterConfig(
    anysat_config(*NAMES), 3, 20, (4, 4), coarse_side=2, fine_sensor="spot", fine_pixels=2
)


@cache
def network() -> AnySatSegmenter:
    torch.manual_seed(0)
    made = AnySatSegmenter(CONFIG).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def recipe() -> Recipe:
    base = fresh_anysat(anysat_config(*NAMES), Origin("toy", "none", norms(*NAMES)), patch_m=20)
    changes = {
        "network": NetworkCard(kind="anysat", config=CONFIG.to_dict()), "coarse_m": 10.0,
        "fine_m": 5.0, "window": WindowCard(size=4, overlap=1, cell=2),
    }  # fmt: skip
    toy: Card = base.card.model_copy(update=changes)
    cards = {entry.name: entry for entry in toy.modalities}
    feeds = (
        Feed(cards["spot"], (0, 1, 2), 20),
        Feed(cards["s2"], tuple(range(10)), 2),
        Feed(cards["s1"], (0, 1, (0, 1)), 2),
        Feed(cards["modis"], tuple(range(7)), 1),
    )
    return Recipe(card=toy, feeds=feeds, codes=(0, 1, 2), refine=4, fine=True)


def world(seed: int) -> dict[str, Image | Series]:
    """Noise over `EXTENT`: gaps in the image, clouds, one MODIS pixel for all ground."""
    rng = np.random.default_rng(seed)
    h, w = EXTENT.shape
    days = np.datetime64("2024-03-01") + 13 * np.arange(4)
    seen = np.ones((20 * h, 20 * w), bool)
    seen[:, -50:] = False
    clear = rng.random((4, 2 * h, 2 * w)) < 0.8
    every = np.ones((4, 2 * h, 2 * w), bool)
    one = np.broadcast_to(rng.uniform(500, 4000, (4, 7, 1, 1)), (4, 7, h, w)).astype(np.float32)
    s2 = rng.normal(2000, 500, (4, 10, 2 * h, 2 * w)).astype(np.float32) * clear[:, None]
    s1 = rng.uniform(-18, -8, (4, 2, 2 * h, 2 * w)).astype(np.float32)
    return {
        "spot": Image(rng.integers(0, 255, (3, 20 * h, 20 * w), dtype=np.uint8) * seen, seen),
        "s2": Series(s2, days, clear, ~clear),
        "s1": Series(s1, days, every, ~every),
        "modis": Series(one, days, np.ones((4, h, w), bool), np.zeros((4, h, w), bool)),
    }


def cut(data: dict[str, Image | Series], window: Window) -> dict[str, Image | Series]:
    out: dict[str, Image | Series] = {}
    common = window.intersection(EXTENT)
    refines = {feed.name: feed.refine for feed in recipe().feeds}
    for name, values in data.items():
        n = refines[name]
        target = (..., *common.refined(n).slices_in(window.refined(n)))
        source = (..., *common.refined(n).slices_in(EXTENT.refined(n)))

        def part(array: np.ndarray, target=target, source=source, n=n) -> np.ndarray:  # type: ignore[no-untyped-def]
            made = np.zeros((*array.shape[:-2], *window.refined(n).shape), array.dtype)
            made[target] = array[source]
            return made

        if isinstance(values, Image):
            out[name] = Image(part(values.pixels), part(values.valid))
        else:
            flags = (part(values.valid), part(values.clouded))
            out[name] = Series(part(values.pixels), values.dates, *flags)
    return out


def mapped(how: Recipe, tiling: Tiling, seed: int = 1) -> dict[str, np.ndarray]:
    mapper = BlockMapper(fold_for_inference(network()), how, tiling, CPU)
    fine = EXTENT.refined(how.refine)
    arrays: dict[str, np.ndarray] = {}
    for block in make_plan(Lattice("EPSG:2154", 20), EXTENT, tiling).blocks:
        core = block.core.refined(how.refine)
        sample = Sample(block.reach, cut(world(seed), block.reach))
        result = mapper.predict(block, sample, np.ones(core.shape, bool))
        for name, array in result.arrays().items():
            whole = arrays.setdefault(name, np.zeros(fine.shape, np.uint8))
            whole[core.slices_in(fine)] = array
    return arrays


def test_the_map_of_anysat_does_not_depend_on_the_blocks() -> None:
    one, two = mapped(recipe(), TILING), mapped(recipe(), replace(TILING, block=12))
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)
    assert {int(v) for v in np.unique(one["presence"])} <= set(range(16))
    assert len(np.unique(one["classes"])) > 1


def plain_window(data: dict[str, Image | Series], window: Window) -> Dense:
    """Run the published procedure on one window, where everything is present and clear."""
    part = cut(data, window)
    pixels: dict[str, torch.Tensor] = {}
    days: dict[str, torch.Tensor] = {}
    for entry in recipe().card.modalities:
        values = part[entry.name]
        raw = torch.from_numpy(values.pixels).float()
        if entry.name == "s1":
            raw = torch.cat([raw, raw[:, :1] - raw[:, 1:]], 1)
            raw = 10 ** (raw / 10)
        if entry.name == "modis":
            raw = raw[..., :1, :1]
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (entry.mean, entry.std))
        pixels[entry.name] = ((raw - mean) / std)[None]
        if isinstance(values, Series):
            days[entry.name] = torch.from_numpy(day_numbers(values.dates, entry.dates))
    net = network()
    features = net.encoder(pixels, days, patch_m=20, keep="spot")
    return Dense(net.fine(features.dense("spot")))


def test_encoding_once_equals_the_published_window_by_window() -> None:
    data = world(2)
    for name, values in data.items():
        if isinstance(values, Series):
            every = np.ones_like(values.valid)
            data[name] = replace(values, valid=every, clouded=~every)
        else:
            data[name] = replace(values, valid=np.ones_like(values.valid))
    block = make_plan(Lattice("EPSG:2154", 20), EXTENT, TILING).blocks[1]
    sample = Sample(block.reach, cut(data, block.reach))
    windows = windows_with_data(TILING, block, np.ones(block.reach.shape, bool))
    inner = [w for w in windows if w.intersection(EXTENT) == w]
    assert len(inner) > 1
    how = recipe()

    def one_by_one(group: list[Window]) -> Dense:
        return Dense(torch.cat([plain_window(data, window).logits for window in group]))

    def gathered(bands: Iterable[Band]) -> torch.Tensor:
        return torch.cat([band.logits.clone() for band in bands], dim=1)

    with torch.inference_mode():
        plain = gathered(fuse_block(one_by_one, how, TILING, block, inner, 1))
        mapper = BlockMapper(fold_for_inference(network()), how, TILING, CPU)
        once = mapper.fused(block, sample, inner, gathered)
    torch.testing.assert_close(once, plain, rtol=2e-5, atol=2e-5)


def test_modis_informs_but_makes_no_map_alone() -> None:
    how = recipe()
    without = replace(how, feeds=how.feeds[:3])
    block = make_plan(Lattice("EPSG:2154", 20), EXTENT, replace(TILING, block=12)).blocks[0]
    data = cut(world(3), block.reach)
    only = {"modis": data["modis"]}
    inside = np.ones(block.core.refined(4).shape, bool)

    def classes(what: dict[str, Image | Series], recipe: Recipe) -> np.ndarray:
        mapper = BlockMapper(fold_for_inference(network()), recipe, TILING, CPU)
        return mapper.predict(block, Sample(block.reach, what), inside).classes

    assert (classes(only, how) == 255).all()
    assert not np.array_equal(classes(data, how), classes(data, without))


def test_the_network_tells_what_a_run_must_know() -> None:
    told = traits_of("anysat", CONFIG.to_dict())
    assert told is not None
    assert told.width == 64
    assert told.fine == {"spot": 64 * 4}
    assert told.pixels == {"spot": 20, "s2": 2, "s1": 2, "modis": 1}
    assert traits_of("utae", {}) is None


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_aerial(folder / "aerial.tif")
    write_s2(folder / "s2.nc")
    write_s1(folder / "s1.nc")
    write_cube(folder / "modis.nc", MODIS_BANDS, 300, 3000)
    return folder


def predict(pack: Path, out: Path, *words: object) -> tuple[int, str]:
    done = omnisat("predict", "-m", pack, "--threads", 1, "-o", out, "-q", *words)
    return done.code, done.err or done.out


def pixel(path: Path) -> float:
    with rasterio.open(path) as file:
        return float(file.res[0])


def test_an_anysat_pack_maps_s2_radar_and_aerial_images(scene: Path, tmp_path: Path) -> None:
    write_anysat(tmp_path / "pack", "aerial", "s2", "s1", fine="aerial")
    files = {name: scene / f"{name}.nc" for name in ("s2", "s1")}
    code, said = predict(
        tmp_path / "pack", tmp_path / "a.tif", "--s2", files["s2"], "--s1", files["s1"]
    )
    assert code == 0, said
    assert pixel(tmp_path / "a.tif") == 10
    code, said = predict(
        tmp_path / "pack", tmp_path / "b.tif", "--s1", files["s1"],
        *("--aerial", scene / "aerial.tif"),
    )  # fmt: skip
    assert code == 0, said
    assert pixel(tmp_path / "b.tif") == 2


def test_patch_sizes_of_a_pack_are_a_choice(scene: Path, tmp_path: Path) -> None:
    write_anysat(tmp_path / "pack", "s2", "modis", patch_m=20, fine="s2")
    words = ("--s2", scene / "s2.nc", "--modis", scene / "modis.nc")
    for size in (20, 40):
        out = tmp_path / f"{size}.tif"
        code, said = predict(tmp_path / "pack", out, *words, "--patch-size", size)
        assert code == 0, said
    for size in (25, 0):
        code, said = predict(tmp_path / "pack", tmp_path / "c.tif", *words, "--patch-size", size)
        assert code == Exit.USAGE
        assert "patches of 20, 10, 30" in said
    code, said = predict(tmp_path / "pack", tmp_path / "d.tif", "--modis", scene / "modis.nc")
    assert code == Exit.USAGE
    assert "modis alone makes no map" in said


def test_a_sensor_that_does_not_fit_the_patch_is_refused(scene: Path, tmp_path: Path) -> None:
    write_anysat(tmp_path / "pack", "s2", "l7", patch_m=30)
    names = ("B1", "B2", "B3", "B4", "B5", "B7")
    write_cube(tmp_path / "l7.nc", names, 300, 3000)
    words = ("--s2", scene / "s2.nc", "--l7", tmp_path / "l7.nc")
    assert predict(tmp_path / "pack", tmp_path / "a.tif", *words)[0] == 0
    code, said = predict(tmp_path / "pack", tmp_path / "b.tif", *words, "--patch-size", 20)
    assert code == Exit.USAGE
    assert "l7: a patch of 20 m" in said
    assert "among 30, 60, 120" in said


def test_a_utae_pack_maps_twenty_crops(scene: Path, tmp_path: Path) -> None:
    write_utae(tmp_path / "pack")
    assert len(S2_BANDS) == 10
    code, said = predict(tmp_path / "pack", tmp_path / "a.tif", "--s2", scene / "s2.nc")
    assert code == 0, said
    assert "pastis-20" in (tmp_path / "a.provenance.json").read_text()


def test_seasons_count_from_the_september_before_them() -> None:
    year = np.array(["2018-09-17", "2019-10-27"], "datetime64[D]")
    assert day_numbers(year, "days-since-september").tolist() == [16, 421]
    assert day_numbers(year, "days-since-2018-09-01").tolist() == [16, 421]
    later = np.array(["2023-02-01", "2023-11-01"], "datetime64[D]")
    assert day_numbers(later, "days-since-september").tolist() == [153, 426]
    first = np.array(["2023-09-01"], "datetime64[D]")
    assert day_numbers(first, "days-since-september").tolist() == [0]
    early = np.array(["2022-08-20", "2023-02-01", "2023-07-01"], "datetime64[D]")
    assert day_numbers(early, "days-since-september").tolist() == [-12, 153, 303]
    summer = np.arange("2023-07-01", "2023-12-31", 10, dtype="datetime64[D]")
    assert day_numbers(summer, "days-since-september")[0] == 303
