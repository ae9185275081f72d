from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from asd_ray import metrics
from asd_ray.errors import AsdRayError

scored = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=60).filter(
    lambda clips: len({label for label, _ in clips}) == 2
)


def slow_auc(labels, scores) -> float:
    """The probability that an anomaly scores higher than a normal clip, ties counting half."""
    anomalies = [s for y, s in zip(labels, scores, strict=True) if y]
    normals = [s for y, s in zip(labels, scores, strict=True) if not y]
    return sum((a > n) + (a == n) / 2 for a in anomalies for n in normals) / (len(anomalies) * len(normals))


def slow_pauc(labels, scores, p) -> float:
    """McClish's standardised area under the ROC points, walked threshold by threshold."""
    y, s = np.asarray(labels, bool), np.asarray(scores, float)
    points = [(0.0, 0.0)]
    points += [((s[~y] >= t).mean(), (s[y] >= t).mean()) for t in sorted(set(s), reverse=True)]
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        end = min(x1, p)
        if end > x0:
            area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return 0.5 * (1 + (area - p * p / 2) / (p - p * p / 2))


def clip_frame(rng, machines=("fan", "valve"), ids=("00", "02"), domains=("none",), normal=8, anomaly=6):
    rows = [
        (split, machine, number, domain, label, rng.normal() + (label == "anomaly"))
        for split in metrics.SPLITS
        for machine in machines
        for number in ids
        for domain in domains
        for label, count in (("normal", normal), ("anomaly", anomaly))
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["split", "machine", "id", "domain", "label", "score"])


@settings(deadline=None)
@given(scored, st.sampled_from([0.05, 0.1, 0.37]))
def test_agrees_with_sklearn_and_the_definitions(clips, p):
    labels, scores = zip(*clips, strict=True)
    assert metrics.auc(labels, scores) == roc_auc_score(labels, scores)
    assert metrics.pauc(labels, scores, p) == roc_auc_score(labels, scores, max_fpr=p)
    assert metrics.auc(labels, scores) == pytest.approx(slow_auc(labels, scores), abs=1e-12)
    assert metrics.pauc(labels, scores, p) == pytest.approx(slow_pauc(labels, scores, p), abs=1e-12)


@settings(deadline=None)
@given(scored)
def test_only_the_order_of_scores_counts(clips):
    labels, scores = map(np.array, zip(*clips, strict=True))
    assert metrics.auc(labels, np.exp(scores)) == pytest.approx(metrics.auc(labels, scores), abs=1e-12)
    assert metrics.auc(labels, -scores) == pytest.approx(1 - metrics.auc(labels, scores), abs=1e-12)


def test_known_values():
    labels = [0] * 10 + [1] * 10
    assert metrics.auc(labels, range(20)) == metrics.pauc(labels, range(20)) == 1
    assert metrics.auc(labels, [7] * 20) == metrics.pauc(labels, [7] * 20) == 0.5
    assert metrics.auc([0, 0, 1, 1], [1, 3, 2, 4]) == 0.75
    # One of ten normals above all anomalies: the ROC is 0 up to FPR 0.1, so A = 0 and (1 - (p/2) / (1 - p/2)) / 2.
    assert metrics.pauc(labels, [*range(9), 99, *range(10, 20)]) == pytest.approx(0.5 * (1 - 0.05 / 0.95))


def test_a_missing_class_is_undefined():
    assert math.isnan(metrics.auc([0, 0], [1, 2]))
    assert math.isnan(metrics.pauc([1, 1], [1, 2]))
    assert math.isnan(metrics.auc([], []))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_numbers_are_refused(bad):
    with pytest.raises(AsdRayError, match=r"finite numbers, found .* at position 1"):
        metrics.auc([0, 1], [0.0, bad])
    clips = clip_frame(np.random.default_rng(0)).assign(path=lambda frame: "clip" + frame.index.astype(str))
    clips.loc[3, "score"] = bad
    with pytest.raises(AsdRayError, match=r"clip3: its score is .*, expected a finite number"):
        metrics.per_id(clips)
    with pytest.raises(AsdRayError, match="a clip of fan 00: its score"):
        metrics.per_id(clips.drop(columns="path"))


def test_labels_that_are_not_labels_are_refused():
    with pytest.raises(AsdRayError, match=r"0 \(normal\) or 1 \(anomaly\), found"):
        metrics.auc([0, 2], [1, 2])
    with pytest.raises(AsdRayError, match="One label per score"):
        metrics.auc([0, 1], [1, 2, 3])
    clips = clip_frame(np.random.default_rng(0))
    with pytest.raises(AsdRayError, match="its label is unknown, expected normal or anomaly"):
        metrics.per_id(clips.replace({"label": {"anomaly": "unknown"}}))
    with pytest.raises(AsdRayError, match="missing: score"):
        metrics.per_id(clips.drop(columns="score"))


def test_per_id_rows():
    clips = clip_frame(np.random.default_rng(1)).sample(frac=1, random_state=0)
    rows = metrics.per_id(clips)
    assert tuple(rows.columns) == metrics.ROW_COLUMNS
    assert [tuple(row) for row in rows[["split", "machine", "id", "domain"]].to_numpy()] == [
        (split, machine, number, "none")
        for split in ("select", "holdout")
        for machine in ("fan", "valve")
        for number in ("00", "02")
    ]
    assert set(rows["n_normal"]) == {8}
    assert set(rows["n_anomaly"]) == {6}
    one = clips[(clips["split"] == "holdout") & (clips["machine"] == "valve") & (clips["id"] == "00")]
    row = rows[(rows["split"] == "holdout") & (rows["machine"] == "valve") & (rows["id"] == "00")].iloc[0]
    assert row["auc"] == roc_auc_score(one["label"] == "anomaly", one["score"])
    assert row["pauc"] == roc_auc_score(one["label"] == "anomaly", one["score"], max_fpr=0.1)


def test_ids_without_clips_get_a_row_and_are_left_out_of_means():
    clips = clip_frame(np.random.default_rng(1))
    clips = clips[~((clips["split"] == "holdout") & (clips["id"] == "02") & (clips["machine"] == "fan"))]
    rows = metrics.per_id(clips, ids=[("fan", "00"), ("fan", "02"), ("valve", "00"), ("valve", "02"), ("pump", "00")])
    assert len(rows) == 2 * 5
    empty = rows[(rows["split"] == "holdout") & (rows["machine"] == "fan") & (rows["id"] == "02")].iloc[0]
    assert (empty["n_normal"], empty["n_anomaly"]) == (0, 0)
    assert math.isnan(empty["auc"])
    holdout = metrics.average_2020(rows)["holdout"]
    assert (holdout["n_ids"], holdout["n_defined"]) == (5, 3)
    value = rows[rows["split"] == "holdout"].set_index(["machine", "id"])["auc"]
    valve = (value["valve", "00"] + value["valve", "02"]) / 2
    assert holdout["auc"] == pytest.approx((value["fan", "00"] + valve) / 2)  # pump has no defined AUC at all


def test_average_2020_on_published_values():
    """STgram-MFN on the development test set: per-ID AUCs and the averages that its authors print."""
    published = {
        "ToyCar": [0.8307, 0.9516, 0.9952, 0.9999],
        "ToyConveyor": [0.8697, 0.6416, 0.7259],
        "fan": [0.9506, 0.9969, 0.8139, 1.0000],
        "pump": [0.8923, 0.8348, 0.9999, 0.9505],
        "slider": [1.0000, 0.9822, 0.9999, 0.9998],
        "valve": [1.0000, 0.9883, 1.0000, 0.9973],
    }
    rows = pd.DataFrame(
        [
            ("select", machine, str(n), "none", 1, 1, auc, 0.5)
            for machine in published
            for n, auc in enumerate(published[machine])
        ],
        columns=list(metrics.ROW_COLUMNS),
    )
    average = metrics.average_2020(rows)["select"]
    assert average["auc"] == pytest.approx(0.9236, abs=1e-4)
    assert average["mauc"] == pytest.approx(0.8486, abs=1e-4)
    assert average["auc_pauc"] == pytest.approx((average["auc"] + 0.5) / 2)
    machines = metrics.per_machine(rows).set_index("machine")
    assert machines.loc["ToyConveyor", "auc"] == pytest.approx(0.7457, abs=1e-4)
    assert machines.loc["ToyConveyor", "mauc"] == 0.6416


def slow_2022(clips, split):
    """The official 2022 numbers, written out section by section."""
    eps = np.finfo(float).eps
    aucs, paucs = {"source": [], "target": []}, []
    of_split = clips[clips["split"] == split]
    for machine in set(of_split["machine"]):
        for section in set(of_split["id"]):
            part = of_split[(of_split["machine"] == machine) & (of_split["id"] == section)]
            anomalies = part[part["label"] == "anomaly"]
            for domain in aucs:
                normals = part[(part["label"] == "normal") & (part["domain"] == domain)]
                labels = [0] * len(normals) + [1] * len(anomalies)
                aucs[domain].append(max(slow_auc(labels, [*normals["score"], *anomalies["score"]]), eps))
            paucs.append(max(slow_pauc(part["label"] == "anomaly", part["score"], 0.1), eps))

    def harmonic(values):
        return len(values) / sum(1 / value for value in values)

    return {
        "auc_source": harmonic(aucs["source"]),
        "auc_target": harmonic(aucs["target"]),
        "auc": harmonic(aucs["source"] + aucs["target"]),
        "pauc": harmonic(paucs),
        "auc_pauc": harmonic(aucs["source"] + aucs["target"] + paucs),
    }


def test_average_2022_against_a_slow_reference():
    clips = clip_frame(np.random.default_rng(2), domains=("source", "target"), ids=("00", "01", "02"))
    rows = metrics.per_id(clips)
    assert list(rows["domain"][:3]) == ["source", "target", "all"]
    assert list(rows["n_normal"][:3]) == [8, 8, 16]
    assert list(rows["n_anomaly"][:3]) == [12, 12, 12]
    averages = metrics.average_2022(rows)
    for split in metrics.SPLITS:
        for name, value in slow_2022(clips, split).items():
            assert averages[split][name] == pytest.approx(value, abs=1e-12), name
        assert averages[split]["n_ids"] == averages[split]["n_defined"] == 6
    assert metrics.average_2020(rows)["select"]["auc"] == pytest.approx(
        rows[(rows["split"] == "select") & (rows["domain"] == "all")]["auc"].mean()
    )


def test_an_auc_of_zero_floors_the_harmonic_mean():
    clips = clip_frame(np.random.default_rng(2), machines=("fan",), ids=("00",), domains=("source", "target"))
    clips["score"] = np.where(clips["label"] == "normal", 1.0, 0.0) + (clips["domain"] == "target") * 2
    official = metrics.average_2022(metrics.per_id(clips))["select"]
    assert 0 < official["auc_pauc"] < 1e-14
    rows = metrics.per_id(clip_frame(np.random.default_rng(0)))
    with pytest.raises(AsdRayError, match="needs rows per domain"):
        metrics.average_2022(rows)


def test_pooled_is_one_curve_per_machine():
    clips = clip_frame(np.random.default_rng(3))
    clips["score"] += clips["id"].map({"00": 0.0, "02": 50.0})  # offsets between IDs hurt only the pooled metric
    official, together = metrics.per_id(clips), metrics.pooled(clips)
    fan = clips[(clips["split"] == "select") & (clips["machine"] == "fan")]
    row = together[(together["split"] == "select") & (together["machine"] == "fan")].iloc[0]
    assert row["pooled_auc"] == roc_auc_score(fan["label"] == "anomaly", fan["score"])
    assert row["pooled_auc"] < official[(official["split"] == "select") & (official["machine"] == "fan")]["auc"].mean()
    assert (row["n_normal"], row["n_anomaly"]) == (16, 12)


@settings(deadline=None, max_examples=50)
@given(scored, st.integers(0, 2**32 - 1))
def test_vectorised_areas_equal_sklearn_on_repeated_clips(clips, seed):
    labels, scores = np.array([y for y, _ in clips]), np.array([float(s) for _, s in clips])
    weights = np.random.default_rng(seed).integers(1, 4, size=(len(scores), 3))
    area, partial = metrics._areas(labels, scores, weights.astype(float), 0.1)
    for column in range(3):
        y, s = np.repeat(labels, weights[:, column]), np.repeat(scores, weights[:, column])
        assert area[column] == pytest.approx(metrics.auc(y, s), abs=1e-12)
        assert partial[column] == pytest.approx(metrics.pauc(y, s, 0.1), abs=1e-12)


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
