"""``gmm``: -log density under a Gaussian mixture of the own group's training clips."""

from __future__ import annotations

import numpy as np

from asd_ray.registry import register_score
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores
from asd_ray.scoring.gaussian import GroupMixtures


@register_score("gmm")
class Gmm(Score):
    """-log density (:class:`asd_ray.scoring.gaussian.GroupMixtures`)."""

    def fit(self) -> None:
        train, config = self.train, self.config
        same = train.embedding.shape[1] <= config.gmm_dims and np.array_equal(train.label, train.group)
        shared = self.scorer.gaussian if same else None
        self.mixtures = GroupMixtures(train.embedding, train.group, config.gmm_components, config.gmm_dims, shared)

    def score(self, test: Embedded) -> Scores:
        return self.mixtures.score(test.embedding, test.group)

    def score_train(self) -> Scores:
        return self.mixtures.score_left_out()
