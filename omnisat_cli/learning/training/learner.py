"""A network ready to be trained, and what its card will say."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from omnisat_cli.learning.training.design import window_card
from omnisat_cli.networks.anysat_segmenter import AnySatSegmenterConfig
from omnisat_cli.networks.seam import PatchLocal
from omnisat_cli.networks.segmenter import SegmenterConfig
from omnisat_cli.networks.table import build_network
from omnisat_cli.networks.tile import Tile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from omnisat_cli.learning.examples import Examples
    from omnisat_cli.learning.training.train_job import TrainJob
    from omnisat_cli.learning.training.transfer import Transfer
    from omnisat_cli.packs.card import ModalityCard, WindowCard

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "omnisat": "OmniSat",
        "omnisat-tile": "OmniSat for whole places",
        "anysat": "AnySat",
        "anysat-tile": "AnySat for whole places",
        "utae": "U-TAE",
        "dual-stream": "Two U-TAE fused late",
        "unet": "U-Net",
    }
)


@dataclass(frozen=True, slots=True)
class Learner:
    """A network ready to be trained, and what its card will say.

    Attributes:
        network: On the CPU.
        kind: Entry of the table of networks.
        config: Plain configuration that rebuilds it.
        cards: Its modalities.
        side: Patches along a training window.
        coarse_m: Output pixel without images, in metres.
        fine_m: Output pixel with images, in metres.
        frozen: Parts that do not learn.
        start: Name of the pack it starts from, or None.
        start_digest: Digest of that pack's weights, or None.
        patch_sizes: Other patch sizes of its fine output, in metres: those of that pack.
        transfer: What came over from it, or None.
    """

    network: nn.Module
    kind: str
    config: dict[str, object]
    cards: tuple[ModalityCard, ...]
    side: int
    coarse_m: float
    fine_m: float
    frozen: tuple[nn.Module, ...] = ()
    start: str | None = None
    start_digest: str | None = None
    patch_sizes: tuple[float, ...] = ()
    transfer: Transfer | None = None

    @property
    def title(self) -> str:
        """The network in words."""
        return TITLES[self.kind]

    @property
    def window(self) -> WindowCard:
        """How `predict` lays windows."""
        card = window_card(self.side)
        if not self.labels_places:
            return card
        # One answer a window: between those around it, ground is weighed by how near they are.
        return card.model_copy(update={"overlap": self.side // 2})

    @property
    def labels_places(self) -> bool:
        """Whether it says which classes a whole place holds."""
        return isinstance(self.network, Tile)

    @property
    def whole_windows(self) -> bool:
        """Whether it sees whole windows, so that one real pixel of a patch says something."""
        return not isinstance(self.network, PatchLocal)

    @property
    def has_boundary(self) -> bool:
        """Whether it can learn parcel boundaries."""
        return self.kind == "omnisat"


def build_learner(
    kind: str,
    config: dict[str, object],
    cards: tuple[ModalityCard, ...],
    side: int,
    patch_m: float,
) -> Learner:
    """Build a network and say at which pixels it maps."""
    coarse_m, fine_m = _output_m(kind, config, cards, patch_m)
    return Learner(build_network(kind, config), kind, config, cards, side, coarse_m, fine_m)


def _output_m(
    kind: str, config: dict[str, object], cards: tuple[ModalityCard, ...], patch_m: float
) -> tuple[float, float]:
    """Return the pixels of the coarse and the fine output in metres."""
    if kind == "omnisat":
        shape = SegmenterConfig.from_dict(config)
        return patch_m / shape.coarse_side, patch_m / shape.fine_side
    if kind == "anysat":
        layout = AnySatSegmenterConfig.from_dict(config)
        return patch_m / layout.coarse_side, patch_m / layout.fine_side
    if kind.endswith("-tile"):
        return patch_m, patch_m
    return cards[0].gsd, cards[0].gsd


def training_side(examples: Examples, job: TrainJob, wanted: int) -> int:
    """Return the side of training windows: as asked for, else what fits the examples."""
    if job.draws.side is not None:
        return job.draws.side
    place = min(examples.example(0).sample.window.shape)
    return place if examples.task == "multilabel" else min(wanted, place)


def label_side(examples: Examples) -> int:
    """Return the pixels of the labels along a patch."""
    example = examples.example(0)
    assert example.classes is not None
    return int(example.classes.shape[0] // example.sample.window.height)
