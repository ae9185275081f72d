"""``local_density``: distance to a training clip, relative to the distances among the training clips around it."""

from __future__ import annotations

from asd_ray.registry import register_score
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores


@register_score("local_density")
class LocalDensity(Score):
    """Relative distance (:meth:`asd_ray.scoring.neighbours.References.local_density`)."""

    def score(self, test: Embedded) -> Scores:
        return self.scorer.references.local_density(test.embedding, test.group)

    def score_train(self) -> Scores:
        return self.scorer.references.local_density(self.train.embedding, self.train.group, leave_one_out=True)
