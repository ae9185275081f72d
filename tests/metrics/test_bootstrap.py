from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from asd_ray import metrics
from asd_ray.errors import AsdRayError
from tests.metrics.scored_clips import clip_frame


def test_bootstrap_is_seeded_stratified_and_of_the_right_width():
    rng = np.random.default_rng(4)
    clips = clip_frame(rng, machines=("fan",), ids=("00",), normal=150, anomaly=100)
    draws = metrics.resample(clips, resamples=400, seed=1)
    assert set(draws["n_normal"]) == {150}
    assert draws["resample"].nunique() == 400
    pd.testing.assert_frame_equal(draws, metrics.resample(clips, resamples=400, seed=1))
    assert not draws["auc"].equals(metrics.resample(clips, resamples=400, seed=2)["auc"])
    rows, intervals = metrics.per_id(clips), metrics.bootstrap(clips, resamples=400, seed=1)
    one, auc = intervals[intervals["machine"] == "fan"].iloc[0], rows["auc"][0]
    assert one["auc_low"] < auc < one["auc_high"]
    # Hanley and McNeil (1982), equation 1: the standard error of an AUC.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = math.sqrt((auc * (1 - auc) + 99 * (q1 - auc**2) + 149 * (q2 - auc**2)) / (150 * 100))
    assert one["auc_high"] - one["auc_low"] == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_bootstrap_of_the_average_is_narrower_and_follows_the_rule():
    clips = clip_frame(np.random.default_rng(5), ids=("00", "01", "02", "03"), normal=30, anomaly=30)
    intervals = metrics.bootstrap(clips, resamples=200).set_index(["split", "machine", "id"])
    mean = intervals.loc[("select", "mean", "mean")]
    assert mean["auc_low"] < metrics.average_2020(metrics.per_id(clips))["select"]["auc"] < mean["auc_high"]
    single = intervals.drop(index="mean", level="machine")
    assert mean["auc_high"] - mean["auc_low"] < (single["auc_high"] - single["auc_low"]).min()
    with_domains = clip_frame(np.random.default_rng(5), domains=("source", "target"))
    draws = metrics.resample(with_domains, resamples=3)
    assert sorted(set(draws["domain"])) == ["all", "source", "target"]
    assert len(metrics.bootstrap(with_domains, resamples=3)) == 2 * (4 * 3 + 1)


def test_bootstrap_pairs_systems_and_skips_undefined_ids():
    clips = clip_frame(np.random.default_rng(6), machines=("fan",), ids=("00",))
    monotone = clips.assign(score=np.exp(clips["score"]))
    np.testing.assert_allclose(
        metrics.resample(clips, resamples=50)["auc"], metrics.resample(monotone, resamples=50)["auc"]
    )
    only_normal = clips[clips["label"] == "normal"]
    assert metrics.resample(only_normal).empty
    assert metrics.bootstrap(only_normal).empty


def two_systems(rng, improvement, **changes):
    clips = clip_frame(rng, normal=60, anomaly=60, **changes)
    clips = clips.assign(path=[f"clip-{n}" for n in range(len(clips))])
    noise = rng.normal(scale=0.3, size=len(clips))
    return clips.assign(score=clips["score"] + noise + improvement * (clips["label"] == "anomaly")), clips


def test_paired_difference_is_that_of_the_two_systems_on_the_same_draws() -> None:
    better, clips = two_systems(np.random.default_rng(7), 0.5)
    difference = metrics.paired_difference(better, clips, resamples=200, seed=3)
    assert list(difference["machine"]) == ["fan", "fan", "valve", "valve"] * 2 + ["mean"] * 2
    rows, others = metrics.per_id(better), metrics.per_id(clips)
    np.testing.assert_allclose(difference["auc_difference"][:8], rows["auc"] - others["auc"])
    np.testing.assert_allclose(difference["pauc_difference"][:8], rows["pauc"] - others["pauc"])
    draws, drawn = (metrics.resample(system, resamples=200, seed=3) for system in (better, clips))
    first = (draws["auc"] - drawn["auc"])[:200]
    assert difference["auc_low"][0] == pytest.approx(np.quantile(first, 0.025))
    assert difference["auc_high"][0] == pytest.approx(np.quantile(first, 0.975))
    mean = difference.set_index(["split", "machine"]).loc[("select", "mean")]
    whole = [metrics.average_2020(metrics.per_id(system))["select"]["auc"] for system in (better, clips)]
    assert mean["auc_difference"] == pytest.approx(whole[0] - whole[1])
    assert 0 < mean["auc_low"] < mean["auc_difference"] < mean["auc_high"]
    alone = metrics.bootstrap(clips, resamples=200, seed=3).set_index(["split", "machine"]).loc[("select", "mean")]
    assert mean["auc_high"] - mean["auc_low"] < (alone["auc_high"] - alone["auc_low"]) / 2


def test_a_system_does_not_differ_from_itself_whatever_the_order_and_scale() -> None:
    _, clips = two_systems(np.random.default_rng(8), 0, domains=("source", "target"))
    shuffled = clips.sample(frac=1, random_state=0).assign(score=lambda frame: np.exp(frame["score"]))
    numbers = metrics.paired_difference(clips, shuffled, resamples=20).select_dtypes("number")
    np.testing.assert_allclose(numbers, 0, atol=1e-12)


def test_noise_alone_is_no_difference() -> None:
    """The interval of two systems that are equally good covers 0 about as often as it should."""
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(20):
        first, clips = two_systems(rng, 0, machines=("fan",), ids=("00",))
        second = clips.assign(score=clips["score"] + rng.normal(scale=0.3, size=len(clips)))
        row = metrics.paired_difference(first, second, resamples=50).iloc[0]
        covered += row["auc_low"] <= 0 <= row["auc_high"]
    assert covered >= 16


def test_systems_on_different_clips_are_not_compared() -> None:
    better, clips = two_systems(np.random.default_rng(10), 0.5)
    for other in (clips[1:], clips.assign(path=clips["path"] + "x"), clips.assign(id=clips["id"] + "0")):
        with pytest.raises(AsdRayError, match="same clips only"):
            metrics.paired_difference(better, other, resamples=2)
    twice = clips.assign(path="clip-0")
    with pytest.raises(AsdRayError, match="clip-0: this clip is scored twice"):
        metrics.paired_difference(twice, clips, resamples=2)
    with pytest.raises(AsdRayError, match="same clips only"):
        metrics.paired_difference(better.drop(columns="path"), clips[::-1].drop(columns="path"), resamples=2)
    normal = clips[clips["label"] == "normal"]
    with pytest.raises(AsdRayError, match="no AUC to compare"):
        metrics.paired_difference(normal, normal, resamples=2)
