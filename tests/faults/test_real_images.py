"""Real aerial files with the traps of real life; skipped where they are absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from omnisat_cli.errors import AlignmentError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.sources.images import ImageOptions, ImageSource, describe_image, open_image

if TYPE_CHECKING:
    from pathlib import Path


def whole(source: ImageSource) -> Window:
    return Window.around([source.lattice.window(bounds) for bounds in source.footprints])


def test_zurich_tiles_make_one_strip_that_agrees_with_the_block(shared: Path) -> None:
    folder = shared / "real_data" / "zurich_05m_tiles_and_block"
    lattice = Lattice("EPSG:2056", 10.0)
    strip = open_image("aerial", str(folder / "1091-322_*.tif"), lattice)
    block = open_image("aerial", folder / "block_1091-322_00.tif", lattice)
    assert len(strip.files) == 25
    assert strip.bands == ("R", "G", "B")
    window = whole(strip).intersection(whole(block))
    one, two = strip.read(window), block.read(window)
    both = one.valid & two.valid
    assert both.mean() > 0.9
    difference = np.abs(one.pixels.astype(int) - two.pixels)[:, both]
    assert difference.mean() < 3
    with pytest.raises(AlignmentError, match=r"trees_.*no coordinate reference system"):
        open_image("aerial", folder, lattice)


def test_naip_infrared_tagged_as_alpha_is_read(shared: Path) -> None:
    folder = shared / "real_data" / "naip_06m_nir_as_alpha"
    source = open_image("aerial", folder, Lattice("EPSG:26911", 10.0), ImageOptions(gsd=0.5))
    assert source.bands == ("R", "G", "B", "NIR")
    image = source.read(whole(source))
    ground = image.valid.sum() * 0.25
    assert ground == pytest.approx(266 * 204 * 0.59984774 * 0.59859853, rel=0.01)
    assert image.pixels[3][image.valid].std() > 10


def test_three_ways_to_tell_validity_give_the_same_colours(shared: Path) -> None:
    folder = shared / "real_data" / "hro_colorado_validity_a"
    lattice = Lattice("EPSG:26913", 10.0)
    stem = "201404_13SED190110_201404_0x1500m_CL_1"
    options = ImageOptions(gsd=0.2)
    plain, nodata, alpha = (
        open_image("aerial", folder / f"{stem}{end}.tif", lattice, options)
        for end in ("", "_nodata", "_alpha")
    )
    assert plain.bands == nodata.bands == alpha.bands == ("R", "G", "B")
    window = whole(plain)
    shares = [source.read(window).valid.mean() for source in (plain, nodata, alpha)]
    assert shares[2] / shares[0] == pytest.approx(0.887, abs=0.005)
    assert 0.95 < shares[1] / shares[0] < 1


def test_montpellier_infrared_joins_the_colours(shared: Path) -> None:
    folder = shared / "real_data" / "ign_rgb_irc_montpellier"
    facts = describe_image("aerial", folder / "test_data_rgb.tif")
    assert facts.crs == "EPSG:2154"
    assert next(d for d in facts.decisions if d.topic == "crs").warning
    options = ImageOptions(irc=(str(folder / "test_data_irc.tif"),))
    lattice = Lattice("EPSG:2154", 10.0)
    source = open_image("aerial", folder / "test_data_rgb.tif", lattice, options)
    image = source.read(whole(source))
    assert source.refine == 50
    assert 252 * 252 - 8 <= image.valid.sum() < 252 * 252
    red, nir = (image.pixels[k][image.valid].astype(float) for k in (0, 3))
    ndvi = (nir - red) / np.maximum(nir + red, 1)
    np.testing.assert_allclose(np.quantile(ndvi, (0.05, 0.5, 0.95)), (-0.21, 0.03, 0.47), atol=0.02)


def test_treesatai_order_is_taken_from_the_user(shared: Path) -> None:
    place = shared / "real_sample" / "Abies_alba_1_1005_WEFL_NLF.tif"
    options = ImageOptions(bands=("NIR", "G", "B", "R"), gsd=0.2)
    source = open_image("aerial", place, Lattice("EPSG:25832", 10.0), options)
    image = source.read(whole(source))
    assert image.valid.sum() == 304 * 304
    means = image.pixels[:, image.valid].mean(axis=1)
    np.testing.assert_allclose(means, (75.97, 86.09, 82.25, 137.26), atol=0.01)


def test_jpeg_2000_with_its_crs_in_a_sidecar_is_read(shared: Path) -> None:
    folder = shared / "real_data" / "s2_stac_jp2_33TWL" / "S2B_33TWL_20230813_0_L2A"
    bands = [folder / f"B0{k}.tif" for k in (4, 3, 2)]
    options = ImageOptions(bands=("R", "G", "B"))
    source = open_image("aerial", bands, Lattice("EPSG:32633", 120.0), options)
    assert source.footprints == ((499980.0, 4990200.0, 609780.0, 5100000.0),)
    window = source.lattice.window(source.footprints[0])
    image = source.read(window)
    # 499 980 is no multiple of 120: the product's own grid is not the anchored one.
    assert 0.85 < image.valid.mean() < 0.89
    assert image.pixels.dtype == np.float32


def test_two_zones_in_one_mosaic_are_refused(shared: Path) -> None:
    with pytest.raises(AlignmentError, match=r"EPSG:26918.*EPSG:26917"):
        open_image(
            "aerial", shared / "real_data" / "naip_utm17_18_overlap", Lattice("EPSG:26918", 10.0)
        )
    place = shared / "real_data" / "naip_utm17_18_overlap"
    one, two = (
        open_image("aerial", next(place.glob(f"*_{zone}_1_*")), Lattice("EPSG:26918", 10.0))
        for zone in (18, 17)
    )
    window = whole(one).intersection(whole(two))
    first, second = one.read(window), two.read(window)
    both = first.valid & second.valid
    assert 5000 < both.sum() < 7000
    for band in range(4):
        a, b = first.pixels[band][both], second.pixels[band][both]
        assert np.corrcoef(a, b)[0, 1] > 0.97
