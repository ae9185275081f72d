from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from asd_ray import metrics
from asd_ray.metrics.intervals import difference, estimate, machines_of, mean_of, resample
from tests.metrics.scored_clips import clip_frame

DOMAINS = [("none",), ("source", "target")]
MACHINES = ("fan", "pump", "valve")


def clips_of(seed: int, strength: float = 1.0, domains: tuple[str, ...] = ("none",)) -> pd.DataFrame:
    """One split's clips, with scores that are ``strength`` better than chance."""
    clips = clip_frame(np.random.default_rng(seed), machines=MACHINES, domains=domains, normal=9, anomaly=9)
    clips["score"] += (strength - 1) * (clips["label"] == "anomaly")
    return clips[clips["split"] == "holdout"].reset_index(drop=True)


def two_systems(rng: np.random.Generator, improvement: float, ids: tuple[str, ...]) -> list[pd.DataFrame]:
    """Two systems that mostly agree on the clips of one split."""
    clips = clip_frame(rng, machines=("fan",), ids=ids, normal=60, anomaly=60)
    clips = clips[clips["split"] == "select"].reset_index(drop=True)
    noise = rng.normal(scale=0.3, size=len(clips))
    return [clips.assign(score=clips["score"] + noise + improvement * (clips["label"] == "anomaly")), clips]


def drawn(clips: pd.DataFrame, resamples: int, metric: str = "auc") -> pd.DataFrame:
    """A metric's values in all draws (R,), in a column for each row of :func:`metrics.per_id` and for the average."""
    draws = resample(clips, resamples=resamples)
    rows = draws.pivot(index="resample", columns=["machine", "id", "domain"], values=metric)
    average = metrics.averages(draws, ("resample",)).set_index("resample")[metric]
    rows["all", "mean", ""] = average
    return rows


def test_draws_are_seeded_and_stratified() -> None:
    clips = clip_frame(np.random.default_rng(4), machines=("fan",), ids=("00",), normal=15, anomaly=10)
    draws = resample(clips, resamples=40, seed=1)
    assert set(draws["n_normal"]) == {15}
    assert draws["resample"].nunique() == 40
    pd.testing.assert_frame_equal(draws, resample(clips, resamples=40, seed=1))
    assert not draws["auc"].equals(resample(clips, resamples=40, seed=2)["auc"])
    with_domains = clip_frame(np.random.default_rng(5), domains=("source", "target"))
    assert sorted(set(resample(with_domains, resamples=3)["domain"])) == ["all", "source", "target"]
    assert resample(clips[clips["label"] == "normal"]).empty


def test_an_interval_has_the_right_width() -> None:
    clips = clip_frame(np.random.default_rng(4), machines=("fan",), ids=("00",), normal=150, anomaly=100)
    found = mean_of(estimate([clips[clips["split"] == "select"]], resamples=400).table)
    auc = found["auc"]
    assert found["auc_low"] < auc < found["auc_high"]
    # Hanley and McNeil (1982), equation 1: the standard error of an AUC.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = math.sqrt((auc * (1 - auc) + 99 * (q1 - auc**2) + 149 * (q2 - auc**2)) / (150 * 100))
    assert found["auc_high"] - found["auc_low"] == pytest.approx(2 * 1.96 * error, rel=0.2)


@pytest.mark.parametrize("domains", DOMAINS)
def test_one_seed_has_the_quantiles_of_the_draws(domains: tuple[str, ...]) -> None:
    clips = clips_of(0, domains=domains)
    found = estimate([clips], resamples=200).table
    for metric in ("auc", "pauc"):
        for row, values in drawn(clips, 200, metric).items():
            bounds = found.loc[row, [f"{metric}_low", f"{metric}_high"]].tolist()
            assert bounds == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=1e-12)
    average = metrics.averages(metrics.per_id(clips)).iloc[0]
    assert mean_of(found)["auc"] == pytest.approx(average["auc"])
    assert mean_of(found)["mauc"] == pytest.approx(average["mauc"])
    assert found["auc_sd"].isna().all()


def test_the_average_has_a_narrower_interval_than_any_id() -> None:
    found = estimate([clips_of(5)], resamples=200).table
    width = (found["auc_high"] - found["auc_low"]).drop(index="mean", level="id")
    mean = mean_of(found)
    assert mean["auc_low"] < mean["auc"] < mean["auc_high"]
    assert mean["auc_high"] - mean["auc_low"] < width.min()


def test_what_is_estimated_is_the_mean_over_seeds() -> None:
    one, other = clips_of(0), clips_of(1)
    first, second, both = (estimate(runs, resamples=50) for runs in ([one], [other], [one, other]))
    pd.testing.assert_frame_equal(both.draws["auc"], (first.draws["auc"] + second.draws["auc"]) / 2)
    fan = [mean_of(single.table, "fan")["auc"] for single in (first, second)]
    assert mean_of(both.table, "fan")["auc"] == pytest.approx(np.mean(fan))
    assert mean_of(both.table, "fan")["auc_sd"] == pytest.approx(np.std(fan, ddof=1))
    assert both.n_seeds == 2
    assert machines_of(both.table) == ["fan", "pump", "valve", "all"]


def test_pooled_is_one_curve_per_machine() -> None:
    clips = clips_of(3)
    found = estimate([clips], resamples=0).table
    expected = []
    for machine in ("fan", "pump", "valve"):
        own = clips[clips["machine"] == machine]
        expected.append(roc_auc_score(own["label"] == "anomaly", own["score"]))
        assert mean_of(found, machine)["pooled_auc"] == pytest.approx(expected[-1])
    assert mean_of(found)["pooled_auc"] == pytest.approx(np.mean(expected))
    assert found.xs(("fan", "00", "none"))[["pooled_auc", "mauc"]].isna().all()


@pytest.mark.parametrize("domains", DOMAINS)
def test_a_difference_is_paired(domains: tuple[str, ...]) -> None:
    first, second = clips_of(0, 1.5, domains), clips_of(1, 0.5, domains)
    one, other = estimate([first], resamples=200), estimate([second], resamples=200)
    found = difference(one, other)
    for metric in ("auc", "pauc"):
        of_draws = drawn(first, 200, metric) - drawn(second, 200, metric)
        whole = [metrics.averages(metrics.per_id(system))[metric].item() for system in (first, second)]
        assert mean_of(found)[metric] == pytest.approx(whole[0] - whole[1], abs=1e-12)
        for row, values in of_draws.items():
            bounds = found.loc[row, [f"{metric}_low", f"{metric}_high"]].tolist()
            assert bounds == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=1e-12)
    assert np.isnan(mean_of(found)["auc_wins"])
    assert (difference(one, one)[["auc", "auc_low", "auc_high"]] == 0).all(axis=None)


def test_a_paired_difference_is_surer_than_that_of_two_sets_of_clips() -> None:
    systems = two_systems(np.random.default_rng(7), 0.5, ("00", "02"))
    better, clips = (estimate([system], resamples=200) for system in systems)
    found = mean_of(difference(better, clips))
    assert 0 < found["auc_low"] < found["auc"] < found["auc_high"]
    widths = [mean_of(one.table)["auc_high"] - mean_of(one.table)["auc_low"] for one in (better, clips)]
    assert found["auc_high"] - found["auc_low"] < math.hypot(*widths) / 2


def test_a_system_does_not_differ_from_itself_on_another_scale() -> None:
    clips = clips_of(8, domains=("source", "target"))
    other = clips.assign(score=np.exp(clips["score"]))
    found = difference(*(estimate([system], resamples=20) for system in (clips, other)))
    np.testing.assert_allclose(found[["auc", "auc_low", "auc_high", "pauc", "pauc_low", "pauc_high"]], 0, atol=1e-12)


def test_noise_alone_is_no_difference() -> None:
    """The interval of two systems that are equally good covers 0 about as often as it should: here for 20 IDs."""
    rng = np.random.default_rng(9)
    first, clips = two_systems(rng, 0, ids=tuple(map(str, range(20))))
    second = clips.assign(score=clips["score"] + rng.normal(scale=0.3, size=len(clips)))
    found = difference(*(estimate([system], resamples=50) for system in (first, second))).drop("mean", level="id")
    covered = (found["auc_low"] <= 0) & (found["auc_high"] >= 0)
    assert len(covered) == 20
    assert 16 <= covered.sum() < 20


def test_seeds_are_paired_by_their_number() -> None:
    first, second = [clips_of(0, 2.0), clips_of(1, 2.0)], [clips_of(2, 0.0), clips_of(3, 0.0)]
    found = mean_of(difference(estimate(first, resamples=10), estimate(second, resamples=10)))
    each = [
        mean_of(estimate([a], resamples=0).table)["auc"] - mean_of(estimate([b], resamples=0).table)["auc"]
        for a, b in zip(first, second, strict=True)
    ]
    assert found["auc"] == pytest.approx(np.mean(each))
    assert found["auc_sd"] == pytest.approx(np.std(each, ddof=1))
    assert found["auc_wins"] == 2
    lonely = mean_of(difference(estimate(first, resamples=10), estimate(second[:1], resamples=10)))
    assert np.isnan(lonely["auc_sd"])


def test_an_id_without_anomalies_has_no_value_and_no_interval() -> None:
    clips = clips_of(0)
    clips = clips[~((clips["machine"] == "fan") & (clips["label"] == "anomaly"))].reset_index(drop=True)
    found = estimate([clips], resamples=20).table
    assert found.xs(("fan", "00", "none"))[["auc", "auc_low", "auc_high"]].isna().all()
    assert np.isfinite(mean_of(found)["auc_low"])
