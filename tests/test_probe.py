"""A head on cached embeddings: fitting, validation by groups, the pack that comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from cli_runs import LEFT, TOP, Outcome, Scene, omnisat, write_lively_scene, write_tiny_pack
from shapely import box
from sklearn.linear_model import LogisticRegression

from omnisat_cli.errors import CheckpointError
from omnisat_cli.learning.labelling.request import LabelRequest
from omnisat_cli.learning.probing.probe import source_pack
from omnisat_cli.learning.probing.probe_head import (
    LabelledPatches,
    deal_folds,
    fit_head,
    fit_linear,
)
from omnisat_cli.learning.probing.probe_labels import ProbeJob, thin
from omnisat_cli.networks.probe import ProbeConfig
from omnisat_cli.packs.registry import load_weights, read_pack
from omnisat_cli.sources.embeddings import open_embeddings


def patches(classes: int = 3, groups: int = 12, each: int = 20) -> LabelledPatches:
    """Groups of patches around the centre of their class, numbers of very different size."""
    rng = np.random.default_rng(0)
    centre = rng.normal(0, 2, (classes, 5))
    of_group = np.arange(groups) % classes
    group = np.repeat(np.arange(groups), each)
    shift = rng.normal(0, 0.5, (groups, 5))
    values = centre[of_group[group]] + shift[group] + rng.normal(0, 1, (len(group), 5))
    values = values * [1, 100, 0.01, 1, 1] + [0, 3000, 0, -5, 0]
    return LabelledPatches(values.astype(np.float32), of_group[group], group)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_folded_head_says_what_the_regression_says(classes: int) -> None:
    some = patches(classes)
    head = fit_linear(some, 0.3)
    assert head.weight.shape == (classes, 5)
    values = some.values.astype(np.float64)
    scaled = (values - values.mean(0)) / values.std(0)
    model = LogisticRegression(C=0.3, max_iter=500, tol=1e-3).fit(scaled, some.classes)
    logits = head.logits(some.values)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    np.testing.assert_allclose(share, model.predict_proba(scaled), atol=1e-4)


def test_groups_are_held_out_whole_and_classes_evenly() -> None:
    some = patches(groups=15)
    fold = deal_folds(some, seed=3, folds=5)
    for group in range(15):
        assert len(np.unique(fold[some.groups == group])) == 1
    for k in range(3):
        assert len(np.unique(fold[some.classes == k])) == 5
    np.testing.assert_array_equal(fold, deal_folds(some, seed=3, folds=5))


def test_figures_come_from_groups_the_head_has_not_seen() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 30)
    # Values tell the group, nothing of the class: by heart it is easy, for others it is chance.
    values = rng.normal(0, 1, (20, 30))[group] + rng.normal(0, 0.01, (600, 30))
    some = LabelledPatches(values.astype(np.float32), (group % 2).astype(np.int64), group)
    fitted = fit_head(some, seed=0)
    assert (fitted.head.logits(some.values).argmax(1) == some.classes).mean() > 0.8
    assert fitted.scores.accuracy < 0.75
    assert fitted.scores.pixels == 600


def test_a_class_of_one_group_is_named() -> None:
    some = patches(groups=13)
    alone = LabelledPatches(
        some.values, np.where(some.groups == 12, 3, some.classes).astype(np.int64), some.groups
    )
    fitted = fit_head(alone, seed=0)
    assert fitted.unseen == (3,)
    assert fitted.scores.classes.recall[3] == 0


def test_no_polygon_outweighs_the_others() -> None:
    some = patches(groups=4, each=100)
    job = ProbeJob(Path("e.tif"), LabelRequest("l"), Path("o"), each=30, most=80)
    kept = thin(some, job)
    counts = np.bincount(some.groups[kept], minlength=4)
    assert counts.sum() == 80
    assert counts.min() == counts.max() == 20
    np.testing.assert_array_equal(kept, thin(some, job))


def test_a_probe_stands_on_another_network() -> None:
    plain = {"base": "omnisat", "base_config": {}, "classes": 3, "width": 16}
    for change in ({"base": "probe"}, {"classes": 0}, {"width": True}, {"base_config": 3}):
        with pytest.raises(ValueError, match=r"[Pp]robe"):
            ProbeConfig.from_dict(plain | change)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_lively_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def embeddings(scene: Scene) -> Path:
    out = scene.folder / "e.tif"
    run = omnisat(
        "embed", "-m", scene.pack, "--threads", 1, "--s2", scene.s2, "--s1", scene.s1, "-o", out
    )
    assert run.code == 0, run.err
    return out


@pytest.fixture(scope="module")
def fields(scene: Scene) -> Path:
    """Four fields of two crops and one hedge, 50 m each."""
    rows = [(0, 0, "rye"), (60, 0, "oats"), (0, 60, "oats"), (60, 60, "rye"), (120, 120, "hedge")]
    shapes = [box(LEFT + x, TOP - y - 50, LEFT + x + 50, TOP - y) for x, y, _ in rows]
    path = scene.folder / "fields.gpkg"
    geopandas.GeoDataFrame(
        {"crop": [crop for *_, crop in rows]}, geometry=shapes, crs="EPSG:2154"
    ).to_file(path, driver="GPKG")
    return path


def probe(scene: Scene, out: Path, *words: object) -> Outcome:
    return omnisat("train", "--probe", "--from", scene.pack, "--out", out, *words)


def test_a_probe_maps_as_its_head_on_the_embeddings(
    scene: Scene, embeddings: Path, fields: Path, tmp_path: Path
) -> None:
    words = ("--embeddings", embeddings, "--labels", fields, "--field", "crop")
    run = probe(scene, tmp_path / "crops", *words)
    assert run.code == 0, run.err
    assert "fitted on 125 labels of 5 polygons" in run.out
    assert "in one place only, so its figures are 0: hedge" in run.err
    pack = read_pack(tmp_path / "crops")
    assert [entry.name_en for entry in pack.legend.classes] == ["hedge", "oats", "rye"]
    assert pack.card.names == ("s2", "s1")  # what the head has learned from
    assert (pack.card.fine_m, pack.card.boundary) == (10.0, False)
    assert "F1 macro" in pack.card.scores["held-out polygons"]["s2+s1"]
    facts = json.loads((pack.folder / "training.json").read_text())
    assert facts["patches"] == {"hedge": 25, "oats": 50, "rye": 50}
    out = tmp_path / "map.tif"
    mapped = omnisat(
        "predict", "-m", pack.folder, "--threads", 1, "--s2", scene.s2, "--s1", scene.s1, "-o", out,
        "--probabilities",
    )  # fmt: skip
    assert mapped.code == 0, mapped.err
    weights = load_weights(pack)
    found = open_embeddings(embeddings)
    values = found.read(found.window)
    logits = np.einsum("kd,dhw->khw", weights["head.weight"].numpy(), values)
    logits += weights["head.bias"].numpy()[:, None, None]
    with rasterio.open(out) as dataset:
        assert dataset.shape == (24, 24)
        np.testing.assert_array_equal(dataset.read(1), logits.argmax(0))
        assert len(np.unique(logits.argmax(0))) > 1
    with rasterio.open(tmp_path / "map.probabilities.tif") as dataset:
        share = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
        assert np.abs(dataset.read() - 250 * share).max() <= 0.51
    # A probe of a probe stands on the same encoder.
    again = tmp_path / "again.tif"
    embed = ("embed", "-m", pack.folder, "--threads", 1, "--s2", scene.s2, "--s1", scene.s1)
    assert omnisat(*embed, "-o", again).code == 0
    np.testing.assert_allclose(open_embeddings(again).read(found.window), values, atol=1e-6)
    second = omnisat(
        "train", "--probe", "--from", pack.folder, "--out", tmp_path / "second",
        "--embeddings", again, "--labels", fields, "--field", "crop",
    )  # fmt: skip
    assert second.code == 0, second.err
    two = load_weights(read_pack(tmp_path / "second"))
    np.testing.assert_allclose(two["head.weight"], weights["head.weight"], atol=1e-4)


def test_embeddings_of_another_encoder_are_refused(
    scene: Scene, embeddings: Path, tmp_path: Path
) -> None:
    other = write_tiny_pack(tmp_path / "other")
    with pytest.raises(CheckpointError, match="a head for one fits no other"):
        source_pack(str(other), open_embeddings(embeddings))
    assert source_pack(str(scene.pack), open_embeddings(embeddings)).folder == scene.pack
    # A pack that is not bundled is found by its folder alone.
    with pytest.raises(CheckpointError, match="give the pack it was made with as --from PACK"):
        source_pack(None, open_embeddings(embeddings))


def test_what_gives_no_probe_is_refused(
    scene: Scene, embeddings: Path, fields: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / "p", ("--embeddings", embeddings, "--labels", fields, "--field", "crop")
    table = tmp_path / "one.csv"
    table.write_text("code,class\nrye,crop\noats,crop\nhedge,\n", encoding="utf-8")
    cases = (
        (("--labels", fields), 2, "omnisat embed"),
        (("--embeddings", embeddings), 2, "needs labels"),
        ((*words, "--s2", scene.s2), 2, "leave --s2 out"),
        ((*words, "--classes", table), 3, "at least two classes"),
    )
    for given, code, message in cases:
        run = probe(scene, out, *given)
        assert run.code == code, run.err
        assert message in run.err
    assert not out.exists()
    alone = omnisat("train", "--out", out, *words)
    assert alone.code == 2
    assert "is for --probe" in alone.err
