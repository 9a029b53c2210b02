"""One pack at another patch size: networks that take patches of any scale."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from omnisat_cli.packs.registry import Pack


def at_patch_size(pack: Pack, patch_m: float | None) -> Pack:
    """Return a pack whose patches have another size.

    Pixels of the fine output stay; those of the coarse output, a fixed number a patch, grow with
    the patch.

    Args:
        pack: The pack.
        patch_m: Side of a patch in metres; None for the pack's own.

    Raises:
        JobError: If the pack does not allow it.
    """
    card = pack.card
    if patch_m is None or patch_m == card.patch_m:
        return pack
    if patch_m not in card.patch_sizes:
        sizes = ", ".join(f"{size:g}" for size in (card.patch_m, *card.patch_sizes))
        raise JobError(
            f"--patch-size {patch_m:g}: {card.name} takes patches of {sizes} m, and no others"
        )
    network = card.network.model_copy(
        update={"config": {**card.network.config, "patch_m": round(patch_m)}}
    )
    coarse_m = card.coarse_m * patch_m / card.patch_m
    fine_m = coarse_m if card.fine_m == card.coarse_m else card.fine_m
    changes = {"network": network, "patch_m": patch_m, "coarse_m": coarse_m, "fine_m": fine_m}
    return replace(pack, card=card.model_copy(update=changes))
