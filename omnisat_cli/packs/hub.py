"""Fetch a pack or a published checkpoint from the Hugging Face hub, and prove what was fetched."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from omnisat_cli.errors import CheckpointError, OutputExistsError, SecurityError, SourceError
from omnisat_cli.packs.adopt import Adoption, adopt_checkpoint, sha256_of
from omnisat_cli.packs.convert import PICKLES
from omnisat_cli.packs.registry import CARD, LEGEND, WEIGHTS, Pack, read_pack, verify_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

HUB = "https://huggingface.co"
_SMALL = 4 * 2**20
_LARGE = 16 * 2**30
_PACK_FILES = (WEIGHTS, LEGEND, CARD)

KNOWN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"g-astruc/AnySat": ("models/AnySat.pth", "anysat")}
)
"""Repository to its weights and what they are; for people without a network, too."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository.

    Attributes:
        path: Path in the repository.
        size: Bytes.
        sha256: Digest of its bytes, "" where the hub knows only `blob`.
        blob: Digest git gives it.
    """

    path: str
    size: int
    sha256: str
    blob: str


@dataclass(frozen=True, slots=True)
class HubRequest:
    """What to fetch.

    Attributes:
        repo: "owner/name".
        revision: Branch, tag or commit.
        file: The checkpoint; "" where the repository holds one only, or a pack.
        sha256: Digest the checkpoint must have; "" for the one the hub states.
        adoption: What the checkpoint is; None for packs of omnisat and for known repositories.
        trusted: Whether the user vouches for a pickle.
    """

    repo: str
    revision: str = "main"
    file: str = ""
    sha256: str = ""
    adoption: Adoption | None = None
    trusted: bool = False

    @property
    def known(self) -> HubRequest:
        """The request, completed by what is known of the repository."""
        if self.repo not in KNOWN:
            return self
        file, form = KNOWN[self.repo]
        return replace(self, file=self.file or file, adoption=self.adoption or Adoption(form))


def pull(request: HubRequest, out: Path) -> Pack:
    """Fetch, prove and convert.

    Args:
        request: What to fetch.
        out: Folder of the pack.

    Raises:
        SourceError: If the hub cannot be reached or does not have it; the message says what to
            fetch and where to put it.
        SecurityError: If it is a pickle that is not vouched for, or not the bytes it should be.
        CheckpointError: If nothing in the repository can be used.
        OutputExistsError: If `out` holds a pack already.
    """
    if (out / CARD).exists():
        raise OutputExistsError(f"{out} holds a pack already; choose another folder")
    request = request.known
    staging = out.with_name(f"{out.name}.download")
    commit, files = _listed(request, out)
    request = replace(request, revision=commit)
    chosen = _chosen(request, files)
    _check_kind(request, chosen)
    paths = [_fetched(request, file, staging, out) for file in chosen]
    stated = [request.sha256, *("" for _ in chosen[1:])]  # the weights come first
    for path, file, digest in zip(paths, chosen, stated, strict=True):
        _prove(path, file, digest)
    if request.adoption is None:
        pack = _moved(paths, out)
    else:
        address = f"{HUB}/{request.repo}/blob/{commit}/{chosen[0].path}"
        adoption = replace(request.adoption, address=address)
        pack = adopt_checkpoint(paths[0], adoption, out, trusted=request.trusted)
    shutil.rmtree(staging)
    return pack


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def _listed(request: HubRequest, out: Path) -> tuple[str, dict[str, HubFile]]:
    """Ask the hub what a repository holds: its commit, and path to file."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        about = HfApi(endpoint=_endpoint()).model_info(
            request.repo, revision=request.revision, files_metadata=True
        )
    except HFValidationError as error:
        raise SourceError(f"{request.repo!r} is no repository of the hub: {error}") from error
    except HfHubHTTPError as error:
        raise SourceError(
            f"the hub refuses {request.repo} at {request.revision}: {_first_line(error)}; check "
            "the name, or log in with `hf auth login` where it is private"
        ) from error
    except _unreachable() as error:
        raise _no_network(request, out, error) from error
    files = {}
    for entry in about.siblings or ():
        digest = entry.lfs.sha256 if entry.lfs is not None else ""
        files[entry.rfilename] = HubFile(
            entry.rfilename, int(entry.size or 0), digest, str(entry.blob_id or "")
        )
    return str(about.sha), files


def _chosen(request: HubRequest, files: Mapping[str, HubFile]) -> list[HubFile]:
    """Choose the files to fetch: the one named, those of a pack, or the only weights."""
    held = ", ".join(f"{file.path} ({file.size:,} bytes)" for file in files.values()) or "nothing"
    if request.file:
        if request.file not in files:
            raise CheckpointError(f"{request.repo} has no {request.file}; it holds {held}")
        return [files[request.file]]
    if request.adoption is None and set(_PACK_FILES) <= set(files):
        return [files[name] for name in _PACK_FILES]
    if request.adoption is None:
        raise CheckpointError(
            f"{request.repo} is no pack of omnisat (it holds {held}); say what its weights are "
            "with --as"
        )
    weights = [file for file in files.values() if file.path.endswith((".safetensors", *PICKLES))]
    safe = [file for file in weights if file.path.endswith(".safetensors")] or weights
    if len(safe) != 1:
        raise CheckpointError(f"{request.repo} holds {held}; name the weights with --file")
    return safe


def _check_kind(request: HubRequest, chosen: list[HubFile]) -> None:
    for file in chosen:
        limit = _SMALL if file.path.endswith(".json") else _LARGE
        if file.size > limit:
            raise SecurityError(f"{file.path} has {file.size} bytes; at most {limit} are fetched")
        if file.path.endswith(PICKLES) and not request.trusted:
            raise SecurityError(
                f"{file.path} of {request.repo} is a pickle; reading it can run a program hidden "
                "in it.\nIf you trust its author, pass --i-trust-this-file"
            )


def _fetched(request: HubRequest, file: HubFile, staging: Path, out: Path) -> Path:
    """Download a file; what was begun is gone on with."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(
            hf_hub_download(
                request.repo,
                file.path,
                revision=request.revision,
                local_dir=staging,
                endpoint=_endpoint(),
            )
        )
    except _unreachable() as error:
        raise _no_network(request, out, error) from error


def _unreachable() -> tuple[type[Exception], ...]:
    """Return what the hub's client raises without a network."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    # Its client's own errors are not exported; all of them derive from this one.
    (transport,) = (base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return (transport, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)


def _no_network(request: HubRequest, out: Path, error: Exception) -> SourceError:
    """Say what to fetch elsewhere, and where to put it."""
    what = request.file or f"{WEIGHTS}, {LEGEND} and {CARD}"
    address = f"{HUB}/{request.repo}/resolve/{request.revision}/"
    lines = [f"the hub cannot be reached ({_first_line(error)}). On a machine with a network,"]
    if request.adoption is None:
        lines.append(f"fetch {what} from {address} and put them into {out}: that is the pack")
    else:
        name = Path(request.file).name or "the weights"
        trust = " --i-trust-this-file" if name.endswith(PICKLES) else ""
        lines += [
            f"fetch {address}{request.file} and put it at {out.parent / name}, then run",
            f"omnisat model convert {out.parent / name} --as {request.adoption.form} "
            f"--out {out}{trust}",
        ]
    return SourceError("\n".join(lines))


def _prove(path: Path, file: HubFile, stated: str) -> None:
    """Compare what was fetched with what the user or the hub says it is."""
    expected = stated.lower() or file.sha256
    if expected:
        found = sha256_of(path)
    else:
        content = path.read_bytes()
        header = f"blob {len(content)}\0".encode()
        expected, found = file.blob, hashlib.sha1(header + content).hexdigest()
    if found != expected:
        path.unlink()
        raise SecurityError(
            f"{file.path} is not what it should be: digest {found[:16]}…, "
            f"{'you say' if stated else 'the hub says'} {expected[:16]}…; it was removed"
        )


def _moved(paths: list[Path], out: Path) -> Pack:
    """Put a pack into its place and check it."""
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.move(path, out / path.name)
    pack = read_pack(out)
    verify_weights(pack)
    return pack


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
