"""The Pareto front of a study with several objectives: its trials as a table, and all trials as points."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from asd_ray.config.evaluation import ObjectiveKind
from asd_ray.report.figures.svg import C, svg
from asd_ray.report.findings import Findings
from asd_ray.report.tables import plain
from asd_ray.report.text import Table
from asd_ray.study.objectives import objective_columns

UNITS: dict[ObjectiveKind, tuple[str, float]] = {
    "auc": ("AUC (%)", 100),
    "pauc": ("pAUC (%)", 100),
    "auc_pauc": ("mean of AUC and pAUC (%)", 100),
    "mauc": ("mAUC (%)", 100),
    "latency": ("latency (ms per clip)", 1000),
    "size": ("size (million parameters)", 1e-6),
}
"""Objective -> its name and unit, and the factor from what ``trials.parquet`` holds to that unit."""


def front(findings: Findings) -> Table | None:
    """The trials on the front, the best by the first objective at the top; None with a single objective, or without a
    complete trial."""
    columns, trials = objective_columns(findings.trials), findings.trials
    if not columns or not trials["pareto"].any():
        return None
    rows = trials[trials["pareto"]].sort_values(["objective", "trial"], ascending=[False, True])
    lines = [
        [
            plain(row["trial"]),
            *(_shown(row[column], kind) for column, kind in columns.items()),
            *(plain(row[key]) for key in findings.keys),
        ]
        for _, row in rows.iterrows()
    ]
    header = ["trial", *(UNITS[kind][0] for kind in columns.values()), *findings.keys.values()]
    title = f"Trials of study {findings.name} on the Pareto front, by their values on the select split."
    return Table(f"{title} Synthetic data." if findings.synthetic else title, header, lines)


def note(findings: Findings) -> str:
    """What a reader of the front must know; empty where there is none."""
    columns = objective_columns(findings.trials)
    if not columns:
        return ""
    names = [UNITS[kind][0].split(" (")[0] for kind in columns.values()]
    text = (
        f"No other trial is at least as good in {', '.join(names[:-1])} and {names[-1]} and better in one of them. "
        f"Quality is of the select split; {names[0]}, the first objective, ranks the trials and chose the best."
    )
    if "latency" in columns.values():
        text += " A latency is the time of one CPU thread for one clip, and holds for the machine that ran the trial."
    return text


def scatter(trials: pd.DataFrame, best: int | None) -> str:
    """Complete trials by their first two objectives as an ``<svg>``; those on the front of all objectives stand out.

    Args:
        trials: the table of trials of a study with several objectives.
        best: number of the best trial.
    """
    (x_column, x_kind), (y_column, y_kind) = list(objective_columns(trials).items())[:2]
    complete = trials[trials["status"] == "complete"]
    x, y = (
        complete[column].to_numpy(dtype=np.float64) * UNITS[kind][1]
        for column, kind in ((x_column, x_kind), (y_column, y_kind))
    )
    number, on_front = complete["trial"].to_numpy(), complete["pareto"].to_numpy(dtype=bool)

    def draw(axes: Axes) -> None:
        order = np.flatnonzero(on_front)[np.lexsort((y[on_front], x[on_front]))]
        if len(objective_columns(trials)) == 2:  # the front of three is no line in the plane of two
            # The first is always the better the larger: up to a point's x, that point is the best there is.
            axes.step(x[order], y[order], where="pre", color=C["accent"], lw=1.2, zorder=1)
        for chosen, marker, extent, colour, label in (
            (~on_front & (number != 0), "o", 36, "muted", "trial"),
            (on_front & (number != best) & (number != 0), "o", 56, "accent", "on the front"),
            (number == 0, "D", 48, "default", "default"),
            ((number == best) & (number != 0), "*", 150, "accent", "best by the first objective"),
        ):
            if chosen.any():
                axes.scatter(
                    x[chosen], y[chosen], marker=marker, s=extent, color=C[colour], edgecolors=C["card"], label=label
                )
        axes.set(xlabel=UNITS[x_kind][0], ylabel=UNITS[y_kind][0])
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.2, handletextpad=0.4)

    return svg("Pareto front", draw, (920, 340), top=34, left=70)


def _shown(value: float, kind: ObjectiveKind) -> str:
    return f"{value * UNITS[kind][1]:.{3 if kind == 'size' else 2}f}"
