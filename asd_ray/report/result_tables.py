"""Tables of a report: averages, machines, kinds of score, faults, trials, seeds, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from asd_ray import metrics
from asd_ray.config.evaluation import ObjectiveKind
from asd_ray.metrics.intervals import Estimate, machines_of, mean_of
from asd_ray.report.findings import DEFAULT, LABELS, Findings
from asd_ray.report.tables import SYSTEMS, interval, percent, plain, top_systems, with_clips
from asd_ray.report.text import Table, format_seconds
from asd_ray.study.objectives import objective_columns

METRICS = {"auc": "AUC", "pauc": "pAUC"}
SHORT = {"best": "best", "default": "default", "level": "level", "knn_log_mel": "k-NN"}
ALL_COLUMNS = [(system, metric) for system in SYSTEMS for metric in METRICS]
UNITS: dict[ObjectiveKind, tuple[str, float]] = {
    "auc": ("AUC (%)", 100),
    "pauc": ("pAUC (%)", 100),
    "auc_pauc": ("mean of AUC and pAUC (%)", 100),
    "mauc": ("mAUC (%)", 100),
    "latency": ("latency (ms per clip)", 1000),
    "size": ("size (million parameters)", 1e-6),
}
"""Objective -> its name and unit, and the factor from the unit of ``trials.parquet`` to that unit."""


def spread(mean: float, sd: float) -> str:
    """``68.67 ± 1.20``; the mean alone if there is no standard deviation."""
    return percent(mean) + ("" if pd.isna(sd) else f" ± {percent(sd)}")


def with_interval(row: Mapping[str, float], metric: str) -> list[str]:
    """Two cells: a metric with its spread over seeds, and its interval."""
    return [spread(row[metric], row[f"{metric}_sd"]), interval(row[f"{metric}_low"], row[f"{metric}_high"])]


def _cells(row: Mapping[str, float]) -> list[str]:
    """AUC, interval, pAUC, interval, mAUC and the pooled variant."""
    rest = [spread(row["mauc"], row["mauc_sd"]), percent(row["pooled_auc"]), percent(row["pooled_pauc"])]
    return [*with_interval(row, "auc"), *with_interval(row, "pauc"), *rest]


def averages(
    estimates: Mapping[str, Estimate],
    labels: Mapping[str, str],
    title: str,
    others: Mapping[Any, Mapping[Any, float]] | None = None,
) -> Table:
    """Averages over all machines with intervals, mAUC and the pooled variant, one line per system.

    Args:
        estimates: system -> its estimates.
        labels: system -> its name in the table.
        title: of the table.
        others: system without scores of clips -> its ``auc``, ``pauc`` and ``mauc``.
    """
    header = ["system", "AUC", "95 %", "pAUC", "95 %", "mAUC", "pooled AUC", "pooled pAUC", "seeds"]
    lines = []
    for name, estimate in estimates.items():
        lines.append([labels[name], *_cells(mean_of(estimate.table)), str(estimate.n_seeds)])
    for name, values in (others or {}).items():
        auc, pauc, mauc = (percent(values[metric]) for metric in ("auc", "pauc", "mauc"))
        lines.append([labels[name], auc, "", pauc, "", mauc, "", "", ""])
    return Table(title, header, lines, 1)


def study_averages(findings: Findings) -> Table:
    """:func:`averages` of the best trial, the default and the baselines on the holdout split."""
    estimates = findings.evidence.estimates
    rows = findings.baselines[~findings.baselines["baseline"].isin(estimates)]
    means = metrics.averages(rows, ("baseline", "split"))
    others = means[means["split"] == "holdout"].set_index("baseline").to_dict("index")
    title = (
        f"Averages over all machines on the holdout split of study {findings.name}, in percent: mean ± standard "
        "deviation over seeds, where there are several, and 95 % bootstrap interval over clips."
    )
    return replace(averages(estimates, LABELS, _labelled(findings, title), others), chosen=0)


def machines(
    findings: Findings,
    split: str,
    columns: Sequence[tuple[str, str]] = ALL_COLUMNS,
    joint: str = " ",
    spreads: bool = True,
) -> Table:
    """Every machine and ID; the highest value of each metric is bold.

    Args:
        findings: of the study.
        split: of the clips.
        columns: (system, metric).
        joint: between a column's system and metric.
        spreads: add the standard deviation over seeds to a mean (holdout split).
    """
    who = ["machine", "id", *(["domain"] if findings.domains else [])]
    header = [*who, "clips", *(f"{SHORT[system]}{joint}{METRICS[metric]}" for system, metric in columns)]
    lines, bold, rules, notes = [], set(), set(), {}
    shown = with_clips(findings.machines, split)
    known = findings.evidence.estimates if split == "holdout" else {}
    for number, (_, row) in enumerate(shown.iterrows()):
        counts = f"{row[f'{split}_n_normal']}+{row[f'{split}_n_anomaly']}"
        key = (row["machine"], row["id"], row["domain"])
        values = []
        for place, (system, metric) in enumerate(columns, start=len(who) + 1):
            sd = math.nan
            if system in known and key in known[system].table.index:
                found = known[system].table
                sd = float(found[f"{metric}_sd"][key]) if spreads else sd
                notes[number, place] = interval(found[f"{metric}_low"][key], found[f"{metric}_high"][key])
            values.append(spread(row[f"{system}_{split}_{metric}"], sd))
        lines.append([*(row[name] for name in who), counts, *values])
        tops = {(system, metric) for metric in METRICS for system in top_systems(row, split, metric)}
        bold |= {(number, len(who) + 1 + place) for place, column in enumerate(columns) if column in tops}
        if row["kind"] == "all" or (number and row["machine"] != shown["machine"].iloc[number - 1]):
            rules.add(number)
    title = f"AUC and pAUC in percent on the {split} split of study {findings.name}; clips: normal+anomalous."
    if spreads and any(estimate.n_seeds > 1 for estimate in known.values()):
        title += " Mean ± standard deviation over seeds."
    return Table(_labelled(findings, title), header, lines, len(who), bold, rules, notes)


def by_machine(findings: Findings) -> Table:
    """The best trial on the holdout split by machine: spread over seeds, intervals, mAUC and the pooled variant."""
    header = ["machine", "AUC", "95 %", "pAUC", "95 %", "mAUC", "pooled AUC", "pooled pAUC"]
    table = findings.evidence.estimates["best"].table
    lines = [[machine, *_cells(mean_of(table, machine))] for machine in machines_of(table)]
    return Table("", header, lines, 1, rules={len(lines) - 1})


def kinds(findings: Findings) -> Table:
    """Every kind of score of the best trial on both splits; the kind in use is bold."""
    header = ["score", *(f"{split} {name}" for split in ("select", "holdout") for name in METRICS.values()), "used"]
    columns = [f"{split}_{metric}" for split in ("select", "holdout") for metric in METRICS]
    table = findings.evidence.kinds
    lines = [
        [kind, *(percent(row[name]) for name in columns), "yes" if kind == findings.score else ""]
        for kind, row in table.iterrows()
    ]
    bold = {(number, 0) for number, kind in enumerate(table.index) if kind == findings.score}
    title = f"Every kind of score of trial {findings.best} of study {findings.name}, AUC and pAUC in percent."
    return Table(_labelled(findings, title), header, lines, 1, bold)


def faults(table: pd.DataFrame) -> Table:
    """AUC by machine and kind of fault, of :func:`asd_ray.report.figures.mistakes.fault_table`."""
    systems = [system for system in SYSTEMS if system in table]
    header = ["machine", "by", "fault", "anomalous clips", *(LABELS[system] for system in systems)]
    lines = [
        [row["machine"], row["what"], row["name"].replace("_", " "), str(row["n_anomaly"])]
        + [percent(row[system]) for system in systems]
        for row in table.to_dict("records")
    ]
    return Table("AUC by kind of fault on the holdout split, in percent.", header, lines, 3)


def trials(findings: Findings) -> Table:
    """Complete trials in the order of their objective."""
    header = ["rank", "trial", "objective", "select AUC", "select pAUC", "holdout AUC", "holdout pAUC"]
    header += [*findings.keys.values(), "epochs", "time", "clips/s"]
    lines, notes, chosen = [], {}, None
    for number, (_, row) in enumerate(findings.complete.iterrows()):
        shown = [row[name] for name in ("objective", "select_auc", "select_pauc", "holdout_auc", "holdout_pauc")]
        ends = [*_cost(findings, row), plain(row["samples_per_s"], 3)]
        lines.append([str(row["rank"]), str(row["trial"]), *map(percent, shown), *ends])
        if row["trial"] == DEFAULT:
            notes[number, 1] = "default"
        if row["trial"] == findings.best:
            notes[number, 1], chosen = "best" if row["trial"] != DEFAULT else "best, default", number
    return Table(f"Complete trials of study {findings.name}.", header, lines, notes=notes, chosen=chosen)


def unranked(findings: Findings) -> Table:
    """Trials that are not complete, with the reason."""
    header = ["trial", "status", "reason", *findings.keys.values(), "epochs", "time"]
    rows = findings.unranked.iterrows()
    lines = [[str(row["trial"]), row["status"], row["reason"], *_cost(findings, row)] for _, row in rows]
    return Table(f"Trials of study {findings.name} that are not ranked.", header, lines, 3)


def _cost(findings: Findings, row: pd.Series) -> list[str]:
    """A trial's searched values, epochs and time."""
    return [*(plain(row[key]) for key in findings.keys), plain(row["epochs"]), format_seconds(row["duration_s"])]


def pareto_front(findings: Findings) -> Table | None:
    """The trials on the Pareto front in descending order of the first objective.

    None with a single objective, or without a complete trial.
    """
    columns, trials = objective_columns(findings.trials), findings.trials
    if not columns or not trials["pareto"].any():
        return None
    rows = trials[trials["pareto"]].sort_values(["objective", "trial"], ascending=[False, True])
    lines = []
    for _, row in rows.iterrows():
        values = [f"{row[column] * UNITS[kind][1]:.{3 if kind == 'size' else 2}f}" for column, kind in columns.items()]
        lines.append([plain(row["trial"]), *values, *(plain(row[key]) for key in findings.keys)])
    header = ["trial", *(UNITS[kind][0] for kind in columns.values()), *findings.keys.values()]
    title = f"Trials of study {findings.name} on the Pareto front, by their values on the select split."
    return Table(_labelled(findings, title), header, lines)


def best_values(findings: Findings) -> dict[str, str]:
    """The best trial's searched keys and values; none without a best trial."""
    if findings.best is None:
        return {}
    row = findings.trials.set_index("trial").loc[findings.best]
    return {key: plain(row[key]) for key in findings.keys}


def seeds(findings: Findings) -> Table:
    """Mean and standard deviation over seeds, of the trials with several."""
    header = ["trial", "seeds", "objective (select)", "holdout AUC", "holdout pAUC", "holdout mAUC"]
    lines = [
        [str(row["trial"]), str(row["n_seeds"])]
        + [spread(row[f"{name}_mean"], row[f"{name}_sd"]) for name in ("objective", "auc", "pauc", "mauc")]
        for row in findings.seeds.to_dict("records")
    ]
    return Table(f"Trials of study {findings.name} with several seeds: mean ± standard deviation.", header, lines)


def to_paste(findings: Findings) -> list[tuple[str, Table]]:
    """Tables for a paper, with their labels."""
    found = []
    if findings.evidence.estimates:
        found.append(("averages", study_averages(findings)))
    found.append(("machines", machines(findings, "holdout")))
    if len(findings.evidence.kinds):
        found.append(("scores", kinds(findings)))
    return found


def _labelled(findings: Findings, title: str) -> str:
    return f"{title} Synthetic data." if findings.synthetic else title
