"""``evaluation``: how clips are scored, what a search maximises, and when a clip is called anomalous."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from asd_ray.config.section import Section

SingleScore = Literal["own", "classification", "knn", "local_density", "mahalanobis", "gmm"]
ScoreKind = Literal["own", "classification", "knn", "local_density", "mahalanobis", "gmm", "ensemble"]
KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)
Quality = Literal["auc", "pauc", "auc_pauc", "mauc"]
ObjectiveKind = Literal["auc", "pauc", "auc_pauc", "mauc", "latency", "size"]


def _check_objective(given: Any) -> Any:
    kinds, qualities = get_args(ObjectiveKind), get_args(Quality)
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    if not 1 <= len(listed) <= 3 or any(kind not in kinds for kind in listed) or len(set(listed)) < len(listed):
        raise ValueError(
            f"expected one of {', '.join(qualities)}, or a list of at most three different ones of {', '.join(kinds)}"
        )
    if listed[0] not in qualities:
        raise ValueError(
            f"the first objective chooses the best trial: one of {', '.join(qualities)}; {listed[0]} may follow"
        )
    return listed[0] if len(listed) == 1 else tuple(listed)


class EvaluationConfig(Section):
    score: Literal["own", "classification", "knn", "local_density", "mahalanobis", "gmm", "ensemble", "best"] = "knn"
    """A clip's anomaly score, one of ``scores``, or ``best``: the one of them with the best ``objective`` on the select
    split, chosen anew in every trial.

    ``own``: the score that a method comes with: −log p(own ID) with the margin (``os_scl``), or the error of the
    reconstruction (``autoencoder``); ``sia_moco`` has none. ``classification``: −log p(own ID), without margin.
    ``knn``: mean distance to the ``neighbours`` nearest training clips of the own ID. ``local_density``: distance to a
    training clip of the own ID relative to how close that clip's own neighbours are. ``mahalanobis``: distance to the
    own ID's mean under one shrunk covariance for all IDs. ``gmm``: −log density under a Gaussian mixture of the own
    ID's training clips. ``ensemble``: mean of the standardised scores of ``ensemble``. Where an ID has several classes
    (``data.classes``), p is the sum over them and the mean that of the closest."""
    scores: tuple[ScoreKind, ...] = Field(KINDS, min_length=1)
    """Scores that are computed and stored for every trial (``own`` where the method has one); another one costs seconds
    and no training."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """Of ``knn`` and ``local_density``."""
    neighbours: int = Field(1, ge=1)
    """k of ``knn``."""
    per_domain: bool = True
    """``knn`` looks for its k neighbours among source and target clips apart and takes the smaller mean distance; with
    k = 1, or without domains, this changes nothing."""
    density_neighbours: int = Field(16, ge=1)
    """K of ``local_density``: neighbours of a training clip that say how dense its surroundings are. The published
    code's setting is 16."""
    gmm_components: int = Field(2, ge=1)
    """Components of ``gmm`` for every ID; fewer where an ID has fewer than 10 training clips for each. Ours."""
    gmm_dims: int = Field(128, ge=1)
    """``gmm`` sees at most so many principal components of the embedding. Ours."""
    ensemble: tuple[SingleScore, ...] = Field(("classification", "knn"), min_length=1)
    """Scores whose mean is ``ensemble``, each standardised on the own ID's training clips."""
    objective: Annotated[Quality | tuple[ObjectiveKind, ...], BeforeValidator(_check_objective)] = "auc_pauc"
    """What a search maximises on the select split: ``auc``, ``pauc``, ``auc_pauc`` (the mean of both), or ``mauc`` (the
    mean over machines of the smallest AUC of an ID).

    Or a list of at most three of these and of ``latency`` (seconds of one CPU thread that a detector takes for a clip)
    and ``size`` (parameters of its network), which are minimised: the search looks for the Pareto front, the trials
    that no other trial beats in one objective without losing in another. The first of the list ranks the trials and
    chooses the best.
    Latencies hold for the machine that measured them: see :func:`asd_ray.study.objectives.latency`."""
    max_fpr: float = Field(0.1, gt=0, lt=1)
    """p of pAUC. The challenge's is 0.1."""
    threshold: Literal["gamma", "quantile"] = "gamma"
    """A clip is anomalous if its score is above the ``threshold_quantile`` of a gamma distribution fitted to the
    training clips' scores (the rule of the challenge's baselines from 2021 on), or of these scores themselves."""
    threshold_quantile: float = Field(0.9, gt=0, lt=1)
    """The baselines' is 0.9."""
    threshold_per: Literal["machine", "id"] = "id"
    """Whether each ID has its own threshold, or all IDs of a machine type share one, as in the baselines: their score
    is one model's for all IDs, while ours are not comparable between IDs."""

    @property
    def objectives(self) -> tuple[ObjectiveKind, ...]:
        """All objectives; the first one ranks."""
        return self.objective if isinstance(self.objective, tuple) else (self.objective,)

    @model_validator(mode="after")
    def _scores_fit_together(self) -> EvaluationConfig:
        for name, kinds in (("scores", self.scores), ("ensemble", self.ensemble)):
            repeated = sorted({kind for kind in kinds if kinds.count(kind) > 1})
            if repeated:
                raise ValueError(f"{name} lists {', '.join(repeated)} more than once")
        if self.score != "best" and self.score not in self.scores:
            raise ValueError(f"score is {self.score}, which scores does not list ({', '.join(self.scores)})")
        return self
