"""A search over features and scores: what trials have in common is made once, by one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.integration.conftest import Run

pytestmark = pytest.mark.integration

STUDY = {
    "name": "shared",
    "data": {"layout": "synthetic", "synthetic": {"machines": 1, "ids": 2, "train": 8, "test_normal": 4}},
    "features": {"n_mels": 32, "seconds": 2},
    "method": {
        "pretrain": {"encoder": "test_resnet", "epochs": 2, "batch_size": 8, "dim": 16, "queue_size": 16},
        "finetune": {"epochs": 1, "batch_size": 8},
    },
    "search": {
        "num_trials": 4,
        "sampler": "grid",
        "space": {"features.n_mels": {"choice": [24, 32]}, "evaluation.neighbours": {"int": [1, 2]}},
    },
    "resources": {"max_concurrent_trials": 2},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, cluster: str, run: Run) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    run("study", "run", folder / "study.yaml", "--out", folder / "out", "--address", cluster)
    return folder / "out"


def test_every_combination_is_a_complete_trial(shared: Path) -> None:
    trials = pd.read_parquet(shared / "trials.parquet")
    assert (trials["status"] == "complete").all()
    drawn = set(zip(trials["features.n_mels"], trials["evaluation.neighbours"], strict=True))
    assert drawn == {(24, 1), (24, 2), (32, 1), (32, 2)}


def test_each_set_of_features_is_trained_on_once(shared: Path) -> None:
    trials = pd.read_parquet(shared / "trials.parquet")
    assert (trials["epochs"] == 3).all()
    assert sorted(trials["recalled_epochs"]) == [0, 0, 3, 3]
    assert (trials.groupby("features.n_mels")["recalled_epochs"].sum() == 3).all()
    stages = sorted(path.name.rpartition("-")[0] for path in (shared / "stages").iterdir())
    assert stages == ["finetune", "finetune", "pretrain", "pretrain"]


def test_the_features_of_the_study_are_not_made_again(shared: Path) -> None:
    [other] = (shared / "feature_sets").iterdir()
    settings = [json.loads((path / "manifest.json").read_text())["settings"] for path in (other, shared / "features")]
    assert [found["n_mels"] for found in settings] == [24, 32]


def test_equal_networks_give_equal_scores(shared: Path) -> None:
    trials = pd.read_parquet(shared / "trials.parquet")
    scores = [pd.read_parquet(shared / "trials" / f"{trial:05d}" / "scores.parquet") for trial in trials["trial"]]
    for n_mels, members in trials.groupby("features.n_mels"):
        first, second = (scores[trial] for trial in members["trial"])
        assert first["gmm"].equals(second["gmm"]), n_mels
        assert not first["knn"].equals(second["knn"]), n_mels  # of 1 and of 2 neighbours


def test_only_the_best_trial_keeps_its_detector(shared: Path) -> None:
    trials = pd.read_parquet(shared / "trials.parquet")
    best = trials.loc[trials["objective"].idxmax(), "trial"]
    assert [path.parent.name for path in shared.glob("trials/*/detector")] == [f"{best:05d}"]
    document = json.loads((shared / "detector" / "detector.json").read_text())
    assert document["study"]["features"]["n_mels"] == trials["features.n_mels"][best]
