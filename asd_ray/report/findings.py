"""The files of a study folder, and the facts that a report needs from them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from asd_ray import metrics
from asd_ray.errors import AsdRayError
from asd_ray.parquet import read_table
from asd_ray.report.evidence import Evidence, gather
from asd_ray.report.tables import (
    BASELINE_COLUMNS,
    RESULT_COLUMNS,
    TRIAL_COLUMNS,
    best_trial,
    machine_table,
    searched_keys,
    trial_table,
)

LABELS = {"best": "best trial", "default": "default (trial 0)", "level": "level only", "knn_log_mel": "k-NN Log-Mel"}
DEFAULT = 0
"""The trial with the study file's own values."""


@dataclass(frozen=True)
class Findings:
    """The files of a study folder, and the facts that a report needs from them.

    Attributes:
        folder: the study folder.
        study: the resolved study as nested mappings; not validated, so that studies of other versions can be reported.
        study_text: the same as YAML.
        environment: ``env.json``; empty if missing.
        trials, results, baselines, history: the tables; all but ``trials`` may be empty.
    """

    folder: Path
    study: dict[str, Any]
    study_text: str
    environment: dict[str, Any]
    trials: pd.DataFrame
    results: pd.DataFrame
    baselines: pd.DataFrame
    history: pd.DataFrame

    @classmethod
    def read(cls, study_dir: Path) -> Findings:
        """Read a study folder.

        Raises:
            AsdRayError: ``study.yaml`` or ``trials.parquet`` is missing, or a file cannot be read.
        """
        text = _read_text(study_dir / "study.yaml")
        environment = study_dir / "env.json"
        try:
            study = yaml.safe_load(text)
            env = json.loads(_read_text(environment)) if environment.exists() else {}
        except (yaml.YAMLError, json.JSONDecodeError) as error:
            raise AsdRayError(
                f"{study_dir}: study.yaml or env.json is damaged: {' '.join(str(error).split())}"
            ) from None
        if not isinstance(study, dict):
            raise AsdRayError(f"{study_dir}/study.yaml: a study is a mapping of keys, found {study!r:.80}.")
        return cls(
            study_dir,
            study,
            text,
            env,
            read_table(study_dir / "trials.parquet", TRIAL_COLUMNS),
            read_table(study_dir / "results.parquet", RESULT_COLUMNS, missing_ok=True),
            read_table(study_dir / "baselines.parquet", BASELINE_COLUMNS, missing_ok=True),
            read_table(study_dir / "history.parquet", ("trial", "epoch", "stage"), missing_ok=True),
        )

    @property
    def name(self) -> str:
        return str(self.study.get("name", "study"))

    @property
    def space(self) -> dict[str, Any]:
        """Searched key -> its distribution as in the study file."""
        return (self.study.get("search") or {}).get("space") or {}

    @cached_property
    def best(self) -> int | None:
        return best_trial(self.trials)

    @cached_property
    def machines(self) -> pd.DataFrame:
        """:func:`asd_ray.report.tables.machine_table` of the best trial."""
        return machine_table(self.results, self.baselines, self.best, DEFAULT)

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """:func:`asd_ray.report.tables.trial_table`."""
        return trial_table(self.trials, self.results)

    @cached_property
    def evidence(self) -> Evidence:
        """Intervals, differences and kinds of score from the scored clips."""
        return gather(self.folder, self.best, DEFAULT, self.max_fpr)

    @property
    def max_fpr(self) -> float:
        """p of pAUC."""
        return float(self.study.get("evaluation", {}).get("max_fpr", 0.1))

    @property
    def synthetic(self) -> bool:
        """True if ``data synth`` made the recordings."""
        return self.study.get("data", {}).get("layout") == "synthetic" or bool(self.environment.get("synthetic_data"))

    @property
    def score(self) -> str:
        """The kind of score that judges the best trial; empty if unknown."""
        if self.best is None or "score" not in self.trials:
            return ""
        return str(self.trials.set_index("trial")["score"][self.best] or "")

    @cached_property
    def seeds(self) -> pd.DataFrame:
        """Averages over all machines of the complete trials that ran with several seeds, the best trial first.

        ``trial, n_seeds, objective_mean, objective_sd`` (select split), and the same of ``auc``, ``pauc`` and ``mauc``
        (holdout split).
        """
        counts = self.results.groupby("trial")["seed"].nunique()
        rows = self.results[self.results["trial"].isin(counts.index[counts > 1])]
        averages = metrics.averages(rows, ("trial", "seed", "split"))
        select = averages[averages["split"] == "select"].rename(columns={self.objective: "objective"})
        parts = [select.groupby("trial")[["objective"]]]
        parts.append(averages[averages["split"] == "holdout"].groupby("trial")[["auc", "pauc", "mauc"]])
        both = pd.concat([part.mean().add_suffix("_mean").join(part.std().add_suffix("_sd")) for part in parts], axis=1)
        return (
            both.assign(n_seeds=counts)
            .loc[[trial for trial in self.complete["trial"] if trial in both.index]]
            .reset_index()
        )

    @property
    def objective(self) -> str:
        """The objective that ranks the trials: the only one, or the first of several."""
        given = self.study.get("evaluation", {}).get("objective", "auc_pauc")
        return str(given[0] if isinstance(given, list) else given)

    @property
    def complete(self) -> pd.DataFrame:
        return self.ranking[self.ranking["rank"].notna()]

    @property
    def unranked(self) -> pd.DataFrame:
        return self.ranking[self.ranking["rank"].isna()]

    @property
    def domains(self) -> bool:
        return metrics.has_domains(self.results)

    @cached_property
    def keys(self) -> dict[str, str]:
        """Searched key -> its last part, or the whole key if two keys end alike."""
        keys = searched_keys(self.trials)
        short = {key: key.rsplit(".", 1)[-1] for key in keys}
        return {key: name if list(short.values()).count(name) == 1 else key for key, name in short.items()}

    def overall(self, system: str, metric: str, split: str = "holdout") -> float:
        """The average over all machines; NaN if undefined."""
        rows = self.machines[self.machines["kind"] == "all"]
        return float(rows[f"{system}_{split}_{metric}"].iloc[0]) if len(rows) else math.nan

    @cached_property
    def ids(self) -> pd.DataFrame:
        """Split, machine, ID -> number of ``clips``, the ``fewest`` of a label, ``defined`` (every AUC is defined).

        The same for all trials.
        """
        rows = self.results[self.results["trial"] == self.results["trial"].min()]
        counts = rows[["n_normal", "n_anomaly"]]
        rows = rows.assign(clips=counts.sum(axis=1), fewest=counts.min(axis=1), defined=rows["auc"].notna())
        return rows.groupby(["split", "machine", "id"]).agg(
            clips=("clips", "sum"), fewest=("fewest", "min"), defined=("defined", "all")
        )

    @property
    def disjoint(self) -> bool:
        """True if the splits have different IDs, as the development and evaluation parts of DCASE 2020."""
        there = self.ids[self.ids["clips"] > 0].reset_index()
        return len(there) > 0 and there["split"].nunique() == 2 and not there.duplicated(["machine", "id"]).any()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise AsdRayError(
            f"{path}: cannot be read ({error.strerror}); is this the folder of a study that ran?"
        ) from None
