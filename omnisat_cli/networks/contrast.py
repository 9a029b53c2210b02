"""Contrast between modalities: what one sensor says of a place must be near what others say of it.

Sources: OmniSat (Astruc et al., ECCV 2024) for the multiple-instance form, after MIL-NCE (Miech et
al., CVPR 2020); CLIP (Radford et al., ICML 2021) for the pairwise form.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.autograd.function import FunctionCtx

# Similarities held at once. On a CPU they should stay in the cache of a core.
_CPU_ELEMENTS = 1 << 18
_GPU_ELEMENTS = 1 << 26


def mil_nce(
    tokens: Sequence[Tensor],
    present: Sequence[Tensor] | None = None,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Contrast the tokens of a place in all modalities together.

    The positives of a token are the tokens of its place in the other modalities; its negatives
    are all tokens but those of its own modality and window.

    Args:
        tokens: (B, P, D) for each of two modalities or more.
        present: (B, P) bool for each; tokens that are not present take no part. None takes all.
        temperature: Divides the cosine similarities.

    Returns:
        Mean over the tokens that have a positive; 0 where none has.
    """
    with torch.autocast(tokens[0].device.type, enabled=False):  # half precision is too coarse
        return _mil_nce(*_directions(tokens, present), temperature)


def _mil_nce(x: Tensor, here: Tensor, temperature: float) -> Tensor:
    M, B, P, D = x.shape
    near = torch.einsum("mbpd,nbpd->mnbp", x, x) / temperature
    other = ~torch.eye(M, dtype=torch.bool, device=x.device)[:, :, None, None]
    pair = here[:, None] & here[None] & other
    asked = pair.any(1)  # (M, B, P)
    if not asked.any():
        return x.sum() * 0.0
    near = near.masked_fill(~pair, float("-inf")).masked_fill(~asked[:, None], 0.0)
    positives = near.logsumexp(1)[asked]
    flat = x.view(-1, D) / temperature**0.5
    owner = torch.arange(M * B, dtype=torch.int32, device=x.device).repeat_interleave(P)
    query, key = asked.flatten(), here.flatten()
    sums: Tensor = _LogSum.apply(  # type: ignore[no-untyped-call]
        flat[query], owner[query], flat[key], owner[key]
    )
    return (sums - positives).mean()


def clip_nce(
    tokens: Sequence[Tensor],
    present: Sequence[Tensor] | None = None,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Contrast each pair of modalities in both directions (plain InfoNCE).

    The negatives of a token are all tokens of the other modality but the one of its own place.

    Args:
        tokens: (B, P, D) for each of two modalities or more.
        present: (B, P) bool for each; tokens that are not present take no part. None takes all.
        temperature: Divides the cosine similarities.

    Returns:
        Mean over the pairs of modalities that share a place; 0 where none do.
    """
    with torch.autocast(tokens[0].device.type, enabled=False):
        return _clip_nce(*_directions(tokens, present), temperature)


def _clip_nce(x: Tensor, here: Tensor, temperature: float) -> Tensor:
    losses = []
    for one, two in combinations(range(len(x)), 2):
        both = here[one] & here[two]
        if not both.any():
            continue
        similar = x[one][both] @ x[two][both].T / temperature
        truth = torch.arange(len(similar), device=x.device)
        losses.append(functional.cross_entropy(similar, truth))
        losses.append(functional.cross_entropy(similar.T, truth))
    return torch.stack(losses).mean() if losses else x.sum() * 0.0


def _directions(
    tokens: Sequence[Tensor], present: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Return unit vectors (M, B, P, D), zero where not present, and presence (M, B, P)."""
    x = torch.stack(list(tokens)).float()
    if present is None:
        here = torch.ones(x.shape[:3], dtype=torch.bool, device=x.device)
    else:
        here = torch.stack(list(present))
        x = x.masked_fill(~here.unsqueeze(-1), 0.0)
    return functional.normalize(x, dim=-1), here


class _LogSum(torch.autograd.Function):
    """(n,) log of the summed exponentials of similarities, in slices of rows.

    The similarities of all pairs are never held: a slice stays in the cache, and the gradient
    computes it again. On a CPU this is faster than holding them, and large windows fit.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: Tensor, owner: Tensor, keys: Tensor, owners: Tensor
    ) -> Tensor:
        """Sum for `rows` (n, D) over the `keys` (m, D) of other owners."""
        sums = rows.new_empty(len(rows))
        for part in _parts(rows, keys):
            sums[part] = _similar(rows[part], owner[part], keys, owners).logsumexp(1)
        ctx.save_for_backward(rows, owner, keys, owners, sums)
        return sums

    @staticmethod
    def backward(ctx: FunctionCtx, above: Tensor) -> tuple[Tensor, None, Tensor, None]:
        """Return the gradients of rows and keys."""
        rows, owner, keys, owners, sums = ctx.saved_tensors  # type: ignore[attr-defined]
        to_rows, to_keys = torch.empty_like(rows), torch.zeros_like(keys)
        for part in _parts(rows, keys):
            share = _similar(rows[part], owner[part], keys, owners)
            share = share.sub_(sums[part, None]).exp_().mul_(above[part, None])
            torch.mm(share, keys, out=to_rows[part])
            to_keys.addmm_(share.T, rows[part])
        return to_rows, None, to_keys, None


def _parts(rows: Tensor, keys: Tensor) -> list[slice]:
    step = max((_GPU_ELEMENTS if rows.is_cuda else _CPU_ELEMENTS) // max(len(keys), 1), 1)
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def _similar(rows: Tensor, owner: Tensor, keys: Tensor, owners: Tensor) -> Tensor:
    return (rows @ keys.T).masked_fill_(owner[:, None] == owners, float("-inf"))
