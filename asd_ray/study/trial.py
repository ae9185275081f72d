"""One trial: resolve its values, train it (here, or on several workers), turn scores into its row of the tables."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from asd_ray.clips import stable_hash
from asd_ray.config import StudyConfig
from asd_ray.errors import AsdRayError
from asd_ray.evaluation import Evaluation, objective
from asd_ray.features.read import Features
from asd_ray.features.store import Manifest
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.tables import write_table
from asd_ray.study_file import with_values
from asd_ray.training.checkpoints import FileCheckpoints
from asd_ray.training.ray_worker import Failure, clip_source, train_with_ray
from asd_ray.training.run import RunInputs, run
from asd_ray.training.stage_run import TrainingFailed


@dataclass(frozen=True)
class StudyInputs:
    """What every trial of a study gets, by reference: the clips are in Ray's object store once.

    Attributes:
        study: the study file, resolved.
        folder: of the study.
        manifest: of the features.
        classes: ``machine/id`` of the training clips, in label order.
        evaluation: what the labelled test clips are judged against.
        features: where every worker finds its clips.
    """

    study: StudyConfig
    folder: StudyFolder
    manifest: Manifest
    classes: tuple[str, ...]
    evaluation: Evaluation
    features: Features


def trial_seed(study: StudyConfig, repeat: int = 0) -> int:
    """Seed of a run: the same for every trial of a study, so that trials differ by their values alone."""
    return stable_hash("trial", study.seed, repeat) % 2**31


def run_name(study: StudyConfig, config: Mapping[str, Any]) -> str:
    """What a trial, or one of its repeats, is called in folders, logs and the Ray dashboard."""
    repeat = config.get("repeat", 0)
    return f"{study.name}-trial-{config['trial']:05d}" + (f"-repeat-{repeat:02d}" if repeat else "")


def run_trial(config: dict[str, Any], inputs: StudyInputs) -> None:
    """Ray Tune's function trainable: runs the trial ``config`` and writes its record into the study folder."""
    record, history = _train_and_score(config, inputs)
    inputs.folder.write_history(record.trial, record.repeat, history)
    inputs.folder.finish_trial(record)
    ray.tune.report({"objective": record.objective, "status": record.status, "reason": record.reason})


def _train_and_score(config: dict[str, Any], inputs: StudyInputs) -> tuple[TrialRecord, list[dict[str, Any]]]:
    started = time.time()
    number, repeat, values = config["trial"], config.get("repeat", 0), config["values"]
    folder = inputs.folder.trial(number, repeat)
    seed = trial_seed(inputs.study, repeat)
    record = TrialRecord(number, values, seed, "failed", repeat=repeat)
    outcome: dict[str, Any] | Failure
    try:
        study = with_values(inputs.study, values)
        run_inputs = RunInputs(study, inputs.manifest, inputs.classes, inputs.evaluation, seed, folder)
        outcome = _train(run_inputs, inputs, run_name(study, config))
    except (TrainingFailed, AsdRayError) as failure:
        outcome = Failure(str(failure))
    record.duration_s = time.time() - started
    if isinstance(outcome, Failure):
        record.reason = outcome.reason
        return record, []
    history, scored = outcome["history"], outcome["scored"]
    write_table(folder / "scores.parquet", scored.assign(score=scored[outcome["score"]]))
    rows = inputs.evaluation.rows(scored, outcome["score"], study.evaluation.max_fpr)
    record.score = outcome["score"]
    record.objective = objective(rows, study.evaluation.objective)
    record.epochs = len(history)
    record.samples_per_s = sum(epoch["samples_per_s"] for epoch in history) / len(history) if history else None
    record.results = json.loads(rows.to_json(orient="records"))
    if record.objective is None:
        record.reason = "no ID has both normal and anomalous clips in the select split, so nothing can be chosen by"
    else:
        record.status = "complete"
    return record, history


def _train(inputs: RunInputs, study_inputs: StudyInputs, name: str) -> dict[str, Any] | Failure:
    resources = inputs.study.resources
    if resources.workers > 1:
        storage = resources.storage or str(inputs.out / "train")
        return train_with_ray(inputs, study_inputs.features, resources, name, storage, [TuneReportCallback()])
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
    outcome = run(
        inputs,
        clip_source(study_inputs.features, inputs.classes, 0, 1, device),
        device,
        FileCheckpoints(inputs.out / "checkpoints"),
        report=lambda epoch: ray.tune.report(dict(epoch)),
    )
    assert outcome is not None  # the only worker is the first
    return outcome
