"""The Log-Mel transform: waveforms to the input of every method.

Legend: B batch, S samples, F mel bands, T frames, K frequencies.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from asd_ray.config import FeatureConfig
from asd_ray.features.log_mel_cpu import CpuMel, log

FULL_SCALE = 32768
"""A sample of 1.0 in the store's int16 waveforms."""


class LogMel(nn.Module):
    """Waveforms (B, S) in [-1, 1] to Log-Mel spectrograms (B, F, T), fp32, T = 1 + ⌊S / hop_length⌋.

    log(filters · |STFT|^power), with a floor under the logarithm. :class:`asd_ray.config.FeatureConfig` describes the
    settings; the filter bank is torchaudio's. On a CPU :class:`~asd_ray.features.log_mel_cpu.CpuMel` computes the same
    mel spectrograms faster, up to rounding, where no gradient is asked for.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        filters = melscale_fbanks(
            n_freqs=config.n_fft // 2 + 1,
            f_min=config.f_min,
            f_max=config.f_max or config.sample_rate / 2,
            n_mels=config.n_mels,
            sample_rate=config.sample_rate,
            norm=config.norm,
            mel_scale=config.mel_scale,
        )
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)  # (F, K)
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)
        self.on_cpu = CpuMel(config, self.filters, self.window)

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, S) to (B, F, T)."""
        config, mel = self.config, self.mel(waveforms)
        mel = log(mel.add_(config.floor) if config.floor_rule == "add" else mel.clamp_min_(config.floor))
        return mel if config.log == "natural" else mel.mul_(20 / config.power / math.log(10))

    def mel(self, waveforms: Tensor) -> Tensor:
        """Mel spectrograms (B, F, T) of waveforms (B, S) before the logarithm; or (F, T) of one (S,)."""
        if waveforms.dtype == self.window.dtype == torch.float32 and self.on_cpu.takes(waveforms):
            return self.on_cpu(waveforms)
        config = self.config
        spectrum = torch.stft(
            waveforms,
            config.n_fft,
            config.hop_length,
            config.win_length,
            self.window,
            center=True,
            pad_mode=config.pad_mode,
            return_complex=True,
        )  # (B, K, T)
        if config.power == 2:
            magnitude = spectrum.real.square().add_(spectrum.imag.square())
        else:
            magnitude = spectrum.abs().pow(config.power)
        return self.filters @ magnitude


def level_db(waveforms: Tensor) -> Tensor:
    """Root-mean-square level (B,) of waveforms (B, S) in dB relative to full scale: the loudness-only baseline."""
    return 10 * waveforms.square().mean(-1).clamp_min(1e-12).log10()


def to_int16(waveforms: NDArray[np.float32]) -> NDArray[np.int16]:
    """Waveforms in [-1, 1] as int16: times 32768, rounded, clipped. 16-bit recordings come back as they were."""
    return np.clip(np.rint(waveforms * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
