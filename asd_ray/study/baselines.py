"""Baselines without training that a detector must beat: loudness, and nearest neighbours of mean Log-Mel spectra."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from asd_ray import metrics, scoring
from asd_ray.features.store import Manifest, Place, read_tables
from asd_ray.report.tables import BASELINES


def baseline_scores(store: Place, manifest: Manifest, identity: pd.DataFrame) -> pd.DataFrame:
    """Compute the scores of the baselines ``level`` and ``knn_log_mel`` from the feature store.

    Args:
        store, manifest: the features, in a folder or at a URI.
        identity: labelled test clips: ``path, machine, id, domain, label, split``.

    Returns:
        The identity with a column for each baseline.
    """
    (_, train_mean, train_class, _), (test_level, test_mean, test_class, paths) = (
        _statistics(store, manifest, split) for split in ("train", "test")
    )
    scores = {
        "path": paths,
        "level": scoring.level_score(test_level),
        "knn_log_mel": scoring.knn_log_mel(train_mean, train_class, test_mean, test_class),
    }
    return identity.merge(pd.DataFrame(scores), on="path", validate="one_to_one")


def baseline_results(scores: pd.DataFrame, ids: Sequence[tuple[str, str]], max_fpr: float) -> pd.DataFrame:
    """Compute rows of results: ``baseline`` and the columns of :func:`asd_ray.metrics.per_id`.

    Args:
        scores: from :func:`baseline_scores`.
        ids: ``(machine, id)`` pairs; each gets a row.
        max_fpr: p of pAUC.
    """
    frames = []
    for name in BASELINES:
        rows = metrics.per_id(scores.assign(score=scores[name]), max_fpr, ids=ids)
        rows.insert(0, "baseline", name)
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def _statistics(store: Place, manifest: Manifest, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Read levels (N,), time-mean Log-Mel (N, F), groups (N,) and paths of a split, one shard at a time."""
    levels, means, classes, paths = [], [], [], []
    for table in read_tables(store, manifest, split):
        levels.append(table.level_db)
        means.append(table.log_mel.mean(axis=2, dtype=np.float32))
        classes += [clip.group for clip in table.clips]
        paths += [clip.path for clip in table.clips]
    return np.concatenate(levels), np.concatenate(means), np.array(classes), paths
