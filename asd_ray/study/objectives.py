"""Objectives of a search (``evaluation.objective``): quality, latency and size; trials on the Pareto front.

Legend: N trials, K objectives.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from asd_ray.config.evaluation import ObjectiveKind
from asd_ray.metrics.selection import objective

if TYPE_CHECKING:  # it imports torch, which tables and reports do without
    from asd_ray.detector.detector import Detector

MINIMISED: tuple[ObjectiveKind, ...] = ("latency", "size")
WARM_UP, CLIPS = 3, 21


def objective_values(rows: pd.DataFrame, kinds: Sequence[ObjectiveKind], detector: Path) -> dict[str, float] | None:
    """Compute a trial's objectives.

    Args:
        rows: its metrics (:func:`asd_ray.metrics.per_id`); only the select split is used.
        kinds: of objectives.
        detector: folder of its saved detector; read only for ``latency`` and ``size``.

    Returns:
        kind -> value: a fraction of 1, seconds, or a number of parameters. None where the select split defines no AUC.

    Raises:
        AsdRayError: the detector cannot be read.
    """
    values: dict[str, float] = {}
    for kind in kinds:
        if kind not in MINIMISED:
            value = objective(rows, kind)
            if value is None:
                return None
            values[kind] = value
    if set(kinds) & set(MINIMISED):
        from asd_ray.detector.detector import Detector

        loaded = Detector.load(detector)
        measures = {"latency": latency, "size": size}
        values.update({kind: measures[kind](loaded) for kind in kinds if kind in MINIMISED})
    return {kind: values[kind] for kind in kinds}


def latency(detector: Detector) -> float:
    """Measure the seconds that a detector needs for one clip, from a waveform in memory to its anomaly score.

    The median of 21 clips, one after the other, after 3 clips of warm-up, with one CPU thread, on whatever device the
    trial was trained. The thread's CPU time is measured, so that other trials on the machine disturb it only through
    the caches. The value belongs to the machine that measured it: trials can be compared if all nodes are alike.
    """
    import torch

    samples = detector.study.features.samples
    waveform = np.random.default_rng(0).normal(0, 0.1, (1, samples)).astype(np.float32)
    group = next(iter(detector.thresholds))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for _ in range(WARM_UP + CLIPS):
            started = time.thread_time()
            detector.score_waveforms(waveform, [group])
            seconds.append(time.thread_time() - started)
    finally:
        torch.set_num_threads(threads)
    return median(seconds[WARM_UP:])


def size(detector: Detector) -> float:
    """Number of parameters of a detector's network, without the stored embeddings of training clips and statistics."""
    return float(sum(parameter.numel() for parameter in detector.method.parameters()))


def pareto_front(values: NDArray[np.float64], kinds: Sequence[ObjectiveKind]) -> NDArray[np.bool_]:
    """Mask of the points that no other point dominates, i.e. is as good in every objective and better in one.

    Args:
        values: (N, K), finite.
        kinds: of the K objectives. Smaller is better for ``latency`` and ``size``, larger for all others.

    Returns:
        (N,). Equal points are all on the front, or none of them is.
    """
    costs = values * np.array([1.0 if kind in MINIMISED else -1.0 for kind in kinds])
    dominated = [bool(((costs <= cost).all(axis=1) & (costs < cost).any(axis=1)).any()) for cost in costs]
    return ~np.array(dominated, dtype=bool)


def objective_columns(trials: pd.DataFrame) -> dict[str, ObjectiveKind]:
    """Column of ``trials.parquet`` -> objective, for studies with several objectives; empty for a single one."""
    columns: dict[str, Any] = {
        str(name): str(name).removeprefix("objective_") for name in trials if str(name).startswith("objective_")
    }
    return columns


def with_front(trials: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``pareto`` to the table of trials: complete, and on the front of the objectives."""
    columns = objective_columns(trials)
    if not columns:
        return trials
    there = (trials["status"] == "complete").to_numpy(dtype=bool, copy=True)
    values = trials.loc[there, list(columns)].to_numpy(dtype=np.float64)
    there[there] = pareto_front(values, list(columns.values()))
    return trials.assign(pareto=there)
