"""`omnisat train`: labels become a model pack."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from omnisat_cli.cli.console import set_up_logging
from omnisat_cli.cli.flags import Given, flag, with_flags
from omnisat_cli.cli.guard import stoppable
from omnisat_cli.cli.imagery import Imagery, with_imagery
from omnisat_cli.cli.learning_options import BUDGET, DRAWS, LABELLED
from omnisat_cli.cli.options import AsJson, Quiet, Verbose


@with_imagery
@with_flags("dataset", LABELLED)
@with_flags("draws", DRAWS)
@with_flags("budget", BUDGET)
def train(
    *,
    out: Annotated[Path, flag("Folder of the new pack.", "-o", "--out", metavar="DIR")],
    imagery: Imagery,
    labels: Annotated[
        str | None, flag("Polygons or points with a class, or a raster of codes.", metavar="FILE")
    ] = None,
    field: Annotated[
        str | None, flag("Column with the class, or band of a raster.", metavar="NAME")
    ] = None,
    classes: Annotated[
        str | None, flag("CSV that merges or names codes: code,class.", metavar="FILE")
    ] = None,
    labels_crs: Annotated[
        str | None, flag("CRS of labels that state none.", metavar="EPSG:N")
    ] = None,
    point_radius: Annotated[
        float, flag("Metres around a point that are of its class.", metavar="METRES")
    ] = 0.0,
    borders: Annotated[bool, flag("Outlines of --labels are borders of parcels.")] = True,
    dates: Annotated[str | None, flag("First and last day of series.", metavar="A/B")] = None,
    crs: Annotated[
        str | None,
        flag("CRS of the windows; default: that of the finest input.", metavar="EPSG:N"),
    ] = None,
    dataset: Given,
    val_split: Annotated[str | None, flag("Official part to validate on.", metavar="NAME")] = None,
    val_folds: Annotated[
        str | None, flag("Official folds to validate on.", metavar="F,F,...")
    ] = None,
    val_share: Annotated[
        float, flag("Share kept apart in space to validate on, else.", metavar="SHARE")
    ] = 0.2,
    val_places: Annotated[
        int, flag("Most places to validate on, evenly spread; 0 = all.", metavar="N")
    ] = 100,
    label_share: Annotated[
        float, flag("Share of the labelled places that is used.", metavar="SHARE")
    ] = 1.0,
    start: Annotated[
        str | None, flag("Pack to start from: name or folder.", "--from", metavar="PACK")
    ] = None,
    freeze: Annotated[
        Literal["encoder"] | None, flag("Part of that pack that does not learn.")
    ] = None,
    probe: Annotated[
        bool, flag("Only fit a linear head on --embeddings: seconds, few labels.", "--probe")
    ] = False,
    embeddings: Annotated[
        Path | None, flag("File of `omnisat embed`, for --probe.", metavar="FILE")
    ] = None,
    network: Annotated[
        Literal["omnisat", "anysat", "utae", "dual-stream", "unet"], flag("Network, from scratch.")
    ] = "omnisat",
    size: Annotated[
        Literal["tiny", "small", "medium", "official"], flag("How large it is, from scratch.")
    ] = "small",
    draws: Given,
    class_weights: Annotated[
        Literal["none", "inverse-sqrt", "inverse"], flag("How much more rare classes count.")
    ] = "inverse-sqrt",
    boundary_weight: Annotated[
        float, flag("Weight of parcel boundaries in the loss.", metavar="WEIGHT")
    ] = 1.0,
    budget: Given,
    schedule: Annotated[
        Literal["cosine", "plateau"], flag("How the learning rate falls.")
    ] = "cosine",
    validate_every: Annotated[
        int | None, flag("Steps between validations; default: ten of them.", metavar="N")
    ] = None,
    patience: Annotated[
        int | None, flag("Validations without gain after which to end.", metavar="N")
    ] = None,
    licence: Annotated[str, flag("Licence of the pack.", metavar="TEXT")] = "not stated",
    limits: Annotated[str, flag("What its users should know.", metavar="TEXT")] = "",
    resume: Annotated[bool, flag("Go on with a training that was stopped.")] = True,
    overwrite: Annotated[bool, flag("Replace an existing pack.", "--overwrite")] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Learn from labels and write a model pack that `predict` takes.

    Give imagery as to `predict`, with --labels; or --dataset with --root. The network learns from
    scratch, or goes on from another pack with --from; or --probe fits a head on what `embed` wrote.
    Validation is on ground of its own. Ends
    with 0 when the pack is written, 130 when it was stopped: the same command then goes on.
    """
    set_up_logging(verbose, quiet)
    if probe or embeddings is not None:
        from omnisat_cli.cli import probing

        labelled = probing.Labelled(labels, field, classes, labels_crs, point_radius)
        inputs = probing.Inputs(probe, embeddings, imagery, dataset)
        kept = probing.Kept(out, start, licence, limits, overwrite)
        raise typer.Exit(probing.run(inputs, labelled, kept, as_json=as_json))
    from omnisat_cli.cli import teaching

    ground = teaching.Ground(
        imagery, labels, field, classes, labels_crs, point_radius, borders, dates, crs
    )
    wish = teaching.Wish(
        ground=ground,
        dataset=dataset,
        val=teaching.Validation(val_split, val_folds, val_share, val_places),
        draws=draws,
        budget=budget,
    )
    examples, validation = teaching.open_examples(wish, start, network)
    job = teaching.make_job(
        wish,
        examples,
        out=out,
        start=start,
        freeze=freeze is not None,
        kind=network,
        size=size,
        weighting=class_weights,
        boundary_weight=boundary_weight,
        label_share=label_share,
        fit={"schedule": schedule, "validate_every": validate_every, "patience": patience},
        licence=licence,
        limits=limits,
        resume=resume,
        overwrite=overwrite,
    )
    with stoppable("the step in work") as stop:
        report = teaching.run(job, examples, validation, stop, quiet=quiet)
    raise typer.Exit(teaching.show(report, job, as_json=as_json))
