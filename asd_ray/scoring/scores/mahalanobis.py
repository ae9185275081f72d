"""``mahalanobis``: distance to the closest class mean of the own group, under one covariance for all classes."""

from __future__ import annotations

from asd_ray.registry import register_score
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores


@register_score("mahalanobis")
class Mahalanobis(Score):
    """Mahalanobis distance (:class:`asd_ray.scoring.gaussian.SharedGaussian`)."""

    def score(self, test: Embedded) -> Scores:
        return self.scorer.gaussian.mahalanobis(test.embedding, test.group)

    def score_train(self) -> Scores:
        train = self.train
        return self.scorer.gaussian.mahalanobis_leave_one_out(train.embedding, train.group, train.label)
