"""``classification``: -log p(own group), the field's usual score (STgram-MFN, OS-SCL)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from asd_ray.registry import register_score
from asd_ray.scoring.base import Score
from asd_ray.scoring.embedded import Embedded, Scores


@register_score("classification")
class Classification(Score):
    """-log p(own group), where p of a group is the sum over its classes.

    A clip whose group was not trained gets -log of the largest p.
    """

    def score(self, test: Embedded) -> Scores:
        log_p = F.log_softmax(torch.as_tensor(test.group_logits, dtype=torch.float64), dim=1).numpy()
        own = log_p[np.arange(len(log_p)), test.group]
        return -np.where(test.group >= 0, own, log_p.max(axis=1))
