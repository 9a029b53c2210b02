"""AnySat's published forward pass, transcribed plainly from its specification.

Nothing is kept between calls: position codes and distance buckets are made anew, the bias is
gathered for every pair, every date of every pixel goes through the layers at once, attention is
written out. It reads the published key names from a state dict and shares no code with omnisat.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]
_STEP_M = {"aerial": 2.0, "spot": 10.0, "s2": 10.0, "s1": 10.0}
_CELL = {"aerial": 5, "spot": 1, "s2": 1, "s1": 1}


def forward(
    state: State, inputs: dict[str, Tensor], days: dict[str, Tensor], scale: int, heads: int
) -> Tensor:
    """Return the class token and the fused patches (B, 1 + n², D) of windows."""
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    tokens = []
    for name, pixels in inputs.items():
        if pixels.dim() == 4:
            parts = _image(state, f"projector_{name}.", pixels, scale * _CELL[name], _CELL[name])
        else:
            parts = _series(state, f"projector_{name}.", pixels, days[name], scale, name == "s2")
        tokens.append(_spatial(state, parts, _STEP_M[name], scale, heads))
    B, n2, D = tokens[0].shape
    side = math.isqrt(n2)
    code = _code(side, float(scale), D)  # (1 + n2, D)
    x = torch.cat([state["cls_token"].expand(B, 1, D), *(t + code[1:] for t in tokens)], dim=1)
    for k in range(depth - 1):
        x = _block(state, f"blocks.{k}.", x, heads, 1e-6, biased=False)
    return _combine(state, f"blocks.{depth - 1}.", x, code, heads, len(tokens))


def _code(side: int, step: float, width: int) -> Tensor:
    """Sines and cosines of column and row, with a row of zeros for the class token."""
    omega = 10000.0 ** -(torch.arange(width // 4).double() / (width / 4))
    row, col = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    parts = []
    for axis in (col, row):
        angle = axis.flatten().double()[:, None] * step * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat([torch.zeros(1, width), torch.cat(parts, dim=1).float()])


def _buckets(side: int) -> Tensor:
    """Bucket of every pair of a grid behind one class token."""
    row, col = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    row, col = row.flatten().double(), col.flatten().double()
    square = (row[:, None] - row) ** 2 + (col[:, None] - col) ** 2
    r = square.sqrt().round()
    far = 1.9 + torch.log(r.clamp(min=1) / 1.9) / math.log(15.2 / 1.9) * 1.9
    inside = torch.where(r <= 1.9, r, far.round().clamp(max=3.8)).long() + 3
    return functional.pad(inside, (1, 0, 1, 0), value=7)


def _linear(state: State, key: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{key}.weight"], state[f"{key}.bias"])


def _norm(state: State, key: str, x: Tensor, eps: float) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], eps)


def _group(state: State, key: str, x: Tensor, groups: int) -> Tensor:
    return functional.group_norm(x, groups, state[f"{key}.weight"], state[f"{key}.bias"])


def _image(state: State, key: str, pixels: Tensor, side: int, cell: int) -> Tensor:
    """Sub-patches of an image: (B, n², S, D), cell by cell of 10 m."""
    weight = state[f"{key}patch_embed.weight"]
    x = functional.conv2d(pixels, weight, stride=weight.shape[-1])
    B, D, H, W = x.shape
    n, scale = H // side, side // cell
    x = x.view(B, D, n, scale, cell, W // side, scale, cell).permute(0, 2, 5, 3, 6, 4, 7, 1)
    x = x.reshape(B, n * n, side * side, D)
    for k in (0, 3):
        x = torch.relu(_norm(state, f"{key}mlp.{k + 1}", _linear(state, f"{key}mlp.{k}", x), 1e-5))
    return x


def _series(
    state: State, key: str, pixels: Tensor, days: Tensor, scale: int, in_norm: bool
) -> Tensor:
    """Pixels of a series: (B, n², S, D)."""
    inner = f"{key}patch_embed."
    B, T, C, H = pixels.shape[:4]
    x = pixels.permute(0, 3, 4, 1, 2).reshape(-1, C)
    for k in (0, 4, 8, 12, 16):
        x = _linear(state, f"{inner}inconv.{k}", x)
        x = torch.relu(_group(state, f"{inner}inconv.{k + 1}", x, 4))
    D = x.shape[1]
    x = x.view(-1, T, D)
    if in_norm:
        x = _group(state, f"{inner}in_norm", x.transpose(1, 2), 16).transpose(1, 2)
    entry = torch.arange(D // 16)
    angle = days.float()[:, None] / 367.0 ** (2 * (entry // 2).float() / (D // 16))
    code = torch.where(entry % 2 == 0, angle.sin(), angle.cos())
    x = x + code.repeat(1, 16)
    keys = _linear(state, f"{inner}attention_heads.fc1_k", x).view(-1, T, 16, 8)
    score = (keys * state[f"{inner}attention_heads.Q"]).sum(-1) / math.sqrt(8)
    weight = score.softmax(1)  # (N, T, 16)
    values = x.view(-1, T, 16, D // 16)
    y = (weight[..., None] * values).sum(1).flatten(1)
    y = torch.relu(_group(state, f"{inner}mlp.1", _linear(state, f"{inner}mlp.0", y), 4))
    y = _group(state, f"{inner}out_norm", y, 16)
    n = H // scale
    y = y.view(B, n, scale, n, scale, D).transpose(2, 3)
    return y.reshape(B, n * n, scale * scale, D)


def _spatial(state: State, parts: Tensor, step: float, scale: int, heads: int) -> Tensor:
    """One vector a patch from its sub-patches."""
    key = "spatial_encoder."
    B, P, S, D = parts.shape
    side = max(1, int(10 * scale / step))
    x = torch.cat([state[f"{key}cls_token"].expand(B * P, 1, D), parts.reshape(B * P, S, D)], 1)
    x = x + _code(side, step, D)
    count = 1 + max(
        int(k.split(".")[2]) for k in state if k.startswith("spatial_encoder.predictor_blocks.")
    )
    for k in range(count):
        x = _block(state, f"{key}predictor_blocks.{k}.", x, heads, 1e-5, biased=True)
    return _norm(state, f"{key}predictor_norm", x, 1e-5)[:, 0].view(B, P, D)


def _block(state: State, key: str, x: Tensor, heads: int, eps: float, *, biased: bool) -> Tensor:
    y = _norm(state, f"{key}norm1", x, eps)
    B, L, D = y.shape
    qkv = _linear(state, f"{key}attn.qkv", y).view(B, L, 3, heads, D // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    q = q * (D // heads) ** -0.5
    logits = q @ k.transpose(2, 3)
    if biased:
        logits = logits + _bias(state, f"{key}attn.", q, _buckets(math.isqrt(L - 1)))
    y = (logits.softmax(-1) @ v).transpose(1, 2).reshape(B, L, D)
    x = x + _linear(state, f"{key}attn.proj", y)
    return x + _mlp(state, key, _norm(state, f"{key}norm2", x, eps))


def _bias(state: State, key: str, q: Tensor, buckets: Tensor) -> Tensor:
    """Bias of every pair, from the query of head 0 for all heads: (B, 1, L, L')."""
    table = q[:, :1] @ state[f"{key}rpe_k.lookup_table_weight"][0]  # (B, 1, L, 8)
    return table.gather(3, buckets.expand(*table.shape[:2], *buckets.shape))


def _mlp(state: State, key: str, x: Tensor) -> Tensor:
    hidden = functional.gelu(_linear(state, f"{key}mlp.fc1", x))
    return _linear(state, f"{key}mlp.fc2", hidden)


def _combine(state: State, key: str, x: Tensor, code: Tensor, heads: int, sensors: int) -> Tensor:
    """One query a patch over the tokens of all sensors."""
    context = _norm(state, f"{key}norm1", x, 1e-6)
    B, D = context.shape[0], context.shape[2]
    d = D // heads

    def split(y: Tensor) -> Tensor:
        return y.view(y.shape[0], -1, heads, d).transpose(1, 2)

    q = split((state[f"{key}attn.q_learned"] + code).expand(B, -1, -1).contiguous())
    k, v = (split(_linear(state, f"{key}attn.{name}", context)) for name in ("wk", "wv"))
    buckets = _buckets(math.isqrt(q.shape[2] - 1))
    tiled = torch.cat([buckets[:, :1], *[buckets[:, 1:]] * sensors], dim=1)
    logits = (q * d**-0.5) @ k.transpose(2, 3) + _bias(state, f"{key}attn.", q, tiled)
    y = (logits.softmax(-1) @ v).transpose(1, 2).reshape(B, -1, D)
    y = _linear(state, f"{key}attn.proj", y)
    return y + _mlp(state, key, _norm(state, f"{key}norm2", y, 1e-6))
