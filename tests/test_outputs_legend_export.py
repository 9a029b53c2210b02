"""`omnisat legend`: the same names and colours in every format."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli_runs import omnisat, write_tiny_pack
from defusedxml.ElementTree import fromstring
from test_outputs_parcels import fields, write_map

from omnisat_cli.errors import Exit, JobError
from omnisat_cli.outputs.legend import legend, load_legend, shipped_legends
from omnisat_cli.outputs.legend_export import export_legend
from omnisat_cli.outputs.products import Category
from omnisat_cli.outputs.sidecars import aux_xml

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", shipped_legends())
def test_every_format_holds_every_class(name: str, tmp_path: Path) -> None:
    scheme = legend(name)
    codes = [str(code) for code in scheme.by_code()]
    colors = [entry.color for entry in scheme.by_code().values()]

    def exported(file: str, **more: object) -> bytes:
        return export_legend(scheme, tmp_path / file, "fr", **more)

    entries = fromstring(exported("a.qml")).findall(".//paletteEntry")
    assert [(e.get("value"), e.get("color")) for e in entries] == list(
        zip(codes, colors, strict=True)
    )
    assert entries[-1].get("label") == scheme.by_code()[int(codes[-1])].name_fr
    entries = [e for e in fromstring(exported("a.sld")).iter() if e.tag.endswith("ColorMapEntry")]
    assert [(e.get("quantity"), e.get("color")) for e in entries] == list(
        zip(codes, colors, strict=True)
    )
    lines = [line.split(" ", 4) for line in exported("a.clr").decode().splitlines()]
    assert [line[0] for line in lines] == codes
    assert [bytes(map(int, line[1:4])).hex() for line in lines] == [c[1:] for c in colors]
    rows = list(csv.DictReader(exported("a.csv").decode("utf-8-sig").splitlines()))
    assert [(row["code"], row["color"]) for row in rows] == list(zip(codes, colors, strict=True))
    (tmp_path / "a.json").write_bytes(exported("a.json"))
    assert load_legend(tmp_path / "a.json") == scheme
    style = fromstring(exported("a.qml", column="pred_code"))
    assert style.find("renderer-v2").get("attr") == "pred_code"
    assert [e.get("value") for e in style.findall(".//category")] == codes


def test_formats_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"\.qml, \.sld"):
        export_legend(legend("rpg-28"), tmp_path / "a.lyr")
    with pytest.raises(JobError, match="styles of polygons"):
        export_legend(legend("rpg-28"), tmp_path / "a.sld", column="x")


def test_legends_are_found_by_id_in_maps_and_in_models(tmp_path: Path) -> None:
    path = write_map(tmp_path / "map.tif", fields(10))
    unnamed = omnisat("legend", "show", path)
    assert unnamed.code == Exit.USAGE
    assert "nothing names its classes" in unnamed.err
    names = [Category(0, "eau & glace", (1, 2, 3)), Category(3, "forêt", (4, 5, 6))]
    (tmp_path / "map.tif.aux.xml").write_bytes(aux_xml(names, "class"))
    shown = omnisat("legend", "show", path, "--json")
    assert [c["name_en"] for c in json.loads(shown.out)["classes"]] == ["eau & glace", "forêt"]
    pack = write_tiny_pack(tmp_path / "pack")
    assert "forest" in omnisat("legend", "show", pack).out
    assert "Blé tendre" in omnisat("legend", "show", "pastis-20@1").out
    missing = omnisat("legend", "show", "pastis-21")
    assert missing.code == Exit.USAGE
    assert "pastis-20" in missing.err
    listed = omnisat("legend", "list")
    assert all(name in listed.out for name in shipped_legends())
    assert {row["id"] for row in json.loads(omnisat("legend", "list", "--json").out)} >= set(
        shipped_legends()
    )


def test_an_exported_legend_names_another_map(tmp_path: Path) -> None:
    out = tmp_path / "new" / "flair.json"
    assert omnisat("legend", "export", "flair-15", "-o", out).code == Exit.COMPLETE
    assert omnisat("legend", "export", "flair-15", "-o", out).code == Exit.EXISTS
    again = omnisat("legend", "export", "flair-15", "-o", out, "--overwrite", "--language", "fr")
    assert again.code == Exit.COMPLETE
    path = write_map(tmp_path / "map.tif", np.full((5, 5), 2, np.uint8))
    assert "swimming pool" in omnisat("stats", path, "--legend", out).out
