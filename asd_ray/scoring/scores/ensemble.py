"""``ensemble``: mean of several scores, each standardised by the own group's training clips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asd_ray.registry import register_score
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores


@register_score("ensemble")
class Ensemble(Score):
    """The mean of the scores in ``evaluation.ensemble``, each standardised (:func:`standardise`)."""

    def score(self, test: Embedded) -> Scores:
        return self._mean(lambda kind: self.scorer.of_test(kind, test), test.group)

    def score_train(self) -> Scores:
        return self._mean(self.scorer.of_train, self.train.group)

    def _mean(self, scores: Callable[[str], Scores], group: NDArray[np.int64]) -> Scores:
        members = self.config.ensemble
        of_train = {kind: self.scorer.of_train(kind) for kind in members}
        return np.mean([standardise(scores(kind), group, of_train[kind], self.train.group) for kind in members], axis=0)


def standardise(
    scores: Scores, group: NDArray[np.int64], train_scores: Scores, train_group: NDArray[np.int64]
) -> Scores:
    """(score - mean) / standard deviation, with the statistics of the own group's training scores.

    A group whose training scores are fewer than two, or differ by less than fp32 resolves of the largest of all, takes
    the statistics of all groups with at least two clips, or of all clips; where these do not differ either, scores
    stay as they are.
    """
    standardised = np.empty_like(scores)
    counts = np.bincount(train_group)
    in_company = counts[train_group] >= 2
    overall = train_scores[in_company] if in_company.any() else train_scores
    resolution = np.finfo(np.float32).eps * np.abs(train_scores).max()
    for number in np.unique(group):
        own = train_scores[train_group == number]
        reference = own if len(own) >= 2 and own.std() > resolution else overall
        mean, deviation = reference.mean(), reference.std()
        if deviation > resolution:
            standardised[group == number] = (scores[group == number] - mean) / deviation
        else:
            standardised[group == number] = scores[group == number]
    return standardised
