"""THE table of events. To add one, write it beside this file, add an entry here and its name."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from omnisat_cli.learning.simulate.clearing import Clearing
from omnisat_cli.learning.simulate.event import Event
from omnisat_cli.learning.simulate.flood import Flood

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnisat_cli.learning.simulate.values import SceneSpec

EVENTS: Mapping[str | None, type[Event]] = MappingProxyType(
    {None: Event, "flood": Flood, "clearing": Clearing}
)


def staged(spec: SceneSpec) -> SceneSpec:
    """Return the scene at a place where its event can be seen, unless it has a place already."""
    if spec.event is None or spec.origin is not None:
        return spec
    frame = EVENTS[spec.event].site(spec.seed, spec.frame)
    return replace(spec, origin=(frame.left, frame.top))
