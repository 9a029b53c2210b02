"""What the engine asks of a network. Shapes: N patches, B windows, P patches a window, D width.

A *patch-local* network encodes each patch from that patch's pixels alone; the engine then encodes
every patch once and runs only `fuse` and `decode` in overlapping windows. A *window-based* network
sees a whole window at a time and is run window by window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Encoded:
    """Patches of one modality after its encoder.

    Attributes:
        tokens: (N, D) one vector a patch.
        fine: (N, F, f, f) the encoder's own finer features, or None (series of one pixel a patch).
    """

    tokens: Tensor
    fine: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Dense:
    """Dense output of one batch of windows.

    Attributes:
        logits: (B, K, H, W) class logits.
        boundary: (B, H, W) logit of "this pixel lies on a parcel boundary", or None.
    """

    logits: Tensor
    boundary: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Traits:
    """What a run must know of a patch-local network before it reads anything.

    Attributes:
        width: Numbers of a token.
        fine: Modality to the numbers of a patch's finer features; the finest output needs one of
            these modalities.
        pixels: Modality to its pixels along a patch; None where any number will do.
        needed: Modalities without which it has no answer at a patch.
    """

    width: int = 256
    fine: Mapping[str, int] = field(default_factory=dict)
    pixels: Mapping[str, int] | None = None
    needed: tuple[str, ...] = ()


@runtime_checkable
class HasTraits(Protocol):
    """A network that tells its traits; others are taken for `Traits()`."""

    @property
    def traits(self) -> Traits:
        """What to plan with."""


@runtime_checkable
class PatchLocal(Protocol):
    """A network whose encoders look at one patch at a time."""

    def encode_image(self, name: str, pixels: Tensor) -> Encoded:
        """Encode patches of an image modality, (N, C, p, p) normalised pixels."""

    def encode_series(self, name: str, pixels: Tensor, days: Tensor, valid: Tensor) -> Encoded:
        """Encode patches of a series.

        Args:
            name: Modality.
            pixels: (N, T, C, p, p) normalised pixels.
            days: (T,) or (N, T) day numbers in the encoding of the network's card.
            valid: (N, T) bool; a date that is not valid has no influence at all. Every patch
                must have at least one valid date.
        """

    def fuse(self, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """Fuse the tokens of windows.

        Args:
            tokens: Modality to (B, P, D); P is the network's window, row-major.
            present: Modality to (B, P) bool; tokens that are not present have no influence.

        Returns:
            (B, 1 + P, D): the class token, then the fused patches.
        """

    def decode(
        self,
        fused: Tensor,
        fine: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        *,
        fine_output: bool,
    ) -> Dense:
        """Turn fused windows into logits.

        Args:
            fused: (B, 1 + P, D) from `fuse`.
            fine: Modality to (B, P, F, f, f) finer features, zeros where not present.
            present: Modality to (B, P) bool.
            fine_output: Give the finest resolution the network has (patches without fine
                features repeat their coarse logits) instead of the coarse one.
        """


@runtime_checkable
class WindowBased(Protocol):
    """A network that must see whole windows."""

    def predict(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor],
    ) -> Dense:
        """Predict windows.

        Args:
            pixels: Modality to (B, C, h, w) image or (B, T, C, h, w) series, normalised.
            days: Series modality to (T,) or (B, T) day numbers.
            valid: Modality to (B, h, w) or (B, T, h, w) bool.
        """
