"""Events in simulated landscapes: what they change, when, and what the truth says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import minimum_filter
from typer.testing import CliRunner

from omnisat_cli.errors import JobError, OutputExistsError, SourceError
from omnisat_cli.learning.datasets import Options, open_dataset
from omnisat_cli.learning.simulate import Scene, SceneSpec, simulate, simulate_tiles
from omnisat_cli.learning.simulate.clearing import LOST
from omnisat_cli.learning.simulate.event import Ground
from omnisat_cli.learning.simulate.events import EVENTS, staged
from omnisat_cli.learning.simulate.fields import Pixels
from omnisat_cli.learning.simulate.files import Gap, Layout, write_scene
from omnisat_cli.learning.simulate.flood import Flood, height_above_river
from omnisat_cli.learning.simulate.landscape import landscape
from omnisat_cli.learning.simulate.values import EVENT_NAMES
from omnisat_cli.learning.simulate.weather import optical_year, radar_year

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.learning.simulate.values import Frame

SIDE_M = 320
CLEARING = staged(SceneSpec(9003, SIDE_M, SIDE_M, 1.0, event="clearing"))
FLOOD = staged(SceneSpec(9001, SIDE_M, SIDE_M, 1.0, event="flood"))


@pytest.fixture(scope="module")
def cleared() -> Scene:
    return simulate(CLEARING)


@pytest.fixture(scope="module")
def flooded() -> Scene:
    return simulate(FLOOD)


@pytest.fixture(scope="module")
def quiet_wood() -> Scene:
    """The same wood in the same weather, and nobody fells."""
    return simulate(replace(CLEARING, event=None))


@pytest.fixture(scope="module")
def quiet_river() -> Scene:
    return simulate(replace(FLOOD, event=None))


def cells_of(scene: Scene, code: int, around: int = 1) -> NDArray[np.bool_]:
    """Return the pixels of 10 m that hold nothing but a class, with those around them."""
    mine = (scene.truth == code).reshape(SIDE_M // 10, 10, SIDE_M // 10, 10).all(axis=(1, 3))
    return np.asarray(minimum_filter(mine, 2 * around + 1, mode="constant", cval=True))


def late(dates: NDArray[np.datetime64], day: str) -> NDArray[np.bool_]:
    return dates >= np.datetime64(day)


def test_felled_forest_loses_two_to_four_decibels(cleared: Scene, quiet_wood: Scene) -> None:
    lost, after = cells_of(cleared, LOST), late(cleared.s1_dates, "2023-11-20")
    assert lost.sum() > 20
    change = (cleared.s1 - quiet_wood.s1)[after][..., lost].mean(axis=(0, 2))
    assert -2.5 < change[0] < -1
    assert -4 < change[1] < -2


def test_nothing_changes_before_the_first_felling(cleared: Scene, quiet_wood: Scene) -> None:
    before = ~late(cleared.s1_dates, "2023-04-20")
    np.testing.assert_allclose(cleared.s1[before], quiet_wood.s1[before], atol=1e-4)
    before = ~late(cleared.s2_dates, "2023-04-20")
    assert before.sum() > 5
    assert np.abs(cleared.s2[before].astype(int) - quiet_wood.s2[before]).max() <= 1


def test_nothing_changes_where_nothing_is_felled(cleared: Scene, quiet_wood: Scene) -> None:
    away = np.abs(cleared.s1 - quiet_wood.s1).max(axis=(0, 1)) < 1e-4
    assert away[cells_of(cleared, 1, around=4)].all()
    assert away[cells_of(cleared, 0, around=4)].all()
    np.testing.assert_array_equal(cleared.truth == 0, ~np.isin(cleared.truth, (1, LOST)))
    assert np.isin(quiet_wood.truth[cleared.truth == LOST], (4, 5)).all()


def test_felled_forest_turns_to_soil(cleared: Scene, quiet_wood: Scene) -> None:
    lost = cells_of(cleared, LOST)
    clear = (np.isin(cleared.scl, (4, 5)) & late(cleared.s2_dates, "2023-10-20")[:, None, None])[
        :, lost
    ]
    assert clear.sum() > 20

    def mean(scene: Scene, band: int) -> float:
        return float(scene.s2[:, band][:, lost][clear].mean())

    assert mean(cleared, 9) > 1.3 * mean(quiet_wood, 9)  # B12
    assert mean(cleared, 6) < 0.8 * mean(quiet_wood, 6)  # B08


def test_stands_are_felled_on_days_of_their_own(cleared: Scene, quiet_wood: Scene) -> None:
    changed = np.abs(cleared.s1 - quiet_wood.s1).max(axis=1) > 1e-2
    first = changed.argmax(axis=0)[cells_of(cleared, LOST)]
    assert len(np.unique(first)) > 1


def test_water_darkens_the_radar_on_the_last_dates_alone(
    flooded: Scene, quiet_river: Scene
) -> None:
    new = cells_of(flooded, 1) & ~(quiet_river.truth == 3)[5::10, 5::10]
    change = (flooded.s1 - quiet_river.s1)[..., new].mean(axis=2)
    assert new.sum() > 50
    assert (change[-3:] < -3).all(), "wind roughens water"
    assert change[-3:].mean() < -6
    start = int(np.flatnonzero(np.abs(change).max(axis=1) > 1e-2)[0])
    assert 2 < len(change) - start < 20
    np.testing.assert_allclose(flooded.s1[:start], quiet_river.s1[:start], atol=1e-4)
    before = ~late(flooded.s2_dates, str(flooded.s1_dates[start] - 12))
    np.testing.assert_array_equal(flooded.scl[before], quiet_river.scl[before])
    assert np.abs(flooded.s2[before].astype(int) - quiet_river.s2[before]).max() <= 1


def test_water_stands_on_low_ground_and_rivers_are_water(
    flooded: Scene, quiet_river: Scene
) -> None:
    height = height_above_river(FLOOD.seed, Pixels(FLOOD.frame, 1.0))
    assert height[flooded.truth == 1].max() < height.max()
    dry = (flooded.truth == 0) & ~np.isin(quiet_river.truth, (0, 4, 5, 14))  # what stands out
    assert height[dry].min() > height[(flooded.truth == 1) & (quiet_river.truth == 6)].max() - 1e-3
    known = flooded.truth != 255
    assert (flooded.truth[known & (quiet_river.truth == 3)] == 1).all()


def test_flood_water_is_bright_red_and_black_in_the_short_waves(flooded: Scene) -> None:
    water = cells_of(flooded, 1)
    clear = np.isin(flooded.scl[-3:], (4, 5, 6))[:, water]
    assert (flooded.scl[-3:, water][clear] == 6).mean() > 0.9
    red, swir = (flooded.s2[-3:, band][:, water][clear].mean() for band in (2, 8))
    assert red > 3 * swir


def test_ground_under_cloud_on_every_date_of_the_flood_is_not_labelled() -> None:
    assert set(np.unique(truth_under_cloud(FLOOD.frame)[10:])) == {0, 1}


def test_the_labels_of_dry_ground_do_not_depend_on_the_water_beside_it() -> None:
    far = FLOOD.frame
    while height_above_river(FLOOD.seed, Pixels(far, 1.0)).min() < 2:
        far = replace(far, left=far.left + SIDE_M)
    truth_under_cloud(far)


def truth_under_cloud(frame: Frame) -> NDArray[np.uint8]:
    """Return the truth of a flood whose uppermost 10 m no image shows, and the next 10 m one."""
    seed = FLOOD.seed
    optical, radar = optical_year(seed, 2023), radar_year(seed, 2023)
    pixels, land = Pixels(frame, 1.0), landscape(seed, frame, frame)
    event = Flood.strike(Ground(seed, land, land.painted(pixels), pixels), optical, radar)
    scl = np.full((len(optical.days), SIDE_M // 10, SIDE_M // 10), 4, np.uint8)
    scl[:, 0], scl[:-1, 1] = 9, 8
    truth = event.truth(scl, optical.days)
    assert (truth[:10] == 255).all()
    assert (truth[10:] != 255).all()
    return truth


@pytest.mark.parametrize("event", EVENT_NAMES)
def test_pieces_of_an_event_agree_with_the_whole(
    event: str, request: pytest.FixtureRequest
) -> None:
    whole: Scene = request.getfixturevalue("cleared" if event == "clearing" else "flooded")
    piece = next(simulate_tiles(replace(whole.spec, width_m=SIDE_M), 200))
    np.testing.assert_array_equal(piece.truth, whole.truth[:200, :200])
    np.testing.assert_allclose(piece.s1, whole.s1[..., :20, :20], atol=1e-3)


def test_every_event_has_a_legend_of_its_own() -> None:
    assert set(EVENTS) == {None, *EVENT_NAMES}
    assert len({kind.legend().id for kind in EVENTS.values()}) == len(EVENTS)


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(JobError, match="no event 'fire'; there are flood, clearing"):
        SceneSpec(0, event="fire")


def test_the_scenes_of_an_event_are_read_with_its_classes(
    flooded: Scene, cleared: Scene, tmp_path: Path
) -> None:
    write_scene(flooded, tmp_path / "all" / "1")
    examples = open_dataset("scenes", tmp_path / "all", options=Options(side=16))
    assert [entry.name_en for entry in examples.legend.classes] == ["no water", "water"]
    assert [channel.name for channel in examples.channels] == ["s2", "s1"]
    np.testing.assert_array_equal(examples.example(0).classes, flooded.truth[:160, :160])
    write_scene(cleared, tmp_path / "all" / "2")
    with pytest.raises(SourceError, match=r"omnisat-clearing@1, .* omnisat-flood@1"):
        open_dataset("scenes", tmp_path / "all", options=Options(side=16))


def test_an_event_has_no_aerial_image_to_cut(flooded: Scene, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="has no aerial image"):
        write_scene(flooded, tmp_path / "made", Layout(Gap("east", 0.25)))
    assert not (tmp_path / "made").exists()


def test_the_command_writes_an_event_and_refuses_to_replace_it(tmp_path: Path) -> None:
    import typer

    from omnisat_cli.cli.simulate import simulate as command

    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "made"
    words = [str(out), "--event", "flood", "--seed", "3", "--size-km", "0.08"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    names = ["aoi.geojson", "labels.qml", "labels.tif", "labels.tif.aux.xml", "legend.json"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "s1.nc", "s2.nc"]
    assert json.loads((out / "legend.json").read_text())["id"] == "omnisat-flood"
    assert isinstance(CliRunner().invoke(app, words).exception, OutputExistsError)
