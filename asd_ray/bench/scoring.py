"""Benchmark ``scoring``: scores and metrics of one trial at the size of DCASE 2020 Task 2, beside scikit-learn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from asd_ray import metrics
from asd_ray.bench.processes import in_new_process
from asd_ray.bench.table import Benchmark, Comparison, Measured, duration, say, seconds_of
from asd_ray.config.evaluation import KINDS, EvaluationConfig
from asd_ray.scoring.embedded import Embedded
from asd_ray.scoring.scorer import Scorer

FULL = (36_000, 18_000)  # training and test clips of DCASE 2020 Task 2, rounded
QUICK = (4_100, 2_050)
DIMS, IDS, IDS_PER_MACHINE = 128, 41, 7
CORES = 2


def run(quick: bool) -> Benchmark:
    """Measure in a new process of two threads; with ``quick`` on a ninth of the clips."""
    (train, test), repeats = (QUICK, 2) if quick else (FULL, 5)
    threads = min(CORES, os.cpu_count() or 1)
    say(f"scoring: {train:,} and {test:,} embeddings, {repeats} times, {duration(10 + repeats * train / 3_000)}")
    times, neighbours, areas = in_new_process(_measure, train, test, repeats, threads=threads)
    result = Benchmark("scoring")
    size = f"{train:,} training and {test:,} test embeddings of {DIMS} dimensions, {IDS} IDs"
    note = f"{size}; {threads} threads, after one run that is not counted"
    result.lines.append(
        Comparison("all scores and metrics of a trial", times["total"], limit=5, at_most=True, note=note)
    )
    references = {
        "score knn": (neighbours, "scikit-learn's NearestNeighbors for each ID, cosine"),
        "metrics knn": (areas, "scikit-learn's roc_auc_score for each ID: AUC and pAUC alone"),
    }
    for part, measured in times.items():
        if part != "total":
            reference, what = references.get(part, (None, ""))
            result.lines.append(Comparison(part, measured, reference, what))
    return result


def _measure(train: int, test: int, repeats: int) -> tuple[dict[str, Measured], Measured, Measured]:
    time_parts(train, test)
    runs = [time_parts(train, test) for _ in range(repeats)]
    times = {part: Measured(tuple(run[part] for run in runs), "s") for part in runs[0]}
    rng = np.random.default_rng(0)
    known, unknown = (rng.normal(size=(count, DIMS)).astype(np.float32) for count in (train, test))
    own_known, own_unknown = np.arange(train) % IDS, np.arange(test) % IDS
    scores = nearest_cosine(known, own_known, unknown, own_unknown)
    y = rng.random(test) < 0.5
    neighbours = seconds_of(partial(nearest_cosine, known, own_known, unknown, own_unknown), repeats)
    return times, neighbours, seconds_of(partial(areas, y, scores, own_unknown), repeats)


def time_parts(train: int, test: int, dims: int = DIMS, ids: int = IDS) -> dict[str, float]:
    """Time every score of made-up clips, and the metrics of each score; the caller sets the number of threads.

    A computation that several scores share counts for the first of them; ``ensemble`` scores the training clips, too.

    Args:
        train: number of training clips N.
        test: number of test clips M, half of them anomalous.
        dims: dimensions D of the embeddings, which lie around a random centre per ID.
        ids: machines x IDs.

    Returns:
        Seconds of ``score <kind>`` and ``metrics <kind>`` for each kind, and their ``total``.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(ids, dims))

    def embedded(group: np.ndarray, spread: np.ndarray) -> Embedded:
        embedding = centres[group] + spread[:, None] * rng.normal(size=(len(group), dims))
        return Embedded(embedding.astype(np.float32), (embedding @ centres.T).astype(np.float32), group)

    group, anomalous = np.arange(test) % ids, rng.random(test) < 0.5
    known = embedded(np.arange(train) % ids, np.full(train, 0.5))
    unknown = embedded(group, np.where(anomalous, 0.6, 0.5))
    clips = pd.DataFrame(
        {
            "split": "select",
            "machine": [f"machine-{number // IDS_PER_MACHINE}" for number in group],
            "id": [f"{number % IDS_PER_MACHINE:02}" for number in group],
            "domain": "none",
            "label": np.where(anomalous, "anomaly", "normal"),
        }
    )
    scorer = Scorer(known, EvaluationConfig())
    seconds: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        seconds[part] = time.perf_counter() - started
        return result

    def evaluate(scored: pd.DataFrame) -> None:
        per_id = metrics.per_id(scored)
        metrics.per_machine(per_id)
        metrics.averages(per_id)
        metrics.pooled(scored)

    for kind in (kind for kind in KINDS if kind != "own"):  # the method's own score costs nothing here
        scores = timed(f"score {kind}", partial(scorer.score, unknown, [kind]))[kind]
        timed(f"metrics {kind}", partial(evaluate, clips.assign(score=scores)))
    return {**seconds, "total": sum(seconds.values())}


def nearest_cosine(
    known: NDArray[np.float32], own_known: NDArray[np.int64], unknown: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosine distance (M,) of embeddings (M, D) to the nearest embedding of their own ID among (N, D)."""
    from sklearn.neighbors import NearestNeighbors

    scores = np.empty(len(unknown), np.float32)
    for one in np.unique(own):
        nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(known[own_known == one])
        scores[own == one] = nearest.kneighbors(unknown[own == one])[0][:, 0]
    return scores


def areas(y: NDArray[np.bool_], scores: NDArray[np.float32], own: NDArray[np.int64]) -> list[tuple[float, float]]:
    """AUC and pAUC (p = 0.1) of every ID."""
    from sklearn.metrics import roc_auc_score

    found = []
    for one in np.unique(own):
        labels, values = y[own == one], scores[own == one]
        found.append((float(roc_auc_score(labels, values)), float(roc_auc_score(labels, values, max_fpr=0.1))))
    return found
