"""The network of a pack, ready for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnisat_cli.errors import CheckpointError
from omnisat_cli.networks.fold import fold_for_inference
from omnisat_cli.networks.seam import PatchLocal, WindowBased
from omnisat_cli.networks.table import build_network
from omnisat_cli.packs.registry import load_weights

if TYPE_CHECKING:
    from torch import nn

    from omnisat_cli.engine.device import Compute
    from omnisat_cli.packs.registry import Pack


def trained_network(pack: Pack) -> nn.Module:
    """Build the network of a pack as it was trained, in evaluation mode.

    Raises:
        CheckpointError: If the weights do not fit the card.
    """
    card = pack.card
    try:
        network = build_network(card.network.kind, card.network.config)
        network.load_state_dict(load_weights(pack))
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights of {pack.folder} do not fit its card: {error}"
        ) from error
    return network.eval()


def load_network(pack: Pack, compute: Compute) -> PatchLocal | WindowBased:
    """Build, load, fold and place the network of a pack.

    Raises:
        CheckpointError: If the weights do not fit the card, or the network makes no map.
    """
    card = pack.card
    network = trained_network(pack)
    folded = fold_for_inference(network.to(compute.device))
    if not isinstance(folded, PatchLocal | WindowBased):
        raise CheckpointError(
            f"{card.name} holds a {card.network.kind} network, which makes no map"
        )
    return folded
