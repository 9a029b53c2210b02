"""TimeSen2Crop, in a few pixels of the published layout."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.sources.values import Series

HEADER = "B1,B2,B3,B4,B5,B6,B7,B8,B9,Flag"
PIXELS = {"33UVP": {0: [0, 1, 2, 5], 12: [0]}, "2019_33UVP": {15: [3]}, "32TNT": {1: [7, 8]}}


def write_pixel(path: Path, number: int) -> None:
    rows = [
        [number * 10 + band + 100 * date for band in range(1, 10)] + [flag]
        for date, flag in enumerate((0, 1, 3))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for tile, classes in PIXELS.items():
        for code, numbers in classes.items():
            for number in numbers:
                write_pixel(tmp_path / tile / str(code) / f"{number}.csv", number)
        (tmp_path / tile / "dates.csv").write_text(
            "acquisition_date\n20170903\n20180111\n20180620\n"
        )
    return tmp_path


def test_a_pixel_holds_the_stored_lines(root: Path) -> None:
    examples = open_dataset("timesen2crop", root, folds=["33UVP"])
    assert len(examples) == 5
    example = examples.example(3)  # the last of class 0, number 5
    series = example.sample.data["s2"]
    assert isinstance(series, Series)
    assert series.pixels.shape == (3, 9, 1, 1)
    assert series.pixels[1, :, 0, 0].tolist() == [50 + band + 100 for band in range(1, 10)]
    assert [str(day) for day in series.dates] == ["2017-09-03", "2018-01-11", "2018-06-20"]
    assert series.valid.all()
    assert "B08" not in examples.channels[0].bands
    assert len(examples.channels[0].bands) == 9
    codes = [examples.example(k).classes for k in range(5)]
    assert [int(code[0, 0]) for code in codes if code is not None] == [0, 0, 0, 0, 12]
    with pytest.raises(IndexError, match="beyond the 5"):
        examples.example(5)


def test_pixels_that_are_not_clear_are_masked_on_demand(root: Path) -> None:
    options = Options(clouds="mask")
    series = open_dataset("timesen2crop", root, options=options).example(0).sample.data["s2"]
    assert series.valid[:, 0, 0].tolist() == [True, False, False]


def test_two_years_of_one_tile_are_one_group(root: Path) -> None:
    examples = open_dataset("timesen2crop", root)
    assert examples.groups.tolist() == [0] + [1] * 2 + [0] * 5
    assert len(pickle.dumps(examples)) < 5000
    again = pickle.loads(pickle.dumps(examples)).example(2)
    np.testing.assert_array_equal(again.classes, [[1]])
    with pytest.raises(JobError, match="no tile 31TFM"):
        open_dataset("timesen2crop", root, folds=["31TFM"])
    with pytest.raises(JobError, match="no choice of split"):
        open_dataset("timesen2crop", root, split="train")


def cut_short(path: Path) -> None:
    path.write_text(path.read_text()[:60])


def drop_a_line(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))


def spoil_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace("101", "cloud"))


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("32TNT/1/7.csv", cut_short, "damaged or cut short"),
        ("32TNT/1/7.csv", drop_a_line, "2 × 10, expected 3 dates"),
        ("32TNT/1/7.csv", spoil_a_number, "damaged"),
        ("32TNT/1/7.csv", Path.unlink, r"7\.csv is missing"),
        ("32TNT/dates.csv", drop_a_line, "expected 2 dates"),
    ],
)
def test_damaged_files_are_typed_errors(root: Path, file: str, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    path = root / "32TNT" / "1" / "7.csv"
    write_pixel(path, 0)
    examples = open_dataset("timesen2crop", root, folds=["32TNT"])
    spoil(root / file)
    with pytest.raises(SourceError, match=said):
        examples.example(0)


def test_other_folders_are_refused(root: Path) -> None:
    with pytest.raises(SourceError, match="expected TimeSen2Crop as published"):
        open_dataset("timesen2crop", root / "32TNT")
    (root / "32TNT" / "1" / "copy.csv").touch()
    with pytest.raises(SourceError, match="not named by a number"):
        open_dataset("timesen2crop", root)
