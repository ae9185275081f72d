from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray import scoring
from asd_ray.errors import AsdRayError
from asd_ray.scoring import Embedded


def embedded(rng, labels, classes=3, dim=5) -> Embedded:
    n = len(labels)
    return Embedded(
        rng.normal(size=(n, dim)).astype(np.float32),
        (3 * rng.normal(size=(n, classes))).astype(np.float32),
        np.asarray(labels, dtype=np.int64),
    )


def slow_classification(clips: Embedded) -> list[float]:
    scores = []
    for logits, label in zip(clips.logits.astype(float), clips.label, strict=True):
        p = [math.exp(value) / sum(math.exp(other) for other in logits) for value in logits]
        scores.append(-math.log(p[label] if label >= 0 else max(p)))
    return scores


def slow_knn(train: Embedded, embedding, label, k, skip=None) -> float:
    def cosine_distance(x, y):
        x, y = x.astype(float), y.astype(float)
        return 1 - (x @ y) / math.sqrt((x @ x) * (y @ y))

    own = [i for i in range(len(train.label)) if train.label[i] == label] or range(len(train.label))
    distances = sorted(cosine_distance(embedding, train.embedding[i]) for i in own if i != skip)
    return sum(distances[:k]) / len(distances[:k])


def slow_mean(train: Embedded, test: Embedded, k) -> list[float]:
    counts = {label: int((train.label == label).sum()) for label in set(train.label)}
    own_knn = {
        i: slow_knn(train, train.embedding[i], train.label[i], k, skip=i)
        for i in range(len(train.label))
        if counts[train.label[i]] >= 2
    }
    own_class = dict(enumerate(slow_classification(train)))
    scores = []
    for i, label in enumerate(test.label):
        parts = []
        for value, own in (
            (slow_classification(test)[i], own_class),
            (slow_knn(train, test.embedding[i], label, k), own_knn),
        ):
            mine = [v for j, v in own.items() if counts.get(label, 0) >= 2 and train.label[j] == label]
            # Two clips are each other's nearest neighbour: no spread, so the statistics of all stand in.
            reference = mine if len(mine) >= 2 and np.std(mine) > 1e-7 * max(mine) else list(own.values())
            parts.append((value - np.mean(reference)) / np.std(reference))
        scores.append(sum(parts) / 2)
    return scores


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=8))
def test_scores_equal_the_slow_reference(seed, k, test_labels):
    rng = np.random.default_rng(seed)
    train = embedded(rng, [0] * 4 + [1] * 6 + [2] * rng.integers(0, 3))
    test = embedded(rng, test_labels)
    np.testing.assert_allclose(scoring.score("classification", train, test), slow_classification(test), rtol=1e-5)
    knn = [slow_knn(train, e, label, k) for e, label in zip(test.embedding, test.label, strict=True)]
    np.testing.assert_allclose(scoring.score("knn", train, test, k), knn, atol=1e-5)
    np.testing.assert_allclose(scoring.score("mean", train, test, k), slow_mean(train, test, k), rtol=1e-3, atol=1e-3)


def test_chunks_do_not_change_scores(monkeypatch):
    rng = np.random.default_rng(0)
    train, test = embedded(rng, [0, 1, 2] * 20), embedded(rng, [-1, 0, 1, 2] * 10)
    whole = scoring.score("mean", train, test, 3)
    monkeypatch.setattr(scoring, "_CHUNK", 7)
    np.testing.assert_allclose(scoring.score("mean", train, test, 3), whole, rtol=1e-5, atol=1e-6)


def test_a_training_clip_itself_is_at_distance_zero_and_other_classes_do_not_count():
    rng = np.random.default_rng(1)
    train = embedded(rng, [0, 0, 1, 1])
    same = scoring.score("knn", train, train)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    swapped = Embedded(train.embedding, train.logits, 1 - train.label)
    assert (scoring.score("knn", train, swapped) > 1e-3).all()
    opposite = Embedded(-train.embedding[:1], train.logits[:1], train.label[:1])
    alone = Embedded(train.embedding[:1], train.logits[:1], train.label[:1])
    assert scoring.score("knn", alone, opposite) == pytest.approx([2.0])


def test_length_of_the_embedding_does_not_count():
    rng = np.random.default_rng(2)
    train, test = embedded(rng, [0, 1] * 5), embedded(rng, [0, 1] * 5)
    longer = Embedded(test.embedding * 1000, test.logits, test.label)
    np.testing.assert_allclose(scoring.score("knn", train, longer), scoring.score("knn", train, test), atol=1e-6)


def test_confident_logits_stay_finite():
    logits = np.array([[500.0, -500.0], [-500.0, 500.0]], dtype=np.float32)
    clips = Embedded(np.ones((2, 2), np.float32), logits, np.array([0, 0]))
    np.testing.assert_allclose(scoring.score("classification", clips, clips), [0, 1000])


def test_mean_without_any_spread_is_the_plain_mean():
    rng = np.random.default_rng(3)
    train = embedded(rng, [0])
    test = embedded(rng, [0, 0])
    plain = (scoring.score("classification", train, test) + scoring.score("knn", train, test)) / 2
    np.testing.assert_allclose(scoring.score("mean", train, test), plain)


def test_mean_separates_what_both_scores_separate():
    rng = np.random.default_rng(4)
    centre = np.eye(2, 4, dtype=np.float32)
    labels = np.arange(40) % 2

    def clips(noise, margin):
        embedding = centre[labels] + noise * rng.normal(size=(40, 4))
        logits = margin * np.eye(2)[labels] + rng.normal(size=(40, 2))
        return Embedded(embedding.astype(np.float32), logits.astype(np.float32), labels)

    train, normal, anomalous = clips(0.05, 8), clips(0.05, 8), clips(1.0, 0)
    assert scoring.score("mean", train, normal).mean() < 1 < 5 < scoring.score("mean", train, anomalous).mean()


def test_baselines():
    np.testing.assert_array_equal(scoring.level_score([-20.0, -np.inf, -3.5]), [-20, scoring.SILENCE_DB, -3.5])
    train, label = np.array([[0.0, 0], [10, 0], [0, 1]]), np.array([0, 0, 1])
    test, test_label = np.array([[3.0, 4], [3, 4], [0, 0]]), np.array([0, 1, -1])
    np.testing.assert_allclose(scoring.knn_log_mel(train, label, test, test_label), [5, math.sqrt(18), 0], atol=1e-6)
    both = (5 + math.hypot(7, 4)) / 2
    np.testing.assert_allclose(scoring.knn_log_mel(train, label, test, test_label, 2)[0], both, rtol=1e-6)
    np.testing.assert_allclose(scoring.knn_log_mel(train, label, test, test_label, 99)[0], both, rtol=1e-6)
    names, test_names = np.array(["fan_00", "fan_00", "fan_02"]), np.array(["fan_00", "fan_02", "pump_00"])
    by_name = scoring.knn_log_mel(train, names, test, test_names)
    np.testing.assert_array_equal(by_name, scoring.knn_log_mel(train, label, test, test_label))


def test_errors_say_what_is_wrong():
    rng = np.random.default_rng(5)
    good = embedded(rng, [0, 1])
    embedding = good.embedding.copy()
    embedding[1, 2] = np.nan
    with pytest.raises(AsdRayError, match=r"embedding of 1 of 2 clips hold NaN .*clip number 1.*diverged"):
        Embedded(embedding, good.logits, good.label)
    with pytest.raises(AsdRayError, match="-1 to 2, found 0 to 3"):
        embedded(rng, [0, 3])
    with pytest.raises(AsdRayError, match="2 labels need as many"):
        Embedded(good.embedding[:1], good.logits, good.label)
    with pytest.raises(AsdRayError, match="no training clips"):
        scoring.score("knn", embedded(rng, []), good)
    with pytest.raises(AsdRayError, match="class -1"):
        scoring.score("knn", embedded(rng, [0, -1]), good)
    with pytest.raises(AsdRayError, match="expected one of classification, knn, mean; found 'x'"):
        scoring.score("x", good, good)  # type: ignore[arg-type]
