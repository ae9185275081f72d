from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.config import FeatureConfig
from asd_ray.data import audio
from asd_ray.features.log_mel import LogMel, level_db, to_int16

REAL = Path(__file__).parents[3] / "shared" / "data" / "real-mini"


def mel_filters(config: FeatureConfig) -> np.ndarray:
    """The filter bank (F, n_fft / 2 + 1) from its definition.

    Slaney's scale is linear below 1 kHz and logarithmic above, HTK's is 2595 log10(1 + f / 700); triangles have unit
    height, or with Slaney's norm unit area.
    """

    def to_mel(hertz: float) -> float:
        if config.mel_scale == "htk":
            return 2595 * np.log10(1 + hertz / 700)
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    def to_hertz(mel: float) -> float:
        if config.mel_scale == "htk":
            return 700 * (10 ** (mel / 2595) - 1)
        return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    rate = config.sample_rate
    low, high = to_mel(config.f_min), to_mel(config.f_max or rate / 2)
    edges = [to_hertz(mel) for mel in np.linspace(low, high, config.n_mels + 2)]
    bins = np.linspace(0, rate / 2, config.n_fft // 2 + 1)
    filters = np.zeros((config.n_mels, len(bins)))
    for band, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        rise, fall = (bins - left) / (centre - left), (right - bins) / (right - centre)
        filters[band] = np.maximum(0, np.minimum(rise, fall)) * (2 / (right - left) if config.norm else 1)
    return filters


def reference_log_mel(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Frame by frame, from the definitions, in fp64."""
    padded = np.pad(waveform.astype(np.float64), config.n_fft // 2, mode=config.pad_mode)  # type: ignore[call-overload]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.win_length) / config.win_length)
    offset = (config.n_fft - config.win_length) // 2
    window = np.pad(window, (offset, config.n_fft - config.win_length - offset))
    starts = [t * config.hop_length for t in range(1 + len(waveform) // config.hop_length)]
    power = np.stack([np.abs(np.fft.rfft(padded[s : s + config.n_fft] * window)) ** config.power for s in starts], 1)
    mel = mel_filters(config) @ power
    mel = np.maximum(mel, config.floor) if config.floor_rule == "clamp" else mel + config.floor
    return np.log(mel) if config.log == "natural" else 20 / config.power * np.log10(mel)


def assert_equal_to_the_definition(waveform: np.ndarray, config: FeatureConfig) -> None:
    ours = LogMel(config)(torch.from_numpy(waveform)[None])[0].half().numpy().astype(np.float64)
    np.testing.assert_allclose(ours, reference_log_mel(waveform, config), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("preset", ["sia_moco", "os_scl", "stgram", "dcase2020_baseline"])
def test_each_preset_equals_its_definition_in_fp16(preset: str) -> None:
    config = FeatureConfig.model_validate({"preset": preset, "seconds": 1})
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 440 * np.arange(config.samples) / config.sample_rate)
    waveform = (0.1 * tone + 0.02 * rng.standard_normal(config.samples)).astype(np.float32)
    waveform[: config.samples // 4] *= 1e-3
    assert_equal_to_the_definition(waveform, config)


@pytest.mark.parametrize("preset", ["sia_moco", "os_scl", "stgram", "dcase2020_baseline"])
def test_each_preset_equals_its_definition_on_a_real_recording(preset: str) -> None:
    recordings = sorted(REAL.glob("*/train/*.wav"))
    if not recordings:
        pytest.skip("the real recordings are not here")
    config = FeatureConfig.model_validate({"preset": preset})
    assert_equal_to_the_definition(audio.read(recordings[0], config.sample_rate, config.seconds), config)


@pytest.mark.parametrize(
    "config",
    [
        FeatureConfig(seconds=1, n_fft=1024, win_length=400, hop_length=160, n_mels=64, power=1.0),
        FeatureConfig(seconds=1, n_mels=64, power=1.0, log="db", f_min=50, f_max=7800, norm=None),
    ],
)
def test_other_settings_equal_the_definition(config: FeatureConfig) -> None:
    rng = np.random.default_rng(0)
    assert_equal_to_the_definition((0.1 * rng.standard_normal(config.samples)).astype(np.float32), config)


def test_a_clips_features_do_not_depend_on_the_clips_beside_it() -> None:
    config = FeatureConfig(seconds=1)
    transform, waveforms = LogMel(config), 0.1 * torch.randn(7, 16000, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([transform(waveform[None]) for waveform in waveforms])
    assert torch.equal(transform(waveforms).half(), alone.half())


def test_ten_seconds_are_128_by_313_and_silence_is_the_floor() -> None:
    for preset, silence in (("sia_moco", np.log(1e-10)), ("os_scl", -100.0), ("dcase2020_baseline", -156.5356)):
        config = FeatureConfig.model_validate({"preset": preset})
        log_mel = LogMel(config)(torch.zeros(2, 160000))
        assert log_mel.shape == (2, 128, config.frames) == (2, 128, 313)
        assert torch.allclose(log_mel, torch.tensor(silence, dtype=torch.float32))


def test_level_is_that_of_a_sine() -> None:
    sine = torch.sin(2 * torch.pi * 100 * torch.arange(16000) / 16000)
    assert level_db(torch.stack([sine, sine / 10])).tolist() == pytest.approx([-3.01, -23.01], abs=0.01)


@settings(deadline=None)
@given(st.lists(st.integers(-32768, 32767), min_size=1))
def test_sixteen_bits_come_back_as_they_were(samples: list[int]) -> None:
    assert to_int16(np.array(samples, dtype=np.float32) / 32768).tolist() == samples


def test_what_is_too_loud_for_sixteen_bits_is_clipped_and_the_rest_rounded() -> None:
    waveform = np.array([1.0, 1.5, -1.0, -7.0, 0.6 / 32768, -0.4 / 32768, 32767.6 / 32768], dtype=np.float32)
    assert to_int16(waveform).tolist() == [32767, 32767, -32768, -32768, 1, 0, 32767]
