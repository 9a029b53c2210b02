"""`omnisat model`: the packs a map can be made with."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from omnisat_cli.cli.console import columns, say, say_json, set_up_logging
from omnisat_cli.cli.flags import Flag, Given, with_flags
from omnisat_cli.cli.guard import guarded
from omnisat_cli.cli.options import AsJson, Verbose
from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from omnisat_cli.packs.adopt import Adoption
    from omnisat_cli.packs.card import Card, ModalityCard
    from omnisat_cli.packs.registry import Pack

model_app = typer.Typer(help="The models a map can be made with.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a bundled model, or the folder of a pack.")]

_CHOSEN_SCORES = ("mIoU", "F1 macro", "accuracy")


@guarded
def list_models(as_json: AsJson = False) -> None:
    """List the bundled models: what they need, what they map, what they score."""
    from omnisat_cli.packs.registry import list_packs

    packs = list_packs()
    if as_json:
        say_json([_plain(pack) for pack in packs])
        return
    if not packs:
        say("no bundled model; pass the folder of a pack with --model")
        return
    rows = [("model", "modalities", "pixel", "legend", "scores")]
    for pack in packs:
        card = pack.card
        rows.append(
            (
                f"{card.name} {card.version}",
                "+".join(card.names),
                _pixels(card),
                f"{pack.legend.label}, {len(pack.legend.classes)} classes",
                _best_score(card),
            )
        )
    say("\n".join(columns(rows)))


@guarded
def show(name: Name, as_json: AsJson = False) -> None:
    """Show the card, the legend and the scores of a model."""
    from omnisat_cli.packs.registry import find_pack

    pack = find_pack(name)
    if as_json:
        say_json(_plain(pack))
        return
    card = pack.card
    say(f"{card.name} {card.version}: {card.summary}")
    say("\n".join(columns(_card_rows(pack), "  ")))
    say("inputs")
    say("\n".join(columns([_input_row(entry) for entry in card.modalities], "  ")))
    say(f"legend {pack.legend.label}")
    classes = [(str(c.code), c.color, c.name_en, c.name_fr) for c in pack.legend.classes]
    say("\n".join(columns(classes, "  ")))
    for test_set, subsets in card.scores.items():
        say(f"scores on {test_set}, per cent")
        say("\n".join(columns(_score_rows(subsets), "  ")))


@guarded
def verify(name: Name, as_json: AsJson = False, verbose: Verbose = 0) -> None:
    """Check the digest of the weights, build the network and load them."""
    from omnisat_cli.packs.convert import check_network
    from omnisat_cli.packs.registry import find_pack, load_weights, verify_weights

    set_up_logging(verbose, quiet=False)
    pack = find_pack(name)
    digest = verify_weights(pack)
    parameters = check_network(pack.card, pack.legend, load_weights(pack))
    if as_json:
        say_json(
            {
                "model": pack.card.name,
                "version": pack.card.version,
                "folder": str(pack.folder),
                "weights_sha256": digest,
                "parameters": parameters,
            }
        )
        return
    say(f"{pack.card.name} {pack.card.version} is intact: {pack.folder}")
    say(f"  weights sha256 {digest}, {parameters:,} parameters, they fit the card")


Trust = Annotated[
    bool,
    typer.Option(
        "--i-trust-this-file",
        help="Read a pickle (.pth, .pt, .ckpt), in a process of its own, tensors only.",
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--as",
        help="Published network: anysat, anysat-pastis, utae, omnisat-treesat, omnisat-pastis, "
        "omnisat-flair.",
        metavar="NETWORK",
    ),
]
PUBLISHED = (
    Flag(
        "--norm", Path | None, "JSON with mean and std of the bands of each modality.", "FILE"
    ),
    Flag("--modalities", str | None, "Modalities to keep, e.g. s2,s1.", "M,M,..."),
    Flag("--patch-size", int, "The pack's own patch size.", "METRES", 10),
    Flag("--legend", Path | None, "legend.json of a trained head.", "FILE"),
    Flag("--place", int, "Side of the places a head labels, with --legend.", "METRES", 60),
    Flag("--part", str, "Of a full AnySat checkpoint.", "teacher|student", "teacher"),
    Flag("--fold", int | None, "Which of the five networks of U-TAE.", "1-5"),
    Flag("--conf", Path | None, "conf.json of the network.", "FILE"),
    Flag(
        "--positions", str, "Of OmniSat's tokens: official as published, or geographic.",
        "official|geographic", "official",
    ),
    Flag(
        "--behaviour", str, "Of AnySat where the release is broken: corrected, or as it is.",
        "corrected|official", "corrected",
    ),
    Flag(
        "--trunk-attention", str,
        "Of AnySat: between tokens, or as its flash branch between the heads of one token.",
        "tokens|heads", "tokens",
    ),
)  # fmt: skip
"""What a published checkpoint does not say itself."""

NewPack = Annotated[Path, typer.Option(help="Folder of the new pack; must not hold one.")]


def _adoption(form: str, given: Given) -> "Adoption":
    """Put together what is said of a published checkpoint."""
    from omnisat_cli.packs.adopt import Adoption

    names = {"norm": "norms", "patch_size": "patch_m", "place": "place_m", "conf": "sizes"}
    said = {names.get(name, name): value for name, value in given.items()}
    said["modalities"] = _named(cast("str | None", given["modalities"]))
    return Adoption(form, **said)  # type: ignore[arg-type]


@guarded
@with_flags("published", PUBLISHED)
def convert(
    *,
    checkpoint: Annotated[Path, typer.Argument(help=".safetensors, or .pth, .pt, .ckpt, .tar.")],
    out: NewPack,
    card: Annotated[
        Path | None, typer.Option(help="card.json; its weights_sha256 is filled in.")
    ] = None,
    form: Form = None,
    published: Given,
    trust: Trust = False,
    verbose: Verbose = 0,
) -> None:
    """Make a model pack from a checkpoint: names, shapes and values are checked first.

    With --card and --legend any network of omnisat; with --as a published one, whose card is known.
    """
    from omnisat_cli.packs.convert import convert_checkpoint

    set_up_logging(verbose, quiet=False)
    if form is None:
        legend = published["legend"]
        if card is None or not isinstance(legend, Path):
            raise JobError("give --card and --legend, or --as for a published network")
        _tell(convert_checkpoint(checkpoint, (card, legend), out, trusted=trust))
        return
    from omnisat_cli.packs.adopt import adopt_checkpoint

    _tell(adopt_checkpoint(checkpoint, _adoption(form, published), out, trusted=trust))


@guarded
@with_flags("published", PUBLISHED)
def pull(
    *,
    repository: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    out: NewPack,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    file: Annotated[
        str, typer.Option(help="Weights, where it holds several.", metavar="PATH")
    ] = "",
    sha256: Annotated[
        str, typer.Option(help="Digest the weights must have.", metavar="DIGEST")
    ] = "",
    form: Form = None,
    published: Given,
    trust: Trust = False,
    verbose: Verbose = 0,
) -> None:
    """Fetch a pack, or a published checkpoint, from the Hugging Face hub; its digest is checked.

    Without a network it says what to fetch and where to put it. HF_ENDPOINT names another hub.
    """
    from omnisat_cli.packs import hub

    set_up_logging(verbose, quiet=False)
    form = form or hub.KNOWN.get(repository, ("", None))[1]
    said = None if form is None else _adoption(form, published)
    request = hub.HubRequest(repository, revision, file, sha256, said, trust)
    _tell(hub.pull(request, out))


@guarded
def new(
    *,
    out: NewPack,
    modalities: Annotated[str, typer.Option(help="Its modalities, e.g. s2,s1.", metavar="M,M,...")],
    size: Annotated[str, typer.Option(help="tiny, small or base.", metavar="SIZE")] = "tiny",
    norm: Annotated[
        Path | None, typer.Option(help="JSON with mean and std of the bands.", metavar="FILE")
    ] = None,
    patch_size: Annotated[
        int, typer.Option(help="The pack's own patch size.", metavar="METRES")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
    verbose: Verbose = 0,
) -> None:
    """Make a pack of an AnySat with random weights: to pretrain, or to try a machine with."""
    from omnisat_cli.packs.adopt import new_anysat

    set_up_logging(verbose, quiet=False)
    _tell(new_anysat(out, _named(modalities), size, norm, patch_m=patch_size, seed=seed))


def _named(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _tell(pack: "Pack") -> None:
    say(f"wrote {pack.folder}: {pack.card.name} {pack.card.version}, {pack.legend.label}")
    say(f"  check it: omnisat model verify {pack.folder}")
    if pack.card.pretrained_only:
        say("  its head is untrained: use it with `omnisat embed` or `omnisat train`")


model_app.command("list")(list_models)
model_app.command()(show)
model_app.command()(verify)
model_app.command()(convert)
model_app.command()(pull)
model_app.command()(new)


def _plain(pack: "Pack") -> dict[str, object]:
    return {
        "folder": str(pack.folder),
        **pack.card.model_dump(mode="json"),
        "classes": [asdict(entry) for entry in pack.legend.classes],
    }


def _pixels(card: "Card") -> str:
    if card.fine_m == card.coarse_m:
        return f"{card.coarse_m:g} m"
    return f"{card.fine_m:g} m, {card.coarse_m:g} m from series"


def _best_score(card: "Card") -> str:
    """Return the first figure of the fullest subset: what the card leads with."""
    for test_set, subsets in card.scores.items():
        for subset, figures in subsets.items():
            for name, value in figures.items():
                return f"{name} {value:.1f} % ({subset}, {test_set})"
    return "not measured"


def _card_rows(pack: "Pack") -> list[tuple[str, str]]:
    card = pack.card
    window = card.window
    bytes_on_disk = pack.weights.stat().st_size if pack.weights.is_file() else 0
    return [
        ("licence", card.licence),
        ("source", card.source),
        ("training", card.training),
        ("limits", card.limits),
        ("network", card.network.kind),
        ("labels", card.labels),
        ("pixel", _pixels(card)),
        ("patch", f"{card.patch_m:g} m"),
        ("window", f"{window.size} patches, {window.overlap} shared, cells of {window.cell}"),
        ("boundary", "parcel boundaries beside the classes" if card.boundary else "no"),
        ("min dates", str(card.min_dates)),
        ("weights", f"sha256 {card.weights_sha256}, {bytes_on_disk / 1e6:.1f} MB"),
        ("folder", str(pack.folder)),
    ]


def _input_row(entry: "ModalityCard") -> tuple[str, ...]:
    dates = "" if entry.dates is None else f"dates as {entry.dates}"
    if entry.max_dates is not None:
        dates += f", at most {entry.max_dates}"
    return entry.name, f"{entry.gsd:g} m", entry.units, ",".join(entry.bands), dates


def _score_rows(subsets: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """One row a metric, one column a subset: there are more metrics than subsets."""
    names = list(dict.fromkeys(name for figures in subsets.values() for name in figures))
    names.sort(key=lambda name: name not in _CHOSEN_SCORES)
    rows: list[tuple[str, ...]] = [("", *subsets)]
    for name in names:
        cells = (figures.get(name) for figures in subsets.values())
        rows.append((name, *("-" if cell is None else f"{cell:.1f}" for cell in cells)))
    return rows
