"""A method, an encoder, a score and a layout that a test registers take part in a study, up to its detector."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import asd_ray
from asd_ray.registry import ENCODERS, LAYOUTS, METHODS, SCORES

pytestmark = pytest.mark.integration


@pytest.fixture
def _own_parts() -> Iterator[None]:
    """Registered by importing their module, and forgotten after the test."""
    importlib.import_module("tests.integration.own_parts")
    yield
    for registry in (METHODS, ENCODERS, SCORES, LAYOUTS):
        for name in registry.foreign():
            del registry.parts[name]


STUDY = {
    "name": "registered",
    "data": {"layout": "flat"},
    "features": {"n_mels": 16, "seconds": 1},
    "method": {"name": "bands"},
    "evaluation": {"score": "distance_to_mean", "scores": ["distance_to_mean", "knn"]},
    "search": {"num_trials": 2, "space": {"method.train.lr": {"choice": [0.01, 0.001]}}},
}


def write_recordings(root: Path) -> Path:
    root.mkdir()
    rng = np.random.default_rng(0)
    for machine in ("fan", "pump"):
        for split, label, level in (("train", "normal", 0.1), ("test", "normal", 0.1), ("test", "anomaly", 0.4)):
            for number in range(6):
                noise = level * rng.standard_normal(16000).clip(-2, 2)
                soundfile.write(root / f"{machine}_00_{split}_{label}_{number}.wav", noise, 16000)
    return root


@pytest.mark.usefixtures("_own_parts")
def test_registered_parts_run_in_trials_and_in_the_detector(cluster: str, tmp_path: Path) -> None:
    root = write_recordings(tmp_path / "recordings")
    study = asd_ray.load_study(STUDY, {"data.root": str(root)})
    outcome = asd_ray.run_study(study, tmp_path / "out", address=cluster)
    assert outcome.trials["status"].tolist() == ["complete", "complete"]
    assert set(outcome.results["machine"]) == {"fan", "pump"}
    table = outcome.detector().score(sorted(root.glob("fan_00_test_*.wav")), "fan", "00")
    anomalous = table["path"].astype(str).str.contains("anomaly")
    assert table["score"][anomalous].min() > table["score"][~anomalous].max()
    assert asd_ray.read_study(tmp_path / "out").study == study
