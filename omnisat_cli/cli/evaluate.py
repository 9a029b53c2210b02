"""`omnisat evaluate`: how well a map, or a model, agrees with labels."""

from pathlib import Path
from typing import Annotated

import typer

from omnisat_cli.cli.console import set_up_logging
from omnisat_cli.cli.flags import AREA, Given, area_of, flag, with_flags
from omnisat_cli.cli.imagery import Imagery, with_imagery
from omnisat_cli.cli.options import AsJson, Quiet, Verbose, date_range, patch_sizes
from omnisat_cli.cli.request import inputs_from
from omnisat_cli.errors import JobError
from omnisat_cli.job import Execution


@with_flags("area", AREA)
@with_imagery
def evaluate(
    path: Annotated[
        Path | None, typer.Argument(metavar="[MAP]", help="Class map (GeoTIFF), or see --model.")
    ] = None,
    *,
    imagery: Imagery,
    labels: Annotated[
        Path | None, flag("Label raster, or polygons or points with --field.", metavar="FILE")
    ] = None,
    field: Annotated[
        str | None, flag("Column of --labels with the class, or band of a raster.", metavar="NAME")
    ] = None,
    crosswalk: Annotated[
        str | None,
        flag(
            "How classes of the map meet those of the labels: pastis-20:rpg-28, or a CSV file "
            "with the columns map,label.",
            metavar="A:B|FILE",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        flag("Class table of the labels, as `train` takes it: CSV code,class.", metavar="FILE"),
    ] = None,
    ignore: Annotated[
        str | None, flag("Values of the labels that are no labels.", metavar="V,V,...")
    ] = None,
    legend: Annotated[
        str | None, flag("Names of the map's classes, if not its own.", metavar="ID|FILE")
    ] = None,
    model: Annotated[
        str | None, flag("Model to evaluate instead of a map.", "-m", "--model", metavar="MODEL")
    ] = None,
    dataset: Annotated[
        str | None, flag("Dataset to evaluate the model on.", metavar="NAME")
    ] = None,
    root: Annotated[Path | None, flag("Folder of the dataset.", metavar="DIR")] = None,
    split: Annotated[str | None, flag("Part of the dataset.", metavar="NAME")] = None,
    folds: Annotated[str | None, flag("Folds of the dataset.", metavar="F,F,...")] = None,
    side: Annotated[
        int | None, flag("Patches along a place of the dataset; default: its own.", metavar="N")
    ] = None,
    modalities: Annotated[
        str | None,
        flag("What is read of the dataset; default: what its networks read.", metavar="M,M,..."),
    ] = None,
    subsets: Annotated[
        str | None,
        flag("Also with fewer modalities: all, each, or aerial+s2,s2.", metavar="LIST"),
    ] = None,
    update_card: Annotated[
        str | None, flag("Write the figures into the model's card.", metavar="TESTSET")
    ] = None,
    parcels: Annotated[
        Path | None, flag("Predicted parcels to compare with --reference.", metavar="FILE")
    ] = None,
    reference: Annotated[
        Path | None,
        flag("Reference parcels; --field names their class column.", metavar="FILE"),
    ] = None,
    void: Annotated[
        str | None, flag("Classes of --reference that are unknown ground.", metavar="V,V,...")
    ] = None,
    elsewhere_void: Annotated[
        bool,
        flag("Ground without reference parcels is unknown, not wrong.", "--elsewhere-void"),
    ] = False,
    tolerance: Annotated[
        float, flag("Distance within which outlines of parcels agree.", metavar="METRES")
    ] = 3.0,
    dates: Annotated[
        str | None, flag("First and last day of --s2, --s1 …", metavar="A/B|FILE")
    ] = None,
    area: Given,
    patch_size: Annotated[
        str | None,
        flag("Patch of --model on imagery, as `predict` takes it; M,M averages.", metavar="METRES"),
    ] = None,
    out: Annotated[
        list[Path] | None, flag("Report: .json, .csv or .html; repeatable.", "-o", "--out")
    ] = None,
    overwrite: Annotated[bool, flag("Replace existing reports.", "--overwrite")] = False,
    device: Annotated[str, flag("auto, cpu, cuda or cuda:N.", metavar="DEVICE")] = "auto",
    threads: Annotated[int | None, flag("CPU threads; default: all cores.", metavar="N")] = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Compare a map, or what a model makes of imagery, with labels.

    Give a MAP and --labels; a --model with --dataset and --root; a --model with imagery
    (--aerial, --s2 …) and --labels; or --parcels and --reference.
    """
    set_up_logging(verbose, quiet)
    if parcels is not None:
        from omnisat_cli.cli.parcel_scoring import ParcelJob, score_files

        _refuse_other_routes(path=path, labels=labels, model=model, dataset=dataset, out=out)
        job = ParcelJob(parcels, reference, field, void, elsewhere_void, tolerance)
        score_files(job, as_json=as_json)
        return
    if reference or void or elsewhere_void:
        raise JobError("--reference, --void and --elsewhere-void are about --parcels: missing")
    from omnisat_cli.cli import scoring
    from omnisat_cli.learning.scoring.evaluate import TruthRequest

    inputs = inputs_from(imagery, dates)
    truth = TruthRequest(
        labels or Path(), field, crosswalk, classes, tuple(ignore.split(",")) if ignore else ()
    )
    kind = scoring.choose_route(
        path=path, model=model, dataset=dataset, inputs=inputs, labels=labels
    )
    if kind != "dataset" and (root or split or folds or side or modalities):
        named = "--root, --split, --folds, --side and --modalities"
        raise JobError(f"{named} are about --dataset, which is missing")
    wanted, crs = area_of(area)
    scoring.refuse_area(kind, {**area, "patch_size": patch_size})
    saving = scoring.Saving(tuple(out or ()), overwrite, update_card, as_json)
    saving.check(model)
    execution = Execution(device=device, threads=threads)
    if kind == "map":
        report = scoring.of_map(path, truth, legend, subsets)
    elif kind == "dataset":
        from omnisat_cli.cli.scoring_dataset import Part, of_dataset

        part = Part(str(dataset), root, split, folds, side, modalities)
        report = of_dataset(str(model), part, (subsets, truth), execution, quiet=quiet)
    else:
        ground = scoring.AreaJob(
            str(model), inputs, wanted, crs, date_range(dates), patch_sizes(patch_size)
        )
        report = scoring.of_area(ground, truth, subsets, execution)
    saving.finish(report, model)


def _refuse_other_routes(**given: object) -> None:
    """Refuse what `--parcels` makes no use of."""
    other = [name for name, value in given.items() if value]
    if other:
        named = ", ".join("MAP" if name == "path" else f"--{name}" for name in other)
        raise JobError(f"--parcels is compared with --reference alone; leave out {named}")
