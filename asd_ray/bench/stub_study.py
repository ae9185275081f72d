"""Make study folders with simulated trials, which leave a trial's files without training.

A trial gets the scores of one of a few prepared detectors. The nearer its values are to a point unknown to the search,
the better the detector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asd_ray import metrics, parquet
from asd_ray.config import StudyConfig
from asd_ray.config.study_file import parse_study
from asd_ray.data.clips import stable_hash
from asd_ray.metrics.selection import objective
from asd_ray.report import tables
from asd_ray.study.folder import StudyFolder, TrialRecord

MACHINES, IDS, CLIPS = ("ToyCar", "ToyConveyor", "fan", "pump", "slider", "valve"), ("00", "02"), 100
KINDS = ("classification", "knn", "local_density", "mahalanobis", "gmm", "ensemble")
DETECTORS = 20
FAIL_EVERY = 40
"""Every 40th trial fails, as a trial whose loss is not a number."""
BEST = {
    "method.pretrain.alpha": 0.35,
    "method.pretrain.momentum": 0.98,
    "method.pretrain.queue_size": 2048.0,
    "method.pretrain.temperature": 0.1,
}
STUDY = {
    "name": "simulation",
    "data": {"layout": "synthetic"},
    "method": {"name": "sia_moco", "pretrain": {"epochs": 12, "probe_every": 2}, "finetune": {"epochs": 8}},
    "search": {
        "space": {
            "method.pretrain.alpha": {"uniform": [0.1, 0.6]},
            "method.pretrain.momentum": {"uniform": [0.9, 0.999]},
            "method.pretrain.queue_size": {"logint": [256, 16384]},
            "method.pretrain.temperature": {"loguniform": [0.02, 0.5]},
        },
        "scheduler": "asha",
        "grace_epochs": 4,
    },
}


@dataclass(frozen=True)
class Detectors:
    """Scored clips of detectors of rising strength, with their results and objectives.

    12 IDs (6 machines x 2) with 100 normal and 100 anomalous clips each; half of the clips are in the select split.
    """

    scored: tuple[pd.DataFrame, ...]
    results: tuple[list[dict[str, Any]], ...]
    objectives: tuple[float, ...]

    @classmethod
    @cache
    def make(cls) -> Detectors:
        """Once per process."""
        rng = np.random.default_rng(0)
        identity = [
            (f"{machine}/test/{label}_id_{number}_{clip:08d}.wav", machine, number, "none", label, split)
            for machine in MACHINES
            for number in IDS
            for label in ("normal", "anomaly")
            for clip in range(CLIPS)
            for split in (metrics.SPLITS[clip % 2],)
        ]
        clips = pd.DataFrame(identity, columns=["path", "machine", "id", "domain", "label", "split"])
        anomalous = (clips["label"] == "anomaly").to_numpy()
        scored, results, objectives = [], [], []
        for strength in np.linspace(0.2, 2.0, DETECTORS):
            own = {
                kind: rng.normal(strength * anomalous * (1.0 if kind == "knn" else rng.uniform(0.7, 1.0)), 1.0)
                for kind in KINDS
            }
            table = clips.assign(**own, score=own["knn"], decision=(own["knn"] > 1.3).astype(np.int64))
            rows = metrics.per_id(table)
            scored.append(table)
            results.append([{str(key): value for key, value in row.items()} for row in rows.to_dict("records")])
            objectives.append(objective(rows, "auc_pauc") or 0.0)
        return cls(tuple(scored), tuple(results), tuple(objectives))

    def of(self, number: int, values: Mapping[str, Any]) -> int:
        """Index of the detector of a trial with these values, with some noise."""
        distance = [abs(math.log(float(values[key]) / best)) for key, best in BEST.items()]
        luck = stable_hash("luck", number) % 1000 / 1000
        return round((DETECTORS - 1) * min(1.0, max(0.0, 0.9 - 0.35 * sum(distance) / len(distance) + 0.1 * luck)))


def epochs(study: StudyConfig, number: int, strength: float) -> list[dict[str, Any]]:
    """Metrics that a trial's epochs report. ``strength`` is from 0 to 1."""
    rng = np.random.default_rng(number)
    pretrain, finetune = study.method.pretrain.epochs, study.method.finetune.epochs  # type: ignore[attr-defined]
    rows = []
    for epoch in range(1, pretrain + finetune + 1):
        stage = "pretrain" if epoch <= pretrain else "finetune"
        done = epoch / (pretrain + finetune)
        row = {"stage": stage, "epoch": epoch, "epochs": pretrain + finetune, "lr": 0.03 * (1 - done)}
        row |= {"loss": 5 * math.exp(-2 * done * (0.5 + strength)) + rng.normal(0, 0.05), "seconds": 1.0}
        row["samples_per_s"] = float(rng.uniform(900, 1000))
        if stage == "pretrain":
            row |= {"embedding_std": 0.08 * strength + rng.normal(0, 0.002), "uniformity": -2 * done * strength}
        else:
            row["accuracy"] = min(1.0, 0.3 + 0.7 * done * strength)
        if epoch % 2 == 0:
            row["knn_auc"] = 0.5 + 0.4 * done * strength + rng.normal(0, 0.01)
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Stub:
    """Input of simulated trials."""

    study: StudyConfig
    folder: StudyFolder
    detectors: Detectors
    claims: None = None

    def finish(self, number: int, repeat: int, values: Mapping[str, Any], seed: int) -> TrialRecord:
        """Write the files of a real trial: history, scores, record."""
        chosen = self.detectors.of(number, values)
        rows = epochs(self.study, number, chosen / (DETECTORS - 1))
        record = TrialRecord(number, dict(values), seed, "failed", duration_s=20.0, repeat=repeat)
        if number % FAIL_EVERY == FAIL_EVERY - 1:
            record.reason = "pretrain: loss is nan in epoch 1"
        else:
            folder = self.folder.trial(number, repeat)
            parquet.write_table(folder / "scores.parquet", self.detectors.scored[chosen])
            self.folder.write_history(number, repeat, rows)
            record.status, record.objective = "complete", self.detectors.objectives[chosen]
            record.results, record.score = self.detectors.results[chosen], "knn"
            record.epochs, record.samples_per_s = len(rows), 950.0
        self.folder.finish_trial(record)
        return record


def run_stub(config: dict[str, Any], stub: Stub) -> None:
    """Simulate a trial, in place of :func:`asd_ray.study.trial.run_trial`."""
    import ray.tune

    number, repeat, values = config["trial"], config.get("repeat", 0), config["values"]
    if number % FAIL_EVERY != FAIL_EVERY - 1:
        for row in epochs(stub.study, number, stub.detectors.of(number, values) / (DETECTORS - 1)):
            ray.tune.report(row)
    record = stub.finish(number, repeat, values, 7 + repeat)
    ray.tune.report({"objective": record.objective, "status": record.status, "reason": record.reason})


def open_folder(path: Path, trials: int) -> tuple[StudyConfig, StudyFolder, Detectors]:
    """Create a study folder as it is before the first trial."""
    study = parse_study({**STUDY, "search": {**STUDY["search"], "num_trials": trials}}, "simulation")  # type: ignore[dict-item]
    folder, detectors = StudyFolder(path), Detectors.make()
    folder.open(study)
    folder.write_environment("", {}, synthetic=True)
    scores = detectors.scored[0].drop(columns=[*KINDS, "score", "decision"])
    scores = scores.assign(level=detectors.scored[0]["knn"], knn_log_mel=detectors.scored[3]["knn"])
    parquet.write_table(folder.path / "baseline_scores.parquet", scores)
    rows = [pd.DataFrame(detectors.results[n]).assign(baseline=name) for n, name in ((0, "level"), (3, "knn_log_mel"))]
    parquet.write_table(folder.path / "baselines.parquet", pd.concat(rows)[list(tables.BASELINE_COLUMNS)])
    return study, folder, detectors


def write_study(path: Path, trials: int) -> StudyFolder:
    """Write the study folder of a random search, without a search and without Ray. Every fifth trial is pruned."""
    study, folder, detectors = open_folder(path, trials)
    stub, rng = Stub(study, folder, detectors), np.random.default_rng(0)
    for number in range(trials):
        values: dict[str, Any] = {}
        for key, distribution in study.search.space.items():
            low, high = (float(bound) for bound in distribution.examples())  # type: ignore[arg-type]
            log = distribution.type.startswith("log")
            drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
            values[key] = round(drawn) if distribution.type.endswith("int") else float(drawn)
        folder.start_trial(number, values)
        if number % 5 == 4 and number % FAIL_EVERY != FAIL_EVERY - 1:
            rows = epochs(study, number, 0.1)[:4]
            folder.write_history(number, 0, rows)
            reason = f"stopped by the scheduler after epoch 4 with a k-NN AUC of {rows[-1]['knn_auc']:.4f}"
            folder.finish_trial(TrialRecord(number, values, 7, "pruned", epochs=4, duration_s=4.0, reason=reason))
        else:
            stub.finish(number, 0, values, 7)
    return folder
