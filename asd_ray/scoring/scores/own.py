"""``own``: the score that the method itself gives (:meth:`asd_ray.methods.base.Method.own_score`), if it has one."""

from __future__ import annotations

import numpy as np

from asd_ray.registry import register_score
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores


@register_score("own")
class Own(Score):
    """The method's own score."""

    @classmethod
    def exists(cls, train: Embedded) -> bool:
        return len(train.own) > 0

    def score(self, test: Embedded) -> Scores:
        return test.own.astype(np.float64)
