"""Options of the commands that learn, in tables: `train` and `pretrain` take the same ones."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from omnisat_cli.cli.flags import Flag, Given
from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from omnisat_cli.learning.data.batches import BatchSpec
    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.lesson import FitSpec

T = TypeVar("T")
_NEVER = 1_000_000
"""Steps where time alone ends training."""


Text, Texts, Number, Count = str | None, list[str] | None, float | None, int | None

DATASET = (
    Flag("--dataset", Text, "Dataset: scenes, pastis-hd, flair, treesatai-ts …", "NAME"),
    Flag("--root", Path | None, "Folder the dataset lies in.", "DIR"),
    Flag("--split", Text, "Official part to learn from, e.g. train.", "NAME"),
    Flag("--folds", Text, "Official folds to learn from.", "F,F,..."),
    Flag("--place", Count, "Patches along a place cut from a dataset of large scenes.", "N"),
    Flag(
        "--patch", Number, "Side of a patch in metres; default: that of the dataset.", "METRES",
        spelling="--patch-size",
    ),
    Flag("--modalities", Text, "What the network reads; default: all there is.", "M,M,..."),
)  # fmt: skip
"""Where examples come from, beside imagery of one's own."""

LABELLED = (
    *DATASET,
    Flag(
        "--whole-places", bool,
        "Learn which classes a place of a dataset holds, any number of them (multi-label).",
        default=False,
    ),
)  # fmt: skip
"""The same where labels are learned from."""

_PLACE = 6
"""Patches along a place that is labelled as one, where places are cut out: 60 m, as TreeSatAI."""

DRAWS = (
    Flag("--side", Count, "Patches along a training window.", "N"),
    Flag("--batch", int, "Windows a batch.", "N", 8),
    Flag("--keep-dates", int, "Dates of a series shown at once, random ones; 0 = all.", "N", 16),
    Flag(
        "--drop", Texts,
        "Chance that a window lacks a modality: 0.3 for all, or aerial=0.4; repeatable.",
        "[M=]RATE",
    ),
    Flag("--drop-region", float, "Chance that it lacks one over a half-plane.", "RATE", 0.1),
    Flag("--balanced", float, "Chance that a window is drawn for a random class.", "RATE", 0.5),
    Flag("--augment/--no-augment", bool, "Turn and mirror windows.", default=True),
    Flag("--min-dates", int, "Fewest clear dates that make a series usable.", "N", 1),
)  # fmt: skip
"""How training windows are drawn."""

BUDGET = (
    Flag("--steps", Count, "Steps; default 1000, or as many as --minutes allow.", "N"),
    Flag("--minutes", Number, "Finish within this time.", "MINUTES"),
    Flag(
        "--rate", Number,
        "Highest learning rate; default 0.002, from a pack 0.001, less for wide AnySats.", "RATE",
    ),
    Flag("--weight-decay", float, "Of AdamW.", "RATE", 0.02),
    Flag("--accumulate", int, "Batches of one step.", "N", 1),
    Flag("--seed", int, "Of everything random.", "N", 0),
    Flag("--device", str, "auto, cpu, cuda or cuda:N.", "DEVICE", "auto"),
    Flag("--devices", int, "GPUs, each with batches of its own.", "N", 1),
    Flag("--precision", str, "32, bf16-mixed, or on a GPU 16-mixed.", "KIND", "32"),
    Flag("--threads", Count, "CPU threads; default: all cores.", "N"),
    Flag("--loaders", int, "Processes that read data; 0 = a thread.", "N", 0),
    Flag("--checkpoint-minutes", float, "Time between two checkpoints.", "MINUTES", 5.0),
)  # fmt: skip
"""How long, how fast, on what."""


def fit_spec(given: Given, **more: object) -> "FitSpec":
    """Turn the flags of `BUDGET` into a budget.

    Args:
        given: What was given.
        **more: Other fields of the budget; `rate` counts where --rate was not given.

    Raises:
        JobError: If a value is out of range.
    """
    from omnisat_cli.learning.training.lesson import FitSpec

    values = {name: value for name, value in given.items() if name not in ("threads", "steps")}
    if values["rate"] is None:
        values["rate"] = more.pop("rate", 2e-3)
    else:
        more.pop("rate", None)
    return FitSpec(steps=step_count(given), **values, **more)  # type: ignore[arg-type]


def step_count(given: Given) -> int:
    """Return the steps asked for, at most."""
    steps = _typed(given["steps"], int)
    if steps is not None:
        return steps
    return 1000 if given["minutes"] is None else _NEVER


def batch_spec(given: Given, names: tuple[str, ...], drop: float) -> "BatchSpec":
    """Turn the flags of `DRAWS` into a way of drawing windows.

    Args:
        given: What was given.
        names: Modalities there are.
        drop: Chance of dropping each where --drop was not given.

    Raises:
        JobError: If a value is out of range, or about a modality that is not there.
    """
    from omnisat_cli.learning.data.batches import BatchSpec
    from omnisat_cli.modality import modality

    keep = _typed(given["keep_dates"], int) or 0
    series = [name for name in names if modality(name).kind == "series"]
    texts = given["drop"]
    rates = dict.fromkeys(names, drop) if len(names) > 1 else {}
    if isinstance(texts, list) and texts:
        rates = drop_rates([str(text) for text in texts], names)
    return BatchSpec(
        size=_typed(given["batch"], int) or 0,
        side=_typed(given["side"], int),
        keep_dates=dict.fromkeys(series, keep) if keep else {},
        drop={name: rate for name, rate in rates.items() if rate},
        drop_region=(_typed(given["drop_region"], float) or 0.0) if len(names) > 1 else 0.0,
        augment=bool(given["augment"]),
        balanced=_typed(given["balanced"], float) or 0.0,
        min_dates=_typed(given["min_dates"], int) or 0,
    )


def drop_rates(texts: list[str], names: tuple[str, ...]) -> dict[str, float]:
    """Read "0.3" and "aerial=0.4": the chance of each modality; the last word counts.

    Raises:
        JobError: If a text is neither, or about a modality that is not there.
    """
    rates: dict[str, float] = {}
    for text in (part for whole in texts for part in whole.split(",")):
        name, equals, number = text.rpartition("=")
        if equals and name not in names:
            raise JobError(f"--drop {text}: there is no {name}; there are {', '.join(names)}")
        try:
            rate = float(number)
        except ValueError:
            raise JobError(f"--drop {text}: write a rate as 0.3, or aerial=0.3") from None
        rates |= dict.fromkeys([name] if equals else names, rate)
    return rates


def open_part(
    given: Given, *, split: str | None, folds: str | None, side: int | None
) -> "Examples":
    """Open a part of a dataset.

    Args:
        given: Flags of `DATASET`, or of `LABELLED`.
        split: Official part, or None.
        folds: Folds, with commas, or None.
        side: Patches along a training window, or None.

    Raises:
        JobError: If something is missing or unknown.
        SourceError: If files are missing or damaged.
    """
    from omnisat_cli.learning.datasets.request import Options
    from omnisat_cli.learning.datasets.table import open_dataset

    name, root = str(given["dataset"]), given["root"]
    if root is None:
        raise JobError(f"--dataset {name}: give the folder it lies in with --root")
    place = _typed(given["place"], int)
    whole = bool(given.get("whole_places"))
    if place is None and name == "scenes":  # windows are drawn anywhere in a place
        place = (side or _PLACE) if whole else 2 * (side or 12)
    names = comma_list(given["modalities"])
    return open_dataset(
        name,
        str(root),
        split=split,
        folds=comma_list(folds),
        modalities=names,
        options=Options(
            side=place,
            patch_m=_typed(given["patch"], float),
            task="multilabel" if whole else None,
        ),
    )


def comma_list(text: object) -> tuple[str, ...] | None:
    """Split "a,b" into its parts; None stays None."""
    if text is None:
        return None
    return tuple(part.strip() for part in str(text).split(",") if part.strip())


def settle_threads(given: Given) -> None:
    """Use the CPU threads asked for, in every computation of this process."""
    import torch

    from omnisat_cli.engine.memory import keep_freed_memory

    threads = _typed(given["threads"], int)
    if threads is not None and threads < 1:
        raise JobError(f"--threads {threads}: at least 1")
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()


def _typed(value: object, kind: type[T]) -> T | None:
    assert value is None or isinstance(value, kind)
    return value
