from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from outputs_runs import PLAIN, RUN, World

from omnisat_cli.errors import SourceError
from omnisat_cli.outputs.export import export
from omnisat_cli.outputs.provenance import (
    FileDigest,
    provenance_path,
    verify,
    write_provenance,
)
from omnisat_cli.outputs.store import BlockFacts
from omnisat_cli.sources.values import Identity

WORLD = World(block=32)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provenance")
    WORLD.run(folder / "map.tif")
    return folder / "map.tif"


def content(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(provenance_path(out).read_bytes())
    return found


def test_the_provenance_says_where_the_map_comes_from(out: Path) -> None:
    found = content(out)
    assert found["model"]["sha256"] == "ab" * 32  # type: ignore[index]
    assert found["legend"]["id"] == "pastis-20"  # type: ignore[index]
    assert found["inputs"]["s2"][0]["path"] == "data/jeanne/s2.nc"  # type: ignore[index]
    assert found["decisions"]["s2"][0]["because"] == "ten names known"  # type: ignore[index]
    assert found["dates"] == {"s2": ["2024-03-01", "2024-06-01"]}
    assert found["grid"]["bounds"] == [650030, 6799700, 650550, 6800100]  # type: ignore[index]
    assert found["libraries"].keys() >= {"numpy", "rasterio", "gdal"}  # type: ignore[attr-defined]
    assert found["durations"].keys() == {"export"}  # type: ignore[attr-defined]
    assert {hole["reason"] for hole in found["holes"]} == {"clouds"}  # type: ignore[attr-defined]
    assert "map.tif" in found["files"]  # type: ignore[operator]


def test_a_fault_is_listed_with_its_note_and_ground(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    with WORLD.store(out) as store:
        for block in WORLD.plan.blocks:
            store.commit(block, WORLD.predict(block), BlockFacts(0.1, note="s2.nc: byte 77"))
        export(store, WORLD.plan, WORLD.legend, out, RUN)
    hole = content(out)["holes"][0]  # type: ignore[index]
    assert hole["note"] == "s2.nc: byte 77"
    assert hole["hectares"] == pytest.approx(hole["pixels"] * 25 / 10_000)


def test_every_flipped_bit_of_a_raster_is_found(out: Path, tmp_path: Path) -> None:
    dice = random.Random(0)
    for file in content(out)["files"]:  # type: ignore[attr-defined]
        (tmp_path / file).write_bytes(out.with_name(file).read_bytes())
    copy = tmp_path / "map.tif"
    provenance_path(copy).write_bytes(provenance_path(out).read_bytes())
    assert verify(copy).differences == ()
    names = [name for name in verify(copy).checked if name.endswith(".tif")]
    for _ in range(100):
        path = tmp_path / dice.choice(names)
        whole = path.read_bytes()
        at = dice.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :])
        assert [entry.name for entry in verify(copy).differences] == [path.name]
        assert not verify(copy).intact
        path.write_bytes(whole)


def test_a_lost_file_and_an_edited_sidecar_are_told_apart(tmp_path: Path) -> None:
    WORLD.run(tmp_path / "map.tif")
    (tmp_path / "map.tif.aux.xml").write_text("<PAMDataset/>")
    edited = verify(tmp_path / "map.tif")
    assert [(d.name, d.kind) for d in edited.differences] == [("map.tif.aux.xml", "edited")]
    assert edited.intact
    (tmp_path / "map.qml").unlink()
    lost = verify(tmp_path / "map.tif")
    assert ("map.qml", "missing") in {(d.name, d.kind) for d in lost.differences}
    assert not lost.intact


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"files": []}',
        '{"files": {"x": 1}}',
        '{"files": {"../x": {"sha256": "a", "size": 1}}}',
        "[" * 100_000,
    ],
)
def test_a_provenance_that_is_none_is_a_typed_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "map.provenance.json").write_text(text)
    with pytest.raises(SourceError, match=r"cannot be (verified|read)|own folder"):
        verify(tmp_path / "map.tif")


def test_folders_can_be_kept_out(tmp_path: Path) -> None:
    folder = Path("/home/jeanne/My secret project")
    run = replace(
        RUN,
        inputs={"s2": (Identity(str(folder / "s2.nc"), 1, 2, "aa", sampled=False),)},
        command=("omnisat", "predict", f"--s2={folder}/s2.nc", "--aoi", "data/jeanne/aoi.gpkg"),
        area={"aoi": "data/jeanne/aoi.gpkg", "period": "2024-01-01/2024-12-31"},
        settings={"note": f"read {folder}/s2.nc and /mnt/jeanne/cache/x.tif", "cwd": str(folder)},
    )
    out = tmp_path / "map.tif"
    with WORLD.store(out) as store:
        options = replace(PLAIN, redact_paths=True)
        export(WORLD.fill(store), WORLD.plan, WORLD.legend, out, run, options)
    text = provenance_path(out).read_text()
    assert "jeanne" not in text
    assert "secret" not in text
    found = json.loads(text)
    assert found["command"] == ["omnisat", "predict", "--s2=s2.nc", "--aoi", "aoi.gpkg"]
    assert found["area"] == {"aoi": "aoi.gpkg", "period": "2024-01-01/2024-12-31"}
    assert found["settings"]["note"] == "read s2.nc and x.tif"


def test_credentials_of_urls_are_never_written(tmp_path: Path) -> None:
    path = tmp_path / "map.provenance.json"
    write_provenance(path, {"inputs": {}, "x": ["see https://me:pw@host/a.tif?sig=123&k=4 now"]})
    assert json.loads(path.read_bytes())["x"] == ["see https://host/a.tif now"]


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "map.provenance.json"
    write_provenance(path, {"name": "a\udcffb"})
    assert json.loads(path.read_bytes()) == {"name": "a\udcffb"}


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    digest = FileDigest.of(tmp_path / "x")
    assert (digest.name, digest.size, digest.sha256[:8]) == ("x", 3, "ba7816bf")
