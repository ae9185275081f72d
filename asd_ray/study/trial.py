"""One trial: resolve its values, train it (here, or on several workers), turn scores into its row of the tables."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from asd_ray import metrics
from asd_ray.clips import Clip, EvaluationSplit, stable_hash
from asd_ray.config import StudyConfig
from asd_ray.errors import AsdRayError
from asd_ray.features.read import take
from asd_ray.features.store import Manifest
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.tables import write_table
from asd_ray.study_file import with_values
from asd_ray.training.checkpoints import FileCheckpoints
from asd_ray.training.loop import TrainingFailed
from asd_ray.training.ray_worker import Failure, train_with_ray
from asd_ray.training.run import RunInputs, run


@dataclass(frozen=True)
class StudyInputs:
    """What every trial of a study gets, by reference: the clips are in Ray's object store once.

    Attributes:
        study: the study file, resolved.
        folder: of the study.
        manifest: of the features.
        classes: ``machine/id`` of the training clips, in label order.
        clips: labelled test clips.
        splits: path -> ``select`` or ``holdout``.
        train, test: a materialised dataset for each worker.
    """

    study: StudyConfig
    folder: StudyFolder
    manifest: Manifest
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    splits: Mapping[str, EvaluationSplit]
    train: tuple[Any, ...]
    test: tuple[Any, ...]

    def identity(self) -> pd.DataFrame:
        """Who the labelled test clips are: ``path, machine, id, domain, label, split``."""
        return pd.DataFrame(
            [(c.path, c.machine, c.id, c.domain, c.label, self.splits[c.path]) for c in self.clips],
            columns=["path", "machine", "id", "domain", "label", "split"],
        )

    def ids(self) -> list[tuple[str, str]]:
        """``(machine, id)`` of all labelled test clips: each has a row in every split, defined or not."""
        return sorted({(clip.machine, clip.id) for clip in self.clips})


def trial_seed(study: StudyConfig, repeat: int = 0) -> int:
    """Seed of a run: the same for every trial of a study, so that trials differ by their values alone."""
    return stable_hash("trial", study.seed, repeat) % 2**31


def run_trial(config: dict[str, Any], inputs: StudyInputs) -> None:
    """Ray Tune's function trainable: runs the trial ``config`` and writes its record into the study folder."""
    record, history = _train_and_score(config, inputs)
    folder = inputs.folder.trial(record.trial)
    write_table(folder / "history.parquet", pd.DataFrame(history))
    inputs.folder.finish_trial(record)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shutil.rmtree(folder / "train", ignore_errors=True)
    ray.tune.report({"objective": record.objective, "status": record.status, "reason": record.reason})


def _train_and_score(config: dict[str, Any], inputs: StudyInputs) -> tuple[TrialRecord, list[dict[str, Any]]]:
    started = time.time()
    number, values = config["trial"], config["values"]
    folder = inputs.folder.trial(number)
    seed = trial_seed(inputs.study)
    record = TrialRecord(number, values, seed, "failed")
    outcome: dict[str, Any] | Failure
    try:
        study = with_values(inputs.study, values)
        run_inputs = RunInputs(study, inputs.manifest, inputs.classes, seed, folder / "detector")
        outcome = _train(run_inputs, inputs, number)
    except (TrainingFailed, AsdRayError) as failure:
        outcome = Failure(str(failure))
    record.duration_s = time.time() - started
    if isinstance(outcome, Failure):
        record.reason = outcome.reason
        return record, []
    history = outcome["history"]
    scores = inputs.identity().merge(outcome["scores"], on="path", how="left", validate="one_to_one")
    write_table(folder / "scores.parquet", scores)
    rows = metrics.per_id(scores, study.evaluation.max_fpr, ids=inputs.ids())
    record.objective = objective(rows, study.evaluation.objective)
    record.epochs = len(history)
    record.samples_per_s = sum(epoch["samples_per_s"] for epoch in history) / len(history) if history else None
    record.results = json.loads(rows.to_json(orient="records"))
    if record.objective is None:
        record.reason = "no ID has both normal and anomalous clips in the select split, so nothing can be chosen by"
    else:
        record.status = "complete"
    return record, history


def objective(rows: pd.DataFrame, kind: str) -> float | None:
    """The average over the select split that a search maximises, or None where no ID of it has a defined AUC."""
    averages = metrics.averages(rows).set_index("split")[kind]
    value = float(averages.get("select", math.nan))
    return value if math.isfinite(value) else None


def _train(run_inputs: RunInputs, inputs: StudyInputs, number: int) -> dict[str, Any] | Failure:
    resources = inputs.study.resources
    folder = inputs.folder.trial(number)
    if resources.workers > 1:
        name = f"{inputs.study.name}-trial-{number:05d}"
        storage = resources.storage or str(folder / "train")
        callbacks = [TuneReportCallback()]
        return train_with_ray(run_inputs, inputs.train, inputs.test, resources, name, storage, callbacks)
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    outcome = run(
        run_inputs,
        take(inputs.train[0], inputs.manifest.shape),
        take(inputs.test[0], inputs.manifest.shape),
        torch.device("cuda" if resources.gpus_per_worker else "cpu"),
        FileCheckpoints(folder / "checkpoints"),
        report=lambda epoch: ray.tune.report(dict(epoch)),
    )
    assert outcome is not None  # the only worker is the first
    return outcome
