"""One run on one worker: build the method, train it, embed every clip, score the test clips.

Called by the Tune trainable itself (one worker) and by every Ray Train worker (two or more); knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from asd_ray.methods.blocks.networks import Network
from asd_ray.methods.blocks.published import save_encoder
from asd_ray.methods.registry import build
from asd_ray.methods.workers import Workers
from asd_ray.metrics.selection import Evaluation, objective
from asd_ray.scoring.thresholds import decide
from asd_ray.training.loop import Checkpoints, embed, finish, train
from asd_ray.training.stage_cache import StageCache
from asd_ray.training.stage_run import seed_everything

PROBE = EvaluationConfig()
ClipSource = Callable[[tuple[str, ...]], Batches]
"""This worker's clips of some splits of the feature store."""


@dataclass(frozen=True)
class RunInputs:
    """What one worker needs beside its clips.

    Attributes:
        study: resolved, with the trial's values in place.
        manifest: of the features.
        classes: of all training clips (:func:`asd_ray.data.clips.class_names`), in label order.
        evaluation: what the test clips are judged against.
        seed: of the run.
        out: folder that the first worker saves the pre-trained encoder and the trained detector in.
        stages: trained stages that trials share, or None.
    """

    study: StudyConfig
    manifest: Manifest
    classes: tuple[str, ...]
    evaluation: Evaluation
    seed: int
    out: Path
    stages: StageCache | None = None


def run(
    inputs: RunInputs,
    clips: ClipSource,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> dict[str, Any] | None:
    """Trains and scores on this worker's clips, together with the other workers of the process group.

    Returns:
        On the first worker ``history`` (the epochs' metrics), ``scored`` (the labelled test clips of all workers with
        a column per kind of score, and ``decision``) and ``score`` (the kind that counts); None on the others.

    Raises:
        TrainingFailed: the run cannot give a result.
    """
    if device.type == "cpu":
        keep_freed_memory()
    workers = Workers.of_process_group()
    config = inputs.study.evaluation
    seed_everything(inputs.seed, "build")  # the same initial weights on every worker
    method = build(inputs.study.method, data_info(inputs.manifest, inputs.classes, workers.size)).to(device)

    splits = inputs.evaluation.splits
    network: dict[str, Any] = {}
    known: dict[str, tuple[list[str], scoring.Embedded]] = {}
    parts: dict[str, tuple[str, Callable[[str], bool]]] = {
        "train": ("train", lambda path: True),
        "select": ("test", lambda path: splits.get(path) == "select"),
        "others": ("test", lambda path: splits.get(path) != "select"),
    }

    def embedded(part: str) -> tuple[list[str], scoring.Embedded]:
        """All workers' clips of a part, embedded again only where the network is not what it was the last time: the
        last epoch's probe and the scores mostly ask for the same."""
        state = method.state_dict()
        same = bool(network) and all(torch.equal(state[name], before) for name, before in network.items())
        if workers.largest(float(not same)):  # to embed is a matter of all workers
            known.clear()
            network.update({name: tensor.clone() for name, tensor in state.items()})
        if part not in known:
            split, belongs = parts[part]
            batches = clips((split,))
            batches = batches.where(np.array([belongs(clip.path) for clip in batches.clips], dtype=bool))
            known[part] = _gathered(_embed(method, batches, inputs.classes), workers)
        return known[part]

    def probe() -> dict[str, float]:
        """AUC on the select split of k-NN (the nearest by cosine, whatever the trial scores by) on the embeddings as
        they are now: cheap, needs no classifier, and compares all trials of a study alike."""
        (_, train_embedded), (paths, test_embedded) = embedded("train"), embedded("select")
        if workers.rank > 0 or not paths:
            return {}
        scores = scoring.score_all(train_embedded, test_embedded, PROBE, ["knn"])
        scored = inputs.evaluation.scored(paths, scores)
        rows = inputs.evaluation.rows(scored[scored["split"] == "select"], "knn", PROBE.max_fpr)
        value = objective(rows, "auc")
        return {} if value is None else {"knn_auc": value}

    def recall(stage: Stage) -> list[dict[str, Any]] | None:
        if inputs.stages is None or not inputs.stages.keeps(stage):
            return None
        path = stage_path(inputs, stage, workers.size)
        inputs.stages.turn(path)
        return inputs.stages.load(path, stage.trained or method)

    def after(stage: Stage, metrics: list[dict[str, Any]]) -> None:
        if workers.rank > 0:
            return
        _save_encoder(inputs, stage)
        trained = not any(row.get("recalled") for row in metrics)
        if trained and inputs.stages is not None and inputs.stages.keeps(stage):
            inputs.stages.save(stage_path(inputs, stage, workers.size), stage.trained or method, metrics)

    history = train(
        method,
        clips,
        inputs.seed,
        checkpoints,
        report=report,
        probe=probe,
        recall=recall,
        after=after,
    )
    finish(method, clips(("train",)))
    _, train_embedded = embedded("train")
    test_paths, test_embedded = _joined([embedded("select"), embedded("others")])
    if workers.rank > 0:
        return None
    scored = inputs.evaluation.scored(test_paths, scoring.score_all(train_embedded, test_embedded, config))
    kinds = [name for name in scored.columns if name in scoring.KINDS]
    kind = inputs.evaluation.best_kind(scored, kinds, config) if config.score == "best" else config.score
    detector = inputs.out / "detector"
    thresholds = save_detector(
        detector, inputs.study, inputs.manifest, inputs.classes, method, train_embedded, score=kind
    )
    numbers = group_numbers(inputs.evaluation.clips, inputs.classes).numpy()
    scored["decision"] = decide(scored[kind].to_numpy(), thresholds[numbers])
    return {"history": history, "scored": scored, "score": kind}


def stage_path(inputs: RunInputs, stage: Stage, workers: int) -> Path:
    """Where the cache keeps a stage of a run: under all that decides it."""
    assert inputs.stages is not None
    splits = sorted(inputs.evaluation.splits.items())
    data = (inputs.manifest.hash, inputs.classes, stable_hash(splits))
    return inputs.stages.path(stage, inputs.study, *data, inputs.seed, workers)


def _save_encoder(inputs: RunInputs, stage: Stage) -> None:
    """Keeps what pre-training made, before fine-tuning changes it: to publish, or to start from."""
    if isinstance(stage.pretrained, Network):
        info = data_info(inputs.manifest, inputs.classes)
        save_encoder(inputs.out / "encoder", stage.pretrained, inputs.study.model_dump(mode="json"), info)


def _embed(method: Method, clips: Batches, classes: tuple[str, ...]) -> tuple[list[str], scoring.Embedded]:
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


def _gathered(part: tuple[list[str], scoring.Embedded], workers: Workers) -> tuple[list[str], scoring.Embedded]:
    """All workers' clips on the first, in the order of their paths, which no number of workers changes."""
    parts: list[Any] = [part]
    if workers.size > 1:
        parts = [None] * workers.size
        dist.gather_object(part, parts if workers.rank == 0 else None)
        if workers.rank > 0:
            return part
    return _joined(parts)


def _joined(parts: list[tuple[list[str], scoring.Embedded]]) -> tuple[list[str], scoring.Embedded]:
    """Clips of several parts in the order of their paths."""
    paths = [path for names, _ in parts for path in names]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    filled = [embedded for names, embedded in parts if names] or [parts[0][1]]
    joined = []
    for name in ("embedding", "group_logits", "group", "domain", "own", "label"):
        column = np.concatenate([getattr(embedded, name) for embedded in filled])
        joined.append(column[order] if len(column) else column)  # there need be no own scores
    return [paths[position] for position in order], scoring.Embedded(*joined)
