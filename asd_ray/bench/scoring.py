"""All scores and metrics of one trial at the size of DCASE 2020 Task 2, and scikit-learn's way to some of them."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
from numpy.typing import NDArray

from asd_ray.bench.processes import in_new_process
from asd_ray.bench.table import Benchmark, Comparison, Measured, duration, say, seconds_of

FULL = (36_000, 18_000)  # training and test clips of DCASE 2020 Task 2, about
QUICK = (4_100, 2_050)
DIMS, IDS = 128, 41
CORES = 2


def run(quick: bool) -> Benchmark:
    """Measures in a new process of two threads; with ``quick`` on a ninth of the clips."""
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
    from asd_ray.bench.scoring_sizes import benchmark

    benchmark(train, test, DIMS, IDS)
    runs = [benchmark(train, test, DIMS, IDS).set_index("part")["wall_s"] for _ in range(repeats)]
    times = {str(part): Measured(tuple(float(run[part]) for run in runs), "s") for part in runs[0].index}
    rng = np.random.default_rng(0)
    known, unknown = (rng.normal(size=(count, DIMS)).astype(np.float32) for count in (train, test))
    own_known, own_unknown = np.arange(train) % IDS, np.arange(test) % IDS
    scores = nearest_cosine(known, own_known, unknown, own_unknown)
    y = rng.random(test) < 0.5
    neighbours = seconds_of(partial(nearest_cosine, known, own_known, unknown, own_unknown), repeats)
    return times, neighbours, seconds_of(partial(areas, y, scores, own_unknown), repeats)


def nearest_cosine(
    known: NDArray[np.float32], own_known: NDArray[np.int64], unknown: NDArray[np.float32], own: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosine distance (M,) of embeddings (M, D) to the nearest of those of their own ID (N, D)."""
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
