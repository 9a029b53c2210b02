"""U-TAE: a U-Net over a Sentinel-2 series with attention over its dates; window-based.

Source: "Panoptic Segmentation of Satellite Image Time Series with Convolutional Temporal Attention
Networks" (Garnot and Landrieu, ICCV 2021). State-dict keys are those of the published code.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnisat_cli.networks.configs import SeriesConfig, build
from omnisat_cli.networks.seam import Dense
from omnisat_cli.networks.series import DateAttention, date_group_norm, day_encoding

if TYPE_CHECKING:
    from collections.abc import Mapping

Padding = Literal["exact", "official"]
_GROUPS = 4  # of the convolutions over dates
_FRAMES_BYTES = 1 << 24  # widest activation of the dates encoded at once without autograd


@dataclass(frozen=True, slots=True)
class UtaeConfig:
    """A U-TAE; the defaults are the published network.

    Attributes:
        modality: Series it reads.
        bands: Bands of a date.
        encoder_widths: Channels of the levels seen by every date, finest first.
        decoder_widths: Channels of the levels after the dates are pooled, finest first.
        out_widths: Channels of the last two convolutions; the last is the number of classes.
        heads: Attention heads over dates, also the groups of the temporal normalisations.
        attention_width: Width of the temporal attention.
        key_width: Width of a key.
        period: Base of the day encoding.
        dropout: Rate after the temporal encoder.
        attention_dropout: Rate on the attention weights.
        padding: "exact" leaves padded dates out altogether; "official" lets their zeros into the
            statistics of the normalisation before the attention, as the published code does.
    """

    modality: str = "s2"
    bands: int = 10
    encoder_widths: tuple[int, ...] = (64, 64, 64, 128)
    decoder_widths: tuple[int, ...] = (32, 32, 64, 128)
    out_widths: tuple[int, int] = (32, 20)
    heads: int = 16
    attention_width: int = 256
    key_width: int = 4
    period: int = 1000
    dropout: float = 0.2
    attention_dropout: float = 0.1
    padding: Padding = "exact"

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        for name in ("encoder_widths", "decoder_widths", "out_widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        encoder, decoder, out = self.encoder_widths, self.decoder_widths, self.out_widths
        sizes = (self.bands, self.heads, self.key_width, self.period, *encoder, *decoder, *out)
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in sizes):
            raise ValueError(f"every size must be a whole number above 0, found {sizes}")
        if len(encoder) < 2 or len(encoder) != len(decoder) or encoder[-1] != decoder[-1]:
            raise ValueError(
                f"encoder {encoder} and decoder {decoder} need the same number of levels, two or "
                "more, and the same coarsest width"
            )
        if len(out) != 2:
            raise ValueError(f"out_widths must be two numbers, found {out}")
        for width in (*encoder, self.attention_width):
            if width % self.heads or width % _GROUPS:
                raise ValueError(f"width {width} is not a multiple of {self.heads} and {_GROUPS}")
        if self.padding not in get_args(Padding):
            raise ValueError(f"padding {self.padding!r} is none of {get_args(Padding)}")

    @property
    def classes(self) -> int:
        """Classes of the map."""
        return self.out_widths[-1]

    @property
    def step(self) -> int:
        """Pixels of a cell of the coarsest level."""
        return 1 << (len(self.encoder_widths) - 1)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> UtaeConfig:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If a key is unknown or a value has the wrong type or range.
        """
        return build(cls, plain)


def _norm(kind: Literal["group", "batch"], width: int) -> nn.Module:
    return nn.GroupNorm(_GROUPS, width) if kind == "group" else nn.BatchNorm2d(width)


class _Convs(nn.Module):
    """Convolutions with reflected borders, each with a normalisation and ReLU."""

    def __init__(
        self, widths: tuple[int, ...], kind: Literal["group", "batch"], *, strided: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        kernel, stride = (4, 2) if strided else (3, 1)
        for before, after in itertools.pairwise(widths):
            conv = nn.Conv2d(before, after, kernel, stride, 1, padding_mode="reflect")
            layers += [conv, _norm(kind, after), nn.ReLU()]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps (N, C, H, W)."""
        y: Tensor = self.conv(x)
        return y


class _Stem(nn.Module):
    """Two convolutions, one name deeper as the published keys are."""

    def __init__(self, widths: tuple[int, ...], kind: Literal["group", "batch"]) -> None:
        super().__init__()
        self.conv = _Convs(widths, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps (N, C, H, W)."""
        y: Tensor = self.conv(x)
        return y


class _Down(nn.Module):
    """Halve maps, then two convolutions with a residual around the second."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = _Convs((before, before), "group", strided=True)
        self.conv1 = _Convs((before, after), "group")
        self.conv2 = _Convs((after, after), "group")

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps (N, C, H, W) into (N, C', H / 2, W / 2)."""
        x = self.conv1(self.down(x))
        y: Tensor = x + self.conv2(x)
        return y


class _Up(nn.Module):
    """Double maps, join the skip, then two convolutions with a residual around the second."""

    def __init__(self, before: int, after: int, skip: int) -> None:
        super().__init__()
        self.skip_conv = nn.Sequential(nn.Conv2d(skip, skip, 1), nn.BatchNorm2d(skip), nn.ReLU())
        self.up = nn.Sequential(
            nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()
        )
        self.conv1 = _Convs((after + skip, after), "batch")
        self.conv2 = _Convs((after, after), "batch")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Transform (B, C, H, W) with the skip (B, C', 2 H, 2 W) into (B, C'', 2 H, 2 W)."""
        x = self.conv1(torch.cat([self.up(x), self.skip_conv(skip)], dim=1))
        y: Tensor = x + self.conv2(x)
        return y


class _TemporalEncoder(nn.Module):
    """Attention over the dates of each cell of the coarsest level."""

    def __init__(self, config: UtaeConfig) -> None:
        super().__init__()
        self.config = config
        inner, width = config.encoder_widths[-1], config.attention_width
        series = SeriesConfig(
            config.modality,
            inner,
            widths_in=(width,),
            widths_out=(inner,),
            heads=config.heads,
            key_width=config.key_width,
        )
        self.inconv = nn.Conv1d(inner, width, 1)
        self.attention_heads = DateAttention(series)
        self.in_norm = nn.GroupNorm(config.heads, inner)
        self.out_norm = nn.GroupNorm(config.heads, inner)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.BatchNorm1d(inner), nn.ReLU())

    def forward(self, cells: Tensor, days: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Pool dates: (N, T, C) cells to (N, C) and the attention (N, T, heads).

        Args:
            cells: (N, T, C), zeros where not valid.
            days: (N, T) day numbers.
            valid: (N, T) bool.
        """
        config = self.config
        exact = config.padding == "exact" and not bool(valid.all())
        x = date_group_norm(cells, self.in_norm, valid if exact else None)
        x = functional.linear(x, self.inconv.weight.squeeze(2), self.inconv.bias)
        code = day_encoding(days, config.attention_width // config.heads, config.period)
        x = x + code.to(x.dtype).repeat(1, 1, config.heads)
        score = self.attention_heads(x).masked_fill(~valid.unsqueeze(-1), -1000.0)
        weight: Tensor = score.softmax(1)
        if exact:  # -1000 is below every score of a trained network, but only -inf is exact
            weight = weight * valid.unsqueeze(-1)
        weight = functional.dropout(weight, config.attention_dropout, self.training)
        values = torch.unflatten(x, -1, (config.heads, -1))
        pooled = torch.einsum("nth,nthe->nhe", weight, values).flatten(1)
        y = functional.dropout(self.mlp(pooled), config.dropout, self.training)
        return self.out_norm(y), weight


class UTAE(nn.Module):
    """Encoder of every date, attention over dates at the coarsest level, decoder.

    Args:
        config: Sizes and how padded dates count.
    """

    def __init__(self, config: UtaeConfig) -> None:
        super().__init__()
        self.config = config
        encoder, decoder = config.encoder_widths, config.decoder_widths
        self.in_conv = _Stem((config.bands, encoder[0], encoder[0]), "group")
        self.down_blocks = nn.ModuleList(
            _Down(before, after) for before, after in itertools.pairwise(encoder)
        )
        self.up_blocks = nn.ModuleList(
            _Up(decoder[level], decoder[level - 1], encoder[level - 1])
            for level in range(len(encoder) - 1, 0, -1)
        )
        self.temporal_encoder = _TemporalEncoder(config)
        self.out_conv = _Stem((decoder[0], *config.out_widths), "batch")

    def forward(self, series: Tensor, days: Tensor, valid: Tensor | None = None) -> Tensor:
        """Segment series; see `segment`. Returns (B, K, H, W) scores."""
        return self.segment(series, days, valid)[0]

    def segment(
        self, series: Tensor, days: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Segment series and return the attention over dates too.

        Args:
            series: (B, T, C, H, W) normalised; H and W multiples of `config.step`, from twice
                that on.
            days: (T,) or (B, T) day numbers.
            valid: (B, T) bool; None takes dates of zeros only as padded, as published.

        Returns:
            (B, K, H, W) class scores, never negative (the published network ends with ReLU), and
            (heads, B, T, H / step, W / step) attention.

        Raises:
            ValueError: If H or W does not fit the levels.
        """
        height, width = series.shape[-2:]
        step = self.config.step
        if height % step or width % step or min(height, width) < 2 * step:
            raise ValueError(
                f"U-TAE takes sides that are multiples of {step} px and at least {2 * step} px, "
                f"found {height} x {width}"
            )
        if valid is None:
            valid = (series != 0).flatten(2).any(2)
        levels = self._levels(series, valid)
        pooled, attention = self._pool_dates(levels[-1], days, valid)
        x = pooled
        for up, level in zip(self.up_blocks, levels[-2::-1], strict=True):
            x = up(x, weigh_dates(level, attention, valid))
        logits: Tensor = self.out_conv(x)
        return logits, attention

    def predict(
        self,
        pixels: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor],
    ) -> Dense:
        """Predict windows of any size; see `WindowBased.predict`.

        A date without any valid pixel is left out; single pixels that are not valid count as 0,
        the mean of normalised pixels. Sides that do not fit the levels are extended for the
        computation by repeating their last row and column.
        """
        series = pixels[self.config.modality]
        flags = valid.get(self.config.modality)
        if flags is None:
            dates = torch.ones(series.shape[:2], dtype=torch.bool, device=series.device)
        else:
            dates = flags.flatten(2).any(2)
            if not bool(flags.all()):
                series = series.masked_fill(~flags.unsqueeze(2), 0.0)
        height, width = series.shape[-2:]
        step = self.config.step
        more = [max(-size % step, 2 * step - size) for size in (height, width)]
        if any(more):
            padding = (0, more[1], 0, more[0], 0, 0)
            series = functional.pad(series, padding, mode="replicate")
        logits = self(series, days[self.config.modality], dates)
        return Dense(logits[..., :height, :width])

    def _levels(self, series: Tensor, valid: Tensor) -> list[Tensor]:
        """Encode the valid dates; the maps (B, T, C, H, W) of every level, finest first."""
        B, T = valid.shape
        frames = series.flatten(0, 1)
        index = valid.flatten().nonzero().squeeze(1)
        every = index.numel() == B * T
        if torch.is_grad_enabled():
            maps = self._encode(frames if every else frames[index])
            if every:
                return [torch.unflatten(level, 0, (B, T)) for level in maps]
            return [_scatter(level, index, B, T) for level in maps]
        out = self._empty_levels(frames, B * T, zero=not every)
        for part in torch.split(index, self._at_once(frames)):
            for level, done in zip(out, self._encode(frames[part]), strict=True):
                level[part] = done.to(level.dtype)
        return [torch.unflatten(level, 0, (B, T)) for level in out]

    def _encode(self, frames: Tensor) -> list[Tensor]:
        maps = [self.in_conv(frames)]
        for down in self.down_blocks:
            maps.append(down(maps[-1]))
        return maps

    def _empty_levels(self, frames: Tensor, count: int, *, zero: bool) -> list[Tensor]:
        height, width = frames.shape[-2:]
        out = []
        for level, channels in enumerate(self.config.encoder_widths):
            shape = (count, channels, height >> level, width >> level)
            out.append(frames.new_zeros(shape) if zero else frames.new_empty(shape))
        return out

    def _at_once(self, frames: Tensor) -> int:
        """Return how many dates go through the encoder at once."""
        each = self.config.encoder_widths[0] * frames[0, 0].numel() * frames.element_size()
        return max(_FRAMES_BYTES // each, 1)

    def _pool_dates(self, maps: Tensor, days: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the coarsest maps: (B, C, h, w) and attention (heads, B, T, h, w)."""
        B, T, C, h, w = maps.shape
        cells = maps.permute(0, 3, 4, 1, 2).reshape(B * h * w, T, C)
        each = days.expand(B, T).repeat_interleave(h * w, 0)
        pooled, weight = self.temporal_encoder(cells, each, valid.repeat_interleave(h * w, 0))
        pooled = torch.unflatten(pooled, 0, (B, h, w)).permute(0, 3, 1, 2)
        attention = torch.unflatten(weight, 0, (B, h, w)).permute(4, 0, 3, 1, 2)
        return pooled, attention


def _scatter(rows: Tensor, index: Tensor, B: int, T: int) -> Tensor:
    out = rows.new_zeros(B * T, *rows.shape[1:]).index_copy(0, index, rows)
    return torch.unflatten(out, 0, (B, T))


def weigh_dates(maps: Tensor, attention: Tensor, valid: Tensor) -> Tensor:
    """Sum the dates of a level, each head weighing its group of channels.

    Args:
        maps: (B, T, C, H, W).
        attention: (heads, B, T, h, w), resampled bilinearly to H x W.
        valid: (B, T) bool; other dates count nothing and the rest is not scaled up for it.

    Returns:
        (B, C, H, W).
    """
    heads, B, T = attention.shape[:3]
    rows = []
    for sample in range(B):  # one sample at a time: resampled weights are as large as the maps
        weight = attention[:, sample] * valid[sample, None, :, None, None]
        weight = functional.interpolate(
            weight, size=maps.shape[-2:], mode="bilinear", align_corners=False
        )  # (heads, T, H, W)
        groups = torch.unflatten(maps[sample], 1, (heads, -1))  # (T, heads, C / heads, H, W)
        total = groups[0] * weight[:, 0].unsqueeze(1)
        for date in range(1, T):
            total = total + groups[date] * weight[:, date].unsqueeze(1)
        rows.append(total.flatten(0, 1))
    return torch.stack(rows)
