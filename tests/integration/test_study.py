"""A whole study: on a Ray that is running, interrupted and resumed, and on one that it starts itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import requests
import yaml
from sklearn.metrics import roc_auc_score

from asd_ray.memory import ONE_ARENA
from tests.integration.conftest import Run, environment

pytestmark = pytest.mark.integration

DOCUMENT: dict[str, Any] = {
    "name": "small",
    "data": {
        "layout": "synthetic",
        "synthetic": {"machines": 2, "ids": 2, "train": 6, "test_normal": 4, "test_anomaly": 4},
    },
    "features": {"n_mels": 32, "seconds": 2},
    "method": {
        "pretrain": {"encoder": "test_resnet", "epochs": 2, "batch_size": 8, "dim": 16, "queue_size": 32},
        "finetune": {"epochs": 1, "batch_size": 8},
    },
    "search": {
        "num_trials": 2,
        "space": {
            "method.pretrain.alpha": {"uniform": [0.1, 0.6]},
            "method.pretrain.queue_size": {"logint": [8, 64]},
        },
    },
}


def write_study(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**DOCUMENT, **changes}))
    return path


@pytest.fixture(scope="module")
def finished(cluster: str, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with two Ray Train workers per trial, run on the shared Ray."""
    folder = tmp_path_factory.mktemp("study")
    study = write_study(folder, resources={"workers": 2, "cpus_per_worker": 1})
    run("study", "run", study, "--out", folder / "out", "--address", cluster)
    return folder / "out"


def test_the_contracts_files_are_there(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "study.yaml",
        "env.json",
        "trials.parquet",
        "results.parquet",
        "summary.md",
        "report.html",
        "detector",
        "submission",
    }
    assert json.loads((finished / "env.json").read_text())["features_hash"]


def test_trials_have_their_values_and_the_first_is_the_default(finished: Path) -> None:
    trials = pd.read_parquet(finished / "trials.parquet")
    assert trials["trial"].tolist() == [0, 1]
    assert trials["status"].tolist() == ["complete", "complete"]
    first = trials.iloc[0]
    assert (first["method.pretrain.alpha"], first["method.pretrain.queue_size"]) == (0.4, 32)
    assert trials["epochs"].tolist() == [3, 3]
    assert (trials["samples_per_s"] > 0).all()
    assert trials["objective"].between(0, 1).all()


def test_every_id_has_a_row_in_every_split_and_its_metrics_are_sklearns(finished: Path) -> None:
    results = pd.read_parquet(finished / "results.parquet")
    assert len(results) == 2 * 2 * 4
    assert set(results["split"]) == {"select", "holdout"}
    scores = pd.read_parquet(finished / "trials" / "00000" / "scores.parquet")
    assert len(scores) == 2 * 2 * 8  # no test clip was dropped on its way over two workers
    assert np.isfinite(scores["score"]).all()
    for row in results[results["trial"] == 0].itertuples():
        clips = scores.query("split == @row.split and machine == @row.machine and id == @row.id")
        y = clips["label"] == "anomaly"
        assert (row.n_normal, row.n_anomaly) == ((~y).sum(), y.sum()) == (2, 2)
        assert row.auc == pytest.approx(roc_auc_score(y, clips["score"]))
        assert row.pauc == pytest.approx(roc_auc_score(y, clips["score"], max_fpr=0.1))


def test_the_objective_is_the_mean_of_auc_and_pauc_on_the_select_split(finished: Path) -> None:
    trials = pd.read_parquet(finished / "trials.parquet").set_index("trial")["objective"]
    results = pd.read_parquet(finished / "results.parquet").query("split == 'select'")
    machines = results.groupby(["trial", "machine"])[["auc", "pauc"]].mean().groupby("trial").mean()
    assert trials.tolist() == pytest.approx(machines.mean(axis=1).tolist())


def test_scores_are_in_the_challenges_format(finished: Path) -> None:
    files = sorted((finished / "submission").iterdir())
    assert len(files) == 8
    for file in files:
        rows = [line.split(",") for line in file.read_text().splitlines()]
        assert len(rows) == 8
        assert [name for name, _ in rows] == sorted(name for name, _ in rows)
        assert all(name.endswith(".wav") and np.isfinite(float(value)) for name, value in rows)
        if file.name.startswith("decision_result_"):
            assert {value for _, value in rows} <= {"0", "1"}
        else:
            assert file.name.startswith("anomaly_score_")


def test_the_detector_scores_recordings_as_the_trial_did(finished: Path) -> None:
    from asd_ray.detector.detector import Detector

    trials = pd.read_parquet(finished / "trials.parquet")
    best = trials.loc[trials["objective"].idxmax(), "trial"]
    scores = pd.read_parquet(finished / "trials" / f"{best:05d}" / "scores.parquet")
    table = Detector.load(finished / "detector").score([finished / "data" / path for path in scores["path"]])
    assert table["machine"].tolist() == scores["machine"].tolist()
    # Batches of other sizes round differently in bf16.
    np.testing.assert_allclose(table["score"], scores["score"], rtol=0.05, atol=1e-3)
    assert np.corrcoef(table["score"], scores["score"])[0, 1] > 0.999


def test_the_dashboard_shows_the_studys_and_the_trials_names(finished: Path, dashboard: str) -> None:
    jobs = requests.get(f"{dashboard}/api/jobs/", timeout=60).json()
    assert "small" in [job["metadata"].get("study") for job in jobs]
    answer = requests.get(f"{dashboard}/api/v0/actors", params={"detail": "true", "limit": 1000}, timeout=60).json()
    actors = [actor["actor_id"] for actor in answer["data"]["result"]["result"] if actor["repr_name"] == "small"]
    logs = [
        requests.get(f"{dashboard}/api/v0/logs/file", params={"actor_id": actor, "suffix": "out"}, timeout=60).text
        for actor in actors
    ]
    for number in range(2):  # trials share processes, whose logs name each with its values
        assert any(f'small-trial-0000{number} {{"method.pretrain.alpha": ' in log for log in logs)


def test_checkpoints_of_finished_trials_are_gone(finished: Path) -> None:
    assert not list(finished.glob("trials/*/train"))
    assert not list(finished.glob("trials/*/checkpoints"))


def test_a_finished_study_runs_nothing_again_and_can_grow(finished: Path, cluster: str, run: Run) -> None:
    study = finished.parent / "study.yaml"
    before = {path: path.stat().st_mtime_ns for path in finished.glob("trials/*/trial.json")}
    again = run("study", "run", study, "--out", finished, "--json")
    assert json.loads(again.stdout)["complete"] == 2
    grown = run("study", "run", study, "--out", finished, "--address", cluster, "--set", "search.num_trials=3")
    assert "2 of 3 trials ended in earlier runs" in grown.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert pd.read_parquet(finished / "trials.parquet")["trial"].tolist() == [0, 1, 2]
    status = json.loads(run("study", "status", finished, "--json").stdout)
    assert (status["asked"], status["complete"], status["unfinished"]) == (3, 3, 0)


def test_the_folder_of_another_study_is_refused(finished: Path, run: Run) -> None:
    study = finished.parent / "study.yaml"
    refused = run("study", "run", study, "--out", finished, "--set", "seed=5", code=2)
    assert "holds another study: seed is 0 there and 5 here" in refused.stderr


def test_ctrl_c_in_the_middle_loses_nothing_that_was_finished(tmp_path: Path, cluster: str, run: Run) -> None:
    out = tmp_path / "out"
    study = write_study(tmp_path)
    command = [sys.executable, "-m", "asd_ray", "study", "run", str(study), "--out", str(out)]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # every line is an event; the first trial's end is the one to wait for
            if line.startswith("trial 0 complete"):
                break
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on from there" in stderr
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, "its Ray is still running"
    first = (out / "trials" / "00000" / "trial.json").stat().st_mtime_ns
    run("study", "run", study, "--out", out, "--address", cluster)
    assert (out / "trials" / "00000" / "trial.json").stat().st_mtime_ns == first
    assert pd.read_parquet(out / "trials.parquet")["status"].tolist() == ["complete", "complete"]


def test_a_trial_that_cannot_work_is_a_row_with_its_reason(tmp_path: Path, cluster: str, run: Run) -> None:
    space = {"method.finetune.lr": {"loguniform": [1e-4, 1e30]}}
    search = {"num_trials": 2, "space": space, "warm_start": [{"method.finetune.lr": 1e30}]}
    study = write_study(tmp_path, search=search)
    run("study", "run", study, "--out", tmp_path / "out", "--address", cluster)
    trials = pd.read_parquet(tmp_path / "out" / "trials.parquet")
    assert trials["status"].tolist() == ["complete", "failed"]
    assert "finetune: loss is" in trials["reason"][1]
    assert np.isnan(trials["objective"][1])


def test_an_unreadable_clip_is_named_and_left_out_only_on_request(tmp_path: Path, cluster: str, run: Run) -> None:
    run("data", "synth", "--out", tmp_path / "data", "--machines", 1, "--ids", 2, "--train", 6)
    bad = tmp_path / "data" / "fan" / "train" / "normal_id_00_00000003.wav"
    assert bad.exists()
    bad.write_bytes(bad.read_bytes()[:1000])
    data = {"layout": "dcase2020", "root": str(tmp_path / "data")}
    search = {"num_trials": 1}
    study = write_study(tmp_path, data=data, search=search)
    refused = run("study", "run", study, "--out", tmp_path / "a", "--address", cluster, code=1)
    assert "normal_id_00_00000003.wav" in refused.stderr
    assert "Traceback" not in refused.stderr
    out = tmp_path / "a"
    run("study", "run", study, "--out", out, "--address", cluster, "--set", "data.skip_bad=true")
    assert "normal_id_00_00000003.wav" in (out / "logs" / "study.log").read_text()
    assert pd.read_parquet(out / "trials.parquet")["status"].tolist() == ["complete"]


METHODS = {
    "sia_moco": {**DOCUMENT["method"], "pretrain": {**DOCUMENT["method"]["pretrain"], "epochs": 12}},
    "os_scl": {"name": "os_scl", "precision": "bf16", "train": {"epochs": 13, "batch_size": 8}},
    "autoencoder": {"name": "autoencoder", "precision": "bf16", "train": {"epochs": 13, "batch_size": 8}},
}


@pytest.mark.parametrize(
    "name", ["sia_moco", *(pytest.param(other, marks=pytest.mark.slow) for other in ("os_scl", "autoencoder"))]
)
def test_a_killed_training_worker_costs_its_epoch_at_most(name: str, tmp_path: Path, cluster: str, run: Run) -> None:
    resources = {"workers": 2, "reading": "cached" if name == "sia_moco" else "streamed"}
    study = write_study(tmp_path, method=METHODS[name], search={"num_trials": 1}, resources=resources)
    out = tmp_path / "out"
    log = out / "logs" / "study.log"
    command = [sys.executable, "-m", "asd_ray", "study", "run", str(study), "--out", str(out), "--address", cluster]

    def epochs() -> list[int]:
        text = log.read_text() if log.exists() else ""
        return [int(number) for number in re.findall(r"trial 0: \w+, epoch (\d+) of 13", text)]

    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not epochs():  # its first epoch is the event; a run that ends before has failed
            assert process.poll() is None
            time.sleep(0.05)
        children = list(psutil.process_iter(["cmdline", "environ"]))
        workers = [
            child
            for child in children
            if "RayTrainWorker" in "".join(child.info["cmdline"] or [])
            and (child.info["environ"] or {}).get("ASD_RAY_RUN") == "small-trial-00000"
        ]
        assert len(workers) == 2
        assert all(worker.info["environ"].items() >= ONE_ARENA.items() for worker in workers)
        workers[1].kill()
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    reported = epochs()
    assert sorted(set(reported)) == list(range(1, 14))
    assert len(reported) <= 14, "more than one epoch was trained twice"
    assert pd.read_parquet(out / "trials.parquet")["status"].tolist() == ["complete"]
    assert pd.read_parquet(out / "history.parquet")["epoch"].tolist() == list(range(1, 14))
