"""Pretraining of AnySat: predict a teacher's patches from a masked context, contrast the sensors.

Source: AnySat (Astruc et al., CVPR 2025) after I-JEPA (Assran et al., CVPR 2023); key names follow
the published code. Masks and random numbers are given, so that a step is a function of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.anysat_encoders import Attention, Block, position_code
from omnisat_cli.networks.relative import grid_buckets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from omnisat_cli.networks.anysat import AnySat, Grid
    from omnisat_cli.networks.anysat_config import AnySatConfig


Recipe = Literal["corrected", "official"]


@dataclass(frozen=True, slots=True)
class JepaMasks:
    """Locations of a batch of windows.

    Attributes:
        context: (B, K) indices of the patches that the student sees fused.
        targets: Several (B, K') indices of the patches to predict.
    """

    context: Tensor
    targets: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class JepaDraws:
    """Random numbers of one step.

    Attributes:
        dates: Series to (B, T) uniform noise; the smaller half of the dates stays.
        kept: (B, K) index of the sensor that always stays at each context location.
        noise: (B, M * K) uniform noise, sensor by sensor; of the other tokens the smaller half
            stays.
    """

    dates: Mapping[str, Tensor]
    kept: Tensor
    noise: Tensor


@dataclass(frozen=True, slots=True)
class JepaStep:
    """What the student makes of a step.

    Attributes:
        predicted: (targets * B, K', D), target mask by target mask.
        contrast: Contrastive loss between the sensors.
    """

    predicted: Tensor
    contrast: Tensor


class JepaPredictor(nn.Module):
    """Transformer from context patches to target patches.

    Args:
        config: The encoder.
        depth: Blocks.
        heads: Attention heads.
        recipe: "official" gives location p the position code of p - 1, as the published code does.
    """

    def __init__(
        self,
        config: AnySatConfig,
        depth: int = 4,
        heads: int = 16,
        *,
        recipe: Recipe = "corrected",
    ) -> None:
        super().__init__()
        width = config.width
        self.official = recipe == "official"
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.predictor_embed = nn.Linear(width, width)
        self.predictor_blocks = nn.ModuleList(
            Block(width, Attention(width, heads, biased=False), config.mlp_ratio, 1e-5)
            for _ in range(depth)
        )
        self.predictor_norm = nn.LayerNorm(width)
        self.predictor_proj = nn.Linear(width, width)
        for token in (self.cls_token, self.mask_token):
            nn.init.trunc_normal_(token, std=0.02)

    def forward(self, context: Tensor, masks: JepaMasks, code: Tensor) -> Tensor:
        """Predict targets.

        Args:
            context: (B, K, D) fused patches of the context.
            masks: Their locations and those of the targets.
            code: (1 + P, D) position codes; row 0 is the class's.

        Returns:
            (targets * B, K', D).
        """
        rows = 0 if self.official else 1
        B = context.shape[0]
        x = self.predictor_embed(context) + code[masks.context + rows]
        x = torch.cat([self.cls_token.expand(B, -1, -1), x], dim=1)
        asked = [self.mask_token + code[target + rows] for target in masks.targets]
        x = torch.cat([torch.cat([x, part], dim=1) for part in asked])
        for block in self.predictor_blocks:
            x = block(x)
        y: Tensor = self.predictor_proj(self.predictor_norm(x[:, 1 + context.shape[1] :]))
        return y


class AnySatJepa(nn.Module):
    """The student: encoder, predictor and the token of what is masked.

    Args:
        encoder: The network to pretrain.
        depth: Blocks of the predictor.
        heads: Its heads.
        recipe: "official" shifts locations by one here and there, as the published code does;
            "corrected" does not.
    """

    def __init__(
        self,
        encoder: AnySat,
        depth: int = 4,
        heads: int = 16,
        *,
        recipe: Recipe = "corrected",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = JepaPredictor(encoder.config, depth, heads, recipe=recipe)
        self.masked_token = nn.Parameter(torch.zeros(1, 1, encoder.config.width))

    def forward(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        masks: JepaMasks,
        draws: JepaDraws,
        *,
        patch_m: int,
    ) -> JepaStep:
        """Predict the target patches of whole windows.

        Args:
            pixels: Sensor to pixels, as `AnySat.forward` takes them.
            days: Series to (B, T) day numbers.
            masks: Context and targets.
            draws: Random numbers.
            patch_m: Side of a patch, metres.

        Returns:
            Predictions and the contrastive loss.
        """
        thin = {name: half_dates(pixels[name], days[name], draws.dates[name]) for name in days}
        tokens, grid = self.encoder.window_tokens(
            {**pixels, **{name: series for name, (series, _) in thin.items()}},
            {name: numbers for name, (_, numbers) in thin.items()},
            patch_m=patch_m,
        )
        config = self.encoder.config
        whole = [tokens[name] for name in tokens if config.sensor(name).whole_window]
        local = {n: value for n, value in tokens.items() if not config.sensor(n).whole_window}
        code = position_code(*grid, patch_m / 10, config.width, masks.context.device)
        context = self._context([value + code[1:] for value in local.values()], masks, not whole)
        context = self._mask_sensors(context, draws)
        B = context.shape[0]
        x = torch.cat([self.encoder.cls_token.expand(B, -1, -1), *whole, context], dim=1)
        queries, buckets = self._locations(masks.context, grid, len(local), len(whole))
        table = functional.pad(code, (0, 0, len(whole), 0))
        fused = self.encoder.fuse_restricted(x, table[queries], buckets)
        predicted = self.predictor(fused[:, 1:], masks, code)
        return JepaStep(predicted, contrast_sensors(list(local.values())))

    def _context(self, local: list[Tensor], masks: JepaMasks, shifted: bool) -> Tensor:
        """Take the context of every sensor: (B, M * K, D), sensor by sensor.

        The published code drops the first token when no sensor has one pixel a window, which
        shifts the locations of the sensor of index i by 1 - i.
        """
        x = torch.cat(local, dim=1)
        if shifted and self.predictor.official:
            x = x[:, 1:]
        each = x.shape[1] // len(local)
        return torch.cat([take_rows(x, masks.context + i * each) for i in range(len(local))], 1)

    def _mask_sensors(self, context: Tensor, draws: JepaDraws) -> Tensor:
        """Replace half of what may be replaced by the masked token."""
        K = draws.kept.shape[1]
        M = context.shape[1] // K
        always = draws.kept * K + torch.arange(K, device=context.device)
        noise = draws.noise.scatter(1, always, -1.0)
        stay = noise.argsort(1)[:, : K + K * (M - 1) // 2]
        seen = torch.zeros_like(noise, dtype=torch.bool).scatter(1, stay, value=True)
        return torch.where(seen.unsqueeze(2), context, self.masked_token)

    def _locations(
        self, context: Tensor, grid: Grid, sensors: int, whole: int
    ) -> tuple[Tensor, Tensor]:
        """Return rows of the code table (B, 1 + K) and relative buckets (B, 1 + K, L).

        With a sensor of one pixel a window the published queries take the row before theirs.
        """
        prefix = 1 + whole
        first = torch.zeros_like(context[:, :1])
        late = whole if self.predictor.official else 0
        queries = torch.cat([first, context + prefix - late], dim=1)
        own = torch.cat([first, context + prefix], dim=1)
        heads = [first + row for row in range(prefix)]
        keys = torch.cat([*heads, *[context + prefix] * sensors], dim=1)
        table = grid_buckets(*grid, prefix).to(context.device)
        return queries, table[own[:, :, None], keys[:, None, :]]


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Take rows (B, K) of (B, L, D): (B, K, D)."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


def half_dates(series: Tensor, days: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the half of the dates (rounded down, at least one) with the smallest noise.

    Args:
        series: (B, T, C, h, w).
        days: (B, T).
        noise: (B, T).

    Returns:
        (B, T', C, h, w) and (B, T').
    """
    kept = noise.argsort(1)[:, : max(noise.shape[1] // 2, 1)]
    rows = torch.arange(len(kept), device=kept.device)[:, None]
    return series[rows, kept], days[rows, kept]


@torch.no_grad()
def jepa_targets(
    teacher: AnySat,
    pixels: Mapping[str, Tensor],
    days: Mapping[str, Tensor],
    targets: Sequence[Tensor],
    *,
    patch_m: int,
) -> Tensor:
    """Return the teacher's normalised patches at the targets: (targets * B, K', D)."""
    tokens = teacher(pixels, days, patch_m=patch_m).tokens[:, 1:]
    rows = functional.layer_norm(tokens, tokens.shape[-1:])
    return torch.cat([take_rows(rows, target) for target in targets])


def jepa_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Compare predictions with targets: mean smooth L1."""
    return functional.smooth_l1_loss(predicted, targets)


def contrast_sensors(tokens: Sequence[Tensor], temperature: float = 0.1) -> Tensor:
    """Pull the tokens of one location in several sensors together (MIL-NCE).

    Negatives are all tokens but those of the same sensor and window.

    Args:
        tokens: (B, P, D) for each of two sensors or more.
        temperature: Divides the cosine similarities.

    Returns:
        Mean over all tokens.
    """
    M, (B, P, _) = len(tokens), tokens[0].shape
    x = functional.normalize(torch.stack(list(tokens)), dim=-1).flatten(0, 2)  # (M * B * P, D)
    similar = x @ x.T / temperature
    place = torch.arange(M * B * P, device=x.device)
    window, location = place // P, place % (B * P)
    same = window[:, None] == window  # sensor and window
    positive = (location[:, None] == location) & ~same
    every = similar.masked_fill(same, float("-inf")).logsumexp(1)
    return (every - similar.masked_fill(~positive, float("-inf")).logsumexp(1)).mean()


def teacher_momentum(step: int, steps: int) -> float:
    """Return the share of the old teacher: from 0.996 at the first step linearly to 1."""
    return 0.996 + 0.004 * step / steps


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move a teacher's parameters towards the student's: m teacher + (1 - m) student."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)
