"""Imports run one way; heavy libraries stay away from `omnisat --help`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "omnisat_cli"

ORDER = ("errors", "modality", "geo", "job", "sources", "outputs", "packs", "engine")
"""A room may import itself and the rooms before it."""

ALLOWED: dict[str, set[str]] = {
    **{room: set(ORDER[: index + 1]) for index, room in enumerate(ORDER)},
    "networks": {"networks"},
    "learning": {*ORDER, "networks", "learning"},
    "runners": {*ORDER, "networks", "runners"},
    "cli": {*ORDER, "networks", "learning", "runners", "cli"},
    "__main__": {"errors", "cli"},
    "__init__": set(),
}
ALLOWED["packs"] |= {"networks"}
ALLOWED["engine"] |= {"networks"}

TORCH_ROOMS = {"engine", "networks", "packs", "learning", "runners", "cli"}
"""`runners` and `cli` only to set threads and to report versions and devices."""

HEAVY = ("torch", "numpy", "rasterio", "xarray", "pandas", "geopandas", "dask", "shapely", "h5py")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every absolute module name a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_the_rooms_before_it(path: Path) -> None:
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("omnisat_cli.")}
    assert ours <= ALLOWED[room_of(path)], f"{path} climbs a wall"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_is_used_where_the_design_says(path: Path) -> None:
    if any(name.split(".")[0] == "torch" for name in imported(path)):
        assert room_of(path) in TORCH_ROOMS


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from omnisat_cli.__main__ import main\n"
        "sys.argv = ['omnisat', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    assert "predict" in run.stdout
