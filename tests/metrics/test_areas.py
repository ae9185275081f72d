from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from asd_ray import metrics
from asd_ray.errors import AsdRayError
from asd_ray.metrics.areas import areas
from tests.metrics.scored_clips import clip_frame, scored, slow_auc, slow_pauc


def auc(labels, scores) -> float:
    return areas(np.asarray(labels, bool), np.asarray(scores, float), 0.1)[0].item()


def pauc(labels, scores, p=0.1) -> float:
    return areas(np.asarray(labels, bool), np.asarray(scores, float), p)[1].item()


@settings(deadline=None, max_examples=50)
@given(scored, st.sampled_from([0.05, 0.1, 0.37]))
def test_agrees_with_sklearn_and_the_definitions(clips, p):
    labels, scores = zip(*clips, strict=True)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert pauc(labels, scores, p) == pytest.approx(roc_auc_score(labels, scores, max_fpr=p), abs=1e-12)
    assert auc(labels, scores) == pytest.approx(slow_auc(labels, scores), abs=1e-12)
    assert pauc(labels, scores, p) == pytest.approx(slow_pauc(labels, scores, p), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(scored)
def test_only_the_order_of_scores_counts(clips):
    labels, scores = map(np.array, zip(*clips, strict=True))
    assert auc(labels, np.exp(scores)) == pytest.approx(auc(labels, scores), abs=1e-12)
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores), abs=1e-12)


def test_known_values():
    labels = [0] * 10 + [1] * 10
    assert auc(labels, range(20)) == pytest.approx(1)
    assert pauc(labels, range(20)) == pytest.approx(1)
    assert auc(labels, [7] * 20) == pytest.approx(0.5)
    assert pauc(labels, [7] * 20) == pytest.approx(0.5)
    assert auc([0, 0, 1, 1], [1, 3, 2, 4]) == 0.75
    # One of ten normals above all anomalies: the ROC is 0 up to FPR 0.1, so A = 0 and (1 - (p/2) / (1 - p/2)) / 2.
    assert pauc(labels, [*range(9), 99, *range(10, 20)]) == pytest.approx(0.5 * (1 - 0.05 / 0.95))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_numbers_are_refused(bad):
    clips = clip_frame(np.random.default_rng(0)).assign(path=lambda frame: "clip" + frame.index.astype(str))
    clips.loc[3, "score"] = bad
    with pytest.raises(AsdRayError, match=r"clip3: its score is .*, expected a finite number"):
        metrics.per_id(clips)
    with pytest.raises(AsdRayError, match="a clip of fan 00: its score"):
        metrics.per_id(clips.drop(columns="path"))


def test_labels_that_are_not_labels_are_refused():
    clips = clip_frame(np.random.default_rng(0))
    with pytest.raises(AsdRayError, match="its label is unknown, expected normal or anomaly"):
        metrics.per_id(clips.replace({"label": {"anomaly": "unknown"}}))
    with pytest.raises(AsdRayError, match="missing: score"):
        metrics.per_id(clips.drop(columns="score"))


@settings(deadline=None, max_examples=50)
@given(scored, st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.1, 0.37]))
def test_vectorised_areas_equal_sklearn_also_on_repeated_clips(clips, seed, p):
    labels, scores = np.array([y for y, _ in clips]), np.array([float(s) for _, s in clips])
    weights = np.random.default_rng(seed).integers(1, 4, size=(len(scores), 3))
    area, partial = areas(labels, scores, p, weights.astype(float))
    for column in range(3):
        y, s = np.repeat(labels, weights[:, column]), np.repeat(scores, weights[:, column])
        assert area[column] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert partial[column] == pytest.approx(roc_auc_score(y, s, max_fpr=p), abs=1e-12)


def test_areas_keep_apart_scores_that_differ_in_the_last_bit() -> None:
    close = np.nextafter(1.0, 2.0)
    area, _ = areas(np.array([True, False]), np.array([close, 1.0]), 0.1)
    assert area == [1]
    area, _ = areas(np.array([True, False]), np.array([1e308, -1e308]), 0.1)
    assert area == [1]


# STgram-MFN (liuyoude/STgram-MFN @ 147f292, README): normal and anomalous development test clips of an ID, its AUC.
PUBLISHED = [
    *[(350, 264, 0.830719697), (350, 265, 0.951617251), (350, 265, 0.995218329), (350, 265, 0.99993531)],  # ToyCar
    *[(800, 400, 0.869696875), (800, 355, 0.641580986), (799, 355, 0.725856264)],  # ToyConveyor
    *[(100, 407, 0.950638821), (100, 359, 0.996852368), (100, 348, 0.813936782), (100, 361, 0.999972299)],  # fan
    *[(100, 143, 0.892342657), (100, 111, 0.83481982), (100, 100, 0.9999), (100, 102, 0.950490196)],  # pump
    *[(100, 356, 1.0), (100, 267, 0.982209738), (100, 178, 0.99988764), (100, 89, 0.999775281)],  # slider
    *[(100, 119, 1.0), (100, 120, 0.988333333), (100, 120, 1.0), (100, 120, 0.99725)],  # valve
]


@pytest.mark.parametrize(("normal", "anomalous", "published"), PUBLISHED)
def test_published_aucs_count_pairs_of_clips(normal, anomalous, published) -> None:
    """AUC x A x N is the number of pairs in the right order, ties counting half: scores with as many give that AUC."""
    pairs = round(2 * published * normal * anomalous) / 2
    assert pairs == pytest.approx(published * normal * anomalous, abs=1e-9 * normal * anomalous)
    above, rest = divmod(pairs, normal)
    scores = [*range(normal)]  # of the normal clips
    scores += [normal] * int(above) + [-1] * (anomalous - int(above) - 1)
    scores += [rest - 0.5 if rest % 1 == 0 else int(rest)] if above < anomalous else []
    labels = [0] * normal + [1] * anomalous
    assert auc(labels, scores) * normal * anomalous == pytest.approx(pairs, abs=1e-6)
    assert auc(labels, scores) == pytest.approx(published, abs=1e-9)
