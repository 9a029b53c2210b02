"""The whole command on tiny files: laws of the map, and what happens when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import xarray as xr
from cli_runs import LEFT, SIDE_M, TOP, Outcome, Scene, write_aerial, write_lively_scene, write_s2

from omnisat_cli.cli import predict as predict_module
from omnisat_cli.cli.progress import Silence
from omnisat_cli.errors import Exit
from omnisat_cli.modality import S2_BANDS
from omnisat_cli.outputs import export as export_module
from omnisat_cli.outputs.prediction import Hole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.plan import Block
    from omnisat_cli.outputs.journal import BlockRecord
    from omnisat_cli.outputs.quicklook import Caption, Quicklook

AERIAL, S2, S1 = 1, 2, 4
"""Bits of the presence raster."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_lively_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def own(scene: Scene, tmp_path: Path) -> Scene:
    """A copy of the scene that a test may damage."""
    shutil.copytree(scene.folder, tmp_path / "own")
    return Scene(tmp_path / "own")


def layers(out: Path) -> dict[str, NDArray[np.uint8]]:
    """Read all rasters of a run by product name."""
    found = {}
    for name in ("map", "confidence", "validity", "presence", "boundary", "probabilities"):
        path = out if name == "map" else out.with_name(f"{out.stem}.{name}.tif")
        if path.exists():
            with rasterio.open(path) as file:
                found[name] = file.read().squeeze()
    return found


def assert_same(one: Path, two: Path) -> None:
    first, second = layers(one), layers(two)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def at_block(number: int, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Do something when the given number of blocks is committed."""

    class Watch(Silence):
        blocks = 0

        def block(self, block: Block, record: BlockRecord, km2: float) -> None:
            self.blocks += 1
            if self.blocks == number:
                act()

    patch.setattr(predict_module, "choose_progress", lambda quiet: Watch())


def stop_at_block(
    scene: Scene, out: Path, number: int, words: tuple[object, ...], patch: pytest.MonkeyPatch
) -> None:
    """Leave a run unfinished, as a kill would."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with patch.context() as context:
        at_block(number, interrupt, context)
        assert scene.predict(out, *words).code == Exit.INTERRUPTED


def refused(done: Outcome, code: Exit, *said: str) -> None:
    assert (done.code, "Traceback" in done.err) == (code, False), done.err
    assert done.out == ""
    for words in said:
        assert words in done.err


# Laws of the map


def test_the_map_does_not_depend_on_the_blocks(scene: Scene, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "map.tif", tmp_path / "two" / "map.tif"
    words = ("--aerial", scene.aerial, "--s2", scene.s2, "--s1", scene.s1)
    words = (*words, "--probabilities", "--boundary")
    assert scene.predict(one, *words).code == 0
    assert scene.predict(two, *words, "--block", 80).code == 0
    assert_same(one, two)
    assert set(np.unique(layers(one)["map"])) == {0, 1, 2}
    assert set(np.unique(layers(one)["presence"])) == {AERIAL | S2 | S1}


def test_a_file_without_any_data_equals_a_file_that_was_not_given(
    own: Scene, tmp_path: Path
) -> None:
    with rasterio.open(own.aerial, "r+") as file:
        file.nodata = 0
        file.write(np.zeros((4, file.height, file.width), np.uint8))
    cube = xr.load_dataset(own.s2, engine="h5netcdf")
    for band in S2_BANDS:
        cube[band] = cube[band] * np.float32(np.nan)
    cube.to_netcdf(tmp_path / "empty.nc", engine="h5netcdf")
    given, absent = tmp_path / "given" / "map.tif", tmp_path / "absent" / "map.tif"
    words = ("--s1", own.s1, "--resolution", 10)
    done = own.predict(given, *words, "--aerial", own.aerial, "--s2", tmp_path / "empty.nc")
    if done.code == Exit.REFUSED:  # a cube without one value has no units to recognise
        assert "empty.nc" in done.err
        done = own.predict(given, *words, "--aerial", own.aerial)
    assert done.code == 0, done.err
    assert own.predict(absent, *words).code == 0
    assert_same(given, absent)


def test_nothing_outside_the_area_of_interest_is_mapped(scene: Scene, tmp_path: Path) -> None:
    outline = [[20.3, -20.7], [200.1, -30.9], [220.7, -210.3], [30.9, -190.1], [20.3, -20.7]]
    hole = [[90, -90], [90, -130], [140, -130], [140, -90], [90, -90]]
    rings = [[[LEFT + x, TOP + y] for x, y in ring] for ring in (outline, hole)]
    aoi = tmp_path / "aoi.geojson"
    aoi.write_text(json.dumps({"type": "Polygon", "coordinates": rings}))
    out, whole = tmp_path / "map.tif", tmp_path / "whole" / "map.tif"
    words = ("--aerial", scene.aerial, "--s2", scene.s2, "--boundary")
    area = ("--aoi", aoi, "--aoi-crs", "EPSG:2154")
    assert scene.predict(out, *words, *area, "--block", 80).code == 0
    assert scene.predict(whole, *words).code == 0
    found, full = layers(out), layers(whole)
    with rasterio.open(out) as file, rasterio.open(whole) as everywhere:
        inside = _inside(rings, file)
        row, col = (round(v) for v in everywhere.index(*file.xy(0, 0)))
    assert 0.2 < inside.mean() < 0.9
    for name, array in found.items():
        assert (array[~inside] == 255).all(), name
        same = full[name][row : row + inside.shape[0], col : col + inside.shape[1]]
        np.testing.assert_array_equal(array[inside], same[inside], err_msg=name)
    assert (found["map"][inside] != 255).all()
    provenance = json.loads(out.with_name("map.provenance.json").read_text())
    assert provenance["area"]["km2"] == pytest.approx(inside.sum() * 2.5**2 / 1e6, rel=0.02)


def _inside(rings: list[list[list[float]]], file: rasterio.DatasetReader) -> NDArray[np.bool_]:
    from rasterio.features import geometry_mask

    shape = {"type": "Polygon", "coordinates": rings}
    return geometry_mask([shape], file.shape, file.transform, invert=True)


def test_without_an_area_the_map_lies_where_the_imagery_does(scene: Scene, tmp_path: Path) -> None:
    beside = xr.load_dataset(scene.s1, engine="h5netcdf")
    beside = beside.assign_coords(x=beside.x + SIDE_M, y=beside.y - SIDE_M)
    beside.to_netcdf(tmp_path / "beside.nc", engine="h5netcdf")
    out = tmp_path / "map.tif"
    done = scene.predict(out, "--s2", scene.s2, "--s1", tmp_path / "beside.nc", "--block", 80)
    assert done.code == 0
    presence = layers(out)["presence"]
    side = SIDE_M // 10
    expected = np.full((2 * side, 2 * side), int(Hole.OUTSIDE))
    expected[:side, :side], expected[side:, side:] = S2, S1
    np.testing.assert_array_equal(presence, expected)
    assert ((layers(out)["map"] == 255) == (expected == Hole.OUTSIDE)).all()


def test_pixels_that_are_not_numbers_are_not_read(own: Scene, tmp_path: Path) -> None:
    cube = xr.load_dataset(own.s2, engine="h5netcdf")
    cube["B04"][:, :4, :] = np.nan  # never seen in full
    cube["B08"][2:, 10, 10] = np.inf  # seen on two dates
    cube.to_netcdf(tmp_path / "nan.nc", engine="h5netcdf")
    out = tmp_path / "map.tif"
    box = ("--bbox", LEFT, TOP - SIDE_M, LEFT + SIDE_M, TOP)
    done = own.predict(out, "--s2", tmp_path / "nan.nc", *box)
    assert done.code == Exit.HOLES
    found = layers(out)
    assert (found["presence"][:4] == Hole.NO_DATA).all()
    assert (found["map"][:4] == 255).all()
    assert (found["presence"][4:] == S2).all()
    assert found["validity"][10, 10] == 2
    assert found["validity"][10, 11] == 6


def test_a_map_names_the_sensors_it_was_made_from_and_no_others(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []
    draw = export_module.draw_quicklook

    def watched(map_path: Path, presence: Path, caption: Caption) -> Quicklook:
        captions.extend(caption.lines)
        return draw(map_path, presence, caption)

    monkeypatch.setattr(export_module, "draw_quicklook", watched)
    assert scene.predict(tmp_path / "map.tif", "--s1", scene.s1).code == 0
    assert "s1, 10 m" in captions
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["modalities"] == "s1"


# Resuming


def test_a_run_with_other_inputs_or_parameters_is_not_resumed(
    own: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.tif"
    words = ("--s2", own.s2, "--block", 160)
    stop_at_block(own, out, 1, words, monkeypatch)
    for change, field in (
        (("--block", 80), "tiling.block"),
        (("--probabilities",), "job.probabilities"),
        (("--s1", own.s1), "job.inputs"),
        (("--threads", 2), "threads"),
    ):
        refused(own.predict(out, *words, *change), Exit.EXISTS, field, "--overwrite")
    with own.s2.open("r+b") as stream:  # the last byte of its free space
        stream.seek(0, os.SEEK_END)
        stream.write(b"\0")
    refused(own.predict(out, *words), Exit.EXISTS, "inputs.s2[0].size", "inputs.s2[0].sha256")
    assert not out.exists()
    assert own.predict(out, *words, "--overwrite").code == 0


def test_an_input_that_changes_during_the_run_is_refused(
    own: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.tif"
    with monkeypatch.context() as patch:
        at_block(1, lambda: os.utime(own.s1, (1, 1)), patch)
        done = own.predict(out, "--s1", own.s1, "--block", 160)
    refused(done, Exit.REFUSED, str(own.s1), "changed during the run", "--overwrite")
    assert not out.exists()


def test_a_zarr_cube_that_changes_during_the_run_is_refused(
    own: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = tmp_path / "s1.zarr", tmp_path / "map.tif"
    xr.load_dataset(own.s1, engine="h5netcdf").to_zarr(store, zarr_format=2, consolidated=False)
    chunk = next(path for path in (store / "VV").iterdir() if path.name[0].isdigit())
    with monkeypatch.context() as patch:
        at_block(1, lambda: os.utime(chunk, (2**31, 2**31)), patch)
        done = own.predict(out, "--s1", store, "--block", 160)
    refused(done, Exit.REFUSED, str(store), "changed during the run")
    assert not out.exists()


def test_an_input_that_vanishes_during_the_run_is_refused(
    own: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.tif"
    with monkeypatch.context() as patch:
        at_block(1, own.s1.unlink, patch)
        done = own.predict(out, "--s1", own.s1, "--block", 160)
    refused(done, Exit.REFUSED, str(own.s1))
    assert not out.exists()


def test_an_existing_map_is_kept_unless_told_otherwise(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    out.write_bytes(b"mine")
    refused(scene.predict(out, "--s2", scene.s2), Exit.EXISTS, "-o other.tif", "--overwrite")
    assert out.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]
    assert scene.predict(out, "--s2", scene.s2, "--overwrite").code == 0
    assert layers(out)["map"].shape == (24, 24)


@pytest.mark.parametrize("syncs", [2, 9, 15])
def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: int
) -> None:
    words = ("--s2", scene.s2, "--block", 160)
    whole, out = tmp_path / "whole" / "map.tif", tmp_path / "out" / "map.tif"
    assert scene.predict(whole, *words).code == 0
    left, sync = [syncs], os.fsync

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        done = scene.predict(out, *words)
    refused(done, Exit.RESOURCES, "run the same command again")
    assert not out.exists()
    assert scene.predict(out, *words).code == 0
    assert out.read_bytes() == whole.read_bytes()


# Bad input


def truncate(path: Path, share: float) -> Path:
    """Cut a file as a download that stopped does."""
    os.truncate(path, int(path.stat().st_size * share))
    return path


def write_tiled(path: Path) -> Path:
    """Write the aerial of the scene with 64-pixel tiles, so that a cut loses some of them."""
    write_aerial(path)
    with rasterio.open(path) as file:
        profile, pixels = file.profile, file.read()
    profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)  # its directory comes first: a cut loses pixels, not the file
    return path


def test_a_truncated_image_stops_the_run_unless_holes_are_allowed(
    own: Scene, tmp_path: Path
) -> None:
    aerial = write_tiled(own.aerial)
    before, out = tmp_path / "before" / "map.tif", tmp_path / "out" / "map.tif"
    words = ("--aerial", aerial, "--aerial-bands", "R,G,B,NIR", "--block", 80)
    assert own.predict(before, *words).code == 0
    truncate(aerial, 0.7)
    refused(own.predict(out, *words), Exit.REFUSED, str(aerial))
    assert not out.exists()
    done = own.predict(out, *words, "--on-error", "hole", "--overwrite")
    assert done.code == Exit.HOLES, done.err
    assert "fault" in done.out
    found, full = layers(out), layers(before)
    lost = found["presence"] == Hole.FAULT
    assert 0.25 < lost.mean() < 0.5
    assert (found["map"][lost] == 255).all()
    assert (found["presence"][~lost] == AERIAL).all()
    far = ~lost & (np.arange(96)[:, None] < 20)  # no window there meets what is lost
    np.testing.assert_array_equal(found["map"][far], full["map"][far])
    provenance = json.loads(out.with_name("map.provenance.json").read_text())
    assert str(aerial) in provenance["faults"][0]["note"]


def test_what_one_image_lost_another_input_still_maps(own: Scene, tmp_path: Path) -> None:
    aerial, out = write_tiled(own.aerial), tmp_path / "map.tif"
    truncate(aerial, 0.7)
    words = ("--s2", own.s2, "--aerial-bands", "R,G,B,NIR", "--on-error", "hole")
    done = own.predict(out, "--aerial", aerial, *words, "--block", 80)
    assert done.code == Exit.HOLES, done.err
    assert "0 holes" in done.out
    assert "could not be read" in done.out
    assert json.loads(out.with_name("map.provenance.json").read_text())["faults"]
    assert own.aerial.name in done.err
    presence = layers(out)["presence"]
    assert set(np.unique(presence)) == {S2, S2 | AERIAL}
    two = tmp_path / "two" / "map.tif"
    assert own.predict(two, "--aerial", aerial, *words).code == Exit.HOLES
    assert_same(out, two)  # what is lost does not depend on the blocks


def test_a_model_that_is_not_what_its_card_says_is_refused(own: Scene, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    weights = own.pack / "weights.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:-1] + b"\1", content[: len(content) // 2], b""):
        weights.write_bytes(damaged)
        refused(own.predict(out, "--s2", own.s2), Exit.REFUSED, "sha256")
    assert not list(tmp_path.glob("map.tif*"))


def test_inputs_that_nothing_can_place_or_date_are_refused(own: Scene, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    cube = xr.load_dataset(own.s2, engine="h5netcdf")
    undated = cube.assign_coords(time=np.arange(cube.sizes["time"]))
    undated.to_netcdf(tmp_path / "undated.nc", engine="h5netcdf")
    nowhere = cube.drop_vars("spatial_ref")
    nowhere.to_netcdf(tmp_path / "nowhere.nc", engine="h5netcdf")
    unnamed = cube.rename({band: f"layer_{k}" for k, band in enumerate(S2_BANDS)})
    unnamed.to_netcdf(tmp_path / "unnamed.nc", engine="h5netcdf")
    for name, words in (
        ("undated.nc", ("--dates",)),
        ("nowhere.nc", ("CRS", "--cube-crs")),
        ("unnamed.nc", ("--s2-bands",)),
    ):
        refused(own.predict(out, "--s2", tmp_path / name), Exit.REFUSED, name, *words)
    image = write_aerial(tmp_path / "nowhere.tif", crs=None)
    refused(own.predict(out, "--aerial", image), Exit.REFUSED, "no coordinate", "--aerial-crs")
    assert not list(tmp_path.glob("map.tif*"))


def test_an_image_whose_bands_nobody_knows_is_refused(own: Scene, tmp_path: Path) -> None:
    with rasterio.open(own.aerial) as file:
        profile, pixels = file.profile, file.read()
    for count in (2, 6):
        path = tmp_path / f"{count}.tif"
        profile |= {"count": count, "photometric": "MINISBLACK"}
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.concatenate([pixels, pixels])[:count])
        done = own.predict(tmp_path / "map.tif", "--aerial", path)
        refused(done, Exit.REFUSED, path.name, "--aerial-bands")


def test_an_offset_that_contradicts_the_values_is_refused(own: Scene, tmp_path: Path) -> None:
    cube = xr.load_dataset(own.s2, engine="h5netcdf")
    for band in S2_BANDS:
        cube[band] = (cube[band] * np.float32(0.2)).astype("uint16")  # blue is near 340
    cube.attrs["boa_offset_applied"] = "False"
    cube.to_netcdf(tmp_path / "low.nc", engine="h5netcdf")
    done = own.predict(tmp_path / "map.tif", "--s2", tmp_path / "low.nc")
    refused(done, Exit.REFUSED, "low.nc", "blue median", "--s2-offset 0 or --s2-offset -1000")


def test_places_that_do_not_meet_are_refused_with_the_distance(own: Scene, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    far = ("--bbox", LEFT + 50_000, TOP, LEFT + 51_000, TOP + 1000)
    refused(own.predict(out, "--s2", own.s2, *far), Exit.REFUSED, "km")
    degrees = ("--bbox", 2.3, 48.5, 2.4, 48.6)
    refused(own.predict(out, "--s2", own.s2, *degrees), Exit.REFUSED, "--bbox-crs EPSG:4326")
    assert not list(tmp_path.glob("map.tif*"))


def test_a_file_in_disguise_is_refused(own: Scene, tmp_path: Path) -> None:
    secret = tmp_path / "secret.tif"
    own.aerial.rename(secret)
    own.aerial.write_text(
        f'<VRTDataset rasterXSize="192" rasterYSize="192"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>"
        f"</VRTRasterBand></VRTDataset>"
    )
    refused(own.predict(tmp_path / "map.tif", "--aerial", own.aerial), Exit.SECURITY, "aerial.tif")


def test_a_cube_that_lacks_a_band_says_how_to_replace_it(own: Scene, tmp_path: Path) -> None:
    lacking = write_s2(tmp_path / "lacking.nc", tuple(b for b in S2_BANDS if b != "B8A"))
    out = tmp_path / "map.tif"
    refused(own.predict(out, "--s2", lacking), Exit.REFUSED, "B8A", "--s2-substitute B8A=B08")
    for substitute in ("B8A=B08", "B8A=none"):
        place = tmp_path / substitute / "map.tif"
        assert own.predict(place, "--s2", lacking, "--s2-substitute", substitute).code == 0
