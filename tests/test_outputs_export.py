from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from defusedxml.ElementTree import parse
from outputs_runs import PLAIN, RUN, World, folder_bytes
from rio_cogeo import cog_validate

from omnisat_cli.errors import JobError, OmnisatError
from omnisat_cli.geo.lattice import Window
from omnisat_cli.outputs.area import area_table
from omnisat_cli.outputs.export import ExportReport, export, exported
from omnisat_cli.outputs.legend import Legend, LegendClass
from omnisat_cli.outputs.products import PRODUCTS, existing_outputs, space_need
from omnisat_cli.outputs.provenance import verify
from omnisat_cli.outputs.store import BlockFacts
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    from pathlib import Path

WIDE = World(area=Window(-680010, 65003, 80, 90), refine=8, block=48)
"""640 × 720 pixels: overviews exist, blocks and tiles do not align."""

FULL = World(block=32, arrays=("boundary", "probabilities"))

HOSTILE = Legend(
    id="hostile",
    version="1",
    source="s",
    licence="l",
    classes=(
        LegendClass(3, '"/><script>alert(1)</script>', "=cmd|' /C calc'!A0", "#112233"),
        LegendClass(1, "]]> & <b>", "@SUM(A1)", "#445566"),
        LegendClass(9, "blé d'été – 100 %", "+1", "#778899"),
        LegendClass(0, "-2+3", "normal", "#aabbcc"),
    ),
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return WIDE.run(tmp_path_factory.mktemp("wide") / "map.tif")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return FULL.run(tmp_path_factory.mktemp("full") / "map.tif")


def assembled(world: World, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Put the predictions together the simple way."""
    frame = world.facts.frame
    first = world.predict(world.plan.blocks[0]).arrays()[name]
    whole = np.full((*first.shape[:-2], *frame.shape), 255, np.uint8)
    for block in world.plan.blocks:
        rows, cols = block.core.refined(world.refine).slices_in(frame)
        whole[..., rows, cols] = world.predict(block).arrays()[name]
    return whole


@pytest.mark.parametrize("name", ["map", "confidence", "validity", "presence"])
def test_every_raster_is_a_valid_cog_with_the_pixels_of_the_blocks(
    wide: ExportReport, name: str
) -> None:
    product = next(product for product in PRODUCTS if product.name == name)
    path = product.path(wide.out)
    valid, errors, warnings = cog_validate(path)
    assert (valid, errors, warnings) == (True, [], [])
    with open_raster(path) as dataset:
        assert dataset.nodata == 255
        assert dataset.crs.to_epsg() == 2154
        assert dataset.transform[:6] == (1.25, 0, 650030, 0, -1.25, 6800100)
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.compression.name == "deflate"
        assert (dataset.read(1) == assembled(WIDE, product.array)).all()


def test_overviews_hold_codes_of_the_legend_alone(wide: ExportReport) -> None:
    with open_raster(wide.out) as dataset:
        assert dataset.overviews(1) == [2]
        small = dataset.read(1, out_shape=(dataset.height // 2, dataset.width // 2))
        assert set(np.unique(small)) <= {*WIDE.legend.codes, 255}
        assert (small == 255).any()


def test_averaged_overviews_do_not_mix_nodata_into_the_values(wide: ExportReport) -> None:
    with open_raster(wide.out.with_name("map.confidence.tif")) as dataset:
        small = dataset.read(1, out_shape=(dataset.height // 2, dataset.width // 2))
        assert small[small != 255].max() <= 100


def test_colours_names_and_tags_travel_inside_the_map(wide: ExportReport) -> None:
    with open_raster(wide.out) as dataset:
        colors = dataset.colormap(1)
        for entry in WIDE.legend.classes:
            assert colors[entry.code] == (*entry.rgb, 255)
            assert dataset.tags(1)[f"class_{entry.code}"] == entry.name_en
        assert colors[255][3] == 0
        assert dataset.descriptions == ("class, pastis-20@1",)
        tags = dataset.tags()
        assert tags["model"] == "demo 1.0"
        assert tags["model_sha256"] == "ab" * 32
        assert tags["TIFFTAG_SOFTWARE"].startswith("omnisat ")
        assert json.loads(tags["class_names"])[1] == "Meadow"


def test_optional_products_have_one_band_a_class_with_its_name(full: ExportReport) -> None:
    with open_raster(full.out.with_name("map.probabilities.tif")) as dataset:
        assert dataset.descriptions == tuple(entry.name_en for entry in FULL.legend.classes)
        assert (dataset.read() == assembled(FULL, "probabilities")).all()
    with open_raster(full.out.with_name("map.boundary.tif")) as dataset:
        assert (dataset.read(1) == assembled(FULL, "boundary")).all()


def test_the_sidecar_gives_gdal_categories_and_an_attribute_table(wide: ExportReport) -> None:
    path = wide.out.with_name("map.tif.aux.xml")
    assert path.read_bytes().startswith(b"<PAMDataset>")  # GDAL ignores it after a declaration
    band = parse(path).getroot().find("PAMRasterBand")
    names = [entry.text or "" for entry in band.find("CategoryNames")]
    assert names == [entry.name_en for entry in WIDE.legend.classes]
    table = band.find("GDALRasterAttributeTable")
    assert table.get("tableType") == "thematic"
    assert [c.findtext("Usage") for c in table.findall("FieldDefn")] == list("526789")
    first = [cell.text for cell in table.findall("Row")[1]]
    assert first == ["1", "Meadow", "174", "199", "232", "255"]


def test_the_presence_raster_names_what_was_used_and_why_there_are_holes(
    wide: ExportReport,
) -> None:
    palette = parse(wide.out.with_name("map.presence.qml")).getroot().iter("paletteEntry")
    labels = {entry.get("value"): entry.get("label") for entry in palette}
    assert labels == {"6": "s2 + s1", "7": "aerial + s2 + s1", "253": "no class: clouds"}


def test_hostile_names_cannot_break_out_of_any_file(tmp_path: Path) -> None:
    world = World(legend=HOSTILE, block=32)
    for language in ("en", "fr"):
        out = tmp_path / language / "map.tif"
        world.run(out, replace(PLAIN, language=language))  # type: ignore[arg-type]
        names = {entry.code: entry.name(language) for entry in HOSTILE.classes}
        style = parse(out.with_suffix(".qml")).getroot()
        labels = {int(e.get("value")): e.get("label") for e in style.iter("paletteEntry")}
        assert labels == names
        categories = parse(out.with_name("map.tif.aux.xml")).getroot().iter("Category")
        assert [c.text or "" for c in categories][9] == names[9]
        server = parse(out.with_suffix(".sld")).getroot()
        assert [e.get("label") for e in server.iter() if "label" in e.attrib] == [
            names[code] for code in sorted(names)
        ]
    text = (tmp_path / "en" / "map.area.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["code"] for row in rows] == ["0", "1", "3", "9"]
    assert rows[0]["name_en"] == "'-2+3"
    assert [row["name_fr"][:2] for row in rows[1:]] == ["'@", "'=", "'+"]


def test_the_area_table_counts_every_pixel_once(wide: ExportReport) -> None:
    classes, presence = assembled(WIDE, "classes"), assembled(WIDE, "presence")
    rows = area_table(wide.out, WIDE.legend)
    assert rows == wide.areas
    for row in rows:
        assert row.pixels == (classes == row.code).sum()
        assert row.hectares == pytest.approx(row.pixels * 1.25**2 / 10_000, abs=1e-6)
    assert sum(row.share for row in rows) == pytest.approx(1, abs=1e-5)
    assert wide.holes == {"clouds": (presence == 253).sum()}
    assert wide.pixels == sum(row.pixels for row in rows) + sum(wide.holes.values())


def test_exporting_twice_does_the_work_once(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    world = World(block=32)
    report = world.run(out)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("map.*tif")}
    assert world.run(out) == report
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("map.*tif")} == times
    out.write_bytes(b"damaged")
    with world.store(out) as store:
        assert exported(store, out) is None
    world.run(out)
    assert verify(out).intact


def test_threads_of_the_compression_do_not_change_the_bytes(tmp_path: Path) -> None:
    for name, threads in (("one", 1), ("four", 4)):
        WIDE.run(tmp_path / name / "map.tif", replace(PLAIN, threads=threads))
    same = [folder_bytes(tmp_path / name) for name in ("one", "four")]
    for path in ("map.tif", "map.confidence.tif", "map.presence.tif", "map.validity.tif"):
        assert same[0][path] == same[1][path], path


def test_the_cut_into_blocks_does_not_change_the_map(tmp_path: Path) -> None:
    worlds = {"small": World(block=8), "large": World(block=64)}
    for name, world in worlds.items():
        world.run(tmp_path / name / "map.tif")
    small, large = ((tmp_path / name / "map.tif").read_bytes() for name in worlds)
    assert small == large


def test_a_new_run_leaves_nothing_of_the_old_one_that_contradicts_it(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    FULL.run(out)
    with FULL.store(out) as store:
        store.discard()
    statistics = tmp_path / "map.confidence.tif.aux.xml"
    statistics.write_text("<PAMDataset/>")
    edited = tmp_path / "map.boundary.tif"
    edited.write_bytes(b"worked on by the user")
    (tmp_path / "map.notes.txt").write_text("keep me")
    World(block=32).run(out)
    left = {path.name for path in tmp_path.iterdir()}
    assert "map.probabilities.tif" not in left
    assert statistics.name not in left
    assert {edited.name, "map.notes.txt"} <= left
    assert len(existing_outputs(out)) == 5


def test_a_map_of_one_block_without_any_class_is_still_a_whole_output(tmp_path: Path) -> None:
    world = World(area=Window(-680010, 65003, 2, 2), block=32)  # all outside
    report = world.run(tmp_path / "map.tif")
    assert report.pixels == 0
    assert sum(row.pixels for row in report.areas) == 0
    assert verify(report.out).intact
    assert not (tmp_path / "map.presence.qml").exists()


@pytest.mark.parametrize(
    "name", ["été à Sète.tif", "a b'c\"d.tif", "st*r[1]?.TIF", "100%20#&.tiff", "x:y;z.tif"]
)
def test_unusual_names_work(tmp_path: Path, name: str) -> None:
    out = tmp_path / "dossier à part" / name
    report = World(block=32).run(out)
    assert {path.name for path in out.parent.iterdir() if path.is_file()} == {
        entry.name for entry in report.files
    }
    assert verify(out).intact


@pytest.mark.parametrize(
    ("name", "words"), [("map.png", "must end in"), ("x" * 240 + ".tif", "shorten it by")]
)
def test_names_that_cannot_work_are_refused_at_once(tmp_path: Path, name: str, words: str) -> None:
    with World().store(tmp_path / "map.tif") as store, pytest.raises(JobError, match=words):
        export(store, World().plan, World().legend, tmp_path / name, RUN)


def test_another_legend_than_that_of_the_run_is_refused(tmp_path: Path) -> None:
    with World().store(tmp_path / "map.tif") as store, pytest.raises(JobError, match="hostile@1"):
        export(store, World().plan, HOSTILE, tmp_path / "map.tif", RUN)


def test_a_map_that_does_not_hold_its_blocks_never_becomes_public(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "map.tif"
    world = World(block=32)
    with world.store(out) as store:
        world.fill(store)
        monkeypatch.setattr(type(store), "digest", lambda *_: "0" * 64)
        with pytest.raises(OmnisatError, match="does not hold the pixels"):
            export(store, world.plan, world.legend, out, RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif.omnisat"]


def test_the_space_estimate_covers_an_ordinary_run(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    report = WIDE.run(out)
    need = space_need(WIDE.facts)
    with WIDE.store(out) as store:
        blocks = sum(record.size for record in store.done().values())
    assert blocks < need.blocks
    assert sum(entry.size for entry in report.files) < need.final


def test_a_recomputed_fault_changes_the_next_export(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    world = World(block=64)
    block = world.plan.blocks[0]
    with world.store(out) as store:
        store.commit(block, world.predict(block), BlockFacts(0.1, note="s2.nc: read error"))
        for other in store.pending(world.plan.blocks):
            store.commit(other, world.predict(other), BlockFacts(0.1))
        export(store, world.plan, world.legend, out, RUN)
        assert exported(store, out) is not None
        store.commit(block, world.predict(block), BlockFacts(0.1))
        assert exported(store, out) is None
