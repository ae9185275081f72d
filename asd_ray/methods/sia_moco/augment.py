"""Spectrum-information augmentation: make two views of a batch of Log-Mel spectrograms, on the training device.

Legend: B batch, F mel bands, T frames, n bank size, H and W canvas height and width, h and w crop height and width.

Method A (arXiv 2509.15570) borrows the blocks and their order from BYOL-A (Niizumi et al., IJCNN 2021, arXiv
2103.06695): pre-norm, log-mixup-exp, random resize crop, post-norm. BYOL-A transforms clip by clip in loader processes.
Here a whole batch is transformed at once, in fp32, with random numbers from torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from asd_ray.errors import ConfigError
from asd_ray.methods.blocks.fifo import Fifo
from asd_ray.methods.workers import gather

BICUBIC = -0.75  # the cubic convolution kernel's parameter a, as in torch's own bicubic interpolation


class PreNorm(nn.Module):
    """x ↦ (x − μ) / σ, with the mean and standard deviation of the whole training set.

    The mean becomes 0, with which a crop is padded. BYOL-A v2 uses constants too, v1 running statistics.

    Args:
        mean: μ.
        std: σ, at least fp32's machine epsilon.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp(min=torch.finfo(torch.float32).eps))

    def forward(self, x: Tensor) -> Tensor:
        """(…) of any float type to (…) fp32."""
        return (x.float() - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.item():.4g}, std={self.std.item():.4g}"


class LogMixupExp(nn.Module):
    """x̃ = log((1 − λ) exp(x) + λ exp(x_k)): mix each clip x with a random past clip x_k (method A, equation 1).

    λ ~ U(0, α) for each clip, so with α < 0.5 the current clip dominates. x_k is a uniform random clip of the bank. The
    bank holds unmixed clips; a batch enters it after it was mixed. With an empty bank x is returned unchanged.
    Computed as ``logaddexp(x + log(1 - λ), x_k + log λ)``, which neither overflows nor takes the logarithm of 0.
    BYOL-A's eps inside the logarithm (fp32's machine epsilon) is therefore left out; on pre-normed features it would
    change x̃ by less than 1e-4 wherever x̃ > −6.

    Args:
        alpha: α in [0, 1); 0 does not mix.
        bank_size: n, in clips; they are stored in fp16.
        n_mels: F.
        frames: T.
        scale: c, mix values of exp(c x). BYOL-A has c = 1: for standardised features these are power^(1/σ). The value
            of :func:`power_scale` mixes mel energies.
        first_band: first mixed band; bands below it stay unmixed. 0 mixes all bands, as published.
    """

    def __init__(
        self, alpha: float, bank_size: int, n_mels: int, frames: int, scale: float = 1.0, first_band: int = 0
    ) -> None:
        super().__init__()
        self.alpha, self.scale, self.first_band = alpha, scale, first_band
        self.bank = Fifo(bank_size, (n_mels, frames), torch.float16)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, T) pre-normed to (B, F, T)."""
        count = self.bank.count
        chosen = (torch.rand(len(x), device=x.device) * count).long().clamp(max=(count - 1).clamp(min=0))
        ratio = self.alpha * torch.rand(len(x), 1, 1, device=x.device) * (count > 0)
        first = self.first_band
        mixed = log_mix(x[:, first:], self.bank.items[chosen, first:].float(), ratio, self.scale)
        self.bank.push(x)
        return torch.cat([x[:, :first], mixed], dim=1) if first else mixed

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, scale={self.scale}, first_band={self.first_band}"


def log_mix(x: Tensor, other: Tensor, ratio: Tensor, scale: float = 1.0) -> Tensor:
    """log((1 − λ) exp(c x) + λ exp(c x_k)) / c, element by element.

    Args:
        x: (B, F, T).
        other: x_k, (B, F, T).
        ratio: λ in [0, 1), broadcast against x.
        scale: c > 0.
    """
    mixed = torch.logaddexp(scale * x + torch.log1p(-ratio), scale * other + torch.log(ratio))
    return mixed / scale


def power_scale(log: str, std: float, power: float = 2.0) -> float:
    """The scale c with which exp(c x) is proportional to the mel energies: it undoes pre-norm and logarithm.

    A mel energy is the sum of |X|^p over a filter: of power with p = 2, of magnitudes with p = 1.

    Args:
        log: ``natural``, or ``db``: 20/p log10.
        std: σ of the pre-norm.
        power: p, ``features.power``.
    """
    return std * (power * math.log(10) / 20 if log == "db" else 1.0)


def mel_centres(features: Mapping[str, Any]) -> Tensor:
    """Centre frequencies (F,) of the mel bands in Hz, to the nearest whole Hz.

    Args:
        features: ``sample_rate``, ``n_mels``, ``f_min``, ``f_max`` and ``mel_scale`` of the feature settings.
    """
    rate = features["sample_rate"]
    # One row per Hz: the filters' own peaks, whatever the mel scale.
    filters = melscale_fbanks(
        rate // 2 + 1,
        features["f_min"],
        features["f_max"] or rate / 2,
        features["n_mels"],
        rate,
        mel_scale=features["mel_scale"],
    )
    return filters.argmax(dim=0)


def first_band_from(features: Mapping[str, Any], hz: float) -> int:
    """The first mel band whose centre frequency is at least ``hz``.

    Raises:
        ConfigError: all bands lie below.
    """
    centres = mel_centres(features)
    below = int((centres < hz).sum())
    if below == len(centres):
        raise ConfigError(
            f"method.pretrain.band_from_hz: no mel band is centred at {hz:g} Hz or above, the highest is at "
            f"{int(centres[-1])} Hz; choose a lower frequency."
        )
    return below


class RandomResizeCrop(nn.Module):
    """Put a clip in the centre of a canvas of zeros, crop a random rectangle, and stretch it to the clip's size.

    Canvas H = ⌊canvas₀ F⌋, W = ⌊canvas₁ T⌋; crop h = ⌊U(scale) F⌋, w = ⌊U(scale) T⌋, clipped to [1, H] and [1, W], at a
    uniform random place; bicubic interpolation with aligned corners. Every clip has its own crop.

    Args:
        scale: range of the crop's height and width, as multiples of F and T.
        canvas: the canvas, as multiples of F and T.

    Raises:
        ConfigError: a range that is not ordered, or a value that is not positive.
    """

    def __init__(self, scale: tuple[float, float] = (0.6, 1.5), canvas: tuple[float, float] = (1.0, 1.5)) -> None:
        super().__init__()
        if not 0 < scale[0] <= scale[1]:
            raise ConfigError(f"method.pretrain.crop_scale: 0 < low <= high must hold, but got {list(scale)}.")
        if min(canvas) <= 0:
            raise ConfigError(f"method.pretrain.canvas: both multiples must be above 0, but got {list(canvas)}.")
        self.scale, self.canvas = scale, canvas

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, T) fp32 with mean 0, the padding, to (B, F, T)."""
        taps = []
        for size, multiple in zip(x.shape[1:], self.canvas, strict=True):
            canvas = max(int(multiple * size), 1)
            start, length = self.crops(len(x), size, canvas, x.device)
            taps.append(bicubic_taps(start - (canvas - size) // 2, length, size))
        bands, times = taps
        # Bicubic interpolation is separable: each row is a sum of four weighted rows, then the same for columns.
        return _weighted_rows(_weighted_rows(x, *bands).transpose(1, 2), *times).transpose(1, 2)

    def crops(self, batch: int, size: int, canvas: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Draw start and length (B,) of crops along one axis of the canvas."""
        low, high = self.scale
        length = (torch.empty(batch, device=device).uniform_(low, high) * size).long().clamp(1, canvas)
        places = canvas - length + 1
        start = torch.minimum((torch.rand(batch, device=device) * places).long(), places - 1)
        return start, length

    def extra_repr(self) -> str:
        return f"scale={self.scale}, canvas={self.canvas}"


def bicubic_taps(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Positions and weights of the four inputs of each output, when [start, start + length) is stretched to ``size``.

    Corners are aligned.

    Args:
        start: (B,) first position of the crop, in the clip's coordinates; may lie outside of the clip.
        length: (B,) positions of the crop, at least 1.
        size: number of outputs, and size of the clip.

    Returns:
        Positions (B, size, 4) in [0, size) and weights (B, size, 4). Positions outside of the clip, where the canvas is
        zero, have weight 0. Beyond the edges of the crop its border is repeated, as in torch's interpolation.
    """
    step = (length - 1).float() / max(size - 1, 1)
    exact = torch.arange(size, device=start.device) * step[:, None]
    below = exact.floor()
    t = exact - below
    distance = torch.stack([t + 1, t, 1 - t, 2 - t], dim=-1)
    near = ((BICUBIC + 2) * distance - (BICUBIC + 3)) * distance**2 + 1
    far = ((BICUBIC * distance - 5 * BICUBIC) * distance + 8 * BICUBIC) * distance - 4 * BICUBIC
    weights = torch.where(distance <= 1, near, far)
    inside_crop = below.long()[..., None] + torch.arange(-1, 3, device=start.device)
    position = inside_crop.clamp(min=0).minimum((length - 1)[:, None, None]) + start[:, None, None]
    on_clip = (position >= 0) & (position < size)
    return position.clamp(0, size - 1), weights * on_clip


def _weighted_rows(x: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Σ_k weights[b, r, k] · x[b, rows[b, r, k]]: (B, R, L), (B, R, 4), (B, R, 4) to (B, R, L)."""
    batch, height, width = x.shape
    flat = rows + torch.arange(batch, device=x.device)[:, None, None] * height
    # torch's fused gather and weighted sum: on a CPU 3 times as fast as an interpolation of each clip.
    return nnf.embedding_bag(
        flat.view(-1, 4), x.reshape(-1, width), mode="sum", per_sample_weights=weights.reshape(-1, 4)
    ).view(batch, height, width)


class PostNorm(nn.Module):
    """x ↦ (x − μ_B) / σ_B, with mean and standard deviation of both views of the batch, of all workers together.

    BYOL-A takes the statistics of one process. With those of all workers, the result of a global batch is the same for
    any number of workers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(2B, F, T) to (2B, F, T), with the same B on every worker."""
        mean = x.mean()
        variance = (x - mean).square().mean()  # 6 times as fast as var_mean on a CPU
        means, variances = gather(torch.stack([mean, variance])[None]).unbind(1)
        std = (variances.mean() + means.var(correction=0)).sqrt()  # within workers and between them
        return (x - means.mean()) / std.clamp(min=torch.finfo(torch.float32).eps)


class TwoViews(nn.Module):
    """Pre-norm, two independent draws of the augmentations, post-norm over both (method A, in BYOL-A's order).

    As in BYOL-A, each clip enters the mixing bank twice, once for each view, and the second view may be mixed with the
    clip itself.
    """

    def __init__(self, pre_norm: PreNorm, mix: LogMixupExp, crop: RandomResizeCrop) -> None:
        super().__init__()
        self.pre_norm, self.mix, self.crop, self.post_norm = pre_norm, mix, crop, PostNorm()

    @torch.no_grad()
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, T) raw features to two views (B, F, T) fp32."""
        x = self.pre_norm(features)
        views = torch.cat([self.crop(self.mix(x)), self.crop(self.mix(x))])
        first, second = self.post_norm(views).chunk(2)
        return first, second
