from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from cli_runs import omnisat, write_tiny_pack
from typer.main import get_command

from omnisat_cli.cli import options as opt
from omnisat_cli.cli.app import app
from omnisat_cli.cli.guard import guarded, show_crash
from omnisat_cli.cli.imagery import IMAGERY
from omnisat_cli.cli.options import date_range, mebibytes
from omnisat_cli.cli.request import FLAGS, command_of, inputs_from
from omnisat_cli.errors import Exit, JobError, SecurityError
from omnisat_cli.job import Job
from omnisat_cli.modality import flag
from omnisat_cli.sources.cube_dates import Duplicates
from omnisat_cli.sources.cube_grid import PixelReference
from omnisat_cli.sources.image_options import Resampling
from omnisat_cli.sources.scaling import RadarUnits

PACKAGE = Path(__file__).resolve().parents[1] / "omnisat_cli"
HEAVY = {
    *("torch", "numpy", "xarray", "pandas", "geopandas", "dask", "rasterio", "pydantic"),
    *("h5py", "zarr", "scipy", "shapely", "pyproj", "safetensors", "tqdm", "rich"),
}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "omnisat_cli", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def options_of(command: object) -> set[str]:
    found = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    for child in getattr(command, "commands", {}).values():
        found |= options_of(child)
    return found | {"--help"}


def test_help_imports_nothing_heavy_and_names_every_command() -> None:
    code = (
        "import sys\nfrom omnisat_cli.__main__ import main\nsys.argv = ['omnisat', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())
    for name in ("inspect", "predict", "status", "verify", "model", "doctor", "simulate", "demo"):
        assert name in done.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"omnisat \d+\.\d+\.\d+\S*\n", omnisat("--version").out)


def test_an_unknown_option_is_a_usage_error() -> None:
    assert omnisat("inspect", "--colour").code == Exit.USAGE
    assert omnisat("paint").code == Exit.USAGE


def test_a_reader_that_went_away_is_no_error(tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "pack")
    command = f"{sys.executable} -m omnisat_cli model show {pack}; echo $? >&2"
    done = subprocess.run(
        ["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "0"


def test_an_error_is_one_message_with_its_hints_and_exit_code() -> None:
    @guarded
    def refuse() -> None:
        raise SecurityError("a.pth is a pickle\npass --i-trust-this-file")

    app_error = pytest.raises(RuntimeError)
    with app_error as caught:
        refuse()
    assert caught.value.exit_code == Exit.SECURITY  # type: ignore[attr-defined]


def test_messages_end_with_the_exit_code(tmp_path: Path) -> None:
    done = omnisat("inspect", tmp_path / "absent.tif")
    assert done.code == Exit.REFUSED
    assert done.err.startswith("error: ")
    assert done.err.endswith("[exit 3]\n")
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_debugging_user_gets_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in omnisat("model", "verify", tmp_path / "absent", "-v", "-v").err


def test_a_crash_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("OMNISAT_DEBUG", raising=False)
    error = ZeroDivisionError("division by zero")
    show_crash(ZeroDivisionError, error, None)
    said = capsys.readouterr().err
    (log,) = tmp_path.glob("omnisat-*.log")
    assert str(log) in said
    assert "Traceback" not in said
    assert "[exit 1]" in said
    assert "ZeroDivisionError" in log.read_text()


def test_every_flag_a_message_names_exists() -> None:
    known = options_of(get_command(app))
    foreign = {"--force-reinstall"}
    unknown = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = set(FLAG.findall(node.value)) - known - foreign
                unknown += [f"{path.relative_to(PACKAGE)}: {flag}" for flag in named]
    assert unknown == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2048", 2048),
        ("2GB", 1907),
        ("2GiB", 2048),
        ("1.5 gib", 1536),
        ("800MB", 762),
        ("4g", 3814),
    ],
)
def test_memory_is_read_with_its_unit(text: str, expected: int) -> None:
    assert mebibytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-3", "2PB", "1e3"])
def test_memory_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="--memory"):
        mebibytes(text)


def test_a_range_of_dates_is_told_from_a_file() -> None:
    assert date_range("2024-01-01/2024-12-31") == ("2024-01-01", "2024-12-31")
    assert date_range("lists/dates.txt") is None
    assert date_range(None) is None


def test_the_choices_of_flags_are_those_of_the_readers() -> None:
    for ours, theirs in (
        (opt.PixelPoint, PixelReference),
        (opt.Duplicates, Duplicates),
        (opt.RadarUnits, RadarUnits),
        (opt.Resampling, Resampling),
    ):
        assert tuple(entry.value for entry in ours) == get_args(theirs)


def test_messages_name_the_flags_that_the_command_has() -> None:
    for name, (option, about) in FLAGS.items():
        assert {flag(modality, option) for modality in about} == {name}


def test_paths_with_commas_survive(tmp_path: Path) -> None:
    given: dict[str, object] = dict.fromkeys(entry.parameter for entry in IMAGERY)
    given |= {"aerial": ["a.tif"], "aerial_irc": ["b,1.tif", "a.tif"], "allow_root": ["x,y"]}
    (entry,) = inputs_from(given, None)
    assert entry.options == (("allow_root", "x,y"), ("irc", "b,1.tif"), ("irc", "a.tif"))
    assert entry.values("irc") == ("b,1.tif", "a.tif")
    job = Job((entry,), "model", tmp_path / "map.tif")
    words = shlex.split(command_of(json.loads(json.dumps(job.facts())), job.out))
    assert words[4:10] == [
        "--allow-root",
        "x,y",
        "--aerial-irc",
        "b,1.tif",
        "--aerial-irc",
        "a.tif",
    ]
