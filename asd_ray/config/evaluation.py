"""``evaluation``: how clips are scored and what a search maximises."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from asd_ray.config.section import Section


class EvaluationConfig(Section):
    score: Literal["classification", "knn", "mean"] = "knn"
    """A clip's anomaly score: ``classification`` is −log p(own ID); ``knn`` the mean cosine distance to the nearest
    training clips of the own ID; ``mean`` the mean of both, each standardised on the ID's training clips."""
    neighbours: int = Field(1, ge=1)
    """k of ``knn``."""
    objective: Literal["auc", "pauc", "auc_pauc"] = "auc_pauc"
    """What a search maximises on the select split: AUC, pAUC, or the mean of both."""
    max_fpr: float = Field(0.1, gt=0, lt=1)
    """p of pAUC. The challenge's is 0.1."""
