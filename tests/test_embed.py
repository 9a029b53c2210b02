"""Embeddings: what they are, how they are stored, and `omnisat embed`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from cli_runs import LEFT, TOP, Scene, omnisat, write_lively_scene
from worlds import CPU, EXTENT, IdentityNetwork, ToyNetwork, random_world, recipe

from omnisat_cli.engine.device import choose_compute
from omnisat_cli.engine.network import load_network
from omnisat_cli.errors import AlignmentError, BlockError, JobError, OutputExistsError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.geo.plan import Tiling, make_plan
from omnisat_cli.learning.probing.embed import make_embedder
from omnisat_cli.outputs.embedding import Frame, check_embedding_output, embedding_file
from omnisat_cli.packs.registry import read_pack
from omnisat_cli.sources.embeddings import EmbeddingFacts, open_embeddings
from omnisat_cli.sources.values import Sample

if TYPE_CHECKING:
    from pathlib import Path

FACTS = EmbeddingFacts(
    "tiny", "1", "0" * 64, 10.0, 3, ("s2",), {"s2": ("2024-05-01",)}, {"s2": ()}, "0.1.0"
)
FRAME = Frame(Lattice("EPSG:2154", 10.0), Window(-683_000, 65_000, 40, 50))


class Module(torch.nn.Module):
    """The toy network as a module: `FusedTokens` registers it."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("encode_image", "encode_series", "fuse", "decode"):
            setattr(self, name, getattr(ToyNetwork(), name))


def embedded(block: int, names: tuple[str, ...] = ("aerial", "s2")) -> np.ndarray:
    world, frame = random_world(1), EXTENT.expanded(3)
    tiling = Tiling(block, 6, 4, 4)
    toy = recipe(*names)
    embedder = make_embedder(Module(), toy, tiling, CPU)
    out = np.full((1, *frame.shape), np.nan, np.float32)
    for part in make_plan(Lattice("EPSG:2154", 10.0), frame, tiling).blocks:
        inside = np.ones(part.core.shape, bool)
        values = embedder.embed(part, Sample(part.reach, world.read(part.reach)), inside)
        if len(values):
            out[:, *part.core.slices_in(frame)] = values
    return out


def test_embeddings_do_not_depend_on_the_blocks() -> None:
    np.testing.assert_array_equal(embedded(8), embedded(24))


def test_there_is_no_embedding_where_nothing_was_observed() -> None:
    found = embedded(16)[0]
    assert np.isnan(found[:3]).all()  # beyond the imagery
    world = random_world(1)
    seen = world.s2_valid.any(axis=0) | (world.aerial_valid[::4, ::4])
    np.testing.assert_array_equal(~np.isnan(found[3:-3, 3:-3]), seen)
    assert np.isnan(embedded(16, ("s2",))).sum() >= np.isnan(found).sum()


def test_a_network_that_sees_whole_windows_has_no_embeddings() -> None:
    with pytest.raises(JobError, match="sees whole windows"):
        make_embedder(IdentityNetwork(), recipe("aerial"), Tiling(8, 6, 4, 4), CPU)


def test_values_that_are_not_finite_are_refused() -> None:
    tiling = Tiling(8, 6, 4, 4)
    broken = Module()
    broken.fuse = lambda tokens, present: ToyNetwork().fuse(tokens, present) * float("inf")
    embedder = make_embedder(broken, recipe("s2"), tiling, CPU)
    world = random_world(1)
    block = make_plan(Lattice("EPSG:2154", 10.0), EXTENT, tiling).blocks[0]
    with pytest.raises(BlockError, match="not finite"):
        embedder.embed(
            block, Sample(block.reach, world.read(block.reach)), np.ones(block.core.shape, bool)
        )


def values_with_holes() -> np.ndarray:
    values = np.random.default_rng(0).normal(0, [[[1.0]], [[5.0]], [[0.1]]], (3, 40, 50))
    values[:, 5:9, 7] = np.nan
    return values.astype(np.float32)


def write(out: Path, values: np.ndarray, *, quantised: bool = False) -> None:
    area = FRAME.area
    with embedding_file(out, FRAME, FACTS, quantised=quantised) as writer:
        for row in range(0, 40, 16):
            core = Window(area.row + row, area.col, min(16, 40 - row), 50)
            writer.put(core, values[:, row : row + 16])
        writer.put(Window(area.row, area.col, 4, 4), np.zeros((0, 4, 4), np.float32))
    assert writer.patches == 40 * 50 - 4


@pytest.mark.parametrize("name", ["e.tif", "e.zarr"])
def test_embeddings_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    values = values_with_holes()
    write(tmp_path / name, values)
    found = open_embeddings(tmp_path / name)
    assert (found.facts, found.lattice, found.window) == (FACTS, FRAME.lattice, FRAME.area)
    np.testing.assert_array_equal(found.read(FRAME.area), values)
    part = FRAME.area.expanded(2)
    np.testing.assert_array_equal(found.read(part)[:, 2:-2, 2:-2], values)
    assert np.isnan(found.read(part)[:, 0]).all()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["e.tif", "e.zarr"])
def test_eight_bits_lose_at_most_half_a_step(tmp_path: Path, name: str) -> None:
    values = values_with_holes()
    write(tmp_path / name, values, quantised=True)
    found = open_embeddings(tmp_path / name)
    step = np.nanmax(np.abs(values), axis=(1, 2)) / 127
    np.testing.assert_allclose(found.facts.scale, step, rtol=1e-6)
    again = found.read(FRAME.area)
    np.testing.assert_array_equal(np.isnan(again), np.isnan(values))
    assert (np.nanmax(np.abs(again - values), axis=(1, 2)) <= 0.51 * step).all()


def test_other_programs_open_them(tmp_path: Path) -> None:
    values = values_with_holes()
    write(tmp_path / "e.tif", values, quantised=True)
    with rasterio.open(tmp_path / "e.tif") as dataset:
        assert (dataset.count, dataset.dtypes[0], dataset.nodata) == (3, "int8", -128)
        assert dataset.bounds.left == 650_000
        assert dataset.bounds.top == 6_830_000
        assert dataset.scales[1] == pytest.approx(
            open_embeddings(tmp_path / "e.tif").facts.scale[1]
        )
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    write(tmp_path / "e.zarr", values)
    with xr.open_zarr(tmp_path / "e.zarr", consolidated=False) as cube:
        np.testing.assert_array_equal(cube.embedding.values, values)
        assert float(cube.x[0]) == 650_005
        assert float(cube.y[0]) == 6_829_995


def test_a_failure_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    for name in ("e.tif", "e.zarr"):
        write(tmp_path / name, values_with_holes())
        with (
            pytest.raises(RuntimeError),
            embedding_file(tmp_path / name, FRAME, FACTS, quantised=False),
        ):
            raise RuntimeError
        assert open_embeddings(tmp_path / name).facts == FACTS
        write(tmp_path / name, -values_with_holes())  # replaced as a whole
        np.testing.assert_array_equal(
            open_embeddings(tmp_path / name).read(FRAME.area), -values_with_holes()
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.tif", "e.zarr"]


def test_outputs_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"\.tif or \.zarr"):
        check_embedding_output(tmp_path / "e.npy", overwrite=True)
    (tmp_path / "e.zarr").mkdir()
    with pytest.raises(OutputExistsError):
        check_embedding_output(tmp_path / "e.zarr", overwrite=False)
    with pytest.raises(JobError, match="holds no embeddings"):
        check_embedding_output(tmp_path / "e.zarr", overwrite=True)


def test_files_that_hold_no_embeddings_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "e.tif", values_with_holes())
    with rasterio.open(tmp_path / "e.tif") as dataset:
        profile, tags, pixels = dataset.profile, dataset.tags(), dataset.read()
    plain = {**profile, "driver": "GTiff"}
    with rasterio.open(tmp_path / "p.tif", "w", **plain) as dataset:
        dataset.write(pixels)
    with pytest.raises(SourceError, match="carries no omnisat_embedding tag"):
        open_embeddings(tmp_path / "p.tif")
    moved = {**plain, "transform": rasterio.Affine(10, 0, 650_003, 0, -10, 6_830_000)}
    with rasterio.open(tmp_path / "m.tif", "w", **moved) as dataset:
        dataset.update_tags(**tags)
    with pytest.raises(AlignmentError, match="do not lie on the lattice"):
        open_embeddings(tmp_path / "m.tif")
    with rasterio.open(tmp_path / "n.tif", "w", **plain) as dataset:
        dataset.update_tags(omnisat_embedding=replace(FACTS, width=4).to_json())
    with pytest.raises(SourceError, match="has 3 bands, its tag says 4"):
        open_embeddings(tmp_path / "n.tif")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(SourceError, match="holds no embeddings"):
        open_embeddings(tmp_path / "folder.zarr")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_lively_scene(tmp_path_factory.mktemp("scene"))


def embed(scene: Scene, out: Path, *words: object) -> object:
    return omnisat("embed", "-m", scene.pack, "--threads", 1, "-o", out, *words)


def test_the_command_writes_the_tokens_of_the_model(scene: Scene, tmp_path: Path) -> None:
    run = embed(scene, tmp_path / "e.tif", "--s2", scene.s2, "--s1", scene.s1, "--json")
    assert run.code == 0, run.err
    said = json.loads(run.out)
    assert (said["width"], said["patches"], said["holes"]) == (16, 24 * 24, 0)
    found = open_embeddings(tmp_path / "e.tif")
    pack = read_pack(scene.pack)
    assert found.facts.weights_sha256 == pack.card.weights_sha256
    assert found.facts.modalities == ("s2", "s1")
    assert len(found.facts.dates["s2"]) == 6
    values = found.read(found.window)
    assert values.shape == (16, 24, 24)
    assert np.isfinite(values).all()
    # The coarse head of the model, applied to them, gives the model's own 10 m map.
    assert scene.predict(tmp_path / "map.tif", "--s2", scene.s2, "--s1", scene.s1).code == 0
    network = load_network(pack, choose_compute("cpu"))
    tokens = torch.from_numpy(values).flatten(1).T[None]
    fused = torch.cat([tokens[:, :1], tokens], dim=1)
    logits = network.head.coarse_logits(fused, (24, 24))[0, :3]
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), logits.argmax(0).numpy())


def test_the_command_says_what_it_could_not_see(scene: Scene, tmp_path: Path) -> None:
    box = (LEFT + 100, TOP - 100, LEFT + 340, TOP)
    run = embed(scene, tmp_path / "e.zarr", "--s2", scene.s2, "--bbox", *box)
    assert run.code == 4, run.err
    assert "42 % of the area saw no imagery" in run.out
    assert embed(scene, tmp_path / "e.zarr", "--s2", scene.s2).code == 5
    assert embed(scene, tmp_path / "e.zarr", "--s2", scene.s2, "--overwrite").code == 0
    assert embed(scene, tmp_path / "e.png", "--s2", scene.s2).code == 2


def test_a_cube_without_any_value_is_no_success(scene: Scene, tmp_path: Path) -> None:
    empty = tmp_path / "empty.nc"
    with xr.open_dataset(scene.s2, decode_coords="all", mask_and_scale=False) as cube:
        bands = [name for name in cube.data_vars if str(name).startswith("B")]
        nothing = {name: cube[name].astype("float32") * np.nan for name in bands}
        cube[[]].assign(nothing).drop_encoding().to_netcdf(empty, engine="h5netcdf")
    words = ("--s2", empty, "--s2-scale", "1")
    run = embed(scene, tmp_path / "e.tif", *words)
    assert run.code == 4, run.err
    assert "no patch saw imagery" in run.out
    done = scene.predict(tmp_path / "map.tif", *words)
    assert done.code == 4, done.err
    assert "nothing is mapped.   no input holds real data here" in done.out
