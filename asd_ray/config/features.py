"""``features``: the Log-Mel spectrograms of recordings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from asd_ray.config.section import Section

Preset = Literal["sia_moco", "os_scl", "stgram", "dcase2020_baseline"]

# Values in which a preset differs from the defaults below, those of sia_moco.
PRESETS: dict[str, dict[str, Any]] = {
    "sia_moco": {},
    "os_scl": {"n_fft": 2048, "win_length": 2048, "log": "db"},
    "stgram": {"mel_scale": "htk", "norm": None, "pad_mode": "reflect", "log": "db"},
    "dcase2020_baseline": {"pad_mode": "reflect", "log": "db", "floor": 2.0**-52, "floor_rule": "add"},
}


class FeatureConfig(Section):
    """Log-Mel spectrograms (as torchaudio's MelSpectrogram: periodic Hann window, centred frames).

    A preset sets the other keys' defaults; a key that is given wins. All have 128 mel bands from 0 Hz to half the
    sample rate, hop 512, power spectra, 10 s at 16 kHz, and so 313 frames:

    * ``sia_moco`` [A]: window and logarithm are not recovered, see the keys.
    * ``os_scl`` [B], its published code: 2048 points, Slaney's mel scale and norm, zeros beyond the ends,
      ``10 log10 max(mel, 1e-10)``.
    * ``stgram`` (STgram-MFN, its published code): 1024 points and torchaudio's defaults, so HTK's mel scale
      without a norm and the signal mirrored at its ends; ``10 log10 max(mel, 1e-10)``.
    * ``dcase2020_baseline`` (the official autoencoder): 1024 points in librosa 0.6.0, the version that it pins:
      Slaney's mel scale and norm, the signal mirrored at its ends (zeros are librosa's default from 0.9 on);
      ``10 log10(mel + ε)`` with the ε of a double, 2.2e-16.

    No preset limits the range (``top_db``) or normalises: methods do that.
    """

    preset: Preset = "sia_moco"
    """Source of the other keys' defaults. A resolved study has every key, so that the preset changes nothing there."""
    sample_rate: int = Field(16000, ge=1000)
    """Sample rate in Hz. Recordings at another rate are resampled (soxr, high quality)."""
    seconds: float = Field(10.0, gt=0)
    """Length of a clip in seconds. Longer recordings are cut, shorter ones repeated from their start."""
    n_fft: int = Field(1024, ge=64)
    """Points of the Fourier transform. [A]'s own value is not recovered; 1024 as STgram, [B] uses 2048."""
    win_length: int = Field(1024, ge=64)
    """Samples of the Hann window."""
    hop_length: int = Field(512, ge=1)
    """Samples between frames: 512 gives [A]'s 313 frames for 10 s at 16 kHz."""
    pad_mode: Literal["constant", "reflect"] = "constant"
    """Samples beyond the ends of a clip: zeros (``constant``), or the mirrored signal (``reflect``). [B]: zeros."""
    n_mels: int = Field(128, ge=8)
    """Mel bands. [A], [B]: 128."""
    f_min: float = Field(0.0, ge=0)
    """Lower edge of the lowest band in Hz."""
    f_max: float | None = Field(None, gt=0)
    """Upper edge of the highest band in Hz; half the sample rate by default."""
    power: float = Field(2.0, gt=0)
    """p, the exponent of the magnitude: 2 gives power, 1 magnitude."""
    mel_scale: Literal["htk", "slaney"] = "slaney"
    """HTK's logarithmic scale, or Slaney's, linear below 1 kHz. Not recovered from [A]; [B]: Slaney's."""
    norm: Literal["slaney"] | None = "slaney"
    """Mel bands of unit area, or of unit height. Not recovered from [A]; [B]: unit area."""
    log: Literal["natural", "db"] = "natural"
    """Natural logarithm ([BYOL-A], which log-mixup-exp inverts) or decibels, 20/p log10 ([B])."""
    floor: float = Field(1e-10, gt=0)
    """ε: keeps the logarithm finite. Ours for [A], as [B]; [BYOL-A] adds 1.2e-7, which would hide quiet bands."""
    floor_rule: Literal["clamp", "add"] = "clamp"
    """Logarithm of max(mel, ε), or of mel + ε."""
    store: str | None = None
    """Folder or URI (``s3://bucket/prefix``) of a feature store that studies share. Default: ``features/`` in the study
    folder."""
    gpus_per_task: float = Field(0.0, ge=0)
    """Share of a GPU for each task that computes features: 0.25 lets four tasks use one. 0 computes on the CPU."""

    @property
    def samples(self) -> int:
        """Samples S of a clip."""
        return round(self.seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """Frames T of a clip: ``1 + floor(samples / hop_length)`` with centring."""
        return 1 + self.samples // self.hop_length

    @model_validator(mode="before")
    @classmethod
    def _preset_sets_the_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        chosen = given.get("preset")
        return {**PRESETS.get(chosen, {}), **given} if isinstance(chosen, str) else given

    @model_validator(mode="after")
    def _consistent(self) -> FeatureConfig:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length <= n_fft must hold, but got {self.win_length} and {self.n_fft}")
        if self.pad_mode == "reflect" and self.samples <= self.n_fft // 2:
            raise ValueError(
                f"pad_mode reflect needs clips of more than n_fft / 2 samples, but got clips of {self.samples} and "
                f"n_fft {self.n_fft}"
            )
        nyquist = self.sample_rate / 2
        if (self.f_max or nyquist) > nyquist or self.f_min >= (self.f_max or nyquist):
            raise ValueError(
                f"0 <= f_min < f_max <= sample_rate / 2 must hold, but got f_min {self.f_min}, f_max {self.f_max}, "
                f"sample_rate / 2 {nyquist}"
            )
        return self
