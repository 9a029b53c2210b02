"""What is wanted of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from omnisat_cli.learning.examples import Channel, Task


@dataclass(frozen=True, slots=True)
class Options:
    """What a dataset can be asked for beside its parts; None = as the dataset is used officially.

    Attributes:
        side: Patches along a window; a larger place is cut into several.
        stride: Patches from one window to the next; None = `side`.
        patch_m: Side of a patch in metres.
        task: Whether pixels or places have classes.
        legend: Class scheme, where a dataset has several.
        clouds: "keep" every date as it is, or "mask" what the dataset's masks call cloud or snow.
        cache_mb: Bound on decoded imagery kept in memory, in MiB; labels take a quarter more.
    """

    side: int | None = None
    stride: int | None = None
    patch_m: float | None = None
    task: Task | None = None
    legend: str | None = None
    clouds: Literal["keep", "mask"] | None = None
    cache_mb: int = 2048

    def __post_init__(self) -> None:
        for name in ("side", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise JobError(f"{name} must be 1 patch or more, got {value}")


@dataclass(frozen=True, slots=True)
class Request:
    """One part of a dataset.

    Attributes:
        name: Of the dataset, for messages.
        root: Folder it lies in.
        split: Official part ("train", "val", "test"); None = everything.
        folds: Official folds or domains; empty = all of the split.
        modalities: Which sensors to read; None = all the files have.
        options: The rest.
    """

    name: str
    root: Path
    split: str | None = None
    folds: tuple[str, ...] = ()
    modalities: tuple[str, ...] | None = None
    options: Options = Options()

    @property
    def title(self) -> str:
        """The part in words: "pastis-hd folds 1, 2, 3"."""
        words = [self.name]
        if self.split is not None:
            words.append(self.split)
        if self.folds:
            words.append(f"folds {', '.join(self.folds)}")
        return " ".join(words)

    def chosen(self, channels: Iterable[Channel]) -> tuple[Channel, ...]:
        """Return the wanted ones of a dataset's channels, in the dataset's order.

        Raises:
            JobError: If a wanted sensor is not among them.
        """
        known = {channel.name: channel for channel in channels}
        wanted = known if self.modalities is None else dict.fromkeys(self.modalities)
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            raise JobError(
                f"{self.name} has no modality {', '.join(missing) or '(none asked for)'}; "
                f"it has {', '.join(known)}"
            )
        return tuple(channel for name, channel in known.items() if name in wanted)

    def patch(self, default: float, *others: float) -> float:
        """Return the patch in metres.

        Raises:
            JobError: If the dataset cannot be cut into such patches.
        """
        wanted = self.options.patch_m
        if wanted is None or wanted in (default, *others):
            return default if wanted is None else wanted
        choices = " or ".join(f"{side:g}" for side in sorted((default, *others)))
        raise JobError(f"{self.name} has patches of {choices} m, got {wanted:g} m")

    def refuse(self, *names: str) -> None:
        """Refuse parts and options that the dataset does not have.

        Args:
            *names: Fields of the request or of its options.

        Raises:
            JobError: If one was asked for.
        """
        for name in names:
            owner = self if name in ("split", "folds") else self.options
            if getattr(owner, name) not in (None, ()):
                raise JobError(f"{self.name} has no choice of {name}; leave it out")
