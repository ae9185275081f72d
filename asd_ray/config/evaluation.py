"""``evaluation``: the scores of clips, the objective of a search, and the thresholds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from asd_ray.config.section import Section
from asd_ray.registry import SCORES


def _registered(kind: str) -> str:
    if kind not in SCORES:
        raise ValueError(SCORES.unknown(kind))
    return kind


ScoreKind = Annotated[str, AfterValidator(_registered)]
"""Name of a registered score."""
KINDS = ("own", "classification", "knn", "local_density", "mahalanobis", "gmm", "ensemble")
"""The scores of a study that names none, in the order of its tables."""
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
    score: str = "knn"
    """Anomaly score that counts: one of ``scores``, or ``best``, the one of them with the best ``objective`` on the
    select split, chosen in every trial."""
    scores: tuple[ScoreKind, ...] = Field(KINDS, min_length=1)
    """Scores that are computed and stored for every trial. One more costs seconds and no training. The *own* training
    clips of a clip are those of its machine and ID.

    ``own``: the score of the method itself, where it has one: −log p(own ID) with the margin (``os_scl``), or the error
    of the reconstruction (``autoencoder``). ``classification``: −log p(own ID), without margin. ``knn``: mean distance
    to the ``neighbours`` nearest own training clips. ``local_density``: distance to an own training clip, relative to
    the distances from that clip to its neighbours. ``mahalanobis``: distance to the mean of the own training clips,
    under one shrunk covariance for all IDs. ``gmm``: −log density under a Gaussian mixture of the own training clips.
    ``ensemble``: mean of the standardised scores of ``ensemble``. Where an ID has several classes (``data.classes``), p
    is the sum over them, and the mean is that of the closest."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """Distance that ``knn`` and ``local_density`` measure."""
    neighbours: int = Field(1, ge=1)
    """k, the number of neighbours of ``knn``."""
    per_domain: bool = True
    """Search the k neighbours of ``knn`` among source clips and among target clips separately, and take the smaller
    mean distance. Without domains this makes no difference, nor with k = 1."""
    density_neighbours: int = Field(16, ge=1)
    """K of ``local_density``: number of a training clip's neighbours that measure the density around it. The published
    code: 16."""
    gmm_components: int = Field(2, ge=1)
    """Maximum components of ``gmm`` for each ID; an ID gets one for every 10 training clips. Ours."""
    gmm_dims: int = Field(128, ge=1)
    """Maximum principal components of the embedding that are kept before ``gmm``. Ours."""
    ensemble: tuple[ScoreKind, ...] = Field(("classification", "knn"), min_length=1)
    """Scores whose mean is ``ensemble``, each standardised by the own training clips."""
    objective: Annotated[Quality | tuple[ObjectiveKind, ...], BeforeValidator(_check_objective)] = "auc_pauc"
    """What a search maximises on the select split: ``auc``; ``pauc``; ``auc_pauc``, the mean of both; or ``mauc``, the
    mean over machines of the smallest AUC of their IDs.

    Or a list of at most three of these and of two that are minimised: ``latency``, the seconds that a detector needs
    for a clip on one CPU thread, and ``size``, the number of parameters of its network. The search then looks for the
    Pareto front: the trials that no other trial beats in one objective without losing in another. The first objective
    of the list ranks the trials and chooses the best. A latency holds for the machine that measured it:
    :func:`asd_ray.study.objectives.latency`."""
    max_fpr: float = Field(0.1, gt=0, lt=1)
    """p of pAUC: the largest false-positive rate that counts. The challenge's: 0.1."""
    threshold: Literal["gamma", "quantile"] = "gamma"
    """How a threshold follows from the training clips' scores; a clip with a higher score is anomalous. ``gamma``: the
    ``threshold_quantile`` of a gamma distribution fitted to them, the rule of the challenge's baselines since 2021.
    ``quantile``: that quantile of the scores themselves."""
    threshold_quantile: float = Field(0.9, gt=0, lt=1)
    """Share of normal clips that should stay below the threshold. The baselines': 0.9."""
    threshold_per: Literal["machine", "id"] = "id"
    """Thresholds: one for each ``id``, or one for all IDs of a ``machine`` type, as in the baselines, whose scores come
    from one model for all IDs. Our scores are not comparable between IDs."""

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
        if "ensemble" in self.ensemble:
            raise ValueError("ensemble lists ensemble itself")
        if self.score != "best" and self.score not in self.scores:
            raise ValueError(f"score is {self.score}, which scores does not list ({', '.join(self.scores)})")
        return self
