"""Reference of the ``features`` benchmark: the features of the official baseline of DCASE 2020 Task 2.

Written from its description (y-kawagu/dcase2020_task2_baseline): librosa loads a clip and computes a mel spectrogram of
128 bands, 1024 points and hop 512; then 20/p log10(mel + ε) with p = 2 and the ε of a double; then every 5 consecutive
frames are joined to one vector.

Legend: F mel bands, T frames, P = 5 frames, V = T - P + 1 vectors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CONTEXT = 5


def vectors(path: Path) -> NDArray[np.float64]:
    """Vectors (V, P F) of a recording.

    Raises:
        ModuleNotFoundError: librosa is not installed.
    """
    import librosa

    waveform, sample_rate = librosa.load(path, sr=None)
    mel = librosa.feature.melspectrogram(
        # Mirrored ends are the default of librosa 0.6.0, which the baseline pins.
        y=waveform,
        sr=sample_rate,
        n_fft=1024,
        hop_length=512,
        n_mels=128,
        power=2.0,
        pad_mode="reflect",
    )
    log_mel = 20 / 2.0 * np.log10(mel + sys.float_info.epsilon)
    count = log_mel.shape[1] - CONTEXT + 1
    joined = np.zeros((count, CONTEXT * 128))
    for frame in range(CONTEXT):
        joined[:, frame * 128 : (frame + 1) * 128] = log_mel[:, frame : frame + count].T
    return joined
