"""One pack at another patch size: networks that take patches of any scale."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omnisat_cli.errors import JobError

if TYPE_CHECKING:
    from omnisat_cli.packs.card import Card
    from omnisat_cli.packs.registry import Pack


def at_patch_size(pack: Pack, patch_m: float | None, scales: tuple[float, ...] = ()) -> Pack:
    """Return a pack whose patches have another size, or several.

    The pixels of a fine output stay. Where there is none, those of the coarse output, a fixed
    number a patch, grow with the patch.

    Args:
        pack: The pack.
        patch_m: Side of a patch in metres; None for the pack's own.
        scales: Smaller sizes whose logits are averaged with those of `patch_m`.

    Raises:
        JobError: If the pack does not allow it.
    """
    card = pack.card
    wanted = card.patch_m if patch_m is None else patch_m
    allowed = (card.patch_m, *card.patch_sizes)
    for size in (wanted, *scales):
        if size not in allowed:
            raise JobError(
                f"--patch-size {size:g}: {card.name} takes patches of "
                f"{', '.join(f'{one:g}' for one in allowed)} m, and no others"
            )
    if wanted == card.patch_m and not scales:
        return pack
    config = {**card.network.config, "patch_m": round(wanted)}
    ratio = wanted / card.patch_m
    changes: dict[str, object] = {"patch_m": wanted}
    if config.get("fine_sensor"):
        config["fine_only"] = True  # the coarse output belongs to patches of one size
        changes["coarse_m"] = card.fine_m
    else:
        changes["coarse_m"] = card.coarse_m * ratio
        changes["fine_m"] = card.fine_m * ratio
    if scales:
        config["scales"] = [round(size) for size in scales]
        size = max(1, round(card.window.size / ratio))  # the ground of a window stays
        overlap = min(round(card.window.overlap / ratio), size // 2)
        changes["window"] = card.window.model_copy(update={"size": size, "overlap": overlap})
        config["grid"] = [size, size]
        _check_scales(card, config)
    changes["network"] = card.network.model_copy(update={"config": config})
    return replace(pack, card=card.model_copy(update=changes))


def _check_scales(card: Card, config: dict[str, object]) -> None:
    """Check that the answers of several patch sizes can be averaged.

    Raises:
        JobError: If not.
    """
    if not config.get("fine_only"):
        raise JobError(
            f"several --patch-size: {card.name} has no output whose pixels are the same at every "
            "size; train it on labels at patches larger than its pixels"
        )
    from omnisat_cli.networks.anysat_segmenter import AnySatSegmenterConfig

    try:
        AnySatSegmenterConfig.from_dict(config)
    except ValueError as error:
        raise JobError(f"several --patch-size: {error}") from error
