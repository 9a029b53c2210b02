"""The work of the demo: maps of one scene from several subsets of its imagery, and their scores."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omnisat_cli.cli.progress import choose_progress
from omnisat_cli.errors import AlignmentError, JobError, OutputExistsError, SourceError
from omnisat_cli.job import Execution, Input, Job
from omnisat_cli.learning.scoring.metrics import Scores, confusion
from omnisat_cli.learning.simulate.legend import sim_legend
from omnisat_cli.outputs.products import existing_outputs
from omnisat_cli.outputs.run import has_run, staging_folder
from omnisat_cli.runners.predict import Delivery, Report, predict
from omnisat_cli.sources.safe import open_raster

if TYPE_CHECKING:
    import threading

    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from omnisat_cli.outputs.legend import Legend

IMAGERY = {"aerial": "aerial.tif", "s2": "s2.nc", "s1": "s1.nc"}
LABELS = "labels.tif"
NODATA = 255
_STRIPE = 512


@dataclass(frozen=True, slots=True)
class How:
    """How the maps are made.

    Attributes:
        model: Name or folder of the pack.
        threads: CPU threads, None for all cores.
        overwrite: Whether to replace maps of an earlier demo.
        quiet: Whether to hide progress.
    """

    model: str
    threads: int | None = None
    overwrite: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One map of the demo.

    Attributes:
        label: Modalities, "aerial+s2+s1".
        out: The map.
        report: What `predict` said.
    """

    label: str
    out: Path
    report: Report


def find_scene(folder: Path | None) -> Path:
    """Return the folder of the scene: as given, in the working directory, or in the checkout.

    Raises:
        SourceError: If it is not there, or holds no imagery or no truth.
    """
    checkout = Path(__file__).resolve().parents[2] / "sample_aoi"
    places = [folder] if folder is not None else [Path("sample_aoi"), checkout]
    found = next((place for place in places if place.is_dir()), None)
    advice = "make a scene first: omnisat simulate sample_aoi, then omnisat demo sample_aoi"
    if found is None:
        raise SourceError(f"no sample area at {' or '.join(map(str, places))}; {advice}")
    if not imagery(found):
        raise SourceError(f"{found} holds none of {', '.join(IMAGERY.values())}; {advice}")
    if not (found / LABELS).is_file():
        raise SourceError(f"{found} holds no truth ({LABELS}) to compare with; {advice}")
    return found


def imagery(scene: Path) -> dict[str, Path]:
    """Return the imagery of a scene by modality."""
    return {name: scene / file for name, file in IMAGERY.items() if (scene / file).is_file()}


def map_scene(scene: Path, out: Path, how: How, stop: threading.Event) -> list[Run]:
    """Map a scene with everything it has, then with each modality alone.

    Args:
        scene: Folder of the scene.
        out: Path of the map made with everything; the others lie beside it.
        how: Model, threads, what to replace.
        stop: When set, mapping ends after the block in work.

    Raises:
        OutputExistsError: If one of the maps is there already.
    """
    there = imagery(scene)
    subsets = [tuple(there), *((name,) for name in there if len(there) > 1)]
    outs = [out] + [out.with_name(f"{out.stem}-{name}{out.suffix}") for (name,) in subsets[1:]]
    if not how.overwrite:
        _refuse_existing(outs)
    runs = []
    for names, target in zip(subsets, outs, strict=True):
        inputs = tuple(Input(name, (str(there[name]),)) for name in names)
        delivery = Delivery(overwrite=how.overwrite, command=("omnisat", *sys.argv[1:]))
        progress = choose_progress(how.quiet)
        try:
            job, execution = Job(inputs, how.model, target), Execution(threads=how.threads)
            report = predict(job, execution, progress, stop, delivery)
        finally:
            progress.close()
        runs.append(Run("+".join(names), target, report))
        if stop.is_set():
            break
    return runs


def _refuse_existing(outs: list[Path]) -> None:
    for out in outs:
        if existing_outputs(out) and not has_run(staging_folder(out)):
            raise OutputExistsError(
                f"{out} exists.\nkeep it:    -o other/map.tif        replace it:  --overwrite"
            )


def compare(scene: Path, runs: list[Run]) -> list[dict[str, object]]:
    """Score every map against the truth, in per cent.

    Raises:
        AlignmentError: If truth and map do not lie on grids that fit.
        JobError: If the model maps other classes.
    """
    rows: list[dict[str, object]] = []
    for run in runs:
        legend = run.report.setup.pack.legend
        if legend.id != sim_legend().id:
            raise JobError(
                f"the truth of {scene} uses the legend {sim_legend().id}, the model "
                f"{run.report.setup.pack.card.name} maps {legend.id}: they cannot be compared"
            )
        counts, mapped = truth_table(scene / LABELS, run.out, legend)
        scores = Scores(counts)
        rows.append(
            {
                "modalities": run.label,
                "mIoU": round(100 * scores.miou, 1),
                "accuracy": round(100 * scores.accuracy, 1),
                "mapped": round(100 * mapped, 1),
            }
        )
    return rows


def truth_table(labels: Path, out: Path, legend: Legend) -> tuple[NDArray[np.int64], float]:
    """Count pixels by true and mapped class on the grid of the truth.

    A coarser map is read by the nearest pixel: each of its pixels stands for all the truth in it.

    Args:
        labels: Truth.
        out: Class map in the same CRS.
        legend: Meaning of the codes in both.

    Returns:
        (K, K) pixels, rows = truth, and the share of the truth that has a class in the map.

    Raises:
        AlignmentError: If the CRS differ or a grid is turned.
    """
    codes = legend.codes
    counts = np.zeros((len(codes), len(codes)), np.int64)
    known = 0
    with open_raster(labels) as truth, open_raster(out) as mapped:
        rows, cols = _nearest(truth, mapped)
        classes = mapped.read(1)
        inside_row = (rows >= 0) & (rows < mapped.height)
        inside_col = (cols >= 0) & (cols < mapped.width)
        safe_cols = np.where(inside_col, cols, 0)
        for start in range(0, truth.height, _STRIPE):
            stop = min(start + _STRIPE, truth.height)
            true = truth.read(1, window=((start, stop), (0, truth.width)))
            safe_rows = np.where(inside_row[start:stop], rows[start:stop], 0)
            found = classes[safe_rows[:, None], safe_cols[None]]
            inside = inside_row[start:stop, None] & inside_col[None]
            counts += confusion(true, np.where(inside, found, NODATA), codes)
            known += int(np.isin(true, codes).sum())
    return counts, float(counts.sum() / max(known, 1))


def _nearest(
    truth: DatasetReader, mapped: DatasetReader
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the column of the map under each row and column of the truth."""
    one, two = truth.transform, mapped.transform
    if truth.crs != mapped.crs or any((one.b, one.d, two.b, two.d)):
        raise AlignmentError(
            f"{truth.name} ({truth.crs}) and {mapped.name} ({mapped.crs}) cannot be compared: "
            "their grids differ in CRS or are turned"
        )
    y = one.f + one.e * (np.arange(truth.height) + 0.5)
    x = one.c + one.a * (np.arange(truth.width) + 0.5)
    rows = np.floor((y - two.f) / two.e).astype(np.int64)
    cols = np.floor((x - two.c) / two.a).astype(np.int64)
    return rows, cols
