"""Two baselines that need no network, to compare every method with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asd_ray.scoring.embedded import Scores
from asd_ray.scoring.neighbours import References

SILENCE_DB = -200.0
"""Level that stands for digital silence, whose own is minus infinity; far below any 24-bit recording."""


def level_score(level_db: ArrayLike) -> Scores:
    """Baseline: how loud a clip is, and nothing else. An AUC far from 0.5, on either side, warns of an easy data set.

    Args:
        level_db: (M,) RMS levels in dB; minus infinity (digital silence) counts as ``SILENCE_DB``.
    """
    return np.maximum(np.asarray(level_db, dtype=np.float64), SILENCE_DB)


def knn_log_mel(
    train_mean: ArrayLike, train_class: ArrayLike, test_mean: ArrayLike, test_class: ArrayLike, neighbours: int = 1
) -> Scores:
    """Baseline: mean Euclidean distance to the nearest training clips of the own group, in time-averaged Log-Mel.

    Args:
        train_mean: (N, F) Log-Mel features of training clips, averaged over time.
        train_class: (N,) group names or numbers.
        test_mean: (M, F) those of test clips.
        test_class: (M,) group names or numbers; a group without training clips is compared with all of them.
        neighbours: how many nearest clips are averaged.

    Returns:
        (M,) float64, in the features' unit.

    Raises:
        AsdRayError: there are no training clips.
    """
    group: NDArray[Any] = np.asarray(train_class)
    train = References(np.asarray(train_mean, dtype=np.float32), group, np.zeros(len(group)), "euclidean")
    return train.knn(np.asarray(test_mean, dtype=np.float32), np.asarray(test_class), neighbours)
