"""Find, check and load model packs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from omnisat_cli.errors import CheckpointError
from omnisat_cli.outputs.legend import Legend, load_legend
from omnisat_cli.packs.card import Card

if TYPE_CHECKING:
    from torch import Tensor

CARD, LEGEND, WEIGHTS = "card.json", "legend.json", "weights.safetensors"
_CARD_LIMIT = 4 * 2**20
_WEIGHTS_LIMIT = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Pack:
    """A model pack that was found and whose card and legend were read."""

    folder: Path
    card: Card
    legend: Legend

    @property
    def weights(self) -> Path:
        """Path of the weights file."""
        return self.folder / WEIGHTS


def pack_folders() -> tuple[Path, ...]:
    """Return the folders that hold bundled packs: in the wheel, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return tuple(f for f in (package / "models", package.parent / "models") if f.is_dir())


def list_packs() -> tuple[Pack, ...]:
    """Return every bundled pack, sorted by name."""
    found = {
        card.parent.name: card.parent
        for folder in pack_folders()
        for card in sorted(folder.glob(f"*/{CARD}"))
    }
    return tuple(read_pack(found[name]) for name in sorted(found))


def find_pack(name: str) -> Pack:
    """Find a pack by the name of a bundled one or by the path of its folder.

    Raises:
        CheckpointError: If there is no such pack or its card is not valid.
    """
    folder = Path(name)
    if (folder / CARD).is_file():
        return read_pack(folder)
    for base in pack_folders():
        if (base / name / CARD).is_file() and Path(name).name == name:
            return read_pack(base / name)
    known = ", ".join(pack.card.name for pack in list_packs()) or "none"
    raise CheckpointError(
        f"no model pack {name!r}: neither a folder with a {CARD} nor a bundled pack ({known}); "
        "see `omnisat model list`"
    )


def read_pack(folder: Path) -> Pack:
    """Read the card and the legend of a pack; the weights are not touched.

    Raises:
        CheckpointError: If a file is missing, too large, or not what it should be.
    """
    path = folder / CARD
    try:
        if path.stat().st_size > _CARD_LIMIT:
            raise CheckpointError(f"{path} is larger than {_CARD_LIMIT} bytes: not a card")
        card = Card.model_validate(json.loads(path.read_text(encoding="utf-8")))
        legend = load_legend(folder / LEGEND)
    except (OSError, ValueError, RecursionError) as error:
        reason = _first_line(error)
        raise CheckpointError(f"the pack {folder} cannot be used: {reason}") from error
    return Pack(folder, card, legend)


def verify_weights(pack: Pack) -> str:
    """Check the digest of the weights against the card and return it.

    Raises:
        CheckpointError: If the file is missing, too large or has another digest.
    """
    path = pack.weights
    try:
        if path.stat().st_size > _WEIGHTS_LIMIT:
            raise CheckpointError(f"{path} is larger than {_WEIGHTS_LIMIT} bytes")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"the weights {path} cannot be read: {error}") from error
    if digest != pack.card.weights_sha256:
        raise CheckpointError(
            f"the weights {path} are not those of the card: sha256 {digest[:16]}…, card says "
            f"{pack.card.weights_sha256[:16]}…; fetch the pack again"
        )
    return digest


def load_weights(pack: Pack) -> dict[str, Tensor]:
    """Read the verified weights.

    Raises:
        CheckpointError: If they are damaged or hold values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    verify_weights(pack)
    try:
        tensors: dict[str, Tensor] = load_file(pack.weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the weights {pack.weights} are damaged: {error}") from error
    bad = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(f"{pack.weights}: {len(bad)} tensors are not finite, e.g. {bad[0]}")
    return tensors


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{CARD}: {where}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
