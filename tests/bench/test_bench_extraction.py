"""The loops that builds are compared with make the same features, or the comparison would mean nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asd_ray.bench import extraction, librosa_baseline
from asd_ray.config import FeatureConfig
from asd_ray.features.log_mel import LogMel


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    samples = np.random.default_rng(0).normal(scale=0.1, size=32_000)
    soundfile.write(path, samples, 16_000, subtype="PCM_16")
    return path


def waveform(path: Path) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]


@pytest.mark.integration
def test_librosa_and_we_make_the_same_vectors(recording: Path) -> None:
    pytest.importorskip("librosa")
    ours, theirs = extraction.baseline_vectors()(waveform(recording))[0], librosa_baseline.vectors(recording)
    frames = 1 + 32_000 // 512
    assert ours.shape == theirs.shape == (frames - 4, 640)
    np.testing.assert_allclose(ours.float(), theirs, rtol=2**-11, atol=1e-3)  # what rounding to fp16 takes, and 1e-3


def test_torchaudio_and_we_make_the_same_features(recording: Path) -> None:
    x = waveform(recording)
    torch.testing.assert_close(extraction.torchaudio_log_mel()(x), LogMel(FeatureConfig())(x), atol=1e-4, rtol=0)


def test_a_loop_transforms_every_recording_once(recording: Path) -> None:
    shapes = []

    def transform(waveforms: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(waveforms.shape))
        return waveforms

    assert extraction.loop([recording] * 3, transform)() == 3
    assert shapes == 3 * [(1, 160_000)]
