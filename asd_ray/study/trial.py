"""One trial: set its values, train it in this process or on several workers, compute its row of the tables."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray.tune
import torch

from asd_ray.config import StudyConfig
from asd_ray.config.study_file import with_values
from asd_ray.data.clips import stable_hash
from asd_ray.errors import AsdRayError, StorageError
from asd_ray.features.read import Features
from asd_ray.features.store import Manifest
from asd_ray.memory import collect_rarely, give_back_memory
from asd_ray.metrics.selection import Evaluation
from asd_ray.parquet import read_table
from asd_ray.registry import Plugins
from asd_ray.study.claims import Claim
from asd_ray.study.feature_sets import FeatureSets
from asd_ray.study.folder import StudyFolder, TrialRecord
from asd_ray.study.objectives import objective_values
from asd_ray.training.checkpoints import FileCheckpoints
from asd_ray.training.ray_worker import SCORES, Outcome, clip_source, run_worker, take_outcome, train_with_ray
from asd_ray.training.stage_cache import StageCache
from asd_ray.training.train_and_score import RunInputs


@dataclass(frozen=True)
class StudyInputs:
    """Input that all trials of a study share, by reference: Ray's object store holds the clips once.

    Attributes:
        study: the study file, resolved.
        folder: of the study.
        manifest: of the features.
        classes: of the training clips (:func:`asd_ray.data.clips.class_names`), in label order.
        evaluation: the labelled test clips.
        features: the source of every worker's clips.
        sets: features of trials whose values change them; None if none are searched.
        stages: trained stages that trials share.
        claims: the actor that decides which trial builds a set or a stage (:class:`asd_ray.study.claims.Claims`).
        plugins: registered methods, encoders, scores and layouts; the process that receives them registers them, too.
    """

    study: StudyConfig
    folder: StudyFolder
    manifest: Manifest
    classes: tuple[str, ...]
    evaluation: Evaluation
    features: Features
    sets: FeatureSets | None = None
    stages: StageCache | None = None
    claims: Any = None
    plugins: Plugins = field(default_factory=Plugins)


def trial_seed(study: StudyConfig, repeat: int = 0) -> int:
    """Seed of a run: the same for every trial of a study, so that trials differ by their values alone."""
    return stable_hash("trial", study.seed, repeat) % 2**31


def run_name(study: StudyConfig, config: Mapping[str, Any]) -> str:
    """Name of a trial, or of one of its repeats, in logs and in the Ray dashboard."""
    repeat = config.get("repeat", 0)
    return f"{study.name}-trial-{config['trial']:05d}" + (f"-repeat-{repeat:02d}" if repeat else "")


def run_trial(config: dict[str, Any], inputs: StudyInputs) -> None:
    """Run the trial ``config`` and write its record into the study folder. Ray Tune's trainable function."""
    collect_rarely()
    if not gc.get_freeze_count():
        gc.freeze()  # imported modules stay for ever: the collector need not visit them after every trial
    record = inputs.folder.record(config["trial"], config.get("repeat", 0))
    if record is None:  # else the process was lost after the trial's end, before Tune was told
        # The dashboard names a process only once. Its log there names every trial that it runs.
        print(run_name(inputs.study, config), json.dumps(config["values"]), flush=True)
        record, history = _train_and_score(config, inputs)
        inputs.folder.write_history(record.trial, record.repeat, history)
        inputs.folder.finish_trial(record)
    if inputs.sets:
        inputs.sets.discard(with_values(inputs.study, record.values))
    objectives = {f"objective_{kind}": value for kind, value in record.objectives.items()}
    give_back_memory()  # the process may go on with another trial
    ray.tune.report({"objective": record.objective, **objectives, "status": record.status, "reason": record.reason})


def _train_and_score(config: dict[str, Any], inputs: StudyInputs) -> tuple[TrialRecord, list[dict[str, Any]]]:
    started = time.time()
    number, repeat, values = config["trial"], config.get("repeat", 0), config["values"]
    folder = inputs.folder.trial(number, repeat)
    seed = trial_seed(inputs.study, repeat)
    record = TrialRecord(number, values, seed, "failed", repeat=repeat)
    try:
        study = with_values(inputs.study, values)
        outcome = _train(study, inputs, seed, folder, run_name(study, config))
    except StorageError:
        raise  # no fault of the trial's values
    except AsdRayError as failure:
        outcome = Outcome(reason=str(failure))
    record.duration_s = time.time() - started
    if outcome.reason:
        record.reason = outcome.reason
        return record, []
    history, record.score = outcome.history, outcome.score
    rows = inputs.evaluation.rows(read_table(folder / SCORES), record.score, study.evaluation.max_fpr)
    trained = [epoch for epoch in history if not epoch.get("recalled")]
    record.epochs, record.recalled_epochs = len(history), len(history) - len(trained)
    record.samples_per_s = sum(epoch["samples_per_s"] for epoch in trained) / len(trained) if trained else None
    record.results = json.loads(rows.to_json(orient="records"))
    kinds = inputs.study.evaluation.objectives
    try:
        record.objectives = objective_values(rows, kinds, folder / "detector") or {}
    except AsdRayError as error:
        record.reason = str(error)
        return record, history
    record.objective = record.objectives.get(kinds[0])
    if record.objective is None:
        record.reason = "no ID has both normal and anomalous clips in the select split, so nothing can be chosen by"
    else:
        record.status = "complete"
    return record, history


def _train(study: StudyConfig, inputs: StudyInputs, seed: int, folder: Path, name: str) -> Outcome:
    resources, claim = study.resources, Claim(inputs.claims, name)
    manifest, features = inputs.sets.take(study, claim) if inputs.sets else (inputs.manifest, inputs.features)
    stages = replace(inputs.stages, turn=claim) if inputs.stages else None
    run_inputs = RunInputs(study, manifest, inputs.classes, inputs.evaluation, seed, folder, stages)
    if resources.workers > 1:
        storage = resources.storage or str(folder / "train")
        train_with_ray(run_inputs, features, resources, name, storage)
    else:
        torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
        device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
        clips = clip_source(features, inputs.classes, 0, 1, device)
        checkpoints = FileCheckpoints(folder / "checkpoints")
        run_worker(run_inputs, clips, device, checkpoints, lambda epoch: ray.tune.report(dict(epoch)))
    return take_outcome(folder)
