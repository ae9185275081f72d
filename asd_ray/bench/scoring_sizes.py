"""How long the scores and metrics of one trial take, at the size of DCASE 2020 Task 2."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from asd_ray import metrics
from asd_ray.config.evaluation import KINDS, EvaluationConfig
from asd_ray.scoring.embedded import Embedded
from asd_ray.scoring.scorer import Scorer

IDS_PER_MACHINE = 7


def benchmark(
    train: int = 36_000, test: int = 18_000, dims: int = 128, classes: int = 41, seed: int = 0
) -> pd.DataFrame:
    """Times every score of made-up clips, and the metrics of each; threads are as the caller has set them.

    What scores share is counted where it is first needed; ``ensemble`` needs the training clips' own scores.

    Args:
        train: training clips N.
        test: labelled test clips, half of them anomalous.
        dims: D of the embeddings, classes around random centres.
        classes: machines x IDs.
        seed: of the clips.

    Returns:
        ``part`` (``score <kind>``, ``metrics <kind>``, ``total``), ``wall_s``, ``cpu_s`` (of all threads).
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dims))

    def embedded(label: np.ndarray, spread: np.ndarray) -> Embedded:
        embedding = centres[label] + spread[:, None] * rng.normal(size=(len(label), dims))
        return Embedded(embedding.astype(np.float32), (embedding @ centres.T).astype(np.float32), label)

    label, anomalous = np.arange(test) % classes, rng.random(test) < 0.5
    known = embedded(np.arange(train) % classes, np.full(train, 0.5))
    unknown = embedded(label, np.where(anomalous, 0.6, 0.5))
    clips = pd.DataFrame(
        {
            "split": "select",
            "machine": [f"machine-{number // IDS_PER_MACHINE}" for number in label],
            "id": [f"{number % IDS_PER_MACHINE:02}" for number in label],
            "domain": "none",
            "label": np.where(anomalous, "anomaly", "normal"),
        }
    )
    scorer, rows = Scorer(known, EvaluationConfig()), []

    def timed(part: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        rows.append((part, time.perf_counter() - wall, time.process_time() - cpu))
        return result

    def evaluate(scored: pd.DataFrame) -> None:
        per_id = metrics.per_id(scored)
        metrics.per_machine(per_id)
        metrics.averages(per_id)
        metrics.pooled(scored)

    for kind in (kind for kind in KINDS if kind != "own"):  # which costs nothing
        scores = timed(f"score {kind}", partial(scorer.score, unknown, [kind]))[kind]
        timed(f"metrics {kind}", partial(evaluate, clips.assign(score=scores)))
    times = pd.DataFrame(rows, columns=["part", "wall_s", "cpu_s"])
    total = pd.DataFrame([("total", times["wall_s"].sum(), times["cpu_s"].sum())], columns=times.columns)
    return pd.concat([times, total], ignore_index=True)
