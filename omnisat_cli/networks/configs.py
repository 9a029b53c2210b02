"""What an OmniSat network is made of, as frozen values that survive JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")
Position = Literal["official", "geographic"]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """Encoder of an image modality.

    Attributes:
        name: Modality.
        bands: Bands of the image.
        patch_px: Side of a patch, image pixels.
    """

    name: str
    bands: int
    patch_px: int

    def __post_init__(self) -> None:
        """Refuse sizes that no encoder can have."""
        _positive(self, "bands", "patch_px")

    @property
    def fine_side(self) -> int:
        """Side of the finest feature map of a patch: that of the strided stem."""
        return (self.patch_px + 1) // 2


@dataclass(frozen=True, slots=True)
class SeriesConfig:
    """Encoder of a time series.

    Attributes:
        name: Modality.
        bands: Bands of a date.
        patch_px: Side of a patch, series pixels.
        in_norm: Normalise the dates of a patch together before attention (Sentinel-2).
        period: Base of the day encoding.
        widths_in: Widths of the per-date layers; the last is the width of the attention.
        widths_out: Widths of the layers after attention; the last is the width of the token.
        heads: Attention heads over dates, also the groups of both normalisations.
        key_width: Width of a key.
        dropout: Rate in the layers before and after attention.
        attention_dropout: Rate on the attention weights.
        day: Day of every date when the series is a single undated image, else None.
    """

    name: str
    bands: int
    patch_px: int = 1
    in_norm: bool = False
    period: int = 367
    widths_in: tuple[int, ...] = (32, 128, 256)
    widths_out: tuple[int, ...] = (256, 512, 256)
    heads: int = 16
    key_width: int = 8
    dropout: float = 0.2
    attention_dropout: float = 0.1
    day: int | None = None

    def __post_init__(self) -> None:
        """Refuse widths that the heads do not divide."""
        _positive(self, "bands", "patch_px", "period", "heads", "key_width")
        object.__setattr__(self, "widths_in", tuple(self.widths_in))
        object.__setattr__(self, "widths_out", tuple(self.widths_out))
        for label, width in (("in", self.widths_in[-1]), ("out", self.widths_out[-1])):
            if width % self.heads:
                raise ValueError(
                    f"{self.name}: width {width} ({label}) is not a multiple of {self.heads} heads"
                )


ModalityConfig: TypeAlias = ImageConfig | SeriesConfig


@dataclass(frozen=True, slots=True)
class OmniSatConfig:
    """An OmniSat encoder.

    Attributes:
        width: Width of every token.
        depth: Self-attention blocks before the combiner.
        heads: Heads of the trunk.
        grid: Rows and columns of patches of a window.
        modalities: Encoders, in the order of construction (it matters in official mode).
        mlp_ratio: Hidden width of a block's MLP over `width`.
        position: "official" infers token positions from the sequence length as the published code
            does; "geographic" gives every token the position of its patch.
        dropout: Rate on attention, projections and MLPs of the trunk.
        drop_path: Stochastic depth of the last block; the first has 0, between them it is linear.
        combiner_drop_path: Rate at which the whole combiner output before its MLP is dropped.
    """

    width: int
    depth: int
    heads: int
    grid: tuple[int, int]
    modalities: tuple[ModalityConfig, ...]
    mlp_ratio: float = 4.0
    position: Position = "geographic"
    dropout: float = 0.0
    drop_path: float = 0.0
    combiner_drop_path: float = 0.0

    def __post_init__(self) -> None:
        """Refuse contradictions between the parts."""
        object.__setattr__(self, "grid", (int(self.grid[0]), int(self.grid[1])))
        object.__setattr__(self, "modalities", tuple(self.modalities))
        _positive(self, "width", "depth", "heads")
        if self.position not in get_args(Position):
            raise ValueError(f"position {self.position!r} is none of {get_args(Position)}")
        if min(self.grid) < 1 or not self.modalities:
            raise ValueError(f"grid {self.grid} with {len(self.modalities)} modalities is empty")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"modality given twice: {', '.join(self.names)}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads and of 4")
        for part in self.modalities:
            if isinstance(part, SeriesConfig) and part.widths_out[-1] != self.width:
                raise ValueError(
                    f"{part.name} ends at width {part.widths_out[-1]}, tokens have {self.width}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities in the order of construction."""
        return tuple(part.name for part in self.modalities)

    @property
    def images(self) -> tuple[ImageConfig, ...]:
        """Image modalities in the order of construction."""
        return tuple(part for part in self.modalities if isinstance(part, ImageConfig))

    def modality(self, name: str) -> ModalityConfig:
        """Look an encoder up.

        Raises:
            ValueError: If the network has none of that name.
        """
        for part in self.modalities:
            if part.name == name:
                return part
        raise ValueError(f"the network has no {name!r}; it has {', '.join(self.names)}")

    def subset(self, names: Iterable[str]) -> OmniSatConfig:
        """Return the same network built from some of the modalities, in the order of `names`."""
        return replace(self, modalities=tuple(self.modality(name) for name in names))

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        plain = asdict(self)
        plain["modalities"] = [
            {"kind": "image" if isinstance(part, ImageConfig) else "series", **asdict(part)}
            for part in self.modalities
        ]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> OmniSatConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        known = dict(plain)
        parts = known.get("modalities")
        if not isinstance(parts, list | tuple):
            raise ValueError(f"'modalities' must be a list, found {parts!r}")
        known["modalities"] = tuple(_modality_from(part) for part in parts)
        return build(cls, known)


def _modality_from(plain: object) -> ModalityConfig:
    if not isinstance(plain, dict):
        raise ValueError(f"a modality must be a table, found {plain!r}")
    values = dict(plain)
    kind = values.pop("kind", None)
    if kind == "image":
        return build(ImageConfig, values)
    if kind == "series":
        return build(SeriesConfig, values)
    raise ValueError(f"modality kind must be 'image' or 'series', found {kind!r}")


def build(cls: type[T], values: Mapping[str, object]) -> T:
    """Build a configuration from plain values.

    Raises:
        ValueError: If a key is unknown or missing, or a value has the wrong type or range.
    """
    known = {entry.name for entry in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{cls.__name__}: unknown {', '.join(unknown)}; known: {sorted(known)}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{type(config).__name__}.{name} must be a whole number above 0: {value!r}"
            )


@dataclass(frozen=True, slots=True)
class OfficialSize:
    """Sizes shared by the published OmniSat networks; the defaults are theirs."""

    width: int = 256
    depth: int = 6
    heads: int = 16
    mlp_ratio: float = 4.0
    widths_in: tuple[int, ...] = (32, 128, 256)
    widths_out: tuple[int, ...] = (256, 512, 256)
    series_heads: int = 16
    key_width: int = 8


_UNDATED_DAY = 120  # day that the published code gives to single undated Sentinel images


def treesat_config(
    modalities: Iterable[str] = ("aerial", "s2", "s1-asc"),
    *,
    side: int = 6,
    size: OfficialSize | None = None,
) -> OmniSatConfig:
    """Return the published network for TreeSatAI-TS: `side`² patches of 10 m, 0.2 m imagery."""
    bands = {"aerial": 4, "s2": 10, "s1": 2}
    return _official(modalities, bands, side, size, image_px=50, series_px=1, period=367)


def flair_config(
    modalities: Iterable[str] = ("aerial", "s2"),
    *,
    side: int = 10,
    size: OfficialSize | None = None,
) -> OmniSatConfig:
    """Return the published network for FLAIR: 10 m patches, 0.2 m imagery with elevation."""
    bands = {"aerial": 5, "s2": 10, "s1": 2}
    return _official(modalities, bands, side, size, image_px=50, series_px=1, period=367)


def pastis_config(
    modalities: Iterable[str] = ("aerial", "s2", "s1-asc"),
    *,
    side: int = 32,
    size: OfficialSize | None = None,
) -> OmniSatConfig:
    """Return the published network for PASTIS-HD: 40 m patches, 1 m imagery, days since a start."""
    bands = {"aerial": 3, "s2": 10, "s1": 3}
    return _official(modalities, bands, side, size, image_px=40, series_px=4, period=734)


def _official(  # noqa: PLR0913 - one table row of the specification
    names: Iterable[str],
    bands: Mapping[str, int],
    side: int,
    size: OfficialSize | None,
    *,
    image_px: int,
    series_px: int,
    period: int,
) -> OmniSatConfig:
    size = size or OfficialSize()
    parts: list[ModalityConfig] = []
    for name in names:
        sensor = name.split("-")[0]
        if sensor not in bands:
            raise ValueError(f"no published network has {name!r}; they have {', '.join(bands)}")
        if sensor == "aerial":
            parts.append(ImageConfig(name, bands[sensor], image_px))
            continue
        parts.append(
            SeriesConfig(
                name,
                bands[sensor],
                series_px,
                in_norm=sensor == "s2",
                period=period,
                widths_in=size.widths_in,
                widths_out=size.widths_out,
                heads=size.series_heads,
                key_width=size.key_width,
                day=_UNDATED_DAY if name.endswith("-mono") else None,
            )
        )
    drop_path = 0.2
    # The published combiner takes the rate of the block of index "number of modalities - 1".
    rate = drop_path * min(len(parts) - 1, size.depth - 1) / max(size.depth - 1, 1)
    return OmniSatConfig(
        size.width,
        size.depth,
        size.heads,
        (side, side),
        tuple(parts),
        mlp_ratio=size.mlp_ratio,
        position="official",
        dropout=0.2,
        drop_path=drop_path,
        combiner_drop_path=rate,
    )
