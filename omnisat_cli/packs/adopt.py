"""Adopt a published checkpoint as a pack: no card is needed, the network is known."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, cast, get_args

from omnisat_cli.errors import CheckpointError, JobError, OutputExistsError, SourceError
from omnisat_cli.networks.anysat_config import SENSORS, Behaviour, TrunkAttention, hub_config
from omnisat_cli.networks.configs import Position
from omnisat_cli.outputs.legend import load_legend
from omnisat_cli.packs.convert import check_network, read_checkpoint, rename
from omnisat_cli.packs.norms import read_norms
from omnisat_cli.packs.published import Origin, Parcel
from omnisat_cli.packs.published_anysat import (
    Forms,
    Part,
    anysat_parcel,
    fresh_anysat,
)
from omnisat_cli.packs.published_anysat_heads import with_head
from omnisat_cli.packs.published_omnisat import Dataset, omnisat_parcel
from omnisat_cli.packs.published_utae import UTAE_FOLDS, utae_parcel
from omnisat_cli.packs.registry import CARD, Pack
from omnisat_cli.packs.writer import write_pack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omnisat_cli.packs.published import Tensors

Form = Literal[
    "anysat", "anysat-pastis", "utae", "omnisat-treesat", "omnisat-pastis", "omnisat-flair"
]
Size = Literal["tiny", "small", "base"]
_SIZES_LIMIT = 2**20
_ANYSAT = frozenset(
    {"norms", "fold", "modalities", "patch_m", "part", "legend", "place_m"}
    | {"behaviour", "trunk_attention"}
)
_OMNISAT = frozenset({"legend", "positions"})
_READ: Mapping[str, frozenset[str]] = {
    "anysat": _ANYSAT,
    "anysat-pastis": _ANYSAT,
    "utae": frozenset({"norms", "fold", "sizes"}),
    "omnisat-treesat": _OMNISAT,
    "omnisat-pastis": _OMNISAT,
    "omnisat-flair": _OMNISAT,
}
"""What each published network lets one say of it; the others are what they are."""
_FLAGS = {"norms": "norm", "patch_m": "patch-size", "place_m": "place", "sizes": "conf"}
_FOLD = re.compile(r"Fold_([1-5])")


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a checkpoint is, and what it does not say itself.

    Attributes:
        form: Which published network, one of `Form`.
        norms: JSON with the statistics of bands.
        modalities: Sensors to keep (AnySat); empty for all whose statistics are known.
        patch_m: The pack's own patch size (AnySat).
        part: Which network of a full checkpoint (AnySat), one of `Part`.
        fold: Which of the five networks (U-TAE); its statistics are those of its training folds.
            None reads it off the published folders, Fold_1/model.pth.tar.
        sizes: conf.json of the network (U-TAE); None takes the one beside these folders, or the
            published sizes.
        legend: Labels of a trained head (OmniSat, AnySat).
        address: Where the file was fetched from, for the card; "" where it was not.
        place_m: Side of the places that head labels, metres (AnySat).
        positions: How tokens are placed (OmniSat), one of `Position`.
        behaviour: Of the release, one of `Behaviour` (AnySat).
        trunk_attention: Of the release, one of `TrunkAttention` (AnySat).
    """

    form: str
    norms: Path | None = None
    modalities: tuple[str, ...] = ()
    patch_m: int = 10
    part: str = "teacher"
    fold: int | None = None
    sizes: Path | None = None
    legend: Path | None = None
    address: str = ""
    place_m: int = 60
    positions: str = "official"
    behaviour: str = "corrected"
    trunk_attention: str = "tokens"

    def __post_init__(self) -> None:
        """Refuse words that mean nothing."""
        words = {
            "as": (self.form, Form),
            "part": (self.part, Part),
            "positions": (self.positions, Position),
            "behaviour": (self.behaviour, Behaviour),
            "trunk-attention": (self.trunk_attention, TrunkAttention),
        }
        for flag, (given, known) in words.items():
            if given not in get_args(known):
                raise JobError(f"--{flag} {given}: one of {', '.join(get_args(known))}")
        if self.fold is not None and self.fold not in UTAE_FOLDS:
            raise JobError(f"--fold {self.fold}: from 1 to {len(UTAE_FOLDS)}")
        for field in fields(self):
            idle = field.name not in {"form", "address", *_READ[self.form]}
            if idle and getattr(self, field.name) != field.default:
                flag = _FLAGS.get(field.name, field.name.replace("_", "-"))
                raise JobError(f"--{flag} changes nothing of --as {self.form}; leave it out")


def adopt_checkpoint(
    checkpoint: Path, adoption: Adoption, out: Path, *, trusted: bool = False
) -> Pack:
    """Read a published checkpoint, check it against the network it should be and write a pack.

    Args:
        checkpoint: Weights, as safetensors or as a pickle of tensors.
        adoption: What it is.
        out: Folder of the pack.
        trusted: Whether the user vouches for a pickle.

    Raises:
        SecurityError: If a pickle is not vouched for, or holds anything but tensors.
        CheckpointError: If it is something else, or statistics are missing.
        OutputExistsError: If `out` holds a pack already.
        SourceError: If a file cannot be read.
    """
    if (out / CARD).exists():
        raise OutputExistsError(f"{out} holds a pack already; choose another folder")
    if adoption.form == "utae":
        adoption = _as_laid_out(checkpoint, adoption)
    tensors = read_checkpoint(checkpoint, trusted=trusted)
    norms = {}
    if adoption.norms is not None:
        folds = UTAE_FOLDS[adoption.fold] if adoption.fold is not None else ()
        norms = read_norms(adoption.norms, folds)
    place = f"{adoption.address}, " if adoption.address else ""
    file = f"{place}file {checkpoint.name}, sha256 {sha256_of(checkpoint)}"
    parcel = _parcel(tensors, Origin(pack_name(out), file, norms), adoption)
    weights = rename(parcel.weights, parcel.card)
    check_network(parcel.card, parcel.legend, weights)
    return write_pack(out, parcel.card, parcel.legend.to_json(), weights)


def new_anysat(
    out: Path,
    modalities: tuple[str, ...],
    size: str,
    norms: Path | None,
    *,
    patch_m: int = 10,
    seed: int = 0,
) -> Pack:
    """Write a pack of an AnySat with random weights.

    Args:
        out: Folder of the pack.
        modalities: Its sensors.
        size: "tiny", "small" or "base".
        norms: JSON with statistics of bands that are not published.
        patch_m: The pack's own patch size.
        seed: Of the weights.

    Raises:
        JobError: If size, sensors or patch size are unknown or do not fit.
        CheckpointError: If statistics are missing.
        OutputExistsError: If `out` holds a pack already.
    """
    if (out / CARD).exists():
        raise OutputExistsError(f"{out} holds a pack already; choose another folder")
    if size not in get_args(Size):
        raise JobError(f"--size {size}: one of {', '.join(get_args(Size))}")
    strange = [name for name in modalities if name not in SENSORS]
    if strange or not modalities:
        raise JobError(f"AnySat has no sensor {', '.join(strange)}; it has {', '.join(SENSORS)}")
    sensors = tuple(SENSORS[name] for name in modalities)
    config = replace(hub_config(cast("Size", size)), sensors=sensors)
    file = f"omnisat, random weights of seed {seed}"
    origin = Origin(pack_name(out), file, {} if norms is None else read_norms(norms))
    try:
        parcel = fresh_anysat(config, origin, patch_m=patch_m, seed=seed)
    except ValueError as error:
        raise JobError(f"--patch-size {patch_m}: {error}") from error
    return write_pack(out, parcel.card, parcel.legend.to_json(), parcel.weights)


def _parcel(tensors: Tensors, origin: Origin, adoption: Adoption) -> Parcel:
    legend = None if adoption.legend is None else load_legend(adoption.legend)
    if adoption.form in ("anysat", "anysat-pastis"):
        parcel = anysat_parcel(
            tensors,
            origin,
            modalities=adoption.modalities,
            patch_m=adoption.patch_m,
            part=cast("Part", adoption.part),
            forms=Forms(
                cast("Behaviour", adoption.behaviour),
                cast("TrunkAttention", adoption.trunk_attention),
                "pastis" if adoption.form == "anysat-pastis" else "treesat",
            ),
        )
        return parcel if legend is None else with_head(parcel, tensors, legend, adoption.place_m)
    if adoption.form == "utae":
        return utae_parcel(tensors, origin, _sizes(adoption.sizes), fold=adoption.fold)
    dataset = cast("Dataset", adoption.form.removeprefix("omnisat-"))
    return omnisat_parcel(
        tensors, origin, dataset, legend, positions=cast("Position", adoption.positions)
    )


def _as_laid_out(checkpoint: Path, adoption: Adoption) -> Adoption:
    """Read off the folders of the published U-TAE what was not said."""
    folder = checkpoint.absolute().parent
    found = _FOLD.fullmatch(folder.name)
    fold = int(found[1]) if found and adoption.fold is None else adoption.fold
    places = (place / "conf.json" for place in (folder, folder.parent))
    sizes = adoption.sizes or next((path for path in places if path.is_file()), None)
    return replace(adoption, fold=fold, sizes=sizes)


def _sizes(path: Path | None) -> dict[str, object]:
    """Read the configuration of a published network."""
    if path is None:
        return {}
    try:
        if path.stat().st_size > _SIZES_LIMIT:
            raise CheckpointError(f"{path} is larger than {_SIZES_LIMIT} bytes: no configuration")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"the configuration {path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the configuration {path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a configuration is a JSON object")
    return content


def pack_name(folder: Path) -> str:
    """Turn the name of a folder into the name of a pack."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:64]
    return name or "adopted"


def sha256_of(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
