"""Anomaly scores of clips from what a trained network leaves behind, and two baselines that need no network.

Higher scores are more anomalous. Scores of different machines or IDs are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence

from asd_ray.config.evaluation import KINDS, EvaluationConfig, ScoreKind
from asd_ray.scoring.baselines import SILENCE_DB, knn_log_mel, level_score
from asd_ray.scoring.embedded import DOMAINS, Embedded, Scores, domain_codes, group_logits
from asd_ray.scoring.scorer import Scorer

__all__ = [
    "DOMAINS",
    "KINDS",
    "SILENCE_DB",
    "Embedded",
    "ScoreKind",
    "Scorer",
    "Scores",
    "domain_codes",
    "group_logits",
    "knn_log_mel",
    "level_score",
    "score_all",
    "score_train",
]


def score_all(
    train: Embedded, test: Embedded, config: EvaluationConfig, kinds: Sequence[ScoreKind] | None = None
) -> dict[ScoreKind, Scores]:
    """Scores (M,) of M test clips by each of ``kinds``, by default those of ``config.scores``; see :class:`Scorer`."""
    return Scorer(train, config).score(test, kinds)


def score_train(
    train: Embedded, config: EvaluationConfig, kinds: Sequence[ScoreKind] | None = None
) -> dict[ScoreKind, Scores]:
    """Scores (N,) of the training clips themselves, each left out; see :meth:`Scorer.score_train`.

    Who also scores test clips keeps one :class:`Scorer` for both.
    """
    return Scorer(train, config).score_train(kinds)
