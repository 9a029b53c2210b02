"""What the user wants, as frozen values.

`Job` is *what* (it is fingerprinted: another job is another map); `Execution` is *how* (device,
threads, memory: the same job gives the same map).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from omnisat_cli.errors import JobError
from omnisat_cli.modality import modality

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Input:
    """Files of one modality and what the user says about them.

    Attributes:
        modality: Name in the table of sensors; "s1" may hold both orbits.
        paths: Files, folders or patterns, as given.
        options: Overrides, (name, value) sorted by name, e.g. ("bands", "NIR,G,B,R"); a name that
            has several values is repeated.
    """

    modality: str
    paths: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        modality(self.modality)
        if not self.paths:
            raise JobError(f"no file given for {self.modality}")

    def option(self, name: str) -> str | None:
        """Return the value of an override, or None."""
        return next(iter(self.values(name)), None)

    def values(self, name: str) -> tuple[str, ...]:
        """Return every value of an override, in the order given."""
        return tuple(value for key, value in self.options if key == name)


@dataclass(frozen=True, slots=True)
class AreaRequest:
    """Where the map is wanted; all None = wherever the inputs are.

    Attributes:
        aoi: Vector file with polygons.
        aoi_crs: CRS of a file that does not state one.
        bbox: left, bottom, right, top.
        bbox_crs: CRS of `bbox`; None = that of the map.
    """

    aoi: str | None = None
    aoi_crs: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str | None = None

    def __post_init__(self) -> None:
        if self.aoi is not None and self.bbox is not None:
            raise JobError("give --aoi or --bbox, not both")

    @property
    def is_implicit(self) -> bool:
        """Whether the area is simply where the inputs are."""
        return self.aoi is None and self.bbox is None


@dataclass(frozen=True, slots=True)
class Job:
    """One area to map.

    Attributes:
        inputs: At most one entry a modality.
        model: Name or folder of the model pack.
        out: Path of the class map.
        area: Where.
        crs: CRS of the map; None = that of the finest input.
        resolution: Output pixel in metres; None = the finest the model gives with these inputs.
        patch_m: Patch size in metres, of those the model allows; None = the model's own.
        scales: Smaller patch sizes whose logits are averaged with those of `patch_m`.
        dates: First and last date (ISO) of the series that are used; None = all.
        missing_modality: "allow", or "fail" when a modality of the model has no file.
        on_error: "fail" at the first unreadable block, or make it a "hole".
        probabilities: Whether class probabilities are kept and exported.
        boundary: Whether the parcel-boundary probability is exported.
    """

    inputs: tuple[Input, ...]
    model: str
    out: Path
    area: AreaRequest = AreaRequest()
    crs: str | None = None
    resolution: float | None = None
    dates: tuple[str, str] | None = None
    missing_modality: Literal["allow", "fail"] = "allow"
    on_error: Literal["fail", "hole"] = "fail"
    probabilities: bool = False
    boundary: bool = False
    patch_m: float | None = None
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.inputs:
            raise JobError("no imagery given: pass at least one of --aerial, --s2, --s1 …")
        names = [entry.modality for entry in self.inputs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise JobError(f"{', '.join(twice)} given twice")

    def facts(self) -> dict[str, object]:
        """Return what the fingerprint covers, as plain values; where the map goes is not part."""
        facts = asdict(self)
        facts.pop("out")
        for name in ("patch_m", "scales"):  # maps begun before there was a choice go on
            if not facts[name]:
                facts.pop(name)
        return facts


@dataclass(frozen=True, slots=True)
class Execution:
    """How a job is run; the map does not depend on it (a GPU: within its rounding).

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:n".
        batch: Windows a batch; None = chosen.
        block_m: Side of a block in metres; None = chosen from `memory_mb`.
        memory_mb: Bound on the memory of the process, in MiB.
        threads: Threads of the CPU kernels of a process; None = all cores, shared by the workers.
        prefetch: Blocks read ahead.
        workers: Processes that compute blocks; 1 = this process alone.
    """

    device: str = "auto"
    batch: int | None = None
    block_m: float | None = None
    memory_mb: int = 2048
    threads: int | None = None
    prefetch: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise JobError(f"--batch-size {self.batch}: at least 1")
        if self.workers < 1:
            raise JobError(f"--workers {self.workers}: at least 1")
        if self.memory_mb < 512 * self.workers:
            raise JobError(
                f"--memory {self.memory_mb} MiB: each of {self.workers} process(es) needs 512"
            )
