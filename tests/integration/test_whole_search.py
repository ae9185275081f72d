"""A search with everything that a search can have: early stopping, repeats with seeds, streamed clips, other audio; its
trials share a process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import soundfile
import yaml

from tests.integration.conftest import Run

pytestmark = pytest.mark.integration

SEARCH = {
    "num_trials": 5,
    "scheduler": "asha",
    "grace_epochs": 1,
    "reduction": 4,
    "seeds": 2,
    "repeat_best": 1,
    "space": {"method.pretrain.alpha": {"uniform": [0.1, 0.6]}, "evaluation.neighbours": {"int": [1, 3]}},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    (folder / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(folder / "sounds" / f"{number}.wav", 0.1 * rng.standard_normal(32000), 16000)
    document = {
        "name": "searched",
        "data": {
            "layout": "synthetic",
            "synthetic": {"machines": 2, "ids": 2, "train": 8, "test_normal": 6, "test_anomaly": 6},
            "extra_pretraining": [str(folder / "sounds")],
        },
        "features": {"n_mels": 32, "seconds": 2},
        "method": {
            "pretrain": {
                "encoder": "test_resnet",
                "epochs": 4,
                "batch_size": 8,
                "dim": 16,
                "queue_size": 32,
                "corpus": "both",
                "probe_every": 1,
            },
            "finetune": {"epochs": 1, "batch_size": 8, "coupling": "frozen"},
        },
        "evaluation": {"score": "best"},
        "search": SEARCH,
        "resources": {"reading": "streamed", "max_concurrent_trials": 1},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def searched(study: Path, cluster: str, run: Run) -> Path:
    run("study", "run", study, "--out", study.parent / "out", "--address", cluster)
    return study.parent / "out"


def test_stopped_trials_are_pruned_and_never_ranked(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    assert set(trials["status"]) == {"complete", "pruned"}
    pruned = trials[trials["status"] == "pruned"]
    assert pruned["objective"].isna().all()
    assert (pruned["epochs"] < 5).all()
    assert pruned["reason"].str.contains("stopped by the scheduler after epoch").all()
    complete = trials[trials["status"] == "complete"]
    assert (complete["epochs"] == 5).all()
    best = complete.loc[complete["objective"].idxmax(), "trial"]
    assert (searched / "detector" / "detector.json").read_bytes() == (
        searched / "trials" / f"{best:05d}" / "detector" / "detector.json"
    ).read_bytes()


def test_optuna_knows_pruned_trials_as_pruned(searched: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{searched / 'optuna.db'}")
    known = optuna.load_study(study_name="searched", storage=storage).get_trials()
    states = sorted(trial.state.name.lower() for trial in known)
    assert states == sorted(pd.read_parquet(searched / "trials.parquet")["status"])
    assert all(trial.intermediate_values for trial in known if trial.state.name == "PRUNED")


def test_the_best_and_the_default_have_a_second_seed(searched: Path) -> None:
    trials = pd.read_parquet(searched / "trials.parquet")
    complete = trials[trials["status"] == "complete"]
    repeated = {0, int(complete.loc[complete["objective"].idxmax(), "trial"])}
    seeds = pd.read_parquet(searched / "results.parquet").groupby("trial")["seed"].nunique()
    assert set(seeds.index) == set(complete["trial"])
    assert {trial for trial, count in seeds.items() if count == 2} == repeated
    assert seeds.max() == 2


def test_every_epoch_is_probed_and_the_best_score_counts(searched: Path) -> None:
    history = pd.read_parquet(searched / "history.parquet")
    assert history["knn_auc"].between(0, 1).all()
    record = json.loads((searched / "trials" / "00000" / "trial.json").read_text())
    scores = pd.read_parquet(searched / "trials" / "00000" / "scores.parquet")
    assert scores["score"].equals(scores[record["score"]])


def test_other_audio_is_trained_on_and_never_scored(searched: Path) -> None:
    manifest = json.loads((searched / "features" / "manifest.json").read_text())
    assert manifest["counts"] == {"train": 32, "test": 48, "extra": 6}
    assert set(pd.read_parquet(searched / "results.parquet")["machine"]) == {"fan", "pump"}


def test_the_encoder_can_be_started_from(searched: Path, study: Path, cluster: str, run: Run) -> None:
    out = study.parent / "second"
    settings = ["method.pretrain.epochs=0", f"method.pretrain.init_from={searched / 'encoder'}", "search.num_trials=1"]
    settings += ["method.pretrain.corpus=own", "search.seeds=1"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    run("study", "run", study, "--out", out, "--address", cluster, *overrides)
    assert pd.read_parquet(out / "history.parquet")["stage"].tolist() == ["finetune"]


def test_a_finished_search_starts_nothing_again(searched: Path, study: Path, cluster: str, run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in searched.glob("trials/**/trial.json")}
    assert len(before) >= 6
    run("study", "run", study, "--out", searched, "--address", cluster)
    assert {path: path.stat().st_mtime_ns for path in searched.glob("trials/**/trial.json")} == before
