"""Published datasets and folders of scenes, read as they lie on disk; see `table`."""

from omnisat_cli.learning.datasets.request import Options, Request
from omnisat_cli.learning.datasets.table import DATASETS, Dataset, open_dataset

__all__ = ["DATASETS", "Dataset", "Options", "Request", "open_dataset"]
