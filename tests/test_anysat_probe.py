"""From a pack of random AnySat weights to a map of real fields: embed, fit a probe, predict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import rasterio
import xarray as xr
from anysat_packs import anysat_config, norms
from cli_runs import omnisat

from omnisat_cli.packs.published import Origin
from omnisat_cli.packs.published_anysat import fresh_anysat
from omnisat_cli.packs.writer import write_pack

if TYPE_CHECKING:
    from pathlib import Path

BOX = (664000, 5611820, 664300, 5612120)


def write_labels(folder: Path, real: Path) -> None:
    """Write cropland and the rest as codes, where the land is, and what the codes mean."""
    found = xr.open_dataset(real / "worldcereal_cropland_classification.nc")
    crop = found["__xarray_dataarray_variable__"].values[0]
    profile = {
        "driver": "GTiff", "width": 100, "height": 100, "count": 1, "dtype": "uint8",
        "crs": "EPSG:32631", "nodata": 255,
        "transform": rasterio.Affine(10, 0, 664000, 0, -10, 5612120),
    }  # fmt: skip
    with rasterio.open(folder / "labels.tif", "w", **profile) as out:
        out.write(crop.astype("uint8"), 1)
    (folder / "classes.csv").write_text("code,class\n0,other land\n1,cropland\n")


def test_a_probe_on_random_anysat_features_maps_cropland(shared: Path, tmp_path: Path) -> None:
    real = shared / "real_data" / "worldcereal_belgium_s1s2_12m"
    cube = real / "worldcereal_preprocessed_inputs.nc"
    parcel = fresh_anysat(
        anysat_config("s2", "s1"), Origin("random-anysat", "none", norms("s2", "s1"))
    )
    write_pack(tmp_path / "pack", parcel.card, parcel.legend.to_json(), parcel.weights)
    write_labels(tmp_path, real)
    imagery = ("--s2", cube, "--s1", cube, "--s2-substitute", "B8A=B08", "--bbox", *BOX)
    run = ("--threads", 1, "-q")
    done = omnisat("embed", "-m", tmp_path / "pack", "-o", tmp_path / "e.tif", *imagery, *run)
    assert done.code == 0, done.err
    done = omnisat(
        *("train", "--probe", "--embeddings", tmp_path / "e.tif", "--from", tmp_path / "pack"),
        *("--out", tmp_path / "probe"),
        *("--labels", tmp_path / "labels.tif", "--classes", tmp_path / "classes.csv", *run),
    )
    assert done.code == 0, done.err
    card = json.loads((tmp_path / "probe" / "card.json").read_text())
    (scores,) = card["scores"].values()
    (figures,) = scores.values()
    assert figures["accuracy"] > 70
    done = omnisat("predict", "-m", tmp_path / "probe", "-o", tmp_path / "map.tif", *imagery, *run)
    assert done.code == 0, done.err
    with (
        rasterio.open(tmp_path / "map.tif") as found,
        rasterio.open(tmp_path / "labels.tif") as told,
    ):
        truth = told.read(1)[: found.height, : found.width]
        assert (found.read(1) == truth).mean() > 0.7
