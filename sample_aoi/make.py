"""Make the sample area again: `python sample_aoi/make.py`. The same program makes the same bytes.

The seed lies outside the seeds that the bundled model learned from and was scored on.
"""

from __future__ import annotations

from pathlib import Path

from omnisat_cli.learning.simulate import SceneSpec
from omnisat_cli.learning.simulate.files import Gap, Layout, write_simulation

SPEC = SceneSpec(
    seed=2096,
    width_m=1000,
    height_m=1000,
    aerial_gsd=0.5,
    year=2023,
    origin=(606_300, 6_817_000),  # a square kilometre that shows every class
)
LAYOUT = Layout(aerial_gap=Gap("east", 0.2), s1_gap=Gap("south", 0.2))

if __name__ == "__main__":
    write_simulation(SPEC, Path(__file__).parent, LAYOUT)
