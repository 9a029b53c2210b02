from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omnisat_cli.outputs.prediction import Hole, Prediction, hole_prediction


def simple() -> Prediction:
    """Two mapped pixels, one cloudy, one outside."""
    return Prediction(
        refine=1,
        classes=np.array([[0, 4], [255, 255]], np.uint8),
        confidence=np.array([[50, 100], [255, 255]], np.uint8),
        validity=np.array([[3, 0], [0, 255]], np.uint8),
        presence=np.array([[1, 127], [Hole.CLOUDS, Hole.OUTSIDE]], np.uint8),
    )


def test_holes_are_counted_by_reason_and_the_outside_is_none() -> None:
    assert simple().holes() == {Hole.CLOUDS: 1}


@pytest.mark.parametrize(
    ("name", "at", "value", "words"),
    [
        ("presence", (0, 0), 0, "needs a modality"),
        ("presence", (0, 0), 128, "needs a modality"),
        ("presence", (0, 0), Hole.FAULT, "needs a modality"),
        ("presence", (1, 0), 1, "needs a modality"),
        ("presence", (1, 0), 251, "needs a reason"),
        ("classes", (1, 0), 3, "needs a modality"),
        ("confidence", (0, 0), 255, "confidence"),
        ("confidence", (0, 0), 101, "above 100"),
        ("confidence", (1, 0), 0, "confidence"),
        ("validity", (1, 1), 0, "validity"),
        ("validity", (0, 0), 255, "validity"),
    ],
)
def test_a_prediction_that_claims_what_was_not_read_is_refused(
    name: str, at: tuple[int, int], value: int, words: str
) -> None:
    array = getattr(simple(), name).copy()
    array[at] = value
    with pytest.raises(ValueError, match=words):
        replace(simple(), **{name: array})


def test_optional_arrays_obey_the_same_rules() -> None:
    none = simple().classes == 255
    boundary = np.where(none, 255, 250).astype(np.uint8)
    stack = np.stack([boundary, boundary])
    assert list(replace(simple(), boundary=boundary, probabilities=stack).arrays()) == [
        *("classes", "confidence", "validity", "presence", "boundary", "probabilities")
    ]
    with pytest.raises(ValueError, match="above 250"):
        replace(simple(), boundary=np.where(none, 255, 251).astype(np.uint8))
    with pytest.raises(ValueError, match="only there"):
        replace(simple(), probabilities=np.zeros_like(stack))


def test_other_types_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="not uint8"):
        replace(simple(), confidence=simple().confidence.astype(np.int16))
    with pytest.raises(ValueError, match=r"on \(2, 2\) pixels"):
        replace(simple(), confidence=simple().confidence[:1])


def test_a_block_without_any_class_is_a_valid_prediction() -> None:
    presence = np.array([[Hole.FAULT, Hole.OUTSIDE]], np.uint8)
    empty = hole_prediction((1, 2), 1, presence, {"boundary": 1, "probabilities": 3})
    assert empty.holes() == {Hole.FAULT: 1}
    assert empty.validity.tolist() == [[0, 255]]
    assert empty.arrays()["probabilities"].shape == (3, 1, 2)
