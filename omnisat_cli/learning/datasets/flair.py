"""FLAIR #1 and #2: land cover at 0.2 m over France, as published by IGN.

    flair_aerial_train/<domain>/<area>/img/IMG_<n>.tif        5 × 512 × 512: R, G, B, NIR, height
    flair_labels_train/<domain>/<area>/msk/MSK_<n>.tif        512 × 512, codes 1 to 19
    flair_sen_train/<domain>/<area>/sen/SEN2_sp_<domain>-<area>_{data,masks}.npy, …_products.txt
    flair_2_aerial_test/… flair_2_labels_test/… flair_2_sen_test/…      (or flair_1_… without sen)
    flair-2_centroids_sp_to_patch.json    image to its centre (row, column) in the super-area

A folder with `D*_AERIAL_LABEL-COSIA` in it is FLAIR-HUB: see `flair_hub`.

Of Sentinel-2, the 10 × 10 px around the centre are used. Classes: codes above 13 become 13 (other)
in the legend flair-13, as in the published experiments; flair-19 keeps all. Masks of cloud and snow
are not used unless asked for (`clouds="mask"`): then pixels with a probability of 60 or more are
clouded. (The baseline of FLAIR #2 instead drops a date where half of the ground is that cloudy.)

Parts: "test" is the test folder; "train" and "val" follow `flair-1-paths-<part>.csv` where these
lists lie in the root, else the eight published validation domains. `folds` may name domains.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from omnisat_cli.errors import JobError, SourceError
from omnisat_cli.learning.datasets import flair_hub
from omnisat_cli.learning.datasets.flair_patch import (
    PATCH_M,
    SIDE,
    centre,
    flair_cut,
    flair_legend,
    read_image,
    read_mask,
    tags_of,
)
from omnisat_cli.learning.datasets.layout import (
    need,
    number_groups,
    parse_days,
    read_json,
    read_lines,
    read_npy,
)
from omnisat_cli.learning.datasets.series import as_series
from omnisat_cli.learning.datasets.windows import Windows, slices_of
from omnisat_cli.learning.examples import Channel, Example, Examples, Task
from omnisat_cli.modality import MODALITIES, S2_BANDS
from omnisat_cli.sources.values import Image, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from omnisat_cli.geo.lattice import Window
    from omnisat_cli.learning.datasets.request import Request
    from omnisat_cli.learning.datasets.windows import Cut
    from omnisat_cli.outputs.legend import Legend

SPLITS = ("train", "val", "test")
VALIDATION = ("D004", "D014", "D029", "D031", "D058", "D066", "D067", "D077")
"""Departments of the published validation set."""

_EDITIONS = ("flair_{}_train", "flair_2_{}_test", "flair_1_{}_test", "flair_{}_test")
"""Folder of each part, by kind ("aerial", "labels", "sen")."""
_CENTROIDS = "flair-2_centroids_sp_to_patch.json"
_HIDDEN = 60
_DAYS: Final = "day-of-year"
_LAYOUT = (
    "FLAIR as published: flair_aerial_train/<domain>/<area>/img/IMG_<n>.tif, "
    "flair_labels_train/<domain>/<area>/msk/MSK_<n>.tif, flair_sen_train/<domain>/<area>/sen/"
    f"SEN2_sp_<domain>-<area>_data.npy, flair_2_…_test, {_CENTROIDS}"
)


@dataclass(frozen=True, slots=True)
class _Patch:
    """One image: folder pattern of its part, domain, area and number."""

    edition: str
    domain: str
    area: str
    number: str

    def folder(self, root: Path, kind: str, inner: str) -> Path:
        return root / self.edition.format(kind) / self.domain / self.area / inner


@dataclass(frozen=True, slots=True)
class FlairExamples:
    """Windows of patches of FLAIR #1 and #2; see `Examples`. A domain is a group."""

    name: str
    root: Path
    patches: tuple[_Patch, ...]
    channels: tuple[Channel, ...]
    cut: Cut
    legend: Legend = field(repr=False)
    task: Task
    masked: bool
    centroids: Mapping[str, tuple[int, int]] = field(repr=False)
    patch_m: float = PATCH_M

    @property
    def _windows(self) -> Windows[_Patch]:
        return Windows(self.patches, SIDE, self.cut)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) number of the domain of each window."""
        return np.repeat(number_groups(patch.domain for patch in self.patches), self._windows.each)

    def example(self, index: int) -> Example:
        """Read one window.

        Raises:
            SourceError: If a file of its patch is missing or damaged.
        """
        patch, window = self._windows.place(index)
        data: dict[str, Image | Series] = {}
        for channel in self.channels:
            if channel.name == "s2":
                data["s2"] = self._read_series(patch, window)
            else:
                path = patch.folder(self.root, "aerial", "img") / f"IMG_{patch.number}.tif"
                data[channel.name] = read_image(path, 5, len(channel.bands), window)
        return replace(self.labels(index), sample=Sample(window, data))

    def labels(self, index: int) -> Example:
        """Read the labels of one window.

        Raises:
            SourceError: If the mask of its patch is missing or damaged.
        """
        patch, window = self._windows.place(index)
        path = patch.folder(self.root, "labels", "msk") / f"MSK_{patch.number}.tif"
        merged = {} if 19 in self.legend.codes else dict.fromkeys(range(14, 20), 13)
        classes = read_mask(path, self.legend, merged)
        if self.task == "multilabel":
            return Example(Sample(window), tags=tags_of(classes, self.legend))
        return Example(Sample(window), classes=classes[centre(window)].copy())

    def _read_series(self, patch: _Patch, window: Window) -> Series:
        folder = patch.folder(self.root, "sen", "sen")
        stem = f"SEN2_sp_{patch.domain}-{patch.area}"
        stored = read_npy(folder / f"{stem}_data.npy", (None, len(S2_BANDS), None, None), "iuf")
        products = folder / f"{stem}_products.txt"
        days = parse_days((line[11:19] for line in read_lines(products)), products)
        if len(days) != len(stored):
            raise SourceError(f"{products} names {len(days)} products for {len(stored)} images")
        area = self._area(patch, window, stored.shape[2:])
        hidden = None
        if self.masked:
            shape = (len(days), 2, *stored.shape[2:])
            masks = read_npy(folder / f"{stem}_masks.npy", shape, "iuf")
            hidden = np.any(masks[..., area[0], area[1]] >= np.float32(_HIDDEN), axis=1)
        return as_series(stored[..., area[0], area[1]], days, hidden)

    def _area(self, patch: _Patch, window: Window, size: tuple[int, ...]) -> tuple[slice, slice]:
        """Return rows and columns of a window in the super-area."""
        name = f"IMG_{patch.number}.tif"
        if name not in self.centroids:
            raise SourceError(f"{self.root / _CENTROIDS} does not name {name}")
        corner = [middle - SIDE // 2 for middle in self.centroids[name]]
        if min(corner) < 0 or any(c + SIDE > n for c, n in zip(corner, size, strict=True)):
            raise SourceError(
                f"{name} lies around {self.centroids[name]} by {_CENTROIDS}, which leaves the "
                f"super-area of {size[0]} × {size[1]} px of {patch.domain}/{patch.area}"
            )
        rows, cols = slices_of(window, 1)
        return (
            slice(rows.start + corner[0], rows.stop + corner[0]),
            slice(cols.start + corner[1], cols.stop + corner[1]),
        )


def open_examples(request: Request) -> Examples:
    """Open FLAIR #1, FLAIR #2 or FLAIR-HUB, whichever lies in the folder.

    Raises:
        JobError: If a part or an option does not exist.
        SourceError: If files of the layout are missing.
    """
    if flair_hub.is_hub(request.root):
        return flair_hub.open_hub(request)
    if request.split not in (None, *SPLITS):
        raise JobError(f"{request.name} has no split {request.split}; it has {', '.join(SPLITS)}")
    cut, known = flair_cut(request), flair_legend(request, "flair-13", "flair-19")
    patches = _of_domains(request, _of_split(request, _find(request)))
    channels = request.chosen(_channels(request, patches))
    if request.modalities is None:
        # Four or five bands of one image: the one with the height, unless asked otherwise.
        channels = tuple(channel for channel in channels if channel.name != "aerial")
    has_series = any(channel.name == "s2" for channel in channels)
    return FlairExamples(
        name=request.title,
        root=request.root,
        patches=patches,
        channels=channels,
        cut=cut,
        legend=known,
        task=request.options.task or "segmentation",
        masked=request.options.clouds == "mask",
        centroids=_read_centroids(request.root, patches) if has_series else {},
    )


def _find(request: Request) -> list[_Patch]:
    """List the patches of the folders a split may come from."""
    root = request.root
    editions = [e for e in _EDITIONS if (root / e.format("aerial")).is_dir()]
    if request.split is not None:
        tested = request.split == "test"
        editions = [edition for edition in editions if edition.endswith("_test") == tested]
    if not editions:
        folder = "flair_2_aerial_test" if request.split == "test" else "flair_aerial_train"
        need(root / folder, _LAYOUT)
    found = []
    for edition in editions:
        need(root / edition.format("labels"), _LAYOUT)
        images = sorted((root / edition.format("aerial")).glob("D*/*/img/IMG_*.tif"))
        found += [
            _Patch(edition, path.parts[-4], path.parts[-3], path.stem.removeprefix("IMG_"))
            for path in images
        ]
    if not found:
        raise SourceError(f"{root} holds no image {editions[0].format('aerial')}/…/IMG_<n>.tif; "
                          f"expected {_LAYOUT}")  # fmt: skip
    return found


def _of_split(request: Request, patches: list[_Patch]) -> list[_Patch]:
    """Keep the patches of a split."""
    if request.split in (None, "test"):
        return patches
    listed = request.root / f"flair-1-paths-{request.split}.csv"
    if listed.exists():
        names = {line.split(",")[0].rsplit("/", 1)[-1] for line in read_lines(listed)}
        return [patch for patch in patches if f"IMG_{patch.number}.tif" in names]
    validating = request.split == "val"
    return [p for p in patches if (p.domain.split("_")[0] in VALIDATION) == validating]


def _of_domains(request: Request, patches: list[_Patch]) -> tuple[_Patch, ...]:
    """Keep the patches of the domains asked for."""
    there = {patch.domain for patch in patches}
    unknown = [fold for fold in request.folds if fold not in there]
    if unknown:
        raise JobError(
            f"{request.name} has no domain {', '.join(unknown)} there; it has "
            f"{', '.join(sorted(there))}"
        )
    kept = tuple(p for p in patches if not request.folds or p.domain in request.folds)
    if not kept:
        raise SourceError(f"{request.title}: no patch of it in {request.root}")
    return kept


def _channels(request: Request, patches: Iterable[_Patch]) -> tuple[Channel, ...]:
    height, plain = MODALITIES["aerial-flair"], MODALITIES["aerial"]
    found = [
        Channel(height.name, height.bands, 0.2, "dn8"),
        Channel(plain.name, plain.bands, 0.2, "dn8"),
    ]
    folders = {request.root / patch.edition.format("sen") for patch in patches}
    asked = request.modalities is not None and "s2" in request.modalities
    for folder in sorted(folders):
        if asked:
            need(folder, _LAYOUT)
    if all(folder.is_dir() for folder in folders):
        found.append(Channel("s2", S2_BANDS, 10.0, "reflectance_1e4", _DAYS))
    return tuple(found)


def _read_centroids(root: Path, patches: Iterable[_Patch]) -> Mapping[str, tuple[int, int]]:
    """Return the centre of each image in its super-area: row and column."""
    path = need(root / _CENTROIDS, _LAYOUT)
    content = read_json(path)
    names = [f"IMG_{patch.number}.tif" for patch in patches]
    try:
        return {
            name: (int(content[name][0]), int(content[name][1]))  # type: ignore[index]
            for name in names
            if name in content  # type: ignore[operator]
        }
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise SourceError(f"{path} is no table of centres: {error!r}") from error
