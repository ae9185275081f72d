"""Anomaly scores of clips from their embeddings and logits, and two baselines that need no network.

Higher scores are more anomalous. Scores of different machines or IDs are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

from asd_ray.config.evaluation import KINDS, EvaluationConfig
from asd_ray.scoring.base import Score
from asd_ray.scoring.baselines import SILENCE_DB, knn_log_mel, level_score
from asd_ray.scoring.embedded import DOMAINS, Embedded, Scores, domain_codes, group_logits
from asd_ray.scoring.scorer import Scorer

__all__ = [
    "DOMAINS",
    "KINDS",
    "SILENCE_DB",
    "Embedded",
    "Score",
    "Scorer",
    "Scores",
    "domain_codes",
    "group_logits",
    "knn_log_mel",
    "level_score",
    "score_all",
]


def score_all(
    train: Embedded, test: Embedded, config: EvaluationConfig, kinds: Sequence[str] | None = None
) -> dict[str, Scores]:
    """Scores (M,) of M test clips by each of ``kinds``, by default those of ``config.scores``; see :class:`Scorer`."""
    return Scorer(train, config).score(test, kinds)
