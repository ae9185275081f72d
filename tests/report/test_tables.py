from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from asd_ray import metrics, parquet
from asd_ray.errors import AsdRayError
from asd_ray.report import tables

ALPHA = "method.pretrain.alpha"


def trial_frame() -> pd.DataFrame:
    rows = [
        (0, "complete", 0.6, 0.4, "linear", 10, 5.0, 100.0, 7, ""),
        (1, "failed", None, 0.1, "mlp", 2, 1.0, None, 7, "loss is nan"),
        (2, "complete", 0.8, 0.3, "mlp", 10, 5.0, 100.0, 7, ""),
        (3, "pruned", 0.9, 0.2, "mlp", 4, 2.0, 100.0, 7, ""),
        (4, "complete", 0.8, 0.5, "linear", 10, 5.0, 100.0, 7, ""),
    ]
    columns = ["trial", "status", "objective", ALPHA, "method.pretrain.projection"]
    return pd.DataFrame(rows, columns=[*columns, "epochs", "duration_s", "samples_per_s", "seed", "reason"])


def row_frame(who: dict[str, object], value: float, ids=(("fan", "00"), ("fan", "02"), ("pump", "00"))) -> pd.DataFrame:
    """Rows whose AUC is ``value`` plus 0.1 for the second ID of a machine, pAUC 0.05 lower, and holdout 0.02 lower."""
    rows = [
        {
            **who,
            "split": split,
            "machine": machine,
            "id": number,
            "domain": "none",
            "n_normal": 12,
            "n_anomaly": 8,
            "auc": value + (0.1 if number == "02" else 0) - (0.02 if split == "holdout" else 0),
            "pauc": value - 0.05 - (0.02 if split == "holdout" else 0),
        }
        for split, (machine, number) in itertools.product(metrics.SPLITS, ids)
    ]
    return pd.DataFrame(rows)


def result_frame() -> pd.DataFrame:
    return pd.concat([row_frame({"trial": trial, "seed": 7}, value) for trial, value in ((0, 0.6), (2, 0.8), (4, 0.7))])


def baseline_frame() -> pd.DataFrame:
    return pd.concat([row_frame({"baseline": name}, value) for name, value in (("level", 0.5), ("knn_log_mel", 0.55))])


def test_only_complete_trials_are_ranked_and_ties_go_to_the_lower_number():
    trials = trial_frame()
    assert tables.best_trial(trials) == 2
    assert tables.best_trial(trials.iloc[::-1]) == 2
    assert tables.best_trial(trials[trials["status"] != "complete"]) is None
    undefined = trials.assign(objective=[math.nan, None, math.nan, 0.9, 0.1])
    assert tables.best_trial(undefined) == 4
    assert tables.best_trial(trials.iloc[:0]) is None
    assert tables.best_trial(pd.DataFrame()) is None


def test_trial_table_order_ranks_and_averages():
    table = tables.trial_table(trial_frame().sample(frac=1, random_state=1), result_frame())
    assert list(table["trial"]) == [2, 4, 0, 1, 3]
    assert list(table["rank"][:3]) == [1, 2, 3]
    assert table["rank"][3:].isna().all()
    best = table.iloc[0]
    assert best["select_auc"] == pytest.approx((0.85 + 0.8) / 2)  # fan's mean over two IDs, then over machines
    assert best["holdout_auc"] == pytest.approx((0.83 + 0.78) / 2)
    assert best["holdout_pauc"] == pytest.approx(0.73)
    assert table.loc[3:, ["select_auc", "holdout_auc"]].isna().all(axis=None)
    assert ALPHA in table
    assert "method.pretrain.projection" in table


def test_rows_of_an_unfinished_trial_are_not_averaged():
    results = pd.concat([result_frame(), row_frame({"trial": 3, "seed": 7}, 0.99)])
    table = tables.trial_table(trial_frame(), results).set_index("trial")
    assert math.isnan(table.loc[3, "holdout_auc"])


def test_trial_table_takes_the_mean_over_seeds():
    results = pd.concat([result_frame(), row_frame({"trial": 2, "seed": 8}, 0.6)])
    table = tables.trial_table(trial_frame(), results).set_index("trial")
    assert table.loc[2, "select_auc"] == pytest.approx((0.825 + 0.625) / 2)


def test_machine_table_rows_and_means():
    table = tables.machine_table(result_frame(), baseline_frame(), best=2)
    assert [tuple(row) for row in table[["kind", "machine", "id"]].to_numpy()] == [
        ("id", "fan", "00"),
        ("id", "fan", "02"),
        ("machine", "fan", "mean"),
        ("id", "pump", "00"),
        ("machine", "pump", "mean"),
        ("all", "all", "mean"),
    ]
    np.testing.assert_allclose(table["best_select_auc"], [0.8, 0.9, 0.85, 0.8, 0.8, 0.825])
    np.testing.assert_allclose(table["best_holdout_auc"], [0.78, 0.88, 0.83, 0.78, 0.78, 0.805])
    np.testing.assert_allclose(table["default_holdout_pauc"], 0.53)
    np.testing.assert_allclose(table["level_holdout_auc"].iloc[-1], 0.505)
    np.testing.assert_allclose(table["knn_log_mel_holdout_auc"].iloc[-1], 0.555)
    assert list(table["holdout_n_normal"]) == [12, 12, 24, 12, 12, 36]
    assert list(table["select_n_anomaly"]) == [8, 8, 16, 8, 8, 24]


def test_machine_table_without_a_best_trial_and_with_undefined_ids():
    results = result_frame()
    undefined = (results["split"] == "holdout") & (results["id"] == "02")
    results.loc[undefined, ["auc", "pauc"]] = np.nan
    table = tables.machine_table(results, baseline_frame(), best=None).set_index(["machine", "id"])
    assert table["best_holdout_auc"].isna().all()
    assert math.isnan(table.loc[("fan", "02"), "default_holdout_auc"])
    assert table.loc[("fan", "mean"), "default_holdout_auc"] == pytest.approx(0.58)
    empty = tables.machine_table(results.iloc[:0], baseline_frame().iloc[:0], best=None)
    assert empty.empty
    assert "best_holdout_auc" in empty


def test_machine_table_with_domains_uses_harmonic_means():
    rng = np.random.default_rng(0)
    rows = []
    for split, number, domain in itertools.product(metrics.SPLITS, ("00", "01"), ("source", "target", "all")):
        rows.append((0, 1, split, "fan", number, domain, 5, 10, rng.uniform(0.4, 1), rng.uniform(0.4, 1)))
    results = pd.DataFrame(rows, columns=list(tables.RESULT_COLUMNS))
    table = tables.machine_table(results, baseline_frame().iloc[:0], best=0)
    assert list(table["domain"]) == ["source", "target", "all"] * 2 + ["", ""]
    last = table.iloc[-1]
    official = metrics.averages(results).set_index("split").loc["holdout"]
    assert last["best_holdout_auc"] == pytest.approx(official["auc"])
    assert last["best_holdout_pauc"] == pytest.approx(official["pauc"])
    assert last["holdout_n_normal"] == 10


def test_tables_survive_the_disk(tmp_path):
    frame = trial_frame()
    frame["mixed"] = [True, 0.5, "auto", None, 3]
    frame["flag"] = [True, None, False, True, True]
    path = tmp_path / "trials.parquet"
    parquet.write_table(path, frame)
    back = parquet.read_table(path, tables.TRIAL_COLUMNS)
    pd.testing.assert_frame_equal(back[frame.columns[:4]], frame[frame.columns[:4]], check_dtype=False)
    assert list(back["mixed"][:3]) == ["True", "0.5", "auto"]
    assert back["mixed"].isna().tolist() == [False, False, False, True, False]
    assert back["flag"].tolist()[0] is True
    assert [file.name for file in tmp_path.iterdir()] == ["trials.parquet"]
    assert frame["mixed"][0] is True  # the caller's frame is left as it was


def test_a_failed_write_leaves_the_old_table(tmp_path):
    path = tmp_path / "trials.parquet"
    parquet.write_table(path, trial_frame())
    before = path.read_bytes()
    with pytest.raises(pa.ArrowException):
        parquet.write_table(path, trial_frame().assign(reason=[object()] * 5))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_reading_says_what_is_wrong(tmp_path):
    with pytest.raises(AsdRayError, match=r"trials.parquet: there is no such file"):
        parquet.read_table(tmp_path / "trials.parquet")
    assert list(parquet.read_table(tmp_path / "x.parquet", ["a"], missing_ok=True).columns) == ["a"]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(AsdRayError, match=r"bad.parquet: not a readable parquet file"):
        parquet.read_table(tmp_path / "bad.parquet")
    parquet.write_table(tmp_path / "t.parquet", trial_frame().drop(columns="status"))
    with pytest.raises(AsdRayError, match="missing: status"):
        parquet.read_table(tmp_path / "t.parquet", tables.TRIAL_COLUMNS)
    parquet.write_table(tmp_path / "empty.parquet", pd.DataFrame())
    assert list(parquet.read_table(tmp_path / "empty.parquet", ["a", "b"]).columns) == ["a", "b"]


def test_numbers_as_text():
    assert [tables.percent(value) for value in (1.0, 0.93826, 0, math.nan, None)] == [
        "100.00",
        "93.83",
        "0.00",
        "–",
        "–",
    ]
    values = (4096, 4096.0, 9e-4, 0.123456, True, "mlp", None, math.nan, 65536)
    assert [tables.plain(value) for value in values] == [
        *("4096", "4096", "0.0009", "0.1235", "True", "mlp", "–", "–", "65536")
    ]


@pytest.mark.parametrize("value", [-0.0, -1e-9, 0.0, 1e-9])
def test_there_is_no_negative_zero(value: float) -> None:
    assert tables.percent(value) == "0.00"
    assert tables.signed(value) == "+0.00"
    assert tables.signed(value, 1, 1) == "+0.0"
    assert tables.interval(value, 0.5) == "0.00–50.00"
    assert tables.plain(-0.0) == "0"


def test_files_below_each_other_have_the_key_of_their_file(tmp_path):
    frames = {
        3: pd.DataFrame({"epoch": [1, 2], "loss": [1.0, 0.5]}),
        4: pd.DataFrame({"epoch": [1], "loss": [2], "knn_auc": [0.6]}),  # a column more, and whole numbers
        5: pd.DataFrame(),
    }
    for number, frame in frames.items():
        parquet.write_table(tmp_path / f"{number}.parquet", frame)
    paths = {number: tmp_path / f"{number}.parquet" for number in (3, 4, 5, 6)}  # there is no 6
    together = parquet.read_tables(paths, "trial")
    assert together["trial"].tolist() == [3, 3, 4]
    assert together["loss"].tolist() == [1.0, 0.5, 2.0]
    assert together["knn_auc"].isna().tolist() == [True, True, False]
    assert parquet.read_tables({}, "trial").empty
    (tmp_path / "7.parquet").write_text("no table")
    with pytest.raises(AsdRayError, match=r"7\.parquet: not a readable parquet file"):
        parquet.read_tables({7: tmp_path / "7.parquet"}, "trial")
