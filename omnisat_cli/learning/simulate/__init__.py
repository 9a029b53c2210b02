"""Simulated landscapes with co-registered images, series and truth.

`simulate(SceneSpec(seed))` makes a scene in memory; `files.write_scene` writes it as the files that
users bring, `files.write_simulation` does so for scenes larger than the memory.
"""

from omnisat_cli.learning.simulate.legend import LEGEND_FILE, sim_legend
from omnisat_cli.learning.simulate.scene import simulate, simulate_tiles
from omnisat_cli.learning.simulate.values import Frame, Parcel, Scene, SceneSpec

__all__ = [
    "LEGEND_FILE",
    "Frame",
    "Parcel",
    "Scene",
    "SceneSpec",
    "sim_legend",
    "simulate",
    "simulate_tiles",
]
