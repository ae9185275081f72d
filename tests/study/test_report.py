from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from asd_ray import metrics
from asd_ray.study import report, tables

STUDY = """\
name: sample
seed: 0
data: {layout: LAYOUT}
evaluation: {objective: auc_pauc, max_fpr: 0.1}
search:
  space:
    method.pretrain.alpha: {uniform: [0.1, 0.6]}
    method.pretrain.temperature: {loguniform: [0.05, 0.5]}
    method.pretrain.queue_size: {logint: [32, 512]}
    method.pretrain.projection: {choice: [linear, mlp]}
"""


def scored_clips(rng: np.random.Generator, strength: float, domains: tuple[str, ...], clips: int) -> pd.DataFrame:
    rows = []
    for split, machine, number in itertools.product(metrics.SPLITS, ("fan", "pump", "valve"), ("00", "02")):
        for domain, label in itertools.product(domains, ("normal", "anomaly")):
            shift = strength * (label == "anomaly") * {"fan": 0.6, "pump": 1.0, "valve": 1.6}[machine]
            rows += [(split, machine, number, domain, label, s) for s in rng.normal(shift, 1, clips)]
    return pd.DataFrame(rows, columns=["split", "machine", "id", "domain", "label", "score"])


def make_study(
    folder: Path, trials: int = 8, layout: str = "dcase2020", domains: tuple[str, ...] = ("none",), clips: int = 25
) -> Path:
    """A study folder as a run leaves it: trials of random strength, one failed, one pruned, from a fixed seed."""
    rng = np.random.default_rng(0)
    rows, results, history = [], [], []
    for trial in range(trials):
        alpha, temperature = rng.uniform(0.1, 0.6), np.exp(rng.uniform(np.log(0.05), np.log(0.5)))
        status = {2: "failed", 5: "pruned"}.get(trial, "complete")
        objective = None
        if status == "complete":
            strength = 1.5 - 3 * abs(alpha - 0.35)
            of_trial = metrics.per_id(scored_clips(rng, strength, domains, clips))
            objective = float(metrics.averages(of_trial).set_index("split")["auc_pauc"]["select"])
            results.append(of_trial.assign(trial=trial, seed=7))
        epochs = 10 if status == "complete" else 4
        for epoch in range(1, epochs + 1):
            stage = "pretrain" if epoch <= 6 else "finetune"
            loss = 3 * np.exp(-epoch / 5) + rng.normal(0, 0.05)
            own = {"embedding_std": 0.05 + epoch / 100} if stage == "pretrain" else {"accuracy": epoch / 10}
            history.append({"trial": trial, "stage": stage, "epoch": epoch, "epochs": 10, "loss": loss, **own})
        rows.append(
            {
                "trial": trial,
                "status": status,
                "objective": objective,
                "method.pretrain.alpha": alpha,
                "method.pretrain.temperature": temperature,
                "method.pretrain.queue_size": int(rng.integers(32, 513)),
                "method.pretrain.projection": str(rng.choice(["linear", "mlp"])),
                "epochs": epochs,
                "duration_s": float(rng.uniform(20, 90)),
                "samples_per_s": float(rng.uniform(80, 120)) if status == "complete" else None,
                "seed": 7,
                "reason": "pretrain: loss is nan | <script>alert(1)</script>" if status == "failed" else "",
            }
        )
    baselines = [
        metrics.per_id(scored_clips(rng, strength, domains, clips)).assign(baseline=name)
        for name, strength in (("level", 0.0), ("knn_log_mel", 0.3))
    ]
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text(STUDY.replace("LAYOUT", layout), encoding="utf-8")
    (folder / "env.json").write_text(
        json.dumps({"python": "3.12.1", "packages": {"torch": "2.11.0"}}), encoding="utf-8"
    )
    tables.write_table(folder / "trials.parquet", pd.DataFrame(rows))
    tables.write_table(folder / "results.parquet", pd.concat(results)[list(tables.RESULT_COLUMNS)])
    tables.write_table(folder / "baselines.parquet", pd.concat(baselines)[list(tables.BASELINE_COLUMNS)])
    tables.write_table(folder / "history.parquet", pd.DataFrame(history))
    return folder
