"""THE table of datasets. To add one, add its reader beside this file and an entry here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets.request import Options, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from omnisat_cli.learning.examples import Examples


@dataclass(frozen=True, slots=True)
class Dataset:
    """One entry.

    Attributes:
        name: What `open_dataset` calls it.
        module: File of its reader in this folder, which has `open_examples(request)`.
        summary: One line for a list.
        licence: As its publishers state it.
        citation: What to cite.
        tags: Whether its reader has a rule of its own for what whole places hold; else they hold
            the classes that cover enough of them (`places`).
    """

    name: str
    module: str
    summary: str
    licence: str
    citation: str
    tags: bool = False


_TABLE = (
    Dataset(
        "scenes",
        "scenes",
        "a folder of scenes as `omnisat simulate` writes them, one folder each",
        "CC0-1.0",
        "omnisat, simulated landscapes",
    ),
    Dataset(
        "pastis-hd",
        "pastis",
        "18 crops in 1280 m tiles of France: Sentinel-2 and -1 series, SPOT 1 m (PASTIS, -R, -HD)",
        "Licence Ouverte 2.0",
        "Sainte Fare Garnot and Landrieu 2021, arXiv 2107.07933; 2022, arXiv 2112.07558; "
        "Astruc et al. 2024, arXiv 2404.08351",
        tags=True,
    ),
    Dataset(
        "flair",
        "flair",
        "land cover of France at 0.2 m with Sentinel series: FLAIR #1, #2 and FLAIR-HUB",
        "Licence Ouverte 2.0",
        "Garioud et al. 2022, arXiv 2211.12979; 2023, arXiv 2310.13336; 2025, arXiv 2506.07080",
        tags=True,
    ),
    Dataset(
        "treesatai-ts",
        "treesatai",
        "15 tree genera in 60 m tiles of Lower Saxony: aerial 0.2 m, Sentinel-1 and -2 series",
        "CC-BY-4.0",
        "Ahlswede et al. 2023, doi 10.5194/essd-15-681-2023; Astruc et al. 2024, arXiv 2404.08351",
        tags=True,
    ),
    Dataset(
        "sen1floods11",
        "floods",
        "water in chips of eleven floods: one Sentinel-1 and one Sentinel-2 image each",
        "not stated; free to download",
        "Bonafilia et al. 2020, doi 10.1109/CVPRW50498.2020.00113",
    ),
    Dataset(
        "bradd-s1ts",
        "bradd",
        "forest loss between two dates in the Amazon: Sentinel-1 series of 480 m",
        "CC-BY-4.0",
        "Karaman et al. 2023, doi 10.5194/isprs-annals-X-1-W1-2023-835-2023",
    ),
    Dataset(
        "timesen2crop",
        "timesen2crop",
        "16 crops in a million single pixels of Austria: Sentinel-2 series",
        "CC-BY-4.0",
        "Weikmann et al. 2021, doi 10.1109/JSTARS.2021.3073965",
    ),
    Dataset(
        "sickle",
        "sickle",
        "paddy and other crops around plots of the Cauvery delta: Sentinel-2, -1, Landsat 8 series",
        "not stated; on request from its publishers",
        "Sani et al. 2024, WACV; arXiv 2312.00069",
    ),
    Dataset(
        "planted",
        "planted",
        "40 species of planted trees in 120 m tiles of the world: Sentinel-2 and -1, Landsat 7, "
        "ALOS-2, MODIS",
        "CC-BY-4.0",
        "Pazos-Outón et al. 2024, arXiv 2406.18554",
        tags=True,
    ),
    Dataset(
        "s2-naip",
        "s2naip",
        "640 m tiles of the United States: NAIP 1.25 m, Sentinel-2 and -1; classes of WorldCover",
        "Apache-2.0",
        "Allen Institute for AI 2024, AI2-S2-NAIP; Wolters et al. 2023, arXiv 2311.18082",
    ),
)

DATASETS: Mapping[str, Dataset] = MappingProxyType({entry.name: entry for entry in _TABLE})


def open_dataset(
    name: str,
    root: str | Path,
    *,
    split: str | None = None,
    folds: Sequence[str | int] | None = None,
    modalities: Sequence[str] | None = None,
    options: Options | None = None,
) -> Examples:
    """Open a dataset in the folder structure it is published in; nothing is converted.

    Args:
        name: Of the table.
        root: Folder the dataset lies in.
        split: Official part; None = everything.
        folds: Official folds, or domains; None = all.
        modalities: Sensors to read; None = all.
        options: Windows, patches, task and the like.

    Raises:
        JobError: If the dataset, its part or its options are unknown.
        SourceError: If files of the layout are missing or damaged.
    """
    if name not in DATASETS:
        raise JobError(f"unknown dataset {name!r}; this version reads {', '.join(DATASETS)}")
    folder = Path(root)
    if not folder.is_dir():
        raise SourceError(f"{name}: {folder} is no folder; give the folder the dataset lies in")
    request = Request(
        name=name,
        root=folder,
        split=split,
        folds=tuple(str(fold) for fold in folds or ()),
        modalities=None if modalities is None else tuple(modalities),
        options=options or Options(),
    )
    module = import_module(f"omnisat_cli.learning.datasets.{DATASETS[name].module}")
    opener: Callable[[Request], Examples] = module.open_examples
    if request.options.task != "multilabel" or DATASETS[name].tags:
        return opener(request)
    from omnisat_cli.learning.datasets.places import WholePlaces

    pixels = replace(request, options=replace(request.options, task=None))
    return WholePlaces(opener(pixels))
