"""The Log-Mel transform: waveforms to the one input that every method of this project sees.

Legend: B batch, S samples, F mel bands, T frames.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from asd_ray.config import FeatureConfig


class LogMel(nn.Module):
    """Waveforms (B, S) in [-1, 1] to Log-Mel spectrograms (B, F, T), fp32.

    ``log max(mel, floor)`` with the natural logarithm, or ``10 log10`` of it. Frames are centred and the signal is
    padded with zeros, so 10 s at 16 kHz with hop 512 are 313 frames.
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
            pad_mode="constant",
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        mel = self.mel(waveforms).clamp_min(self.config.floor)
        return mel.log() if self.config.log == "natural" else 10 * mel.log10()


def level_db(waveforms: Tensor) -> Tensor:
    """Root-mean-square level (B,) of waveforms (B, S) in dB relative to full scale: the loudness-only baseline."""
    return 10 * waveforms.square().mean(-1).clamp_min(1e-12).log10()
