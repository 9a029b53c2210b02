"""Write a model pack: weights first, then the legend, the card last."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from omnisat_cli.packs.registry import CARD, LEGEND, WEIGHTS, Pack, read_pack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from omnisat_cli.packs.card import Card

_NO_DIGEST = "0" * 64


def write_pack(
    folder: Path, card: Card, legend: Mapping[str, object], weights: Mapping[str, Tensor]
) -> Pack:
    """Write a pack and read it back.

    Args:
        folder: Target; made if absent.
        card: The card; its `weights_sha256` is replaced by the digest of what is written.
        legend: Content of legend.json.
        weights: State dict of the network; stored contiguous, on the CPU.

    Returns:
        The pack as a user will find it.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS
    save_file({key: value.detach().cpu().contiguous() for key, value in weights.items()}, path)
    path.chmod(0o644)  # safetensors writes for the owner alone; packs are shared
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _write_json(folder / LEGEND, dict(legend))
    _write_json(folder / CARD, card.model_copy(update={"weights_sha256": digest}).model_dump())
    return read_pack(folder)


def empty_digest() -> str:
    """Return the placeholder for cards whose weights are not written yet."""
    return _NO_DIGEST


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
