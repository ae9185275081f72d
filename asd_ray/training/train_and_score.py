"""One run on one worker: build the method, train it, embed all clips, score the test clips, save the detector.

The Tune trial calls it directly (one worker), or every Ray Train worker does (two or more). It imports neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from asd_ray import scoring
from asd_ray.config import EvaluationConfig, StudyConfig
from asd_ray.data.clips import stable_hash
from asd_ray.detector.detector import data_info, save_detector
from asd_ray.features.batches import Batches, class_numbers, group_numbers
from asd_ray.features.store import Manifest
from asd_ray.memory import keep_freed_memory
from asd_ray.methods.base import Method, Stage, own_scores
from asd_ray.methods.registry import build
from asd_ray.methods.workers import Workers
from asd_ray.metrics.selection import Evaluation, objective
from asd_ray.registry import Plugins
from asd_ray.scoring.thresholds import decide
from asd_ray.training.loop import Checkpoints, embed, finish, train
from asd_ray.training.stage_cache import StageCache
from asd_ray.training.stage_run import seed_everything

PROBE = EvaluationConfig()
"""The probe scores every trial alike: with the defaults, whatever the trial itself scores by."""
ClipSource = Callable[[tuple[str, ...]], Batches]
"""Takes splits of the feature store and returns this worker's clips of them."""
Embeddings = tuple[list[str], scoring.Embedded]
"""Paths of N clips, and what the network makes of these clips."""


@dataclass(frozen=True)
class RunInputs:
    """What one worker needs beside its clips.

    Attributes:
        study: resolved, with the trial's values in place.
        manifest: of the features.
        classes: of all training clips (:func:`asd_ray.data.clips.class_names`), in label order.
        evaluation: the labelled test clips.
        seed: of the run.
        out: folder in which the first worker saves the pre-trained encoder and the trained detector.
        stages: cache of trained stages that trials share, or None.
        plugins: registered methods, encoders, scores and layouts; the process that receives them registers them, too.
    """

    study: StudyConfig
    manifest: Manifest
    classes: tuple[str, ...]
    evaluation: Evaluation
    seed: int
    out: Path
    stages: StageCache | None = None
    plugins: Plugins = field(default_factory=Plugins)


def train_and_score(
    inputs: RunInputs,
    clips: ClipSource,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> dict[str, Any] | None:
    """Train on this worker's clips, together with the other workers of the process group, and score the test clips.

    Args:
        inputs: of the run, the same on every worker.
        clips: gives this worker's clips.
        device: to train on.
        checkpoints: where the run's state is kept after every epoch.
        report: called with the metrics of every epoch.

    Returns:
        On the first worker ``history`` (the epochs' metrics), ``scored`` (the labelled test clips of all workers with
        a column per kind of score, and ``decision``) and ``score`` (the kind that counts). None on the others.

    Raises:
        TrainingFailed: the run cannot give a result.
    """
    if device.type == "cpu":
        keep_freed_memory()
    run = Run(inputs, clips, device)
    history = run.train(checkpoints, report)
    outcome = run.score()
    if outcome is None:
        return None
    scored, kind = outcome
    return {"history": history, "scored": scored, "score": kind}


class Run:
    """The steps of one run, and what they share: the method and the embeddings of its clips."""

    def __init__(self, inputs: RunInputs, clips: ClipSource, device: torch.device) -> None:
        self.inputs, self.clips, self.workers = inputs, clips, Workers.of_process_group()
        seed_everything(inputs.seed, "build")  # the same initial weights on every worker
        info = data_info(inputs.manifest, inputs.classes, self.workers.size)
        self.method = build(inputs.study.method, info).to(device)
        self._weights: dict[str, torch.Tensor] = {}  # the network that made the embeddings
        self._embeddings: dict[str, Embeddings] = {}

    def train(self, checkpoints: Checkpoints, report: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
        """Train all stages. Returns the metrics of every epoch."""
        history = train(
            self.method,
            self.clips,
            self.inputs.seed,
            checkpoints,
            report=report,
            probe=self.probe,
            recall=self.recall,
            after=self.after,
        )
        finish(self.method, self.clips(("train",)))
        return history

    def recall(self, stage: Stage) -> list[dict[str, Any]] | None:
        """Load a stage that another trial has trained. Returns the metrics of its epochs, or None to train it."""
        cache = self.inputs.stages
        if cache is None or not cache.keeps(stage):
            return None
        path = self._stage_path(cache, stage)
        cache.turn(path)
        return cache.load(path, stage.trained or self.method)

    def after(self, stage: Stage, metrics: list[dict[str, Any]]) -> None:
        """Save what a stage leaves behind: what it publishes, and the stage itself for other trials."""
        if self.workers.rank > 0:
            return
        inputs, cache = self.inputs, self.inputs.stages
        info = data_info(inputs.manifest, inputs.classes)
        stage.publish(inputs.out, inputs.study.model_dump(mode="json"), info)  # before the next stage changes it
        recalled = any(row.get("recalled") for row in metrics)
        if cache is not None and cache.keeps(stage) and not recalled:
            cache.save(self._stage_path(cache, stage), stage.trained or self.method, metrics)

    def probe(self) -> dict[str, float]:
        """AUC of k-NN on the select split, by the present embeddings (on the first worker; nothing on the others).

        It is cheap, needs no classifier, and is the same measure for all trials of a study.
        """
        (_, train), (paths, test) = self.embedded("train"), self.embedded("select")
        if self.workers.rank > 0 or not paths:
            return {}
        evaluation = self.inputs.evaluation
        scored = evaluation.scored(paths, scoring.score_all(train, test, PROBE, ["knn"]))
        value = objective(evaluation.rows(scored[scored["split"] == "select"], "knn", PROBE.max_fpr), "auc")
        return {} if value is None else {"knn_auc": value}

    def score(self) -> tuple[pd.DataFrame, str] | None:
        """Score the test clips and save the detector.

        Returns:
            On the first worker the labelled test clips with their scores and decisions, and the kind of score that
            counts. None on the others.
        """
        _, train = self.embedded("train")
        paths, test = _joined([self.embedded("select"), self.embedded("others")])
        if self.workers.rank > 0:
            return None
        inputs, config = self.inputs, self.inputs.study.evaluation
        scores = scoring.score_all(train, test, config)
        scored = inputs.evaluation.scored(paths, scores)
        kind = inputs.evaluation.best_kind(scored, list(scores), config) if config.score == "best" else config.score
        thresholds = save_detector(
            inputs.out / "detector", inputs.study, inputs.manifest, inputs.classes, self.method, train, score=kind
        )
        groups = group_numbers(inputs.evaluation.clips, inputs.classes).numpy()
        scored["decision"] = decide(scored[kind].to_numpy(), thresholds[groups])
        return scored, kind

    def embedded(self, part: str) -> Embeddings:
        """All workers' clips of a part (see :meth:`_clips_of`) on the first worker.

        Embeddings are kept until the network changes: the last epoch's probe and the scores mostly need the same.
        """
        state = self.method.state_dict()
        same = bool(self._weights) and all(torch.equal(state[name], old) for name, old in self._weights.items())
        if self.workers.largest(float(not same)):  # all workers embed, or none
            self._embeddings.clear()
            self._weights = {name: tensor.clone() for name, tensor in state.items()}
        if part not in self._embeddings:
            own = _embed(self.method, self._clips_of(part), self.inputs.classes)
            self._embeddings[part] = _gathered(own, self.workers)
        return self._embeddings[part]

    def _clips_of(self, part: str) -> Batches:
        """This worker's clips of a part: ``train``, ``select`` (of the test clips), or the ``others`` of the test."""
        if part == "train":
            return self.clips(("train",))
        test, splits = self.clips(("test",)), self.inputs.evaluation.splits
        select = np.array([splits.get(clip.path) == "select" for clip in test.clips], dtype=bool)
        return test.where(select if part == "select" else ~select)

    def _stage_path(self, cache: StageCache, stage: Stage) -> Path:
        """Where the cache keeps a stage: its name depends on everything that decides the stage's weights."""
        inputs = self.inputs
        data = (inputs.manifest.hash, inputs.classes, stable_hash(sorted(inputs.evaluation.splits.items())))
        return cache.path(stage, inputs.study, *data, inputs.seed, self.workers.size)


def _embed(method: Method, clips: Batches, classes: tuple[str, ...]) -> Embeddings:
    embedding, logits = embed(method, clips)
    groups = [clip.group for clip in clips.clips]
    return [clip.path for clip in clips.clips], scoring.Embedded(
        embedding.numpy(),
        scoring.group_logits(logits, classes).numpy(),
        group_numbers(clips.clips, classes).numpy(),
        scoring.domain_codes([clip.domain for clip in clips.clips]),
        own_scores(method, embedding, groups).numpy(),
        class_numbers(clips.clips, classes).numpy(),
    )


def _gathered(part: Embeddings, workers: Workers) -> Embeddings:
    """All workers' clips on the first worker, sorted by path: the same for any number of workers."""
    parts: list[Any] = [part]
    if workers.size > 1:
        parts = [None] * workers.size
        dist.gather_object(part, parts if workers.rank == 0 else None)
        if workers.rank > 0:
            return part
    return _joined(parts)


def _joined(parts: list[Embeddings]) -> Embeddings:
    """Clips of several parts, sorted by path."""
    paths = [path for names, _ in parts for path in names]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    filled = [embedded for names, embedded in parts if names] or [parts[0][1]]
    joined = []
    for name in ("embedding", "group_logits", "group", "domain", "own", "label"):
        column = np.concatenate([getattr(embedded, name) for embedded in filled])
        joined.append(column[order] if len(column) else column)  # the method may have no scores of its own
    return [paths[position] for position in order], scoring.Embedded(*joined)
