"""The calibration detectors on a small set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from asd_ray.bench.calibration import DETECTORS, describe, measure, summarise
from asd_ray.config import SyntheticConfig


def test_a_description_does_not_depend_on_the_level():
    log_mel = np.random.default_rng(0).normal(size=(128, 313)).astype(np.float32)
    np.testing.assert_allclose(describe(log_mel), describe(log_mel + 3), atol=1e-4)


def test_a_description_shows_a_slow_modulation_that_the_mean_does_not():
    noise = np.random.default_rng(0).normal(size=(2, 128, 313))
    beat = np.sin(2 * np.pi * 20 * np.arange(313) / 313)
    steady, beating = describe(noise[0]), describe(noise[1] + 0.3 * beat)
    assert np.abs(steady[:128] - beating[:128]).max() < 0.4
    assert (beating - steady)[160:].max() > 3


def test_detectors_rank_by_what_they_know(tmp_path):
    config = SyntheticConfig(machines=1, ids=1, train=6, test_normal=4, test_anomaly=4)
    rows = measure(tmp_path, config, examples=5)
    assert set(rows.detector) == set(DETECTORS) - {"autoencoder"}
    assert set(rows.fault) == {"imbalance", "clogging", "bearing_defect", "blade_rub"}
    assert (rows.groupby("detector").clips.sum() == config.test_anomaly).all()
    assert rows.auc.between(0, 1).all()
    mean = rows.groupby("detector").auc.mean()
    assert 0.35 < mean["level"] < 0.65
    assert mean["knn"] < mean["fault_aware"]
    assert mean["fault_aware"] > 0.9


def test_epochs_add_the_autoencoder(tmp_path):
    config = SyntheticConfig(machines=1, ids=1, train=2, test_normal=1, test_anomaly=1)
    rows = measure(tmp_path, config, examples=2, epochs=1)
    assert set(rows.detector) == set(DETECTORS)
    assert rows.auc.between(0, 1).all()


def test_a_summary_weighs_kinds_by_their_clips_and_ids_and_machines_evenly():
    aucs = {("pump", "00"): {"leak": (0.5, 1), "clogging": (0.9, 3)}, ("pump", "02"): {"leak": (0.6, 5)}}
    aucs["fan", "00"] = {"clogging": (1.0, 2)}
    rows = pd.DataFrame(
        [
            {"machine": machine, "id": name, "fault": fault, "clips": clips, "detector": detector, "auc": area}
            for (machine, name), faults in aucs.items()
            for fault, (area, clips) in faults.items()
            for detector in DETECTORS
        ]
    )
    table = summarise(rows)
    assert list(table.index) == ["fan", "pump", "mean"]
    assert list(table.columns) == list(DETECTORS)
    np.testing.assert_allclose(table["knn"], [1.0, (0.8 + 0.6) / 2, 0.85])
