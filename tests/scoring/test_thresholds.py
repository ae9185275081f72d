from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.config import EvaluationConfig
from asd_ray.errors import AsdRayError
from asd_ray.scoring.thresholds import decide, fit_threshold, fit_thresholds


def official(scores, quantile) -> float:
    """As Kota-Dohi/dcase2022_task2_baseline_ae has it in 00_train.py and 01_test.py."""
    shape_hat, loc_hat, scale_hat = scipy.stats.gamma.fit(scores)
    return scipy.stats.gamma.ppf(q=quantile, a=shape_hat, loc=loc_hat, scale=scale_hat)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_gamma_is_the_official_rule_whatever_the_unit(seed, quantile) -> None:
    scores = np.random.default_rng(seed).gamma(3, size=500)
    scores /= scores.std()
    threshold = fit_threshold(scores, "gamma", quantile)
    assert threshold == pytest.approx(official(scores, quantile), rel=1e-6)
    for unit in (1e-9, 1e-6, 1e4):
        assert fit_threshold(unit * scores, "gamma", quantile) == pytest.approx(unit * threshold, rel=1e-3)


@pytest.mark.parametrize("shift", [0.0, -100.0, 100.0])
def test_the_fitted_gamma_finds_the_true_quantile_wherever_it_lies(shift) -> None:
    scores = 2 * np.random.default_rng(1).gamma(3, size=3000) + shift
    assert fit_threshold(scores) == pytest.approx(2 * scipy.stats.gamma.ppf(0.9, 3) + shift, abs=0.3)


def test_quantile_is_that_of_the_scores() -> None:
    assert fit_threshold(range(11), "quantile", 0.9) == 9
    assert fit_threshold([1, 2], "quantile", 0.75) == 1.75


@pytest.mark.parametrize(
    ("scores", "expected"), [([3.0], 3), ([1.0, 2.0], 1.9), ([2.0] * 50, 2), ([-1.0] * 3, -1), ([0.0] * 9, 0)]
)
def test_where_no_gamma_can_be_fitted_the_quantile_stands_in(scores, expected) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_threshold(scores, "gamma") == pytest.approx(expected)


def test_a_fit_that_went_astray_is_not_used(monkeypatch) -> None:
    scores = np.random.default_rng(2).gamma(3, size=100)

    def failing(data):
        raise scipy.stats.FitError("no")

    for fit in (lambda data: (np.nan, 0, 1), lambda data: (1, 1e9, 1), lambda data: (1, -1e9, 1), failing):
        monkeypatch.setattr(scipy.stats.gamma, "fit", fit)
        assert fit_threshold(scores) == np.quantile(scores, 0.9)


finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(st.lists(finite, min_size=1, max_size=30), st.sampled_from(["gamma", "quantile"]), st.floats(0.01, 0.99))
def test_a_threshold_is_always_a_number_near_the_scores(scores, rule, quantile):
    threshold = fit_threshold(scores, rule, quantile)
    width = max(scores) - min(scores)
    assert min(scores) - width <= threshold <= max(scores) + width
    assert type(threshold) is float


def test_a_threshold_needs_finite_scores() -> None:
    with pytest.raises(AsdRayError, match="at least one training score"):
        fit_threshold([])
    with pytest.raises(AsdRayError, match=r"shape \(2,\) with 1 that are not finite"):
        fit_threshold([1.0, np.nan])


def test_a_score_on_the_threshold_is_normal() -> None:
    assert decide([0.5, 1.0, 1.5], 1.0).tolist() == [0, 0, 1]
    assert decide([0.5, 1.0, 1.5], [0.4, 2.0, 1.4]).tolist() == [1, 0, 1]


CLASSES = ("fan/00", "fan/02", "pump/00", "slider/00")
LABEL = np.array([0] * 40 + [1] * 40 + [2] * 40)
SCORES = np.random.default_rng(3).gamma(3, size=120) * (1 + LABEL)


def test_every_id_has_its_own_threshold() -> None:
    thresholds = fit_thresholds(SCORES, LABEL, CLASSES, EvaluationConfig())
    assert thresholds.shape == (5,)
    for number in range(3):
        assert thresholds[number] == fit_threshold(SCORES[number == LABEL])
    assert thresholds[3] == thresholds[-1] == fit_threshold(SCORES)  # a machine without training clips
    assert thresholds[np.array([-1, 0])].tolist() == [thresholds[4], thresholds[0]]


def test_the_ids_of_a_machine_can_share_a_threshold() -> None:
    config = EvaluationConfig(threshold_per="machine", threshold="quantile", threshold_quantile=0.8)
    thresholds = fit_thresholds(SCORES, LABEL, CLASSES, config)
    assert thresholds[0] == thresholds[1] == np.quantile(SCORES[LABEL < 2], 0.8)
    assert thresholds[2] == np.quantile(SCORES[LABEL == 2], 0.8)


def test_an_id_without_training_clips_takes_its_machines_threshold() -> None:
    rest = LABEL != 1
    thresholds = fit_thresholds(SCORES[rest], LABEL[rest], CLASSES, EvaluationConfig())
    assert thresholds[1] == fit_threshold(SCORES[LABEL == 0])


def test_about_a_tenth_of_new_normal_clips_are_called_anomalous() -> None:
    rng = np.random.default_rng(4)
    threshold = fit_threshold(rng.gamma(2, size=900))
    assert decide(rng.gamma(2, size=20_000), threshold).mean() == pytest.approx(0.1, abs=0.02)
