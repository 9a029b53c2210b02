"""What an AnySat network is made of: the table of its sensors and its sizes, as frozen values.

Source: "AnySat: One Earth Observation Model for Many Resolutions, Scales, and Modalities" (Astruc
et al., CVPR 2025).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from omnisat_cli.networks.configs import SeriesConfig, build

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["image", "series"]
Behaviour = Literal["corrected", "official"]
TrunkAttention = Literal["tokens", "heads"]
CELL_M = 10  # ground side that a patch is a whole number of


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor: what its pixels are and how patches of them are cut.

    Attributes:
        name: Modality.
        kind: "image", or "series" of dates encoded pixel by pixel.
        bands: Bands of the image or of a date.
        gsd_m: Side of a pixel, metres.
        subpatch_px: Side of a sub-patch, pixels; 1 for series.
        period: Base of the day encoding of a series.
        in_norm: Normalise the dates of a pixel together before attention.
        whole_window: One pixel for the whole window, which gives one token without a position.
    """

    name: str
    kind: Kind
    bands: int
    gsd_m: float
    subpatch_px: int = 1
    period: int = 367
    in_norm: bool = False
    whole_window: bool = False

    def __post_init__(self) -> None:
        """Refuse sensors that no encoder can read."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.name}: kind {self.kind!r} is none of {get_args(Kind)}")
        if min(self.bands, self.subpatch_px, self.period) < 1 or self.gsd_m <= 0:
            raise ValueError(f"{self.name}: bands, sizes and period must be above 0")
        if self.kind == "series" and self.subpatch_px != 1:
            raise ValueError(f"{self.name}: a series is encoded pixel by pixel (subpatch_px 1)")

    @property
    def subpatch_m(self) -> float:
        """Side of a sub-patch, metres."""
        return self.gsd_m * self.subpatch_px

    @property
    def cell_side(self) -> int:
        """Sub-patches along a cell of 10 m, at least 1."""
        return max(round(CELL_M / self.subpatch_m), 1)

    def patch_side(self, patch_m: int, behaviour: Behaviour = "corrected") -> int:
        """Return how many sub-patches lie along a patch.

        Args:
            patch_m: Side of a patch, metres.
            behaviour: "official" takes coarse sensors for sensors of 10 m, as the release does.

        Raises:
            ValueError: If the patch is no whole number of 10 m cells or of sub-patches.
        """
        if patch_m < CELL_M or patch_m % CELL_M:
            raise ValueError(f"a patch is a multiple of {CELL_M} m, found {patch_m} m")
        if behaviour == "official":
            return self._official_side(patch_m // CELL_M)
        if self.whole_window:
            return 1
        side = round(patch_m / self.subpatch_m)
        if side < 1 or abs(side * self.subpatch_m - patch_m) > 1e-6:
            raise ValueError(
                f"{self.name}: a patch of {patch_m} m holds no whole number of sub-patches of "
                f"{self.subpatch_m:g} m; use a patch size that is a multiple of both"
            )
        return side

    def _official_side(self, scale: int) -> int:
        side = scale * self.cell_side
        coded = max(int(CELL_M * scale / self.subpatch_m + 1e-9), 1)
        if self.whole_window or coded != side:
            raise ValueError(
                f"{self.name}: the published release cannot run patches of {CELL_M * scale} m; "
                "use behaviour='corrected'"
            )
        return side


SENSORS: Mapping[str, Sensor] = MappingProxyType(
    {
        sensor.name: sensor
        for sensor in (
            Sensor("aerial", "image", 4, 0.2, 10),
            Sensor("aerial-flair", "image", 5, 0.2, 10),
            Sensor("spot", "image", 3, 1.0, 10),
            Sensor("naip", "image", 4, 1.25, 8),
            Sensor("s2", "series", 10, 10.0, in_norm=True),
            Sensor("s1-asc", "series", 2, 10.0),
            Sensor("s1", "series", 3, 10.0),
            Sensor("alos", "series", 3, 30.0),
            Sensor("l7", "series", 6, 30.0),
            Sensor("l8", "series", 11, 10.0, period=366),
            Sensor("modis", "series", 7, 250.0, whole_window=True),
        )
    }
)


@dataclass(frozen=True, slots=True)
class AnySatConfig:
    """An AnySat; the defaults are the published "base".

    Attributes:
        width: Width of every token.
        depth: Self-attention blocks of the trunk, before the combiner.
        heads: Heads of the trunk and of the spatial encoder.
        spatial_depth: Blocks of the spatial encoder; None is `depth`.
        mlp_ratio: Hidden width of a block's MLP over `width`.
        sensors: Sensors the network has a projector for.
        series_heads: Attention heads over dates.
        key_width: Width of their keys.
        behaviour: "corrected" cuts patches of coarse sensors by their ground size, takes MODIS
            beside the others, leaves pixels that are not valid out of everything, and lays dense
            maps of fine images out by position. "official" is the published release: coarse
            sensors count as 10 m, MODIS is refused, pixels that are not valid become a learned
            number, and dense maps of fine images are permuted inside patches above 10 m.
        trunk_attention: "tokens" is attention between tokens; "heads" is what the release's
            flash-attention branch computes by that library's contract: between the heads of one
            token.
    """

    width: int = 768
    depth: int = 6
    heads: int = 12
    spatial_depth: int | None = None
    mlp_ratio: float = 4.0
    sensors: tuple[Sensor, ...] = tuple(SENSORS.values())
    series_heads: int = 16
    key_width: int = 8
    behaviour: Behaviour = "corrected"
    trunk_attention: TrunkAttention = "tokens"

    def __post_init__(self) -> None:
        """Refuse contradictions between the parts."""
        object.__setattr__(self, "sensors", tuple(self.sensors))
        for name in ("width", "depth", "heads", "series_heads", "key_width", "spatial_depth"):
            value = getattr(self, name)
            if name == "spatial_depth" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number above 0, found {value!r}")
        if self.width % self.heads or self.width % self.series_heads or self.width % 32:
            raise ValueError(
                f"width {self.width} is not a multiple of {self.heads} heads, "
                f"{self.series_heads} series heads and 32"
            )
        if self.width < 64:  # groups of one channel would normalise everything away
            raise ValueError(f"width {self.width} is below 64")
        if not self.sensors or len(set(self.names)) != len(self.names):
            raise ValueError(f"sensors must be some, each once; found {', '.join(self.names)}")
        if self.behaviour not in get_args(Behaviour):
            raise ValueError(f"behaviour {self.behaviour!r} is none of {get_args(Behaviour)}")
        if self.trunk_attention not in get_args(TrunkAttention):
            raise ValueError(
                f"trunk_attention {self.trunk_attention!r} is none of {get_args(TrunkAttention)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sensors."""
        return tuple(sensor.name for sensor in self.sensors)

    @property
    def spatial_blocks(self) -> int:
        """Blocks of the spatial encoder."""
        return self.depth if self.spatial_depth is None else self.spatial_depth

    def sensor(self, name: str) -> Sensor:
        """Look a sensor up.

        Raises:
            ValueError: If the network has none of that name.
        """
        for sensor in self.sensors:
            if sensor.name == name:
                return sensor
        raise ValueError(f"the network has no {name!r}; it has {', '.join(self.names)}")

    def series(self, sensor: Sensor) -> SeriesConfig:
        """Return the temporal encoder of a series."""
        width = self.width
        return SeriesConfig(
            sensor.name,
            sensor.bands,
            in_norm=sensor.in_norm,
            period=sensor.period,
            widths_in=(width // 8, width // 2, width, 2 * width, width),
            widths_out=(width,),
            heads=self.series_heads,
            key_width=self.key_width,
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> AnySatConfig:
        """Rebuild from `to_dict`; a sensor may be the name of one in `SENSORS`.

        Raises:
            ValueError: If a key is unknown or a value has the wrong type or range.
        """
        known = dict(plain)
        if "sensors" in known:
            parts = known["sensors"]
            if not isinstance(parts, list | tuple):
                raise ValueError(f"'sensors' must be a list, found {parts!r}")
            known["sensors"] = tuple(_sensor_from(part) for part in parts)
        return build(cls, known)


def _sensor_from(plain: object) -> Sensor:
    if isinstance(plain, str) and plain in SENSORS:
        return SENSORS[plain]
    if not isinstance(plain, dict):
        raise ValueError(f"a sensor is a table or one of {', '.join(SENSORS)}; found {plain!r}")
    return build(Sensor, plain)


def hub_config(size: Literal["tiny", "small", "base"]) -> AnySatConfig:
    """Return a published size; only "base" has published weights."""
    width, depth, heads = {"tiny": (256, 2, 4), "small": (512, 4, 8), "base": (768, 6, 12)}[size]
    return AnySatConfig(width, depth, heads)
