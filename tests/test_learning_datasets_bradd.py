"""BraDD-S1TS, in a few samples of the published layout."""

from __future__ import annotations

import datetime
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from omnisat_cli.errors import JobError, SecurityError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.datasets.bradd import ForestLossExamples
from omnisat_cli.sources.values import Series

LINES = (
    ",alert_idx,center_idx,date,sampling_type,state,file,close_set",
    "0,91,0,2020-08-01,change,PA,PA_91_0,train",
    "1,91,1,2020-08-01,change,PA,PA_91_1,train",
    "2,12,0,2020-05-02,nochange,AM,AM_12_0,validation",
)
DATES = [datetime.date(2020, 8, 1), datetime.date(2020, 1, 12), datetime.date(2020, 3, 4)]


def sample(**changed: object) -> dict[str, object]:
    rng = np.random.default_rng(3)
    label = torch.zeros(2, 48, 48, dtype=torch.uint8)
    label[0, :4], label[1, :4], label[1, 8:20, 30:] = 1, 1, 1
    content: dict[str, object] = {
        "image": torch.from_numpy(rng.uniform(-25, -4, (3, 2, 48, 48)).astype(np.float32)),
        "image_dates": DATES,
        "label": label,
        "label_dates": [datetime.date(2020, 2, 1), datetime.date(2020, 9, 1)],
    }
    return content | changed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "meta.csv").write_text("\n".join(LINES))
    (tmp_path / "Samples").mkdir()
    for name in ("PA_91_0", "PA_91_1", "AM_12_0"):
        torch.save(sample(), tmp_path / "Samples" / f"{name}.pt")
    return tmp_path


def test_a_window_holds_the_stored_images_in_order_of_dates(root: Path) -> None:
    examples = open_dataset("bradd-s1ts", root, options=Options(side=4))
    assert len(examples) == 3 * 9
    example = examples.example(1)
    series = example.sample.data["s1"]
    assert isinstance(series, Series)
    stored = sample()["image"]
    assert isinstance(stored, torch.Tensor)
    np.testing.assert_array_equal(series.pixels, stored.numpy()[[1, 2, 0], :, :16, 16:32])
    assert [str(day) for day in series.dates] == ["2020-01-12", "2020-03-04", "2020-08-01"]
    assert series.valid.all()


def test_forest_is_lost_where_the_last_label_differs_from_the_first(root: Path) -> None:
    examples = open_dataset("bradd-s1ts", root, split="val")
    assert isinstance(examples, ForestLossExamples)
    classes = examples.labels(0).classes
    assert classes is not None
    assert classes.sum() == 12 * 18
    assert (classes[8:20, 30:] == 1).all()
    assert [entry.name_en for entry in examples.legend.classes] == ["unchanged", "forest loss"]


def test_parts_are_the_listed_ones_and_alerts_are_groups(root: Path) -> None:
    assert open_dataset("bradd-s1ts", root).groups.tolist() == [0, 0, 1]
    assert len(open_dataset("bradd-s1ts", root, split="train")) == 2
    state = open_dataset("bradd-s1ts", root, folds=["AM"])
    assert len(state) == 1
    again = pickle.loads(pickle.dumps(state)).example(0)
    np.testing.assert_array_equal(again.classes, state.example(0).classes)
    with pytest.raises(SourceError, match="no sample"):
        open_dataset("bradd-s1ts", root, split="test")
    with pytest.raises(JobError, match="no state SP"):
        open_dataset("bradd-s1ts", root, folds=["SP"])


def test_arrays_of_numpy_are_read_too(root: Path) -> None:
    content = sample()
    for key in ("image", "label"):
        stored = content[key]
        assert isinstance(stored, torch.Tensor)
        content[key] = stored.numpy()
    torch.save(content, root / "Samples" / "AM_12_0.pt")
    example = open_dataset("bradd-s1ts", root, folds=["AM"]).example(0)
    assert example.classes is not None
    assert example.classes.sum() == 12 * 18


class Program:
    """Runs something when it is read carelessly."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


def test_samples_with_code_are_refused(root: Path) -> None:
    torch.save(sample(image=Program()), root / "Samples" / "AM_12_0.pt")
    with pytest.raises(SecurityError, match="more than arrays and dates"):
        open_dataset("bradd-s1ts", root, folds=["AM"]).example(0)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image": torch.zeros(3, 2, 40, 48)}, "image is"),
        ({"image": "none"}, "image is str"),
        ({"image_dates": DATES[:2]}, "3 images and 2 dates"),
        ({"image_dates": ["20200801"] * 3}, "no list of dates"),
        ({"label": torch.full((2, 48, 48), 2)}, "label 2"),
        ({"label": torch.zeros(1, 48, 48), "label_dates": DATES[:1]}, "needs two"),
    ],
)
def test_samples_that_do_not_fit_are_typed_errors(
    root: Path, changed: dict[str, object], said: str
) -> None:
    torch.save(sample(**changed), root / "Samples" / "AM_12_0.pt")
    with pytest.raises(SourceError, match=said):
        open_dataset("bradd-s1ts", root, folds=["AM"]).example(0)


def test_missing_and_short_files_are_typed_errors(root: Path) -> None:
    path = root / "Samples" / "AM_12_0.pt"
    path.write_bytes(path.read_bytes()[:3000])
    examples = open_dataset("bradd-s1ts", root, folds=["AM"])
    with pytest.raises(SourceError, match="damaged or cut short"):
        examples.example(0)
    path.unlink()
    with pytest.raises(SourceError, match=r"AM_12_0\.pt is missing; expected BraDD"):
        examples.example(0)
    (root / "meta.csv").write_text("file,state\na,b\n")
    with pytest.raises(SourceError, match="no column alert_idx, close_set"):
        open_dataset("bradd-s1ts", root)
    (root / "meta.csv").unlink()
    with pytest.raises(SourceError, match=r"meta\.csv is missing"):
        open_dataset("bradd-s1ts", root)
