"""The card of a model pack: what the network eats, what it gives, where it comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from omnisat_cli.modality import modality

_WHOLE_PLACES = frozenset({"omnisat-tile", "anysat-tile"})
"""Networks that say of whole places which classes they hold."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModalityCard(_Frozen):
    """How one modality reaches the network.

    Attributes:
        name: Name in the table of sensors.
        bands: Canonical band names, in the order of the network's input channels; derived ones
            too ("ratio" of a radar: the difference of decibels, or the ratio of linear power).
        gsd: Pixel size the network was trained on, in metres.
        units: Unit of `mean` and `std`: the canonical one of the sensor, or "linear" power for
            radar networks that were not trained on decibels.
        mean: Mean of each band, subtracted.
        std: Standard deviation of each band, divided by.
        dates: How a date becomes a number (series only); "days-since-september" counts from the
            1 September from which most of the dates lie within 15 months.
        max_dates: Longest series the network was trained on; longer ones are thinned to the
            clearest dates, evenly spaced, never at random. None = no limit.
    """

    name: str
    bands: tuple[str, ...]
    gsd: Annotated[float, Field(gt=0)]
    units: Literal["dn8", "reflectance_1e4", "db", "linear"]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    dates: Literal["day-of-year", "days-since-2018-09-01", "days-since-september"] | None = None
    max_dates: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModalityCard:
        sensor = modality(self.name)
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError(
                f"{self.name}: {len(self.bands)} bands need as many means and deviations, "
                f"found {len(self.mean)} and {len(self.std)}"
            )
        unknown = sorted(set(self.bands) - {*sensor.bands, *sensor.derived})
        if unknown:
            raise ValueError(f"{self.name} has no band {', '.join(unknown)}")
        if (sensor.kind == "series") != (self.dates is not None):
            raise ValueError(f"{self.name} is a {sensor.kind}: `dates` does not fit")
        return self


class NetworkCard(_Frozen):
    """Which network, and the configuration that rebuilds it."""

    kind: str
    config: dict[str, object]


class WindowCard(_Frozen):
    """Fusion windows, in patches.

    Attributes:
        size: Side of the window the network was trained on.
        overlap: Patches shared by two neighbouring windows.
        cell: Side of an encoding cell.
    """

    size: Annotated[int, Field(gt=0)] = 16
    overlap: Annotated[int, Field(ge=0)] = 4
    cell: Annotated[int, Field(gt=0)] = 8


class Card(_Frozen):
    """Everything a user or the engine must know of a model.

    Attributes:
        patch_m: Side of a patch (a token's footprint) in metres.
        patch_sizes: Other patch sizes, in metres, at which the network may be run.
        coarse_m: Output pixel where only series exist, in metres.
        fine_m: Output pixel where a fine modality exists, in metres.
        boundary: Whether the network gives a parcel-boundary probability beside the classes.
        min_dates: Fewest clear dates that make a series usable at a pixel.
        scores: Measured figures, by test set, modality subset and metric.
        pretrained_only: Whether the head is untrained: the pack is a start for `train`, not a map.
        weights_sha256: Digest of weights.safetensors.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: str
    summary: str
    licence: str
    source: str
    training: str
    limits: str
    network: NetworkCard
    modalities: tuple[ModalityCard, ...]
    patch_m: Annotated[float, Field(gt=0)] = 10.0
    patch_sizes: tuple[Annotated[float, Field(gt=0)], ...] = ()
    coarse_m: Annotated[float, Field(gt=0)] = 10.0
    fine_m: Annotated[float, Field(gt=0)] = 10.0
    window: WindowCard = WindowCard()
    boundary: bool = False
    min_dates: Annotated[int, Field(gt=0)] = 1
    legend: str
    scores: dict[str, dict[str, dict[str, float]]] = {}
    pretrained_only: bool = False
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the card."""
        return tuple(entry.name for entry in self.modalities)

    @property
    def whole_places(self) -> bool:
        """Whether it says which classes a whole place holds, any number of them (multi-label)."""
        return self.network.kind in _WHOLE_PLACES

    @property
    def labels(self) -> str:
        """What it labels, in words."""
        if self.whole_places:
            return f"multi-label: any number of classes a place of {self.place_m:g} m"
        return "one class a pixel"

    @property
    def place_m(self) -> float:
        """Side in metres of the ground that is seen at once, and labelled as one."""
        return self.window.size * self.patch_m
