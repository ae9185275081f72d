"""Areas under the ROC curve of one set of clips.

Legend: N clips, R weightings of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asd_ray.errors import AsdRayError


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: ``sklearn.metrics.roc_auc_score(labels, scores)``.

    Args:
        labels: (N,) 1 for anomaly, 0 for normal.
        scores: (N,) anomaly scores, higher is more anomalous.

    Returns:
        0 to 1; 0.5 for constant scores; NaN where one of the two classes is missing.

    Raises:
        AsdRayError: a score is NaN or infinite, or the arrays do not fit together.
    """
    from sklearn.metrics import roc_auc_score  # 0.7 s that whoever needs only :func:`areas` saves

    y, s = _checked(labels, scores)
    return float(roc_auc_score(y, s)) if len(np.unique(y)) == 2 else float("nan")


def pauc(labels: ArrayLike, scores: ArrayLike, max_fpr: float = 0.1) -> float:
    """Partial AUC over false-positive rates in [0, ``max_fpr``], McClish-standardised: chance is 0.5, perfect is 1.

    Exactly ``sklearn.metrics.roc_auc_score(labels, scores, max_fpr=max_fpr)``. Otherwise as :func:`auc`.
    """
    from sklearn.metrics import roc_auc_score

    y, s = _checked(labels, scores)
    return float(roc_auc_score(y, s, max_fpr=max_fpr)) if len(np.unique(y)) == 2 else float("nan")


def areas(
    y: NDArray[np.bool_], s: NDArray[np.float64], max_fpr: float, weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """:func:`auc` and :func:`pauc` from one curve, twenty times as fast, and of many weightings at once.

    Equal to both within rounding (1e-12). With p for ``max_fpr`` and A for the area left of it, in which the curve is
    a straight line between neighbouring thresholds, pAUC is (1 + (A - p²/2) / (p - p²/2)) / 2 (McClish 1989).

    Args:
        y: (N,) whether a clip is anomalous; both kinds must have weight in every weighting.
        s: (N,) finite scores.
        max_fpr: p.
        weights: (N, R) how often each clip counts; by default once, R = 1.

    Returns:
        AUC (R,) and pAUC (R,).
    """
    fpr, tpr = roc(y, s, weights)
    width, rise = np.diff(fpr, axis=0), np.diff(tpr, axis=0)
    area = (width * (tpr[:-1] + rise / 2)).sum(axis=0)
    inside = np.clip(max_fpr - fpr[:-1], 0, width)  # the part of each segment left of max_fpr
    slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
    partial = (inside * (tpr[:-1] + slope * inside / 2)).sum(axis=0)
    chance = max_fpr**2 / 2
    return area, 0.5 * (1 + (partial - chance) / (max_fpr - chance))


def roc(
    y: NDArray[np.bool_], s: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False- and true-positive rates (K + 1, R) at 0 and at the K different scores, from the highest on.

    Arguments as :func:`areas`.
    """
    counts = np.ones((len(s), 1)) if weights is None else weights
    order = np.argsort(-s, kind="stable")
    ordered = s[order]
    thresholds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # ties share one

    def rate(of: NDArray[np.bool_]) -> NDArray[np.float64]:
        above = np.add.reduceat((counts * of[:, None])[order], thresholds, axis=0).cumsum(axis=0)
        return np.concatenate([np.zeros((1, above.shape[1])), above / above[-1]])

    return rate(~y), rate(y)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y, s = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape:
        raise AsdRayError(f"One label per score is expected, found labels of shape {y.shape}, scores of {s.shape}.")
    if not np.isin(y, (0, 1)).all():
        raise AsdRayError(f"Labels must be 0 (normal) or 1 (anomaly), found {sorted(set(y.tolist()), key=str)[:5]}.")
    if not np.isfinite(s).all():
        raise AsdRayError(
            f"Scores must be finite numbers, found {s[~np.isfinite(s)][0]} at position "
            f"{int(np.flatnonzero(~np.isfinite(s))[0])}."
        )
    return y.astype(np.int64), s
