"""Pretraining of AnySat: predict a teacher's patches from a masked context, contrast the sensors.

Source: AnySat (Astruc et al., CVPR 2025) after I-JEPA (Assran et al., CVPR 2023); key names follow
the published code. Masks and random numbers are given, so that a step is a function of its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.anysat_encoders import Attention, Block, position_code
from omnisat_cli.networks.contrast import mil_nce
from omnisat_cli.networks.relative import grid_buckets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from omnisat_cli.networks.anysat import AnySat
    from omnisat_cli.networks.anysat_config import AnySatConfig
    from omnisat_cli.networks.anysat_values import Grid, Windowed


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
class Seen:
    """What of windows is real; a sensor that is not named is so everywhere.

    Attributes:
        valid: Series to (B, T, h, w) bool.
        present: Sensor to (B, P) bool, or (B, 1) for one pixel a window.
    """

    valid: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


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

    def forward(
        self, context: Tensor, masks: JepaMasks, code: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Predict targets.

        Args:
            context: (B, K, D) fused patches of the context.
            masks: Their locations and those of the targets.
            code: (1 + P, D) position codes; row 0 is the class's.
            present: (B, K) bool; context patches that no sensor saw have no influence. None
                takes all.

        Returns:
            (targets * B, K', D).
        """
        rows = 0 if self.official else 1
        B = context.shape[0]
        x = self.predictor_embed(context) + code[masks.context + rows]
        x = torch.cat([self.cls_token.expand(B, -1, -1), x], dim=1)
        asked = [self.mask_token + code[target + rows] for target in masks.targets]
        x = torch.cat([torch.cat([x, part], dim=1) for part in asked])
        mask = None
        if present is not None:
            mask = functional.pad(present, (1, 0), value=True)
            mask = functional.pad(mask, (0, x.shape[1] - mask.shape[1]), value=True)
            mask = mask.repeat(len(masks.targets), 1)
        for block in self.predictor_blocks:
            x = block(x, None, mask)
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
        seen: Seen | None = None,
    ) -> JepaStep:
        """Predict the target patches of whole windows.

        Args:
            pixels: Sensor to pixels, as `AnySat.forward` takes them.
            days: Series to (B, T) day numbers.
            masks: Context and targets.
            draws: Random numbers.
            patch_m: Side of a patch, metres.
            seen: What of it is real; None takes everything.

        Returns:
            Predictions and the contrastive loss.
        """
        seen = seen or Seen({}, {})
        views = self._encode(pixels, days, draws, seen, patch_m)
        config = self.encoder.config
        local = [n for n in views.tokens if not config.sensor(n).whole_window]
        whole = [n for n in views.tokens if config.sensor(n).whole_window]
        flags = {name: _flags(views, name) for name in views.tokens}
        code = position_code(*views.grid, patch_m / 10, config.width, masks.context.device)
        context = self._context([views.tokens[n] + code[1:] for n in local], masks, not whole)
        here = torch.stack([flags[name].gather(1, masks.context) for name in local], 1)
        context = self._mask_sensors(context, here, draws)
        B = context.shape[0]
        own = [views.tokens[name] for name in whole]
        x = torch.cat([self.encoder.cls_token.expand(B, -1, -1), *own, context], dim=1)
        present = None  # the common case, and the only one the published code knows
        if views.present:
            assert not self.predictor.official, "the published code knows no presence"
            first = [here.new_ones(B, 1), *(flags[name] for name in whole)]
            present = torch.cat([*first, here.flatten(1)], dim=1)
        queries, buckets = self._locations(masks.context, views.grid, len(local), len(whole))
        table = functional.pad(code, (0, 0, len(whole), 0))
        fused = self.encoder.fuse_restricted(x, table[queries], buckets, present)
        some = None if present is None else here.any(1)
        predicted = self.predictor(fused[:, 1:], masks, code, some)
        contrast = mil_nce([views.tokens[n] for n in local], [flags[n] for n in local])
        return JepaStep(predicted, contrast)

    def _encode(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        draws: JepaDraws,
        seen: Seen,
        patch_m: int,
    ) -> Windowed:
        """Encode half of the dates; presence is stated for sensors that are not everywhere."""
        thin, numbers, valid = dict(pixels), {}, {}
        for name, own in days.items():
            thin[name], numbers[name], flags = half_dates(
                pixels[name], own, draws.dates[name], seen.valid.get(name)
            )
            if flags is not None:
                valid[name] = flags
        views = self.encoder.window_tokens(thin, numbers, valid, patch_m=patch_m)
        return replace(views, present=both_present(views.present, seen.present))

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

    def _mask_sensors(self, context: Tensor, here: Tensor, draws: JepaDraws) -> Tensor:
        """Replace half of what may be replaced by the masked token.

        Args:
            context: (B, M * K, D), sensor by sensor.
            here: (B, M, K) bool; where the sensor to keep is absent, another one is kept.
            draws: Random numbers.
        """
        noise = draws.noise.view(here.shape).masked_fill(~here, 2.0)
        given = torch.zeros_like(here).scatter(1, draws.kept.unsqueeze(1), value=True)
        always = noise.masked_fill(given & here, -1.0).argmin(1, keepdim=True)  # (B, 1, K)
        noise = noise.scatter(1, always, -1.0).masked_fill(~here, 2.0).flatten(1)
        kept, there = here.any(1).sum(1, keepdim=True), here.flatten(1)
        count = kept + (there.sum(1, keepdim=True) - kept) // 2
        shown = there & (noise.argsort(1).argsort(1) < count)
        return torch.where(shown.unsqueeze(2), context, self.masked_token)

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


def half_dates(
    series: Tensor, days: Tensor, noise: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keep the half of the dates (rounded down, at least one) with the smallest noise.

    Args:
        series: (B, T, C, h, w).
        days: (B, T).
        noise: (B, T) numbers of [0, 1).
        valid: (B, T, h, w) bool; dates without a valid pixel are neither counted nor kept.

    Returns:
        (B, T', C, h, w), (B, T') and (B, T', h, w) or None.
    """
    rows = torch.arange(len(series), device=series.device)[:, None]
    if valid is None:
        kept = noise.argsort(1)[:, : max(noise.shape[1] // 2, 1)]
        return series[rows, kept], days[rows, kept], None
    some = valid.flatten(2).any(2)  # (B, T)
    count = (some.sum(1, keepdim=True) // 2).clamp(min=1)
    kept = noise.masked_fill(~some, 2.0).argsort(1)[:, : int(count.max())]
    within = torch.arange(kept.shape[1], device=kept.device) < count
    flags = valid[rows, kept] & within[..., None, None]
    return series[rows, kept], days[rows, kept], flags


def both_present(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what is present in both of two mappings; a sensor that is not named is everywhere."""
    both = {name: one[name] & two[name] for name in one if name in two}
    return {**one, **two, **both}


def _flags(views: Windowed, name: str) -> Tensor:
    """Return the presence of a sensor: (B, P) bool."""
    tokens = views.tokens[name]
    everywhere = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return views.present.get(name, everywhere)


@torch.no_grad()
def teacher_rows(
    teacher: AnySat,
    pixels: Mapping[str, Tensor],
    days: Mapping[str, Tensor],
    *,
    patch_m: int,
    seen: Seen | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the teacher's normalised patches (B, P, D), and which some sensor saw (B, P)."""
    seen = seen or Seen({}, {})
    views = teacher.window_tokens(pixels, days, seen.valid, patch_m=patch_m)
    views = replace(views, present=both_present(views.present, seen.present))
    tokens = teacher.fuse(views.tokens, views.grid, patch_m, views.present)[:, 1:]
    local = [n for n in views.tokens if not teacher.config.sensor(n).whole_window]
    there = torch.stack([_flags(views, name) for name in local]).any(0)
    return functional.layer_norm(tokens, tokens.shape[-1:]), there


def jepa_targets(
    teacher: AnySat,
    pixels: Mapping[str, Tensor],
    days: Mapping[str, Tensor],
    targets: Sequence[Tensor],
    *,
    patch_m: int,
) -> Tensor:
    """Return the teacher's normalised patches at the targets: (targets * B, K', D)."""
    rows, _ = teacher_rows(teacher, pixels, days, patch_m=patch_m)
    return torch.cat([take_rows(rows, target) for target in targets])


def jepa_loss(predicted: Tensor, targets: Tensor, there: Tensor | None = None) -> Tensor:
    """Compare predictions with targets: mean smooth L1.

    Args:
        predicted: (N, K', D).
        targets: Same shape.
        there: (N, K') bool; the others do not count. None counts all.
    """
    if there is None:
        return functional.smooth_l1_loss(predicted, targets)
    if not bool(there.any()):
        return predicted.sum() * 0.0
    return functional.smooth_l1_loss(predicted[there], targets[there])


def teacher_momentum(step: int, steps: int, first: float = 0.996) -> float:
    """Return the share of the old teacher: from `first` linearly to 1 after `steps`."""
    return first + (1.0 - first) * min(step / steps, 1.0)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move a teacher's parameters towards the student's: m teacher + (1 - m) student."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)
