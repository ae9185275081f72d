from __future__ import annotations

import numpy as np
import pytest

from asd_ray.bench.scoring import areas, nearest_cosine, time_parts
from asd_ray.config.evaluation import KINDS, EvaluationConfig
from asd_ray.metrics.areas import areas as our_areas
from asd_ray.scoring import Embedded, Scorer


def test_the_references_compute_what_we_compute() -> None:
    rng = np.random.default_rng(0)
    known, unknown = (rng.normal(size=(count, 8)).astype(np.float32) for count in (60, 40))
    own_known, own = np.arange(60) % 3, np.arange(40) % 3
    scores = nearest_cosine(known, own_known, unknown, own)
    scorer = Scorer(Embedded(known, np.zeros((60, 3), np.float32), own_known), EvaluationConfig())
    ours = scorer.score(Embedded(unknown, np.zeros((40, 3), np.float32), own), ["knn"])["knn"]
    np.testing.assert_allclose(scores, ours, atol=1e-5)
    y = rng.random(40) < 0.5
    for number, (auc, pauc) in enumerate(areas(y, scores, own)):
        area, partial = our_areas(y[own == number], scores[own == number].astype(np.float64), 0.1)
        assert (auc, pauc) == (pytest.approx(area[0]), pytest.approx(partial[0]))


def test_every_part_of_scoring_is_timed() -> None:
    seconds = time_parts(train=200, test=100, dims=8, ids=5)
    kinds = [kind for kind in KINDS if kind != "own"]
    assert list(seconds) == [f"{what} {kind}" for kind in kinds for what in ("score", "metrics")] + ["total"]
    assert min(seconds.values()) > 0
    assert seconds["total"] == pytest.approx(sum(seconds[part] for part in seconds if part != "total"))
