from __future__ import annotations

import numpy as np
import pytest
import torch

from asd_ray.config import FeatureConfig
from asd_ray.features.log_mel import LogMel, level_db


def slaney_mel_filters(n_mels: int, n_fft: int, rate: int) -> np.ndarray:
    """Slaney's filter bank (F, n_fft / 2 + 1) from its definition: linear below 1 kHz, logarithmic above, unit area."""

    def to_mel(hertz: float) -> float:
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    def to_hertz(mel: float) -> float:
        return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    edges = [to_hertz(mel) for mel in np.linspace(0, to_mel(rate / 2), n_mels + 2)]
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    filters = np.zeros((n_mels, len(bins)))
    for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        filters[band] = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
    return filters


def reference_log_mel(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Frame by frame, from the definitions."""
    half = config.n_fft // 2
    padded = np.pad(waveform.astype(np.float64), half)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.win_length) / config.win_length)
    offset = (config.n_fft - config.win_length) // 2
    window = np.pad(window, (offset, config.n_fft - config.win_length - offset))
    frames = 1 + len(waveform) // config.hop_length
    starts = [t * config.hop_length for t in range(frames)]
    power = np.stack([np.abs(np.fft.rfft(padded[s : s + config.n_fft] * window)) ** config.power for s in starts], 1)
    mel = np.maximum(slaney_mel_filters(config.n_mels, config.n_fft, config.sample_rate) @ power, config.floor)
    return np.log(mel) if config.log == "natural" else 10 * np.log10(mel)


@pytest.mark.parametrize(
    "config",
    [
        FeatureConfig(seconds=1),
        FeatureConfig(seconds=1, n_fft=2048, win_length=2048, log="db"),
        FeatureConfig(seconds=1, n_fft=1024, win_length=400, hop_length=160, n_mels=64, power=1.0),
    ],
)
def test_equals_the_definition(config: FeatureConfig) -> None:
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal(config.sample_rate)).astype(np.float32)
    ours = LogMel(config)(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(ours, reference_log_mel(waveform, config), atol=2e-3)


def test_ten_seconds_are_128_by_313_and_silence_is_the_floor() -> None:
    config = FeatureConfig()
    log_mel = LogMel(config)(torch.zeros(2, 160000))
    assert log_mel.shape == (2, 128, config.frames) == (2, 128, 313)
    assert torch.allclose(log_mel, torch.tensor(config.floor).log())


def test_level_is_that_of_a_sine() -> None:
    sine = torch.sin(2 * torch.pi * 100 * torch.arange(16000) / 16000)
    assert level_db(torch.stack([sine, sine / 10])).tolist() == pytest.approx([-3.01, -23.01], abs=0.01)
