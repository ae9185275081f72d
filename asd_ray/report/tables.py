"""Columns of a study's tables, the best trial, the tables of trials and of machines, and numbers as text.

* ``trials.parquet``: one row per trial: ``trial``, ``status``, ``objective``, every searched key (empty where its
  condition does not hold), ``epochs``, ``duration_s``, ``samples_per_s``, ``seed``, ``reason`` (of a trial that failed
  or was pruned). A study with several objectives has a column ``objective_<kind>`` for each, and ``pareto``: true for a
  complete trial on the front. ``objective`` is the first of them.
* ``results.parquet``: ``trial``, ``seed`` and :data:`asd_ray.metrics.ROW_COLUMNS`, one row per trial x seed x split x
  machine x ID (x domain).
* ``baselines.parquet``: the same with ``baseline`` (``level``, ``knn_log_mel``) instead of ``trial`` and ``seed``.

Values are fractions of 1 in every frame; :func:`percent` and :func:`plain` format them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from asd_ray import metrics

TRIAL_COLUMNS = ("trial", "status", "objective", "epochs", "duration_s", "samples_per_s", "seed")
RESULT_COLUMNS = ("trial", "seed", *metrics.ROW_COLUMNS)
BASELINE_COLUMNS = ("baseline", *metrics.ROW_COLUMNS)
BASELINES = ("level", "knn_log_mel")
SYSTEMS = ("best", "default", *BASELINES)
UNDEFINED = "–"


def ranked(trials: pd.DataFrame) -> pd.DataFrame:
    """The complete trials in descending order of their objective, of equals the lower number first."""
    if trials.empty:  # a study before its first trial ended may lack the columns, too
        return trials
    complete = trials[(trials["status"] == "complete") & trials["objective"].notna()]
    return complete.sort_values(["objective", "trial"], ascending=[False, True])


def best_trial(trials: pd.DataFrame) -> int | None:
    """The complete trial with the highest objective, of equals the lowest number; None if no trial is complete."""
    complete = ranked(trials)
    return None if complete.empty else int(complete["trial"].iloc[0])


def searched_keys(trials: pd.DataFrame) -> list[str]:
    """The searched keys in a table of trials: the columns with a dot in their name."""
    return [str(column) for column in trials if "." in str(column)]


def trial_table(trials: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Trials in descending order of their objective, with their averages on both splits.

    Returns:
        ``rank, trial, status, objective``, ``{select,holdout}_{auc,pauc}`` (the official average of the data, mean over
        seeds), the searched keys, ``epochs, duration_s, samples_per_s, seed, reason``. Trials that are not complete
        come last, in the order of their numbers, without rank and averages.
    """
    complete = ranked(trials)
    others = trials[~trials["trial"].isin(complete["trial"])].sort_values("trial")
    table = pd.concat([complete, others]) if len(complete) and len(others) else (complete if len(complete) else others)
    rank = [*range(1, len(complete) + 1), *[pd.NA] * len(others)]
    table = table.assign(rank=pd.array(rank, dtype="Int64")).set_index("trial", drop=False)
    results = results[results["trial"].isin(complete["trial"])]
    for split in metrics.SPLITS:
        of_split = results[results["split"] == split]
        means = metrics.averages(of_split, ("trial", "seed")).groupby("trial")[["auc", "pauc"]].mean()
        table[f"{split}_auc"], table[f"{split}_pauc"] = means["auc"], means["pauc"]
    table["reason"] = table["reason"].fillna("") if "reason" in table else ""
    averages = [f"{split}_{metric}" for split in metrics.SPLITS for metric in ("auc", "pauc")]
    first, last = ["rank", "trial", "status", "objective"], ["epochs", "duration_s", "samples_per_s", "seed", "reason"]
    return table[[*first, *averages, *searched_keys(trials), *last]].reset_index(drop=True)


def machine_table(results: pd.DataFrame, baselines: pd.DataFrame, best: int | None, default: int = 0) -> pd.DataFrame:
    """Metrics of the best trial, the default and the baselines for every machine and ID, with means.

    Returns:
        One row per machine x ID (x domain); after each machine a row ``id = "mean"``; a last row ``machine = "all"``.
        Means follow the rule of the data (:func:`asd_ray.metrics.averages`). Columns: ``kind`` (``id``, ``machine``,
        ``all``), ``machine, id, domain``, ``<split>_n_normal, <split>_n_anomaly``, and
        ``<system>_<split>_{auc,pauc}`` for the systems ``best, default, level, knn_log_mel`` and the splits
        ``holdout, select``. Values of a trial are means over seeds; NaN if undefined or if there is no such trial.
    """
    parts = {
        "best": _with_means(results[results["trial"] == best], ["seed", "split"]),
        "default": _with_means(results[results["trial"] == default], ["seed", "split"]),
        **{name: _with_means(baselines[baselines["baseline"] == name], ["split"]) for name in BASELINES},
    }
    key = ["kind", "machine", "id", "domain"]
    together = pd.concat(parts.values(), ignore_index=True)
    table = together[key].drop_duplicates().set_index(key, drop=False)
    table = table.loc[sorted(table.index, key=_row_order)]
    for split in reversed(metrics.SPLITS):
        counts = together[together["split"] == split].groupby(key)[["n_normal", "n_anomaly"]].max()
        for column in counts:
            table[f"{split}_{column}"] = counts[column].reindex(table.index).fillna(0).astype(int)
        for system, part in parts.items():
            values = part[part["split"] == split].groupby(key)[["auc", "pauc"]].mean().reindex(table.index)
            table[f"{system}_{split}_auc"], table[f"{system}_{split}_pauc"] = values["auc"], values["pauc"]
    return table.reset_index(drop=True)


def with_clips(machines: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of :func:`machine_table` for one split.

    All rows if both splits share IDs. If the splits have different IDs (development and evaluation IDs of DCASE 2020),
    only the rows with clips.
    """
    there = {name: machines[f"{name}_n_normal"] + machines[f"{name}_n_anomaly"] > 0 for name in metrics.SPLITS}
    shared = (machines["kind"] == "id") & there["select"] & there["holdout"]
    return machines if shared.any() else machines[there[split]]


def without_clips(machines: pd.DataFrame, split: str) -> list[str]:
    """IDs without a clip in a split, as ``fan 00``."""
    ids, there = machines[machines["kind"] == "id"], with_clips(machines, split)
    absent = ids[~(ids["machine"] + " " + ids["id"]).isin(there["machine"] + " " + there["id"])]
    return list(dict.fromkeys(absent["machine"] + " " + absent["id"]))


def top_systems(row: pd.Series, split: str, metric: str) -> list[str]:
    """The systems with the highest printed value in a row of :func:`machine_table`."""
    printed = {system: percent(row[f"{system}_{split}_{metric}"]) for system in SYSTEMS}
    values = {system: float(text) for system, text in printed.items() if text != UNDEFINED}
    return [system for system, value in values.items() if value == max(values.values())]


def percent(value: Any) -> str:
    """A fraction as percent with two decimals; ``–`` if undefined."""
    return UNDEFINED if pd.isna(value) else f"{_rounded(100 * value, 2):.2f}"


def signed(value: float, digits: int = 2, scale: float = 100) -> str:
    """A difference of fractions in points, with its sign: ``+2.67``, ``−0.40``; never a negative zero."""
    return UNDEFINED if pd.isna(value) else f"{_rounded(scale * value, digits):+.{digits}f}".replace("-", "−")


def interval(low: Any, high: Any) -> str:
    """The bounds of an interval in percent, ``61.20–74.05``; empty if undefined."""
    return "" if pd.isna(low) or pd.isna(high) else f"{percent(low)}–{percent(high)}"


def plain(value: Any, digits: int = 4) -> str:
    """A searched value or count as short text: ``0.0009``, ``4096``, ``linear``; ``–`` for no value."""
    if value is None or pd.isna(value):
        return UNDEFINED
    if isinstance(value, (bool, np.bool_, str)):
        return str(value)
    return f"{int(value)}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.{digits}g}"


def _rounded(value: Any, digits: int) -> float:
    return round(float(value), digits) + 0.0  # turns -0 into 0


def _with_means(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Rows of IDs, then of machine means, then of the overall mean."""
    sections = rows[rows["domain"].isin(metrics.SECTION)]
    counts = ["n_normal", "n_anomaly"]
    machines = metrics.per_machine(rows, by).set_index([*by, "machine"])
    machines[counts] = sections.groupby([*by, "machine"])[counts].sum()
    overall = metrics.averages(rows, by).set_index(by)
    overall[counts] = sections.groupby(by)[counts].sum()
    return pd.concat(
        [
            rows.assign(kind="id"),
            machines.reset_index().assign(kind="machine", id="mean", domain=""),
            overall.reset_index().assign(kind="all", machine="all", id="mean", domain=""),
        ],
        ignore_index=True,
    )


def _row_order(key: tuple[str, str, str, str]) -> tuple[bool, str, bool, str, bool, str]:
    kind, machine, machine_id, domain = key
    return kind == "all", machine, kind == "machine", machine_id, domain in metrics.SECTION, domain
