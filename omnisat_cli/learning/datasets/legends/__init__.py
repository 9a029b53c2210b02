"""Class schemes that occur in one dataset alone."""

from pathlib import Path

from omnisat_cli.outputs.legend import Legend, load_legend


def dataset_legend(name: str) -> Legend:
    """Read a legend of this folder."""
    return load_legend(Path(__file__).with_name(f"{name}.json"))
