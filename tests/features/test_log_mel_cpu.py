"""The fast transform of CPUs against the plain one, which runs where a gradient is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.config import FeatureConfig
from asd_ray.features.log_mel import LogMel


@settings(deadline=None, max_examples=40)
@given(
    n_fft=st.integers(64, 300),
    shorter=st.integers(0, 30),
    hop=st.integers(1, 200),
    n_mels=st.sampled_from([8, 12, 13, 40, 128]),  # of the last, many take no frequency at all
    power=st.sampled_from([1.0, 2.0, 0.7]),
    mirrored=st.booleans(),
    clips=st.integers(1, 3),
)
@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
def test_mel_spectrograms_equal_those_of_the_plain_transform(
    n_fft: int, shorter: int, hop: int, n_mels: int, power: float, mirrored: bool, clips: int
) -> None:
    pad_mode: Any = "reflect" if mirrored else "constant"
    window = max(64, n_fft - shorter)
    config = FeatureConfig(
        seconds=0.05, n_fft=n_fft, win_length=window, hop_length=hop, n_mels=n_mels, power=power, pad_mode=pad_mode
    )
    waveforms = 0.1 * torch.randn(clips, config.samples, generator=torch.Generator().manual_seed(n_fft))
    transform = LogMel(config)
    expected = transform.mel(waveforms.clone().requires_grad_())
    assert expected.requires_grad
    found = transform.mel(waveforms)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("preset", ["sia_moco", "os_scl", "stgram", "dcase2020_baseline"])
def test_log_mels_of_each_preset_equal_those_of_the_plain_transform(preset: str) -> None:
    transform = LogMel(FeatureConfig.model_validate({"preset": preset, "seconds": 1}))
    waveforms = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    expected = transform(waveforms.clone().requires_grad_())
    assert expected.requires_grad
    torch.testing.assert_close(transform(waveforms), expected.detach(), rtol=1e-4, atol=1e-4)


def test_within_inference_mode_and_outside_of_it() -> None:
    config = FeatureConfig(seconds=0.5, n_fft=512, win_length=512)  # a length of its own, for buffers of its own
    transform, waveforms = LogMel(config), torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        within = transform(waveforms)
    assert torch.equal(transform(waveforms), within)


def test_threads_do_not_share_their_buffers() -> None:
    config = FeatureConfig(seconds=0.5)
    transform, waveforms = LogMel(config), torch.randn(64, 8000, generator=torch.Generator().manual_seed(0))
    expected = transform(waveforms)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda waveform: transform(waveform[None])[0], waveforms))
    assert torch.equal(torch.stack(found), expected)
