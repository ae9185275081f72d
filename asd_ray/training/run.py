"""One run on one worker: build the method, train it, embed every clip, score the test clips.

Called by the Tune trainable itself (one worker) and by every Ray Train worker (two or more); knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from asd_ray import scoring
from asd_ray.config import StudyConfig
from asd_ray.detector import save_detector
from asd_ray.features.store import ClipTable, Manifest
from asd_ray.methods.base import DataInfo
from asd_ray.methods.registry import build
from asd_ray.training.loop import Checkpoints, Workers, embed, seed_everything, train


@dataclass(frozen=True)
class RunInputs:
    """What one worker needs beside its clips.

    Attributes:
        study: resolved, with the trial's values in place.
        manifest: of the features.
        classes: ``machine/id`` of all training clips, in label order.
        seed: of the run.
        detector: folder that the first worker saves the trained detector to.
    """

    study: StudyConfig
    manifest: Manifest
    classes: tuple[str, ...]
    seed: int
    detector: Path


def run(
    inputs: RunInputs,
    train_clips: ClipTable,
    test_clips: ClipTable,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> dict[str, Any] | None:
    """Trains and scores on this worker's clips, together with the other workers of the process group.

    Returns:
        On the first worker ``{"history": list of epoch metrics, "scores": columns path and score, …}`` for the test
        clips of all workers; None on the others.

    Raises:
        TrainingFailed: the run cannot give a result.
    """
    workers = Workers.of_process_group()
    counts = inputs.manifest.counts["train"]
    n_mels, frames = inputs.manifest.shape
    info = DataInfo(
        n_mels=n_mels,
        frames=frames,
        classes=inputs.classes,
        mean=inputs.manifest.mean,
        std=inputs.manifest.std,
        clips=counts,
        workers=workers.size,
    )
    seed_everything(inputs.seed, "build")  # the same initial weights on every worker
    method = build(inputs.study.method, info).to(device)
    history = train(
        method,
        torch.from_numpy(train_clips.log_mel).to(device),
        class_numbers(train_clips, inputs.classes).to(device),
        inputs.seed,
        checkpoints,
        fewest=counts // workers.size,
        report=report,
    )
    embedded = [_gathered(_embed(method, clips, inputs.classes), workers) for clips in (train_clips, test_clips)]
    if workers.rank > 0:
        return None
    (_, train_embedded), (test_paths, test_embedded) = embedded
    evaluation = inputs.study.evaluation
    scores = {kind: scoring.score(kind, train_embedded, test_embedded, evaluation.neighbours) for kind in scoring.KINDS}
    save_detector(inputs.detector, inputs.study, inputs.manifest, inputs.classes, method, train_embedded)
    return {
        "history": history,
        "scores": pd.DataFrame({"path": test_paths, "score": scores[evaluation.score], **_prefixed(scores)}),
    }


def class_numbers(clips: ClipTable, classes: tuple[str, ...]) -> torch.Tensor:
    """Class number (N,) of every clip, -1 for a class without training clips."""
    number = {name: position for position, name in enumerate(classes)}
    return torch.tensor([number.get(clip.class_name, -1) for clip in clips.clips], dtype=torch.long)


def _embed(method: Any, clips: ClipTable, classes: tuple[str, ...]) -> tuple[list[str], scoring.Embedded]:
    embedding, logits = embed(method, torch.from_numpy(clips.log_mel))
    labels = class_numbers(clips, classes).numpy()
    return [clip.path for clip in clips.clips], scoring.Embedded(embedding.numpy(), logits.numpy(), labels)


def _gathered(part: tuple[list[str], scoring.Embedded], workers: Workers) -> tuple[list[str], scoring.Embedded]:
    """All workers' clips on the first, in the order of their paths, which no number of workers changes."""
    parts: list[Any] = [part]
    if workers.size > 1:
        parts = [None] * workers.size
        dist.all_gather_object(parts, part)
    paths = [path for names, _ in parts for path in names]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    joined = [
        np.concatenate([getattr(embedded, name) for _, embedded in parts if len(embedded.label)])[order]
        for name in ("embedding", "logits", "label")
    ]
    return [paths[position] for position in order], scoring.Embedded(*joined)


def _prefixed(scores: Mapping[Any, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"score_{kind}": values for kind, values in scores.items()}
