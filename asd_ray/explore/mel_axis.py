"""The mel axis: positions of frequencies, corners of filters, and eight bands of equal width. NumPy only.

Legend: F mel bands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asd_ray.config import FeatureConfig

BANDS = 8
WHOLE = BANDS  # column of the whole spectrum, after the bands
TICKS = (250, 500, 1000, 2000, 4000, 8000, 16000, 32000)
"""Labels of frequency axes in Hz."""

Real = NDArray[np.float64]


def to_mel(hertz: ArrayLike, scale: str) -> Real:
    """Convert Hz to mel by HTK's or Slaney's formula (linear below 1 kHz, logarithmic above)."""
    hertz = np.asarray(hertz, dtype=np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def to_hertz(mel: ArrayLike, scale: str) -> Real:
    """Convert mel to Hz."""
    mel = np.asarray(mel, dtype=np.float64)
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def mel_position(hertz: ArrayLike, features: FeatureConfig) -> Real:
    """Convert Hz to positions on the mel axis: the centre of filter m is at m."""
    low, high = to_mel([features.f_min, features.f_max or features.sample_rate / 2], features.mel_scale)
    return (to_mel(hertz, features.mel_scale) - low) / (high - low) * (features.n_mels + 1) - 1


def hertz_at(position: ArrayLike, features: FeatureConfig) -> Real:
    """Convert positions on the mel axis to Hz."""
    low, high = to_mel([features.f_min, features.f_max or features.sample_rate / 2], features.mel_scale)
    share = (np.asarray(position, dtype=np.float64) + 1) / (features.n_mels + 1)
    return to_hertz(low + share * (high - low), features.mel_scale)


def mel_points(features: FeatureConfig) -> Real:
    """(F + 2,) corners of the filters in Hz: filter m starts at point m, peaks at m + 1 and ends at m + 2."""
    return hertz_at(np.arange(-1, features.n_mels + 1), features)


def band_edges(features: FeatureConfig) -> Real:
    """(9,) edges of the bands in Hz. Bands hold equal numbers of filters (up to one), so they are equally wide in mel.

    An inner edge is where the last filter of a band crosses the first of the next.
    """
    inner = hertz_at(first_filters(features)[1:] - 0.5, features)
    return np.array([features.f_min, *inner, features.f_max or features.sample_rate / 2])


def first_filters(features: FeatureConfig) -> NDArray[np.int64]:
    """(8,) index of each band's first filter."""
    return np.round(np.linspace(0, features.n_mels, BANDS + 1)).astype(np.int64)[:-1]
