"""Gaussian scores against the textbook formulas and the library's own estimators."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.covariance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.errors import AsdRayError
from asd_ray.scoring.gaussian import GroupMixtures, SharedGaussian, ledoit_wolf


def some_clips(seed, dim=4, counts=(30, 12, 2, 1)):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(counts)), counts)
    rng.shuffle(group)
    mixing = rng.normal(size=(dim, dim))
    embedding = 5 * rng.normal(size=(len(counts), dim))[group] + rng.normal(size=(len(group), dim)) @ mixing
    queries = (5 * rng.normal(size=(8, dim))).astype(np.float32)
    return embedding.astype(np.float32), group, queries, rng.integers(-1, len(counts), size=8)


def slow_mahalanobis(train, group, x, own, skip=None) -> float:
    """Distance to the own class's mean, or the closest, with the library's shrunk covariance of all clips."""
    train = train.astype(float)
    means = {c: train[group == c].mean(axis=0) for c in set(group.tolist())}
    centred = np.stack([train[i] - means[group[i]] for i in range(len(train))])
    covariance, _ = sklearn.covariance.ledoit_wolf(centred, assume_centered=True)
    covariance += 1e-6 * np.trace(centred.T @ centred / len(train)) / len(covariance) * np.eye(len(covariance))
    if skip is not None:
        own, rest = group[skip], (group == group[skip]) & (np.arange(len(group)) != skip)
        means.pop(own)
        if rest.any():
            means[own] = train[rest].mean(axis=0)

    def distance(mean):
        return math.sqrt((x - mean) @ np.linalg.inv(covariance) @ (x - mean))

    return distance(means[own]) if own in means else min(map(distance, means.values()))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 30))
def test_ledoit_wolf_equals_the_library(seed, n, dim):
    rng = np.random.default_rng(seed)
    centred = rng.normal(size=(n, dim)) * rng.uniform(0.1, 10, size=dim)
    expected, _ = sklearn.covariance.ledoit_wolf(centred, assume_centered=True)
    ridge = 1e-6 * np.trace(expected) / dim * np.eye(dim)  # shrinking keeps the trace
    np.testing.assert_allclose(ledoit_wolf(torch.from_numpy(centred)).numpy(), expected + ridge, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_mahalanobis_equals_the_slow_reference(seed):
    train, group, queries, own = some_clips(seed)
    shared = SharedGaussian.fit(train, group)
    expected = [slow_mahalanobis(train, group, x, y) for x, y in zip(queries, own, strict=True)]
    np.testing.assert_allclose(shared.mahalanobis(queries, own), expected, rtol=1e-6)
    left_out = [slow_mahalanobis(train, group, x, None, skip=i) for i, x in enumerate(train)]
    np.testing.assert_allclose(shared.mahalanobis_leave_one_out(train, group), left_out, rtol=1e-6)


def slow_closest(train, group, label, x, own, skip=-1) -> float:
    """Distance to the closest class mean of the own group, or of all if the group has none."""
    train, numbers = train.astype(float), np.arange(len(train))
    centred = np.stack([train[i] - train[label == label[i]].mean(axis=0) for i in numbers])
    covariance, _ = sklearn.covariance.ledoit_wolf(centred, assume_centered=True)
    covariance += 1e-6 * np.trace(centred.T @ centred / len(train)) / len(covariance) * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    found = []  # (of the own group, distance)
    for number in set(label.tolist()):
        members = (label == number) & (numbers != skip)
        if members.any():
            away = x - train[members].mean(axis=0)
            found.append((group[members][0] == own, math.sqrt(away @ inverse @ away)))
    return min([distance for of_own, distance in found if of_own] or [distance for _, distance in found])


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_mahalanobis_of_several_classes_is_to_the_closest_of_the_group(seed):
    train, label, queries, _ = some_clips(seed, counts=(9, 30, 12, 2, 1, 1))
    group = np.array([0, 1, 0, 1, 0, 2])[label]
    own = np.random.default_rng(seed).integers(-1, 3, size=len(queries))
    shared = SharedGaussian.fit(train, group, label)
    expected = [slow_closest(train, group, label, x, y) for x, y in zip(queries, own, strict=True)]
    np.testing.assert_allclose(shared.mahalanobis(queries, own), expected, rtol=1e-6)
    left_out = [slow_closest(train, group, label, x, group[i], skip=i) for i, x in enumerate(train)]
    found = shared.mahalanobis_leave_one_out(train, group, label)
    np.testing.assert_allclose(found, left_out, rtol=1e-6)


def test_a_gap_between_the_classes_of_a_group_is_anomalous() -> None:
    rng = np.random.default_rng(7)
    label = np.arange(200) % 2
    train = (np.array([[-10.0, 0], [10, 0]])[label] + rng.normal(size=(200, 2))).astype(np.float32)
    group, between, at_one = np.zeros(200, dtype=int), np.zeros((1, 2), np.float32), np.array([[10, 0]], np.float32)
    zero = np.zeros(1, dtype=int)
    fine, coarse = SharedGaussian.fit(train, group, label), SharedGaussian.fit(train, group)
    assert fine.mahalanobis(between, zero) > 9 > 1 > fine.mahalanobis(at_one, zero)
    assert coarse.mahalanobis(between, zero) < coarse.mahalanobis(at_one, zero)


def test_whitened_clips_have_the_unit_covariance_that_normal_clips_are_given() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(20_000) % 3
    embedding = (100 * group[:, None] + rng.normal(size=(20_000, 3)) @ np.diag([1.0, 2.0, 3.0])).astype(np.float32)
    shared = SharedGaussian.fit(embedding, group)
    whitened = shared.whiten(embedding).numpy()
    within = whitened - shared.means.numpy()[group]
    np.testing.assert_allclose(within.T @ within / len(within), np.eye(3), atol=0.01)
    # A chi-squared variable with 3 degrees of freedom has mean 3.
    assert (shared.mahalanobis(embedding, group) ** 2).mean() == pytest.approx(3, rel=0.02)


def test_one_component_is_the_textbook_density() -> None:
    train, group, queries, own = some_clips(1, counts=(30, 12))
    own = np.abs(own)
    mixtures = GroupMixtures(train, group, components=1, dims=128)
    shared = SharedGaussian.fit(train, group)
    z, x = shared.whiten(train).numpy(), shared.whiten(queries).numpy()
    expected = []
    for i, c in enumerate(own):
        mean, variance = z[group == c].mean(axis=0), z[group == c].var(axis=0) + 0.1
        log_density = sum(
            -((x[i, d] - mean[d]) ** 2) / (2 * variance[d]) - math.log(2 * math.pi * variance[d]) / 2 for d in range(4)
        )
        expected.append(-log_density)
    np.testing.assert_allclose(mixtures.score(queries, own), expected, rtol=1e-6)
    for i in (0, 5, 17):
        c, position = group[i], int((group[:i] == group[i]).sum())
        half = z[group == c][1 - position % 2 :: 2]
        mean, variance = half.mean(axis=0), half.var(axis=0) + 0.1
        log_density = sum(
            -((z[i, d] - mean[d]) ** 2) / (2 * variance[d]) - math.log(2 * math.pi * variance[d]) / 2 for d in range(4)
        )
        assert mixtures.score_left_out()[i] == pytest.approx(-log_density, rel=1e-6)


def test_two_components_find_two_modes_that_one_would_fill_in() -> None:
    rng = np.random.default_rng(2)
    modes = np.array([[-10.0, 0], [10, 0]])
    train = (modes[np.arange(200) % 2] + rng.normal(size=(200, 2))).astype(np.float32)
    group, between = np.zeros(200, dtype=int), np.zeros((1, 2), np.float32)
    at_mode = modes[:1].astype(np.float32)
    one, two = (GroupMixtures(train, group, components, dims=128) for components in (1, 2))
    zero = np.zeros(1, dtype=int)
    assert one.score(between, zero) < one.score(at_mode, zero)
    assert two.score(between, zero) > two.score(at_mode, zero) + 3
    assert len(two.mixtures[0].weights_) == 2


def test_left_out_clips_score_like_new_ones() -> None:
    rng = np.random.default_rng(3)
    group = np.zeros(60, dtype=int)
    train, new = (rng.normal(size=(60, 30)).astype(np.float32) for _ in range(2))
    mixtures = GroupMixtures(train, group, components=2, dims=128)
    fitted, left_out, fresh = (
        scores.mean()
        for scores in (mixtures.score(train, group), mixtures.score_left_out(), mixtures.score(new, group))
    )
    assert fitted < fresh - 3
    assert left_out > fresh - 1


def test_many_dimensions_are_reduced_first() -> None:
    rng = np.random.default_rng(4)
    low = rng.normal(size=(80, 3)) * [5, 4, 3]
    turn, _ = np.linalg.qr(rng.normal(size=(300, 300)))
    train = np.pad(low, ((0, 0), (0, 297))) @ turn + 0.01 * rng.normal(size=(80, 300))
    group = np.arange(80) % 2
    reduced = GroupMixtures(train.astype(np.float32), group, components=1, dims=3)
    assert reduced.train.shape == (80, 3)
    direct = GroupMixtures(low.astype(np.float32), group, components=1, dims=3)
    ranks = [np.argsort(np.argsort(m.score_left_out())) for m in (reduced, direct)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8  # the axes of a diagonal covariance turn, the order hardly


def test_classes_of_copies_have_no_covariance_but_plain_distances() -> None:
    rng = np.random.default_rng(6)
    group = np.repeat([0, 1, 2], 21)
    embedding = (10 + rng.normal(size=(3, 30))).astype(np.float32)[group]
    shared = SharedGaussian.fit(embedding, group)
    np.testing.assert_allclose(shared.mahalanobis(embedding, group), 0, atol=1e-9)
    np.testing.assert_allclose(shared.mahalanobis(embedding + np.float32(1), group), math.sqrt(30), rtol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 8, 300])
@pytest.mark.parametrize("kind", ["zeros", "constant", "duplicates", "single", "pair", "dead", "huge", "tiny", "alone"])
def test_degenerate_training_clips_give_finite_scores(dim, kind) -> None:
    rng = np.random.default_rng(5)
    embedding = {
        "zeros": np.zeros((9, dim)),
        "constant": np.full((9, dim), 3.0),
        "duplicates": np.repeat(rng.normal(size=(3, dim)), 8, axis=0),
        "single": rng.normal(size=(1, dim)),
        "pair": rng.normal(size=(2, dim)),
        "dead": rng.normal(size=(40, dim)) * (np.arange(dim) % 2),
        "huge": 1e11 * rng.normal(size=(9, dim)),
        "tiny": 1e-38 * rng.normal(size=(9, dim)),
        "alone": rng.normal(size=(4, dim)),
    }[kind].astype(np.float32)
    group = np.arange(len(embedding)) // (1 if kind == "alone" else 25)
    queries, own = (
        np.concatenate([embedding[:1], rng.normal(size=(3, dim))]).astype(np.float32),
        np.array([0, -1, 1, 0]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared = SharedGaussian.fit(embedding, group)
        mixtures = GroupMixtures(embedding, group, components=3, dims=16)
        for scores in (
            shared.mahalanobis(queries, own),
            shared.mahalanobis_leave_one_out(embedding, group),
            mixtures.score(queries, own),
            mixtures.score_left_out(),
        ):
            assert np.isfinite(scores).all()


def test_an_error_says_that_there_are_no_clips() -> None:
    with pytest.raises(AsdRayError, match="no training clips"):
        SharedGaussian.fit(np.zeros((0, 2), np.float32), np.zeros(0, dtype=int))
