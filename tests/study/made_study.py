"""Study folders as a run leaves them, made from random scores, and a reader of the pages that they become."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd

from asd_ray import metrics, parquet
from asd_ray.report import tables
from asd_ray.study.folder import StudyFolder, TrialRecord

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
            name = f"{machine}/test/{label}_id_{number}_{domain}_{split}"
            scores = enumerate(rng.normal(shift, 1, clips))
            rows += [(f"{name}_{n:03d}.wav", split, machine, number, domain, label, s) for n, s in scores]
    return pd.DataFrame(rows, columns=["path", "split", "machine", "id", "domain", "label", "score"])


def write_run(study_dir: Path, record: TrialRecord, scored: pd.DataFrame) -> None:
    """A run's scores and record; its second kind of score, ``gmm``, is the first one's negative."""
    folder = StudyFolder(study_dir)
    kinds = {"knn": scored["score"], "gmm": -scored["score"], "decision": 0}
    path = folder.trial(record.trial, record.repeat) / "scores.parquet"
    parquet.write_table(path, scored.assign(**kinds))
    folder.finish_trial(record)


def make_study(
    folder: Path,
    trials: int = 8,
    layout: str = "dcase2020",
    domains: tuple[str, ...] = ("none",),
    clips: int = 25,
    seeds: int = 1,
) -> Path:
    """A study folder as a run leaves it: trials of random strength, one failed, one pruned, from a fixed seed.

    With several seeds every complete trial has repeats. Equal folders are made once per process and copied.
    """
    made = _made(trials, layout, domains, clips, seeds)
    return Path(shutil.copytree(made.name, folder, dirs_exist_ok=True))


@cache
def _made(
    trials: int, layout: str, domains: tuple[str, ...], clips: int, seeds: int
) -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with the process."""
    made = tempfile.TemporaryDirectory(prefix="made-study-")
    folder, rng = Path(made.name), np.random.default_rng(0)
    rows, results, history = [], [], []
    for trial in range(trials):
        alpha, temperature = rng.uniform(0.1, 0.6), np.exp(rng.uniform(np.log(0.05), np.log(0.5)))
        status = {2: "failed", 5: "pruned"}.get(trial, "complete")
        objective = None
        if status == "complete":
            strength = 1.5 - 3 * abs(alpha - 0.35)
            for repeat in range(seeds):
                scored = scored_clips(rng, strength, domains, clips)
                of_trial = metrics.per_id(scored)
                value = float(metrics.averages(of_trial).set_index("split")["auc_pauc"]["select"])
                objective = value if repeat == 0 else objective
                results.append(of_trial.assign(trial=trial, seed=7 + repeat))
                write_run(folder, TrialRecord(trial, {}, 7 + repeat, status, value, repeat=repeat, score="knn"), scored)
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
                "score": "knn" if status == "complete" else "",
                "reason": "pretrain: loss is nan | <script>alert(1)</script>" if status == "failed" else "",
            }
        )
    baselines, scores = [], scored_clips(rng, 0, domains, clips).drop(columns="score")
    for name, strength in (("level", 0.0), ("knn_log_mel", 0.3)):
        scored = scored_clips(rng, strength, domains, clips)
        scores[name] = scored["score"]
        baselines.append(metrics.per_id(scored).assign(baseline=name))
    parquet.write_table(folder / "baseline_scores.parquet", scores)
    (folder / "study.yaml").write_text(STUDY.replace("LAYOUT", layout), encoding="utf-8")
    (folder / "env.json").write_text(
        json.dumps({"python": "3.12.1", "packages": {"torch": "2.11.0"}}), encoding="utf-8"
    )
    parquet.write_table(folder / "trials.parquet", pd.DataFrame(rows))
    parquet.write_table(folder / "results.parquet", pd.concat(results)[list(tables.RESULT_COLUMNS)])
    parquet.write_table(folder / "baselines.parquet", pd.concat(baselines)[list(tables.BASELINE_COLUMNS)])
    parquet.write_table(folder / "history.parquet", pd.DataFrame(history))
    return made


class Page(HTMLParser):
    """What a browser would make of a page: its tags, ids, visible text, and tables as lists of rows of cells."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)
        if "table" in self.open and {"td", "th"} & set(self.open) and "small" not in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def table(self, *header: str) -> list[list[str]]:
        """The rows below the first row that has all of these cells, of the first table that has such a row."""
        for table in self.tables:
            for number, row in enumerate(table):
                if set(header) <= {cell.strip() for cell in row}:
                    return [[cell.strip() for cell in line] for line in table[number + 1 :]]
        raise AssertionError(f"no table with {header}")
