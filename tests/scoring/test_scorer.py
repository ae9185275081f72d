"""All scores together: each is the one that its module computes, the ensemble is their standardised mean."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_ray import scoring
from asd_ray.config import EvaluationConfig
from asd_ray.errors import AsdRayError, ConfigError
from asd_ray.scoring import Embedded, Scorer
from asd_ray.scoring.gaussian import GroupMixtures, SharedGaussian
from asd_ray.scoring.neighbours import References
from asd_ray.scoring.scores.ensemble import standardise


def embedded(rng, groups, classes=4, dim=5, domains=False) -> Embedded:
    n = len(groups)
    return Embedded(
        rng.normal(size=(n, dim)).astype(np.float32),
        (3 * rng.normal(size=(n, classes))).astype(np.float32),
        np.asarray(groups, dtype=np.int64),
        rng.integers(1, 3, size=n) if domains else np.zeros(0, dtype=np.int64),
        rng.normal(size=n).astype(np.float32),
    )


def slow_classification(clips: Embedded) -> list[float]:
    scores = []
    for logits, group in zip(clips.group_logits.astype(float), clips.group, strict=True):
        p = [math.exp(value) / sum(math.exp(other) for other in logits) for value in logits]
        scores.append(-math.log(p[group] if group >= 0 else max(p)))
    return scores


def slow_standardised(value, group, train_scores, train_group) -> float:
    counts = {c: sum(c == other for other in train_group) for c in set(train_group)}
    own = [s for s, c in zip(train_scores, train_group, strict=True) if c == group]
    company = [s for s, c in zip(train_scores, train_group, strict=True) if counts[c] >= 2] or list(train_scores)
    for reference in (own, company):
        mean = sum(reference) / max(len(reference), 1)
        deviation = math.sqrt(sum((s - mean) ** 2 for s in reference) / max(len(reference), 1))
        if len(reference) >= 2 and deviation > 1.2e-7 * max(map(abs, train_scores)):
            return (value - mean) / deviation
    return value


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(-1, 3), min_size=1, max_size=8))
def test_scores_are_those_of_their_modules_and_the_slow_references(seed, groups):
    rng = np.random.default_rng(seed)
    train = embedded(rng, [0] * 12 + [1] * 25 + [2] * 2 + [3] * rng.integers(0, 2), domains=True)
    test = embedded(rng, groups)
    config = EvaluationConfig(
        neighbours=2, distance="euclidean", density_neighbours=3, gmm_dims=3, ensemble=("classification", "knn", "gmm")
    )
    scorer = Scorer(train, config)
    scores, own = scorer.score(test), scorer.score_train()
    assert tuple(scores) == tuple(own) == scoring.KINDS
    np.testing.assert_array_equal(scores["own"], test.own)
    np.testing.assert_array_equal(own["own"], train.own)
    np.testing.assert_allclose(scores["classification"], slow_classification(test), rtol=1e-9)
    np.testing.assert_allclose(own["classification"], slow_classification(train), rtol=1e-9)
    references = References(train.embedding, train.group, train.domain, "euclidean", 3)
    knn = references.knn(test.embedding, test.group, 2, per_domain=True)
    np.testing.assert_array_equal(scores["knn"], knn)
    np.testing.assert_array_equal(scores["local_density"], references.local_density(test.embedding, test.group))
    shared = SharedGaussian.fit(train.embedding, train.group)
    np.testing.assert_array_equal(scores["mahalanobis"], shared.mahalanobis(test.embedding, test.group))
    mixtures = GroupMixtures(train.embedding, train.group, 2, 3)
    np.testing.assert_array_equal(scores["gmm"], mixtures.score(test.embedding, test.group))
    expected = [
        sum(
            slow_standardised(scores[kind][i], group, own[kind], train.group)
            for kind in ("classification", "knn", "gmm")
        )
        / 3
        for i, group in enumerate(test.group)
    ]
    np.testing.assert_allclose(scores["ensemble"], expected, rtol=1e-9, atol=1e-9)


def test_finer_classes_change_mahalanobis_alone() -> None:
    """Logits are a group's already; all other scores see the group's clips, however fine the classes are."""
    rng = np.random.default_rng(11)
    group = np.array([0] * 20 + [1] * 25 + [2] * 3)
    train, test = embedded(rng, group, classes=3, domains=True), embedded(rng, [-1, 0, 1, 2] * 3, classes=3)
    label = np.array([0, 1] * 10 + [2, 3, 4, 5, 6] * 5 + [7] * 3)
    config = EvaluationConfig(ensemble=("classification", "knn", "gmm", "local_density"))
    for dims in (2, 128):
        coarse, fine, same = (
            Scorer(replace(train, label=classes), config.model_copy(update={"gmm_dims": dims}))
            for classes in (group, label, np.array([5, 3, 1])[group])
        )
        for found, finer, renamed in (
            (coarse.score(test), fine.score(test), same.score(replace(test, label=test.group + 7))),
            (coarse.score_train(), fine.score_train(), same.score_train()),
        ):
            differing = {kind for kind in scoring.KINDS if not np.array_equal(found[kind], finer[kind])}
            assert differing == {"mahalanobis"}
            for kind in scoring.KINDS:
                np.testing.assert_allclose(found[kind], renamed[kind], rtol=1e-9)
    gaussian = SharedGaussian.fit(train.embedding, group, label)
    np.testing.assert_array_equal(fine.score(test)["mahalanobis"], gaussian.mahalanobis(test.embedding, test.group))
    left_out = gaussian.mahalanobis_leave_one_out(train.embedding, group, label)
    np.testing.assert_array_equal(fine.score_train()["mahalanobis"], left_out)


def test_settings_reach_their_scores() -> None:
    rng = np.random.default_rng(0)
    train, test = embedded(rng, [0, 1] * 30, domains=True), embedded(rng, [0, 1, 1])
    before = scoring.score_all(train, test, EvaluationConfig())
    for changes, kinds in (
        ({"neighbours": 3}, {"knn", "ensemble"}),
        ({"distance": "euclidean"}, {"knn", "local_density", "ensemble"}),
        ({"density_neighbours": 2}, {"local_density"}),
        ({"gmm_components": 1}, {"gmm"}),
        ({"gmm_dims": 2}, {"gmm"}),
        ({"ensemble": ["gmm"]}, {"ensemble"}),
    ):
        after = scoring.score_all(train, test, EvaluationConfig.model_validate(changes))
        assert {kind for kind in scoring.KINDS if not np.array_equal(before[kind], after[kind])} == kinds, changes
    three = EvaluationConfig(neighbours=3)
    together = scoring.score_all(train, test, three.model_copy(update={"per_domain": False}), ["knn"])["knn"]
    assert (together != scoring.score_all(train, test, three, ["knn"])["knn"]).any()


def test_only_what_is_asked_for_is_computed(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    train, test = embedded(rng, [0, 1] * 5), embedded(rng, [0, 1])
    monkeypatch.setattr(SharedGaussian, "fit", None)
    config = EvaluationConfig(score="ensemble", scores=("ensemble", "classification"))
    assert tuple(scoring.score_all(train, test, config)) == ("ensemble", "classification")
    assert tuple(scoring.Scorer(train, config).score_train(["knn"])) == ("knn",)
    with pytest.raises(TypeError):
        scoring.score_all(train, test, config, ["gmm"])


def test_what_is_shared_is_fitted_once(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    train, test = embedded(rng, [0, 1] * 5), embedded(rng, [0, 1])
    fits = []
    fit = SharedGaussian.fit
    monkeypatch.setattr(SharedGaussian, "fit", lambda *clips: fits.append(1) or fit(*clips))
    scorer = Scorer(train, EvaluationConfig())
    for _ in range(2):
        scorer.score(test)
        scorer.score_train()
    assert len(fits) == 1


def test_confident_logits_stay_finite() -> None:
    logits = np.array([[500.0, -500.0], [-500.0, 500.0]], dtype=np.float32)
    clips = Embedded(np.ones((2, 2), np.float32), logits, np.array([0, 0]))
    scores = Scorer(clips, EvaluationConfig()).score(clips, ["classification"])["classification"]
    np.testing.assert_allclose(scores, [0, 1000])


def test_without_any_spread_scores_stay_as_they_are() -> None:
    group = np.zeros(3, dtype=np.int64)
    np.testing.assert_array_equal(standardise(np.array([1.0, 4]), group[:2], np.full(3, 2.0), group), [1, 4])
    np.testing.assert_array_equal(standardise(np.array([1.0, 4]), group[:2], np.array([7.0]), group[:1]), [1, 4])


def test_copies_of_one_clip_do_not_blow_up_the_ensemble() -> None:
    """What is left of their distances is rounding; to standardise by it would drown the other scores."""
    rng = np.random.default_rng(5)
    train, test = embedded(rng, [0] * 20 + [1] * 20, dim=100), embedded(rng, [0] * 9, dim=100)
    train.embedding[:20] = train.embedding[0]
    for ensemble in (("knn",), ("mahalanobis",), ("local_density",), ("gmm",)):
        scorer = Scorer(train, EvaluationConfig(ensemble=ensemble))
        assert np.abs(scorer.score(test, ["ensemble"])["ensemble"]).max() < 1e4, ensemble


def test_the_ensemble_separates_what_its_members_separate() -> None:
    rng = np.random.default_rng(4)
    centre = np.eye(2, 4, dtype=np.float32)
    groups = np.arange(40) % 2

    def clips(noise, margin):
        embedding = centre[groups] + noise * rng.normal(size=(40, 4))
        logits = margin * np.eye(2)[groups] + rng.normal(size=(40, 2))
        return Embedded(embedding.astype(np.float32), logits.astype(np.float32), groups)

    train, normal, anomalous = clips(0.05, 8), clips(0.05, 8), clips(1.0, 0)
    scorer = Scorer(train, EvaluationConfig())
    others = scorer.score(anomalous)
    for kind, one in scorer.score(normal).items():
        assert np.mean(one[:, None] < others[kind]) > 0.9, kind
    assert scorer.score(normal)["ensemble"].mean() < 1 < 5 < scorer.score(anomalous)["ensemble"].mean()


@pytest.mark.parametrize(("dim", "distance"), [(8, "cosine"), (8, "euclidean"), (2048, "cosine")])
def test_every_score_of_every_kind_of_clip_is_a_number(dim, distance) -> None:
    rng = np.random.default_rng(5)
    train = embedded(rng, [0, 1, 1, *[2] * 30], dim=dim, domains=True)
    train.embedding[5:15] = train.embedding[4]  # copies
    test = embedded(rng, [-1, 0, 1, 2, 3], dim=dim)
    constant = Embedded(np.ones_like(train.embedding), np.zeros_like(train.group_logits), train.group)
    one = Embedded(train.embedding[:1], train.group_logits[:1], train.group[:1])
    for known in (train, constant, one):
        scorer = Scorer(known, EvaluationConfig(distance=distance, neighbours=2))
        for clips in (test, known):
            for kind, scores in scorer.score(clips).items():
                assert scores.shape == clips.group.shape
                assert scores.dtype == np.float64
                assert np.isfinite(scores).all(), kind
        for kind, scores in scorer.score_train().items():
            assert np.isfinite(scores).all(), kind


def test_scores_do_not_depend_on_the_order_or_the_company_of_test_clips() -> None:
    rng = np.random.default_rng(6)
    train, test = embedded(rng, [0, 1, 2] * 20), embedded(rng, [-1, 0, 1, 2, 3] * 4)
    scorer = Scorer(train, EvaluationConfig())
    together = scorer.score(test)
    for i in (0, 7, 19):
        alone = Embedded(
            test.embedding[i : i + 1], test.group_logits[i : i + 1], test.group[i : i + 1], own=test.own[i : i + 1]
        )
        for kind, scores in scorer.score(alone).items():
            assert scores[0] == pytest.approx(together[kind][i], rel=1e-9), kind


def test_no_test_clips_have_no_scores() -> None:
    rng = np.random.default_rng(7)
    scores = scoring.score_all(embedded(rng, [0, 1] * 5), embedded(rng, []), EvaluationConfig())
    assert {kind: len(values) for kind, values in scores.items()} == dict.fromkeys(scoring.KINDS, 0)


def test_errors_say_what_is_wrong() -> None:
    rng = np.random.default_rng(8)
    good = embedded(rng, [0, 1])
    with pytest.raises(AsdRayError, match="no training clips"):
        Scorer(embedded(rng, []), EvaluationConfig())
    with pytest.raises(AsdRayError, match="group -1"):
        Scorer(embedded(rng, [0, -1]), EvaluationConfig())
    with pytest.raises(ConfigError, match=r"no score 'mean'; choose one of classification, .*, own"):
        scoring.score_all(good, good, EvaluationConfig(), ["mean"])  # type: ignore[list-item]


def test_a_method_without_own_scores_has_the_others() -> None:
    rng = np.random.default_rng(9)
    train, test = (replace(embedded(rng, [0, 1] * 5), own=np.zeros(0, np.float32)) for _ in range(2))
    assert tuple(scoring.score_all(train, test, EvaluationConfig())) == scoring.KINDS[1:]
    with pytest.raises(ConfigError, match="the method has no score 'own'"):
        scoring.score_all(train, test, EvaluationConfig(), ["own"])
