"""`omnisat pretrain`: an encoder learned from imagery alone."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from omnisat_cli.cli.console import say, set_up_logging
from omnisat_cli.cli.flags import Flag, Given, flag, with_flags
from omnisat_cli.cli.imagery import Imagery, with_imagery
from omnisat_cli.cli.learning_options import BUDGET, DATASET, DRAWS
from omnisat_cli.cli.options import AsJson, Quiet, Verbose

_LABELLED = ("--balanced", "--drop-region")
_DRAWS = tuple(flag for flag in DRAWS if flag.name not in _LABELLED)
_OWN = {
    "--rate": Flag(
        "--rate", float | None, "Highest learning rate; default 0.002, anysat 0.0005.", "RATE"
    ),
    "--weight-decay": Flag(
        "--weight-decay", float | None, "Of AdamW; default 0, anysat 0.05.", "RATE"
    ),
}
_BUDGET = tuple(_OWN.get(flag.name, flag) for flag in BUDGET)
_RATES = {"omnisat": (2e-3, 0.0), "anysat": (5e-4, 0.05)}
"""Network to the learning rate and weight decay where nothing is said."""


class Network(StrEnum):
    """What is pretrained."""

    OMNISAT = "omnisat"
    ANYSAT = "anysat"


class Keep(StrEnum):
    """Which of the two networks of joint-embedding prediction is kept."""

    TEACHER = "teacher"
    STUDENT = "student"


class Recipe(StrEnum):
    """Whether the slips of the published step are reproduced."""

    CORRECTED = "corrected"
    OFFICIAL = "official"


class Contrast(StrEnum):
    """How modalities are contrasted."""

    MIL_NCE = "mil-nce"
    CLIP = "clip"
    NONE = "none"


TERMS = (
    Flag(
        "--contrast", Contrast, "How modalities are contrasted; none leaves it out.",
        default=Contrast.MIL_NCE,
    ),
    Flag("--reconstruct/--no-reconstruct", bool, "Reconstruct hidden pixels.", default=True),
    Flag("--mask-ratio", float, "Share of the tokens hidden from the network.", "RATE", 0.75),
    Flag(
        "--date-filter/--no-date-filter", bool,
        "Reconstruct only the dates the encoder attends to most.", default=True,
    ),
    Flag(
        "--index-bypass/--no-index-bypass", bool,
        "Tell the image decoder where the encoder found its maxima.", default=True,
    ),
    Flag("--image-share", float, "Share of the image patches reconstructed.", "RATE", 0.25),
)  # fmt: skip
"""What a pretraining step of OmniSat computes."""


JOINT = (
    Flag("--mix", Path | None, "TOML file that describes several datasets.", "FILE"),
    Flag(
        "--scales", str | None,
        "Sides of a patch in steps of 10 m, one drawn a step; default 1.", "N,N,...",
    ),
    Flag("--predictor-depth", int | None, "Blocks of the predictor; default 4.", "N"),
    Flag(
        "--momentum", float | None,
        "Share of the old teacher at the first step; default 0.996, at the last 1.", "RATE",
    ),
    Flag("--keep", Keep | None, "Network that the pack holds; default teacher."),
    Flag("--recipe", Recipe | None, "official repeats the slips of the published step."),
)  # fmt: skip
"""What `--network anysat` is asked beside."""


def _print_mixture(wanted: bool) -> None:
    if wanted:
        from omnisat_cli.learning.training.mixing import EXAMPLE

        say(EXAMPLE.read_text(encoding="utf-8").rstrip())
        raise typer.Exit


@with_flags("dataset", DATASET)
@with_flags("terms", TERMS)
@with_flags("joint", JOINT)
@with_flags("draws", _DRAWS)
@with_flags("budget", _BUDGET)
@with_imagery
def pretrain(
    *,
    out: Annotated[Path, flag("Folder of the model pack.", "-o", "--out", metavar="FOLDER")],
    network: Annotated[Network, flag("Network.")] = Network.OMNISAT,
    dataset: Given,
    imagery: Imagery,
    dates: Annotated[
        str | None, flag("First and last day of the series.", metavar="A/B|FILE")
    ] = None,
    crs: Annotated[
        str | None, flag("CRS of the windows; default: that of the imagery.", metavar="EPSG:N")
    ] = None,
    start: Annotated[
        str | None, flag("Pack whose encoder is trained on.", "--from", metavar="MODEL")
    ] = None,
    size: Annotated[
        str, flag("Size from scratch: tiny, small, medium, official.", metavar="NAME")
    ] = "small",
    terms: Given,
    joint: Given,
    _mixture_wanted: Annotated[
        bool,
        typer.Option(
            "--mix-example",
            callback=_print_mixture,
            is_eager=True,
            help="Show the mixture AnySat was pretrained on, to be changed for --mix.",
        ),
    ] = False,
    draws: Given,
    budget: Given,
    licence: Annotated[str, flag("Licence of the pack.", metavar="TEXT")] = "not stated",
    resume: Annotated[bool, flag("Go on with a pretraining that was stopped.")] = True,
    overwrite: Annotated[bool, flag("Replace an existing pack.", "--overwrite")] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    as_json: AsJson = False,
) -> None:
    """Pretrain an encoder on imagery alone: no labels are needed, none are looked at.

    Give a --dataset with its --root, imagery of an area (--aerial, --s2 …), or for anysat several
    datasets with --mix. The pack makes no map: `omnisat train --from` fine-tunes it. Ends with 130
    when it was stopped: the same command then goes on.
    """
    set_up_logging(verbose, quiet)
    from omnisat_cli.cli import pretraining

    wish = pretraining.Wish(
        dataset, pretraining.Ground(imagery, dates, crs), terms, joint, draws, budget
    )
    said = pretraining.Said(
        out, start, size, licence, ("omnisat", *sys.argv[1:]), resume, overwrite
    )
    rates = _RATES[network.value]
    if network is Network.ANYSAT:
        report = pretraining.anysat(wish, said, rates, quiet=quiet)
    else:
        report = pretraining.omnisat(wish, said, rates, quiet=quiet)
    raise typer.Exit(pretraining.show(report, out, as_json=as_json))
