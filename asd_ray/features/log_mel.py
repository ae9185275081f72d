"""The Log-Mel transform: waveforms to the one input that every method of this project sees.

Legend: B batch, S samples, F mel bands, T frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from asd_ray.config import FeatureConfig

FULL_SCALE = 32768
"""What a sample of 1.0 is in the store's int16 waveforms."""


class LogMel(nn.Module):
    """Waveforms (B, S) in [-1, 1] to Log-Mel spectrograms (B, F, T), fp32, T = 1 + floor(S / hop_length).

    The settings, and what is mirrored or clamped when, are in :class:`asd_ray.config.FeatureConfig`.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            f_min=config.f_min,
            f_max=config.f_max,
            n_mels=config.n_mels,
            power=config.power,
            norm=config.norm,
            mel_scale=config.mel_scale,
            center=True,
            pad_mode=config.pad_mode,
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        mel = self.mel(waveforms)
        mel = mel + self.config.floor if self.config.floor_rule == "add" else mel.clamp_min(self.config.floor)
        return mel.log() if self.config.log == "natural" else 20 / self.config.power * mel.log10()


def level_db(waveforms: Tensor) -> Tensor:
    """Root-mean-square level (B,) of waveforms (B, S) in dB relative to full scale: the loudness-only baseline."""
    return 10 * waveforms.square().mean(-1).clamp_min(1e-12).log10()


def to_int16(waveforms: NDArray[np.float32]) -> NDArray[np.int16]:
    """Waveforms in [-1, 1] as int16: times 32768, rounded, clipped. 16-bit recordings come back as they were."""
    return np.clip(np.rint(waveforms * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
