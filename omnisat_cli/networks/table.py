"""THE table of networks. To add a network, write its file and add a line here."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch.overrides import TorchFunctionMode

from omnisat_cli.networks.anysat_scales import AnySatScales
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenter, AnySatSegmenterConfig
from omnisat_cli.networks.dual_stream import DualStream, DualStreamConfig
from omnisat_cli.networks.probe import Probe, ProbeConfig
from omnisat_cli.networks.seam import HasTraits, PatchLocal, Traits
from omnisat_cli.networks.segmenter import OmniSatSegmenter, SegmenterConfig
from omnisat_cli.networks.tile import AnySatTile, AnySatTileConfig, OmniSatTile, TileConfig
from omnisat_cli.networks.unet import UNet, UNetConfig
from omnisat_cli.networks.utae import UTAE, UtaeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn


def _anysat(config: AnySatSegmenterConfig) -> AnySatSegmenter:
    return AnySatScales(config) if config.scales else AnySatSegmenter(config)


NETWORKS: Mapping[str, Callable[[Mapping[str, object]], nn.Module]] = MappingProxyType(
    {
        "omnisat": lambda plain: OmniSatSegmenter(SegmenterConfig.from_dict(plain)),
        "unet": lambda plain: UNet(UNetConfig.from_dict(plain)),
        "utae": lambda plain: UTAE(UtaeConfig.from_dict(plain)),
        "dual-stream": lambda plain: DualStream(DualStreamConfig.from_dict(plain)),
        "omnisat-tile": lambda plain: OmniSatTile(TileConfig.from_dict(plain)),
        "anysat-tile": lambda plain: AnySatTile(AnySatTileConfig.from_dict(plain)),
        "anysat": lambda plain: _anysat(AnySatSegmenterConfig.from_dict(plain)),
        "probe": lambda plain: _build_probe(ProbeConfig.from_dict(plain)),
    }
)


def build_network(kind: str, config: Mapping[str, object]) -> nn.Module:
    """Build an untrained network.

    Args:
        kind: Entry of `NETWORKS`.
        config: Its configuration as plain values.

    Raises:
        ValueError: If the kind or something in the configuration is unknown or out of range.
    """
    if kind not in NETWORKS:
        raise ValueError(f"unknown network {kind!r}; this version knows {', '.join(NETWORKS)}")
    return NETWORKS[kind](config)


def _build_probe(config: ProbeConfig) -> Probe:
    return Probe(config, build_network(config.base, config.base_config))


_RANDOM = frozenset({"normal_", "uniform_", "erfinv_", "kaiming_uniform_", "trunc_normal_"})


class _Unset(TorchFunctionMode):
    """Leave parameters as they are: what fills them on no device takes seconds to import."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call anything but what draws numbers."""
        del types
        named = dict(kwargs or {})
        if getattr(func, "__name__", "") in _RANDOM:
            return args[0] if args else named.get("tensor")
        return func(*args, **named)


def traits_of(kind: str, config: Mapping[str, object]) -> Traits | None:
    """Return what a run must know of a network before its weights are read.

    Returns:
        None for a network that sees whole windows.

    Raises:
        ValueError: If the kind or something in the configuration is unknown or out of range.
    """
    with torch.device("meta"), _Unset():  # neither memory nor random numbers
        network = build_network(kind, config)
    if not isinstance(network, PatchLocal):
        return None
    return network.traits if isinstance(network, HasTraits) else Traits()
