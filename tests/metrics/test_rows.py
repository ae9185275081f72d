from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from asd_ray import metrics
from asd_ray.errors import AsdRayError
from tests.metrics.scored_clips import clip_frame


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
    anomalous = one["label"] == "anomaly"
    assert row["auc"] == pytest.approx(roc_auc_score(anomalous, one["score"]), abs=1e-12)
    assert row["pauc"] == pytest.approx(roc_auc_score(anomalous, one["score"], max_fpr=0.1), abs=1e-12)


def test_ids_without_clips_get_a_row_and_are_left_out_of_means():
    clips = clip_frame(np.random.default_rng(1))
    clips = clips[~((clips["split"] == "holdout") & (clips["id"] == "02") & (clips["machine"] == "fan"))]
    rows = metrics.per_id(clips, ids=[("fan", "00"), ("fan", "02"), ("valve", "00"), ("valve", "02"), ("pump", "00")])
    assert len(rows) == 2 * 5
    empty = rows[(rows["split"] == "holdout") & (rows["machine"] == "fan") & (rows["id"] == "02")].iloc[0]
    assert (empty["n_normal"], empty["n_anomaly"]) == (0, 0)
    assert math.isnan(empty["auc"])
    holdout = metrics.averages(rows).set_index("split").loc["holdout"]
    assert (holdout["n_ids"], holdout["n_defined"]) == (5, 3)
    value = rows[rows["split"] == "holdout"].set_index(["machine", "id"])["auc"]
    valve = (value["valve", "00"] + value["valve", "02"]) / 2
    assert holdout["auc"] == pytest.approx((value["fan", "00"] + valve) / 2)  # pump has no defined AUC at all


def test_pooled_rows_are_one_curve_per_machine():
    clips = clip_frame(np.random.default_rng(3))
    clips["score"] += clips["id"].map({"00": 0.0, "02": 50.0})  # offsets between IDs hurt only the pooled metric
    official, together = metrics.per_id(clips), metrics.pooled(clips)
    fan = clips[(clips["split"] == "select") & (clips["machine"] == "fan")]
    row = together[(together["split"] == "select") & (together["machine"] == "fan")].iloc[0]
    assert row["pooled_auc"] == pytest.approx(roc_auc_score(fan["label"] == "anomaly", fan["score"]), abs=1e-12)
    assert row["pooled_auc"] < official[(official["split"] == "select") & (official["machine"] == "fan")]["auc"].mean()
    assert (row["n_normal"], row["n_anomaly"]) == (16, 12)


def test_rows_do_not_depend_on_the_tables_index_or_column_types() -> None:
    clips = clip_frame(np.random.default_rng(1), domains=("source", "target"))
    other = clips.set_index(np.full(len(clips), 7)).astype({"machine": "category", "label": "category"})
    assert metrics.per_id(other).equals(metrics.per_id(clips))


def with_decisions(rng, **changes):
    clips = clip_frame(rng, domains=("source", "target"), **changes)
    return clips.assign(decision=(clips["score"] > 0.7).astype(int))


def test_precision_recall_and_f1_are_those_of_the_domain_alone() -> None:
    clips = with_decisions(np.random.default_rng(2))
    rows = metrics.decisions_per_id(clips)
    assert tuple(rows.columns) == metrics.DECISION_COLUMNS
    assert len(rows) == 2 * 4 * 3
    for row in rows.itertuples():
        part = clips[(clips["split"] == row.split) & (clips["machine"] == row.machine) & (clips["id"] == row.id)]
        part = part if row.domain == "all" else part[part["domain"] == row.domain]
        truth = part["label"] == "anomaly"
        expected = precision_recall_fscore_support(truth, part["decision"], average="binary", zero_division=0)
        assert (row.precision, row.recall, row.f1) == pytest.approx(expected[:3], abs=1e-12)
        assert (row.n_normal, row.n_anomaly) == ((~truth).sum(), truth.sum())
    fan = rows[(rows["machine"] == "fan") & (rows["domain"] != "all")]
    assert fan.groupby(["split", "id"])["recall"].nunique().max() == 2  # not the anomalies of both domains


def test_decisions_without_hits_or_without_anomalies() -> None:
    clips = clip_frame(np.random.default_rng(3)).assign(decision=0)
    assert (metrics.decisions_per_id(clips)[["precision", "recall", "f1"]] == 0).all(axis=None)
    rows = metrics.decisions_per_id(clips[clips["label"] == "normal"].assign(decision=1))
    assert rows[["precision", "recall", "f1"]].isna().all(axis=None)
    assert set(rows["n_normal"]) == {8}
    assert set(rows["domain"]) == {"none"}
    with pytest.raises(AsdRayError, match=r"its decision is 2, expected 0 \(normal\) or 1 \(anomaly\)"):
        metrics.decisions_per_id(clips.assign(decision=2))
    with pytest.raises(AsdRayError, match="missing: decision"):
        metrics.decisions_per_id(clips.drop(columns="decision"))
