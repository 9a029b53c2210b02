"""Make a pack from a checkpoint somebody trained elsewhere.

Pickles are programs: they are read only when the user vouches for them, in a process of their own,
and then only tensors are taken out of them.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle
import re
import tempfile
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from omnisat_cli.errors import CheckpointError, OutputExistsError, SecurityError, SourceError
from omnisat_cli.outputs.legend import Legend, load_legend
from omnisat_cli.packs.card import Card
from omnisat_cli.packs.registry import CARD, Pack
from omnisat_cli.packs.writer import empty_digest, write_pack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.queues import SimpleQueue

    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

PICKLES = (".pth", ".pt", ".ckpt", ".tar", ".bin", ".pkl")
_LIMIT = 16 * 2**30
_CARD_LIMIT = 4 * 2**20
_NESTS = ("state_dict", "model_state_dict", "model")
_SHOWN = 8
_ASKED_FOR = re.compile(r"GLOBAL:? (\S+)")
_DAMAGE = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)
"""What torch raises for bytes that are no checkpoint."""

PREFIXES: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("model.encoder.", "encoder."), ("model.fine.", "fine."), ("model.head.", "head.")),
    (("model.model.", "encoder."), ("model.head.", "head.head.")),
    (("model.model.", "encoder."), ("model.head.", "head.mlp.")),
    (("model.encoder.", "encoder."), ("model.mlp.", "head.")),
    (("model.", ""),),
    (("module.", ""),),
    (("network.", ""),),
)
"""Ways in which published checkpoints name the parts of a network: (prefix, its replacement).

A way either names every key of a checkpoint or is not that of the checkpoint.
"""


def convert_checkpoint(
    checkpoint: Path, texts: tuple[Path, Path], out: Path, *, trusted: bool = False
) -> Pack:
    """Read a checkpoint, check it against its card and write a pack.

    Args:
        checkpoint: Weights, as safetensors or as a pickle of tensors.
        texts: Paths of the card and of the legend.
        out: Folder of the pack.
        trusted: Whether the user vouches for a pickle.

    Raises:
        SecurityError: If a pickle is not vouched for, or holds anything but tensors.
        CheckpointError: If names, shapes or values do not fit the card.
        OutputExistsError: If `out` holds a pack already.
        SourceError: If a file cannot be read.
    """
    if (out / CARD).exists():
        raise OutputExistsError(f"{out} holds a pack already; choose another folder")
    card, legend = read_card(texts[0]), load_legend(texts[1])
    weights = rename(read_checkpoint(checkpoint, trusted=trusted), card)
    check_network(card, legend, weights)
    return write_pack(out, card, legend.to_json(), weights)


def read_card(path: Path) -> Card:
    """Read a card whose weights do not exist yet.

    Raises:
        CheckpointError: If it is no card.
        SourceError: If it cannot be read.
    """
    try:
        if path.stat().st_size > _CARD_LIMIT:
            raise CheckpointError(f"{path} is larger than {_CARD_LIMIT} bytes: not a card")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: a card is a JSON object")
        return Card.model_validate({"weights_sha256": empty_digest(), **content})
    except OSError as error:
        raise SourceError(f"the card {path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"the card {path}: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the card {path} is not valid JSON: {error}") from error


def read_checkpoint(path: Path, *, trusted: bool) -> dict[str, Tensor]:
    """Read named tensors from a file.

    Raises:
        SecurityError: If it is a pickle that is not vouched for, or that holds code.
        CheckpointError: If it holds no named tensors.
        SourceError: If it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise SourceError(f"the checkpoint {path} cannot be read: {error}") from error
    if size > _LIMIT:
        raise SecurityError(f"{path} has {size} bytes; a checkpoint has at most {_LIMIT}")
    if head[8:9] == b"{" and path.suffix.lower() not in PICKLES:
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        return tensors
    if not trusted:
        raise SecurityError(
            f"{path} is no safetensors file; reading a pickle can run a program hidden in it.\n"
            "Ask its author for safetensors, or, if you trust where it comes from, pass "
            "--i-trust-this-file"
        )
    return _read_pickle(path)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Have another process turn a pickle into safetensors, and read those."""
    from safetensors.torch import load_file

    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="omnisat-") as folder:
        target = Path(folder) / "weights.safetensors"
        answers = context.SimpleQueue()
        process = context.Process(target=_unpickle, args=(path, target, answers), daemon=True)
        process.start()
        process.join()
        word = "" if answers.empty() else answers.get()
        kind, _, text = word.partition(":")
        if kind == "code":
            raise SecurityError(
                f"{path} holds more than tensors and was not read: {text}; "
                "ask its author for safetensors"
            )
        if kind != "done":
            reason = text or f"the reading process ended with code {process.exitcode}"
            raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}")
        tensors: dict[str, Tensor] = load_file(target)
        return tensors


def _unpickle(path: Path, target: Path, answers: SimpleQueue[str]) -> None:
    """Run in the other process: take the named tensors out of a pickle."""
    import torch
    from safetensors.torch import save_file

    _cut_off()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = _ASKED_FOR.search(str(error))
        what = f"it asks for {asked[1]}" if asked else "it does what tensors do not need"
        answers.put(f"code:{what}")
        return
    except _DAMAGE as error:
        answers.put(f"bad:it is damaged or no checkpoint ({str(error)[:80]!r})")
        return
    for name in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    named = content.items() if isinstance(content, dict) else ()
    tensors = OrderedDict(
        (str(key), value.detach().contiguous().clone())
        for key, value in named
        if isinstance(value, torch.Tensor)
    )
    if not tensors:
        answers.put("bad:it holds no named tensors")
        return
    save_file(tensors, target)
    answers.put("done:")


def _cut_off() -> None:
    """Take the network away from this process, should a pickle get past torch's own checks."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network while a checkpoint is read")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.create_connection = refuse  # type: ignore[assignment]


def rename(tensors: Mapping[str, Tensor], card: Card) -> dict[str, Tensor]:
    """Give the tensors the names of the network the card describes.

    Of the known ways to name a network, the one is taken under which most keys fit.
    """
    expected = set(_build(card).state_dict())
    best: dict[str, Tensor] = dict(tensors)
    for way in PREFIXES:
        renamed = {_renamed(key, way): value for key, value in tensors.items()}
        if len(expected & set(renamed)) > len(expected & set(best)):
            best = renamed
    if set(best) != set(tensors):
        log.info("the keys of the checkpoint were renamed to those of the network")
    return best


def _renamed(key: str, way: tuple[tuple[str, str], ...]) -> str:
    for prefix, replacement in way:
        if key.startswith(prefix):
            return replacement + key.removeprefix(prefix)
    return key


def check_network(card: Card, legend: Legend, weights: Mapping[str, Tensor]) -> int:
    """Check that weights fit the network of a card, in name, shape and value.

    Returns:
        Number of parameters.

    Raises:
        CheckpointError: If they do not; the message lists what is missing and what is too much.
    """
    network = _build(card)
    expected = network.state_dict()
    problems = []
    missing = [key for key in expected if key not in weights]
    surplus = [key for key in weights if key not in expected]
    if missing:
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if surplus:
        problems.append(f"{len(surplus)} unexpected: {_some(surplus)}")
    shapes = [
        f"{key} is {tuple(weights[key].shape)}, the network has {tuple(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    bad = [key for key, value in weights.items() if not bool(value.isfinite().all())]
    if bad:
        problems.append(f"{len(bad)} with values that are not finite: {_some(bad)}")
    if problems:
        raise CheckpointError(
            f"the weights do not fit the {card.network.kind} network of {card.name}:\n"
            + "\n".join(problems)
        )
    classes = card.network.config.get("classes")
    if isinstance(classes, int) and classes != len(legend.classes):
        raise CheckpointError(
            f"{card.name} has {classes} classes, its legend {legend.label} has "
            f"{len(legend.classes)}; they must be the same, in the same order"
        )
    if card.legend != legend.label:
        raise CheckpointError(
            f"{card.name} names the legend {card.legend}, the file holds {legend.label}"
        )
    return sum(value.numel() for value in network.parameters())


def _build(card: Card) -> torch.nn.Module:
    from omnisat_cli.networks.table import build_network

    try:
        return build_network(card.network.kind, card.network.config)
    except ValueError as error:
        raise CheckpointError(f"the card of {card.name}: {error}") from error


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
