"""The whole command on real files: technically right rasters, or a refusal with the reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from cli_runs import Outcome, omnisat, write_lively_pack

from omnisat_cli.errors import Exit
from omnisat_cli.outputs.prediction import Hole
from omnisat_cli.sources.treesatai import convert_treesatai

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

AERIAL, S2, S1 = 1, 2, 4
"""Bits of the presence raster."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lively_pack(tmp_path_factory.mktemp("tiny") / "pack")


def predict(pack: Path, out: Path, *words: object) -> Outcome:
    return omnisat("predict", "-m", pack, "--threads", 1, "-o", out, *words)


def read(out: Path, product: str = "") -> NDArray[np.uint8]:
    path = out if not product else out.with_name(f"{out.stem}.{product}.tif")
    with rasterio.open(path) as file:
        assert (file.nodata, file.dtypes[0]) == (255, "uint8")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        return file.read(1)


def provenance(out: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(
        out.with_name(f"{out.stem}.provenance.json").read_text()
    )
    return content


def check(out: Path, epsg: int, pixel: float) -> None:
    """Check what holds for every map: one grid, and no class without an observation."""
    with rasterio.open(out) as file:
        assert file.crs.to_epsg() == epsg
        assert file.res == (pixel, pixel)
        left, top = file.transform.c, file.transform.f
        assert (left % 10, top % 10) == (0, 0)
        grid = (file.transform, file.shape)
    classes, confidence = read(out), read(out, "confidence")
    validity, presence = read(out, "validity"), read(out, "presence")
    with rasterio.open(out.with_name(f"{out.stem}.presence.tif")) as file:
        assert (file.transform, file.shape) == grid
    mapped = classes != 255
    np.testing.assert_array_equal(mapped, confidence != 255)
    np.testing.assert_array_equal(mapped, (presence > 0) & (presence < Hole.FAULT))
    assert (validity[mapped] > 0).all()
    assert (validity[presence == Hole.OUTSIDE] == 255).all()
    assert set(np.unique(classes)) <= {0, 1, 2, 255}
    assert (confidence[mapped] <= 100).all()


def refused(done: Outcome, *said: str) -> None:
    assert (done.code, done.out) == (Exit.REFUSED, ""), done.err
    for words in said:
        assert words in done.err


def test_a_treesatai_tile_is_mapped_with_all_its_sensors(
    pack: Path, tmp_path: Path, shared: Path
) -> None:
    tile = shared / "real_sample"
    aerial = tile / "Abies_alba_1_1005_WEFL_NLF.tif"
    convert_treesatai(aerial.with_suffix(".h5"), aerial, tmp_path)
    out = tmp_path / "out" / "map.tif"
    words = ("--s2", tmp_path / "s2.nc", "--s1", tmp_path / "s1.nc", "--duplicate-dates", "first")
    words = (*words, "--aerial", aerial, "--aerial-bands", "NIR,G,B,R")
    done = predict(pack, out, *words)
    assert done.code in (Exit.COMPLETE, Exit.HOLES), done.err
    check(out, 25832, 2.5)
    presence = read(out, "presence")
    with rasterio.open(out) as file, rasterio.open(aerial) as image:
        rows, cols = np.mgrid[: file.height, : file.width]
        xs = file.bounds.left + (cols + 0.5) * 2.5
        ys = file.bounds.top - (rows + 0.5) * 2.5
        box = image.bounds
    beside = (xs < box.left - 2.5) | (xs > box.right + 2.5)
    beside |= (ys < box.bottom - 2.5) | (ys > box.top + 2.5)
    assert (read(out)[beside] == 255).all()
    inner = (xs > box.left + 12) & (xs < box.right - 12) & (ys > box.bottom + 12)
    inner &= ys < box.top - 12
    assert set(np.unique(presence[inner])) == {AERIAL | S2 | S1}
    made = provenance(out)
    decisions = json.dumps(made["decisions"])
    assert "NIR,G,B,R" in decisions
    assert "linear" in decisions
    assert made["holes"] == [] or done.code == Exit.HOLES


def test_a_worldcereal_cube_needs_a_stated_substitute(
    pack: Path, tmp_path: Path, shared: Path
) -> None:
    cube = shared / "real_data/worldcereal_belgium_s1s2_12m/worldcereal_preprocessed_inputs.nc"
    out = tmp_path / "belgium.tif"
    words = ("--s1", cube, "--s2", cube)
    refused(predict(pack, out, *words), "B8A", "--s2-substitute B8A=B08")
    words = (*words, "--bbox", 664200, 5611600, 664600, 5612120)  # up to its northern edge
    done = predict(pack, out, *words, "--s2-substitute", "B8A=B08")
    assert (done.code, "B8A is a copy of B08" in done.err) == (0, True), done.err
    check(out, 32631, 10)
    with rasterio.open(out) as file:
        assert tuple(file.bounds) == (664200, 5611600, 664600, 5612120)
    assert (read(out, "presence") == (S1 | S2)).all()
    # 12 months of radar; December and January hold no optical data, other months have gaps.
    validity = read(out, "validity")
    assert validity.max() == 22
    assert validity.min() > 12
    dates = provenance(out)["dates"]
    assert isinstance(dates, dict)
    assert len(dates["s1"]) == 12
    assert {"2020-12-01", "2021-01-01"}.isdisjoint(dates["s2"])


def test_irregular_dates_of_mol_map_with_radar_alone(
    pack: Path, tmp_path: Path, shared: Path
) -> None:
    folder = shared / "real_data/gfmap_mol_s1s2_april2023"
    s2, s1 = folder / "cdse_sentinel2_l2a.nc", folder / "cdse_sentinel1_grd.nc"
    out = tmp_path / "mol.tif"
    refused(predict(pack, out, "--s2", s2), "B02", "--s2-substitute")
    done = predict(pack, out, "--s1", s1)
    assert done.code == 0, done.err
    check(out, 32631, 10)
    assert read(out).shape == (66, 64)
    assert (read(out, "presence") == S1).all()
    validity = read(out, "validity")  # a few saturated pixels miss some of the ten dates
    assert 5 < validity.min() < validity.max() == 10


def test_zurich_tiles_map_as_a_folder_as_they_do_through_a_vrt(
    pack: Path, tmp_path: Path, shared: Path
) -> None:
    folder = shared / "real_data/zurich_05m_tiles_and_block"
    tiles = sorted(folder.glob("1091-322_*.tif"))[:6]
    listed = tmp_path / "tiles.txt"
    listed.write_text("\n".join(map(str, tiles)))
    refused(predict(pack, tmp_path / "map.tif", "--aerial", listed), "NIR", "NIR=none")
    words = ("--aerial-substitute", "NIR=none", "--block", 160)
    out, other = tmp_path / "list" / "map.tif", tmp_path / "vrt" / "map.tif"
    done = predict(pack, out, "--aerial", listed, *words)
    assert done.code == 0, done.err
    check(out, 2056, 2.5)
    vrt = write_vrt(tmp_path / "strip.vrt", tiles)
    again = predict(pack, other, "--aerial", vrt, "--allow-root", folder, *words)
    assert again.code == 0, again.err
    for product in ("", "confidence", "presence", "validity"):
        np.testing.assert_array_equal(read(out, product), read(other, product), err_msg=product)
    presence = read(out, "presence")
    with rasterio.open(out) as file:
        ground = (presence == AERIAL).sum() * 2.5**2
        assert ground == pytest.approx(87.5 * 60 * len(tiles), rel=0.05)
        # Rows where two tiles meet are mapped like all others.
        column = presence.shape[1] // 2
        rows = np.flatnonzero(presence[:, column] == AERIAL)
        assert (np.diff(rows) == 1).all()
        assert file.bounds.top - file.bounds.bottom >= 60 * len(tiles)


def test_zurich_tiles_and_their_block_give_maps_that_agree(
    pack: Path, tmp_path: Path, shared: Path
) -> None:
    folder = shared / "real_data/zurich_05m_tiles_and_block"
    block = folder / "block_1091-322_00.tif"
    listed = tmp_path / "tiles.txt"
    listed.write_text("\n".join(str(folder / f"1091-322_{k:02d}.tif") for k in range(5)))
    with rasterio.open(folder / "1091-322_02.tif") as tile:
        left, bottom, right, top = tile.bounds
    box = ("--bbox", left + 10, bottom - 40, right - 30, top + 40)
    words = ("--aerial-substitute", "NIR=none", *box)
    one, two = tmp_path / "one" / "map.tif", tmp_path / "two" / "map.tif"
    assert predict(pack, one, "--aerial", listed, *words).code == 0
    assert predict(pack, two, "--aerial", block, *words).code == 0
    first, second = read(one), read(two)
    assert first.shape == second.shape
    # The same ground compressed twice, in other windows' company at the edges: nearly the same.
    assert (first == second).mean() > 0.9


def write_vrt(path: Path, tiles: list[Path]) -> Path:
    """Write a mosaic as gdalbuildvrt does."""
    opened = []
    for tile in tiles:
        with rasterio.open(tile) as file:
            opened.append((tile, file.bounds, file.shape, file.transform.a, file.crs.to_wkt()))
    left, top = min(b.left for _, b, *_ in opened), max(b.top for _, b, *_ in opened)
    right, bottom = max(b.right for _, b, *_ in opened), min(b.bottom for _, b, *_ in opened)
    pixel, wkt = opened[0][3], opened[0][4]
    width, height = round((right - left) / pixel), round((top - bottom) / pixel)
    bands = []
    for band, colour in enumerate(("Red", "Green", "Blue"), 1):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="0">{tile}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{shape[1]}" ySize="{shape[0]}"/>'
            f'<DstRect xOff="{round((b.left - left) / pixel)}" '
            f'yOff="{round((top - b.top) / pixel)}" xSize="{shape[1]}" ySize="{shape[0]}"/>'
            "</SimpleSource>"
            for tile, b, shape, *_ in opened
        )
        bands.append(
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>'
            f"{sources}</VRTRasterBand>"
        )
    srs = wkt.replace("&", "&amp;").replace('"', "&quot;")
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{srs}</SRS>'
        f"<GeoTransform>{left}, {pixel}, 0, {top}, 0, {-pixel}</GeoTransform>"
        f"{''.join(bands)}</VRTDataset>"
    )
    return path
