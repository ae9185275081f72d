from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import melscale_fbanks

from asd_ray.config import FeatureConfig
from asd_ray.explore import mel_axis

RATE = 16000
SCALES = st.sampled_from(["htk", "slaney"])


@given(SCALES, st.integers(8, 96), st.floats(0, 900), st.floats(2000, 8000))
@settings(deadline=None, max_examples=15)
def test_mel_points_are_the_corners_of_torchaudios_filters(scale: str, n_mels: int, low: float, high: float) -> None:
    config = FeatureConfig(mel_scale=scale, n_mels=n_mels, f_min=low, f_max=high)
    points = mel_axis.mel_points(config)
    filters = melscale_fbanks(8001, low, high, n_mels, RATE, mel_scale=scale).numpy()  # one row per Hz
    for band in range(n_mels):
        inside = np.flatnonzero(filters[:, band])
        assert points[band] - 1e-2 <= inside[0] <= points[band] + 1.01
        assert points[band + 2] - 1.01 <= inside[-1] <= points[band + 2] + 1e-2
        assert abs(filters[:, band].argmax() - points[band + 1]) < 1


@given(SCALES, st.floats(0, 20000))
@settings(deadline=None)
def test_mel_and_back(scale: str, hertz: float) -> None:
    assert mel_axis.to_hertz(mel_axis.to_mel(hertz, scale), scale) == pytest.approx(hertz, abs=1e-6)


@given(SCALES, st.integers(8, 200), st.floats(0, 500))
@settings(deadline=None)
def test_bands_are_equally_wide_in_mel_up_to_two_filters(scale: str, n_mels: int, low: float) -> None:
    config = FeatureConfig(mel_scale=scale, n_mels=n_mels, f_min=low)
    edges = mel_axis.band_edges(config)
    assert (edges[0], edges[-1], len(edges)) == (low, 8000, 9)
    widths = np.diff(mel_axis.to_mel(edges, scale))
    assert (widths > 0).all()
    assert np.ptp(widths) <= 2 * (widths.sum() / (n_mels + 1)) + 1e-9
