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
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

_ELEMENTS = 1 << 26  # similarities held at once; larger batches are computed twice instead


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
    x, here = _directions(tokens, present)
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
    queries = (flat[asked.flatten()], owner[asked.flatten()])
    keys = (flat[here.flatten()], owner[here.flatten()])
    return (_log_sum(queries, keys) - positives).mean()


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
    x, here = _directions(tokens, present)
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


def _log_sum(queries: tuple[Tensor, Tensor], keys: tuple[Tensor, Tensor]) -> Tensor:
    """Return (n,) log of the summed exponentials over keys of other owners, in slices of rows."""
    step = max(_ELEMENTS // max(len(keys[0]), 1), 1)
    if step >= len(queries[0]):
        return _log_sum_rows(*queries, *keys)
    parts = [
        checkpoint(_log_sum_rows, rows, owner, *keys, use_reentrant=False)
        for rows, owner in zip(
            torch.split(queries[0], step), torch.split(queries[1], step), strict=True
        )
    ]
    return torch.cat(parts)


def _log_sum_rows(rows: Tensor, owner: Tensor, keys: Tensor, owners: Tensor) -> Tensor:
    similar = rows @ keys.T
    return similar.masked_fill_(owner[:, None] == owners, float("-inf")).logsumexp(1)
