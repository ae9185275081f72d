"""Thresholds of scores, above which a clip is anomalous. They are fitted to training clips, which are all normal."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asd_ray.config.evaluation import EvaluationConfig
from asd_ray.errors import AsdRayError

_FEWEST = 3  # a gamma distribution with free location has three parameters


def fit_threshold(
    train_scores: ArrayLike, rule: Literal["gamma", "quantile"] = "gamma", quantile: float = 0.9
) -> float:
    """Fit the score above which a clip is anomalous.

    ``gamma`` is the rule of the challenge's baselines from 2021 on: the quantile of a gamma distribution fitted to the
    training scores by ``scipy.stats.gamma.fit`` with shape, location and scale all free. The free location is what lets
    scores be negative: the distribution starts there instead of at 0. Scores are fitted in units of their standard
    deviation, because the optimiser's tolerances are absolute: as they are, it can end anywhere for scores of 1e-6, and
    a cosine distance is no more. Where no gamma distribution can be had (fewer
    than three scores, all equal ones, or a fit whose quantile is farther outside the scores' range than that is wide),
    the rule is ``quantile``: the quantile of the scores themselves, between neighbours linearly.

    Args:
        train_scores: (N,) scores of training clips as if they were new (:meth:`asd_ray.scoring.Scorer.score_train`).
        rule: as above.
        quantile: share of normal clips that are to stay below, above 0 and below 1.

    Raises:
        AsdRayError: there are no scores, or some are not finite.
    """
    scores = np.asarray(train_scores, dtype=np.float64)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise AsdRayError(
            f"A threshold needs at least one training score and finite ones only; found an array of shape "
            f"{scores.shape} with {int((~np.isfinite(scores)).sum())} that are not finite."
        )
    empirical = float(np.quantile(scores, quantile))
    lowest, highest = scores.min(), scores.max()
    if rule == "quantile" or len(scores) < _FEWEST or lowest == highest:
        return empirical
    from scipy import stats  # 0.4 s that a worker which does not score saves

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of trial parameters on the optimiser's way
        try:
            unit = scores.std()
            threshold = float(unit * stats.gamma.ppf(quantile, *stats.gamma.fit(scores / unit)))
        except (stats.FitError, ValueError):
            return empirical
    width = highest - lowest
    return threshold if lowest - width <= threshold <= highest + width else empirical


def fit_thresholds(
    train_scores: ArrayLike, group: NDArray[np.int64], groups: Sequence[str], config: EvaluationConfig
) -> NDArray[np.float64]:
    """Thresholds of all machines and IDs, by ``config.threshold``, ``threshold_quantile`` and ``threshold_per``.

    Args:
        train_scores: (N,) scores of training clips.
        group: (N,) numbers of their groups.
        groups: the G names ``machine/id`` in group order.
        config: the settings.

    Returns:
        (G + 1,): index it by a group's number. The last one, which is also number -1, that of clips of no trained
        group, is fitted to all training clips. A group without training clips has its machine's threshold if that has
        some, else the last one.
    """
    scores = np.asarray(train_scores, dtype=np.float64)
    machines = np.array([name.rsplit("/", 1)[0] for name in groups])

    def fit(of: NDArray[np.bool_]) -> float:
        return fit_threshold(scores[of], config.threshold, config.threshold_quantile)

    everything = np.ones(len(scores), dtype=bool)
    thresholds = np.full(len(groups) + 1, fit(everything))
    for machine in np.unique(machines):
        numbers = np.flatnonzero(machines == machine)
        of_machine = np.isin(group, numbers)
        if of_machine.any():
            thresholds[numbers] = fit(of_machine)
        if config.threshold_per == "id":
            for number in np.intersect1d(numbers, group):
                thresholds[number] = fit(group == number)
    return thresholds


def decide(scores: ArrayLike, threshold: ArrayLike) -> NDArray[np.int64]:
    """1 (anomaly) where a score is above its threshold, else 0; a score that equals it is normal, as in the baselines.

    Args:
        scores: (M,) scores.
        threshold: one for all, or (M,): ``thresholds[group]``.
    """
    return (np.asarray(scores, dtype=np.float64) > np.asarray(threshold, dtype=np.float64)).astype(np.int64)
