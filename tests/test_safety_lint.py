"""User rasters are opened in one place: `omnisat_cli/sources/safe.py`."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "omnisat_cli"

MAY_OPEN = ("sources/safe.py",)
MAY_WRITE = ("outputs/", "learning/simulate")
"""These rooms read back only what this program wrote itself."""

FORBIDDEN = {
    "rasterio": {"open", "vrt", "merge", "MemoryFile"},
    "rasterio.vrt": {"WarpedVRT"},
    "rioxarray": {"open_rasterio"},
    "gdal": {"Open", "OpenEx"},
}


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Local name to the full name it stands for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def offences(source: str) -> list[int]:
    """Lines that reach a forbidden function."""
    tree = ast.parse(source)
    names = imported_names(tree)
    full = {f"{module}.{name}" for module, forbidden in FORBIDDEN.items() for name in forbidden}
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if f"{names.get(node.value.id)}.{node.attr}" in full:
                lines.append(node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module:
            lines += [node.lineno for a in node.names if f"{node.module}.{a.name}" in full]
        elif isinstance(node, ast.Import):
            lines += [node.lineno for a in node.names if a.name in full]
    return lines


def test_rasters_are_opened_through_the_safe_function_alone() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name in MAY_OPEN or name.startswith(MAY_WRITE):
            continue
        found += [f"{name}:{line}" for line in offences(file.read_text("utf-8"))]
    assert found == []


def test_the_lint_sees_every_way_to_open() -> None:
    for source in (
        "import rasterio\nrasterio.open('x')",
        "import rasterio as rio\nrio.open('x')",
        "from rasterio import open as ropen",
        "from rasterio.vrt import WarpedVRT",
        "import rasterio.vrt",
        "from rioxarray import open_rasterio",
        "def f():\n    import rasterio\n    return rasterio.open('x')",
    ):
        assert offences(source), source
    assert not offences("import rasterio.warp\nopen('x')")
