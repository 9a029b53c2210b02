from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.errors import CheckpointError, JobError
from omnisat_cli.outputs.legend import Legend, LegendClass, legend, load_legend, shipped_legends

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = {
    "pastis-20": 20,
    "flair-19": 19,
    "flair-13": 13,
    "flair-15": 15,
    "flair-lpis-23": 23,
    "oso-23": 23,
    "rpg-28": 28,
    "treesatai-15": 15,
}


def content() -> dict[str, object]:
    return legend("flair-13").to_json()


@pytest.mark.parametrize("name", COUNTS)
def test_every_shipped_legend_has_its_classes_and_distinct_colours(name: str) -> None:
    found = legend(name)
    assert found.id == name
    assert len(found.classes) == COUNTS[name]
    assert len({entry.color for entry in found.classes}) == COUNTS[name]


def test_no_legend_ships_unlisted() -> None:
    assert set(shipped_legends()) == set(COUNTS)


def test_a_swimming_pool_has_other_codes_in_other_legends() -> None:
    code = {
        name: next(c.code for c in legend(name).classes if c.name_en == "swimming pool")
        for name in ("flair-19", "flair-15")
    }
    assert code == {"flair-19": 13, "flair-15": 2}


def test_a_written_legend_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "legend.json"
    path.write_text(json.dumps(content()), encoding="utf-8")
    assert load_legend(path) == legend("flair-13")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodata": 0}, "nodata is 0"),
        ({"classes": []}, "at least one class"),
        ({"version": 1}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"id": " "}, "1 to 200"),
    ],
)
def test_a_wrong_legend_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "legend.json"
    path.write_text(json.dumps(content() | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        load_legend(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code": 255}, "not in 0"),
        ({"code": True}, "code"),
        ({"color": "red"}, "#1a2b3c"),
        ({"name_en": "a\u202eb"}, r"U\+202E"),
        ({"name_fr": "a\nb"}, r"U\+000A"),
        ({"code": 2}, "codes used twice: 2"),
    ],
)
def test_a_wrong_class_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    whole = json.loads(json.dumps(content()))
    whole["classes"][0] |= change
    path = tmp_path / "legend.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        load_legend(path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "legend.json"
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(CheckpointError, match="at most"):
        load_legend(path)


def test_an_absent_file_and_an_unknown_name_are_typed_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_legend(tmp_path / "absent.json")
    with pytest.raises(JobError, match="pastis-20"):
        legend("pastis-21")


@given(st.binary(max_size=60), st.integers(0, 800))
def test_damaged_legends_end_in_a_typed_error_or_a_legend(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    whole = json.dumps(content()).encode()
    path = tmp_path_factory.mktemp("legend") / "legend.json"
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    with suppress(CheckpointError):
        assert isinstance(load_legend(path), Legend)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "legend.json"
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(CheckpointError):
        load_legend(path)


def test_a_class_knows_its_colour_and_both_names() -> None:
    entry = LegendClass(3, "Corn", "Maïs", "#ffbb78")
    assert entry.rgb == (255, 187, 120)
    assert (entry.name("en"), entry.name("fr")) == ("Corn", "Maïs")
