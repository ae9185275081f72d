"""A study's files, read back from its folder, and what there is to say about them."""

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
from asd_ray.study.tables import (
    BASELINE_COLUMNS,
    BASELINES,
    RESULT_COLUMNS,
    SYSTEMS,
    TRIAL_COLUMNS,
    UNDEFINED,
    best_trial,
    machine_table,
    percent,
    read_table,
    searched_keys,
    trial_table,
)

LABELS = {"best": "best trial", "default": "default (trial 0)", "level": "level only", "knn_log_mel": "k-NN Log-Mel"}
OBJECTIVES = {"auc": "AUC", "pauc": "pAUC", "auc_pauc": "the mean of AUC and pAUC"}
DEFAULT = 0
"""The trial with the study file's own values."""


@dataclass(frozen=True)
class Findings:
    """A study's files, and what there is to say about them.

    Attributes:
        study: the resolved study as nested mappings; not validated, so that reports of other versions can be rebuilt.
        study_text: the same as YAML.
        environment: ``env.json``, empty if there is none.
        trials, results, baselines, history: the tables; all but ``trials`` may be empty.
    """

    study: dict[str, Any]
    study_text: str
    environment: dict[str, Any]
    trials: pd.DataFrame
    results: pd.DataFrame
    baselines: pd.DataFrame
    history: pd.DataFrame

    @classmethod
    def read(cls, study_dir: Path) -> Findings:
        """Reads a study folder.

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

    @cached_property
    def best(self) -> int | None:
        return best_trial(self.trials)

    @cached_property
    def machines(self) -> pd.DataFrame:
        """:func:`asd_ray.study.tables.machine_table` of the best trial."""
        return machine_table(self.results, self.baselines, self.best, DEFAULT)

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """:func:`asd_ray.study.tables.trial_table`."""
        return trial_table(self.trials, self.results)

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
        """Searched keys and the shortest ends of their names that tell them apart."""
        keys = searched_keys(self.trials)
        short = {key: key.rsplit(".", 1)[-1] for key in keys}
        return {key: name if list(short.values()).count(name) == 1 else key for key, name in short.items()}

    def overall(self, system: str, metric: str, split: str = "holdout") -> float:
        """The average over all machines; NaN if there is none."""
        rows = self.machines[self.machines["kind"] == "all"]
        return float(rows[f"{system}_{split}_{metric}"].iloc[0]) if len(rows) else math.nan

    def choice(self) -> str:
        """Which split chose the trial, and which one is reported."""
        objective = self.study.get("evaluation", {}).get("objective", "auc_pauc")
        by = OBJECTIVES.get(objective, objective)
        if self.domains and objective == "auc_pauc":
            by = "the official score (the harmonic mean of domain AUCs and pAUCs)"
        if self.best is None:
            return f"No trial completed, so none was chosen. It would be chosen by {by} on the select split."
        value = percent(self.trials.set_index("trial")["objective"][self.best])
        return (
            f"Trial {self.best} was chosen by {by} on the select split ({value}). "
            "What is reported is the holdout split, which had no part in the choice"
            + ("; it holds other IDs than the select split." if self._disjoint else ".")
        )

    def warnings(self) -> list[str]:
        """What a reader must know before quoting a number."""
        found = []
        if self.study.get("data", {}).get("layout") == "synthetic" or self.environment.get("synthetic_data"):
            found.append("Synthetic data: these numbers say nothing about real machines.")
        for split in ("holdout", "select"):
            found += self._undefined(split)
        auc = {system: self.overall(system, "auc") for system in SYSTEMS}
        rivals = [LABELS[name] for name in BASELINES if auc[name] >= auc["best"]]
        if rivals:
            found.append(
                f"On the holdout split the best trial does not beat {' and '.join(rivals)}: this study is no evidence "
                "that its method detects more than that."
            )
        if self.best != DEFAULT and auc["default"] >= auc["best"]:
            found.append(
                f"On the holdout split the best trial is not better than the default ({percent(auc['best'])} against "
                f"{percent(auc['default'])} AUC): the search gained nothing there."
            )
        status = dict(zip(self.trials["trial"], self.trials["status"], strict=True))
        if status.get(DEFAULT) != "complete":
            found.append(
                f"The default (trial {DEFAULT}) is {status.get(DEFAULT, 'missing')}: there is nothing to compare with."
            )
        return found

    @cached_property
    def _ids(self) -> pd.DataFrame:
        """Split, machine, ID -> ``clips``, and whether every AUC is ``defined``; the same for all trials."""
        rows = self.results[self.results["trial"] == self.results["trial"].min()]
        rows = rows.assign(clips=rows["n_normal"] + rows["n_anomaly"], defined=rows["auc"].notna())
        return rows.groupby(["split", "machine", "id"]).agg(clips=("clips", "sum"), defined=("defined", "all"))

    @property
    def _disjoint(self) -> bool:
        """Whether the splits have different IDs, as with DCASE 2020's development and evaluation parts."""
        there = self._ids[self._ids["clips"] > 0].reset_index()
        return len(there) > 0 and there["split"].nunique() == 2 and not there.duplicated(["machine", "id"]).any()

    def _undefined(self, split: str) -> list[str]:
        ids = self._ids[self._ids.index.get_level_values("split") == split]
        if self._disjoint:
            ids = ids[ids["clips"] > 0]
        undefined = ids[~ids["defined"].astype(bool)]
        if undefined.empty:
            return []
        empty = int((undefined["clips"] == 0).sum())
        causes = [f"{empty} without clips there"] if empty else []
        if len(undefined) > empty:
            causes.append(f"{len(undefined) - empty} without normal or without anomalous clips")
        return [
            f"On the {split} split {len(ids) - len(undefined)} of {len(ids)} IDs have a defined AUC "
            f"({', '.join(causes)}). Means are over the defined ones."
        ]

    def footnotes(self) -> list[str]:
        """How the numbers were made."""
        p = self.study.get("evaluation", {}).get("max_fpr", 0.1)
        rule = (
            "means are harmonic over sections and domains, as in DCASE 2022 (a domain's AUC: its normal clips against "
            "the anomalous clips of both domains)"
            if self.domains
            else "means are over IDs, then over machines, as in DCASE 2020"
        )
        notes = [
            f"All values in percent; AUC and pAUC (p = {p:g}, McClish-standardised: chance is 50) per ID; {rule}. "
            f"{UNDEFINED} is undefined.",
            "Baselines without training: level only scores a clip by its loudness (far from 50, on either side, the "
            "data set gives its anomalies away); k-NN Log-Mel by the distance to the nearest training clip's mean "
            "spectrum.",
        ]
        counted = self.results[self.results["auc"].notna()]
        normal, anomaly = counted["n_normal"].min(), counted["n_anomaly"].min()
        if normal * p < 2:
            notes.append(
                f"Few clips: an ID here has {normal} normal and an ID {anomaly} anomalous clips. Single clips move its "
                f"AUC by points and its pAUC, which looks at the {p:.0%} of normal clips that score highest, by more."
            )
        seeds = self.results.groupby("trial")["seed"].nunique().max() if len(self.results) else 0
        if seeds > 1:
            notes.append(f"Values of trials are means over {seeds} seeds.")
        elif seeds:
            notes.append("Every trial ran with one seed, so a small difference between two trials may be chance.")
        return notes


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise AsdRayError(
            f"{path}: cannot be read ({error.strerror}); is this the folder of a study that ran?"
        ) from None
