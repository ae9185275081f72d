from __future__ import annotations

import pytest
from pydantic import ValidationError

from asd_ray.config import EvaluationConfig
from asd_ray.config.evaluation import KINDS


def test_every_score_is_computed_by_default_and_can_be_chosen() -> None:
    assert EvaluationConfig().scores == KINDS
    for kind in (*KINDS, "best"):
        assert EvaluationConfig.model_validate({"score": kind}).score == kind
    assert EvaluationConfig.model_validate({"score": "best", "scores": ["gmm", "knn"]}).scores == ("gmm", "knn")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "mean"}, "score is mean, which scores does not list"),
        ({"score": "gmm", "scores": ["knn"]}, r"score is gmm, which scores does not list \(knn\)"),
        ({"scores": ["knn", "gmm", "knn"]}, "scores lists knn more than once"),
        ({"ensemble": ["knn", "knn"]}, "ensemble lists knn more than once"),
        ({"ensemble": ["ensemble"]}, "ensemble lists ensemble itself"),
        ({"scores": ["knn", "mean"]}, "there is no score 'mean'; choose one of classification, ensemble, gmm, knn"),
        ({"ensemble": []}, "at least 1 item"),
        ({"scores": []}, "at least 1 item"),
        ({"threshold_quantile": 1.0}, "less than 1"),
        ({"objective": "latency"}, "the first objective chooses the best trial: one of auc, pauc, auc_pauc, mauc"),
        ({"objective": ["size", "auc"]}, "size may follow"),
        ({"objective": "f1"}, "expected one of auc, pauc, auc_pauc, mauc, or a list of at most three different ones"),
        ({"objective": ["auc", "auc"]}, "at most three different ones"),
        ({"objective": ["auc", "pauc", "latency", "size"]}, "at most three different ones"),
        ({"objective": []}, "at most three different ones"),
        ({"objective": {"auc": 1}}, "expected one of auc"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig.model_validate(settings)


def test_one_objective_or_several_of_which_the_first_ranks() -> None:
    assert EvaluationConfig().objectives == ("auc_pauc",)
    for given in ("mauc", ["mauc"]):
        assert EvaluationConfig.model_validate({"objective": given}).objective == "mauc"
    several = EvaluationConfig.model_validate({"objective": ["auc", "latency", "size"]})
    assert several.objectives == ("auc", "latency", "size")
    assert EvaluationConfig.model_validate(several.model_dump(mode="json")) == several
