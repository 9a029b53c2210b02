"""Simulated landscapes with co-registered images, series and truth.

`simulate(SceneSpec(seed))` makes a scene in memory, `write_scene` writes it as users' files look.
"""

from omnisat_cli.learning.simulate.legend import LEGEND_FILE, sim_legend
from omnisat_cli.learning.simulate.scene import simulate
from omnisat_cli.learning.simulate.values import Frame, Parcel, Scene, SceneSpec

__all__ = [
    "LEGEND_FILE",
    "Frame",
    "Parcel",
    "Scene",
    "SceneSpec",
    "sim_legend",
    "simulate",
]
