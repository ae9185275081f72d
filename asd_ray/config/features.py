"""``features``: how recordings become Log-Mel spectrograms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from asd_ray.config.section import Section


class FeatureConfig(Section):
    """Log-Mel spectrograms (torchaudio's MelSpectrogram, centred, zero-padded at the ends)."""

    sample_rate: int = Field(16000, ge=1000)
    """In Hz; recordings at another rate are resampled (soxr, high quality)."""
    seconds: float = Field(10.0, gt=0)
    """Length of a clip: longer recordings are cut, shorter ones repeated from their start."""
    n_fft: int = Field(1024, ge=64)
    """Points of the Fourier transform. [A]'s own value is not recovered; 1024 as STgram, [B] uses 2048."""
    win_length: int = Field(1024, ge=64)
    """Samples of the Hann window."""
    hop_length: int = Field(512, ge=1)
    """Samples between frames: 512 gives [A]'s 313 frames for 10 s at 16 kHz."""
    n_mels: int = Field(128, ge=8)
    """Mel bands. [A], [B]: 128."""
    f_min: float = Field(0.0, ge=0)
    """Lower edge of the lowest band in Hz."""
    f_max: float | None = Field(None, gt=0)
    """Upper edge of the highest band in Hz; half the sample rate by default."""
    power: float = Field(2.0, gt=0)
    """Exponent of the magnitude: 2 is power, 1 magnitude."""
    mel_scale: Literal["htk", "slaney"] = "slaney"
    norm: Literal["slaney"] | None = "slaney"
    log: Literal["natural", "db"] = "natural"
    """Natural logarithm ([BYOL-A], which log-mixup-exp inverts) or decibels ([B])."""
    floor: float = Field(1e-10, gt=0)
    """Smallest value before the logarithm."""
    store: str | None = None
    """Folder of the feature store, to share it between studies; the study folder's ``features/`` by default."""

    @property
    def frames(self) -> int:
        """Frames T of a clip: ``1 + floor(samples / hop_length)`` with centring."""
        return 1 + round(self.seconds * self.sample_rate) // self.hop_length

    @model_validator(mode="after")
    def _consistent(self) -> FeatureConfig:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length <= n_fft must hold, but got {self.win_length} and {self.n_fft}")
        nyquist = self.sample_rate / 2
        if (self.f_max or nyquist) > nyquist or self.f_min >= (self.f_max or nyquist):
            raise ValueError(
                f"0 <= f_min < f_max <= sample_rate / 2 must hold, but got f_min {self.f_min}, f_max {self.f_max}, "
                f"sample_rate / 2 {nyquist}"
            )
        return self
