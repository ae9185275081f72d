"""``knn``: mean distance to the nearest training clips of the own group."""

from __future__ import annotations

from asd_ray.registry import register_score
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores


@register_score("knn")
class Knn(Score):
    """Mean distance to the nearest clips (:meth:`asd_ray.scoring.neighbours.References.knn`)."""

    def score(self, test: Embedded) -> Scores:
        return self._knn(test, leave_one_out=False)

    def score_train(self) -> Scores:
        return self._knn(self.train, leave_one_out=True)

    def _knn(self, clips: Embedded, leave_one_out: bool) -> Scores:
        k, per_domain = self.config.neighbours, self.config.per_domain
        return self.scorer.references.knn(
            clips.embedding, clips.group, k, per_domain=per_domain, leave_one_out=leave_one_out
        )
