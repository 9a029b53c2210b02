"""What there is to learn from: places with imagery and labels, from files or from datasets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from omnisat_cli.outputs.legend import Legend
    from omnisat_cli.sources.values import Sample

Task = Literal["segmentation", "multilabel"]
"""One class a pixel, or any number of classes a place."""

UNLABELLED = 255
"""Code of pixels that teach nothing."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One modality as a set of examples delivers it.

    Attributes:
        name: Name in the table of sensors.
        bands: Canonical names, in the order of axis C.
        gsd: Pixel in metres; divides the patch.
        units: Unit of the pixels: the canonical one of the sensor, or "linear" power.
        dates: How the dataset's networks count days (series only).
    """

    name: str
    bands: tuple[str, ...]
    gsd: float
    units: Literal["dn8", "reflectance_1e4", "db", "linear"]
    dates: Literal["day-of-year", "days-since-2018-09-01"] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One place. Everything lies on one lattice whose anchor pixel is a patch.

    Attributes:
        sample: Imagery over a window of h × w patches, in the units of the `Channel`s; an absent
            modality is an absent key.
        classes: (H, W) uint8 legend codes, 255 = not labelled; H is a multiple of h. None where
            the task is not segmentation or nothing is labelled.
        parcels: (H, W) int32 parcel numbers, 0 = none known; None where borders are not known.
        tags: (K,) uint8, 1 where the place holds class k of the legend (multi-label); None where
            the task is another or nothing is labelled.
    """

    sample: Sample
    classes: NDArray[np.uint8] | None = None
    parcels: NDArray[np.int32] | None = None
    tags: NDArray[np.uint8] | None = None


class Examples(Protocol):
    """A set of places; reading one is repeatable and safe from several threads or processes.

    It pickles small: it holds paths, not pixels (a cache is not pickled).
    """

    @property
    def name(self) -> str:
        """What the set is, for messages, cards and provenance ("pastis-hd folds 1,2,3")."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The modalities an example may have, in a stable order."""

    @property
    def patch_m(self) -> float:
        """Side of a patch in metres."""

    @property
    def task(self) -> Task:
        """What the labels are."""

    @property
    def legend(self) -> Legend:
        """The classes."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the spatial block or official fold of each example: never split across sets."""

    def __len__(self) -> int:
        """Return N."""

    def example(self, index: int) -> Example:
        """Read one place.

        Raises:
            SourceError: If its files are missing or damaged.
        """
