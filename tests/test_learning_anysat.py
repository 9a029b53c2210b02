"""AnySat and labels: heads laid out for them, pretrained packs fine-tuned at other patch sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from anysat_packs import norms
from cli_runs import LEFT, TOP, omnisat, write_tiny_scene
from shapely import box

from omnisat_cli.errors import JobError
from omnisat_cli.learning.training.design_anysat import design_anysat, design_maps, design_sensor
from omnisat_cli.learning.training.design_learner import starting_rate
from omnisat_cli.networks.anysat_config import SENSORS, AnySatConfig
from omnisat_cli.packs.card import ModalityCard
from omnisat_cli.packs.published import Origin
from omnisat_cli.packs.published_anysat import fresh_anysat
from omnisat_cli.packs.registry import load_weights, read_pack
from omnisat_cli.packs.writer import write_pack

if TYPE_CHECKING:
    from pathlib import Path

    from cli_runs import Scene


def encoder(*names: str) -> AnySatConfig:
    return AnySatConfig(64, 1, 2, sensors=tuple(SENSORS[name] for name in names))


def image(gsd: float) -> ModalityCard:
    return ModalityCard(name="aerial", bands=("R",), gsd=gsd, units="dn8", mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize(
    ("names", "patch_m", "label_side", "sensor", "coarse", "fine"),
    [
        (("s2", "s1"), 40, 4, "s2", 4, 4),  # as published for PASTIS
        (("aerial-flair", "s2"), 10, 50, "aerial-flair", 1, 50),  # as published for FLAIR
        (("aerial", "s2"), 10, 10, "aerial", 1, 10),  # labels of 1 m
        (("aerial", "s2"), 10, 1, "aerial", 1, 5),  # sub-patches of 2 m
        (("s2", "spot"), 20, 20, "spot", 2, 20),
        (("s2", "s1"), 10, 10, "s2", 1, 1),  # one sub-patch: what the sensor saw at that pixel
        (("alos",), 60, 6, None, 6, 6),  # coarser than the naive head
    ],
)
def test_the_finest_sensor_draws_the_map_in_pixels_of_the_labels(
    names: tuple[str, ...],
    patch_m: int,
    label_side: int,
    sensor: str | None,
    coarse: int,
    fine: int,
) -> None:
    made = design_maps(encoder(*names), patch_m, 4, 3, label_side)
    assert (made.fine_sensor, made.coarse_side, made.fine_side) == (sensor, coarse, fine)


@pytest.mark.parametrize(("gsd", "pixels"), [(0.5, 10), (1.25, 8), (2.5, 4), (0.2, 10)])
def test_sub_patches_of_any_image_have_about_ten_pixels(gsd: float, pixels: int) -> None:
    assert design_sensor(image(gsd)).subpatch_px == pixels


def test_pixels_and_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(JobError, match="do not divide the 10 m cells"):
        design_sensor(image(3.0))
    with pytest.raises(JobError, match="a patch is a multiple of 10 m, found 25"):
        design_maps(encoder("s2"), 25, 4, 3, 4)
    with pytest.raises(JobError, match="--size huge"):
        design_anysat((image(0.5),), "huge")


def test_wide_networks_learn_more_carefully(scene: Scene) -> None:
    assert starting_rate(None, "omnisat", "official") == 2e-3
    assert starting_rate(None, "anysat", "tiny") == 2e-3
    assert starting_rate(None, "anysat", "official") == pytest.approx(2e-3 / 12)
    assert starting_rate(str(scene.folder / "fresh"), "omnisat", "small") == 1e-3


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Imagery with sparse polygons of two crops."""
    made = write_tiny_scene(tmp_path_factory.mktemp("scene"))
    places = [(row, col) for row in range(6) for col in range(6) if (row + col) % 3]
    table = gpd.GeoDataFrame(
        {"crop": [("maize", "wheat")[(row // 2 + col // 2) % 2] for row, col in places]},
        geometry=[
            box(LEFT + 40 * col + 4, TOP - 40 * row - 36, LEFT + 40 * col + 36, TOP - 40 * row - 4)
            for row, col in places
        ],
        crs="EPSG:2154",
    )
    table.to_file(made.folder / "fields.gpkg")
    parcel = fresh_anysat(encoder("s2"), Origin("fresh", "random weights", norms("s2")))
    write_pack(made.folder / "fresh", parcel.card, parcel.legend.to_json(), parcel.weights)
    return made


def test_a_pretrained_pack_becomes_a_map_at_a_patch_size_of_its_own(
    scene: Scene, tmp_path: Path
) -> None:
    labels = ("--labels", scene.folder / "fields.gpkg", "--field", "crop")
    cpu = ("--threads", 1, "--device", "cpu")
    words = ("train", "--s2", scene.s2, *labels, "--from", scene.folder / "fresh", *cpu)
    small = ("--patch-size", 40, "--side", 2, "--batch", 2, "--steps", 2)
    done = omnisat(*words, *small, "--freeze", "encoder", "--out", tmp_path / "crops")
    assert done.code == 0, done.err
    pack = read_pack(tmp_path / "crops")
    card = pack.card
    assert (card.patch_m, card.coarse_m, card.fine_m) == (40, 10, 10)
    assert card.network.config["fine_sensor"] == "s2"
    before, after = load_weights(read_pack(scene.folder / "fresh")), load_weights(pack)
    assert all((before[key] == after[key]).all() for key in before if key.startswith("encoder."))
    mapped = omnisat("predict", "-m", pack.folder, "--s2", scene.s2, *cpu, "-o", tmp_path / "m.tif")
    assert mapped.code == 0, mapped.err
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.res == (10, 10)
        assert set(np.unique(file.read(1)).tolist()) <= {0, 1, 255}
    assert {entry.name_en for entry in pack.legend.classes} == {"maize", "wheat"}
    truth = ("--labels", scene.folder / "fields.gpkg", "--field", "crop")
    scored = omnisat("evaluate", tmp_path / "m.tif", *truth)
    assert scored.code == 0, scored.err
    sizes = ("--patch-size", "20,40", "--subsets", "all")
    scored = omnisat("evaluate", "-m", pack.folder, "--s2", scene.s2, *cpu, *truth, *sizes)
    assert scored.code == 0, scored.err
    assert "subsets without s2 are not measured" in scored.err
    refused = omnisat(*words, "--patch-size", 25, "--steps", 1, "--out", tmp_path / "no")
    assert refused.code == 2
    assert "takes patches of 10, 20" in refused.err
