from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rasterio
from cli_runs import LEFT, TOP, Scene, write_aerial, write_s2, write_tiny_scene

from omnisat_cli.cli import predict as predict_module
from omnisat_cli.cli.imagery import IMAGERY
from omnisat_cli.cli.progress import Silence
from omnisat_cli.cli.request import command_of, inputs_from
from omnisat_cli.errors import Exit
from omnisat_cli.modality import S2_BANDS

if TYPE_CHECKING:
    from omnisat_cli.geo.plan import Block
    from omnisat_cli.outputs.journal import BlockRecord


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_tiny_scene(tmp_path_factory.mktemp("scene"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_command_maps_files_and_says_what_it_made(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "späte Karte" / "map.tif"
    done = scene.predict(out, "--aerial", scene.aerial, "--s2", scene.s2, "--s1", scene.s1)
    assert (done.code, done.err.splitlines()[0]) == (0, "mapping 0.0576 km² in 1 block")
    first, second, *_ = done.out.splitlines()
    assert first.startswith("blocks 1/1  0.0576 km²")
    assert str(out) in second
    assert "3 classes" in second
    assert "0 holes." in done.out
    assert "largest: " in done.out
    with rasterio.open(out) as file:
        assert (file.nodata, file.crs.to_epsg(), file.res) == (255, 2154, (2.5, 2.5))
    again = scene.predict(out, "--s2", scene.s2)
    assert again.code == Exit.EXISTS
    assert "--overwrite" in again.err
    provenance = json.loads(out.with_name("map.provenance.json").read_text())
    assert provenance["command"][0] == "omnisat"


def test_json_is_the_only_thing_on_stdout(scene: Scene, tmp_path: Path) -> None:
    done = scene.predict(tmp_path / "map.tif", "--s1", scene.s1, "--json")
    plain = json.loads(done.out)
    assert plain["complete"] is True
    assert plain["exit"] == done.code == 0
    assert plain["modalities"] == ["s1"]
    assert {row["name_en"] for row in plain["areas"]} == {"building", "field", "forest"}


def test_quiet_says_results_only(scene: Scene, tmp_path: Path) -> None:
    done = scene.predict(tmp_path / "map.tif", "--s1", scene.s1, "-q")
    assert done.err == ""
    assert done.out != ""


def test_a_dry_run_writes_nothing(scene: Scene, tmp_path: Path) -> None:
    words = ("--aerial", scene.aerial, "--s2", scene.s2, "--dry-run")
    done = scene.predict(tmp_path / "out" / "map.tif", *words)
    assert done.code == 0
    assert done.out.startswith("would map 0.0576 km² as 1 block")
    assert "Nothing written." in done.out
    assert "without s1" in done.out
    assert "offset: already removed" in done.out
    assert list(tmp_path.iterdir()) == []
    plain = json.loads(scene.predict(tmp_path / "map.tif", *words, "--json").out)
    assert (plain["grid"]["width"], plain["grid"]["pixel"]) == (96, 2.5)
    assert plain["absent"] == ["s1"]


def test_a_stopped_run_goes_on_to_the_same_bytes(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopper(Silence):
        blocks = 0

        def block(self, block: Block, record: BlockRecord, km2: float) -> None:
            self.blocks += 1
            if self.blocks == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    words = ("--s2", scene.s2, "--block", 80)
    whole, out = tmp_path / "whole" / "map.tif", tmp_path / "stopped" / "map.tif"
    assert scene.predict(whole, *words).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "choose_progress", lambda quiet: Stopper())
        done = scene.predict(out, *words)
    assert done.code == Exit.INTERRUPTED
    assert "the same command goes on" in done.err
    assert not out.exists()
    assert (tmp_path / "stopped" / "map.tif.omnisat" / "run.json").exists()
    changed = scene.predict(out, "--s2", scene.s2, "--block", 120)
    assert changed.code == Exit.EXISTS
    assert "tiling.block" in changed.err
    resumed = scene.predict(out, *words, "--overwrite")
    assert resumed.code == 0
    assert "done by an earlier run" in resumed.err
    assert digest(out) == digest(whole)
    assert not (tmp_path / "stopped" / "map.tif.omnisat").exists()


def test_a_staged_run_can_be_thrown_away(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Silence):
        def block(self, block: Block, record: BlockRecord, km2: float) -> None:
            raise KeyboardInterrupt

    out, words = tmp_path / "map.tif", ("--s1", scene.s1, "--block", 160)
    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "choose_progress", lambda quiet: Crash())
        assert scene.predict(out, *words).code == Exit.INTERRUPTED
    other = scene.predict(out, "--s1", scene.s1, "--block", 80, "--overwrite", "--json")
    assert json.loads(other.out)["computed"] == 9
    assert scene.predict(out, *words, "--no-resume").code == Exit.EXISTS


def test_ground_that_no_input_covers_is_a_hole(scene: Scene, tmp_path: Path) -> None:
    box = (LEFT, TOP - 240, LEFT + 480, TOP)
    done = scene.predict(tmp_path / "map.tif", "--s2", scene.s2, "--bbox", *box)
    assert done.code == Exit.HOLES
    assert "holes on 50 % of the area: no data 5.8 ha" in done.out


def refused(scene: Scene, tmp_path: Path, *words: object) -> tuple[int, str]:
    done = scene.predict(tmp_path / "out" / "map.tif", *words)
    assert done.out == ""
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
    return done.code, done.err


def test_nothing_to_map_is_a_usage_error(scene: Scene, tmp_path: Path) -> None:
    code, said = refused(scene, tmp_path)
    assert code == Exit.USAGE
    assert "--aerial" in said


def test_a_flag_about_an_input_that_is_not_there_is_refused(scene: Scene, tmp_path: Path) -> None:
    for flag in ("--aerial-bands", "--s1-units", "--max-cloud"):
        value = {"--s1-units": "db", "--max-cloud": "20"}.get(flag, "R,G,B")
        words = ("--s2", scene.s2) if flag != "--max-cloud" else ("--s1", scene.s1)
        code, said = refused(scene, tmp_path, *words, flag, value)
        assert code == Exit.USAGE
        assert flag in said


def test_the_map_must_be_a_tif(scene: Scene, tmp_path: Path) -> None:
    done = scene.predict(tmp_path / "map.png", "--s2", scene.s2)
    assert done.code == Exit.USAGE
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_read_are_refused(scene: Scene, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(scene.aerial.read_bytes()[:3000])
    cut = tmp_path / "cut.nc"
    cut.write_bytes(scene.s2.read_bytes()[:3000])
    nowhere = write_aerial(tmp_path / "nowhere.tif", crs=None)
    for words in (
        ("--aerial", tmp_path / "absent.tif"),
        ("--aerial", broken),
        ("--aerial", nowhere),
        ("--s2", cut),
        ("--s2", scene.aerial),
    ):
        code, said = refused(scene, tmp_path, *words)
        assert code == Exit.REFUSED
        assert Path(words[1]).name in said


def test_a_file_that_pretends_and_a_remote_path_are_refused_for_security(
    scene: Scene, tmp_path: Path
) -> None:
    disguised = tmp_path / "image.tif"
    disguised.write_text("<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    for path in (disguised, "/vsicurl/https://example.org/a.tif"):
        assert refused(scene, tmp_path, "--aerial", path)[0] == Exit.SECURITY


def test_places_that_do_not_fit_are_refused(scene: Scene, tmp_path: Path) -> None:
    degrees = tmp_path / "degrees.geojson"
    ring = [[9.3, 48.5], [9.4, 48.5], [9.4, 48.6], [9.3, 48.6], [9.3, 48.5]]
    degrees.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    wrong = tmp_path / "wrong.geojson"
    ring = [[LEFT + x, TOP + y] for x, y in ((0, 0), (90, 0), (90, -90), (0, 0))]
    wrong.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    for words, expected in (
        (("--aoi", degrees), "km"),
        (("--aoi", wrong), "--aoi-crs"),
        (("--bbox", 2.3, 48.5, 2.4, 48.6), "--bbox"),
        (("--bbox", 1, 1, 2, 2, "--aoi", wrong), "not both"),
        (("--crs", "EPSG:4326"), "--crs"),
        (("--crs", "nonsense"), "EPSG:n"),
    ):
        code, said = refused(scene, tmp_path, "--s2", scene.s2, *words)
        assert code in (Exit.REFUSED, Exit.USAGE)
        assert expected in said


def test_cubes_that_leave_doubts_are_refused(scene: Scene, tmp_path: Path) -> None:
    no_b8a = write_s2(tmp_path / "no_b8a.nc", tuple(b for b in S2_BANDS if b != "B8A"))
    for words, expected in (
        (("--s2", no_b8a), "--s2-substitute B8A=B08"),
        (("--s2", scene.s2, "--dates", "2019-01-01/2019-12-31"), "2019"),
        (("--s2", scene.s1), "s2"),
    ):
        code, said = refused(scene, tmp_path, *words)
        assert (code, expected in said) == (Exit.REFUSED, True), said
    no_b02 = write_s2(tmp_path / "no_b02.nc", tuple(b for b in S2_BANDS if b != "B02"))
    _, said = refused(scene, tmp_path, "--s2", no_b02)
    assert said.count("--s2-substitute B02=none") == said.count("--s2-substitute") == 1
    out = tmp_path / "sub" / "map.tif"
    done = scene.predict(out, "--s2", no_b8a, "--s2-substitute", "B8A=B08")
    assert done.code == 0
    assert "note: s2 bands: B8A is a copy of B08" in done.err


def test_models_that_do_not_fit_are_refused(scene: Scene, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(scene.pack, damaged)
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    code, said = refused(scene, tmp_path, "--s2", scene.s2, "--model", damaged)
    assert code == Exit.REFUSED
    assert "sha256" in said
    code, said = refused(scene, tmp_path, "--s2", scene.s2, "--model", "absent")
    assert code == Exit.REFUSED
    assert "omnisat model list" in said
    code, said = refused(scene, tmp_path, "--spot", scene.aerial)
    assert code == Exit.USAGE
    assert "spot" in said


def test_resolutions_the_data_cannot_give_are_refused(scene: Scene, tmp_path: Path) -> None:
    assert refused(scene, tmp_path, "--s2", scene.s2, "--resolution", 1)[0] == Exit.USAGE
    assert refused(scene, tmp_path, "--s2", scene.s2, "--device", "quantum")[0] == Exit.USAGE
    assert refused(scene, tmp_path, "--s2", scene.s2, "--memory", "9")[0] == Exit.USAGE


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_refused_at_the_start(
    scene: Scene, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    done = scene.predict(tmp_path / "out" / "map.tif", "--s2", scene.s2)
    tmp_path.chmod(0o700)
    assert done.code == Exit.REFUSED


def test_a_job_gives_its_command_back() -> None:
    given: dict[str, object] = dict.fromkeys(entry.parameter for entry in IMAGERY)
    given |= {
        "aerial": ["a b.tif", "c.tif"],
        "aerial_bands": "NIR,G,B,R",
        "s2": "s2.nc",
        "s2_offset": "-1000",
        "keep_snow": True,
        "s1_asc": "asc.nc",
        "cube_crs": "EPSG:2154",
    }
    inputs = inputs_from(given, "2024-01-01/2024-12-31")
    assert [entry.modality for entry in inputs] == ["aerial", "s2", "s1-asc"]
    assert inputs[1].options == (("crs", "EPSG:2154"), ("keep_snow", "yes"), ("offset", "-1000"))
    facts = {
        "inputs": [
            {
                "modality": e.modality,
                "paths": list(e.paths),
                "options": [list(pair) for pair in e.options],
            }
            for e in inputs
        ],
        "model": "m",
        "area": {"aoi": None, "bbox": [1.0, 2.0, 3.0, 4.0], "aoi_crs": None, "bbox_crs": None},
        "dates": ["2024-01-01", "2024-12-31"],
        "on_error": "hole",
        "boundary": True,
    }
    assert command_of(facts, Path("out/map.tif")) == (
        "omnisat predict --aerial 'a b.tif' --aerial c.tif --aerial-bands NIR,G,B,R --s2 s2.nc "
        "--cube-crs EPSG:2154 --keep-snow --s2-offset -1000 --s1-asc asc.nc --cube-crs EPSG:2154 "
        "--model m --out out/map.tif --bbox 1.0 2.0 3.0 4.0 --dates 2024-01-01/2024-12-31 "
        "--on-error hole --boundary"
    )
