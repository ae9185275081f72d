from __future__ import annotations

import math

import numpy as np
import pytest

from asd_ray import scoring
from asd_ray.errors import AsdRayError


def test_level_is_the_score_and_silence_has_one() -> None:
    np.testing.assert_array_equal(scoring.level_score([-20.0, -np.inf, -3.5]), [-20, scoring.SILENCE_DB, -3.5])


def test_knn_of_mean_log_mel() -> None:
    train, group = np.array([[0.0, 0], [10, 0], [0, 1]]), np.array([0, 0, 1])
    test, test_group = np.array([[3.0, 4], [3, 4], [0, 0]]), np.array([0, 1, -1])
    np.testing.assert_allclose(scoring.knn_log_mel(train, group, test, test_group), [5, math.sqrt(18), 0], atol=1e-6)
    both = (5 + math.hypot(7, 4)) / 2
    np.testing.assert_allclose(scoring.knn_log_mel(train, group, test, test_group, 2)[0], both, rtol=1e-6)
    np.testing.assert_allclose(scoring.knn_log_mel(train, group, test, test_group, 99)[0], both, rtol=1e-6)
    names, test_names = np.array(["fan_00", "fan_00", "fan_02"]), np.array(["fan_00", "fan_02", "pump_00"])
    by_name = scoring.knn_log_mel(train, names, test, test_names)
    np.testing.assert_array_equal(by_name, scoring.knn_log_mel(train, group, test, test_group))


def test_knn_of_mean_log_mel_needs_training_clips() -> None:
    with pytest.raises(AsdRayError, match="no training clips"):
        scoring.knn_log_mel(np.zeros((0, 2)), np.zeros(0), np.zeros((1, 2)), np.zeros(1))
