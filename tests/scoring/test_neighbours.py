"""Distances to training clips against loops over pairs of clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray.errors import AsdRayError
from asd_ray.scoring import neighbours
from asd_ray.scoring.neighbours import References

DISTANCES = ("cosine", "euclidean")


def slow_distance(kind, x, y) -> float:
    x, y = x.astype(float), y.astype(float)
    return 1 - (x @ y) / math.sqrt((x @ x) * (y @ y)) if kind == "cosine" else math.sqrt(((x - y) ** 2).sum())


def compared_with(train: References, group, skip) -> list[int]:
    """Positions of the training clips that a clip is compared with."""
    own = [i for i in range(len(train.group)) if train.group[i] == group and i != skip]
    return own or [i for i in range(len(train.group)) if i != skip]


def slow_knn(train: References, x, group, k, per_domain, skip=None) -> float:
    domains: dict[int, list[float]] = {}
    for i in compared_with(train, group, skip):
        domain = train.domain[i] if per_domain else 0
        domains.setdefault(domain, []).append(slow_distance(train.distance, x, train.embedding[i]))
    return min((sum(sorted(d)[:k]) / len(sorted(d)[:k]) for d in domains.values()), default=0.0)


def slow_radius(train: References, y, left_out=()) -> float:
    """Mean distance of training clip y to its nearest K of its class; NaN without any."""
    own = [i for i in range(len(train.group)) if train.group[i] == train.group[y] and i != y and i not in left_out]
    distances = sorted(slow_distance(train.distance, train.embedding[y], train.embedding[i]) for i in own)
    nearest = distances[: train.density_neighbours]
    return sum(nearest) / len(nearest) if nearest else math.nan


def slow_local_density(train: References, x, group, skip=None) -> float:
    n = range(len(train.group))
    whole = {y: slow_radius(train, y) for y in n}
    overall = np.nanmean(list(whole.values()))
    others = compared_with(train, group, skip)
    ratios = []
    for y in others:
        left_out = [skip] if skip is not None and train.group[skip] == train.group[y] else []
        radius = slow_radius(train, y, left_out)
        class_mean = np.mean([whole[i] for i in n if train.group[i] == train.group[y]])
        radius = max(overall if math.isnan(radius) else radius, 0.01 * class_mean)
        ratios.append(slow_distance(train.distance, x, train.embedding[y]) / radius)
    return min(ratios)


def some_clips(seed, distance, density_neighbours=3, dim=5):
    rng = np.random.default_rng(seed)
    group = np.array([0] * 4 + [1] * 7 + [2] * 2 + [3])
    rng.shuffle(group)
    embedding = rng.normal(size=(len(group), dim)).astype(np.float32)
    domain = rng.integers(1, 3, size=len(group))
    queries = rng.normal(size=(9, dim)).astype(np.float32)
    return (
        References(embedding, group, domain, distance, density_neighbours),
        queries,
        rng.integers(-1, 4, size=len(queries)),
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from(DISTANCES), st.booleans())
def test_knn_equals_the_slow_reference(seed, k, distance, per_domain):
    train, queries, group = some_clips(seed, distance)
    expected = [slow_knn(train, x, y, k, per_domain) for x, y in zip(queries, group, strict=True)]
    np.testing.assert_allclose(train.knn(queries, group, k, per_domain=per_domain), expected, rtol=1e-9)
    left_out = [
        slow_knn(train, train.embedding[i], train.group[i], k, per_domain, skip=i) for i in range(len(train.group))
    ]
    found = train.knn(train.embedding, train.group, k, per_domain=per_domain, leave_one_out=True)
    np.testing.assert_allclose(found, left_out, rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from(DISTANCES))
def test_local_density_equals_the_slow_reference(seed, k, distance):
    train, queries, group = some_clips(seed, distance, k)
    expected = [slow_local_density(train, x, y) for x, y in zip(queries, group, strict=True)]
    np.testing.assert_allclose(train.local_density(queries, group), expected, rtol=1e-9)
    left_out = [slow_local_density(train, train.embedding[i], train.group[i], skip=i) for i in range(len(train.group))]
    found = train.local_density(train.embedding, train.group, leave_one_out=True)
    np.testing.assert_allclose(found, left_out, rtol=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_chunks_do_not_change_scores(distance, monkeypatch) -> None:
    train, queries, group = some_clips(1, distance)

    def scores():
        fresh = References(train.embedding, train.group, train.domain, distance, 3)
        return [
            fresh.knn(queries, group, 2, per_domain=True),
            fresh.knn(train.embedding, train.group, 2, leave_one_out=True),
            fresh.local_density(queries, group),
            fresh.local_density(train.embedding, train.group, leave_one_out=True),
        ]

    whole = scores()
    monkeypatch.setattr(neighbours, "_CHUNK", 2)
    for one, other in zip(whole, scores(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_small_distances_are_exact() -> None:
    """1 - x·y in fp32 would be a multiple of 6e-8; here distances are about 1e-9."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=64)
    train = np.stack([base, base + 1e-3 * rng.normal(size=64)]).astype(np.float32)
    query = (base + 3e-5 * rng.normal(size=64)).astype(np.float32)
    references = References(train, np.zeros(2, int), np.zeros(2), "cosine")
    exact = slow_distance("cosine", query, train[0])
    assert 1e-11 < exact < 1e-8
    assert references.knn(query[None], np.zeros(1, int), 1)[0] == pytest.approx(exact, rel=1e-5)


def test_far_from_the_origin_distances_do_not_cancel() -> None:
    rng = np.random.default_rng(0)
    train = (1000 + 0.01 * rng.normal(size=(50, 8))).astype(np.float32)
    references = References(train, np.zeros(50, int), np.zeros(50), "euclidean")
    query = train[:5] + np.float32(0.001)
    expected = [min(slow_distance("euclidean", x, y) for y in train) for x in query]
    np.testing.assert_allclose(references.knn(query, np.zeros(5, int), 1), expected, rtol=1e-6)


def test_a_clip_of_the_training_set_is_at_distance_zero_and_opposite_clips_at_two() -> None:
    train, _, _ = some_clips(2, "cosine")
    np.testing.assert_array_equal(train.knn(train.embedding, train.group, 1), 0)
    np.testing.assert_array_equal(train.local_density(train.embedding, train.group), 0)
    np.testing.assert_allclose(train.knn(1000 * train.embedding, train.group, 1), 0, atol=1e-12)
    alone = References(train.embedding[:1], train.group[:1], train.domain[:1], "cosine")
    assert alone.knn(-train.embedding[:1], train.group[:1], 1) == pytest.approx([2.0])


def test_few_target_clips_count_like_many_source_clips() -> None:
    """With k = 2 a normal target clip is far from source clips and has one close target clip and one further off."""
    source = np.array([[0.0], [0.1], [0.2], [9.0]], np.float32)
    target = np.array([[10.0], [12.0]], np.float32)
    train = References(np.concatenate([source, target]), np.zeros(6), np.array([1, 1, 1, 1, 2, 2]), "euclidean")
    query = np.array([[10.4]], np.float32)
    assert train.knn(query, np.zeros(1), 2)[0] == pytest.approx((0.4 + 1.4) / 2, rel=1e-5)
    assert train.knn(query, np.zeros(1), 2, per_domain=True)[0] == pytest.approx((0.4 + 1.6) / 2, rel=1e-5)


def test_local_density_puts_spreads_on_one_scale() -> None:
    """A shift by one spread is as anomalous among widely spread clips as among dense ones."""
    rng = np.random.default_rng(3)
    dense, wide = rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    train = np.concatenate([dense, 100 * wide + 1e4]).astype(np.float32)
    references = References(train, np.zeros(400), np.zeros(400), "euclidean")
    normal_dense = rng.normal(size=(300, 4)).astype(np.float32)
    normal_wide = (100 * rng.normal(size=(300, 4)) + 1e4).astype(np.float32)
    plain, relative = (
        [np.median(score(x, np.zeros(300))) for x in (normal_dense, normal_wide)]
        for score in (lambda x, y: references.knn(x, y, 1), references.local_density)
    )
    assert plain[1] / plain[0] > 50
    assert relative[1] / relative[0] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", ["zeros", "constant", "duplicates", "single", "pair", "huge", "tiny"])
def test_degenerate_training_clips_give_finite_scores(distance, kind) -> None:
    rng = np.random.default_rng(4)
    embedding = {
        "zeros": np.zeros((6, 3)),
        "constant": np.ones((6, 3)),
        "duplicates": np.repeat(rng.normal(size=(3, 3)), 2, axis=0),
        "single": rng.normal(size=(1, 3)),
        "pair": rng.normal(size=(2, 3)),
        "huge": 1e11 * rng.normal(size=(6, 3)),
        "tiny": 1e-38 * rng.normal(size=(6, 3)),
    }[kind].astype(np.float32)
    train = References(embedding, np.arange(len(embedding)) // 4, np.zeros(len(embedding)), distance)
    queries, group = np.concatenate([embedding[:1], rng.normal(size=(3, 3))]).astype(np.float32), np.array([0, 0, 1, 7])
    with np.errstate(all="raise", under="ignore"):
        for x, y, left_out in ((queries, group, False), (embedding, train.group, True)):
            for scores in (
                train.knn(x, y, 2, leave_one_out=left_out),
                train.local_density(x, y, leave_one_out=left_out),
            ):
                assert np.isfinite(scores).all()
                assert (scores >= 0).all()
    if kind == "single":
        assert train.knn(embedding, train.group, 2, leave_one_out=True).tolist() == [0]


def test_without_training_clips_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(AsdRayError, match="no training clips"):
        References(np.zeros((0, 2), np.float32), np.zeros(0), np.zeros(0), "cosine")
