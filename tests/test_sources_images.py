from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from omnisat_cli.errors import AlignmentError, JobError, OmnisatError, SecurityError, SourceError
from omnisat_cli.geo.lattice import Lattice, Window
from omnisat_cli.sources.images import ImageOptions, ImageSource, describe_image, open_image

LATTICE = Lattice("EPSG:2154", 10.0)
X, Y = 700_000.0, 6_600_000.0
RNG = np.random.default_rng(7)


def at(x: float = X, y: float = Y, gsd: float = 0.5) -> Affine:
    return Affine(gsd, 0, x, 0, -gsd, y)


def noise(bands: int, rows: int, cols: int, dtype: str = "uint8", top: int = 256) -> np.ndarray:
    return RNG.integers(0, top, (bands, rows, cols)).astype(dtype)


def write(path: Path, pixels: np.ndarray, transform: Affine | None = None, **more: object) -> Path:
    profile = {
        "driver": "GTiff",
        "crs": "EPSG:2154",
        "transform": transform or at(),
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype.name,
        **more,
    }
    colours = profile.pop("colours", None)
    names = profile.pop("names", None)
    with rasterio.open(path, "w", **profile) as dataset:
        if colours:
            dataset.colorinterp = colours
        if names:
            dataset.descriptions = names
        dataset.write(pixels)
    return path


def whole(source: ImageSource) -> Window:
    return Window.around([source.lattice.window(bounds) for bounds in source.footprints])


def topics(source: ImageSource) -> dict[str, str]:
    return {decision.topic: decision.value for decision in source.decisions}


def equal_everywhere(source: ImageSource, seed: int = 0, tries: int = 8) -> None:
    """Any window equals the same part of the whole."""
    window, k = whole(source), source.refine
    full = source.read(window)
    rng = np.random.default_rng(seed)
    for _ in range(tries):
        row, col = int(rng.integers(0, window.height)), int(rng.integers(0, window.width))
        height = int(rng.integers(1, window.height - row + 1))
        width = int(rng.integers(1, window.width - col + 1))
        part = source.read(Window(window.row + row, window.col + col, height, width))
        rows, cols = slice(row * k, (row + height) * k), slice(col * k, (col + width) * k)
        np.testing.assert_array_equal(part.pixels, full.pixels[:, rows, cols])
        np.testing.assert_array_equal(part.valid, full.valid[rows, cols])


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSource, np.ndarray]:
    pixels = noise(4, 150, 170)
    place = tmp_path_factory.mktemp("aligned") / "a.tif"
    write(place, pixels, at(X + 3.5, Y - 2.0), tiled=True, blockxsize=64, blockysize=64)
    return open_image("aerial", place, LATTICE), pixels


@given(
    row=st.integers(-5, 12), col=st.integers(-5, 12), height=st.integers(1, 9),
    width=st.integers(1, 9),
)  # fmt: skip
def test_an_aligned_window_is_the_slice_of_the_array(
    aligned: tuple[ImageSource, np.ndarray], row: int, col: int, height: int, width: int
) -> None:
    source, pixels = aligned
    origin = LATTICE.window((X, Y - 10, X + 10, Y))
    window = Window(origin.row + row, origin.col + col, height, width)
    image = source.read(window)
    expected = np.zeros((4, height * 20, width * 20), np.uint8)
    seen = np.zeros(expected.shape[1:], bool)
    place = Window(row * 20 - 4, col * 20 - 7, height * 20, width * 20)
    common = place.intersection(Window(0, 0, 150, 170))
    if not common.is_empty:
        there, here = common.slices_in(Window(0, 0, 150, 170)), common.slices_in(place)
        expected[:, here[0], here[1]] = pixels[:, there[0], there[1]]
        seen[here] = True
    np.testing.assert_array_equal(image.pixels, expected)
    np.testing.assert_array_equal(image.valid, seen)
    assert image.pixels.dtype == np.uint8


def test_float_noise_of_an_origin_does_not_resample(tmp_path: Path) -> None:
    noisy = Affine(0.20000000000015317, 0, 565642.600000003, 0, -0.19999999999938728, 5770980.4)
    place = write(tmp_path / "a.tif", noise(4, 304, 304), noisy, crs="EPSG:25832")
    source = open_image("aerial", place, Lattice("EPSG:25832", 10.0))
    assert source.refine == 50
    assert topics(source)["resampling"] == "none"


def test_a_mosaic_equals_the_whole_and_the_first_file_wins(tmp_path: Path) -> None:
    pixels = noise(4, 120, 160)
    write(tmp_path / "whole.tif", pixels)
    folder = tmp_path / "tiles"
    folder.mkdir()
    for row in range(0, 120, 40):
        for col in range(0, 160, 40):
            here = at(X + col * 0.5, Y - row * 0.5)
            write(
                folder / f"{row:03}_{col:03}.tif", pixels[:, row : row + 40, col : col + 40], here
            )
    one = open_image("aerial", tmp_path / "whole.tif", LATTICE)
    many = open_image("aerial", folder, LATTICE)
    window = whole(one)
    np.testing.assert_array_equal(one.read(window).pixels, many.read(window).pixels)
    assert many.read(window).valid[:120, :160].all()
    write(folder / "000_over.tif", np.full((4, 40, 40), 9, np.uint8))
    over = open_image("aerial", sorted(folder.glob("*.tif")), LATTICE).read(window)
    np.testing.assert_array_equal(over.pixels[:, :40, :40], pixels[:, :40, :40])
    later = open_image("aerial", [folder / "000_over.tif", folder / "000_000.tif"], LATTICE)
    assert (later.read(window).pixels[:, :40, :40] == 9).all()


def test_a_missing_square_is_reported_and_not_valid(tmp_path: Path) -> None:
    for row in range(2):
        for col in range(2):
            if (row, col) != (1, 0):
                place = at(X + col * 20, Y - row * 20)
                write(tmp_path / f"{row}{col}.tif", noise(3, 40, 40), place, photometric="RGB")
    source = open_image("aerial", tmp_path, LATTICE)
    gap = next(d for d in source.decisions if d.topic == "coverage")
    assert gap.warning
    assert "1 of 4" in gap.value
    assert "x 700000..700020 y 6599960..6599980" in gap.because
    valid = source.read(whole(source)).valid
    assert not valid[40:, :40].any()
    assert valid.mean() == 0.75


def test_globs_and_lists_name_the_same_files(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / f"é tile {k}.tif", noise(3, 40, 40), at(X + 20 * k), photometric="RGB")
    (tmp_path / "list.txt").write_text(
        "# tiles\n" + "\n".join(f"é tile {k}.tif" for k in range(3)) + "\n", encoding="utf-8"
    )
    by_glob = open_image("aerial", str(tmp_path / "*.tif"), LATTICE)
    by_list = open_image("aerial", tmp_path / "list.txt", LATTICE)
    assert by_glob.files == by_list.files
    with pytest.raises(SourceError, match="matches no file"):
        open_image("aerial", str(tmp_path / "*.jp2"), LATTICE)


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.tif", noise(3, 20, 20), photometric="RGB")
    other_crs = write(tmp_path / "b.tif", noise(3, 20, 20), photometric="RGB", crs="EPSG:32631")
    with pytest.raises(AlignmentError, match=r"EPSG:2154.*EPSG:32631"):
        open_image("aerial", [first, other_crs], LATTICE)
    four = write(tmp_path / "c.tif", noise(4, 20, 20))
    with pytest.raises(SourceError, match="same bands"):
        open_image("aerial", [first, four], LATTICE)
    no_crs = write(tmp_path / "d.tif", noise(3, 20, 20), photometric="RGB", crs=None)
    with pytest.raises(AlignmentError, match="no coordinate reference system"):
        open_image("aerial", no_crs, LATTICE)
    told = open_image("aerial", no_crs, LATTICE, ImageOptions(crs="EPSG:2154"))
    assert told.read(whole(told)).valid.any()
    with pytest.raises(AlignmentError, match="not in metres"):
        open_image("aerial", first, Lattice("EPSG:4326", 10.0))


def colours(*names: str) -> list[rasterio.enums.ColorInterp]:
    return [rasterio.enums.ColorInterp[name] for name in names]


def test_infrared_tagged_as_alpha_is_a_band_and_says_so(tmp_path: Path) -> None:
    pixels = np.clip(noise(4, 80, 80), 30, 200)
    tagged = colours("red", "green", "blue", "alpha")
    source = open_image("aerial", write(tmp_path / "a.tif", pixels, colours=tagged), LATTICE)
    assert source.bands == ("R", "G", "B", "NIR")
    mask = next(d for d in source.decisions if d.topic == "mask")
    assert mask.warning
    assert "near infrared" in mask.value
    assert "min 30, max 200" in mask.because
    image = source.read(whole(source))
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.valid.all()


def test_true_alpha_is_a_mask(tmp_path: Path) -> None:
    pixels = noise(4, 80, 80)
    pixels[3] = 255
    pixels[3, :30] = 0
    tagged = colours("red", "green", "blue", "alpha")
    source = open_image("aerial", write(tmp_path / "a.tif", pixels, colours=tagged), LATTICE)
    assert source.bands == ("R", "G", "B")
    image = source.read(whole(source))
    np.testing.assert_array_equal(image.valid, pixels[3] == 255)
    assert not image.pixels[:, :30].any()


def test_bands_come_in_canonical_order_whatever_the_file_says(tmp_path: Path) -> None:
    pixels = noise(4, 40, 40)
    named = write(
        tmp_path / "a.tif", pixels, names=("Near Infrared", "Green", "Blue", "Red"),
        colours=colours("red", "green", "blue", "alpha"),
    )  # fmt: skip
    plain = write(tmp_path / "b.tif", pixels)
    by_name = open_image("aerial", named, LATTICE)
    by_flag = open_image("aerial", plain, LATTICE, ImageOptions(bands=("NIR", "G", "B", "R")))
    for source in (by_name, by_flag):
        assert source.bands == ("R", "G", "B", "NIR")
        got = source.read(whole(source)).pixels
        np.testing.assert_array_equal(got, pixels[[3, 1, 2, 0]])
    guessed = open_image("aerial", plain, LATTICE)
    assert next(d for d in guessed.decisions if d.topic == "bands").warning
    fewer = open_image("aerial", named, LATTICE, ImageOptions(wanted=("R", "NIR")))
    assert fewer.bands == ("R", "NIR")


@pytest.mark.parametrize("order", ["R,G,B,NIR,X", "R,G,B,SWIR", "R,R,G", "-,-"])
def test_wrong_band_orders_are_refused(tmp_path: Path, order: str) -> None:
    place = write(tmp_path / "a.tif", noise(4, 20, 20))
    with pytest.raises(JobError, match="--aerial-bands"):
        open_image("aerial", place, LATTICE, ImageOptions(bands=tuple(order.split(","))))


def test_infrared_comes_from_a_second_file(tmp_path: Path) -> None:
    rgb, irc = noise(3, 60, 60), noise(3, 60, 60)
    first = write(tmp_path / "rvb.tif", rgb, photometric="RGB")
    second = write(tmp_path / "IRC.tif", irc, photometric="RGB", nodata=255)
    irc[:, :5] = 255
    write(second, irc, photometric="RGB", nodata=255)
    source = open_image("aerial", first, LATTICE, ImageOptions(irc=(str(second),)))
    assert source.bands == ("R", "G", "B", "NIR")
    image = source.read(whole(source))
    np.testing.assert_array_equal(image.pixels[:3, 5:], rgb[:, 5:])
    np.testing.assert_array_equal(image.pixels[3, 5:], irc[0, 5:])
    assert not image.valid[:5].any()
    assert image.valid[5:].all()
    assert open_image("aerial", second, LATTICE).bands == ("R", "G", "NIR")


def test_nodata_needs_every_band(tmp_path: Path) -> None:
    pixels = np.clip(noise(3, 40, 40), 1, 255)
    pixels[0, 3, 4] = 0
    pixels[:, 7, 8] = 0
    place = write(tmp_path / "a.tif", pixels, photometric="RGB", nodata=0)
    source = open_image("aerial", place, LATTICE)
    valid = source.read(whole(source)).valid
    assert valid[3, 4]
    assert not valid[7, 8]
    assert valid.sum() == valid.size - 1
    alone = open_image("aerial", place, LATTICE, ImageOptions(wanted=("R",)))
    np.testing.assert_array_equal(alone.read(whole(alone)).valid, valid)
    kept = open_image("aerial", place, LATTICE, ImageOptions(nodata="none"))
    assert kept.read(whole(kept)).valid.all()


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_blocks_never_written_are_not_valid(tmp_path: Path, interleave: str) -> None:
    place = tmp_path / "a.tif"
    profile = {
        "driver": "GTiff", "crs": "EPSG:2154", "transform": at(), "count": 3, "height": 128,
        "width": 128, "dtype": "uint8", "tiled": True, "blockxsize": 32, "blockysize": 32,
        "SPARSE_OK": True, "interleave": interleave, "photometric": "RGB", "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(place, "w", **profile) as dataset:
        dataset.write(np.ones((3, 32, 32), np.uint8), window=((32, 64), (64, 96)))
    source = open_image("aerial", place, LATTICE)
    valid = source.read(whole(source)).valid
    assert valid[32:64, 64:96].all()
    assert valid.sum() == 32 * 32


def test_stored_masks_and_nan_are_not_valid(tmp_path: Path) -> None:
    pixels, mask = noise(3, 40, 40), np.full((40, 40), 255, np.uint8)
    mask[:7] = 0
    inside = tmp_path / "inside.tif"
    write(inside, pixels, photometric="RGB")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(inside, "r+") as dataset:
        dataset.write_mask(mask)
    beside = tmp_path / "beside.tif"
    write(beside, pixels, photometric="RGB")
    write(tmp_path / "beside.tif.msk", mask[None])
    for place in (inside, beside):
        source = open_image("aerial", place, LATTICE)
        np.testing.assert_array_equal(source.read(whole(source)).valid, mask != 0)
    floats = pixels.astype(np.float32)
    floats[1, 9, 9] = np.nan
    place = write(tmp_path / "f.tif", floats, photometric="RGB")
    source = open_image("aerial", place, LATTICE)
    image = source.read(whole(source))
    assert not image.valid[9, 9]
    assert np.isfinite(image.pixels).all()


def test_sixteen_bits_are_scaled_by_one_stated_factor(tmp_path: Path) -> None:
    cases = (
        (255, None, 1.0),
        (2040, None, 255 / 2047),
        (65000, None, 255 / 65535),
        (65000, 0.5, 0.5),
    )
    for top, given_factor, factor in cases:
        pixels = noise(4, 60, 60, "uint16", top)
        place = write(tmp_path / f"{top}.tif", pixels)
        source = open_image("aerial", place, LATTICE, ImageOptions(scale=given_factor))
        image = source.read(whole(source))
        assert image.pixels.dtype == np.float32
        np.testing.assert_allclose(image.pixels, pixels * factor, rtol=1e-6)
        assert repr(factor) in topics(source)["scale"]


def test_coarsening_averages_real_pixels_only(tmp_path: Path) -> None:
    pixels = noise(3, 80, 80)
    pixels[:, :20] = 0
    pixels[:, 21, 0] = 0
    place = write(tmp_path / "a.tif", np.maximum(pixels, 0), photometric="RGB", nodata=0)
    source = open_image("aerial", place, LATTICE, ImageOptions(gsd=1.0))
    assert source.refine == 10
    image = source.read(whole(source))
    blocks = pixels.reshape(3, 40, 2, 40, 2).astype(float)
    empty = (pixels == 0).all(axis=0).reshape(40, 2, 40, 2)
    weight = 4 - empty.sum(axis=(1, 3))
    expected = np.floor(blocks.sum(axis=(2, 4)) / np.maximum(weight, 1) + 0.5)
    np.testing.assert_array_equal(image.valid, weight >= 2)
    np.testing.assert_allclose(image.pixels[:, weight >= 2], expected[:, weight >= 2], atol=1)
    assert not image.valid[:10].any()


def test_a_ramp_keeps_its_place_when_resampled_or_warped(tmp_path: Path) -> None:
    rows, cols = np.mgrid[0:200, 0:220]
    ramp = np.stack([cols, rows, (rows + cols) / 2]).astype(np.float32)
    place = write(tmp_path / "a.tif", ramp, at(X + 0.17, Y - 0.11, 0.6), photometric="RGB")
    source = open_image("aerial", place, LATTICE, ImageOptions(gsd=0.5, scale=1.0))
    assert topics(source)["resampling"] == "bilinear"
    window = whole(source)
    image = source.read(window)
    left, _, _, top = LATTICE.bounds(window)
    xs = (left + 0.25 + 0.5 * np.arange(image.valid.shape[1]) - X - 0.17) / 0.6 - 0.5
    inner = (xs > 0) & (xs < 218)
    mid = image.pixels[0][image.pixels.shape[1] // 2]
    np.testing.assert_allclose(mid[inner], xs[inner], atol=1e-3)
    ys = (Y - 0.11 - top + 0.25 + 0.5 * np.arange(image.valid.shape[0])) / 0.6 - 0.5
    column = image.pixels[1][:, image.pixels.shape[2] // 2]
    inner = (ys > 0) & (ys < 198)
    np.testing.assert_allclose(column[inner], ys[inner], atol=1e-3)


def test_another_crs_is_warped_to_the_right_place(tmp_path: Path) -> None:
    from pyproj import Transformer

    rows, cols = np.mgrid[0:300, 0:300]
    ramp = np.stack([cols, rows, cols]).astype(np.float32)
    place = write(tmp_path / "a.tif", ramp, photometric="RGB")
    other = Lattice("EPSG:32631", 10.0)
    source = open_image("aerial", place, other, ImageOptions(gsd=0.5, scale=1.0))
    assert "warped" in topics(source)["resampling"]
    window = whole(source)
    image = source.read(window)
    left, _, _, top = other.bounds(window)
    r, c = np.nonzero(image.valid)
    keep = np.linspace(0, r.size - 1, 500).astype(int)
    r, c = r[keep], c[keep]
    to_file = Transformer.from_crs("EPSG:32631", "EPSG:2154", always_xy=True)
    x, y = to_file.transform(left + (c + 0.5) * 0.5, top - (r + 0.5) * 0.5)
    u, v = (x - X) / 0.5 - 0.5, (Y - y) / 0.5 - 0.5
    inner = (u > 1) & (u < 298) & (v > 1) & (v < 298)
    assert inner.sum() > 400
    np.testing.assert_allclose(image.pixels[0][r, c][inner], u[inner], atol=0.05)
    np.testing.assert_allclose(image.pixels[1][r, c][inner], v[inner], atol=0.05)
    outside = (u < -1) | (u > 300) | (v < -1) | (v > 300)
    assert not outside.any()


@pytest.mark.parametrize(
    ("gsd", "lattice"),
    [(0.5, LATTICE), (1.0, LATTICE), (0.4, LATTICE), (0.5, Lattice("EPSG:32631", 10.0))],
)
def test_a_pixel_does_not_depend_on_the_window_read(
    tmp_path: Path, gsd: float, lattice: Lattice
) -> None:
    pixels = noise(3, 260, 270)
    pixels[:, 40:90, 10:70] = 0
    place = write(tmp_path / "a.tif", pixels, at(X + 0.25, Y, 0.5), photometric="RGB", nodata=0)
    equal_everywhere(open_image("aerial", place, lattice, ImageOptions(gsd=gsd)))


def test_tiles_on_grids_of_their_own_are_joined(tmp_path: Path) -> None:
    rows, cols = np.mgrid[0:100, 0:100]
    for k in range(3):
        left = X + 0.5 * 90 * k + 0.13 * k
        ramp = np.stack([cols * 0.5 + left - X, rows * 0.5, cols]).astype(np.float32)
        write(tmp_path / f"{k}.tif", ramp, at(left), photometric="RGB")
    source = open_image("aerial", tmp_path, LATTICE, ImageOptions(scale=1.0))
    assert [d.value for d in source.decisions if d.topic == "resampling"] == [
        "none", "bilinear", "bilinear"
    ]  # fmt: skip
    image = source.read(whole(source))
    assert image.valid[:100, :280].all()
    assert not image.valid[100:].any()
    np.testing.assert_allclose(image.pixels[0][50, 1:279], np.arange(1, 279) * 0.5, atol=0.2)
    equal_everywhere(source)


def test_south_up_images_are_turned(tmp_path: Path) -> None:
    pixels = noise(3, 80, 80)
    upright = write(tmp_path / "a.tif", pixels, photometric="RGB")
    flipped = Affine(0.5, 0, X, 0, 0.5, Y - 40)
    turned = write(tmp_path / "b.tif", pixels[:, ::-1], flipped, photometric="RGB")
    one = open_image("aerial", upright, LATTICE)
    two = open_image("aerial", turned, LATTICE, ImageOptions(resampling="nearest"))
    np.testing.assert_array_equal(one.read(whole(one)).pixels, two.read(whole(one)).pixels)


def test_a_cut_tiff_never_gives_pixels_that_were_not_read(tmp_path: Path) -> None:
    pixels = np.clip(noise(3, 128, 128), 1, 255)
    place = write(
        tmp_path / "a.tif", pixels, photometric="RGB", tiled=True, blockxsize=32, blockysize=32,
        compress="deflate",
    )  # fmt: skip
    content = place.read_bytes()
    for k in range(1, 11):
        cut = tmp_path / f"cut{k}.tif"
        cut.write_bytes(content[: len(content) * k // 11])
        said, read = rows_of_a_cut_file(cut)
        assert said
        assert all(str(cut) in text for text in said)
        for row, image in read.items():
            np.testing.assert_array_equal(image[:, :, :128], pixels[:, row : row + image.shape[1]])


def rows_of_a_cut_file(place: Path) -> tuple[list[str], dict[int, np.ndarray]]:
    """Read a 128 × 128 file strip by strip: what was said, and what was read by first row."""
    said, read = [], {}
    try:
        source = open_image("aerial", place, LATTICE)
    except SourceError as error:
        return [str(error)], {}
    for row in range(0, 120, 20):
        window = LATTICE.window((X, Y - row * 0.5 - 10, X + 70, Y - row * 0.5))
        try:
            read[row] = source.read(window).pixels
        except SourceError as error:
            said.append(str(error))
    return said, read


def test_a_jpeg_2000_reads_like_its_tiff_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    pixels = noise(3, 100, 120)
    place = write(
        tmp_path / "a.jp2",
        pixels,
        driver="JP2OpenJPEG",
        QUALITY=100,
        REVERSIBLE=True,
        YCBCR420=False,
    )
    source = open_image("aerial", place, LATTICE, ImageOptions(bands=("R", "G", "B")))
    image = source.read(whole(source))
    np.testing.assert_array_equal(image.pixels[:, :100, :120], pixels)
    content = place.read_bytes()
    for k in range(1, 11):
        cut = tmp_path / f"cut{k}.jp2"
        cut.write_bytes(content[: len(content) * k // 11])
        with pytest.raises(SourceError, match="cut"):
            open_image("aerial", cut, LATTICE, ImageOptions(bands=("R", "G", "B")))


def test_a_source_travels_and_serves_many_threads(tmp_path: Path) -> None:
    place = write(tmp_path / "a.tif", noise(4, 200, 200), tiled=True, blockxsize=64, blockysize=64)
    source = open_image("aerial", place, LATTICE)
    window = whole(source)
    expected = source.read(window).pixels
    copy = pickle.loads(pickle.dumps(source))
    assert copy.bands == source.bands
    assert copy.identities == source.identities
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            row, col = int(rng.integers(0, 9)), int(rng.integers(0, 9))
            part = copy.read(Window(window.row + row, window.col + col, 1, 1)).pixels
            if (part != expected[:, row * 20 :][:, :20, col * 20 :][:, :, :20]).any():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_file_replaced_after_opening_is_refused(tmp_path: Path) -> None:
    place = write(tmp_path / "a.tif", noise(4, 40, 40))
    source = pickle.loads(pickle.dumps(open_image("aerial", place, LATTICE)))
    write(place, noise(4, 44, 44))
    with pytest.raises(SourceError, match="changed while in use"):
        source.read(whole(source))


def test_describing_an_image_needs_no_lattice(tmp_path: Path) -> None:
    place = write(tmp_path / "a.tif", noise(4, 40, 60))
    facts = describe_image("aerial", place)
    assert (facts.crs, facts.metric, facts.gsd) == ("EPSG:2154", True, 0.5)
    assert facts.bounds == (X, Y - 20, X + 30, Y)
    assert facts.bands == ("R", "G", "B", "NIR")
    degrees = write(tmp_path / "b.tif", noise(4, 40, 60), at(2, 46.5, 1e-5), crs="EPSG:4326")
    facts = describe_image("aerial", degrees)
    assert not facts.metric
    assert facts.gsd == pytest.approx(1.11, rel=0.01)
    with pytest.raises(JobError, match="time series"):
        describe_image("s2", place)


def test_neighbours_give_only_the_georeference(tmp_path: Path) -> None:
    place = tmp_path / "a.tif"
    with pytest.warns(NotGeoreferencedWarning):
        write(place, noise(3, 40, 40), Affine(1, 0, 0, 0, 1, 0), crs=None, photometric="RGB")
    with pytest.raises(AlignmentError, match="no geotransform"):
        open_image("aerial", place, LATTICE, ImageOptions(crs="EPSG:2154"))
    Path(f"{place}.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:2154</SRS>"
        f"<GeoTransform>{X}, 0.5, 0, {Y}, 0, -0.5</GeoTransform></PAMDataset>"
    )
    source = open_image("aerial", place, LATTICE)
    assert source.footprints == ((X, Y - 20, X + 20, Y),)
    Path(f"{place}.aux.xml").unlink()
    (tmp_path / "a.tfw").write_text(f"0.5\n0\n0\n-0.5\n{X + 0.25}\n{Y - 0.25}\n")
    source = open_image("aerial", place, LATTICE, ImageOptions(crs="EPSG:2154"))
    assert source.footprints == ((X, Y - 20, X + 20, Y),)
    Path(f"{place}.aux.xml").write_text(
        "<!DOCTYPE x [<!ENTITY a 'b'>]><PAMDataset>&a;</PAMDataset>"
    )
    with pytest.raises(SourceError, match="damaged"):
        open_image("aerial", place, LATTICE)


VRT = """<VRTDataset rasterXSize="80" rasterYSize="40"><SRS>{srs}</SRS>
<GeoTransform>{x}, 0.5, 0, {y}, 0, -0.5</GeoTransform>{bands}</VRTDataset>"""
VRT_BAND = """<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>
{sources}</VRTRasterBand>"""
VRT_SOURCE = """<SimpleSource><SourceFilename relativeToVRT="{relative}">{file}</SourceFilename>
<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="40" ySize="40"/>
<DstRect xOff="{col}" yOff="0" xSize="{size}" ySize="40"/></SimpleSource>"""


def write_vrt(place: Path, files: list[str], *, relative: int = 1, size: int = 40) -> Path:
    bands = "".join(
        VRT_BAND.format(
            band=band,
            colour=colour,
            sources="".join(
                VRT_SOURCE.format(relative=relative, file=file, band=band, col=40 * k, size=size)
                for k, file in enumerate(files)
            ),
        )
        for band, colour in enumerate(("Red", "Green", "Blue"), 1)
    )
    place.write_text(VRT.format(srs="EPSG:2154", x=X, y=Y, bands=bands))
    return place


@pytest.fixture
def two_tiles(tmp_path: Path) -> np.ndarray:
    pixels = noise(3, 40, 80)
    write(tmp_path / "0.tif", pixels[:, :, :40], photometric="RGB")
    write(tmp_path / "1.tif", pixels[:, :, 40:], at(X + 20), photometric="RGB")
    return pixels


def test_a_vrt_is_the_files_it_lists(tmp_path: Path, two_tiles: np.ndarray) -> None:
    source = open_image("aerial", write_vrt(tmp_path / "m.vrt", ["0.tif", "1.tif"]), LATTICE)
    image = source.read(whole(source))
    np.testing.assert_array_equal(image.pixels, two_tiles)
    assert len(source.files) == 3


def test_the_alpha_that_only_marks_where_files_lie_is_left_out(
    tmp_path: Path, two_tiles: np.ndarray
) -> None:
    place = write_vrt(tmp_path / "m.vrt", ["0.tif", "1.tif"])
    alpha = VRT_BAND.format(
        band=4,
        colour="Alpha",
        sources=VRT_SOURCE.format(relative=1, file="0.tif", band=1, col=0, size=40).replace(
            "</SourceBand>",
            "</SourceBand><ScaleOffset>255</ScaleOffset><ScaleRatio>0</ScaleRatio>",
        ),
    )
    place.write_text(place.read_text().replace("</VRTDataset>", f"{alpha}</VRTDataset>"))
    source = open_image("aerial", place, LATTICE)
    np.testing.assert_array_equal(source.read(whole(source)).pixels, two_tiles)


def test_a_vrt_that_lists_a_missing_file_says_where_it_lies(
    tmp_path: Path, two_tiles: np.ndarray
) -> None:
    del two_tiles
    place = write_vrt(tmp_path / "m.vrt", ["0.tif", "gone.tif"])
    with pytest.raises(SourceError, match=r"gone\.tif \(x 700020\.\.700040, y 6599980\.\.6600000"):
        open_image("aerial", place, LATTICE)


def test_a_vrt_reaches_no_file_outside_its_folder(tmp_path: Path, two_tiles: np.ndarray) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    outside = write_vrt(folder / "m.vrt", ["../0.tif", "../1.tif"])
    absolute = write_vrt(folder / "n.vrt", [str(tmp_path / f"{k}.tif") for k in (0, 1)], relative=0)
    (folder / "0.tif").symlink_to(tmp_path / "0.tif")
    (folder / "1.tif").symlink_to(tmp_path / "1.tif")
    linked = write_vrt(folder / "o.vrt", ["0.tif", "1.tif"])
    for place in (outside, absolute, linked):
        with pytest.raises(SecurityError, match="--allow-root"):
            open_image("aerial", place, LATTICE)
        options = ImageOptions(allow_roots=(str(tmp_path),))
        source = open_image("aerial", place, LATTICE, options)
        np.testing.assert_array_equal(source.read(whole(source)).pixels, two_tiles)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('band="1">', 'band="1" subClass="VRTRawRasterBand">'),
        ('band="1">', 'band="1" subClass="VRTDerivedRasterBand">'),
        ("<ColorInterp>", "<PixelFunctionType>x</PixelFunctionType><ColorInterp>"),
        ("<VRTDataset ", '<VRTDataset subClass="VRTWarpedDataset" '),
        ("SimpleSource", "KernelFilteredSource"),
        (">0.tif<", ">/vsicurl/http://127.0.0.1/a.tif<"),
        (">0.tif<", ">http://127.0.0.1/a.tif<"),
        (">0.tif<", ">&lt;VRTDataset/&gt;<"),
        ("<SourceBand>", "<OpenOptions><OOI key='a'>b</OOI></OpenOptions><SourceBand>"),
        ("<SourceBand>", "<ScaleRatio>2</ScaleRatio><SourceBand>"),
        ("<VRTDataset ", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><VRTDataset '),
        (">0.tif<", ">m.vrt<"),
    ],
)  # fmt: skip
def test_a_vrt_that_computes_or_reaches_out_is_refused(
    tmp_path: Path, two_tiles: np.ndarray, old: str, new: str
) -> None:
    del two_tiles
    place = write_vrt(tmp_path / "m.vrt", ["0.tif", "1.tif"])
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new))
    with pytest.raises(SecurityError) as caught:
        open_image("aerial", place, LATTICE)
    assert caught.value.exit_code == 7


def test_a_vrt_that_resamples_or_misses_its_grid_is_refused(
    tmp_path: Path, two_tiles: np.ndarray
) -> None:
    del two_tiles
    place = write_vrt(tmp_path / "m.vrt", ["0.tif", "1.tif"], size=20)
    with pytest.raises(SourceError, match="resamples"):
        open_image("aerial", place, LATTICE)
    place = write_vrt(tmp_path / "n.vrt", ["0.tif", "1.tif"])
    place.write_text(place.read_text().replace("<GeoTransform>", "<Nothing>", 1))
    with pytest.raises(SourceError):
        open_image("aerial", place, LATTICE)


def test_bands_in_separate_files_make_one_image(tmp_path: Path) -> None:
    pixels = noise(4, 40, 40)
    for k in range(4):
        write(tmp_path / f"b{k}.tif", pixels[k : k + 1], nodata=255)
    source = open_image("aerial", tmp_path, LATTICE)
    assert source.bands == ("R", "G", "B", "NIR")
    image = source.read(whole(source))
    np.testing.assert_array_equal(image.valid, ~(pixels == 255).all(axis=0))
    np.testing.assert_array_equal(image.pixels[:, image.valid], pixels[:, image.valid])


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_mutated_vrt_ends_in_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    if not (folder / "0.tif").exists():
        write(folder / "0.tif", noise(3, 40, 40), photometric="RGB")
        write(folder / "1.tif", noise(3, 40, 40), at(X + 20), photometric="RGB")
    place = write_vrt(folder / "m.vrt", ["0.tif", "1.tif"])
    rng = np.random.default_rng(seed)
    content = bytearray(place.read_bytes())
    for _ in range(int(rng.integers(1, 6))):
        where = int(rng.integers(0, len(content)))
        match int(rng.integers(0, 3)):
            case 0:
                content[where] = int(rng.integers(0, 256))
            case 1:
                del content[where : where + int(rng.integers(1, 30))]
            case _:
                content[where:where] = b"9" * int(rng.integers(1, 12))
    place.write_bytes(content)
    try:
        source = open_image("aerial", place, LATTICE, ImageOptions(gsd=0.5))
        source.read(LATTICE.window((X, Y - 20, X + 40, Y)))
    except OmnisatError:
        pass


def test_bands_of_different_types_are_refused_unless_those_in_use_agree(tmp_path: Path) -> None:
    for name, dtype in (("R", "uint16"), ("G", "uint16"), ("B", "uint16"), ("NIR", "uint8")):
        write(tmp_path / f"image_{name}.tif", noise(1, 40, 40, dtype, 200), names=[name])
    with pytest.raises(SourceError, match=r"uint16 and uint8.*--aerial-bands"):
        open_image("aerial", tmp_path, LATTICE)
    told = open_image("aerial", tmp_path, LATTICE, ImageOptions(bands=("B", "G", "-", "R")))
    assert told.bands == ("R", "G", "B")
    assert told.read(LATTICE.window(told.footprints[0])).pixels.any()
