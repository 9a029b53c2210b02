"""Where a map comes from: everything needed to judge it, repeat it and find damage."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omnisat_cli.errors import SourceError
from omnisat_cli.outputs import disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from omnisat_cli.outputs.journal import BlockRecord
    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.outputs.run import RunFacts
    from omnisat_cli.sources.values import Decision, Identity

_FORMAT = 1
_LIBRARIES = (
    *("numpy", "torch", "rasterio", "xarray", "h5netcdf", "h5py", "zarr", "pyproj", "shapely"),
    *("geopandas", "scipy", "dask", "pillow", "pydantic", "safetensors"),
)
_SIZE_LIMIT = 2**28
_QUERY = re.compile(r"(\w+://[^\s?#]*)[?#]\S*")
_SECRET = re.compile(r"(\w+://)[^/\s@]+@")
_FOLDERS = re.compile(r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?[/\\][^\s'\"]*[/\\]")
"""The folders of an absolute path; dates "2024-01-01/2024-12-31" and URLs are none."""
_SQUARE_METRES = 10_000
_EDITABLE = ".aux.xml"

Json = dict[str, object]
Redaction = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model, as its card states it.

    Attributes:
        name: Name of the pack.
        version: Version of the pack.
        sha256: Digest of the weights.
        licence: Licence of the weights.
        source: Where it comes from.
        multilabel: Whether ground may hold several classes: the map shows the most probable one,
            confidence and probabilities are those of each class being there.
    """

    name: str
    version: str
    sha256: str
    licence: str
    source: str = ""
    multilabel: bool = False


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What the caller knows of a run beside its blocks.

    Attributes:
        model: The model.
        inputs: Identities of the files of each modality.
        decisions: What the readers decided, by modality.
        area: The area of interest: as asked for, and what it became.
        command: Command line.
        device: What computed it, e.g. "cpu" or "cuda:0 (NVIDIA H100)".
        threads: Threads of the computation.
        settings: Other settings, e.g. seeds, precision, block size.
        durations: Seconds, by phase.
    """

    model: ModelFacts
    inputs: Mapping[str, tuple[Identity, ...]]
    decisions: Mapping[str, tuple[Decision, ...]] = field(default_factory=dict)
    area: Mapping[str, object] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1
    settings: Mapping[str, object] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file of the output.

    Attributes:
        name: Name, in the folder of the map.
        sha256: Digest.
        size: Bytes.
    """

    name: str
    sha256: str
    size: int

    @staticmethod
    def of(path: Path) -> FileDigest:
        """Measure a file."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileDigest(path.name, digest, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that is not what the provenance says.

    Attributes:
        name: Name of the file.
        kind: "missing", "changed", or "edited" for a sidecar that GIS software adds statistics to.
        detail: Numbers.
    """

    name: str
    kind: Literal["missing", "changed", "edited"]
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of `verify`.

    Attributes:
        checked: Names of the files that were compared.
        differences: Those that differ.
    """

    checked: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def intact(self) -> bool:
        """Whether every file holds what was written; an edited sidecar is no damage."""
        return all(entry.kind == "edited" for entry in self.differences)


def provenance_path(out: Path) -> Path:
    """Return the path of the provenance of a class map."""
    return out.with_name(f"{out.stem}.provenance.json")


def omnisat_version() -> str:
    """Return the version of the program, "unknown" where it runs without being installed."""
    return library_versions(("omnisat",)).get("omnisat", "unknown")


def library_versions(names: Iterable[str] = _LIBRARIES) -> dict[str, str]:
    """Return the versions of the installed libraries that shape a map."""
    found = ((name, _version(name)) for name in names)
    return {name: version for name, version in found if version is not None}


@lru_cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe(
    facts: RunFacts,
    legend: Legend,
    records: Sequence[BlockRecord],
    run: RunDescription,
    files: Sequence[FileDigest],
) -> Json:
    """Return the content of the provenance file.

    Args:
        facts: What all blocks share.
        legend: Meaning of the codes.
        records: The finished blocks.
        run: What the caller knows.
        files: The files of the output.
    """
    import rasterio

    return {
        "format": _FORMAT,
        "omnisat": omnisat_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(run.command),
        "model": asdict(run.model),
        "legend": {key: legend.to_json()[key] for key in ("id", "version", "source", "licence")},
        "inputs": {name: [asdict(i) for i in found] for name, found in run.inputs.items()},
        "decisions": {name: [asdict(d) for d in made] for name, made in run.decisions.items()},
        "dates": _dates(records),
        "area": dict(run.area),
        "grid": _grid(facts),
        "modalities": list(facts.modalities),
        "blocks": len(records),
        "holes": _holes(facts, records),
        "faults": _faults(records),
        "device": run.device,
        "threads": run.threads,
        "settings": dict(run.settings),
        "durations": {name: round(value, 3) for name, value in run.durations.items()},
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": library_versions() | {"gdal": rasterio.__gdal_version__},
        "files": {f.name: {"sha256": f.sha256, "size": f.size} for f in files},
    }


def write_provenance(path: Path, content: Json, *, redact_paths: bool = False) -> None:
    """Write the provenance file; credentials inside URLs never reach it.

    Args:
        path: Target.
        content: From `describe`.
        redact_paths: Keep file names only: folders may tell names of people and projects.
    """
    cleaned = _each_text(content, _without_secrets)
    if redact_paths:
        cleaned = _each_text(cleaned, _redactor(cleaned))
    disk.write_json(path, cleaned)


def verify(out: Path) -> Verification:
    """Compare every file of an output with its provenance.

    Args:
        out: Path of the class map.

    Raises:
        SourceError: If there is no provenance that can be read.
    """
    files = recorded_files(out)
    found = (_difference(out.with_name(entry.name), entry) for entry in files)
    return Verification(
        tuple(entry.name for entry in files), tuple(entry for entry in found if entry is not None)
    )


def recorded_files(out: Path) -> tuple[FileDigest, ...]:
    """Return the files the provenance of a class map lists, the provenance itself not included.

    Raises:
        SourceError: If there is no provenance that can be read.
    """
    path = provenance_path(out)
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise SourceError(f"{path} is larger than {_SIZE_LIMIT} bytes: not a provenance file")
        files = json.loads(path.read_bytes())["files"].items()
        listed = tuple(FileDigest(n, str(f["sha256"]), int(f["size"])) for n, f in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{out} cannot be verified: its provenance {path} cannot be read ({error})"
        ) from error
    if any(Path(entry.name).name != entry.name or "\0" in entry.name for entry in listed):
        raise SourceError(f"{path} lists files outside its own folder; it was not made by omnisat")
    return listed


def _difference(path: Path, recorded: FileDigest) -> Difference | None:
    try:
        found = FileDigest.of(path)
    except OSError as error:
        return Difference(path.name, "missing", str(error))
    if found == recorded:
        return None
    detail = (
        f"sha256 {found.sha256[:16]}… of {found.size} bytes, written as {recorded.sha256[:16]}… "
        f"of {recorded.size} bytes"
    )
    return Difference(path.name, "edited" if path.name.endswith(_EDITABLE) else "changed", detail)


def _grid(facts: RunFacts) -> Json:
    frame = facts.frame
    return {
        "crs": facts.crs,
        "pixel": facts.gsd / facts.refine,
        "height": frame.height,
        "width": frame.width,
        "transform": list(facts.lattice.transform(frame, facts.refine)),
        "bounds": list(facts.lattice.bounds(frame, facts.refine)),
        "anchor": {"gsd": facts.gsd, "area": list(facts.area), "refine": facts.refine},
    }


def _dates(records: Sequence[BlockRecord]) -> Json:
    """Return every date that was used anywhere, by modality."""
    used: dict[str, set[str]] = {}
    for record in records:
        for name, dates in record.dates.items():
            used.setdefault(name, set()).update(dates)
    return {name: sorted(dates) for name, dates in sorted(used.items())}


def _holes(facts: RunFacts, records: Sequence[BlockRecord]) -> list[Json]:
    hectares = (facts.gsd / facts.refine) ** 2 / _SQUARE_METRES
    return [
        {
            "block": list(record.index),
            "window": list(record.window),
            "reason": reason,
            "pixels": count,
            "hectares": round(count * hectares, 6),
            **({"note": record.note} if record.note else {}),
        }
        for record in records
        for reason, count in record.holes.items()
    ]


def _faults(records: Sequence[BlockRecord]) -> list[Json]:
    """Return the blocks that lack a part of their imagery, whether or not that left a hole."""
    return [
        {"block": list(record.index), "window": list(record.window), "note": record.note}
        for record in records
        if record.note
    ]


def _each_text(value: object, change: Redaction) -> Json:
    """Return JSON with every text, keys included, changed."""

    def walk(part: object) -> object:
        if isinstance(part, str):
            return change(part)
        if isinstance(part, dict):
            return {change(str(key)): walk(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [walk(item) for item in part]
        return part

    changed = walk(value)
    return changed if isinstance(changed, dict) else {}


def _without_secrets(text: str) -> str:
    """Drop user names, passwords and query strings (signatures) of URLs."""
    return _QUERY.sub(r"\1", _SECRET.sub(r"\1", text))


def _redactor(content: Json) -> Redaction:
    """Return a function that cuts folders out of a text.

    Folders of the inputs and of the command line are known and may hold spaces; beside them, every
    absolute path loses its folders.
    """
    inputs, command = content.get("inputs"), content.get("command")
    tokens = command if isinstance(command, list) else []
    given = [str(token).rpartition("=")[2] for token in tokens]
    for identities in (inputs if isinstance(inputs, dict) else {}).values():
        given.extend(str(identity["path"]) for identity in identities)
    places = {Path(text).parent for text in given if "/" in text or "\\" in text}
    places |= {place.absolute() for place in places} | {Path.cwd(), Path.home()}
    folders = sorted((str(p) for p in places if p.name), key=lambda text: -len(text))

    def redact(text: str) -> str:
        for folder in folders:
            text = text.replace(f"{folder}/", "").replace(f"{folder}\\", "")
            text = "(folder)" if text == folder else text
        return _FOLDERS.sub("", text)

    return redact
