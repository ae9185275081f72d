"""The calibration detectors tell what they should on a small set."""

from __future__ import annotations

import numpy as np
import pytest

from asd_ray.config import SyntheticConfig
from asd_ray.datasets.calibration import DETECTORS, calibrate, describe, measure

CONFIG = SyntheticConfig(machines=1, ids=1, train=12, test_normal=8, test_anomaly=8)


def test_a_description_does_not_depend_on_the_level():
    log_mel = np.random.default_rng(0).normal(size=(128, 313)).astype(np.float32)
    np.testing.assert_allclose(describe(log_mel), describe(log_mel + 3), atol=1e-4)


def test_a_description_shows_a_slow_modulation_that_the_mean_does_not():
    noise = np.random.default_rng(0).normal(size=(2, 128, 313))
    beat = np.sin(2 * np.pi * 20 * np.arange(313) / 313)
    steady, beating = describe(noise[0]), describe(noise[1] + 0.3 * beat)
    assert np.abs(steady[:128] - beating[:128]).max() < 0.4
    assert (beating - steady)[160:].max() > 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("set")


def test_detectors_rank_by_what_they_know(root):
    rows = measure(root, CONFIG, lessons=8)
    assert set(rows.detector) == set(DETECTORS)
    assert set(rows.fault) == {"imbalance", "clogging", "bearing_defect", "blade_rub"}
    assert (rows.groupby("detector").clips.sum() == CONFIG.test_anomaly).all()
    assert rows.auc.between(0, 1).all()
    mean = rows.groupby("detector").auc.mean()
    assert 0.4 < mean["level"] < 0.6
    assert mean["level"] < mean["knn"] < mean["fault_aware"]
    assert mean["fault_aware"] > 0.9
    table = calibrate(root, CONFIG, lessons=8)
    assert list(table.index) == ["fan", "mean"]
    assert list(table.columns) == list(DETECTORS)
    for name in DETECTORS:  # every kind has as many clips here, so the ID's AUC is the plain mean of its kinds'
        assert table.loc["fan", name] == pytest.approx(rows[rows.detector == name].auc.mean())
